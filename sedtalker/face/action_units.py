"""Emotions, facial action units and ARKit weights, for synthesis of training data and for evaluation.

The action units are those of FACS (Ekman, Friesen & Hager 2002). The prototypes are those of EMFACS (Friesen & Ekman
1983; happy 6+12, sad 1+4+15, surprise 1+2+5+26, fear 1+2+4+5+20+26, anger 4+5+7+23, disgust 9+15+16), with the units
that RAVDESS' actors show in addition, measured by OpenFace as the excess over their own neutral: happy 7, 10 and 14,
sad 17, anger 9 and 10, disgust 6, 7, 10 and 17, fear 15, disgust 20. Unit 4 of their disgust is left out: on these
heads it reads as anger. The proportions that tell two emotions apart follow the same means: in fear unit 1 is more
than twice unit 2 and unit 4 is strong, in surprise unit 2 exceeds unit 1; disgust is in nose, upper lip and narrow
lids with few cheeks, anger in brows and wide lids. A smile shows teeth by units 16 and 26. Sizes are those at which
outside classifiers name the emotion of a speaking face (`sedtalker evaluate expression`). EMFACS has no prototype for
upset: units 4 and 14 accompany reported frustration (Grafsgaard et al., "Automatically recognizing facial expression",
EDM 2013), 17 and 24 press the mouth shut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.rig import Float
from sedtalker.labels import LABELS

ACTION_UNITS: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 1.0},  # inner brow raiser
    2: {"browOuterUp": 1.0},  # outer brow raiser
    4: {"browDown": 1.0},  # brow lowerer
    5: {"eyeWide": 1.0},  # upper lid raiser
    6: {"cheekSquint": 1.0, "eyeSquint": 0.25},  # cheek raiser
    7: {"eyeSquint": 1.0},  # lid tightener
    9: {"noseSneer": 1.0},  # nose wrinkler
    10: {"mouthUpperUp": 1.0},  # upper lip raiser
    12: {"mouthSmile": 1.0},  # lip corner puller
    14: {"mouthDimple": 1.0},  # dimpler
    15: {"mouthFrown": 1.0},  # lip corner depressor
    16: {"mouthLowerDown": 1.0},  # lower lip depressor
    17: {"mouthShrugLower": 1.0},  # chin raiser
    20: {"mouthStretch": 1.0},  # lip stretcher
    23: {"mouthRollLower": 0.5, "mouthRollUpper": 0.5},  # lip tightener
    24: {"mouthPress": 1.0},  # lip pressor
    26: {"jawOpen": 1.0},  # jaw drop
    43: {"eyeBlink": 1.0},  # upper lid drooping
    64: {"eyeLookDown": 1.0},  # eyes down
}
"""ARKit weights of each action unit at full intensity (E of FACS); a name without a side means both."""

EMOTIONS: dict[str, dict[int, float]] = {
    "neutral": {},
    "happy": {6: 1.00, 12: 1.00, 7: 0.30, 10: 0.40, 14: 0.15, 16: 0.60, 26: 0.10},
    "sad": {1: 1.00, 4: 0.85, 15: 1.00, 17: 1.00, 7: 0.50, 20: 0.25, 43: 0.12, 64: 0.45},
    "angry": {4: 1.00, 5: 0.60, 7: 0.40, 9: 0.80, 10: 0.80, 16: 0.80, 23: 0.20, 24: 0.10},
    "upset": {4: 0.60, 14: 0.40, 15: 0.55, 17: 0.65, 24: 0.50},
    "disgust": {9: 1.00, 10: 1.00, 15: 1.00, 20: 0.50, 17: 0.40, 1: 0.10, 6: 0.20, 7: 0.50, 16: 0.20, 43: 0.18},
    "fear": {1: 1.00, 2: 0.35, 4: 0.85, 5: 1.00, 20: 0.70, 10: 0.10, 15: 0.80, 16: 0.80, 26: 0.05},
    "surprise": {1: 0.70, 2: 1.00, 5: 1.00, 26: 1.00},
}
"""Action units in [0, 1] of each emotion at intensity 1."""

MOUTH_SHARE = {
    "mouthDimple": 0.6, "mouthStretch": 0.9, "mouthUpperUp": 0.8, "mouthLowerDown": 0.7, "mouthShrugLower": 0.8,
    "mouthRollLower": 0.35, "mouthRollUpper": 0.35, "mouthPress": 0.35,
}  # fmt: skip
"""Share of an expression's mouth that a speaking face shows, by ARKit name without its side; other weights show all."""


def action_unit_matrix() -> Float:
    """ARKit weights (U, 52) of the action units at full intensity, in the order of ACTION_UNITS."""
    matrix = np.zeros((len(ACTION_UNITS), len(ARKIT_NAMES)), np.float32)
    for row, weights in zip(matrix, ACTION_UNITS.values(), strict=True):
        for name, weight in weights.items():
            row[list(arkit_columns(name))] = weight
    return matrix


def emotion_action_units(labels: Sequence[str] = LABELS) -> Float:
    """Action units (C, U) of each of the emotions at intensity 1."""
    return np.array([[EMOTIONS[label].get(unit, 0.0) for unit in ACTION_UNITS] for label in labels], np.float32)


def emotion_weights(labels: Sequence[str] = LABELS) -> Float:
    """ARKit weights (C, 52) of each of the emotions at intensity 1."""
    return emotion_action_units(labels) @ action_unit_matrix()


def estimate_action_units(weights: Float) -> Float:
    """Least-squares action units (..., U) for ARKit weights (..., 52), negative ones set to zero."""
    return np.maximum(weights @ np.linalg.pinv(action_unit_matrix()), 0.0).astype(np.float32)
