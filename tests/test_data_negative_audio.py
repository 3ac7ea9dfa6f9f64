"""Sounds without speech, degraded speech and converted voices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchaudio")

from sedtalker.audio import load_audio, write_wav
from sedtalker.data.negative_audio import LEVELS, NON_SPEECH, convert_voice, degrade, synthesize_non_speech

SPEECH = Path(__file__).parent / "data" / "1001_IEO_ANG_HI.opus"
RATE = 16_000


def power(sound: np.ndarray, low: float, high: float) -> float:
    """Mean power density between two frequencies in Hz."""
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return float(spectrum[(hertz >= low) & (hertz < high)].mean())


def frame_power(sound: np.ndarray) -> np.ndarray:
    """Power of each 20 ms."""
    return np.square(sound[: len(sound) // 320 * 320].reshape(-1, 320)).mean(1)


@pytest.mark.parametrize("kind", NON_SPEECH)
def test_a_sound_has_its_length_and_a_level_in_the_range(kind: str):
    sound = synthesize_non_speech(kind, 1.0, np.random.default_rng(0))
    assert sound.shape == (RATE,) and sound.dtype == np.float32 and np.isfinite(sound).all()
    if kind == "silence":
        assert not sound.any()
    else:
        decibels = 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)))
        assert LEVELS[0] - 6 < decibels < LEVELS[1] + 0.1  # peaks that clip lower the level
        other = synthesize_non_speech(kind, 1.0, np.random.default_rng(1))
        assert np.abs(sound - other).max() > 1e-4


@pytest.mark.parametrize(("kind", "ratio"), [("white", 1), ("pink", 10), ("brown", 100)])
def test_noise_falls_with_frequency_by_its_colour(kind: str, ratio: float):
    sound = synthesize_non_speech(kind, 8.0, np.random.default_rng(2))
    assert power(sound, 150, 250) / power(sound, 1500, 2500) == pytest.approx(ratio, rel=0.35)


def test_hum_is_harmonics_of_the_mains():
    for seed in range(4):
        sound = synthesize_non_speech("hum", 2.0, np.random.default_rng(seed))
        spectrum = np.abs(np.fft.rfft(sound)) ** 2
        peaks = np.argsort(spectrum)[-3:] / 2  # Hz, at 0.5 Hz per bin
        assert any(np.allclose(peaks % mains, 0) for mains in (50, 60))


def test_clicks_are_short_and_breaths_have_pauses():
    clicks = frame_power(synthesize_non_speech("clicks", 4.0, np.random.default_rng(3)))
    assert clicks.max() > 100 * np.median(clicks)
    breaths = frame_power(synthesize_non_speech("breath", 6.0, np.random.default_rng(3)))
    assert 0.1 < (breaths < 1e-3 * breaths.max()).mean() < 0.7


def test_music_has_discrete_partials_and_chirps_are_above_a_voice():
    music = np.abs(np.fft.rfft(synthesize_non_speech("music", 4.0, np.random.default_rng(4)))) ** 2
    white = np.abs(np.fft.rfft(synthesize_non_speech("white", 4.0, np.random.default_rng(4)))) ** 2
    strongest = [np.sort(power)[-len(power) // 100 :].sum() / power.sum() for power in (music, white)]
    assert strongest[0] > 0.4 > 5 * strongest[1] / 2
    chirps = synthesize_non_speech("chirps", 4.0, np.random.default_rng(4))
    assert power(chirps, 1200, 8000) > 20 * power(chirps, 50, 500)


def test_degraded_speech_starts_on_a_frame(tmp_path: Path):
    samples, later = degrade(load_audio(SPEECH), np.random.default_rng(1))
    assert 0.3 <= later <= 1.5
    assert (later * RATE) % 320 == pytest.approx(0)
    write_wav(tmp_path / "a.wav", [samples])
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), samples, atol=1e-4)


def test_a_converted_voice_has_the_returned_speed():
    samples = load_audio(SPEECH)
    voice, speed = convert_voice(samples, np.random.default_rng(3))
    assert len(voice) == pytest.approx(len(samples) / speed, abs=400)
