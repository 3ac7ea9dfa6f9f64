"""Smoothing, dilation and resampling against scipy's and numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.curves import dilate, gaussian, interpolate_frames, resample, smooth

ndimage = pytest.importorskip("scipy.ndimage")


@pytest.mark.parametrize("frames", (0.4, 2.0, 7.5))
@pytest.mark.parametrize(("ends", "mode"), (("edge", "nearest"), ("symmetric", "reflect")))
@pytest.mark.parametrize("count", (3, 100))
def test_gaussian(frames: float, ends: str, mode: str, count: int) -> None:
    curves = np.random.default_rng(0).normal(size=(count, 4))
    reach = max(1, int(np.ceil(3 * frames)))
    wanted = ndimage.gaussian_filter1d(curves, frames, axis=0, mode=mode, radius=reach)
    np.testing.assert_allclose(gaussian(curves, frames, reach, ends), wanted, atol=1e-12)


def test_smoothing_by_zero_has_no_effect() -> None:
    curves = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    np.testing.assert_array_equal(smooth(curves, 0.0), curves)


@pytest.mark.parametrize("count", (1, 3, 60))
@pytest.mark.parametrize("frames", (0, 1, 4))
def test_dilate(count: int, frames: int) -> None:
    mask = np.random.default_rng(count).random(count) < 0.2
    wanted = ndimage.binary_dilation(mask, np.ones(2 * frames + 1, bool))
    np.testing.assert_array_equal(dilate(mask, frames), wanted)


def test_interpolate_frames_equals_resample() -> None:
    curves = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    places = (np.arange(40) + 0.5) / 24 * 30 - 0.5
    np.testing.assert_allclose(interpolate_frames(curves, places), resample(curves, 30, 24, 40), atol=1e-5)
    np.testing.assert_array_equal(interpolate_frames(curves[:1], places), np.repeat(curves[:1], 40, axis=0))
    np.testing.assert_array_equal(interpolate_frames(curves, np.array([-3.0, 80.0])), curves[[0, -1]])
