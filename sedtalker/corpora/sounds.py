"""Sounds that a talker must not be fooled by: silence, noise and music, and speech that lies in them.

A mouth stays shut while nobody speaks, however loud it is, and goes on speaking in noise.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE

Float = NDArray[np.float32]

FOREIGN = ("silence", "white", "pink", "brown", "hum", "music", "clicks")
LEVELS = (-55.0, -12.0)  # dB of full scale of a foreign sound
SIGNAL_TO_NOISE = (8.0, 30.0)  # dB
GAINS = (-18.0, 6.0)  # dB
PADDING = (0.3, 1.5)  # seconds before and after speech
MIDDLE_C = 261.63  # Hz


def foreign_sound(kind: str, seconds: float, rng: np.random.Generator) -> Float:
    """Sound (N,) at 16 kHz without speech, of one of the kinds in FOREIGN."""
    count = round(seconds * SAMPLE_RATE)
    if kind == "silence":
        return np.zeros(count, np.float32)
    sound = {"hum": _hum, "music": _music, "clicks": _clicks}.get(kind, lambda n, r: _noise(kind, n, r))(count, rng)
    level = 10 ** (rng.uniform(*LEVELS) / 20)
    return np.clip(sound / (np.sqrt(np.mean(sound**2)) + 1e-9) * level, -1, 1).astype(np.float32)


def spoiled_speech(samples: Float, rng: np.random.Generator) -> tuple[Float, float]:
    """Speech (N,) at another level, between silences and in noise, and the seconds by which it starts later."""
    before, after = rng.uniform(*PADDING, size=2)
    lead = round(before * SAMPLE_RATE / 320) * 320  # whole frames, so that phones keep their place on the grid
    speech = np.pad(samples, (lead, round(after * SAMPLE_RATE)))
    power = np.mean(samples**2) + 1e-9
    noise = foreign_sound(str(rng.choice(FOREIGN[1:6])), len(speech) / SAMPLE_RATE, rng)[: len(speech)]
    noise *= np.sqrt(power / (np.mean(noise**2) + 1e-12)) * 10 ** (-rng.uniform(*SIGNAL_TO_NOISE) / 20)
    mixed = speech + np.pad(noise, (0, len(speech) - len(noise))) * (rng.uniform() < 0.7)
    return np.clip(mixed * 10 ** (rng.uniform(*GAINS) / 20), -1, 1).astype(np.float32), lead / SAMPLE_RATE


def write_wave(path: Path, samples: Float) -> None:
    """Write samples (N,) as 16-bit mono at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def _noise(color: str, count: int, rng: np.random.Generator) -> Float:
    """Noise whose power falls with frequency: not at all, by 3 dB an octave, or by 6."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[color]
    return np.fft.irfft(spectrum / frequency**slope, count).astype(np.float32)


def _hum(count: int, rng: np.random.Generator) -> Float:
    times = np.arange(count) / SAMPLE_RATE
    mains = rng.choice([50.0, 60.0, 120.0])
    harmonics = [rng.uniform(0.1, 1) / order * np.sin(2 * np.pi * mains * order * times) for order in range(1, 8)]
    return (np.sum(harmonics, axis=0) + 0.05 * rng.normal(size=count)).astype(np.float32)


def _music(count: int, rng: np.random.Generator) -> Float:
    """Notes and chords of plucked and held harmonic tones, with a beat."""
    sound = np.zeros(count)
    beat = round(rng.uniform(0.15, 0.5) * SAMPLE_RATE)
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    for start in range(0, count, beat):
        times = np.arange(min(count - start, 3 * beat)) / SAMPLE_RATE
        for _ in range(int(rng.integers(1, 4))):
            pitch = MIDDLE_C * 2 ** ((rng.choice(scale) + 12 * rng.integers(-2, 2)) / 12)
            decay = np.exp(-times * rng.uniform(1, 8)) * np.minimum(times / 0.01, 1)
            tone = sum(np.sin(2 * np.pi * pitch * order * times) / order for order in range(1, int(rng.integers(2, 7))))
            sound[start : start + len(times)] += decay * tone
        if rng.uniform() < 0.5:  # a drum
            drum = rng.normal(size=len(times)) * np.exp(-times * 40)
            sound[start : start + len(times)] += rng.uniform(0.3, 1.5) * drum
    return sound.astype(np.float32)


def _clicks(count: int, rng: np.random.Generator) -> Float:
    sound = 0.002 * rng.normal(size=count)
    for start in rng.integers(0, count, max(1, count // SAMPLE_RATE * 3)):
        length = min(count - start, int(rng.integers(200, 2000)))
        sound[start : start + length] += rng.normal(size=length) * np.exp(-np.arange(length) / (length / 6))
    return sound.astype(np.float32)
