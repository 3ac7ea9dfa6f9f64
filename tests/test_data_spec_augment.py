"""Augmentation of log-mels has the effect of the same change of the audio."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sedtalker.data import spec_augment as augmentation
from sedtalker.data.spec_augment import add_mel_noise, frequency_mask, mel_level, random_eq, spec_augment, vtlp
from sedtalker.speech import log_mel, mel_edges

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    """Log-mels (1, F, 80) of a tone."""
    time = torch.arange(round(seconds * RATE)) / RATE
    return log_mel(0.5 * torch.sin(2 * torch.pi * hertz * time)).T[None]


def test_level_is_the_mean_power():
    loud, soft = (torch.full((4, 80), value) for value in (0.5, 0.25))
    assert mel_level(loud) == pytest.approx(0.5)
    assert mel_level(torch.cat([loud, soft])) == pytest.approx(1 + np.log10((10**-2 + 10**-3) / 2) / 4, abs=1e-6)


def test_vtlp_moves_a_tone_within_its_range():
    torch.manual_seed(0)
    middles = mel_edges(80)[1:-1]
    moved = vtlp(tone(2000).expand(64, -1, -1)).mean(1)
    shifts = np.log(middles[moved.argmax(-1).numpy()] / 2000)
    assert np.abs(shifts).max() < augmentation.VTLP_RANGE + 0.06  # half a band
    assert shifts.std() > augmentation.VTLP_RANGE / 3


def test_an_equaliser_changes_all_frames_alike():
    mels = tone(500)
    moved = random_eq(mels) - mels
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-5)
    most = augmentation.LEVEL + 1.5 * augmentation.CHANNEL
    assert moved.abs().max() <= most


def test_noise_fills_silent_bands_and_keeps_loud_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(augmentation, "NOISY", 1.0)
    torch.manual_seed(1)
    mels = tone(500).expand(32, -1, -1)
    noisy = add_mel_noise(mels)
    assert (noisy >= mels - 1e-5).all()
    assert (noisy.amin((1, 2)) > mels.amin((1, 2)) + 0.2).all()
    assert (noisy.amax((1, 2)) - mels.amax((1, 2))).max() < 0.2


def test_the_same_bands_are_masked_in_all_frames():
    torch.manual_seed(2)
    mels = tone(500) + 0.1 * torch.rand(16, 100, 80)
    hidden = (frequency_mask(mels) != mels).all(1)  # (B, M)
    assert torch.equal(hidden, (frequency_mask(mels.clone()) != mels).all(1)) is False  # drawn anew
    assert hidden.sum(-1).max() <= augmentation.BAND
    assert hidden.any()


def test_a_share_of_the_utterances_is_augmented():
    torch.manual_seed(3)
    steps = tone(500, 0.96).unflatten(1, (-1, 4)).expand(200, -1, -1, -1)
    moved = (spec_augment(steps, 0.5) != steps).flatten(1).any(1).float().mean()
    assert 0.35 < moved < 0.65
    assert torch.equal(spec_augment(steps, 0.0), steps)
