"""What happens to speech before it is heard: another throat and pace, room, noise, telephone, level. Numpy, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, load_audio

Samples = NDArray[np.float32]

PEAK = 0.99  # nothing clips
SPECTRUM = 512  # samples of a short-time spectrum, 32 ms
HOP = 128  # samples from one to the next
LIFTER = 32  # samples: quefrencies below are the vocal tract's, above the voice's


def augment(samples: Samples, rng: np.random.Generator) -> Samples:
    """Samples (N,) after a random chain; the pace changes N by at most a fifth.

    Corpora of acted emotion have few speakers: most draws make another one of them.
    """
    if rng.random() < 0.75:
        pitch, formants, pace = np.exp(rng.uniform([-0.25, -0.15, -0.18], [0.25, 0.15, 0.18]))
        samples = revoice(samples, pitch, formants, pace)
    if rng.random() < 0.3:
        samples = reverberate(samples, rng.uniform(0.15, 0.6), (0.3, 1.0), rng)
    if rng.random() < 0.6:
        samples = add_noise(samples, rng.uniform(5, 30), rng.uniform(0, 2), rng)
    if rng.random() < 0.1:
        samples = telephone(samples)
    return scale(samples, rng.uniform(-12, 12))


def change_speed(samples: Samples, speed: float) -> Samples:
    """Play faster or slower; pitch and formants move with it, as in another speaker."""
    return load_audio((samples, round(SAMPLE_RATE * speed)))


def revoice(samples: Samples, pitch: float, formants: float, pace: float) -> Samples:
    """Another voice: pitch, formants and pace each times a factor; N / pace samples come back."""
    moved = change_speed(samples, pitch)  # formants and pace have moved along
    spectra = _spectra(moved)
    warped = spectra * np.exp(_warped(_envelope(spectra), formants / pitch))
    return _overlapped(_stretched(warped, pace / pitch), round(len(samples) / pace))


def _spectra(samples: Samples) -> NDArray[np.complex128]:
    """Short-time spectra (T, F) every `HOP` samples."""
    padded = np.pad(samples.astype(np.float64), (SPECTRUM // 2, SPECTRUM))
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPECTRUM)[::HOP]
    return np.fft.rfft(frames * np.hanning(SPECTRUM))


def _overlapped(spectra: NDArray[np.complex128], length: int) -> Samples:
    """The samples (length,) of short-time spectra (T, F), overlapped and added."""
    window = np.hanning(SPECTRUM)
    frames = np.fft.irfft(spectra) * window
    total = np.zeros(max(len(frames) * HOP, length + SPECTRUM) + SPECTRUM)
    for start, frame in enumerate(frames):
        total[start * HOP : start * HOP + SPECTRUM] += frame
    gain = float(np.square(window).sum()) / HOP
    return (total[SPECTRUM // 2 : SPECTRUM // 2 + length] / gain).astype(np.float32)


def _envelope(spectra: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Log envelopes (T, F): the cepstrum's part that is slower than any pitch."""
    cepstrum = np.fft.irfft(np.log(np.maximum(np.abs(spectra), 1e-5)))
    cepstrum[:, LIFTER : SPECTRUM - LIFTER + 1] = 0
    return np.fft.rfft(cepstrum).real


def _warped(envelope: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """What moves the peaks of log envelopes (T, F) by a factor, to be added to them."""
    bins = envelope.shape[1]
    source = np.minimum(np.arange(bins) / factor, bins - 1)
    low = np.minimum(source.astype(int), bins - 2)
    share = source - low
    return (1 - share) * envelope[:, low] + share * envelope[:, low + 1] - envelope


def _stretched(spectra: NDArray[np.complex128], rate: float) -> NDArray[np.complex128]:
    """Short-time spectra (T, F) played `rate` times as fast, phases carried on (a phase vocoder)."""
    times = np.arange(0, len(spectra) - 1, rate)
    low = times.astype(int)
    share = (times - low)[:, None]
    size = np.abs(spectra)
    advance = 2 * np.pi * HOP * np.arange(spectra.shape[1]) / SPECTRUM
    turn = np.angle(spectra[low + 1]) - np.angle(spectra[low]) - advance
    turn = advance + turn - 2 * np.pi * np.round(turn / (2 * np.pi))
    phase = np.angle(spectra[0]) + np.concatenate([np.zeros((1, len(advance))), np.cumsum(turn[:-1], axis=0)])
    return ((1 - share) * size[low] + share * size[low + 1]) * np.exp(1j * phase)


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


def reverberate(samples: Samples, seconds: float, strengths: tuple[float, float], rng: np.random.Generator) -> Samples:
    """A room whose echoes fall by 60 dB in `seconds`, as exponentially decaying noise after the direct sound.

    Their strength beside it is drawn between the two `strengths`.
    """
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response *= rng.uniform(*strengths) / max(float(np.sqrt(np.square(response).sum())), 1e-9)
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
