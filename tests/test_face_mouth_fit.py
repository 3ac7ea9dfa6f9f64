"""Weights that reproduce a lip gap and a mouth width."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE, MOUTH_PUCKER, arkit_columns
from sedtalker.face.assets import load_face
from sedtalker.face.mouth_fit import fit_gap, fit_mouth
from sedtalker.face.mouth_measures import GAP, WIDTH, MouthMeasures, mouth_measures

FRAMES = 100
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def measures() -> MouthMeasures:
    return mouth_measures(load_face())


def rounded(amount: np.ndarray) -> np.ndarray:
    prior = np.zeros((len(amount), len(ARKIT_NAMES)), np.float32)
    prior[:, MOUTH_PUCKER] = amount
    prior[:, ARKIT_NAMES.index("mouthFunnel")] = 0.5 * amount
    return prior


@pytest.mark.parametrize("shape", ["none", "rounded"])
def test_gap_and_width_are_reproduced(shape: str, measures: MouthMeasures) -> None:
    gap = (6 + 6 * np.sin(np.arange(FRAMES) / 6)).astype(np.float32)
    widening = (1.5 * np.sin(np.arange(FRAMES) / 9)).astype(np.float32)
    widening -= np.median(widening)
    amount = np.zeros(FRAMES) if shape == "none" else 0.4 * (np.arange(FRAMES) % 20 < 8)
    fitted = fit_mouth(gap, widening, rounded(amount), np.ones(FRAMES, np.float32), measures)
    of = measures.of_weights(fitted)
    np.testing.assert_allclose(np.maximum(of[:, GAP], 0), gap, atol=0.3)
    np.testing.assert_allclose(of[:, WIDTH] - np.median(of[:, WIDTH]), widening, atol=0.4)
    assert fitted.min() >= 0 and fitted.max() <= 1


def test_what_the_shape_opens_is_taken_back(measures: MouthMeasures) -> None:
    prior = rounded(np.full(3, 0.8))
    fitted = fit_gap(np.zeros(3, np.float32), prior, np.ones(3, np.float32), measures)
    assert measures.of_weights(fitted)[:, GAP] == pytest.approx(-0.16, abs=0.2)
    assert (fitted[:, MOUTH_CLOSE] > fitted[:, JAW_OPEN]).all()


def test_protrusion_of_the_prior_is_kept_where_the_mouth_is_wide(measures: MouthMeasures) -> None:
    prior = rounded(np.full(FRAMES, 0.8))
    wide = np.where(np.arange(FRAMES) % 2, 2.0, -2.0).astype(np.float32)
    fitted = fit_mouth(np.full(FRAMES, 3.0, np.float32), wide, prior, np.ones(FRAMES, np.float32), measures)
    assert (measures.protrusion(fitted) > 0.8 * measures.protrusion(prior).mean()).all()
    assert fitted[wide > 0][:, list(arkit_columns("mouthStretch"))].min() > 0


def test_an_unknown_width_stays_the_priors(measures: MouthMeasures) -> None:
    prior = rounded(np.linspace(0, 0.8, FRAMES))
    gap = np.full(FRAMES, 2.0, np.float32)
    unknown = np.full(FRAMES, np.nan, np.float32)
    np.testing.assert_array_equal(
        fit_mouth(gap, unknown, prior, np.ones(FRAMES, np.float32), measures),
        fit_gap(gap, prior, np.ones(FRAMES, np.float32), measures),
    )
