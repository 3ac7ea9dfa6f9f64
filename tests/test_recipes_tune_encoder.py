"""Interpolation between an encoder and the one it was tuned from."""

from __future__ import annotations

import pytest
import torch

from sedtalker.errors import DataError
from sedtalker.recipes.tune_encoder import interpolate_encoders
from sedtalker.speech import WhisperConfig, WhisperEncoder


def test_a_share_of_the_way_to_the_tuned_encoder() -> None:
    original, tuned = (WhisperEncoder(WhisperConfig(8, 8, 2, 16, 1)) for _ in range(2))
    between = interpolate_encoders(original, tuned, 0.25)
    before, after = original.state_dict(), tuned.state_dict()
    assert all(torch.allclose(between[name], 0.75 * before[name] + 0.25 * after[name], atol=1e-6) for name in before)
    with pytest.raises(DataError, match="encoders of different sizes"):
        interpolate_encoders(original, WhisperEncoder(WhisperConfig(8, 8, 2, 16, 2)), 0.5)
