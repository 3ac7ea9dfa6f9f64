"""Curves over time: smoothing, dilation and resampling."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_MIN_DEVIATION = 1e-3  # frames; a narrower Gaussian has no effect


def smooth(curves: Float, frames: float) -> Float:
    """Smooth curves (T,) or (T, K) with a Gaussian of `frames` standard deviation; the ends are extended."""
    if frames < _MIN_DEVIATION:
        return curves.astype(np.float32)
    return gaussian(curves, frames, max(1, math.ceil(3 * frames))).astype(np.float32)


def gaussian(
    curves: NDArray[np.floating], frames: float, reach: int, ends: Literal["edge", "symmetric"] = "edge"
) -> NDArray[np.float64]:
    """Smooth curves (T,) or (T, K) with a Gaussian of `frames` standard deviation, truncated after `reach` frames.

    `ends` is the padding, as in `numpy.pad`: "edge" repeats the end values, "symmetric" mirrors the curves.
    """
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / frames))
    kernel /= kernel.sum()
    padded = np.pad(curves, [(reach, reach)] + [(0, 0)] * (curves.ndim - 1), mode=ends)
    smoothed = np.zeros(curves.shape)
    for shift, weight in enumerate(kernel):  # in place, because all shifted curves of an hour take a gigabyte
        smoothed += weight * padded[shift : shift + len(curves)]
    return smoothed


def resample(curves: Float, fps: float, rate: float, count: int | None = None) -> Float:
    """Resample curves (T,) or (T, K) from `fps` to `rate`: linearly, at the middles of `count` frames, ends extended.

    Without `count` the result has the duration of the curves.
    """
    count = max(1, round(len(curves) / fps * rate)) if count is None else count
    columns = curves[:, None] if curves.ndim == 1 else curves
    return _interpolate(columns, 0, np.arange(count), fps, rate).reshape(count, *curves.shape[1:])


def interpolate_frames(values: Float, places: NDArray[np.floating]) -> Float:
    """Interpolate values (T, ...) linearly at fractional frame numbers (N,); the ends are extended."""
    places = np.clip(places, 0, len(values) - 1)
    before = np.minimum(np.floor(places).astype(int), max(0, len(values) - 2))
    share = (places - before).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - share) + values[np.minimum(before + 1, len(values) - 1)] * share


def dilate(mask: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    """Binary dilation of a mask (T,) by `frames` frames on both sides."""
    reach = np.ones(2 * frames + 1)
    return np.convolve(mask, reach, mode="full")[frames : frames + len(mask)] > 0


class Resampler:
    """`resample` of curves that come in blocks (n, K)."""

    def __init__(self, fps: float, rate: float) -> None:
        self._fps, self._rate = fps, rate
        self._buffer: Float | None = None
        self._first = self._done = 0  # frames: the number of buffer[0], and the count of the frames returned

    def push(self, block: Float) -> Float:
        """The frames (m, K) at `rate` that have both of their neighbours with this block."""
        self._buffer = block if self._buffer is None else np.concatenate([self._buffer, block])
        available = self._first + len(self._buffer)
        return self._take(math.floor((available - 0.5) * self._rate / self._fps - 0.5 + 1e-9) + 1)

    def finish(self) -> Float:
        """The frames (m, K) after the last block."""
        if self._buffer is None or not (count := self._first + len(self._buffer)):
            return np.zeros((0, 0 if self._buffer is None else self._buffer.shape[1]), np.float32)
        return self._take(max(1, round(count / self._fps * self._rate)))

    def _take(self, count: int) -> Float:
        """The frames up to number `count`."""
        assert self._buffer is not None
        if count <= self._done:
            return self._buffer[:0]
        frames = _interpolate(self._buffer, self._first, np.arange(self._done, count), self._fps, self._rate)
        self._done = count
        needed = math.floor((count + 0.5) * self._fps / self._rate - 0.5) - self._first
        dropped = max(0, min(len(self._buffer) - 1, needed))
        self._buffer, self._first = self._buffer[dropped:], self._first + dropped
        return frames


def _interpolate(curves: Float, first: int, frames: NDArray[np.int64], fps: float, rate: float) -> Float:
    """Curves (n, K) at `fps` from frame `first` on, at the middles of numbered `frames` (N,) at `rate`."""
    return interpolate_frames(curves, (frames + 0.5) * (fps / rate) - 0.5 - first).astype(np.float32)
