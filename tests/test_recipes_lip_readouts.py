"""Readouts of the talker's stack that are fitted with margins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sedtalker.errors import DataError
from sedtalker.face.arkit import MOUTH_PUCKER, STRETCH_LEFT, TONGUE_OUT
from sedtalker.face.mouth_measures import default_measures
from sedtalker.phones import Phone
from sedtalker.recipes.__main__ import main
from sedtalker.recipes.lip_readouts import SpokenFrames, read_frames, refit_readouts
from sedtalker.talker.model import TalkerConfig, TalkerModel, save_talker_model

CONFIG = TalkerConfig(
    width=16, order=("mamba",), heads=2, kv_heads=1, feature_width=8, layers=2, injection="rules", look_ahead=0,
    opening_width=4,
)  # fmt: skip
NAMES = ("AA", "TH", "L", "F", "SH", "UW", "M")


def make_frames() -> tuple[SpokenFrames, list[str]]:
    """Phones of 0.2 s, each with its own output of the stack and noise; the phone of each frame."""
    rng = np.random.default_rng(0)
    order = [NAMES[i] for i in rng.integers(len(NAMES), size=150)]
    phones = [Phone("", name, 0.2 * i, 0.2 * (i + 1)) for i, name in enumerate(order)]
    named = [name for name in order for _ in range(10)]
    hidden = torch.from_numpy(rng.normal(0, 0.1, (len(named), 16)).astype(np.float32))
    hidden[torch.arange(len(named)), torch.tensor([NAMES.index(name) for name in named])] += 1
    return SpokenFrames(hidden, torch.arange(len(named)) % 3, [(slice(0, len(named)), phones)]), named


def make_model() -> TalkerModel:
    torch.manual_seed(0)
    model = TalkerModel(CONFIG).requires_grad_(False).eval()
    model.lips.weight.normal_(0, 0.05)
    model.lips.bias.fill_(0.1)
    assert model.opening_share is not None
    model.opening_share.weight.normal_(0, 0.5)
    return model


def test_rare_shapes_are_shown_at_their_phones_and_the_width_is_kept() -> None:
    model, (frames, named) = make_model(), make_frames()
    assert model.expression is not None
    before, share = model.lips(frames.hidden), share_of(model, frames.hidden)
    refit_readouts(model, frames)
    after = model.lips(frames.hidden)

    def mean(values: Tensor, *names: str) -> float:
        return float(values[[name in names for name in named]].mean())

    tongue = after[:, TONGUE_OUT]
    assert mean(tongue, "TH") > 0.55 > 0.45 > mean(tongue, "L") > 0.3 > 0.15 > mean(tongue, "AA", "F", "SH", "UW", "M")
    added = after[:, MOUTH_PUCKER] - before[:, MOUTH_PUCKER]
    assert mean(added, "UW") > mean(added, "SH") > 0.1 > mean(added, "AA", "TH", "L", "F", "M")
    width = torch.from_numpy(default_measures().matrix[:, 1].copy())
    width[TONGUE_OUT] = 0  # it is not compensated
    torch.testing.assert_close((after - before) @ width, torch.zeros(len(named)), atol=1e-4, rtol=0)
    assert (after[:, STRETCH_LEFT] - before[:, STRETCH_LEFT]).max() > 0.1
    torch.testing.assert_close(share_of(model, frames.hidden), share, atol=0.1, rtol=0)


def share_of(model: TalkerModel, hidden: Tensor) -> Tensor:
    return model.share_of_gap(model.lips(hidden).clamp(0, 1), hidden)


def test_middles_and_margins_of_phones() -> None:
    phones = [Phone("", "AA", 0.0, 0.2), Phone("", "TH", 0.2, 0.21), Phone("", "F", 0.21, 0.4)]
    frames = SpokenFrames(
        torch.zeros(30, 1), torch.zeros(30, dtype=torch.int64), [(slice(0, 10), []), (slice(10, 30), phones)]
    )
    found = frames.find({"TH", "F"}, margin=0.05, part=0.5).tolist()
    assert found == [0] * 18 + [-1, 1, 1, -1, -1, 1, 1, 1, 1, 1, -1, -1]


def test_the_stack_alone_is_read() -> None:
    model = make_model()
    features, emotion = torch.randn(1, 30, 2, 8), torch.eye(8)[:1].expand(1, 30, 8)
    hidden = model.read_stack(features)
    share = model.motion(features, emotion, torch.zeros(1, 30)).share
    assert share is not None
    torch.testing.assert_close(share_of(model, hidden), share, atol=1e-4, rtol=1e-4)


def test_errors_name_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = TalkerConfig(width=16, order=("mamba",), heads=2, kv_heads=1, feature_width=8, layers=2)
    save_talker_model(TalkerModel(sizes), tmp_path / "plain")
    assert main(["lip_readouts", str(tmp_path), str(tmp_path / "plain"), "-o", str(tmp_path / "out")]) == 1
    assert "no network of the lip gap" in capsys.readouterr().err
    (tmp_path / "phones.tsv").write_text("id\tword\tphone\tstart\tend\n")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError):
        read_frames(tmp_path, make_model())
    assert not (tmp_path / "out").exists()
