"""Evaluation of predicted against true motion: metrics by sequence and group, confidence, baselines, videos."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.cluster import map_on_cluster
from sedtalker.curves import resample
from sedtalker.data.features import check_features
from sedtalker.data.preflight import as_frames
from sedtalker.data.safe_files import open_array
from sedtalker.data.vertex_corpora.emovoca import emotion_of, parse_name
from sedtalker.data.vertex_corpora.templates import read_template_mesh, read_templates
from sedtalker.data.vertex_emotion import LABELLED, read_emotion
from sedtalker.data.vertex_store import Store, VertexClip, is_store, open_store
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError, SEDTalkerError
from sedtalker.evaluation.bootstrap import CONFIDENCE, RESAMPLES, draw_counts, interval
from sedtalker.evaluation.lips import Phones, measure_closures
from sedtalker.evaluation.vertices import ALL, MEASURES, Measure, lip_opening, measure
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.face.vertex_masks import LIP_PAIR, VertexMasks
from sedtalker.files import RECORDS_FOLDER
from sedtalker.render.animation_video import render_comparison
from sedtalker.render.video import Audio
from sedtalker.speech import FRAME_RATE
from sedtalker.talker.model import TalkerModel, load_talker_model
from sedtalker.workers import WorkerDeath, map_in_workers

Float = NDArray[np.floating]

SLCC = "slcc"  # a metric of a set, not of a sequence
SLCC_FORMULA = (
    "Pearson over sequences of the sound's RMS and lip_intensity, each z-scored by subject; nearest to truth's"
)
GROUPS = ("emotion", "level", "emotion and level", "subject")
RIDGE = 1e-3  # penalty of the linear baseline, relative to the mean power of its inputs
REGRESSION_FRAMES = 1000  # frames of a product of the linear baseline; 60 MB for FLAME
RANKED_BY = ("lve_l2", "mve")  # measures that clips are ranked by; the first available one is used


@dataclass(frozen=True)
class Item:
    """One true sequence."""

    id: str
    subject: str = ""
    sentence: str = ""
    emotion: str = ""
    level: str = ""
    sound: str = ""  # its name in a phone table

    def group(self, kind: str) -> str:
        """Name of the item's group of a kind in `GROUPS`."""
        return f"{self.emotion} {self.level}" if kind == "emotion and level" else str(getattr(self, kind))


logger = logging.getLogger(__name__)

Predict = Callable[[Item], Float]  # positions (T, V, 3) in metres of a sequence


class Truth(Protocol):
    """True sequences."""

    fps: float
    split: str
    items: Sequence[Item]

    def motion(self, item: Item) -> Float:
        """Positions (T, V, 3) in metres."""
        ...

    def template(self, item: Item) -> Float | None:
        """Face at rest (V, 3); None if unknown."""
        ...

    def loudness(self, item: Item) -> float | None:
        """Root mean square of the audio samples; None if unknown."""
        ...


class StoreTruth:
    """The clips of one split of a prepared store."""

    def __init__(self, store: Store, split: str) -> None:
        self.store, self.split, self.fps = store, split, store.fps
        self._loudness: dict[str, float] = {}
        self.clips: dict[str, VertexClip] = {clip.id: clip for clip in store.select(split)}
        if not self.clips:
            raise DataError(f"no clips of the {split} split: {store.root}. Choose another with --split")
        self.items: Sequence[Item] = [
            Item(clip.id, clip.subject, clip.sentence, clip.emotion, str(clip.level), clip.audio)
            for clip in self.clips.values()
        ]

    def motion(self, item: Item) -> Float:
        return self.store.motion(self.clips[item.id])

    def template(self, item: Item) -> Float | None:
        return self.store.templates[item.subject]

    def loudness(self, item: Item) -> float | None:
        clip = self.clips[item.id]
        if clip.audio not in self._loudness:
            self._loudness[clip.audio] = float(np.sqrt(np.square(load_audio(self.store.sound(clip))).mean()))
        return self._loudness[clip.audio]


class FolderTruth:
    """A folder of `.npy` positions or `.npz` animations; subject, emotion and level are parsed from EmoVOCA's names."""

    def __init__(self, folder: Path, fps: float, templates: Path | None = None) -> None:
        self.folder, self.fps, self.split = folder, fps, "all of the folder"
        self.templates = _read_templates(templates)
        self.paths = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".npy", ".npz")}
        if not self.paths:
            raise DataError(f"no .npy or .npz: {folder}. Give a folder of true sequences, or a prepared store")
        self.items: Sequence[Item] = [_parse_item(name) for name in self.paths]

    def motion(self, item: Item) -> Float:
        motion, fps = read_motion(self.paths[item.id], None)
        if fps is not None and fps != self.fps:
            raise DataError(f"{fps:g} fps, not {self.fps:g}: {self.paths[item.id]}. Use --fps {fps:g}")
        return motion

    def template(self, item: Item) -> Float | None:
        return self.templates.get(item.subject, self.templates.get(""))

    def loudness(self, item: Item) -> float | None:
        return None


def open_truth(
    folder: Path | str, split: str = "test", fps: float | None = None, templates: Path | None = None
) -> Truth:
    """Open a prepared store, or a folder of sequences at `fps` (default 30).

    Raises:
        DataError: it is neither, or has no sequences of the split.
    """
    folder = Path(folder)
    if is_store(folder):
        return StoreTruth(open_store(folder), split)
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}. Give true sequences, or a prepared store")
    return FolderTruth(folder, fps or 30.0, templates)


def read_motion(path: Path, vertices: int | None) -> tuple[Float, float | None]:
    """Read positions (T, V, 3) in metres of an animation (.npz) or array (.npy), and the frame rate if the file has it.

    Raises:
        SEDTalkerError: the file cannot be read or is of another topology.
    """
    if path.suffix == ".npz":
        from sedtalker.animation import load_animation

        animation = load_animation(path)
        return animation.vertices, animation.fps
    array = open_array(path)
    if vertices is None:
        if array.ndim == 2 and array.shape[1] % 3 == 0:
            vertices = array.shape[1] // 3
        elif array.ndim == 3 and array.shape[2] == 3:
            vertices = array.shape[1]
        else:
            raise DataError(f"shape {array.shape} is neither (T, V, 3) nor (T, 3 V): {path}. Export positions")
    return as_frames(array, vertices), None


def read_predictions(folder: Path | str, fps: float) -> Predict:
    """Function that reads predicted positions at `fps` of a sequence from `ID.npz` or `ID.npy` in a folder.

    Raises:
        DataError: the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"no such folder: {root}. Give the predicted sequences, named as the true ones")
    return _PredictedFiles(root, fps)


@dataclass(frozen=True)
class _PredictedFiles:
    root: Path
    fps: float

    def __call__(self, item: Item) -> Float:
        paths = [self.root / f"{item.id}.npz", self.root / f"{item.id}.npy"]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise DataError(f"no prediction: {self.root / item.id}.npz or .npy. Predict it, or remove its true file")
        motion, own_fps = read_motion(path, None)
        if own_fps is not None and own_fps != self.fps:
            raise DataError(f"{own_fps:g} fps predicted, {self.fps:g} true: {path}. Animate it with --fps {self.fps:g}")
        return motion


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
                reason = " ".join(str(measured).split()) or type(measured).__name__
                raise SEDTalkerError(f"a cluster job of the evaluation failed: {reason}. Run it again") from measured
            yield from measured
    elif jobs > 1:
        for item, measured in map_in_workers(_MakeMeasurer(measurer, jobs), items, jobs, lambda item: None):
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


def _parse_item(name: str) -> Item:
    try:
        subject, sentence, expression, level = parse_name(name)
    except DataError:
        return Item(name)
    return Item(name, subject, sentence, emotion_of(expression, level)[0], str(level))


def _read_templates(path: Path | None) -> Mapping[str, Float]:
    """Templates by subject of a pickle, or one mesh for all under the empty name."""
    if path is None:
        return {}
    if path.suffix == ".pkl":
        return read_templates(path.parent, path)
    return {"": read_template_mesh(path)[0]}


@dataclass(frozen=True)
class _StillFace:
    truth: Truth

    def __call__(self, item: Item) -> Float:
        template = self.truth.template(item)
        if template is None:
            raise DataError("the baseline still needs a template. Name it with --templates")
        return np.broadcast_to(template, self.truth.motion(item).shape)


def still_face(truth: Truth) -> Predict:
    """Baseline: the template, as long as the truth."""
    return _StillFace(truth)


@dataclass(frozen=True)
class _MeanMotion:
    truth: StoreTruth
    mean: Float  # (V, 3) displacement in metres

    def __call__(self, item: Item) -> Float:
        clip = self.truth.clips[item.id]
        posture = self.truth.store.templates[clip.subject] + self.mean
        return np.broadcast_to(posture, (clip.frames, *self.mean.shape))


def mean_motion(truth: StoreTruth) -> Predict:
    """Baseline: the template plus the mean displacement of the training frames, the best constant prediction."""
    store, total, frames = truth.store, None, 0
    for clip in tqdm(_training_clips(store), desc="mean motion", unit="clip"):
        moved = store.displacements(clip).sum(axis=0).astype(np.float64)
        total, frames = moved if total is None else total + moved, frames + clip.frames
    assert total is not None
    return _MeanMotion(truth, (total / frames).astype(np.float32))


@dataclass(frozen=True)
class _LinearRegression:
    truth: StoreTruth
    weights: Float  # (D, 3 V)

    def __call__(self, item: Item) -> Float:
        store, clip = self.truth.store, self.truth.clips[item.id]
        moved = _regression_inputs(store, clip) @ self.weights
        return moved.reshape(clip.frames, -1, 3) + store.templates[clip.subject]


def linear_regression(truth: StoreTruth) -> Predict:
    """Baseline: ridge regression from speech features (last layer), emotion and intensity of a frame to displacements.

    It is fitted to the training split by its normal equations, whose memory does not grow with the corpus.
    """
    store = truth.store
    gram, cross = np.zeros(()), np.zeros(())
    inputs: list[Float] = []
    outputs: list[Float] = []
    clips = _training_clips(store)
    for number, clip in enumerate(tqdm(clips, desc="linear regression", unit="clip"), start=1):
        inputs.append(_regression_inputs(store, clip))
        outputs.append(store.displacements(clip).reshape(clip.frames, -1))
        if sum(map(len, inputs)) >= REGRESSION_FRAMES or number == len(clips):  # larger products are faster
            x, y = np.concatenate(inputs), np.concatenate(outputs)
            gram, cross = gram + np.float64(x.T) @ x, cross + x.T @ y
            inputs, outputs = [], []
    return _LinearRegression(truth, solve_ridge(gram, cross, RIDGE).astype(np.float32))


def solve_ridge(gram: Float, cross: Float, penalty: float) -> Float:
    """Weights (D, K) of a ridge regression from its normal equations, x'x (D, D) and x'y (D, K).

    `penalty` is relative to the mean power of the inputs, trace(x'x) / D.
    """
    return np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), cross)


BASELINES = ("still", "mean", "linear")


def make_systems(
    predicted: Path, truth: Truth, names: Sequence[str] | None = None, emotion: str = LABELLED
) -> dict[str, Predict]:
    """Systems by name: the talker first, then the baselines, then the truth.

    Args:
        predicted: folder of a trained talker, or of its predicted sequences.
        truth: true sequences; a talker's folder and the fitted baselines need a store.
        names: baselines out of `BASELINES`; None: all that the truth allows.
        emotion: of a talker, see `predict_with_talker`.

    Raises:
        DataError: the talker or a named baseline does not work with this truth.
    """
    systems: dict[str, Predict] = {}
    if (predicted / "config.json").is_file():
        if not isinstance(truth, StoreTruth):
            raise DataError(f"a talker's folder needs a store as the truth: {predicted}. Run sedtalker data prepare")
        systems["talker"] = predict_with_talker(predicted, truth, emotion=emotion)
    else:
        systems["talker"] = read_predictions(predicted, truth.fps)
    selected = BASELINES if names is None else names
    if "still" in selected and truth.template(truth.items[0]) is not None:
        systems["still face"] = still_face(truth)
    fitted = {"mean": ("mean motion", mean_motion), "linear": ("linear", linear_regression)}
    for key, (name, fit) in fitted.items():
        if key not in selected:
            continue
        try:
            if not isinstance(truth, StoreTruth):
                raise DataError(f"baseline {key!r} needs the training split of a store. Run sedtalker data prepare")
            systems[name] = fit(truth)
        except DataError as error:
            if names is not None:
                raise
            logger.warning("without the baseline %r: %s", name, error)
    systems["truth"] = truth.motion  # for its lip intensity and its correlation with the audio
    return systems


def load_features(store: Store, clip: VertexClip) -> NDArray[np.float16]:
    """Read the cached speech features (T, L, D) of a clip at 50 Hz. Raises DataError if they are missing."""
    path = store.features(clip)
    if not path.is_file():
        raise DataError(f"no speech features: {path}. Run sedtalker data prepare again, without --encoder none")
    return np.load(path, allow_pickle=False)


def _regression_inputs(store: Store, clip: VertexClip) -> Float:
    """Inputs (T, D + C + 1): features, intensity in the column of the emotion, and 1."""
    last_layer = load_features(store, clip)[:, -1].astype(np.float32)
    nearest = ((np.arange(clip.frames) + 0.5) / store.fps * FRAME_RATE).astype(int)
    features = last_layer[np.minimum(nearest, len(last_layer) - 1)]
    emotion = np.zeros((clip.frames, len(store.labels)), np.float32)
    emotion[:, store.labels.index(clip.emotion)] = clip.intensity
    return np.concatenate([features, emotion, np.ones((clip.frames, 1), np.float32)], axis=1)


def _training_clips(store: Store) -> list[VertexClip]:
    clips = store.select("train")
    if not clips:
        raise DataError(f"no training clips: {store.root}. Its baselines cannot be fitted; use --baselines still")
    return clips


def predict_with_talker(folder: Path | str, truth: StoreTruth, device: str = "cpu", emotion: str = LABELLED) -> Predict:
    """Function that predicts positions (T, V, 3) at the frame rate of the store by a talker with its mean style.

    Args:
        emotion: out of `EMOTION_SOURCES`: the labels of the clips, or the tracks of a diarizer on their sounds.

    Raises:
        CheckpointError: the talker cannot be read.
        DataError: its topology, emotions or features differ from those of the store.
    """
    prediction = _TalkerPrediction(Path(folder), truth, device, emotion)
    prediction.load()
    return prediction


@dataclass
class _TalkerPrediction:
    """Predictions of a talker, which each process loads for itself."""

    folder: Path
    truth: StoreTruth
    device: str
    emotion: str
    model: TalkerModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}

    def load(self) -> TalkerModel:
        """Load and check the talker at first use."""
        if self.model is None:
            model = load_talker_model(self.folder).to(self.device)
            labels = {clip.emotion for clip in self.truth.clips.values()}
            if unknown := sorted(labels - set(model.config.labels)):
                raise DataError(
                    f"the talker does not know {unknown[0]!r}: {self.folder}. Train one with it, or use another store"
                )
            _displacement_function(model, self.truth.store.vertices)  # raises if it has another topology
            self.model = model
        return self.model

    @torch.inference_mode()
    def __call__(self, item: Item) -> Float:
        model, store, clip = self.load(), self.truth.store, self.truth.clips[item.id]
        features = torch.from_numpy(load_features(store, clip).astype(np.float32))[None].to(self.device)
        check_features(model.config, store.root, *features.shape[2:])
        posterior, intensity = self._emotion(clip, features.shape[1], model.config.labels)
        coefficients = model(features, posterior, intensity)[0].float().cpu().numpy()
        displacements = _displacement_function(model, store.vertices)
        moved = displacements(resample(coefficients, FRAME_RATE, store.fps, clip.frames))
        return moved + store.templates[clip.subject]

    def _emotion(self, clip: VertexClip, frames: int, labels: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Posterior (1, T, C) and intensity (1, T)."""
        posterior = torch.zeros(1, frames, len(labels), device=self.device)
        if self.emotion == LABELLED:
            posterior[..., labels.index(clip.emotion)] = 1
            return posterior, torch.full((1, frames), clip.intensity, device=self.device)
        track = read_emotion(self.truth.store, clip.audio)
        own = np.minimum(np.arange(frames), len(track.intensity) - 1)
        posterior[0, :, : track.posterior.shape[1]] = torch.from_numpy(track.posterior[own])
        return posterior, torch.from_numpy(track.intensity[own])[None].to(self.device)


def _displacement_function(model: TalkerModel, vertices: int) -> Callable[[Float], Float]:
    """Function from coefficients (T, K) to displacements (T, V, 3) in metres."""
    if model.config.head == "blendshapes":
        face = load_face()
        if len(face.template) != vertices:
            raise DataError(
                f"the talker moves {len(face.template)} vertices, the store has {vertices}. Train one on it"
            )
        return lambda weights: face.pose(weights) - face.template
    if model.config.vertices != vertices:
        raise DataError(f"the talker moves {model.config.vertices} vertices, the store has {vertices}. Train one on it")
    return model.predict_displacements


def render_extremes(result: Result, predict: Predict, truth: Truth, folder: Path, face: Face) -> list[Path]:
    """Render the worst, median and best clip to `worst_ID.mp4` and so on; returns the paths.

    Clips are ranked by the error of the lips, without masks by that of all vertices. Videos of a store have audio.
    """
    items = {item.id: item for item in truth.items}
    paths = []
    for rank, name in select_extremes(result).items():
        item = items[name]
        predicted, true = predict(item), truth.motion(item)
        count = min(len(predicted), len(true))
        path = folder / f"{rank}_{name}.mp4"
        render_comparison(
            _make_animation(predicted[:count], face, truth.fps),
            _make_animation(true[:count], face, truth.fps),
            path,
            face=face,
            audio=_load_sound(truth, item, count / truth.fps),
        )
        paths.append(path)
    return paths


def select_extremes(result: Result) -> dict[str, str]:
    """Select the worst, the median and the best clip; a clip is selected once."""
    first = next(iter(result.figures.values()))
    by = next(name for name in RANKED_BY if name in first)
    ranked = sorted(result.figures, key=lambda name: (result.figures[name][by], name))
    places = {"worst": -1, "median": (len(ranked) - 1) // 2, "best": 0}
    selected: dict[str, str] = {}
    for rank, rank_index in places.items():
        if ranked[rank_index] not in selected.values():
            selected[rank] = ranked[rank_index]
    return selected


def choose_face(truth: Truth, named: str | None = None) -> Face:
    """Choose a face to draw motion on: the named one, the default head if it fits, or the triangles of the truth.

    Raises:
        DataError: none of them has the number of vertices.
    """
    motion = truth.motion(truth.items[0])
    face = load_face(named or "default")
    if face.template.shape == motion.shape[1:]:
        return face
    triangles = None if named else _triangles(truth)
    if triangles is None:
        problem = f"{named} has {len(face.template)} vertices" if named else "no triangles are known"
        raise DataError(f"{problem}, the motion has {motion.shape[1]}: {truth.items[0].id}. Name its mesh with --face")
    template = truth.template(truth.items[0])
    return Face("truth", np.asarray(motion[0] if template is None else template, np.float32), triangles)


def _triangles(truth: Truth) -> NDArray[np.int32] | None:
    if isinstance(truth, StoreTruth):
        return truth.store.faces
    if isinstance(truth, FolderTruth):
        from sedtalker.animation import load_animation

        animations = [path for path in truth.paths.values() if path.suffix == ".npz"]
        return load_animation(animations[0]).faces if animations else None
    return None


def _make_animation(motion: Float, face: Face, fps: float) -> Animation:
    dense = np.ascontiguousarray(motion, np.float32)
    track = EmotionTrack.neutral(len(dense) / fps)
    return Animation(face.template, face.faces, fps, track, dense=dense, rig=face)


def _load_sound(truth: Truth, item: Item, seconds: float) -> Audio | None:
    """Audio of a store's clip, cut or padded to the length of the video; None without a store."""
    if not isinstance(truth, StoreTruth):
        return None
    samples = load_audio(truth.store.sound(truth.clips[item.id]))
    count = round(seconds * SAMPLE_RATE)
    return np.pad(samples[:count], (0, max(0, count - len(samples)))), SAMPLE_RATE
