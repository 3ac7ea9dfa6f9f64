"""Measured faces, foreign sounds, aligned phones and the training store."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import load_audio
from sedtalker.curves import resample
from sedtalker.data.alignment import Aligner
from sedtalker.data.negative_audio import NON_SPEECH
from sedtalker.data.rig_store import read_rig_manifest, write_rig_store
from sedtalker.errors import DataError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.synthesis import rig_clips as motion_store
from sedtalker.synthesis.tracked_faces import EYE_DISTANCE, GRID_CLOSED, JAW_GAP, FaceMotion, read_facegood, read_grid

JAW, CLOSE, PUCKER, STRETCH, BLINK = (
    ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthClose", "mouthPucker", "mouthStretchLeft", "eyeBlinkLeft")
)
SPEECH = Path(__file__).parent / "data" / "1001_IEO_ANG_HI.opus"  # "It's eleven o'clock."


def write_grid(path: Path, gap: np.ndarray, width: np.ndarray) -> Path:
    np.savez(path, lip_gap=gap.astype(np.float32), lip_width=width.astype(np.float32), fps=np.float32(25))
    return path


def test_grid_s_gap_becomes_an_opening_of_the_default_head(tmp_path: Path):
    gap = np.full(50, GRID_CLOSED)
    gap[20:30] = 0.15
    motion = read_grid(write_grid(tmp_path / "a.npz", gap, np.full(50, 0.6)))
    opening = motion.weights[:, JAW] - motion.weights[:, CLOSE]
    assert opening.shape == (100,)
    assert opening[50] * JAW_GAP == pytest.approx((0.15 - GRID_CLOSED) * EYE_DISTANCE, rel=1e-3)
    assert opening[:30].max() < 1e-6
    assert motion.loss_weight[:, [JAW, CLOSE]].min() == 1
    assert motion.loss_weight[:, BLINK].max() == 0


def test_grid_s_width_divides_into_rounding_and_spreading(tmp_path: Path):
    width = np.full(50, 0.6)
    width[10:20], width[30:40] = 0.54, 0.63
    motion = read_grid(write_grid(tmp_path / "a.npz", np.full(50, GRID_CLOSED), width))
    assert motion.weights[30, PUCKER] == pytest.approx(0.1 / 0.19, rel=1e-2)
    assert motion.weights[70, STRETCH] == pytest.approx(0.05 / 0.22, rel=1e-2)
    assert motion.weights[30, STRETCH] == motion.weights[70, PUCKER] == 0


def test_facegood_gives_sixteen_mouth_weights_to_trust(tmp_path: Path):
    weights = np.zeros((60, 52), np.float16)
    weights[:, JAW] = 0.4
    np.savez(tmp_path / "b.npz", weights=weights, fps=np.float32(30))
    motion = read_facegood(tmp_path / "b.npz")
    assert motion.weights.shape == (100, 52)
    trusted = {ARKIT_NAMES[i] for i in np.flatnonzero(motion.loss_weight.max(axis=0))}
    assert len(trusted - {"mouthClose"}) == 16
    assert not any(name.startswith(("eye", "brow", "mouthFrown", "tongue")) for name in trusted)
    np.testing.assert_allclose(motion.weights[:, JAW] - motion.weights[:, CLOSE], 0.4, atol=1e-3)


def test_a_file_that_is_no_face_is_named(tmp_path: Path):
    (tmp_path / "c.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"c\.npz"):
        read_grid(tmp_path / "c.npz")


def test_resampling_reads_between_the_frames_middles():
    assert resample(np.array([0.0, 1.0, 2.0], np.float32), 25, 50).tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2]


def test_a_known_sentence_is_found_in_its_recording():
    pytest.importorskip("pocketsphinx")
    samples = load_audio(SPEECH)
    phones = Aligner().align(samples, "It's eleven o'clock.")
    assert phones is not None
    spoken = [phone.name for phone in phones if phone.name != "SIL"]
    assert spoken[-4:] == ["K", "L", "AA", "K"]
    assert all(a.end <= b.start + 0.011 for a, b in pairwise(phones))
    assert phones[-1].end <= len(samples) / 16_000 + 0.02


def test_a_word_nobody_pronounces_is_named():
    pytest.importorskip("pocketsphinx")
    with pytest.raises(DataError, match="zzxqj"):
        Aligner().align(load_audio(SPEECH), "it's zzxqj")


def test_measured_teeth_are_touched_where_the_phones_say_so():
    weights = np.zeros((10, 52), np.float32)
    weights[:, JAW] = 0.3
    motion = FaceMotion(weights, np.zeros_like(weights))
    touched = motion_store.add_contacts(motion, np.repeat([0.0, 1.0], 5).astype(np.float32))
    np.testing.assert_array_equal(touched.weights[:5], weights[:5])
    assert touched.weights[5:, JAW].max() == pytest.approx(motion_store.TRACKED_CONTACT)
    roll = ARKIT_NAMES.index("mouthRollLower")
    assert touched.weights[5:, roll].min() > 0.2 and touched.loss_weight[5:, roll].min() == 1


def test_a_measured_opening_alone_is_trusted_more():
    motion = motion_store.scale_opening_weight(
        FaceMotion(np.zeros((3, 52), np.float32), np.full((3, 52), 0.5, np.float32)), 8
    )
    more = np.flatnonzero(motion.loss_weight[0] == 4)
    assert {ARKIT_NAMES[column] for column in more} == {"jawOpen", "mouthClose"}
    assert np.delete(motion.loss_weight, more, axis=1).max() == 0.5


def test_a_measured_mouth_is_shut_in_added_silence_alone():
    motion = FaceMotion(np.full((20, 52), 0.3, np.float32), np.ones((20, 52), np.float32))
    arrays = motion_store.tracked_arrays(motion, 80, lead=30, silence=True)
    assert (arrays.closed > 0).tolist() == [i < 20 or i >= 60 for i in range(80)]
    assert arrays.weights[30:50].min() > 0.2 and arrays.weights[50:].max() == 0
    assert arrays.loss_weight[52:58].max() == 0  # who knows how fast it shuts


def test_every_kind_of_foreign_sound_is_heard_on_every_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(motion_store, "synthesize_non_speech", lambda kind, seconds, rng: np.zeros(1600, np.float32))
    clips = [clip for clip, _ in motion_store.non_speech_clips(tmp_path, motion_store.NON_SPEECH_CLIPS)]
    heard = Counter((clip.id.rsplit("_", 1)[1], clip.split) for clip in clips)
    sides = {"train": 64, "validation": 8, "test": 8}
    assert heard == {(kind, side): count for kind in NON_SPEECH for side, count in sides.items()}


def test_the_store_holds_what_its_manifest_says(tmp_path: Path):
    clips = write_rig_store(tmp_path, motion_store.non_speech_clips(tmp_path / "audio", 3))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["names"] == list(ARKIT_NAMES)
    assert [clip["id"] for clip in manifest["clips"]] == [clip.id for clip in clips]
    assert read_rig_manifest(tmp_path).clips == clips
    for clip in clips:
        with np.load(tmp_path / "clips" / f"{clip.id}.npz") as arrays:
            assert {name: arrays[name].shape for name in arrays.files} == {
                "weights": (clip.frames, 52), "trust": (clip.frames, 52), "expression": (clip.frames, 52),
                "posterior": (clip.frames, 8), "intensity": (clip.frames,), "closed": (clip.frames,),
            }  # fmt: skip
            lips = arrays["weights"].astype(float) - arrays["expression"]
            assert np.abs(lips).max() < 0.02  # nobody speaks
