"""What happens to speech before it is recorded: speed, room, noise, telephone, level. Numpy only, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, load_audio

Samples = NDArray[np.float32]

PEAK = 0.99  # nothing clips


def augment(samples: Samples, rng: np.random.Generator) -> Samples:
    """Samples (N,) after a random chain; speed changes N by at most a tenth.

    Each step but the level happens in a part of the draws, so that clean speech stays the commonest condition.
    """
    if rng.random() < 0.5:
        samples = change_speed(samples, rng.uniform(0.9, 1.1))
    if rng.random() < 0.3:
        samples = reverberate(samples, rng.uniform(0.15, 0.6), rng)
    if rng.random() < 0.6:
        samples = add_noise(samples, rng.uniform(5, 30), rng.uniform(0, 2), rng)
    if rng.random() < 0.1:
        samples = telephone(samples)
    return scale(samples, rng.uniform(-12, 12))


def change_speed(samples: Samples, speed: float) -> Samples:
    """Play faster or slower; pitch and formants move with it, as in another speaker."""
    return load_audio((samples, round(SAMPLE_RATE * speed)))


def scale(samples: Samples, decibels: float) -> Samples:
    """Change the level, down to what does not clip."""
    gain = 10 ** (decibels / 20)
    peak = float(np.abs(samples).max(initial=1e-6))
    return (samples * min(gain, PEAK / peak)).astype(np.float32)


def add_noise(samples: Samples, snr: float, slope: float, rng: np.random.Generator) -> Samples:
    """Add noise whose power falls with frequency to the power `slope` (0 white, 1 pink, 2 brown), at `snr` dB."""
    noise = coloured_noise(len(samples), slope, rng)
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return (samples + noise * np.sqrt(power / 10 ** (snr / 10))).astype(np.float32)


def coloured_noise(length: int, slope: float, rng: np.random.Generator) -> Samples:
    """Noise (length,) of unit power whose spectrum falls with frequency to the power `slope`, flat below 50 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 50.0)
    noise = np.fft.irfft(spectrum * frequency ** (-slope / 2), n=length)
    return (noise / max(float(noise.std()), 1e-9)).astype(np.float32)


def reverberate(samples: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """A room whose echoes fall by 60 dB in `seconds`, as exponentially decaying noise after the direct sound."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response *= rng.uniform(0.3, 1.0) / max(float(np.sqrt(np.square(response).sum())), 1e-9)
    response[0] = 1.0
    size = 1 << (len(samples) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
    return wet.astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """300 to 3,400 Hz, eight bits on the mu-law curve."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    narrow = np.clip(np.fft.irfft(spectrum, n=len(samples)), -1, 1)
    compressed = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    compressed = np.round(compressed * 127) / 127
    return (np.sign(compressed) * (256 ** np.abs(compressed) - 1) / 255).astype(np.float32)
