"""The recipe of the default diarizer's teacher: joint features, references, and the outputs that a student reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from sedtalker.data.emotion_mixtures import CachedClip, TeacherOutputs
from sedtalker.data.manifest import Manifest, Span, Utterance
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.errors import DataError, UsageError
from sedtalker.recipes.diarizer_teacher import (
    joint_features,
    project,
    read_encoders,
    spoken_clips,
    voice_of_others,
    whitening,
    write_outputs,
)

SIZES = DiarizerConfig(layers=2, feature_width=12, width=16, hidden=8, causal=True)


def made_clips(folder, speakers=2, takes=4) -> list[Utterance]:
    """Random features of clips, the first and last fifth of each silent."""
    items, rng = [], np.random.default_rng(0)
    for speaker in range(speakers):
        for take in range(takes):
            item = Utterance(f"made/{speaker}-{take}", "x.wav", "made", f"s{speaker}", "female", "en", "happy")
            path = folder / f"{item.id}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, (rng.normal(speaker, 1, (50, 2, 12))).astype(np.float16))
            loud = np.full(100, -80, np.float16)
            loud[20:80] = -20
            np.save(path.with_suffix(".loudness.npy"), loud)
            items.append(item)
    return items


def test_outputs_are_logits_and_white_features(tmp_path):
    torch.manual_seed(0)
    items = made_clips(tmp_path / "features")
    teacher = Diarizer(SIZES).eval().requires_grad_(False)
    write_outputs(teacher, items, tmp_path / "features", tmp_path / "outputs")
    outputs = TeacherOutputs(tmp_path / "outputs")
    assert outputs.size == 8 + 16
    clips = [CachedClip(item, [tmp_path / "features"]) for item in items]
    spoken = torch.cat([outputs.read(c.utterance.id, 50)[torch.from_numpy(c.speech)] for c in clips])
    torch.testing.assert_close(spoken[:, 8:].mean(0), torch.zeros(16), atol=0.02, rtol=0)
    torch.testing.assert_close(spoken[:, 8:].T.cov(), torch.eye(16), atol=0.05, rtol=0)
    mean, directions = whitening(teacher, clips, 3)
    assert ((project(teacher, clips[0]) - mean) @ directions).shape == (50, 3)


def test_the_reference_is_of_the_other_clips_of_the_speaker(tmp_path):
    clips = [CachedClip(item, [tmp_path]) for item in made_clips(tmp_path, speakers=1)]
    voice = voice_of_others(clips[0], clips)
    mean = torch.cat([clip.steps().flatten(1)[torch.from_numpy(clip.speech)].float() for clip in clips[1:]]).mean(0)
    torch.testing.assert_close(voice.statistics()[0], mean, atol=1e-3, rtol=0)
    assert voice.reference == voice.seconds


def test_joined_recordings_and_test_speakers_are_left_out():
    item = Utterance("a", "a.wav", "made", "s", "female", "en", "happy")
    others = [
        Utterance("b", "-", "made", "s", "female", "en", "happy", segments=(Span(0, 1, "happy"),)),
        Utterance("c", "c.wav", "made", "t", "female", "en", "happy", split="test"),
        Utterance("d", "d.wav", "other", "s", "female", "en", "happy"),
    ]
    kept = spoken_clips(Manifest(".", [item, *others]), ("train", "validation"), ["made"])
    assert [clip.id for clip in kept] == ["a"]


def test_states_of_encoders_are_side_by_side():
    features = joint_features([("whisper-tiny.en-streaming", 2), ("whisper-tiny.en-streaming", 3)], 384)
    steps = features(np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32))
    assert steps.shape == (13, 3, 384)
    torch.testing.assert_close(steps[:, 1], steps[:, 2])
    with pytest.raises(DataError, match="no multiple"):
        joint_features([("whisper-tiny.en-streaming", 2)], 500)
    with pytest.raises(UsageError, match="not a number"):
        read_encoders([("whisper-tiny.en-streaming", "two")])
