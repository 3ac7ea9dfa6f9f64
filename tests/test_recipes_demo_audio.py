"""The demo's audio from tones in noise with CREMA-D's file names."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.audio import load_audio, write_wav
from sedtalker.errors import DataError
from sedtalker.recipes.demo_audio import CLIPS, PAUSE, demo_samples, denoise


def clip(level: float, seed: int) -> np.ndarray:
    """A second of tone between silences, with noise."""
    tone = np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000) * level
    hiss = np.random.default_rng(seed).normal(0, 0.003, 32_000)
    return (np.concatenate([np.zeros(8_000), tone, np.zeros(8_000)]) + hiss).astype(np.float32)


def test_the_sentences_come_at_one_level_with_pauses_between(tmp_path):
    for number, name in enumerate(CLIPS):
        write_wav(tmp_path / "AudioWAV" / f"{name}.wav", [clip(0.05 * (number + 1), number)])
    samples = demo_samples(tmp_path)
    pause = int(PAUSE * 16_000)
    assert np.abs(samples[:pause]).max() == 0
    silent = np.abs(samples) == 0
    starts = np.flatnonzero(~silent[pause:] & silent[: len(silent) - pause]) + pause
    assert len(starts) >= len(CLIPS)
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    levels = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    loud = levels[levels > -30]
    assert len(loud) == pytest.approx(len(CLIPS) * 50, abs=8)
    assert loud.max() - np.median(loud) < 1.5


def test_noise_is_removed_and_the_tone_kept():
    noisy = clip(0.3, 0)
    clean = denoise(noisy)
    assert np.sqrt(np.mean(clean[2_000:6_000] ** 2)) < 0.6 * np.sqrt(np.mean(noisy[2_000:6_000] ** 2))
    assert np.sqrt(np.mean(clean[12_000:20_000] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_a_folder_without_the_clips_is_refused(tmp_path):
    write_wav(tmp_path / "other.wav", [clip(0.3, 0)])
    with pytest.raises(DataError, match=CLIPS[0]):
        demo_samples(tmp_path)


def test_pcm_survives(tmp_path):
    samples = clip(0.3, 1)
    write_wav(tmp_path / "a.wav", [samples])
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), samples, atol=1e-4)
