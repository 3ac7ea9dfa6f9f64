"""Timing of measured expressions: the times of known ramps are found."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.recipes.fit_expression_timing import measure_timing

FRAMES, FIRST, LAST = 200, 75, 150  # the voice sounds from 1.5 to 3.0 s


def performance(rise: tuple[float, float], fall: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Units that ramp up and down between the given seconds, and loudness in dB."""
    times = (np.arange(FRAMES) + 0.5) / 50
    units = np.interp(times, [*rise, *fall], [0.2, 2.2, 2.2, 0.2])
    decibels = np.full(FRAMES, -70.0)
    decibels[FIRST:LAST] = -20
    return units, decibels


def test_the_timing_of_a_ramp_is_measured():
    units, decibels = performance((1.2, 1.6), (2.8, 3.4))
    found = measure_timing(units, units, decibels)
    np.testing.assert_allclose(found.rise, (-0.26, -0.1, 0.06), atol=0.05)
    np.testing.assert_allclose(found.fall, (-0.14, 0.1, 0.34), atol=0.05)
    assert found.pre_speech_share == pytest.approx(0.2 / 2.2, abs=0.05)


def test_a_face_without_motion_has_no_timing():
    _, decibels = performance((1.2, 1.6), (2.8, 3.4))
    still = np.full(FRAMES, 1.5)
    found = measure_timing(still, still, decibels)
    assert np.isnan([*found.rise, *found.fall, found.brow_accent]).all()
    assert found.pre_speech_share == pytest.approx(1.0)
