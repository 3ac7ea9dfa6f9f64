"""Loudness and pitch of a voice."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.audio import load_audio, loudness
from sedtalker.talker.prosody import ProsodyTracker, _find_pitch


def voice(hertz: np.ndarray, level: float = 0.1) -> np.ndarray:
    """A sound with harmonics of a changing pitch (N,)."""
    phase = 2 * np.pi * np.cumsum(hertz) / 16_000
    return (level * sum(np.sin(n * phase) / n for n in range(1, 12))).astype(np.float32)


def track(samples: np.ndarray, size: int | None = None) -> np.ndarray:
    tracker = ProsodyTracker()
    size = size or len(samples)
    parts = [tracker.push(samples[first : first + size]) for first in range(0, len(samples), size)]
    return np.concatenate([*parts, tracker.finish()])


@pytest.mark.parametrize("middle", [90, 150, 280])
def test_pitch_of_a_gliding_voice(middle: float) -> None:
    times = np.arange(48_000) / 16_000
    hertz = middle * 2 ** (0.25 * np.sin(2 * np.pi * 0.7 * times))
    found = track(voice(hertz))[5:, 1]
    wanted = np.interp(np.arange(5, 150) * 0.02, times, hertz)  # the middle of a frame's window is the frame's start
    assert (found > 0).mean() > 0.9
    off = 12 * np.abs(np.log2(found[found > 0] / wanted[found > 0]))  # semitones
    assert np.quantile(off, 0.95) < 0.5


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    assert track(noise)[:, 1].max() == 0 and track(0 * noise)[:, 1].max() == 0


@pytest.mark.parametrize("size", [100, 320, 777, 16_000])
def test_frames_do_not_depend_on_the_chunks(size: int, speech_file) -> None:
    samples = load_audio(speech_file)[:20_123]
    whole = track(samples)
    assert len(whole) == 63
    np.testing.assert_allclose(track(samples, size), whole, rtol=1e-5)
    np.testing.assert_allclose(whole[:, 0], loudness(samples), rtol=1e-5)
    assert 0.3 < (whole[:, 1] > 0).mean() < 0.95


def test_pieces_of_any_size_use_the_same_compiled_code() -> None:
    """A stream would wait for another compilation, although its compiled code was prepared."""
    for size in (320, 640, 1280, 1000):
        track(voice(np.full(3200, 150.0)), size)
    assert len(_find_pitch.signatures) == 1
