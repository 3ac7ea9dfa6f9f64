"""Evaluation of predicted against true motion: metrics by sequence and group, with their confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.cluster import map_on_cluster
from sedtalker.errors import DataError, SEDTalkerError, reason_of
from sedtalker.evaluation.bootstrap import CONFIDENCE, RESAMPLES, draw_counts, interval
from sedtalker.evaluation.lips import Phones, measure_closures
from sedtalker.evaluation.truth import Item, Predict, StoreTruth, Truth
from sedtalker.evaluation.vertices import ALL, MEASURES, Measure, lip_opening, measure
from sedtalker.face.vertex_masks import LIP_PAIR, VertexMasks
from sedtalker.files import RECORDS_FOLDER
from sedtalker.workers import WorkerDeath, map_in_workers

Float = NDArray[np.floating]

SLCC = "slcc"  # a metric of a set, not of a sequence
SLCC_FORMULA = (
    "Pearson over sequences of the sound's RMS and lip_intensity, each z-scored by subject; nearest to truth's"
)
GROUPS = ("emotion", "level", "emotion and level", "subject")


@dataclass
class Result:
    """Metrics of one system."""

    name: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)  # sequence -> measure -> value
    gaps: dict[str, Float] = field(default_factory=dict)  # sequence -> opening of the lips (T,) in metres
    frames: dict[str, int] = field(default_factory=dict)  # sequence -> measured frames
    bad: dict[str, str] = field(default_factory=dict)  # sequence -> reason why it was not measured
    cut: dict[str, int] = field(default_factory=dict)  # sequence -> removed frames, within the tolerance


def evaluate(name: str, predict: Predict, truth: Truth, masks: VertexMasks | None, tolerance: int = 0) -> Result:
    """Measure the predictions of one system; the result lists the pairs that cannot be measured.

    Args:
        predict: gives (T, V, 3) in metres for an item.
        tolerance: allowed difference of lengths in frames; the longer sequence is cut, and the report lists it.
    """
    return evaluate_systems({name: predict}, truth, masks, tolerance)[0]


@dataclass(frozen=True)
class Workload:
    """How the sequences of an evaluation are divided."""

    jobs: int = 1  # processes, or jobs on the cluster
    executor: str = "local"  # or slurm
    folder: Path = Path(RECORDS_FOLDER)  # for the files of cluster jobs
    cluster: str | None = None  # type of cluster, as submitit names it; None: detect it


def evaluate_systems(
    systems: Mapping[str, Predict],
    truth: Truth,
    masks: VertexMasks | None,
    tolerance: int = 0,
    workload: Workload | None = None,
) -> list[Result]:
    """Measure the predictions of systems by name, in processes or on a cluster if the workload demands it.

    The memory does not grow with the number of sequences.

    Raises:
        DataError: a system could not be measured on any sequence.
        SEDTalkerError: a process or a cluster job failed.
    """
    workload = workload or Workload()
    measurer = _Measurer(dict(systems), truth, masks, tolerance)
    results = {name: Result(name) for name in systems}
    done = _measure_all(measurer, list(truth.items), workload)
    for measured in tqdm(done, total=len(truth.items), desc=f"measuring {', '.join(systems)}", unit="clip"):
        for name, one in measured.outcomes.items():
            result = results[name]
            if isinstance(one, str):
                result.bad[measured.id] = one
                continue
            result.figures[measured.id], result.frames[measured.id] = one.figures, one.frames
            if one.gaps is not None:
                result.gaps[measured.id] = one.gaps
            if one.cut:
                result.cut[measured.id] = one.cut
    for result in results.values():
        if not result.figures:
            first, reason = next(iter(result.bad.items()))
            raise DataError(f"no pair could be measured (the first, {first}: {reason})")
    return list(results.values())


@dataclass(frozen=True)
class _Outcome:
    """Metrics of one sequence and system."""

    figures: dict[str, float]
    frames: int
    gaps: Float | None  # opening of the lips (T,) in metres
    cut: int  # removed frames


@dataclass(frozen=True)
class _Measured:
    """Metrics of one sequence by system, or the reason why it was not measured."""

    id: str
    outcomes: dict[str, _Outcome | str]


@dataclass(frozen=True)
class _Measurer:
    """Measures all systems on a sequence. It is picklable, for worker processes and cluster jobs."""

    systems: dict[str, Predict]
    truth: Truth
    masks: VertexMasks | None
    tolerance: int

    def __call__(self, item: Item) -> _Measured:
        outcomes: dict[str, _Outcome | str] = {}
        for name, predict in self.systems.items():
            try:
                outcomes[name] = self._measure(item, predict)
            except SEDTalkerError as error:
                outcomes[name] = str(error)
        return _Measured(item.id, outcomes)

    def _measure(self, item: Item, predict: Predict) -> _Outcome:
        pred, true = predict(item), self.truth.motion(item)
        frames = _common_length(pred, true, self.tolerance)
        template = self.truth.template(item)
        regions = self.masks.regions if self.masks else {}
        known = tuple(one for one in MEASURES if template is not None or not one.name.startswith("fdd"))
        rest = true[0] if template is None else template
        gaps = None
        if template is not None and LIP_PAIR in regions:
            gaps = lip_opening(pred[:frames], rest, regions[LIP_PAIR])
        figures = measure(pred[:frames], true[:frames], rest, regions, self.truth.fps, known)
        return _Outcome(figures, frames, gaps, abs(len(pred) - len(true)))

    def share(self, items: Sequence[Item]) -> list[_Measured]:
        """Measure the share of a cluster job."""
        return [self(item) for item in items]


@dataclass(frozen=True)
class _MakeMeasurer:
    """Prepares a worker process; calling it returns the measurer."""

    measurer: _Measurer
    jobs: int

    def __call__(self) -> _Measurer:
        torch.set_num_threads(max(1, torch.get_num_threads() // self.jobs))
        return self.measurer


def _measure_all(measurer: _Measurer, items: list[Item], workload: Workload) -> Iterator[_Measured]:
    """Metrics of every item, in any order."""
    jobs = min(workload.jobs, len(items))
    if workload.executor == "slurm":
        shares = [items[first::jobs] for first in range(jobs)]
        for measured in map_on_cluster(measurer.share, shares, workload.folder / "cluster", workload.cluster):
            if isinstance(measured, Exception):
                raise SEDTalkerError(
                    f"a cluster job of the evaluation failed: {reason_of(measured)}. Run it again"
                ) from measured
            yield from measured
    elif jobs > 1:
        for item, measured in map_in_workers(_MakeMeasurer(measurer, jobs), items, jobs):
            if isinstance(measured, WorkerDeath):
                raise SEDTalkerError(
                    f"the process that measured {item.id} {measured.reason}. Use fewer --jobs, or free memory"
                )
            yield measured
    else:
        yield from map(measurer, items)


def _common_length(pred: Float, truth: Float, tolerance: int) -> int:
    if pred.shape[1:] != truth.shape[1:]:
        raise DataError(f"topologies differ: {pred.shape[1]} vertices predicted, {truth.shape[1]} true. Use one mesh")
    if abs(len(pred) - len(truth)) > tolerance:
        raise DataError(
            f"lengths differ: {len(pred)} frames predicted, {len(truth)} true. "
            f"Predict as many, or allow it with --tolerance {abs(len(pred) - len(truth))}"
        )
    if min(len(pred), len(truth)) < 3:
        raise DataError("fewer than 3 frames. Remove the sequence")
    if not np.isfinite(pred).all():
        raise DataError("coordinates with NaN or infinity. Predict it again")
    return min(len(pred), len(truth))


def summarise(
    results: Sequence[Result], truth: Truth, masks: VertexMasks | None, seed: int = 0, phones: Phones | None = None
) -> dict[str, Any]:
    """Summarise results as plain types: definitions of the metrics, and the metrics of each system by group.

    `phones` are by sound or by sequence.
    """
    items = {item.id: item for item in truth.items}
    # only sequences that all systems have are compared
    common = [name for name in items if all(name in result.figures for result in results)]
    measured = [one for one in MEASURES if common and one.name in results[0].figures[common[0]]]
    measures = {one.name: _describe_measure(one, masks) for one in measured}
    audio_levels = {name: truth.loudness(items[name]) for name in common if "lip_intensity" in measures}
    loudness = {name: level for name, level in audio_levels.items() if level is not None}
    if loudness:
        measures[SLCC] = {**measures["lip_intensity"], "formula": SLCC_FORMULA, "unit": "1", "mean_over": "the set"}
    return {
        "version": 1,
        "corpus": truth.store.corpus if isinstance(truth, StoreTruth) else "a folder",
        "vertices": truth.motion(items[common[0]]).shape[1] if common else 0,
        "fps": truth.fps,
        "split": truth.split,
        "sequences": len(common),
        "frames": sum(results[0].frames[name] for name in common),
        "confidence": f"{CONFIDENCE:.0%}, bootstrap over sentences, {RESAMPLES} resamples, seed {seed}",
        "measures": measures,
        "left_out": [name for name in (*(one.name for one in MEASURES), SLCC) if name not in measures],
        "systems": {
            result.name: _group_metrics(result, [items[name] for name in common], measured, loudness, seed)
            for result in results
        },
        "closures": {}
        if phones is None
        else _measure_closures(results, [items[name] for name in common], phones, truth.fps),
        "bad": {result.name: result.bad for result in results},
        "cut": {result.name: result.cut for result in results},
        "by_sequence": {result.name: {name: result.figures[name] for name in common} for result in results},
    }


def _measure_closures(results: Sequence[Result], items: Sequence[Item], phones: Phones, fps: float) -> dict[str, Any]:
    if not all(item.id in result.gaps for result in results for item in items):
        raise DataError(
            "phones without a lip_pair and a template: lip closures cannot be measured. Add lip_pair to --masks"
        )
    known = {item.id: phones[item.sound or item.id] for item in items if (item.sound or item.id) in phones}
    return measure_closures(
        {result.name: {item.id: result.gaps[item.id] for item in items} for result in results}, known, fps
    )


def _describe_measure(one: Measure, masks: VertexMasks | None) -> dict[str, Any]:
    mask: Any = {"name": "all vertices"} if one.region == ALL or masks is None else masks.describe(one.region)
    return {"formula": one.formula, "unit": one.unit, "mask": mask, "mean_over": one.weighting}


def _group_metrics(
    result: Result, items: Sequence[Item], measures: Sequence[Measure], loudness: Mapping[str, float], seed: int
) -> dict[str, Any]:
    grouped: dict[str, Any] = {"overall": _metrics(result, items, measures, loudness, seed)}
    for kind in GROUPS:
        members = defaultdict(list)
        for item in items:
            members[item.group(kind)].append(item)
        grouped[f"by {kind}"] = {
            name: _metrics(result, group, measures, loudness, seed)
            for name, group in sorted(members.items())
            if name.strip()
        }
    return grouped


def _metrics(
    result: Result, items: Sequence[Item], measures: Sequence[Measure], loudness: Mapping[str, float], seed: int
) -> dict[str, Any]:
    frames = np.array([result.frames[item.id] for item in items], float)
    figures: dict[str, Any] = {"sequences": len(items), "frames": int(frames.sum())}
    utterances = [f"{item.subject} {item.sentence}" if item.sentence else item.id for item in items]
    draws = draw_counts(utterances, seed)
    for one in measures:
        values = np.array([result.figures[item.id][one.name] for item in items])
        weights = draws * (frames if one.weighting == "frames" else 1.0) * np.isfinite(values)
        with np.errstate(invalid="ignore"):
            figures[one.name] = interval((weights @ np.nan_to_num(values)) / weights.sum(axis=1))
    if loudness:
        intensity = np.array([result.figures[item.id]["lip_intensity"] for item in items])
        audio_levels = np.array([loudness[item.id] for item in items])
        subjects = [item.subject for item in items]
        figures[SLCC] = interval(
            _correlations(_standardize(audio_levels, subjects), _standardize(intensity, subjects), draws)
        )
    if len({*utterances}) == 1:  # all resamples are the same, so an interval cannot be estimated
        return {
            name: {**figure, "low": None, "high": None} if isinstance(figure, dict) else figure
            for name, figure in figures.items()
        }
    return figures


def _standardize(values: NDArray[np.float64], subjects: Sequence[str]) -> NDArray[np.float64]:
    """Z-score of values (N,) by subject; 0 for a standard deviation of 0."""
    standard = np.zeros(len(values))
    for subject in set(subjects):
        own = np.array([other == subject for other in subjects])
        spread = values[own].std(ddof=1) if own.sum() > 1 else 0.0
        standard[own] = (values[own] - values[own].mean()) / spread if spread > 0 else 0.0
    return standard


def _correlations(x: NDArray[np.float64], y: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation (R,) of x and y (N,) for each row of item counts `draws` (R, N)."""
    total = draws.sum(axis=1)
    mean_x, mean_y = draws @ x / total, draws @ y / total
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = draws @ (x * y) / total - mean_x * mean_y
        return covariance / np.sqrt((draws @ x**2 / total - mean_x**2) * (draws @ y**2 / total - mean_y**2))
