"""Metrics of predicted against true vertex motion, each with formula, unit and region.

Predicted and true positions are (T, V, 3) in metres at the same rate; d is the Euclidean distance of a vertex in a
frame, L the lips, U the upper face, E the emotion region, |x| the Euclidean norm, delta the difference of successive
frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import gaussian
from sedtalker.face.motion_errors import MeanErrors, mean_errors
from sedtalker.face.vertex_masks import EMOTION, LIP_PAIR, LIPS, UPPER

Float = NDArray[np.floating]
Index = NDArray[np.integer]

ALL = "all"  # the region of all vertices

SMOOTHING = 2.0  # frames, of the lip distance before its extrema are looked for


@dataclass(frozen=True)
class Sample:
    """Predicted and true motion of one region."""

    pred: Float  # (T, R, 3) metres
    truth: Float  # (T, R, 3)
    template: Float  # (R, 3), the face at rest
    fps: float

    @cached_property
    def distance(self) -> Float:
        """d, (T, R) metres."""
        return np.linalg.norm(self.pred.astype(np.float64) - self.truth, axis=-1)

    @cached_property
    def errors(self) -> MeanErrors:
        """Mean errors over frames and vertices."""
        return mean_errors(self.pred, self.truth)


@dataclass(frozen=True)
class Measure:
    """Definition of one metric of a sequence."""

    name: str
    formula: str
    unit: str
    region: str
    compute: Callable[[Sample], float] = field(repr=False)
    weighting: str = "frames"  # the metric of a set is the mean over frames, or over sequences


def mean_distance(sample: Sample) -> float:
    """Mean over frames and vertices of d, metres."""
    return sample.errors.distance


def worst_squared(sample: Sample) -> float:
    """Mean over frames of the largest d^2, square metres."""
    return float(np.square(sample.distance).max(axis=1).mean())


def worst_distance(sample: Sample) -> float:
    """Mean over frames of the largest d, metres."""
    return float(sample.distance.max(axis=1).mean())


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
    """Mean of |delta pred - delta truth|, metres per frame."""
    return sample.errors.velocity


def acceleration_error(sample: Sample) -> float:
    """Mean of |delta^2 pred - delta^2 truth|, metres per frame squared."""
    return sample.errors.acceleration


def temporal_change(sample: Sample) -> float:
    """Mean of |delta pred|, metres per frame: amount of motion, independent of the truth."""
    return sample.errors.change


def frequency_error(sample: Sample) -> float:
    """Sum over frequencies, vertices and axes of |FFT(truth) - FFT(pred)|^2, over 3 T R, square metres.

    By Parseval the sum over the T frequencies is T times the sum over the frames, so no transform is needed.
    """
    return sample.errors.squared * len(sample.pred) / 3


def dtw_distance(sample: Sample) -> float:
    """sqrt of the minimum over monotonic warps of the sum of |p - q|^2 (dynamic time warping), metres."""
    return float(np.sqrt(_accumulate(_squared_distances(sample), np.add)[-1, -1]))


def frechet_distance(sample: Sample) -> float:
    """Minimum over monotonic warps of the maximum of |p - q| (discrete Frechet distance), metres."""
    return float(np.sqrt(_accumulate(_squared_distances(sample), np.maximum)[-1, -1]))


def lip_intensity(sample: Sample) -> float:
    """Root mean square over frames of the mean |delta pred| of the lips, metres per frame."""
    moved = np.sqrt(np.square(np.diff(sample.pred, axis=0)).sum(axis=-1)).mean(axis=1)
    return float(np.sqrt(np.square(moved).mean()))


def temporal_misalignment(sample: Sample) -> float:
    """Mean |time difference| of matched extrema of the lip distance in ms (Chae-Yeon et al. 2025); NaN without matches.

    Both distances are smoothed, and their derivatives aligned by dynamic time warping. A true extremum matches a
    predicted one of the same kind on the warping path, between the neighbouring true extrema.
    """
    true, pred = (_smooth(np.linalg.norm(x[:, 0] - x[:, 1], axis=-1)) for x in (sample.truth, sample.pred))
    true_extrema, pred_extrema = _extrema(true), _extrema(pred)
    slopes = [np.diff(x, prepend=x[0]) for x in (true, pred)]
    path = _warping_path(_accumulate(np.abs(slopes[0][:, None] - slopes[1]), np.add))
    order = sorted(true_extrema)
    late = []
    for i, j in path:
        if i in true_extrema and true_extrema[i] == pred_extrema.get(j):
            place = order.index(i)
            before = order[place - 1] if place > 0 else 0
            after = order[place + 1] if place + 1 < len(order) else len(true) - 1
            if before <= j <= after:
                late.append(abs(i - j))
    return float(np.mean(late)) / sample.fps * 1000 if late else float("nan")


MEASURES: tuple[Measure, ...] = (
    Measure("mve", "mean_t mean_v d", "m", ALL, mean_distance),
    Measure("lve", "mean_t max_L d^2", "m^2", LIPS, worst_squared),
    Measure("lve_l2", "mean_t max_L d", "m", LIPS, worst_distance),
    Measure("lip_mve", "mean_t mean_L d", "m", LIPS, mean_distance),
    Measure("eve", "mean_t mean_E d", "m", EMOTION, mean_distance),
    Measure("uve", "mean_t mean_U d", "m", UPPER, mean_distance),
    Measure("fdd", "mean_U (std_t |truth - template|^2 - std_t |pred - template|^2)", "m^2", UPPER, dynamics_deviation,
            "sequences"),
    Measure("fdd_abs", "| fdd |", "m^2", UPPER, absolute_dynamics_deviation, "sequences"),
    Measure("mod", "mean |delta pred - delta truth|", "m/frame", ALL, velocity_error),
    Measure("lip_mod", "mean_L |delta pred - delta truth|", "m/frame", LIPS, velocity_error),
    Measure("ae", "mean |delta^2 pred - delta^2 truth|", "m/frame^2", ALL, acceleration_error),
    Measure("tc", "mean |delta pred|", "m/frame", ALL, temporal_change),
    Measure("ffe", "sum_f,v,axis |FFT(truth) - FFT(pred)|^2 / (3 T V)", "m^2", ALL, frequency_error),
    Measure("dtw", "sqrt(min over warps of sum |p - q|^2)", "m", LIPS, dtw_distance, "sequences"),
    Measure("dfd", "min over warps of max |p - q|", "m", LIPS, frechet_distance, "sequences"),
    Measure("mtm", "mean |t_pred - t_truth| of extrema of the lip distance (Gaussian, 2 frames) matched by derivative "
            "DTW", "ms", LIP_PAIR, temporal_misalignment, "sequences"),
    Measure("lip_intensity", "sqrt mean_t (mean_L |delta pred|)^2", "m/frame", LIPS, lip_intensity, "sequences"),
)  # fmt: skip
"""All metrics in the order of the table."""


def lip_opening(motion: Float, template: Float, pair: Index) -> Float:
    """Distance (T,) in metres of a pair of lip vertices beyond that at rest; 0 where they are closer."""
    upper, lower = pair
    rest = np.linalg.norm(template[upper] - template[lower])
    return np.maximum(np.linalg.norm(motion[:, upper] - motion[:, lower], axis=-1) - rest, 0.0)


def measure(
    pred: Float,
    truth: Float,
    template: Float,
    regions: Mapping[str, Index],
    fps: float,
    measures: tuple[Measure, ...] = MEASURES,
) -> dict[str, float]:
    """Metrics of one sequence by name, without those whose region is missing.

    Args:
        pred, truth: (T, V, 3) metres, T at least 3.
        template: (V, 3) metres.
        regions: name -> vertex indices; "all" is implied.
    """
    if pred.shape != truth.shape or pred.ndim != 3 or len(pred) < 3:
        raise ValueError(f"shapes {pred.shape} and {truth.shape}: both must be (T, V, 3) with T at least 3")
    samples = {ALL: Sample(pred, truth, template, fps)}
    for name, index in regions.items():
        own_pred, own_truth, rest = (
            np.asarray(part, np.float64) for part in (pred[:, index], truth[:, index], template[index])
        )
        samples[name] = Sample(own_pred, own_truth, rest, fps)
    return {one.name: one.compute(samples[one.region]) for one in measures if one.region in samples}


def _squared_distances(sample: Sample) -> Float:
    """|p_i - q_j|^2 (T, T) over all vertices and axes, for every pair of frames."""
    # small numbers limit the cancellation in the expansion below
    p, q = ((motion - sample.template).reshape(len(motion), -1) for motion in (sample.pred, sample.truth))
    return np.maximum(np.square(p).sum(1)[:, None] + np.square(q).sum(1) - 2 * p @ q.T, 0)


def _accumulate(cost: Float, join: np.ufunc) -> Float:
    """Minimum (T, S) over monotonic paths from the first element of the `join` of costs (T, S) along the path."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)  # row and column 0 are outside
    total[1, 1] = cost[0, 0]
    for diagonal in range(1, rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        before = np.minimum(np.minimum(total[row, column + 1], total[row + 1, column]), total[row, column])
        total[row + 1, column + 1] = join(cost[row, column], before)
    return total[1:, 1:]


def _warping_path(total: Float) -> list[tuple[int, int]]:
    """Warping path (i, j) through accumulated costs; the diagonal step is preferred among equal costs."""
    i, j = total.shape[0] - 1, total.shape[1] - 1
    path = [(i, j)]
    while i or j:
        ways = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min((way for way in ways if min(way) >= 0), key=lambda way: total[way])
        path.append((i, j))
    return path[::-1]


def _smooth(curve: Float) -> Float:
    """Smooth a curve (T,) by a Gaussian of SMOOTHING frames, mirrored at its ends."""
    return gaussian(curve, SMOOTHING, round(4 * SMOOTHING), "symmetric")


def _extrema(curve: Float) -> dict[int, int]:
    """Frame -> 1 for each inner maximum and -1 for each minimum of a curve (T,); the middle of a plateau."""
    steps = np.sign(np.diff(curve))
    moving = np.flatnonzero(steps)
    return {
        int(before + 1 + after) // 2: int(steps[before])
        for before, after in pairwise(moving)
        if steps[before] != steps[after]
    }
