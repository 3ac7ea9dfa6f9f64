"""Visemes of blendshape weights, for clients that have no ARKit blendshapes: Oculus' names, and VRM's five vowels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.visemes import VISEMES, Viseme
from sedtalker.serve.engine import FrameBlock

Float = NDArray[np.float32]

OCULUS = {
    "sil": "silence", "PP": "m", "FF": "f", "TH": "th", "DD": "t", "kk": "k", "CH": "sh", "SS": "s", "RR": "r",
    "aa": "aa", "E": "eh", "I": "iy", "O": "ow", "U": "uw",
}  # fmt: skip
"""Oculus' viseme -> viseme of this package. nn looks like DD, and is not used."""

VOWELS = {"A": "aa", "I": "iy", "U": "uw", "E": "eh", "O": "ow"}
"""VRM's vowel -> viseme of this package."""

_JAW, _CLOSE = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("mouthClose")
_SHAPES = (
    "mouthFunnel",
    "mouthPucker",
    "mouthStretch",
    "mouthRollLower",
    "mouthPress",
    "mouthLowerDown",
    "mouthUpperUp",
)
_OPENING_SCALE = 2.0  # weight of the opening against a shape
_QUIET = 0.03  # opening below which a mouth without a shape is silent


def find_visemes(block: FrameBlock) -> list[tuple[str, int, int]]:
    """Oculus' visemes with their first frame and number of frames; silence is left out."""
    names = [list(OCULUS)[index] for index in _nearest(mouth_features(block.weights), tuple(OCULUS.values()))]
    runs: list[tuple[str, int, int]] = []
    for frame, name in enumerate(names):
        if runs and runs[-1][0] == name and runs[-1][1] + runs[-1][2] == frame:
            runs[-1] = (name, runs[-1][1], runs[-1][2] + 1)
        elif name != "sil":
            runs.append((name, frame, 1))
    return runs


def vowel_weights(weights: Float) -> dict[str, float]:
    """VRM's vowels for weights (52,): one has the opening of the mouth as its weight, the others are 0."""
    features = mouth_features(weights[None])
    result = dict.fromkeys(VOWELS, 0.0)
    opening = float(features[0, 0]) / _OPENING_SCALE
    if opening > _QUIET:
        name = list(VOWELS)[_nearest(features, tuple(VOWELS.values()))[0]]
        result[name] = min(1.0, opening / VISEMES[VOWELS[name]].opening)
    return result


def mouth_features(weights: Float) -> Float:
    """Scaled opening of the lips and their shape (T, 8)."""
    opening = np.maximum(weights[:, _JAW] - weights[:, _CLOSE], 0) * _OPENING_SCALE
    shapes = [weights[:, list(arkit_columns(name))].mean(axis=1) for name in _SHAPES]
    return np.stack([opening, *shapes], axis=1).astype(np.float32)


def _nearest(features: Float, names: tuple[str, ...]) -> list[int]:
    targets = np.stack([_target(VISEMES[name]) for name in names])
    return np.square(features[:, None] - targets[None]).sum(axis=2).argmin(axis=1).tolist()


def _target(viseme: Viseme) -> Float:
    return np.array([viseme.opening * _OPENING_SCALE, *(viseme.shape.get(name, 0.0) for name in _SHAPES)], np.float32)
