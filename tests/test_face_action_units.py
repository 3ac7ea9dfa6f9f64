"""Emotions, action units and ARKit weights, against FACS, EMFACS and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from sedtalker.face.action_units import (
    ACTION_UNITS,
    EMOTIONS,
    action_unit_matrix,
    emotion_weights,
    estimate_action_units,
)
from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.labels import LABELS

UNITS = list(ACTION_UNITS)

# The EMFACS prototypes of Friesen & Ekman, copied from the publication and not from the table.
EMFACS = {
    "happy": {6, 12},
    "sad": {1, 4, 15},
    "surprise": {1, 2, 5, 26},
    "fear": {1, 2, 4, 5, 20, 26},
    "angry": {4, 5, 7, 23},
    "disgust": {9, 15, 16},
}


def weights(**named: float) -> np.ndarray:
    """ARKit weights (52,); a name without side sets both sides."""
    row = np.zeros(52, np.float32)
    for name, value in named.items():
        row[list(arkit_columns(name))] = value
    return row


@pytest.mark.parametrize("label", EMFACS)
def test_each_emotion_contains_its_published_prototype(label: str) -> None:
    assert EMFACS[label] <= set(EMOTIONS[label])


def test_every_label_has_units_and_every_unit_is_defined() -> None:
    assert set(EMOTIONS) == set(LABELS)
    assert all(unit in ACTION_UNITS and 0 < level <= 1 for row in EMOTIONS.values() for unit, level in row.items())


def test_a_unit_without_side_moves_both_sides() -> None:
    smile = action_unit_matrix()[UNITS.index(12)]
    assert {ARKIT_NAMES[i]: float(smile[i]) for i in np.flatnonzero(smile)} == {
        "mouthSmileLeft": 1.0,
        "mouthSmileRight": 1.0,
    }


def test_weights_of_emotions_are_in_range_and_zero_for_neutral() -> None:
    full = emotion_weights()
    assert full[LABELS.index("neutral")].max() == 0
    assert (full >= 0).all() and (full <= 1).all()


@pytest.mark.parametrize(
    ("face", "expected"),
    [
        (weights(mouthSmile=0.7), {12: 0.7}),
        (weights(mouthSmileLeft=0.6), {12: 0.3}),  # half of it, where only one side moves
        (weights(cheekSquint=0.8, eyeSquint=0.2), {6: 0.8}),  # unit 6 raises the cheek and tightens the lid a little
        (weights(cheekSquint=0.8, eyeSquint=0.7), {6: 0.8, 7: 0.5}),
        (weights(browInnerUp=0.4, browDown=0.3, jawOpen=0.2), {1: 0.4, 4: 0.3, 26: 0.2}),
        (weights(tongueOut=1.0, mouthPucker=0.5), {}),  # channels of no unit
    ],
)
def test_units_of_faces_set_by_hand(face: np.ndarray, expected: dict[int, float]) -> None:
    units = dict(zip(UNITS, estimate_action_units(face), strict=True))
    assert {unit: value for unit, value in units.items() if value > 1e-6} == pytest.approx(expected, abs=1e-5)


def test_units_are_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    for face in rng.uniform(0, 1, (5, 52)).astype(np.float32):
        solution = lsq_linear(action_unit_matrix().T.astype(float), face).x
        np.testing.assert_allclose(estimate_action_units(face), np.maximum(solution, 0), atol=1e-5)
