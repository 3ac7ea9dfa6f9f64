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
from sedtalker.errors import DataError, reason_of
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE, arkit_columns
from sedtalker.face.mouth_fit import fit_mouth
from sedtalker.face.mouth_measures import GAP, MILLIMETRES
from sedtalker.face.visemes import split_opening
from sedtalker.mel import FRAME_RATE
from sedtalker.synthesis.coarticulation import default_measures

Float = NDArray[np.float32]

EYE_DISTANCE = 0.0872  # metres between the outer corners of the default head's eyes
GRID_CLOSED = 0.004  # lip gap over the eye distance that the tracker reads at closed lips
GRID_LOSS_WEIGHTS = {
    "jawOpen": 1.0, "mouthClose": 1.0, "mouthPucker": 2.0, "mouthStretch": 6.0, "mouthFunnel": 0.6, "mouthSmile": 2.0,
    "mouthRollLower": 4.0, "mouthRollUpper": 0.3, "mouthLowerDown": 0.3, "mouthUpperUp": 1.2, "tongueOut": 6.0,
}  # fmt: skip
"""Loss weights: larger for weights determined by the tracked gap and width, smaller for those from the phones."""
FACEGOOD_LOSS_WEIGHTS = {
    "mouthFunnel": 3.0, "mouthPucker": 3.0, "mouthLowerDown": 8.0, "mouthUpperUp": 16.0, "mouthRollLower": 10.0,
    "mouthRollUpper": 10.0, "mouthPress": 6.0, "mouthSmile": 4.0, "mouthStretch": 4.0,
}  # fmt: skip
"""The less a channel moves, the more its error counts: with equal weights only jawOpen would be learned."""
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
    """Read one of FACEGOOD's recordings: sixteen mouth weights with `FACEGOOD_LOSS_WEIGHTS`, 1 for jawOpen.

    mouthClose, which is 0 in the recordings, compensates the gap that the lip shapes add on the default head.

    Raises:
        DataError: the file is missing or is another kind of file.
    """
    data = _arrays(path, "weights", "fps")
    weights = resample(data["weights"].astype(np.float32), float(data["fps"]), FRAME_RATE)
    loss_weight = np.zeros_like(weights)
    for name in ARKIT_NAMES:
        mouth = name.startswith(("mouth", "jawOpen")) and not name.startswith(FACEGOOD_STILL)
        both_sides = name.removesuffix("Left").removesuffix("Right")
        loss_weight[:, ARKIT_NAMES.index(name)] = mouth * FACEGOOD_LOSS_WEIGHTS.get(both_sides, 1.0)
    jaw = weights[:, JAW_OPEN].copy()
    speaking = _set_opening(weights, loss_weight, jaw)
    # She closes her lips in every pause, which others do not.
    loss_weight[:, (JAW_OPEN, MOUTH_CLOSE)] *= speaking[:, None]
    # Her jaw alone sets the gap: the default head's mouthFunnel parts the lips by 11 mm, hers does not.
    per_weight = default_measures().matrix[:, GAP].copy()
    per_weight[[JAW_OPEN, MOUTH_CLOSE]] = 0.0
    excess = np.maximum(weights @ per_weight, 0) / default_measures().matrix[JAW_OPEN, GAP]
    weights[:, MOUTH_CLOSE] = np.clip(weights[:, MOUTH_CLOSE] + excess, 0, jaw)
    return FaceMotion(weights, loss_weight)


def read_grid(path: Path | str, prior: Float | None = None) -> FaceMotion:
    """Read one of GRID's sentences: weights that reproduce the tracked lip gap and mouth width on the default head.

    Protrusion, rolled lips and tongue, which the tracker does not see, come from the prior (T, 52), the motion by rules
    from the phones (`sedtalker.synthesis.coarticulation.lip_motion`), cropped or padded to the sentence's length.
    Without a prior they are at rest.

    Raises:
        DataError: the file is missing or is another kind of file.
    """
    data = _arrays(path, "lip_gap", "lip_width", "fps")
    gap, width = (
        resample(_sharpen(data[name].astype(np.float32)), float(data["fps"]), FRAME_RATE)
        for name in ("lip_gap", "lip_width")
    )
    eyes = EYE_DISTANCE * MILLIMETRES
    gap_mm, widening = np.clip(gap - GRID_CLOSED, 0, None) * eyes, (width - np.median(width)) * eyes
    if prior is None:
        prior = np.zeros((len(gap), len(ARKIT_NAMES)), np.float32)
    prior = np.pad(prior, [(0, max(0, len(gap) - len(prior))), (0, 0)], mode="edge")[: len(gap)]
    measures = default_measures()
    opening = gap_mm / measures.matrix[JAW_OPEN, GAP]
    speaking = smooth(dilate(opening > SPEAKING_OPENING, FRAME_RATE // 5).astype(np.float32), 2.0)
    weights = fit_mouth(gap_mm, widening, prior, speaking, measures)
    loss_weight = np.zeros_like(weights)
    for name, value in GRID_LOSS_WEIGHTS.items():
        loss_weight[:, arkit_columns(name)] = value
    return FaceMotion(weights, loss_weight)


def _sharpen(curve: Float) -> Float:
    """A curve (T,) that linear interpolation to twice the frame rate does not smooth.

    The mean of the two new frames around an old one would be (1, 6, 1) / 8 of the old frames; this is its inverse to
    first order.
    """
    padded = np.pad(curve, 1, mode="edge")
    return 1.25 * curve - 0.125 * (padded[:-2] + padded[2:])


def _set_opening(weights: Float, loss_weight: Float, opening: Float) -> Float:
    """Write jawOpen and mouthClose with the loss weight 1, divided as in motion made by rules.

    Returns where she speaks, (T,) in 0..1.
    """
    speaking = smooth(dilate(opening > SPEAKING_OPENING, FRAME_RATE // 5).astype(np.float32), 2.0)
    for name, values in zip(("jawOpen", "mouthClose"), split_opening(opening, speaking), strict=True):
        column = ARKIT_NAMES.index(name)
        weights[:, column], loss_weight[:, column] = values, 1.0
    return speaking


def _arrays(path: Path | str, *names: str) -> Mapping[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"not a tracked face: {path} ({reason_of(error)}). Give the corpus's own .npz files") from error
