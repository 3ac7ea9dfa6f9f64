"""Weight averaging of talkers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sedtalker.errors import DataError
from sedtalker.recipes.average_weights import average_talkers
from sedtalker.talker.model import TalkerConfig, TalkerModel, load_talker_model, save_talker_model


def test_weights_are_averaged_by_their_shares(tmp_path: Path) -> None:
    sizes = TalkerConfig(width=16, order=("mamba",), heads=2, kv_heads=1, feature_width=8, layers=2)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        save_talker_model(TalkerModel(sizes), folder)
    average_talkers(folders, [0.25, 0.75], tmp_path / "c")
    a, b, c = (load_talker_model(tmp_path / name).project.weight for name in "abc")
    torch.testing.assert_close(c, 0.25 * a + 0.75 * b, atol=1e-3, rtol=1e-3)  # stored as float16
    with pytest.raises(DataError, match=r"shares \[0\.5\] of 2 talkers"):
        average_talkers(folders, [0.5], tmp_path / "d")
    save_talker_model(TalkerModel(replace(sizes, width=32)), tmp_path / "b")
    with pytest.raises(DataError, match="different sizes"):
        average_talkers(folders, [0.5, 0.5], tmp_path / "d")
    assert not (tmp_path / "d").exists()
