"""Curves over time: smoothing, dilation, and reading at another rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_LEAST_DEVIATION = 1e-3  # frames; a narrower Gaussian changes nothing


def smooth(curves: Float, frames: float) -> Float:
    """Curves (T,) or (T, K) under a Gaussian of this standard deviation in frames, the ends held."""
    if frames < _LEAST_DEVIATION:
        return curves.astype(np.float32)
    return gaussian(curves, frames, max(1, math.ceil(3 * frames))).astype(np.float32)


def gaussian(
    curves: NDArray[np.floating], frames: float, reach: int, ends: Literal["edge", "symmetric"] = "edge"
) -> NDArray[np.float64]:
    """Curves (T,) or (T, K) under a Gaussian of standard deviation `frames` that is cut off after `reach` frames.

    `ends` continues the curves as `numpy.pad` does: "edge" holds their ends, "symmetric" mirrors them.
    """
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / frames))
    kernel /= kernel.sum()
    padded = np.pad(curves, [(reach, reach)] + [(0, 0)] * (curves.ndim - 1), mode=ends)
    smoothed = np.zeros(curves.shape)
    for shift, weight in enumerate(kernel):  # in place: all the shifted curves of an hour would be a gigabyte
        smoothed += weight * padded[shift : shift + len(curves)]
    return smoothed


def resample(curves: Float, fps: float, rate: float, count: int | None = None) -> Float:
    """Curves (T,) or (T, K) of frames at `fps`, read at the middles of `count` frames at `rate`, linearly, ends held.

    Without `count` the frames cover what the curves cover.
    """
    times = (np.arange(max(1, round(len(curves) / fps * rate)) if count is None else count) + 0.5) / rate
    known = (np.arange(len(curves)) + 0.5) / fps
    if curves.ndim == 1:
        return np.interp(times, known, curves).astype(np.float32)
    return np.stack([np.interp(times, known, column) for column in curves.T], axis=1).astype(np.float32)


def interpolate_frames(values: Float, places: NDArray[np.floating]) -> Float:
    """Values (T, ...) at fractional frame numbers (N,), linearly between frames, the ends held."""
    places = np.clip(places, 0, len(values) - 1)
    before = np.minimum(np.floor(places).astype(int), max(0, len(values) - 2))
    share = (places - before).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - share) + values[np.minimum(before + 1, len(values) - 1)] * share


def dilate(mask: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    """A mask (T,) that is also true up to `frames` frames before and after each true one."""
    reach = np.ones(2 * frames + 1)
    return np.convolve(mask, reach, mode="full")[frames : frames + len(mask)] > 0


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
