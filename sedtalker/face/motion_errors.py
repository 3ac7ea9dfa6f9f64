"""Mean errors of predicted motion in one pass over the memory, to measure large test sets."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.kernels import compiler

Float = NDArray[np.floating]


class MeanErrors(NamedTuple):
    """Means over frames and vertices, computed in float64; d is the vector from the true to the predicted position."""

    distance: float  # |d|, metres
    squared: float  # |d|^2, square metres
    velocity: float  # |delta d|, metres per frame
    acceleration: float  # |delta^2 d|, metres per frame squared
    change: float  # |delta pred|, metres per frame


def mean_errors(pred: Float, truth: Float) -> MeanErrors:
    """Errors of positions (T, V, 3) in metres, T at least 3."""
    frames, vertices = pred.shape[:2]
    sums = _sum_errors(np.ascontiguousarray(pred), np.ascontiguousarray(truth))
    counts = vertices * np.array([frames, frames, frames - 1, frames - 2, frames - 1])
    return MeanErrors(*(sums / counts).tolist())


@compiler(nogil=True, error_model="numpy")
def _sum_errors(pred: Float, truth: Float) -> NDArray[np.float64]:
    """Sums (5,) of the terms of `MeanErrors`."""
    total = np.zeros(5)
    for t in range(pred.shape[0]):
        part = np.zeros(5)  # of a frame: smaller sums are rounded less
        for v in range(pred.shape[1]):
            here = velocity = acceleration = change = 0.0
            for axis in range(3):
                now = np.float64(pred[t, v, axis]) - truth[t, v, axis]
                here += now * now
                if t > 0:
                    before = np.float64(pred[t - 1, v, axis]) - truth[t - 1, v, axis]
                    moved = np.float64(pred[t, v, axis]) - pred[t - 1, v, axis]
                    velocity += (now - before) * (now - before)
                    change += moved * moved
                    if t > 1:
                        earlier = np.float64(pred[t - 2, v, axis]) - truth[t - 2, v, axis]
                        bend = now - 2 * before + earlier
                        acceleration += bend * bend
            part[0] += sqrt(here)
            part[1] += here
            part[2] += sqrt(velocity)
            part[3] += sqrt(acceleration)
            part[4] += sqrt(change)
        total += part
    return total
