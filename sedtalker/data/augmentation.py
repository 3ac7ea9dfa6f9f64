"""Augmentation of training audio: vocal tract length, pitch and tempo perturbation, room, noise, telephone, level.

Samples are (N,) float32 at 16 kHz. The same state of the generator gives the same samples. Signal processing comes from
torchaudio (extra `train`); changes of speed go through the project's own resampler, because torchaudio's needs a filter
of many megabytes for most factors.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.errors import require

Samples = NDArray[np.float32]

PEAK = 0.99  # largest magnitude after a change of level
N_FFT = 512  # samples of a short-time spectrum, 32 ms
HOP = 128  # samples, 8 ms
LIFTER = 32  # samples; lower quefrencies belong to the vocal tract, higher ones to the pitch
NOISE_CORNER = 50.0  # Hz, power-law noise is flat below it
TELEPHONE_BAND = (300.0, 3400.0)  # Hz
MU_LAW_LEVELS = 256


def change_speed(samples: Samples, speed: float) -> Samples:
    """Samples played `speed` times as fast; pitch and formants rise by the same factor."""
    return load_audio((samples, round(SAMPLE_RATE * speed)))


def perturb_voice(samples: Samples, pitch: float, formants: float, tempo: float) -> Samples:
    """Samples (round(N / tempo),) with pitch, formants (vocal tract length) and tempo each multiplied by a factor.

    A change of speed sets the pitch; a warp of the spectral envelope then moves the formants, and a phase vocoder the
    tempo, to where they belong.
    """
    vocoder = require("torchaudio.functional", "train").phase_vocoder
    window = torch.hann_window(N_FFT)
    faster = torch.from_numpy(np.pad(change_speed(samples, pitch), (0, N_FFT)))
    spectra = torch.stft(faster, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)  # (F, T)
    spectra = spectra * torch.exp(_envelope_change(spectra, formants / pitch))
    phase_advance = torch.linspace(0, math.pi * HOP, N_FFT // 2 + 1)[:, None]
    stretched = vocoder(spectra, tempo / pitch, phase_advance)
    return torch.istft(stretched, N_FFT, HOP, window=window, length=round(len(samples) / tempo)).numpy()


def _envelope_change(spectra: Tensor, factor: float) -> Tensor:
    """Log gain (F, T) that multiplies the frequencies of the spectral envelope of spectra (F, T) by a factor."""
    cepstrum = torch.fft.irfft(spectra.abs().clamp(min=1e-5).log(), dim=0)
    cepstrum[LIFTER : N_FFT - LIFTER + 1] = 0
    envelope = torch.fft.rfft(cepstrum, dim=0).real
    bins = len(envelope)
    position = (torch.arange(bins) / factor).clamp(max=bins - 1)
    low = position.long().clamp(max=bins - 2)
    return torch.lerp(envelope[low], envelope[low + 1], (position - low)[:, None]) - envelope


def change_level(samples: Samples, decibels: float) -> Samples:
    """Samples with the gain in dB, less where it would clip."""
    gain = 10 ** (decibels / 20)
    peak = float(np.abs(samples).max(initial=1e-6))
    return (samples * min(gain, PEAK / peak)).astype(np.float32)


def add_noise(samples: Samples, snr: float, exponent: float, rng: np.random.Generator) -> Samples:
    """Samples with power-law noise (`power_law_noise`) at a signal-to-noise ratio in dB."""
    noise = power_law_noise(len(samples), exponent, rng)
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return (samples + noise * np.sqrt(power / 10 ** (snr / 10))).astype(np.float32)


def power_law_noise(length: int, exponent: float, rng: np.random.Generator) -> Samples:
    """Noise (length,) of unit power with a power spectrum of 1 / f ** exponent: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), NOISE_CORNER)
    noise = np.fft.irfft(spectrum * frequency ** (-exponent / 2), n=length)
    return (noise / max(float(noise.std()), 1e-9)).astype(np.float32)


def reverberate(samples: Samples, seconds: float, strengths: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Samples in a room with a reverberation time (RT60) in seconds.

    The room response is the direct sound and exponentially decaying noise, whose norm relative to the direct sound is
    random between the two `strengths`.
    """
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response *= rng.uniform(*strengths) / max(float(np.sqrt(np.square(response).sum())), 1e-9)
    response[0] = 1.0
    convolve = require("torchaudio.functional", "train").fftconvolve
    return convolve(torch.from_numpy(samples), torch.from_numpy(response).float())[: len(samples)].numpy()


def cut_high_frequencies(samples: Samples, frequency: float) -> Samples:
    """Samples without the band above a frequency in Hz, as after a narrow-band codec."""
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE) > frequency] = 0
    return np.fft.irfft(spectrum, n=len(samples)).astype(np.float32)


def simulate_telephone(samples: Samples) -> Samples:
    """Samples limited to the telephone band and quantised to eight bits by the mu-law."""
    functional = require("torchaudio.functional", "train")
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    low, high = TELEPHONE_BAND
    spectrum[(frequency < low) | (frequency > high)] = 0
    narrow = torch.from_numpy(np.clip(np.fft.irfft(spectrum, n=len(samples)), -1, 1)).float()
    return functional.mu_law_decoding(functional.mu_law_encoding(narrow, MU_LAW_LEVELS), MU_LAW_LEVELS).numpy()
