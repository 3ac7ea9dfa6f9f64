"""Curves over time: smoothed, and read at another rate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def smooth(curves: Float, frames: float) -> Float:
    """Curves (T,) or (T, K) under a Gaussian of this standard deviation in frames, the ends held."""
    reach = max(1, math.ceil(3 * frames))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / frames))
    kernel /= kernel.sum()
    padded = np.pad(curves, [(reach, reach)] + [(0, 0)] * (curves.ndim - 1), mode="edge")
    moved = [weight * padded[shift : shift + len(curves)] for shift, weight in enumerate(kernel)]
    return np.sum(moved, axis=0).astype(np.float32)


def resample(curves: Float, fps: float, rate: float) -> Float:
    """Curves (T,) or (T, K) of frames at `fps`, read at the middles of frames at `rate`, linearly."""
    count = max(1, round(len(curves) / fps * rate))
    times = (np.arange(count) + 0.5) / rate
    known = (np.arange(len(curves)) + 0.5) / fps
    if curves.ndim == 1:
        return np.interp(times, known, curves).astype(np.float32)
    return np.stack([np.interp(times, known, column) for column in curves.T], axis=1).astype(np.float32)
