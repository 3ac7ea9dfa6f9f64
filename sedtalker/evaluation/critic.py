"""Critic of expressions: the emotions of a face by time and region, and where they differ from the emotion track.

Every frame is read, so that expressions of a quarter of a second are seen. The action units of an animation come from
its weights, those of a video from a face tracker (MediaPipe's face landmarker, in the extra `tracker`), or from the
animation of the same name. What speech alone moves is taken off the units (`SPEECH_RANGE`). Their reading is the
association measured on real faces (`sedtalker.face.association`), not the table from which this program makes its
expressions. With a classifier of pictures (`sedtalker.evaluation.expression.PictureJudge`, in the extra `judge`) every
frame is also read as a picture, and each expression has the emotion that the classifier names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import SEDTalkerError, SEDTalkerWarning, require
from sedtalker.evaluation.face_tracker import track_face
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.association import REGIONS, UNIT_NAMES, UNITS, load_association, measured_units

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.emotion.track import EmotionTrack
    from sedtalker.evaluation.expression import PictureJudge

Float = NDArray[np.float64]

SMOOTHING = 0.08  # seconds, width of the mean over time before a frame is read
SHORTEST = 0.14  # seconds of a span
BRIEF = 0.5  # seconds; spans up to it are called brief
BRIDGE = 0.1  # seconds; shorter gaps between spans of one emotion are closed
LAG = 0.3  # seconds by which the face may follow or lead the track
SHORTEST_DIFFERENCE = 0.3  # seconds
CERTAIN = 0.45  # probability from which an expression counts; below it the face is neutral
TRACK_LEVEL = 0.3  # intensity from which the track asks for an expression
SEEN = 0.15  # of a unit, 1 being full intensity, from which it is evidence
SPEECH_RANGE: dict[int, float] = {
    1: 0.16, 2: 0.19, 4: 0.05, 10: 0.20, 12: 0.07, 14: 0.01, 15: 0.01, 20: 0.29, 23: 0.39, 25: 0.37, 26: 0.37, 45: 0.47,
}  # fmt: skip
"""Size of each unit, 1 being full intensity, up to which speech, blinks and moving brows explain it. It is the 95th
percentile over neutral sentences of 30 synthetic voices and the demo, animated by the default talker."""

SIMILAR = {"upset": ("angry", "sad", "disgust")}
"""Emotions as which a label that the association lacks may be read."""


@dataclass(frozen=True)
class FaceSpan:
    """An expression of the face."""

    start: float  # seconds
    end: float
    emotion: str
    probability: float  # mean over the span
    evidence: dict[str, str]  # region -> its units at the apex
    picture: str = ""  # emotion that the classifier of pictures names, "" without it
    picture_probability: float = 0.0  # mean over the span

    @property
    def brief(self) -> bool:
        """Whether it is as short as a micro-expression."""
        return self.end - self.start <= BRIEF

    @property
    def text(self) -> str:
        """The evidence in one line: "brow lowered 0.7, lids tightened 0.4 -> angry"."""
        return f"{', '.join(self.evidence.values()) or 'little movement'} -> {self.emotion}"


@dataclass(frozen=True)
class Difference:
    """A time in which face and track disagree."""

    start: float  # seconds
    end: float
    face: str
    track: str


@dataclass(frozen=True)
class Critique:
    """Expressions of one file over time, with their evidence."""

    file: str
    fps: float
    labels: tuple[str, ...]
    probabilities: Float  # (T, C)
    units: Float  # (T, U), columns of association.UNITS
    spans: tuple[FaceSpan, ...]
    differences: tuple[Difference, ...]
    agreement: float | None  # share of the frames at which face and track agree; None without a track
    pictures: Float | None = None  # (T, P) of the classifier of pictures; None without it
    picture_labels: tuple[str, ...] = ()  # (P,)

    def plain(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "file": self.file,
            "fps": self.fps,
            "labels": list(self.labels),
            "agreement": self.agreement,
            "spans": [asdict(span) | {"brief": span.brief, "text": span.text} for span in self.spans],
            "differences": [asdict(one) for one in self.differences],
            "probabilities": self.probabilities.round(3).tolist(),
            "units": {str(unit): column.round(3).tolist() for unit, column in zip(UNITS, self.units.T, strict=True)},
            "pictures": None if self.pictures is None else self.pictures.round(3).tolist(),
            "picture_labels": list(self.picture_labels),
        }


def critique_animation(animation: Animation, file: str = "", judge: PictureJudge | None = None) -> Critique:
    """Read an animation with blendshape weights; a judge reads its rendered frames.

    Raises:
        SEDTalkerError: it has no weights of ARKit's names, or no frames.
    """
    if animation.blendshapes is None or tuple(animation.blendshape_names) != ARKIT_NAMES:
        raise SEDTalkerError(
            f"no ARKit weights in the animation: {file}. Fit them first: sedtalker export --basis default"
        )
    pictures = None if judge is None else _judge_animation(animation, judge)
    return critique_weights(animation.blendshapes, animation.fps, animation.emotion, file, pictures)


def critique_weights(
    weights: NDArray[np.floating],
    fps: float,
    track: EmotionTrack | None = None,
    file: str = "",
    pictures: Float | None = None,
) -> Critique:
    """Read ARKit weights (T, 52), and compare with a track if one is given.

    Args:
        pictures: (T, P) probabilities of a classifier of pictures over `evaluation.expression.JUDGE_LABELS`.
    """
    if not len(weights):
        raise SEDTalkerError(f"no frames to read: {file}. Give a longer recording")
    return critique_units(measured_units(weights), fps, track, file, pictures)


def critique_units(
    units: Float, fps: float, track: EmotionTrack | None = None, file: str = "", pictures: Float | None = None
) -> Critique:
    """Read action units (T, U), columns of `association.UNITS`, as `critique_weights`."""
    association = load_association()
    units = _smooth(units, fps)
    probabilities = association.probabilities(_beyond_speech(units))
    face = _labels(probabilities, association.labels)
    if pictures is not None:
        pictures = _smooth(pictures, fps)
    spans = tuple(
        _describe(start, end, label, units, probabilities, association.labels, fps, pictures)
        for start, end, label in _runs(face, fps)
        if label != "neutral"
    )
    differences: tuple[Difference, ...] = ()
    agreement = None
    if track is not None:
        differences, agreement = _compare(face, _track_labels(track, fps, len(face)), fps)
    named = () if pictures is None else _picture_labels()
    return Critique(file, fps, association.labels, probabilities, units, spans, differences, agreement, pictures, named)


def critique_video(path: Path, judge: PictureJudge | None = None) -> Critique:
    """Read a video: the animation of the same name if there is one, else the tracked face of every frame.

    Raises:
        SEDTalkerError: the video cannot be read, or has no face.
        MissingExtraError: the face tracker is not installed.
    """
    import warnings

    from sedtalker.animation import load_animation

    beside = path.with_suffix(".npz")
    if beside.is_file():
        warnings.warn(f"reading {beside}, the animation of {path}", SEDTalkerWarning, stacklevel=2)
        return critique_animation(load_animation(beside), str(path), judge)
    tracked = track_face(path, judge)
    return critique_units(tracked.units, tracked.fps, None, str(path), tracked.pictures)


def _judge_animation(animation: Animation, judge: PictureJudge) -> Float:
    """Probabilities (T, P) of a classifier of pictures for the frames of an animation."""
    from sedtalker.evaluation.expression import PICTURE
    from sedtalker.render.soft import SoftRenderer

    face = animation.face
    return judge.read_frames(SoftRenderer(face, PICTURE, PICTURE), face, np.asarray(animation.blendshapes))


def _picture_labels() -> tuple[str, ...]:
    from sedtalker.evaluation.expression import JUDGE_LABELS

    return JUDGE_LABELS


def _beyond_speech(units: Float) -> Float:
    """Units (T, U) without what speech alone moves."""
    expected = np.array([SPEECH_RANGE.get(unit, 0.0) for unit in UNITS])
    return np.maximum(units - expected, 0.0)


def _smooth(values: Float, fps: float) -> Float:
    width = max(1, round(SMOOTHING * fps)) // 2 * 2 + 1
    if width == 1:
        return values
    padded = np.pad(values, ((width // 2, width // 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.vstack([np.zeros(values.shape[1]), padded]), axis=0)
    mean: Float = (sums[width:] - sums[:-width]) / width
    return mean


def _labels(probabilities: Float, labels: Sequence[str]) -> NDArray[np.str_]:
    best = probabilities.argmax(axis=1)
    certain = probabilities[np.arange(len(best)), best] >= CERTAIN
    return np.where(certain, np.array(labels)[best], "neutral")


def _runs(face: NDArray[np.str_], fps: float) -> list[tuple[int, int, str]]:
    """Spans (first, end, label) of equal labels; short gaps are closed and short spans left out."""
    changes = np.flatnonzero(face[1:] != face[:-1]) + 1
    edges = [0, *changes.tolist(), len(face)]
    runs: list[tuple[int, int, str]] = []
    for first, end in pairwise(edges):
        label = str(face[first])
        if label == "neutral":
            continue
        if runs and runs[-1][2] == label and first - runs[-1][1] <= BRIDGE * fps:
            runs[-1] = (runs[-1][0], end, label)
        else:
            runs.append((first, end, label))
    return [run for run in runs if run[1] - run[0] >= SHORTEST * fps]


def _describe(
    start: int,
    end: int,
    label: str,
    units: Float,
    probabilities: Float,
    labels: Sequence[str],
    fps: float,
    pictures: Float | None,
) -> FaceSpan:
    column = probabilities[start:end, list(labels).index(label)]
    apex = units[start + int(column.argmax())]
    added = load_association().contributions(_beyond_speech(apex), label)
    evidence = {}
    for region, members in REGIONS.items():
        strong = [k for k, unit in enumerate(UNITS) if unit in members and apex[k] >= SEEN and added[k] > 0]
        if strong:
            strong.sort(key=lambda k: -added[k])
            evidence[region] = ", ".join(f"{UNIT_NAMES[UNITS[k]]} {apex[k]:.1f}" for k in strong[:2])
    span = FaceSpan(start / fps, end / fps, label, float(column.mean()), evidence)
    if pictures is None:
        return span
    mean = pictures[start:end].mean(axis=0)
    return replace(span, picture=_picture_labels()[int(mean.argmax())], picture_probability=float(mean.max()))


def _track_labels(track: EmotionTrack, fps: float, count: int) -> NDArray[np.str_]:
    posterior, intensity = track.at_rate(fps, count)
    labels = np.array(track.labels)[posterior.argmax(axis=1)]
    return np.where(intensity >= TRACK_LEVEL, labels, "neutral")


def _compare(face: NDArray[np.str_], track: NDArray[np.str_], fps: float) -> tuple[tuple[Difference, ...], float]:
    reach = round(LAG * fps)
    agrees = np.array([_agree(one, track[max(0, k - reach) : k + reach + 1]) for k, one in enumerate(face)], dtype=bool)
    pairs = np.array([f"{a}|{b}" for a, b in zip(face, track, strict=True)])
    pairs[agrees] = ""
    differences = []
    edges = [0, *(np.flatnonzero(pairs[1:] != pairs[:-1]) + 1).tolist(), len(pairs)]
    for first, end in pairwise(edges):
        if pairs[first] and end - first >= SHORTEST_DIFFERENCE * fps:
            seen, meant = str(pairs[first]).split("|")
            differences.append(Difference(first / fps, end / fps, seen, meant))
    return tuple(differences), float(agrees.mean())


def _agree(seen: str, meant: NDArray[np.str_]) -> bool:
    return any(seen == one or seen in SIMILAR.get(str(one), ()) for one in np.unique(meant))


def format_critique(critique: Critique) -> str:
    """The critique as text: one line for each expression and each difference."""
    lines = [f"{critique.file}: {len(critique.spans)} expressions"]
    for span in critique.spans:
        brief = ", brief" if span.brief else ""
        picture = f"; picture: {span.picture} {span.picture_probability:.2f}" if span.picture else ""
        lines.append(f"{span.start:8.2f} {span.end:8.2f}  {span.text} ({span.probability:.2f}{brief}{picture})")
    if critique.pictures is not None and critique.spans:
        same = sum(span.emotion == span.picture for span in critique.spans)
        lines.append(f"action units and pictures name the same emotion in {same} of {len(critique.spans)} expressions")
    if critique.agreement is not None:
        lines.append(f"face and track agree at {critique.agreement:.0%} of the frames")
        lines += [
            f"{one.start:8.2f} {one.end:8.2f}  the track has {one.track}, the face shows {one.face}"
            for one in critique.differences
        ]
    return "\n".join(lines)


def plot_critique(critique: Critique, path: Path, track: EmotionTrack | None = None) -> None:
    """Draw the reading of the face under the track, differences shaded, into a picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    from sedtalker.files import atomic_write
    from sedtalker.labels import label_colors

    times = (np.arange(len(critique.probabilities)) + 0.5) / critique.fps
    rows: list[tuple[str, Float, tuple[str, ...]]] = [("face", critique.probabilities, critique.labels)]
    if track is not None:
        posterior, _ = track.at_rate(critique.fps, len(times))
        rows.insert(0, ("track", posterior.astype(np.float64), track.labels))
    if critique.pictures is not None:
        rows.append(("picture", critique.pictures, critique.picture_labels))
    figure = Figure(figsize=(10, 1.6 * len(rows) + 2.2), layout="constrained")
    axes = figure.subplots(len(rows) + 1, 1, sharex=True)
    for axis, (name, values, labels) in zip(axes, rows, strict=False):
        axis.stackplot(times, values.T, colors=label_colors(labels), labels=labels)
        axis.set(ylabel=name, ylim=(0, 1), xlim=(0, times[-1]))
        for one in critique.differences:
            axis.axvspan(one.start, one.end, color="white", alpha=0.55, hatch="//", zorder=3)
    axes[0].legend(ncols=8, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    for region, members in REGIONS.items():
        axes[-1].plot(times, critique.units[:, [k for k, u in enumerate(UNITS) if u in members]].max(1), label=region)
    axes[-1].set(ylabel="units", xlabel="seconds", ylim=(0, 1.1))
    axes[-1].legend(fontsize=7, ncols=4, frameon=False)
    with atomic_write(path) as temp_path:
        figure.savefig(temp_path, dpi=120, format=path.suffix.lstrip(".") or "png")


@dataclass(frozen=True)
class CriticRecall:
    """How many expressions that were inserted into speaking faces the critic found."""

    seconds: float  # length of the inserted expressions
    inserted: int
    found: int  # with the right emotion
    noticed: int  # with any emotion
    false_spans: int  # expressions in the faces without insertion
    minutes: float  # of these faces

    @property
    def false_spans_per_minute(self) -> float:
        """Expressions found where none was inserted, a minute."""
        return self.false_spans / self.minutes


def measure_recall(
    faces: Sequence[tuple[NDArray[np.floating], float]],
    seconds: Iterable[float] = (0.3, 0.5),
    count: int = 60,
    intensity: float = 1.0,
    seed: int = 0,
) -> list[CriticRecall]:
    """Insert expressions into neutral speaking faces in turn, and count how many are found.

    Each is one of the six basic emotions for the given time, with edges of 0.1 s inside it, at a random time.

    Args:
        faces: weights (T, 52) and frame rate of each.
    """
    from sedtalker.face.action_units import emotion_weights

    labels = tuple(label for label in load_association().labels if label != "neutral")
    shapes, rng, results = emotion_weights(labels), np.random.default_rng(seed), []
    false_spans = sum(len(critique_weights(weights, fps).spans) for weights, fps in faces)
    minutes = sum(len(weights) / fps for weights, fps in faces) / 60
    for length in seconds:
        found = noticed = 0
        for number in range(count):
            weights, fps = faces[number // len(labels) % len(faces)]
            frames = round(length * fps)
            first = int(rng.integers(1, max(2, len(weights) - frames - 1)))
            edge = min(0.1, length / 3) * fps
            shape = np.clip(np.minimum(np.arange(frames) + 0.5, frames - np.arange(frames) - 0.5) / edge, 0, 1)
            label = labels[number % len(labels)]
            shown = weights.astype(np.float64).copy()
            added = intensity * shape[:, None] * shapes[labels.index(label)]
            inside = shown[first : first + frames]
            inside[:] = np.clip(inside + added[: len(inside)], 0, 1)
            spans = critique_weights(shown, fps).spans
            near = [s for s in spans if s.end > first / fps and s.start < (first + frames) / fps]
            noticed += bool(near)
            found += any(span.emotion == label for span in near)
        results.append(CriticRecall(length, count, found, noticed, false_spans, minutes))
    return results


def format_recall(results: Sequence[CriticRecall]) -> str:
    """The recall as text."""
    lines = [
        f"{one.seconds:g} s: {one.found} of {one.inserted} found with their emotion ({one.found / one.inserted:.0%}), "
        f"{one.noticed} with any"
        for one in results
    ]
    one = results[0]
    rate = f"{one.false_spans_per_minute:.1f} a minute"
    return "\n".join(
        [*lines, f"without insertion: {one.false_spans} expressions in {one.minutes:.1f} minutes ({rate})"]
    )
