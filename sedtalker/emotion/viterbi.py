"""Decoding of segments from a posterior: Viterbi with a minimum duration and a cost of each change."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.emotion.segments import Segment

FLOOR = 1e-4  # lower limit of the posterior, so that one frame cannot exclude a segment


@dataclass(frozen=True)
class ViterbiConfig:
    """Parameters of the decoding; the defaults were chosen on validation speakers."""

    min_duration: float = 0.3  # s, of a segment
    transition_penalty: float = 2.0  # nats, cost of a change
    emission_scale: float = 0.3  # weight of the log posterior of a frame, below 1 because neighbours are correlated


def decode_segments(
    posterior: NDArray[np.float32],
    intensity: NDArray[np.float32],
    labels: Sequence[str],
    frame_rate: float,
    duration: float,
    config: ViterbiConfig | None = None,
) -> list[Segment]:
    """Segments that cover the track without gaps.

    The intensity of a segment is the mean over its frames, its confidence the mean posterior of its emotion.

    Args:
        posterior: (T, C), rows sum to 1.
        intensity: (T,).
        labels: (C,) of the posterior.
        frame_rate: Hz.
        duration: of the track, in seconds.
        config: of the decoding.
    """
    config = config or ViterbiConfig()
    scores = config.emission_scale * np.log(np.maximum(posterior, FLOOR))
    path = viterbi(scores, config.transition_penalty, max(1, round(config.min_duration * frame_rate)))
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    segments = []
    for first, last in itertools.pairwise(edges):
        label = int(path[first])
        level = 0.0 if labels[label] == "neutral" else float(intensity[first:last].mean())
        confidence = float(posterior[first:last, label].mean())
        end = duration if last == len(path) else last / frame_rate
        segments.append(Segment(first / frame_rate, end, labels[label], min(level, 1.0), min(confidence, 1.0)))
    return segments


def viterbi(scores: NDArray[np.floating], transition_penalty: float, minimum: int) -> NDArray[np.int64]:
    """The best path (T,) over scores (T, C) with runs of at least `minimum` frames and a penalty for each change.

    The first `minimum` frames of a run are one step and the others are single steps, so that the states need no run
    length and the time is O(T C). A track shorter than `minimum` is one run.
    """
    frames, classes = scores.shape
    minimum = min(minimum, frames)
    cumulative = np.concatenate([np.zeros((1, classes)), np.cumsum(scores, axis=0, dtype=np.float64)])
    # best[t, c] is the score of the frames before t if their last run is of class c and complete. previous[t, c] is the
    # class before that run if it started at t - minimum, or -1 if the run continues.
    best = np.full((frames + 1, classes), -np.inf)
    previous = np.full((frames + 1, classes), -1, np.int64)
    best[minimum] = cumulative[minimum]
    for t in range(minimum + 1, frames + 1):
        stay = best[t - 1] + scores[t - 1]
        before = best[t - minimum]
        first, second = _two_best(before)
        source = np.where(np.arange(classes) == first, second, first)
        change = before[source] - transition_penalty + cumulative[t] - cumulative[t - minimum]
        best[t] = np.maximum(stay, change)
        previous[t] = np.where(change > stay, source, -1)
    return _trace(best, previous, minimum)


def _two_best(values: NDArray[np.float64]) -> tuple[int, int]:
    if len(values) == 1:
        return 0, 0
    second, first = np.argpartition(values, -2)[-2:]
    return (int(first), int(second)) if values[first] >= values[second] else (int(second), int(first))


def _trace(best: NDArray[np.float64], previous: NDArray[np.int64], minimum: int) -> NDArray[np.int64]:
    t = len(best) - 1
    label = int(best[t].argmax())
    path = np.empty(t, np.int64)
    while t > minimum:
        source = int(previous[t, label])
        step = 1 if source < 0 else minimum
        path[t - step : t] = label
        t -= step
        if source >= 0:
            label = source
    path[:t] = label
    return path
