"""Augmentation of log-mels while an encoder is tuned: vocal tract length perturbation, equaliser, noise, masked bands.

It is cheap enough to be applied to every training utterance, unlike `sedtalker.data.augmentation`, which changes the
audio before its features are cached.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sedtalker.speech import MEL_DECADES, mel_edges

FLOOR = -1.0  # log-mel of silence: eight log10_power under full scale
VTLP_RANGE = 0.18  # largest logarithm of the frequency factor
CHANNEL = 0.15  # largest gain of a microphone or room in a part of the spectrum, in log-mel (6 dB)
LEVEL = 0.3  # largest change of the level, in log-mel (12 dB)
SNR = (0.0, 3.0)  # log10_power from speech down to noise
NOISY = 0.5  # share of the augmented utterances with noise
BAND = 12  # most neighbouring mel bands that are masked


def mel_level(mels: Tensor) -> float:
    """Log-mel of the mean power of log-mels of any shape."""
    return float(log10_power(mels.float().reshape(1, 1, -1))[1]) / MEL_DECADES + 1


def log10_power(mels: Tensor) -> tuple[Tensor, Tensor]:
    """log10 of the power of log-mels (B, F, M), and of the mean power of each utterance (B, 1, 1)."""
    power = MEL_DECADES * (mels - 1)
    return power, (10**power).mean((1, 2), keepdim=True).log10()


def spec_augment(steps: Tensor, share: float) -> Tensor:
    """Augment a share of the utterances of log-mels (B, S, 4, M), each with its own random values."""
    mels = steps.float().flatten(1, 2)
    selected = torch.rand(len(mels), 1, 1, device=mels.device) < share
    augmented = frequency_mask(add_mel_noise(random_eq(vtlp(mels))))
    return torch.where(selected, augmented, mels).clamp(min=FLOOR).view_as(steps)


def vtlp(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M) whose frequencies are scaled by up to exp(`VTLP_RANGE`) (vocal tract length perturbation)."""
    middles = mel_edges(mels.shape[-1])[1:-1]
    factors = np.exp(VTLP_RANGE * (2 * torch.rand(len(mels)).numpy() - 1))
    source = np.interp(np.outer(factors, middles), middles, np.arange(len(middles)))  # (B, M)
    place = torch.from_numpy(source).float().to(mels.device)[:, None].expand_as(mels)
    low = place.long().clamp(max=mels.shape[-1] - 2)
    share = place - low
    return (1 - share) * mels.gather(-1, low) + share * mels.gather(-1, low + 1)


def random_eq(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M) with a random level and equaliser: a tilt and two slow waves over the bands."""
    bands = torch.linspace(0, torch.pi, mels.shape[-1], device=mels.device)
    waves = torch.stack([torch.cos(k * bands) for k in (1, 2, 3)])  # (3, M)
    sizes = CHANNEL * (2 * torch.rand(len(mels), 3, device=mels.device) - 1) / 2
    level = LEVEL * (2 * torch.rand(len(mels), 1, device=mels.device) - 1)
    return mels + (sizes @ waves + level)[:, None]


def add_mel_noise(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M), some with noise that has a slope over the bands and varies from frame to frame."""
    size = (len(mels), 1, 1)
    speech, mean = log10_power(mels)
    low, high = SNR
    snr = low + (high - low) * torch.rand(size, device=mels.device)
    silent = torch.rand(size, device=mels.device) >= NOISY
    slope = torch.linspace(1, -1, mels.shape[-1], device=mels.device) * torch.rand(size, device=mels.device)
    noise = mean - snr + slope + 0.15 * torch.randn_like(mels) - silent * 20.0
    return torch.logaddexp(speech * np.log(10), noise * np.log(10)) / np.log(10) / MEL_DECADES + 1


def frequency_mask(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M) with up to `BAND` neighbouring bands set to the utterance's mean (SpecAugment)."""
    bands = mels.shape[-1]
    width = torch.rand(len(mels), 1, 1, device=mels.device) * BAND
    start = torch.rand(len(mels), 1, 1, device=mels.device) * (bands - width)
    place = torch.arange(bands, device=mels.device)
    return torch.where((place >= start) & (place < start + width), mels.mean((1, 2), keepdim=True), mels)
