"""Fine-tuning of an encoder: its states equal the encoder's, and the trained blocks are saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from sedtalker.audio import write_wav
from sedtalker.data.emotion_mixtures import MixerConfig
from sedtalker.data.features import cache_features, frozen_features, mel_steps, pair_frames
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.diarizer import DiarizerConfig, load_diarizer, pool_frames
from sedtalker.errors import DataError
from sedtalker.speech import load_encoder
from sedtalker.training.diarizer import run_training
from sedtalker.training.diarizer_config import DiarizerTraining
from sedtalker.training.encoder_tuning import load_tunable_encoder

BELOW = 3  # of tiny.en's four blocks


def speech_like(seconds: float, pitch: float, seed: int) -> np.ndarray:
    """Samples (N,) of a buzz with noise."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    return (0.1 * buzz + 0.01 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def test_an_odd_last_frame_counts_twice():
    pairs = pair_frames(torch.arange(5.0)[:, None])
    assert pairs.squeeze(-1).tolist() == [[0, 1], [2, 3], [4, 4]]


def test_states_through_the_trained_blocks_equal_the_encoders():
    encoder = load_encoder("whisper-tiny.en")
    states = encoder.encode(speech_like(1.0, 150, 0))  # (50, 5, 384), the last layer-normed
    steps = load_tunable_encoder("whisper-tiny.en", BELOW)(pair_frames(states[:, BELOW])[None])
    torch.testing.assert_close(steps[0, :, 0], pool_frames(states[None])[0, :, BELOW])
    expected = pool_frames(states[None])[0, :, BELOW + 1]
    assert torch.nn.functional.cosine_similarity(steps[0, :, 1], expected, dim=-1).min() > 0.995


def test_states_from_log_mels_equal_the_encoders():
    sound = torch.from_numpy(speech_like(1.01, 150, 0))
    with torch.no_grad():
        steps = load_tunable_encoder("whisper-tiny.en", 0)(mel_steps(sound)[None])
    padded = torch.nn.functional.pad(sound, (0, 26 * 640 - len(sound)))
    expected = pool_frames(load_encoder("whisper-tiny.en").network(padded)[None])
    assert steps.shape == expected.shape == (1, 26, 5, 384)
    assert torch.nn.functional.cosine_similarity(steps, expected, dim=-1).min() > 0.99


def test_only_an_encoder_with_blocks_above_is_tuned():
    with pytest.raises(DataError, match=r"whisper-tiny\.en has only 4 blocks"):
        load_tunable_encoder("whisper-tiny.en", 4)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two speakers, each neutral and angry, as clips in memory whose states are cached."""
    items = []
    encoder = load_encoder("whisper-tiny.en")
    for speaker, split in (("a", "train"), ("b", "validation")):
        for emotion, pitch in (("neutral", 100), ("angry", 240)):
            identity = f"made/{speaker}-{emotion}"
            write_wav(tmp_path / f"{speaker}-{emotion}.wav", [speech_like(1.0, pitch, len(items))])
            items.append(
                Utterance(identity, f"{speaker}-{emotion}.wav", "made", speaker, "female", "en", emotion, split=split)
            )
    Manifest(str(tmp_path), items).save(tmp_path / "manifest.json")
    clips = [(item.id, tmp_path / item.path) for item in items]
    cache_features(clips, tmp_path / "features", frozen_features(encoder, BELOW))
    cache_features(clips, tmp_path / "mels", frozen_features(encoder, 0))
    return tmp_path


def test_blocks_are_trained_with_the_diarizer_and_saved_as_an_encoder(corpus: Path):
    training = DiarizerTraining(
        f"{corpus}/manifest.json", (f"{corpus}/features",), f"{corpus}/run",
        model=DiarizerConfig(first_layer=BELOW, layers=2, width=16, hidden=8, convolutions=1),
        frozen_layers=BELOW, steps=6, batch_size=2, warmup=2, validate_every=6,
    )  # fmt: skip
    diarizer = load_diarizer(run_training(training))
    before, after = load_encoder("whisper-tiny.en"), load_encoder(diarizer.config.encoder)
    sound = speech_like(1.0, 180, 9)
    hidden = [encoder.encode(sound) for encoder in (before, after)]
    torch.testing.assert_close(hidden[0][:, : BELOW + 1], hidden[1][:, : BELOW + 1], rtol=0, atol=1e-5)
    assert (hidden[0][:, BELOW + 1] - hidden[1][:, BELOW + 1]).abs().max() > 1e-4


def test_a_whole_encoder_learns_from_changed_sound_and_is_saved(corpus: Path):
    training = DiarizerTraining(
        f"{corpus}/manifest.json", (f"{corpus}/mels",), f"{corpus}/run",
        model=DiarizerConfig(width=16, hidden=8, convolutions=1), mixing=MixerConfig(level_match_prob=0.5),
        frozen_layers=0, spec_augment_prob=0.8, steps=4, batch_size=2, warmup=2, validate_every=4,
    )  # fmt: skip
    diarizer = load_diarizer(run_training(training))
    sound = speech_like(1.0, 180, 9)
    before, after = load_encoder("whisper-tiny.en"), load_encoder(diarizer.config.encoder)
    assert after.layers == before.layers
    assert not torch.equal(before.encode(sound)[:, 0], after.encode(sound)[:, 0])


def test_features_of_another_kind_name_the_command(corpus: Path):
    training = DiarizerTraining(f"{corpus}/manifest.json", (f"{corpus}/features",), f"{corpus}/run")
    with pytest.raises(
        DataError, match=r"features of 2 x 384, but the diarizer reads 5 x 384.*--first-layer 0 --steps"
    ):
        run_training(training)


def test_changes_that_only_log_mels_bear_are_refused_elsewhere(corpus: Path):
    model = DiarizerConfig(first_layer=BELOW, layers=2)
    training = DiarizerTraining(
        f"{corpus}/manifest.json",
        (f"{corpus}/features",),
        f"{corpus}/run",
        model=model,
        frozen_layers=BELOW,
        spec_augment_prob=0.5,
    )
    with pytest.raises(DataError, match=r"for log-mels. Set frozen_layers: 0"):
        run_training(training)
