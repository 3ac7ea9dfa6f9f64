"""Tracked faces of GRID and FACEGOOD as ARKit weights of the default head at 50 Hz, with loss weights.

FACEGOOD (MIT, FACEGOOD/FACEGOOD-Audio2Face): `NAME.npz` with weights made from video in Maya, of which sixteen of
the mouth move. GRID (Cooke et al. 2006, CC BY 4.0): `NAME.npz` with MediaPipe's lip landmarks; the distances between
the lips and between the mouth corners are reliable, most of its weights are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import dilate, resample, smooth
from sedtalker.errors import DataError
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, arkit_columns
from sedtalker.face.visemes import split_opening
from sedtalker.speech import FRAME_RATE

Float = NDArray[np.float32]

# The default head, measured with `face.pose`: 87.2 mm between the outer corners of the eyes, 34.4 mm between the lips'
# middles at jawOpen 1; mouthPucker 1 narrows the mouth by 19 % and jawOpen 1 by 8 %, mouthStretch 1 widens it by 22 %.
EYE_DISTANCE = 0.0872
JAW_GAP = 0.0344
PUCKER_NARROWS, JAW_NARROWS, STRETCH_WIDENS = 0.19, 0.08, 0.22

GRID_CLOSED = 0.004  # lip gap over the eye distance that the tracker reads at closed lips
SPEAKING_OPENING = 0.03  # opening above which a mouth counts as speaking
FACEGOOD_STILL = ("mouthClose", "cheekPuff", "mouthShrugLower", "jawLeft", "jawRight", "jawForward", "mouthLeft",
                  "mouthRight", "mouthFrown", "mouthDimple", "tongueOut")  # fmt: skip


@dataclass(frozen=True)
class FaceMotion:
    """Motion of a tracked face."""

    weights: Float  # (T, 52) at 50 Hz, in the order of ARKIT_NAMES
    loss_weight: Float  # (T, 52): weight of a channel in the loss, 0 where the pose is unknown
    closed: Float | None = None  # (T,) in 0..1: weight of closed lips at /p b m/, if known


def read_facegood(path: Path | str) -> FaceMotion:
    """Read one of FACEGOOD's recordings: sixteen mouth weights with the loss weight 1.

    Raises:
        DataError: the file is missing or is another kind of file.
    """
    data = _arrays(path, "weights", "fps")
    weights = resample(data["weights"].astype(np.float32), float(data["fps"]), FRAME_RATE)
    loss_weight = np.zeros_like(weights)
    for name in ARKIT_NAMES:
        mouth = name.startswith(("mouth", "jawOpen")) and not name.startswith(FACEGOOD_STILL)
        loss_weight[:, ARKIT_NAMES.index(name)] = mouth
    jaw = weights[:, JAW_OPEN].copy()
    _set_opening(weights, loss_weight, jaw)
    return FaceMotion(weights, loss_weight)


def read_grid(path: Path | str) -> FaceMotion:
    """Read one of GRID's sentences: the opening, and rounding and spreading from the width of the mouth.

    Raises:
        DataError: the file is missing or is another kind of file.
    """
    data = _arrays(path, "lip_gap", "lip_width", "fps")
    gap, width = (
        resample(data[name].astype(np.float32), float(data["fps"]), FRAME_RATE) for name in ("lip_gap", "lip_width")
    )
    opening = np.clip(gap - GRID_CLOSED, 0, None) * (EYE_DISTANCE / JAW_GAP)
    change = width / np.median(width) - 1 + JAW_NARROWS * (opening - np.median(opening))
    weights, loss_weight = np.zeros((2, len(gap), len(ARKIT_NAMES)), np.float32)
    for name, values, weight in (
        ("mouthPucker", -change / PUCKER_NARROWS, 0.5),
        ("mouthStretch", change / STRETCH_WIDENS, 0.2),
    ):
        for column in arkit_columns(name):
            weights[:, column] = np.clip(values, 0, 1)
            loss_weight[:, column] = weight
    _set_opening(weights, loss_weight, opening)
    return FaceMotion(weights, loss_weight)


def _set_opening(weights: Float, loss_weight: Float, opening: Float) -> None:
    """Write jawOpen and mouthClose with the loss weight 1, divided as in motion made by rules."""
    speaking = smooth(dilate(opening > SPEAKING_OPENING, FRAME_RATE // 5).astype(np.float32), 2.0)
    for name, values in zip(("jawOpen", "mouthClose"), split_opening(opening, speaking), strict=True):
        column = ARKIT_NAMES.index(name)
        weights[:, column], loss_weight[:, column] = values, 1.0


def _arrays(path: Path | str, *names: str) -> Mapping[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"not a tracked face: {path} ({error}). Give the corpus's own .npz files") from error
