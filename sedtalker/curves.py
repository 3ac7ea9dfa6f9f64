"""Curves over time: smoothed, and read at another rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def smooth(curves: Float, frames: float) -> Float:
    """Curves (T,) or (T, K) under a Gaussian of this standard deviation in frames, the ends held."""
    reach = max(1, math.ceil(3 * frames))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / frames))
    kernel /= kernel.sum()
    padded = np.pad(curves, [(reach, reach)] + [(0, 0)] * (curves.ndim - 1), mode="edge")
    smoothed = np.zeros(curves.shape)
    for shift, weight in enumerate(kernel):  # in place: all the shifted curves of an hour would be a gigabyte
        smoothed += weight * padded[shift : shift + len(curves)]
    return smoothed.astype(np.float32)


def resample(curves: Float, fps: float, rate: float, count: int | None = None) -> Float:
    """Curves (T,) or (T, K) of frames at `fps`, read at the middles of `count` frames at `rate`, linearly, ends held.

    Without `count` the frames cover what the curves cover.
    """
    times = (np.arange(max(1, round(len(curves) / fps * rate)) if count is None else count) + 0.5) / rate
    known = (np.arange(len(curves)) + 0.5) / fps
    if curves.ndim == 1:
        return np.interp(times, known, curves).astype(np.float32)
    return np.stack([np.interp(times, known, column) for column in curves.T], axis=1).astype(np.float32)


def orthonormal(motions: Float) -> Float:
    """Rigid motions (T, 4, 4) with the rotations of which two were mixed made rotations again; changes its argument."""
    left, _, right = np.linalg.svd(motions[:, :3, :3])
    motions[:, :3, :3] = left @ right
    return motions


def resample_blocks(blocks: Iterable[Float], fps: float, rate: float) -> Iterator[Float]:
    """`resample` of curves that come in blocks (n, K): each frame as soon as the two it lies between are there."""
    held: Float | None = None
    first = made = 0  # frames: the number of held[0], and how many are given out
    for block in blocks:
        held = block if held is None else np.concatenate([held, block])
        known = first + len(held)
        ready = math.floor((known - 0.5) * rate / fps - 0.5 + 1e-9) + 1
        if ready > made:
            yield _read(held, first, np.arange(made, ready), fps, rate)
            made = ready
        dropped = max(0, min(len(held) - 1, math.floor((made + 0.5) * fps / rate - 0.5) - first))
        held, first = held[dropped:], first + dropped
    if held is not None:
        count = max(1, round((first + len(held)) / fps * rate))
        if count > made:
            yield _read(held, first, np.arange(made, count), fps, rate)


def _read(held: Float, first: int, frames: NDArray[np.int64], fps: float, rate: float) -> Float:
    known = (np.arange(len(held)) + first + 0.5) / fps
    return np.stack([np.interp((frames + 0.5) / rate, known, column) for column in held.T], axis=1).astype(np.float32)
