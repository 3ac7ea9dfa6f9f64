"""Metrics of emotion diarization: by time (EDER, boundaries), by frame (recall, calibration), and of the intensity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sedtalker.emotion.segments import Segment, neutral_gaps
from sedtalker.errors import require


def eder(predicted: Sequence[Segment], reference: Sequence[Segment], duration: float) -> float:
    """Emotion diarization error rate (Wang et al. 2023): share of the time with different emotions.

    Gaps are neutral. With one label at a time, this is the sum of false alarms, missed emotion and confusion.
    """
    agreed = sum(seconds for seconds, seen, true in shared_spans(predicted, reference, duration) if seen == true)
    return 1 - agreed / duration


def shared_spans(
    predicted: Sequence[Segment], reference: Sequence[Segment], duration: float
) -> Iterator[tuple[float, str, str]]:
    """(length in s, predicted emotion, true emotion) of the spans in which both are constant; gaps are neutral."""
    edges = {0.0, duration}
    for segment in (*predicted, *reference):
        edges.update(time for time in (segment.start, segment.end) if 0 < time < duration)
    for start, end in pairwise(sorted(edges)):
        middle = (start + end) / 2
        yield end - start, emotion_at(predicted, middle), emotion_at(reference, middle)


def emotion_at(segments: Sequence[Segment], time: float) -> str:
    """Emotion at a time in seconds; neutral in gaps."""
    return next((segment.emotion for segment in segments if segment.start <= time < segment.end), "neutral")


def fill_gaps(segments: Sequence[Segment], duration: float) -> list[Segment]:
    """Sort segments and fill their gaps with neutral ones."""
    return sorted([*segments, *neutral_gaps(segments, duration)], key=lambda segment: segment.start)


def boundary_errors(
    predicted: Sequence[Segment], reference: Sequence[Segment], limit: float = 1.0
) -> NDArray[np.float64]:
    """Seconds from each true change of emotion to the nearest predicted change, at most `limit`."""
    times = np.array(change_times(predicted))
    return np.array(
        [min(limit, float(np.abs(times - time).min())) if len(times) else limit for time in change_times(reference)]
    )


def change_times(segments: Sequence[Segment]) -> list[float]:
    """Times in seconds at which the emotion changes."""
    return [after.start for before, after in pairwise(segments) if before.emotion != after.emotion]


def detect_insertions(predicted: Sequence[Segment], reference: Sequence[Segment]) -> list[tuple[float, bool]]:
    """(duration in s, detected) of each inner true segment; detected if half of it has its emotion."""
    detected = []
    for segment in reference[1:-1]:
        times = np.linspace(segment.start, segment.end, 41)[:-1] + segment.duration / 80
        share = np.mean([emotion_at(predicted, time) == segment.emotion for time in times])
        detected.append((segment.duration, bool(share >= 0.5)))
    return detected


@dataclass(frozen=True)
class Classification:
    """Figures of predicted labels over the classes that occur in the truth."""

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]  # (C, C) counts; rows are the truth
    accuracy: float
    uar: float  # unweighted average recall
    macro_f1: float
    weighted_f1: float
    recalls: dict[str, float]  # by label

    def false_rates(self, label: str) -> tuple[float, float]:
        """(false-positive, false-negative) rate of one class."""
        k = self.labels.index(label)
        hits, true, predicted = self.confusion[k, k], self.confusion[k].sum(), self.confusion[:, k].sum()
        others = self.confusion.sum() - true
        return float((predicted - hits) / max(1, others)), float((true - hits) / max(1, true))


def require_metrics() -> None:
    """Check that the libraries of the metrics are installed, before an expensive evaluation.

    Raises:
        MissingExtraError: scikit-learn, scipy or torchmetrics is not installed.
    """
    for module in ("sklearn.metrics", "scipy.stats", "torchmetrics.functional.classification"):
        require(module, "train")


def classify(truth: NDArray[np.integer], predicted: NDArray[np.integer], labels: Sequence[str]) -> Classification:
    """Compare predicted with true label numbers, (N,) each.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    metrics = require("sklearn.metrics", "train")
    present = np.unique(truth)
    _, recalls, f1, support = metrics.precision_recall_fscore_support(truth, predicted, labels=present, zero_division=0)
    return Classification(
        labels=tuple(labels),
        confusion=metrics.confusion_matrix(truth, predicted, labels=np.arange(len(labels))),
        accuracy=float(metrics.accuracy_score(truth, predicted)),
        uar=float(recalls.mean()),
        macro_f1=float(f1.mean()),
        weighted_f1=float(np.average(f1, weights=support)),
        recalls={labels[k]: float(recall) for k, recall in zip(present, recalls, strict=True)},
    )


def unweighted_average_recall(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean recall over the classes that occur in the truth, of label numbers (N,).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    metrics = require("sklearn.metrics", "train")
    return float(metrics.recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0))


def expected_calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance between confidence (N,) in 0..1 and accuracy over bins of confidence, weighted by their frames.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    metrics = require("torchmetrics.functional.classification", "train")
    error = metrics.binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct).int(), bins)
    return float(error)


def auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of scores (N,) for positives (N,); NaN without positives or without negatives.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    if positive.all() or not positive.any():
        return float("nan")
    return float(require("sklearn.metrics", "train").roc_auc_score(positive, scores))


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's correlation of (N,) and (N,). Raises MissingExtraError if scipy is not installed."""
    return float(require("scipy.stats", "train").spearmanr(one, other).statistic)


def concordance(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Concordance correlation of (N,) and (N,), with moments over N (Lin 1989); NaN for equal constants."""
    covariance = np.cov(predicted, truth, bias=True)
    spread = covariance[0, 0] + covariance[1, 1] + (predicted.mean() - truth.mean()) ** 2
    return float(2 * covariance[0, 1] / spread) if spread > 0 else float("nan")
