"""Problems that the checks find in sequences with common mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from vertex_corpora import VERTICES, motion, template

from sedtalker.data.preflight import (
    as_frames,
    likeliest_rate,
    motion_problem,
    sound_problem,
    template_problem,
)
from sedtalker.errors import DataError

REST = template()
GOOD = motion(REST, 30)


def test_a_good_sequence_has_no_problem() -> None:
    assert template_problem(REST) is None
    assert motion_problem(as_frames(GOOD, VERTICES), REST) is None
    np.testing.assert_array_equal(as_frames(GOOD.reshape(30, -1), VERTICES), GOOD)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (GOOD.transpose(0, 2, 1), "swapped axes"),
        (GOOD.transpose(1, 0, 2), "swapped axes"),
        (GOOD.reshape(30, -1).T, "swapped axes"),
        (GOOD[:, :-1], f"wrong topology: .* {VERTICES - 1} vertices"),
        (GOOD[:, :-1].reshape(30, -1), f"wrong topology: .* {VERTICES - 1} vertices"),
        (GOOD[0], "one frame alone"),
        (GOOD[:1], "1 frames"),
        ((GOOD * 1000).astype(int), "not floating point"),
    ],
)
def test_shapes(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_frames(array, VERTICES)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (GOOD * 1000, "another unit: 1e\\+03 times"),
        (GOOD - REST, "displacements, not positions"),
        (GOOD[..., [0, 2, 1]], "swapped axes: it fits the template as x z y"),
        (GOOD * [1, -1, 1], "swapped axes: it fits the template as x -y z"),
        (GOOD[:, ::-1], "another order of vertices"),
        (GOOD + np.array([0, 0.3, 0]), r"moved by \(-?0\.000, 0\.300, -?0\.000\)"),
        (np.where(np.arange(30)[:, None, None] == 7, np.nan, GOOD), "NaN or infinity in 1 frames, the first is 7"),
        (GOOD + 0.2 * (np.arange(30) == 20)[:, None, None], "out of range: vertex .* in frame 20"),
        (GOOD + 0.04 * (np.arange(30) == 20)[:, None, None] - 0.04 * (np.arange(30) == 21)[:, None, None], "a jump of"),
    ],
)
def test_motion(frames: np.ndarray, message: str) -> None:
    problem = motion_problem(frames, REST)
    assert problem is not None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)


def test_units_of_a_template() -> None:
    assert "millimetres" in str(template_problem(REST * 1000)) and "--scale 0.001" in str(template_problem(REST * 1000))
    assert "centimetres" in str(template_problem(REST * 100))
    assert "not a template" in str(template_problem(REST.T))


def test_sound_against_frames() -> None:
    assert sound_problem(60, 30, 2.1) is None
    assert "it would fit 60 Hz" in str(sound_problem(240, 30, 4.0))
    assert "use the recording" in str(sound_problem(240, 30, 1.7))
    assert likeliest_rate([(120, 2.0), (61, 1.0)], (60.0, 30.0)) == 60.0
    assert likeliest_rate([(60, 2.0)], (60.0, 30.0)) == 30.0
