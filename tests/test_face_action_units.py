"""The table of emotions, action units and blendshapes, read in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.face.action_units import (
    ACTION_UNITS,
    EMOTIONS,
    action_unit_matrix,
    classify_emotion,
    emotion_action_units,
    estimate_action_units,
    expression_weights,
)
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import LABELS

EVERY = np.eye(len(LABELS), dtype=np.float32)

# Friesen & Ekman's EMFACS prototypes, from the publication and not from the table.
EMFACS = {
    "happy": {6, 12},
    "sad": {1, 4, 15},
    "surprise": {1, 2, 5, 26},
    "fear": {1, 2, 4, 5, 20, 26},
    "angry": {4, 5, 7, 23},
    "disgust": {9, 15, 16},
}


@pytest.mark.parametrize("label", EMFACS)
def test_each_emotion_holds_its_published_prototype(label: str):
    assert EMFACS[label] <= set(EMOTIONS[label])


def test_every_label_has_a_row_and_every_unit_is_known():
    assert set(EMOTIONS) == set(LABELS)
    assert all(unit in ACTION_UNITS and 0 < level <= 1 for row in EMOTIONS.values() for unit, level in row.items())


def test_a_unit_moves_both_sides_alike():
    smile = action_unit_matrix()[list(ACTION_UNITS).index(12)]
    moved = {ARKIT_NAMES[i]: float(smile[i]) for i in np.flatnonzero(smile)}
    assert moved == {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}


def test_expression_is_linear_and_neutral_is_nothing():
    half, full = (expression_weights(EVERY, np.full(len(LABELS), level, np.float32)) for level in (0.5, 1.0))
    np.testing.assert_allclose(2 * half, full, atol=1e-6)
    assert full[LABELS.index("neutral")].max() == 0
    assert (full >= 0).all()
    assert (full <= 1).all()


def test_units_are_read_back_from_weights():
    units = emotion_action_units()
    np.testing.assert_allclose(estimate_action_units(units @ action_unit_matrix()), units, atol=1e-5)


@pytest.mark.parametrize("intensity", [0.3, 0.6, 1.0])
def test_each_emotion_is_read_back_from_its_own_face(intensity: float):
    face = expression_weights(EVERY, np.full(len(LABELS), intensity, np.float32))
    assert classify_emotion(face).tolist() == list(range(len(LABELS)))


def test_an_open_mouth_alone_is_no_emotion():
    mouth = np.zeros(52, np.float32)
    mouth[[ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthFunnel", "mouthPucker", "tongueOut")]] = 0.5
    assert LABELS[classify_emotion(mouth)] == "neutral"


def test_a_resting_face_is_taken_off_before_reading():
    rest = expression_weights(EVERY[[LABELS.index("sad")]], np.ones(1, np.float32))[0]
    happy = expression_weights(EVERY[[LABELS.index("happy")]], np.full(1, 0.5, np.float32))[0]
    assert LABELS[classify_emotion(rest + happy, rest)] == "happy"
