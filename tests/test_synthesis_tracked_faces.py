"""Tracked faces of GRID and FACEGOOD as ARKit weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sedtalker.errors import DataError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.mouth_measures import GAP, WIDTH
from sedtalker.synthesis.coarticulation import default_measures
from sedtalker.synthesis.tracked_faces import EYE_DISTANCE, GRID_CLOSED, read_facegood, read_grid

JAW, CLOSE, PUCKER, STRETCH, ROLL, BLINK = (
    ARKIT_NAMES.index(name)
    for name in ("jawOpen", "mouthClose", "mouthPucker", "mouthStretchLeft", "mouthRollLower", "eyeBlinkLeft")
)


def write_grid(path: Path, gap: np.ndarray, width: np.ndarray) -> Path:
    np.savez(path, lip_gap=gap.astype(np.float32), lip_width=width.astype(np.float32), fps=np.float32(25))
    return path


def test_the_lip_gap_of_grid_becomes_an_opening_of_the_default_head(tmp_path: Path):
    gap = np.full(50, GRID_CLOSED)
    gap[20:30] = 0.15
    motion = read_grid(write_grid(tmp_path / "a.npz", gap, np.full(50, 0.6)))
    gap = np.maximum(default_measures().of_weights(motion.weights)[:, GAP], 0)
    assert gap.shape == (100,)
    assert gap[50] == pytest.approx(1000 * (0.15 - GRID_CLOSED) * EYE_DISTANCE, abs=0.3)
    assert gap[:30].max() < 1e-3
    assert motion.loss_weight[:, [JAW, CLOSE]].min() == 1
    assert motion.loss_weight[:, BLINK].max() == 0


def test_the_mouth_width_of_grid_becomes_rounding_and_spreading(tmp_path: Path):
    width = np.full(50, 0.6)
    width[10:20], width[30:40] = 0.54, 0.63
    motion = read_grid(write_grid(tmp_path / "a.npz", np.full(50, GRID_CLOSED), width))
    mouth = default_measures().of_weights(motion.weights)[:, WIDTH]
    assert mouth[30] - np.median(mouth) == pytest.approx(-0.06 * 1000 * EYE_DISTANCE, abs=0.1)
    assert mouth[70] - np.median(mouth) == pytest.approx(0.03 * 1000 * EYE_DISTANCE, abs=0.1)
    assert motion.weights[30, PUCKER] > 0.5 and motion.weights[70, STRETCH] > 0.1
    assert motion.weights[30, STRETCH] == motion.weights[70, PUCKER] == 0


def test_the_prior_of_grid_gives_what_the_tracker_does_not_see(tmp_path: Path):
    prior = np.zeros((90, 52), np.float32)  # a little shorter than the sentence
    prior[:, [PUCKER, ROLL]] = 0.5
    path = write_grid(tmp_path / "a.npz", np.full(50, 0.1), np.full(50, 0.6))
    neutral, rounded = read_grid(path), read_grid(path, prior)
    measures = default_measures()
    assert (measures.protrusion(rounded.weights) > measures.protrusion(neutral.weights) + 2).all()
    assert rounded.weights[:, ROLL].min() == 0.5
    gaps = [measures.of_weights(motion.weights)[:, GAP] for motion in (neutral, rounded)]
    np.testing.assert_allclose(*gaps, atol=0.01)


def test_facegood_has_sixteen_mouth_weights_with_a_loss_weight(tmp_path: Path):
    weights = np.zeros((60, 52), np.float16)
    weights[:, JAW] = 0.4
    np.savez(tmp_path / "b.npz", weights=weights, fps=np.float32(30))
    motion = read_facegood(tmp_path / "b.npz")
    assert motion.weights.shape == (100, 52)
    weighted = {ARKIT_NAMES[i] for i in np.flatnonzero(motion.loss_weight.max(axis=0))}
    assert len(weighted - {"mouthClose"}) == 16
    assert not any(name.startswith(("eye", "brow", "mouthFrown", "tongue")) for name in weighted)
    np.testing.assert_allclose(motion.weights[:, JAW] - motion.weights[:, CLOSE], 0.4, atol=1e-3)


def test_the_closed_lips_of_facegood_in_a_pause_have_no_loss_weight(tmp_path: Path):
    weights = np.zeros((90, 52), np.float16)
    weights[:30, JAW] = 0.4
    np.savez(tmp_path / "b.npz", weights=weights, fps=np.float32(30))
    loss_weight = read_facegood(tmp_path / "b.npz").loss_weight
    assert loss_weight[:45, JAW].min() == 1 and loss_weight[80:, (JAW, CLOSE)].max() < 1e-3
    assert loss_weight[80:, ARKIT_NAMES.index("mouthFunnel")].min() > 1


def test_another_file_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "c.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"c\.npz"):
        read_grid(tmp_path / "c.npz")
