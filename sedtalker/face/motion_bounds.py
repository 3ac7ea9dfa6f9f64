"""Bounds of the motion of vertices in one pass over the memory, to check large corpora at the speed of a disk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.kernels import compiler

Float = NDArray[np.float32]


class MotionBounds(NamedTuple):
    """Extremes of every coordinate (N,) in a block of frames, in the unit of the positions."""

    moved: Float  # (T, N) displacements from the template
    low: Float  # (N,) least displacement
    high: Float  # (N,) largest displacement
    step: Float  # (N,) largest change between two frames
    finite: bool


def motion_bounds(frames: Float, template: Float) -> MotionBounds:
    """Displacements of positions (T, V, 3) from a template (V, 3), and their extremes."""
    flat = np.ascontiguousarray(frames, np.float32).reshape(len(frames), -1)
    rest = np.ascontiguousarray(template, np.float32).reshape(-1)
    moved = np.empty_like(flat)
    low, high, step, undefined = (np.zeros(len(rest), np.float32) for _ in range(4))
    _measure(flat, rest, moved, low, high, step, undefined)
    return MotionBounds(moved, low, high, step, not undefined.any())


@compiler(nogil=True, error_model="numpy")
def _measure(
    frames: Float, template: Float, moved: Float, low: Float, high: Float, step: Float, undefined: Float
) -> None:
    """Fill displacements and extremes; `undefined` is not zero where a coordinate is not finite.

    All loops run over coordinates without branches, so that they are vectorised.
    """
    for n in range(template.size):
        difference = frames[0, n] - template[n]
        moved[0, n] = difference
        low[n] = difference
        high[n] = difference
        undefined[n] = difference - difference
    for t in range(1, frames.shape[0]):
        for n in range(template.size):
            difference = frames[t, n] - template[n]
            change = abs(difference - moved[t - 1, n])
            moved[t, n] = difference
            low[n] = difference if difference < low[n] else low[n]
            high[n] = difference if difference > high[n] else high[n]
            step[n] = change if change > step[n] else step[n]
            undefined[n] += difference - difference
