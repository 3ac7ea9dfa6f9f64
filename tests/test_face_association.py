"""The association of action units and expressions: fit, both directions, and the packaged asset."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.face.action_units import ACTION_UNITS, action_unit_matrix
from sedtalker.face.association import (
    FULL,
    PROTOTYPES,
    SCHEMES,
    UNITS,
    compare_with_prototypes,
    cross_validate,
    fit_association,
    load_association,
    measured_units,
)

TRUE = {"neutral": (), **PROTOTYPES}


def _made(rng: np.random.Generator, per: int = 12) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Faces of four people with the units of the prototypes at random intensities, and noise."""
    units, emotions, intensities, people = [], [], [], []
    for person in range(4):
        for emotion, prototype in TRUE.items():
            for _ in range(per):
                intensity = 0.0 if emotion == "neutral" else rng.uniform(0.4, 1)
                face = rng.normal(0, 0.05, len(UNITS))
                face[[UNITS.index(unit) for unit in prototype if unit in UNITS]] += 2 * intensity
                units.append(face)
                emotions.append(emotion)
                intensities.append(intensity)
                people.append(str(person))
    return np.array(units), emotions, np.array(intensities), people


def test_fit_finds_the_units_of_made_faces_and_reads_them_back() -> None:
    units, emotions, intensities, people = _made(np.random.default_rng(0))
    fitted = fit_association("clip", units, emotions, intensities, people)
    for emotion, figures in compare_with_prototypes(fitted).items():
        assert figures["auc"] == 1.0 and figures["found"] == 1.0, emotion
        row = fitted.to_units[fitted.labels.index(emotion)]
        inside = [UNITS.index(unit) for unit in PROTOTYPES[emotion] if unit in UNITS]
        np.testing.assert_allclose(row[inside], 2.0, atol=0.1)
    read = cross_validate(units, emotions, people)
    shown = np.array(emotions) != "neutral"
    assert (read == np.array(emotions))[shown].mean() > 0.95


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packaged_association_agrees_with_itself(scheme: str) -> None:
    association = load_association(scheme)
    assert association.to_units.shape == (len(association.labels), len(UNITS))
    for emotion in association.labels:
        if emotion != "neutral" and scheme == "clip":  # the frames of five actors confuse sadness and disgust
            back = association.probabilities(association.to_units[association.labels.index(emotion)] / FULL * 3)
            assert association.labels[int(back.argmax())] == emotion
    assert association.labels[int(association.probabilities(np.zeros(len(UNITS))).argmax())] == "neutral"


def test_measured_units_of_blendshapes() -> None:
    order = list(ACTION_UNITS)
    for unit in (1, 4, 12, 20):
        weights = action_unit_matrix()[order.index(unit)]
        read = measured_units(weights)
        assert UNITS[int(read.argmax())] == unit and read.max() == pytest.approx(1.0, abs=0.05)
