"""The recipe of the packaged diarizers: ordinary speech, sounds, and the drawn look-ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sedtalker.audio import write_wav
from sedtalker.data.emotion_mixtures import NON_SPEECH, MixerConfig
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.errors import DataError
from sedtalker.labels import LABELS
from sedtalker.recipes.default_diarizer import (
    SOUND_COUNT,
    cache_voices,
    draw_look_ahead,
    join_clips,
    ordinary_speech,
    sounds_without_speech,
    train_packaged,
)
from sedtalker.speech import load_encoder
from sedtalker.training.diarizer_config import DiarizerTraining


def test_ordinary_recordings_are_neutral_pieces_of_training(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 30).astype(np.float32)
    write_wav(tmp_path / "Talks" / "a" / "long.wav", [noise])
    write_wav(tmp_path / "Talks" / "short.wav", [noise[:16_000]])
    manifest = ordinary_speech(tmp_path / "Talks", tmp_path / "recordings")
    assert [item.id for item in manifest] == [*(f"talks/a/long-{k}" for k in range(3)), "talks/short-0"]
    assert {(i.corpus, i.emotion, i.intensity, i.split) for i in manifest} == {("talks", "neutral", 0.0, "train")}
    assert len({item.speaker for item in manifest}) == 2
    assert all(manifest.audio(item).is_file() for item in manifest)


def test_sounds_are_written_once(tmp_path):
    manifest = sounds_without_speech(tmp_path)
    assert len(manifest) == SOUND_COUNT and {item.corpus for item in manifest} == {NON_SPEECH}
    file = manifest.audio(manifest.utterances[-1])
    before = file.stat().st_mtime_ns
    sounds_without_speech(tmp_path)
    assert file.stat().st_mtime_ns == before


def test_the_look_ahead_depends_on_the_recording():
    features = draw_look_ahead(load_encoder("whisper-tiny.en-streaming"), 1, seed=0)
    samples = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)
    first = features(samples)
    assert first.shape == (13, 3, 384)
    torch.testing.assert_close(first, features(samples))


def test_joined_recordings_are_of_training_speakers_with_emotions(tmp_path):
    tone = np.sin(np.arange(16_000) / 5).astype(np.float32) * 0.3
    items = []
    for corpus, emotions in (("acted", ("neutral", "happy", "sad")), ("plain", ("neutral",)), ("bursts", LABELS)):
        for speaker, split in (("a", "train"), ("b", "test")):
            for emotion in emotions:
                path = f"{corpus}/{speaker}-{emotion}.wav"
                write_wav(tmp_path / path, [tone])
                items.append(Utterance(path, path, corpus, f"{corpus}-{speaker}", "female", "en", emotion, split=split))
    joined = join_clips(Manifest(str(tmp_path), items), tmp_path / "joined", ("bursts",), count=5)
    assert len(joined) == 5 and len({item.id for item in joined}) == 5
    assert {(item.corpus, item.speaker, item.split) for item in joined} == {("acted", "acted-a", "train")}
    assert all(len(item.segments) > 1 and joined.audio(item).is_file() for item in joined)
    again = join_clips(Manifest(str(tmp_path), []), tmp_path / "joined", ())
    assert [item.id for item in again] == [item.id for item in joined]
    both = join_clips(Manifest(str(tmp_path), items), tmp_path / "both", ("bursts",), ("train", "test"), 6)
    assert sorted((item.speaker, item.split) for item in both) == [("acted-a", "train")] * 3 + [("acted-b", "test")] * 3


def test_other_encoders_are_refused(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("manifest: m\nfeatures: [f]\noutput: o\nmodel: {encoder: whisper-tiny.en, layers: 5}\n")
    with pytest.raises(DataError, match="not a streaming encoder"):
        train_packaged(tmp_path, config, [], [])


def test_a_training_with_a_teacher_needs_encoders_for_it(tmp_path):
    config, student = tmp_path / "c.yaml", tmp_path / "student.yaml"
    config.write_text("manifest: m\nfeatures: [f]\noutput: o\nmodel: {encoder: whisper-tiny.en-streaming, layers: 5}\n")
    student.write_text(config.read_text() + "teacher: t\n")
    with pytest.raises(DataError, match="Add --teacher"):
        train_packaged(tmp_path / "work", config, [], [], tuning=[student])
    assert not (tmp_path / "work").exists()


def test_voices_are_of_acted_clips_and_people_and_differ_between_folders(tmp_path):
    tone = np.sin(np.arange(16_000) / 5).astype(np.float32) * 0.3
    items = []
    for corpus, emotions in (
        ("acted", ("neutral", "sad")),
        ("plain", ("neutral",)),
        ("librispeech", ("neutral",)),
        ("bursts", ("sad", "angry")),
    ):
        for emotion in emotions:
            path = f"{corpus}/{emotion}.wav"
            write_wav(tmp_path / path, [tone])
            items.append(Utterance(path, path, corpus, f"{corpus}-a", "female", "en", emotion))
    training = DiarizerTraining("m", ("f",), "o", mixing=MixerConfig(wordless=("bursts",)))
    encoder = load_encoder("whisper-tiny.en-streaming")
    for name in ("voices1", "voices2"):
        cache_voices(Manifest(str(tmp_path), items), items, tmp_path / name, encoder, training)
    files = [sorted((tmp_path / name).rglob("*.npy")) for name in ("voices1", "voices2")]
    names = [file.relative_to(tmp_path / "voices1").as_posix() for file in files[0]]
    assert [name for name in names if "loudness" not in name] == [
        "acted/neutral.wav.npy", "acted/sad.wav.npy", "librispeech/neutral.wav.npy",
    ]  # fmt: skip
    one, other = (np.load(next(file for file in each if "loudness" not in file.name)) for each in files)
    assert one.shape != other.shape or np.abs(one - other).max() > 0.1
