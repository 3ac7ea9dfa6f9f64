"""Posterior -> segments: Viterbi over the emotions with a minimum duration and a price on every change."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.emotion.segments import Segment

FLOOR = 1e-4  # a posterior below this counts as this, so that one frame cannot veto a segment


@dataclass(frozen=True)
class ViterbiConfig:
    """How eagerly the segments follow the frames. The defaults were set on validation speakers."""

    minimum: float = 0.3  # s, the shortest segment
    switch_cost: float = 2.0  # nats that a change must win back: the hysteresis
    emission_scale: float = 0.3  # weight of a frame's log posterior; neighbouring frames tell nearly the same


def decode(
    posterior: NDArray[np.float32],
    intensity: NDArray[np.float32],
    labels: Sequence[str],
    frame_rate: float,
    duration: float,
    decoding: ViterbiConfig | None = None,
) -> list[Segment]:
    """Segments that cover the track without gaps.

    A segment's intensity is the mean over its frames, its confidence the mean posterior of its emotion.

    Args:
        posterior: (T, C), rows sum to 1.
        intensity: (T,).
    """
    decoding = decoding or ViterbiConfig()
    scores = decoding.emission_scale * np.log(np.maximum(posterior, FLOOR))
    path = viterbi(scores, decoding.switch_cost, max(1, round(decoding.minimum * frame_rate)))
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    segments = []
    for first, last in itertools.pairwise(edges):
        label = int(path[first])
        strength = 0.0 if labels[label] == "neutral" else float(intensity[first:last].mean())
        confidence = float(posterior[first:last, label].mean())
        end = duration if last == len(path) else last / frame_rate
        segments.append(Segment(first / frame_rate, end, labels[label], min(strength, 1.0), min(confidence, 1.0)))
    return segments


def viterbi(scores: NDArray[np.floating], switch_cost: float, minimum: int) -> NDArray[np.int64]:
    """The best path (T,) over scores (T, C) when a change costs `switch_cost` and every run lasts `minimum` frames.

    A run is entered by paying for its first `minimum` frames at once, and then goes on frame by frame; so time is
    O(T C) and no state is needed for how long a run has lasted. A track shorter than `minimum` is one run.
    """
    frames, classes = scores.shape
    minimum = min(minimum, frames)
    cumulative = np.concatenate([np.zeros((1, classes)), np.cumsum(scores, axis=0, dtype=np.float64)])
    best = np.full(
        (frames + 1, classes), -np.inf
    )  # best[t, c]: score of frames 0..t-1, the last run being c and long enough
    came_from = np.full(
        (frames + 1, classes), -1, np.int64
    )  # the class before the run entered at t - minimum; -1: it goes on
    best[minimum] = cumulative[minimum]
    for t in range(minimum + 1, frames + 1):
        going_on = best[t - 1] + scores[t - 1]
        before = best[t - minimum]
        first, second = _two_best(before)
        previous = np.where(np.arange(classes) == first, second, first)
        entering = before[previous] - switch_cost + cumulative[t] - cumulative[t - minimum]
        entered = entering > going_on
        best[t] = np.where(entered, entering, going_on)
        came_from[t] = np.where(entered, previous, -1)
    return _trace(best, came_from, minimum)


def _two_best(values: NDArray[np.float64]) -> tuple[int, int]:
    if len(values) == 1:
        return 0, 0
    second, first = np.argpartition(values, -2)[-2:]
    return (int(first), int(second)) if values[first] >= values[second] else (int(second), int(first))


def _trace(best: NDArray[np.float64], came_from: NDArray[np.int64], minimum: int) -> NDArray[np.int64]:
    t = len(best) - 1
    label = int(best[t].argmax())
    path = np.empty(t, np.int64)
    while t > minimum:
        previous = int(came_from[t, label])
        step = 1 if previous < 0 else minimum
        path[t - step : t] = label
        t -= step
        if previous >= 0:
            label = previous
    path[:t] = label
    return path
