"""What happens to log-mels on their way into an encoder that is trained: another throat, channel, noise, hidden bands.

Unlike `sedtalker.data.augmentation`, which changes the sound before its features are cached, it costs so little that
each made utterance is changed anew.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sedtalker.speech import MEL_DECADES, mel_edges

FLOOR = -1.0  # log-mel of silence: eight decades under full scale
VTLP_RANGE = 0.18  # most that the formants move, as a logarithm
CHANNEL = 0.15  # most that a microphone or room lifts or lowers a part of the spectrum, in log-mel (6 dB)
LEVEL = 0.3  # most that the level moves, in log-mel (12 dB)
SNR = (0.0, 3.0)  # decades from speech down to noise
NOISY = 0.5  # share of the changed utterances with noise
BAND = 12  # most mel bands that are hidden in one stretch


def mel_level(mels: Tensor) -> float:
    """Log-mel of the mean power of log-mels of any shape."""
    return float(decades(mels.float().reshape(1, 1, -1))[1]) / MEL_DECADES + 1


def decades(mels: Tensor) -> tuple[Tensor, Tensor]:
    """Power of log-mels (B, F, M) as powers of ten, and that of each utterance's mean power (B, 1, 1)."""
    power = MEL_DECADES * (mels - 1)
    return power, (10**power).mean((1, 2), keepdim=True).log10()


def changed(steps: Tensor, share: float) -> Tensor:
    """Log-mels (B, S, 4, M) of which a share of the utterances are changed, each in its own way."""
    mels = steps.float().flatten(1, 2)
    moved = torch.rand(len(mels), 1, 1, device=mels.device) < share
    other = frequency_mask(noised(random_eq(vtlp(mels))))
    return torch.where(moved, other, mels).clamp(min=FLOOR).view_as(steps)


def vtlp(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M) whose frequencies are stretched by up to `THROAT` (vocal tract length perturbation)."""
    middles = mel_edges(mels.shape[-1])[1:-1]
    factors = np.exp(VTLP_RANGE * (2 * torch.rand(len(mels)).numpy() - 1))
    source = np.interp(np.outer(factors, middles), middles, np.arange(len(middles)))  # (B, M)
    place = torch.from_numpy(source).float().to(mels.device)[:, None].expand_as(mels)
    low = place.long().clamp(max=mels.shape[-1] - 2)
    share = place - low
    return (1 - share) * mels.gather(-1, low) + share * mels.gather(-1, low + 1)


def random_eq(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M) at another level and through another channel: a tilt and two slow waves over the bands."""
    bands = torch.linspace(0, torch.pi, mels.shape[-1], device=mels.device)
    waves = torch.stack([torch.cos(k * bands) for k in (1, 2, 3)])  # (3, M)
    sizes = CHANNEL * (2 * torch.rand(len(mels), 3, device=mels.device) - 1) / 2
    level = LEVEL * (2 * torch.rand(len(mels), 1, device=mels.device) - 1)
    return mels + (sizes @ waves + level)[:, None]


def noised(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M), some with noise: a slope over the bands, and a scatter from frame to frame."""
    size = (len(mels), 1, 1)
    speech, mean = decades(mels)
    low, high = SNR
    snr = low + (high - low) * torch.rand(size, device=mels.device)
    silent = torch.rand(size, device=mels.device) >= NOISY
    slope = torch.linspace(1, -1, mels.shape[-1], device=mels.device) * torch.rand(size, device=mels.device)
    noise = mean - snr + slope + 0.15 * torch.randn_like(mels) - silent * 20.0
    return torch.logaddexp(speech * np.log(10), noise * np.log(10)) / np.log(10) / MEL_DECADES + 1


def frequency_mask(mels: Tensor) -> Tensor:
    """Log-mels (B, F, M) with a stretch of up to `BAND` bands at their utterance's mean (SpecAugment)."""
    bands = mels.shape[-1]
    width = torch.rand(len(mels), 1, 1, device=mels.device) * BAND
    start = torch.rand(len(mels), 1, 1, device=mels.device) * (bands - width)
    place = torch.arange(bands, device=mels.device)
    return torch.where((place >= start) & (place < start + width), mels.mean((1, 2), keepdim=True), mels)
