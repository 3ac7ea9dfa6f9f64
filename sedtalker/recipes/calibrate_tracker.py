"""Fit the face tracker's map to action units: `python -m sedtalker.recipes calibrate_tracker CLIPS`.

CLIPS is a folder of `sedtalker data expressions`: every video is tracked, and the scores are mapped to the known units
of its frames without cover. Prints how well the units of heads that were left out are found, writes
assets/face/tracker.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError
from sedtalker.evaluation.critic_groups import read_table, track_clips
from sedtalker.evaluation.face_tracker import apply_calibration, fit_calibration
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.association import UNIT_NAMES, UNITS, measured_units
from sedtalker.files import atomic_write
from sedtalker.resources import asset

Float = NDArray[np.float64]


def read_pairs(folder: Path) -> tuple[Float, Float, list[str]]:
    """Scores (N, 52), true action units (N, U) and heads (N,) of the frames of generated clips.

    Raises:
        DataError: the folder has no clip with a visible face.
    """
    known: dict[str, list[list[float]]] = {}
    for row in sorted(read_table(folder, "frames"), key=lambda row: row["frame"]):
        known.setdefault(row["id"], []).append(row["weights"])
    scores, units, heads = [], [], []
    for row, tracked in track_clips(folder, lambda row: row["occlusion"] == "none"):
        true = measured_units(np.array(known[row["id"]]))[: len(tracked.scores)]
        scores.append(tracked.scores[: len(true)])
        units.append(true)
        heads += [row["skin"]] * len(true)
    if not scores:
        raise DataError(f"no face in the clips: {folder}. Make some with sedtalker data expressions")
    return np.concatenate(scores), np.concatenate(units), heads


def cross_validate(scores: Float, units: Float, heads: list[str]) -> Float:
    """Correlation (U,) of found and true units on heads that were left out; NaN for a unit that never moves."""
    found, names = np.zeros_like(units), np.array(heads)
    for head in np.unique(names):
        test = names == head
        found[test] = apply_calibration(scores[test], fit_calibration(scores[~test], units[~test]))
    moving = (units.std(0) > 1e-6) & (found.std(0) > 1e-6)
    result = np.full(units.shape[1], np.nan)
    for k in np.flatnonzero(moving):
        result[k] = np.corrcoef(found[:, k], units[:, k])[0, 1]
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", type=Path, help="folder of sedtalker data expressions")
    parser.add_argument("-o", "--output", type=Path, default=asset("face") / "tracker.json")


def run(arguments: argparse.Namespace) -> None:
    scores, units, heads = read_pairs(arguments.clips)
    correlations = cross_validate(scores, units, heads)
    document = {
        "version": 1,
        "units": list(UNITS),
        "source": "MediaPipe's face landmarker on faces rendered by sedtalker data expressions",
        "to_units": fit_calibration(scores, units).round(3).tolist(),
    }
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    rows = [["unit", "correlation on heads that were left out"]]
    rows += [[f"{u} {UNIT_NAMES[u]}", f"{value:.2f}"] for u, value in zip(UNITS, correlations, strict=True)]
    print(f"{len(scores)} frames of {len({*heads})} heads")
    print(markdown_table(rows))
