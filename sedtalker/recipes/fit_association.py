"""Fit the association of action units and expressions: `python -m sedtalker.recipes fit_association RAVDESS`.

Reads OpenFace's action units of RAVDESS (`action_units/per_clip.csv` and `action_units/frames/*/*.npz`), writes
assets/face/association.json and prints a table of both labelling schemes beside the published prototypes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError
from sedtalker.evaluation.expression import read_unit_excess
from sedtalker.face.association import (
    PROTOTYPES,
    UNITS,
    Association,
    compare_with_prototypes,
    cross_validate,
    fit_association,
)
from sedtalker.files import atomic_write
from sedtalker.resources import asset

Float = NDArray[np.float64]

_EMOTIONS = dict(
    zip(range(1, 9), ("neutral", "neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"), strict=True)
)
_LEVELS = {1: 2 / 3, 2: 1.0}  # intensity of RAVDESS' "normal" and "strong"
REST, RISE = 0.4, 0.5  # seconds at a clip's start and end without expression, and of its rise and fall
STRIDE = 5  # frames between two that are used


@dataclass(frozen=True)
class MeasuredUnits:
    """Rows of measured action units and their labels."""

    units: Float  # (N, U) excess over the same actor's neutral face, 0..5
    emotions: list[str]
    intensities: Float  # (N,)
    actors: list[str]


def read_clips(folder: Path) -> MeasuredUnits:
    """Means over clips, with the labels of the clips. Raises DataError if there are none."""
    units, codes = read_unit_excess(folder, UNITS)
    emotions, levels, actors, _ = zip(*(_fields("-".join(code)) for code in codes), strict=True)
    return MeasuredUnits(units, list(emotions), np.array(levels), list(actors))


@dataclass(frozen=True)
class Sequence:
    """The measured units of one clip."""

    units: Float  # (T, U) excess over the actor's neutral face
    fps: float
    emotion: str
    level: float  # intensity of the clip, 0..1
    actor: str


def read_sequences(folder: Path) -> list[Sequence]:
    """The clips whose frames were measured; empty if there are none."""
    clips = []
    for path in sorted((folder / "action_units" / "frames").glob("*/*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            names = [int(str(name)[2:4]) for name in arrays["names"]]
            values = arrays["au"].astype(np.float64)[:, [names.index(unit) for unit in UNITS]]
            clips.append((_fields(path.stem), values, float(arrays["fps"])))
    rest = {
        actor: np.concatenate([values for fields, values, _ in clips if fields[2] == actor and fields[3] == 1]).mean(0)
        for actor in {fields[2] for fields, _, _ in clips}
    }
    return [
        Sequence(values - rest[actor], fps, emotion, level, actor) for (emotion, level, actor, _), values, fps in clips
    ]


def read_frames(folder: Path) -> MeasuredUnits:
    """Single frames of the clips, with an intensity of the frame. Raises DataError if there are none.

    The intensity is 0 at the start and end of a clip, where the actors rest, and rises to the clip's between.
    """
    sequences = read_sequences(folder)
    if not sequences:
        raise DataError(f"no frames of action units: {folder / 'action_units' / 'frames'}. Put OpenFace's *.npz there")
    units, emotions, intensities, actors = [], [], [], []
    for one in sequences:
        time = np.arange(len(one.units)) / one.fps
        inside = np.minimum(time, time[-1] - time) - REST
        chosen = slice(None, None, STRIDE)
        intensity = one.level * np.clip(inside / RISE, 0, 1)[chosen]
        units.append(one.units[chosen])
        intensities.append(intensity)
        emotions += [one.emotion if value > 0.1 else "neutral" for value in intensity]
        actors += [one.actor] * len(intensity)
    return MeasuredUnits(np.concatenate(units), emotions, np.concatenate(intensities), actors)


def _fields(name: str) -> tuple[str, float, str, int]:
    """Emotion, intensity, actor and code of the emotion of a file name of RAVDESS."""
    parts = [int(part) for part in name.split("-")]
    return _EMOTIONS[parts[2]], 0.0 if parts[2] <= 2 else _LEVELS[parts[3]], f"{parts[6]:02d}", parts[2]


def store(associations: dict[str, Association], path: Path) -> None:
    """Write the asset."""
    document = {
        "version": 1,
        "units": list(UNITS),
        "source": "OpenFace's action units of RAVDESS (Livingstone & Russo 2018, CC BY-NC-SA 4.0): measured statistics",
        "schemes": {
            name: {
                "labels": list(one.labels),
                "to_units": one.to_units.round(4).tolist(),
                "to_units_error": one.to_units_error.round(4).tolist(),
                "to_emotions": one.to_emotions.round(4).tolist(),
                "bias": one.bias.round(4).tolist(),
            }
            for name, one in associations.items()
        },
    }
    with atomic_write(path) as temp_path:
        temp_path.write_text(json.dumps(document) + "\n", encoding="utf-8")


def format_associations(associations: dict[str, Association], accuracies: dict[str, float]) -> str:
    """The table of measured units and published prototypes, as Markdown."""
    lines = [
        "| emotion | scheme | strongest units (excess, 0 to 5) | prototype | AUC | cosine | risen |",
        "|---|---|---|---|---|---|---|",
    ]
    for label in PROTOTYPES:
        for name, one in associations.items():
            figures = compare_with_prototypes(one)[label]
            values = one.to_units[one.labels.index(label)]
            top = ", ".join(f"{UNITS[k]} {values[k]:.2f}" for k in np.argsort(-values)[:5])
            shown = "+".join(map(str, PROTOTYPES[label]))
            lines.append(
                f"| {label} | {name} | {top} | {shown} | {figures['auc']:.2f} | {figures['cosine']:.2f} "
                f"| {figures['found']:.0%} |"
            )
    read = ", ".join(f"{name} {value:.3f}" for name, value in accuracies.items())
    return "\n".join([*lines, "", f"balanced accuracy of units -> emotion on actors that were left out: {read}"])


def balanced_accuracy(measured: MeasuredUnits) -> float:
    """Mean over the emotions of the share of rows of unseen actors that is read right."""
    read, names = cross_validate(measured.units, measured.emotions, measured.actors), np.array(measured.emotions)
    return float(np.mean([(read[names == label] == label).mean() for label in np.unique(names)]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ravdess", type=Path, help="folder of RAVDESS with OpenFace's action units")
    parser.add_argument("-o", "--output", type=Path, default=asset("face") / "association.json")


def run(arguments: argparse.Namespace) -> None:
    measured = {"clip": read_clips(arguments.ravdess), "frame": read_frames(arguments.ravdess)}
    fitted = {
        name: fit_association(name, one.units, one.emotions, one.intensities, one.actors)
        for name, one in measured.items()
    }
    store(fitted, arguments.output)
    print(format_associations(fitted, {name: balanced_accuracy(one) for name, one in measured.items()}))
