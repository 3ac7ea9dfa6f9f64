"""Loudness, speech and silence."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.emotion.vad import detect_speech, loudness, silence_weight, trim_silence


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 1000 * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def test_loudness_is_that_of_the_tone_and_has_a_floor():
    np.testing.assert_allclose(loudness(tone(1)), 20 * np.log10(0.3 / np.sqrt(2)), atol=0.01)
    assert loudness(np.zeros(500, np.float32)).tolist() == [-100, -100]


def test_short_pauses_belong_to_the_speech_around_them():
    levels = np.full(100, -70.0, np.float32)
    levels[20:40] = levels[48:60] = -20
    assert np.flatnonzero(detect_speech(levels, bridge=0.3)).tolist() == list(range(20, 60))
    assert not detect_speech(levels)[40:48].any()


def test_trimming_keeps_the_edge():
    samples = np.concatenate([np.zeros(8_000, np.float32), tone(0.5), np.zeros(8_000, np.float32)])
    assert len(trim_silence(samples, 0.1)) == 16_000 * 0.7


def test_silence_weight_has_ramps_inside_long_silence_only():
    samples = np.concatenate([tone(1), np.zeros(3_200, np.float32), tone(1), np.zeros(24_000, np.float32), tone(0.5)])
    weight = silence_weight(loudness(samples))
    assert weight[:110].max() == 0
    assert weight[125:170].min() == 1
    assert (weight[185:].max(), weight[110] < 0.1) == (0, True)


def test_quiet_speech_is_not_silent_and_noise_is():
    hiss = np.random.default_rng(0).normal(0, 1e-4, 32_000).astype(np.float32)
    assert silence_weight(loudness(tone(2, 0.005))).max() == 0
    assert silence_weight(loudness(hiss)).min() == 1


def test_loudness_is_that_of_librosa():
    librosa = pytest.importorskip("librosa")
    rng = np.random.default_rng(0)
    samples = (rng.normal(0, 0.1, 16_000) * np.linspace(0.001, 1, 16_000)).astype(np.float32)
    rms = librosa.feature.rms(y=samples, frame_length=320, hop_length=320, center=False)[0]
    np.testing.assert_allclose(
        loudness(samples), librosa.amplitude_to_db(rms, ref=1.0, amin=1e-5, top_db=None), atol=0.01
    )


def test_speech_is_trimmed_as_librosa_trims_it():
    librosa = pytest.importorskip("librosa")
    silence = np.full(8_000, 1e-4, np.float32)
    samples = np.concatenate([silence, tone(0.5), silence, tone(0.5), silence])
    _, (first, last) = librosa.effects.trim(samples, top_db=30, frame_length=320, hop_length=320)
    assert abs(len(trim_silence(samples, 0.0)) - (last - first)) <= 640  # librosa centres its frames
    assert np.array_equal(np.flatnonzero(detect_speech(loudness(samples)))[[0, -1]], [25, 99])


def test_clicks_are_not_speech_where_that_is_asked_for():
    levels = np.full(100, -70.0, np.float32)
    levels[20:40] = levels[60:62] = -20
    assert detect_speech(levels)[60:62].all()
    assert np.flatnonzero(detect_speech(levels, without_clicks=True)).tolist() == list(range(20, 40))
