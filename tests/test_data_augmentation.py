"""Augmentation of training audio: voice, room, noise, telephone and level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchaudio")

from sedtalker.audio import load_audio
from sedtalker.data.augmentation import (
    add_noise,
    change_level,
    change_speed,
    perturb_voice,
    power_law_noise,
    reverberate,
    simulate_telephone,
)
from sedtalker.data.negative_audio import add_loud_background, augment_speech, draw_voice
from sedtalker.emotion.vad import loudness

SPEECH = Path(__file__).parent / "data" / "1001_IEO_ANG_HI.opus"
RATE = 16_000


def tone(hertz: float = 1000, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def harmonics(fundamental: float) -> np.ndarray:
    """A second of a buzz with one formant, at 1 kHz."""
    time = np.arange(RATE) / RATE
    numbers = np.arange(1, int(4000 / fundamental))
    gains = np.exp(-(((numbers * fundamental - 1000) / 200) ** 2))
    return (0.1 * gains @ np.sin(2 * np.pi * fundamental * numbers[:, None] * time)).astype(np.float32)


def test_noise_has_the_given_ratio_and_spectrum():
    rng = np.random.default_rng(0)
    noisy = add_noise(tone(), 10, 0, rng)
    ratio = 10 * np.log10(np.mean(tone() ** 2) / np.mean((noisy - tone()) ** 2))
    assert ratio == pytest.approx(10, abs=0.1)
    for exponent in (0, 1, 2):
        power = np.abs(np.fft.rfft(power_law_noise(160_000, exponent, rng))) ** 2
        assert power[1_000:2_000].mean() / power[10_000:20_000].mean() == pytest.approx(10**exponent, rel=0.3)


def test_speed_and_level():
    assert len(change_speed(tone(), 1.1)) == pytest.approx(RATE / 1.1, rel=0.01)
    assert np.abs(change_level(tone(), 30)).max() <= 1
    np.testing.assert_allclose(change_level(tone(), -20), 0.1 * tone(), atol=1e-6)


def test_a_telephone_passes_its_band_in_eight_bits():
    assert np.abs(simulate_telephone(tone(100))).max() < 0.02
    passed = simulate_telephone(tone(1000))
    assert np.abs(passed).max() > 0.2
    assert len(np.unique(passed)) <= 256


@pytest.mark.parametrize(
    ("pitch", "formants", "tempo"), [(1.0, 1.0, 1.0), (1.25, 1.0, 1.0), (1.0, 1.2, 1.0), (0.8, 0.9, 1.2)]
)
def test_a_perturbed_voice_has_the_given_pitch_formants_and_tempo(pitch: float, formants: float, tempo: float):
    voice = perturb_voice(harmonics(100), pitch, formants, tempo)
    assert voice.dtype == np.float32 and len(voice) == round(RATE / tempo)
    size = np.abs(np.fft.rfft(voice[2_000:10_000]))  # 2 Hz per bin
    comb = [size[np.round(np.arange(1, 15) * f / 2).astype(int)].sum() for f in range(60, 160)]
    assert 60 + int(np.argmax(comb)) == pytest.approx(100 * pitch, abs=3)
    hertz, power = np.arange(len(size)) * 2, size**2
    assert (hertz * power).sum() / power.sum() == pytest.approx(1000 * formants, rel=0.05)


def test_a_perturbed_voice_keeps_the_timing_and_level():
    samples = load_audio(SPEECH)
    voice = perturb_voice(samples, pitch=1.6, formants=1.1, tempo=1.0)
    assert len(voice) == len(samples)
    assert np.corrcoef(loudness(samples), loudness(voice))[0, 1] > 0.9
    same = perturb_voice(samples, 1.0, 1.0, 1.0)
    np.testing.assert_allclose(same, samples, atol=1e-4)


def test_a_room_adds_decaying_echoes_after_the_sound():
    click = np.zeros(8_000, np.float32)
    click[100] = 1
    wet = reverberate(click, 0.3, (0.2, 0.7), np.random.default_rng(0))
    assert wet.dtype == np.float32 and len(wet) == len(click)
    assert wet[100] == pytest.approx(1, abs=0.05) and np.abs(wet[:100]).max() < 1e-5
    early, late = (np.square(wet[a : a + 1_000]).sum() for a in (200, 3_000))
    assert early > 10 * late > 0


def test_augmentation_is_seeded_finite_and_does_not_clip():
    one, other = (augment_speech(tone(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    for seed in range(30):
        augmented = augment_speech(tone(), np.random.default_rng(seed))
        assert np.isfinite(augmented).all() and np.abs(augmented).max() <= 1.01
        assert RATE / 1.2 <= len(augmented) <= RATE * 1.2


def test_a_loud_background_is_5_to_15_db_below_the_speech():
    clean = tone()
    for seed in range(12):
        noisy = add_loud_background(clean, np.random.default_rng(seed))
        assert len(noisy) == len(clean)
        gain = np.dot(noisy, clean) / np.dot(clean, clean)  # level of the speech in the result
        ratio = 20 * np.log10(np.std(gain * clean) / np.std(noisy - gain * clean))
        assert 4 < ratio < 16


def test_a_drawn_voice_changes_all_recordings_alike():
    """The ratio of two spectra is the same for two recordings of one voice, and differs between voices."""

    def change(seed: int, recording: int) -> np.ndarray:
        rng = np.random.default_rng(recording)
        samples = np.convolve(rng.normal(0, 0.1, 32_000), np.hanning(5), "same").astype(np.float32)
        changed = draw_voice(np.random.default_rng(seed))(samples, rng)
        spectra = (np.abs(np.fft.rfft(each[:16_000])[:6_000]) for each in (changed, samples))
        levels = [np.log(spectrum.reshape(60, -1).mean(1)) for spectrum in spectra]
        return np.diff(levels[0] - levels[1])

    same, other = (np.abs(change(3, 0) - change(seed, 1)).mean() for seed in (3, 4))
    assert same < 0.7 * other
