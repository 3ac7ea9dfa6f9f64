"""Measures of emotion diarization: by time (EDER, boundaries), by frame (recalls, calibration), and of the
intensity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.emotion.segments import Segment


def eder(predicted: Sequence[Segment], reference: Sequence[Segment], duration: float) -> float:
    """Emotion diarization error rate (Wang et al. 2023): the share of the time in which the two disagree.

    Time that a side does not cover counts as neutral; with one label at a time, false alarms, missed emotion and
    confusion then add up to exactly this.
    """
    edges = {0.0, duration}
    for segment in (*predicted, *reference):
        edges.update(time for time in (segment.start, segment.end) if 0 < time < duration)
    agreed = 0.0
    for start, end in pairwise(sorted(edges)):
        middle = (start + end) / 2
        if emotion_at(predicted, middle) == emotion_at(reference, middle):
            agreed += end - start
    return 1 - agreed / duration


def emotion_at(segments: Sequence[Segment], time: float) -> str:
    """The emotion at a time; neutral where no segment is."""
    return next((segment.emotion for segment in segments if segment.start <= time < segment.end), "neutral")


def covered(segments: Sequence[Segment], duration: float) -> list[Segment]:
    """Segments in order, with neutral ones in their gaps."""
    edges = [0.0, *(time for segment in segments for time in (segment.start, segment.end)), duration]
    gaps = [Segment(start, end, "neutral") for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
    return sorted([*segments, *gaps], key=lambda segment: segment.start)


def boundary_errors(
    predicted: Sequence[Segment], reference: Sequence[Segment], limit: float = 1.0
) -> NDArray[np.float64]:
    """Seconds from each true change of emotion to the nearest predicted one, at most `limit`."""
    found = np.array(changes(predicted))
    return np.array(
        [min(limit, float(np.abs(found - time).min())) if len(found) else limit for time in changes(reference)]
    )


def changes(segments: Sequence[Segment]) -> list[float]:
    """Times at which the emotion changes."""
    return [after.start for before, after in pairwise(segments) if before.emotion != after.emotion]


def found_insertions(predicted: Sequence[Segment], reference: Sequence[Segment]) -> list[tuple[float, bool]]:
    """(length in s, found) of each true segment between two others; found if its emotion holds half of its time."""
    found = []
    for segment in reference[1:-1]:
        times = np.linspace(segment.start, segment.end, 41)[:-1] + segment.duration / 80
        share = np.mean([emotion_at(predicted, time) == segment.emotion for time in times])
        found.append((segment.duration, bool(share >= 0.5)))
    return found


@dataclass(frozen=True)
class Classification:
    """What a confusion matrix (C, C) says; rows are the truth. Means leave out classes that never occur."""

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        return float(self.confusion.trace() / max(1, self.confusion.sum()))

    @property
    def recalls(self) -> dict[str, float]:
        """Recall of each class that occurs."""
        totals = self.confusion.sum(1)
        return {name: float(self.confusion[k, k] / totals[k]) for k, name in enumerate(self.labels) if totals[k]}

    @property
    def uar(self) -> float:
        """Unweighted average recall."""
        return float(np.mean(list(self.recalls.values())))

    @property
    def f1(self) -> dict[str, float]:
        """F1 of each class that occurs."""
        hits, truth, said = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        return {name: float(2 * hits[k] / (truth[k] + said[k])) for k, name in enumerate(self.labels) if truth[k]}

    @property
    def macro_f1(self) -> float:
        return float(np.mean(list(self.f1.values())))

    @property
    def weighted_f1(self) -> float:
        truth = self.confusion.sum(1)
        return sum(value * truth[self.labels.index(name)] for name, value in self.f1.items()) / max(1, truth.sum())

    def false_rates(self, label: str) -> tuple[float, float]:
        """(false-positive, false-negative) rate of one class."""
        k = self.labels.index(label)
        hits, truth, said = self.confusion[k, k], self.confusion[k].sum(), self.confusion[:, k].sum()
        others = self.confusion.sum() - truth
        return float((said - hits) / max(1, others)), float((truth - hits) / max(1, truth))


def classify(truth: NDArray[np.integer], predicted: NDArray[np.integer], labels: Sequence[str]) -> Classification:
    """Counts of label numbers (N,) against label numbers (N,)."""
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    return Classification(tuple(labels), confusion)


def expected_calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance between confidence (N,) and accuracy over bins of confidence, weighted by their frames."""
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    gap = np.abs(np.bincount(index, confidence, bins) - np.bincount(index, correct.astype(float), bins))
    return float(gap[counts > 0].sum() / len(confidence))


def auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative (N,), ties counting half; NaN without one of them."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = mean_ranks(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's correlation of (N,) and (N,)."""
    return float(np.corrcoef(mean_ranks(one), mean_ranks(other))[0, 1])


def concordance(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Lin's concordance correlation of (N,) and (N,)."""
    covariance = np.cov(predicted, truth, bias=True)
    spread = covariance[0, 0] + covariance[1, 1] + (predicted.mean() - truth.mean()) ** 2
    return float(2 * covariance[0, 1] / spread) if spread > 0 else float("nan")


def mean_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 1 of (N,); equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
