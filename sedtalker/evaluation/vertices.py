"""Measures of vertex motion against the truth, each with its formula, unit and region.

Predicted and true positions are (T, V, 3) in metres at the same rate; d is the Euclidean distance of a vertex in a
frame, L the lips, U the upper face, E the emotion region, |x| the Euclidean norm, delta the difference of successive
frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
Index = NDArray[np.integer]

ALL, LIPS, UPPER, EMOTION = "all", "lips", "upper_face", "emotion"


@dataclass(frozen=True)
class Sample:
    """A pair to be measured, held to one region."""

    pred: Float  # (T, R, 3) metres
    truth: Float  # (T, R, 3)
    template: Float  # (R, 3), the face at rest


@dataclass(frozen=True)
class Measure:
    """One figure of a sequence."""

    name: str
    formula: str
    unit: str
    region: str
    compute: Callable[[Sample], float] = field(repr=False)
    weighting: str = "frames"  # a set's figure is the mean over frames, or over sequences


def distances(sample: Sample) -> Float:
    """d, (T, R) metres."""
    return np.sqrt(np.square(sample.pred - sample.truth).sum(axis=-1))


def mean_distance(sample: Sample) -> float:
    """Mean over frames and vertices of d, metres."""
    return float(distances(sample).mean())


def worst_squared(sample: Sample) -> float:
    """Mean over frames of the largest d^2, square metres."""
    return float(np.square(distances(sample)).max(axis=1).mean())


def worst_distance(sample: Sample) -> float:
    """Mean over frames of the largest d, metres."""
    return float(distances(sample).max(axis=1).mean())


def dynamics_deviation(sample: Sample) -> float:
    """Mean over vertices of std_t(|truth - template|^2) - std_t(|pred - template|^2), square metres, signed."""
    true_spread, pred_spread = (
        np.square(motion - sample.template).sum(axis=-1).std(axis=0) for motion in (sample.truth, sample.pred)
    )
    return float((true_spread - pred_spread).mean())


def absolute_dynamics_deviation(sample: Sample) -> float:
    """The magnitude of `dynamics_deviation`."""
    return abs(dynamics_deviation(sample))


def velocity_error(sample: Sample) -> float:
    """Mean of |delta pred - delta truth|, metres a frame."""
    return _mean_norm(np.diff(sample.pred - sample.truth, axis=0))


def acceleration_error(sample: Sample) -> float:
    """Mean of |delta^2 pred - delta^2 truth|, metres a frame squared."""
    return _mean_norm(np.diff(sample.pred - sample.truth, n=2, axis=0))


def temporal_change(sample: Sample) -> float:
    """Mean of |delta pred|, metres a frame: how much it moves, whatever the truth does."""
    return _mean_norm(np.diff(sample.pred, axis=0))


def frequency_error(sample: Sample) -> float:
    """Sum over frequencies, vertices and axes of |FFT(truth) - FFT(pred)|^2, over 3 T R, square metres.

    By Parseval the sum over the T frequencies is T times the sum over the frames, so no transform is needed.
    """
    difference = sample.truth - sample.pred
    return float(np.square(difference).sum() / (3 * difference.shape[1]))


def dtw_distance(sample: Sample) -> float:
    """sqrt of the least sum of |p - q|^2 over monotonic warps (dynamic time warping), metres."""
    return float(np.sqrt(_warp(_squared_between(sample), np.add)))


def frechet_distance(sample: Sample) -> float:
    """Least over monotonic warps of the largest |p - q| (discrete Frechet distance), metres."""
    return float(np.sqrt(_warp(_squared_between(sample), np.maximum)))


MEASURES: tuple[Measure, ...] = (
    Measure("mve", "mean_t mean_v d", "m", ALL, mean_distance),
    Measure("lve", "mean_t max_L d^2", "m^2", LIPS, worst_squared),
    Measure("lve_l2", "mean_t max_L d", "m", LIPS, worst_distance),
    Measure("lip_mve", "mean_t mean_L d", "m", LIPS, mean_distance),
    Measure("eve", "mean_t mean_E d", "m", EMOTION, mean_distance),
    Measure(
        "fdd",
        "mean_U (std_t |truth - template|^2 - std_t |pred - template|^2)",
        "m^2",
        UPPER,
        dynamics_deviation,
        "sequences",
    ),
    Measure("fdd_abs", "| fdd |", "m^2", UPPER, absolute_dynamics_deviation, "sequences"),
    Measure("mod", "mean |delta pred - delta truth|", "m/frame", ALL, velocity_error),
    Measure("lip_mod", "mean_L |delta pred - delta truth|", "m/frame", LIPS, velocity_error),
    Measure("ae", "mean |delta^2 pred - delta^2 truth|", "m/frame^2", ALL, acceleration_error),
    Measure("tc", "mean |delta pred|", "m/frame", ALL, temporal_change),
    Measure("ffe", "sum_f,v,axis |FFT(truth) - FFT(pred)|^2 / (3 T V)", "m^2", ALL, frequency_error),
    Measure("dtw", "sqrt(min over warps of sum |p - q|^2)", "m", LIPS, dtw_distance, "sequences"),
    Measure("dfd", "min over warps of max |p - q|", "m", LIPS, frechet_distance, "sequences"),
)
"""Every measure, in the order of the table."""


def measure(
    pred: Float, truth: Float, template: Float, regions: Mapping[str, Index], measures: tuple[Measure, ...] = MEASURES
) -> dict[str, float]:
    """Figures of one sequence by name; measures of regions that are not given are left out.

    Args:
        pred, truth: (T, V, 3) metres, T at least 3.
        template: (V, 3) metres.
        regions: name -> vertex indices; "all" need not be among them.
    """
    if pred.shape != truth.shape or pred.ndim != 3 or len(pred) < 3:
        raise ValueError(f"shapes {pred.shape} and {truth.shape}: both must be (T, V, 3) with T at least 3")
    samples = {ALL: _sample(pred, truth, template, slice(None))}
    samples |= {name: _sample(pred, truth, template, index) for name, index in regions.items() if name != ALL}
    return {one.name: one.compute(samples[one.region]) for one in measures if one.region in samples}


def mask_hash(index: Index) -> str:
    """The first 12 hexadecimal digits of the sha256 of the sorted indices as little-endian int64."""
    return hashlib.sha256(np.sort(np.asarray(index)).astype("<i8").tobytes()).hexdigest()[:12]


def _sample(pred: Float, truth: Float, template: Float, index: Index | slice) -> Sample:
    return Sample(*(np.asarray(array[..., index, :], np.float64) for array in (pred, truth, template)))


def _mean_norm(vectors: Float) -> float:
    return float(np.sqrt(np.square(vectors).sum(axis=-1)).mean())


def _squared_between(sample: Sample) -> Float:
    """|p_i - q_j|^2 (T, T) over all vertices and axes, for every pair of frames."""
    p, q = (
        (motion - sample.template).reshape(len(motion), -1)  # small numbers, so that the expansion below is exact
        for motion in (sample.pred, sample.truth)
    )
    return np.maximum(np.square(p).sum(1)[:, None] + np.square(q).sum(1) - 2 * p @ q.T, 0)


def _warp(cost: Float, join: np.ufunc) -> float:
    """The least `join` of costs (T, S) along a monotonic path from corner to corner, anti-diagonal by anti-diagonal."""
    rows, columns = cost.shape
    before_last, last = np.full(rows + 1, np.inf), np.full(rows + 1, np.inf)  # by row + 1; entry 0 is outside
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        here = cost[row, diagonal - row]
        step = np.minimum(np.minimum(last[row], last[row + 1]), before_last[row])
        now = np.full(rows + 1, np.inf)
        now[row + 1] = join(here, step) if diagonal else here
        before_last, last = last, now
    return float(last[rows])
