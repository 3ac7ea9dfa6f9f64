"""Clips of the talker's training store: tracked faces and sounds without speech."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import load_audio
from sedtalker.data.negative_audio import NON_SPEECH
from sedtalker.data.rig_store import read_rig_manifest, write_rig_store
from sedtalker.errors import MissingExtraError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.mouth_measures import GAP
from sedtalker.phones import Phone
from sedtalker.synthesis import rig_clips
from sedtalker.synthesis.aligned_speech import AlignedUtterance
from sedtalker.synthesis.coarticulation import default_measures, least_opening
from sedtalker.synthesis.tracked_faces import FaceMotion

JAW, CLOSE, PUCKER, STRETCH, BLINK, TONGUE = (
    ARKIT_NAMES.index(name)
    for name in ("jawOpen", "mouthClose", "mouthPucker", "mouthStretchLeft", "eyeBlinkLeft", "tongueOut")
)
SPEECH = Path(__file__).parent / "data" / "1001_IEO_ANG_HI.opus"  # "It's eleven o'clock."


def test_contacts_bring_the_lower_lip_of_a_tracked_face_to_the_teeth():
    weights = np.zeros((10, 52), np.float32)
    weights[:, JAW] = 0.3
    motion = FaceMotion(weights, np.zeros_like(weights))
    touched = rig_clips.add_contacts(motion, np.repeat([0.0, 1.0], 5).astype(np.float32))
    np.testing.assert_allclose(touched.weights[:5, JAW] - touched.weights[:5, CLOSE], 0.3, atol=1e-6)
    measures = default_measures()
    gap = measures.of_weights(touched.weights[5:])[:, GAP] - measures.rest[GAP]
    assert gap == pytest.approx(rig_clips.TRACKED_CONTACT * measures.matrix[JAW, GAP], abs=0.01)
    roll = ARKIT_NAMES.index("mouthRollLower")
    assert (
        touched.weights[5:, roll].min() > 0.2 and touched.loss_weight[5:, roll].min() == rig_clips.CONTACT_LOSS_WEIGHT
    )


def test_poses_that_only_the_rules_know_count_more():
    weights, loss_weight = np.zeros((3, 52), np.float32), np.full((3, 52), 2.0, np.float32)
    weights[:, TONGUE] = (0.0, 0.38, 0.58)  # none, behind the teeth at /l n t d/, between them at /th/
    emphasized = rig_clips.emphasize_phones(loss_weight, weights, np.array([0.0, 0.5, 1.0], np.float32))
    assert emphasized[:, TONGUE].tolist() == pytest.approx([2, 2, 2 * rig_clips.LOSS_WEIGHTS.tongue_between_teeth])
    assert emphasized[0].tolist() == loss_weight[0].tolist()
    assert emphasized[2, PUCKER] == 2 * rig_clips.LOSS_WEIGHTS.protruded > emphasized[1, PUCKER] > 2
    assert (emphasized[:, JAW] == 2).all() and (loss_weight == 2).all()


def test_a_tracked_mouth_parts_its_lips_for_a_visible_tongue():
    weights = np.zeros((4, 52), np.float32)
    weights[:, TONGUE] = (0.0, 0.2, 0.6, 0.6)
    weights[:, JAW] = (0.05, 0.05, 0.05, 0.6)
    motion = FaceMotion(weights, np.ones_like(weights))
    parted = rig_clips.part_lips_for_tongue(motion).weights
    np.testing.assert_array_equal(parted[[0, 1, 3]], weights[[0, 1, 3]])
    gap = parted[2] @ default_measures().matrix[:, GAP]
    least = float(least_opening(weights[2:3, TONGUE])[0])
    assert gap == pytest.approx(least * default_measures().matrix[JAW, GAP], abs=0.01)


def test_joined_sentences_begin_and_end_in_speech_and_keep_their_pauses(tmp_path: Path):
    phones = (Phone("", "SIL", 0.0, 0.5), Phone("it", "IH", 0.5, 1.5), Phone("", "SIL", 1.5, 2.0))
    spoken = [
        AlignedUtterance(f"u{number}", str(SPEECH), "1001", "crema-d", "train", "en", phones) for number in range(7)
    ]
    clips = list(rig_clips.joined_clips(spoken, tmp_path))
    assert [clip.id for clip, _ in clips] == ["joined_1001_0", "joined_1001_1"]  # three sentences each
    for clip, arrays in clips:
        assert clip.source == "crema-d-joined"
        assert len(arrays.weights) == pytest.approx(len(load_audio(clip.audio)) / 320, abs=1)
        assert not arrays.closed[:15].any() and not arrays.closed[-15:].any()


def test_only_the_opening_of_a_tracked_face_gets_a_larger_loss_weight():
    motion = rig_clips.scale_opening_weight(
        FaceMotion(np.zeros((3, 52), np.float32), np.full((3, 52), 0.5, np.float32)), 8
    )
    more = np.flatnonzero(motion.loss_weight[0] == 4)
    assert {ARKIT_NAMES[column] for column in more} == {"jawOpen", "mouthClose"}
    assert np.delete(motion.loss_weight, more, axis=1).max() == 0.5


def test_a_tracked_mouth_is_closed_only_in_added_silence():
    motion = FaceMotion(np.full((20, 52), 0.3, np.float32), np.ones((20, 52), np.float32))
    arrays = rig_clips.tracked_arrays(motion, 80, lead=30, silence=True)
    assert (arrays.closed > 0).tolist() == [i < 20 or i >= 60 for i in range(80)]
    assert arrays.weights[30:50].min() > 0.2 and arrays.weights[50:].max() == 0
    assert arrays.loss_weight[52:58].max() == 0  # unknown speed of closing


def test_every_split_has_every_kind_of_sound_without_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rig_clips, "synthesize_non_speech", lambda kind, seconds, rng: np.zeros(1600, np.float32))
    clips = [clip for clip, _ in rig_clips.non_speech_clips(tmp_path, rig_clips.NON_SPEECH_CLIPS)]
    counts = Counter((clip.id.rsplit("_", 1)[1], clip.split) for clip in clips)
    sides = {"train": 24, "validation": 3, "test": 3}
    assert counts == {(kind, side): count for kind in NON_SPEECH for side, count in sides.items()}


def test_clips_without_speech_are_stored_with_a_closed_mouth(tmp_path: Path):
    clips = write_rig_store(tmp_path, rig_clips.non_speech_clips(tmp_path / "audio", 3))
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
            assert np.abs(lips).max() < 0.02


def test_a_torchaudio_that_does_not_fit_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "packages" / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise OSError("Could not load this library: _torchaudio.so")')
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    with pytest.raises(MissingExtraError, match=r"torchaudio is installed and cannot be loaded .* both for the CPU"):
        rig_clips.build_clips(tmp_path / "store", rig_clips.StoreSources(), limit=1)
    assert not (tmp_path / "store").exists()


def test_without_torchaudio_a_store_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingExtraError, match=r"torchaudio .*sedtalker\[train\]"):
        rig_clips.build_clips(tmp_path / "store", rig_clips.StoreSources(), limit=1)
    assert not (tmp_path / "store").exists()
