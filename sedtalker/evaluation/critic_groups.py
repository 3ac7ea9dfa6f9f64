"""False-positive and false-negative rates of the critic by group of people, with the largest gaps first.

Two sources of labelled faces: real actors (OpenFace's action units of RAVDESS; each is read by an association that was
fitted without the actor), and the folder of `sedtalker data expressions` (every video is tracked, so that the whole way
from the picture is measured; groups are heads and what covers the face).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.data.manifest import Utterance
from sedtalker.errors import DataError, reason_of, require
from sedtalker.evaluation.bootstrap import show
from sedtalker.evaluation.clips import ClipPrediction
from sedtalker.evaluation.critic import critique_units
from sedtalker.evaluation.diarizer import SHOWN_GAPS, describe_clips, false_rate_table, gap_table
from sedtalker.evaluation.expression import CODES, read_unit_excess
from sedtalker.evaluation.face_tracker import NoFaceError, TrackedFace, track_face
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.association import UNITS, cross_validate, load_association

CLIPS = ("clips.json", "clips.parquet")  # of `sedtalker data expressions`
SHOWN, RESTING = 0.3, 0.05  # intensity from which a frame counts as its emotion, and below which as neutral


def critic_groups(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Figures of the critic by group of the labelled faces in a folder.

    Raises:
        DataError: the folder holds neither action units of RAVDESS nor generated clips.
        MissingExtraError: the videos of generated clips need the face tracker.
    """
    generated = any((folder / name).is_file() for name in CLIPS)
    clips = _read_generated(folder) if generated else _read_actors(folder)
    labels = load_association().labels
    return {"source": str(folder), "labels": list(labels), **describe_clips(clips, labels, seed)}


def _read_actors(ravdess: Path) -> list[ClipPrediction]:
    """The measured performances of RAVDESS, read without their actor."""
    units, codes = read_unit_excess(ravdess, UNITS)
    kept = [index for index, code in enumerate(codes) if code[2] in CODES]  # without calm
    emotions = [CODES[codes[index][2]] for index in kept]
    actors = [codes[index][6] for index in kept]
    read = cross_validate(units[kept], emotions, actors)
    labels = load_association().labels
    clips = []
    for index, emotion, actor, answer in zip(kept, emotions, actors, read, strict=True):
        posterior = np.array([[label == answer for label in labels]], np.float32)
        gender = "female" if int(actor) % 2 == 0 else "male"
        clips.append(_prediction("-".join(codes[index]), "ravdess", actor, gender, emotion, posterior, labels))
    return clips


def _read_generated(folder: Path) -> list[ClipPrediction]:
    """The videos of `sedtalker data expressions`: frames that show the emotion, and frames at rest."""
    clips: list[ClipPrediction] = []
    frames: dict[str, list[tuple[int, str, float]]] = {}
    for row in read_table(folder, "frames"):
        frames.setdefault(row["id"], []).append((row["frame"], row["emotion"], row["intensity"]))
    labels = load_association().labels
    for row, tracked in track_clips(folder, lambda row: not row["blend"] and row["emotion"] in labels):
        probabilities = critique_units(tracked.units, tracked.fps).probabilities.astype(np.float32)
        level = np.array([intensity for _, _, intensity in sorted(frames[row["id"]])])[: len(probabilities)]
        for emotion, chosen in ((row["emotion"], level >= SHOWN), ("neutral", level < RESTING)):
            if chosen.any():
                name, covered = f"{row['id']}-{emotion}", f"occlusion {row['occlusion']}"
                shown = probabilities[: len(level)][chosen]
                clips.append(_prediction(name, "generated", row["skin"], "", emotion, shown, labels, covered))
    if not clips:
        raise DataError(f"no clip that can be read: {folder}. Make some with sedtalker data expressions")
    return clips


def track_clips(folder: Path, chosen: Callable[[dict[str, Any]], bool]) -> Iterator[tuple[dict[str, Any], TrackedFace]]:
    """Rows of the generated clips for which `chosen` is true, with their tracked face; without clips that show no face.

    Raises:
        DataError: the table of the clips cannot be read.
        SEDTalkerError: a video cannot be read.
    """
    for row in tqdm(read_table(folder, "clips"), desc="clips", unit="clip", disable=None):
        if not chosen(row):
            continue
        try:
            tracked = track_face(folder / row["video"])
        except NoFaceError:
            continue
        yield row, tracked


def read_table(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of the table `clips` or `frames` of generated clips. Raises DataError if it cannot be read."""
    path = folder / f"{name}.json"
    try:
        if path.is_file():
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            path = folder / f"{name}.parquet"
            rows = require("pyarrow.parquet", "parquet").read_table(path).to_pylist()
        return [dict(row) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"unreadable table: {path} ({reason_of(error)}). Make the clips again") from error


def _prediction(
    name: str,
    corpus: str,
    speaker: str,
    gender: str,
    emotion: str,
    posterior: NDArray[np.float32],
    labels: Sequence[str],
    channel: str = "",
) -> ClipPrediction:
    item = Utterance(name, name, corpus, speaker, gender, "", emotion, channel=channel)
    return ClipPrediction(item, posterior, 1 - posterior[:, labels.index("neutral")], labels.index(emotion))


def format_groups(report: dict[str, Any]) -> str:
    """The report as Markdown: the largest gaps, and rates and recall of the groups."""
    gaps = [gap_table(report["gaps"][:SHOWN_GAPS])] if report["gaps"] else []
    rows = [["group", "clips", "mean recall"]]
    rows += [[name, str(row["clips"]), show(row["intervals"]["uar"])] for name, row in report["groups"].items()]
    return "\n\n".join([f"Critic on {report['source']}", *gaps, false_rate_table(report), markdown_table(rows)])
