"""The talker: shapes, exact neutrality, dose and continuity, styles, heads, checkpoints."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sedtalker.checkpoint import config_from_plain
from sedtalker.errors import CheckpointError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import LABELS
from sedtalker.talker.model import (
    INJECTIONS,
    MEAN_STYLE,
    TalkerConfig,
    TalkerModel,
    clamp_with_gradient,
    load_talker_model,
    save_talker_model,
)

SMALL = TalkerConfig(
    layers=3, feature_width=24, width=32, expert_hidden=32, heads=2, kv_heads=1, window=10, styles=4, dropout=0.0
)
HAPPY = LABELS.index("happy")


def awake(config: TalkerConfig = SMALL, seed: int = 0, std: float = 0.3) -> TalkerModel:
    """A model whose outputs do not start at zero, as after training."""
    torch.manual_seed(seed)
    model = TalkerModel(config)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=std)
    return model.eval()


def speech(frames: int = 60, batch: int = 2, seed: int = 0, config: TalkerConfig = SMALL) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(batch, frames, config.layers, config.feature_width)


def emotion(label: int, frames: int = 60, batch: int = 2) -> Tensor:
    posterior = torch.zeros(batch, frames, len(LABELS))
    posterior[..., label] = 1
    return posterior


def test_the_face_is_at_rest_before_training() -> None:
    model = TalkerModel(SMALL).eval()
    weights = model(speech(), emotion(HAPPY), torch.ones(2, 60))
    assert weights.shape == (2, 60, len(ARKIT_NAMES))
    assert not weights.any()


@pytest.mark.parametrize("injection", INJECTIONS)
def test_intensity_zero_is_exactly_neutral_for_any_posterior(injection: str) -> None:
    model = awake(replace(SMALL, injection=injection))
    still = [model(speech(), emotion(label), torch.zeros(2, 60)) for label in range(len(LABELS))]
    moved = model(speech(), emotion(HAPPY), torch.ones(2, 60))
    assert all(torch.equal(other, still[0]) for other in still)
    assert not torch.allclose(moved, still[0], atol=1e-2)


def test_more_intensity_moves_more() -> None:
    model = awake()
    steps = torch.linspace(0, 1, 6)
    poses = torch.stack([model(speech(), emotion(HAPPY), torch.full((2, 60), float(i))) for i in steps])
    distance = (poses - poses[0]).abs().mean((1, 2, 3))
    assert (distance.diff() > 0).all()


def test_between_two_emotions_the_face_moves_continuously() -> None:
    model = awake(std=0.1)
    share = torch.linspace(0, 1, 101)[:, None, None]
    posterior = (1 - share) * emotion(HAPPY, 1, 1) + share * emotion(LABELS.index("angry"), 1, 1)
    ways = model(speech(1, 1).expand(101, -1, -1, -1), posterior, torch.ones(101, 1))
    assert ways.diff(dim=0).abs().max() < 0.05 * (ways[0] - ways[-1]).abs().max()


def test_a_track_that_jumps_moves_the_face_over_several_frames_and_then_leaves_it_neutral() -> None:
    model = awake(std=0.1)
    frames, change = 160, 60
    intensity = torch.zeros(1, frames)
    intensity[:, change : change + 20] = 1
    moved = model.motion(speech(frames, 1), emotion(HAPPY, frames, 1), intensity)
    distance = (moved.coefficients - moved.lips).abs().sum(-1)[0]
    steps = distance.diff().abs()
    assert steps.max() < 0.4 * distance.max()
    first, last = distance.nonzero().flatten()[[0, -1]].tolist()
    assert change - SMALL.look_ahead <= first <= change
    assert last < change + 20 + SMALL.emotion_kernel_frames


def test_the_emotion_does_not_change_the_lip_path() -> None:
    model = awake()
    calm = model.motion(speech(), emotion(HAPPY), torch.zeros(2, 60))
    wild = model.motion(speech(), emotion(HAPPY), torch.ones(2, 60))
    torch.testing.assert_close(wild.lips, calm.lips, rtol=0, atol=1e-6)
    assert torch.equal(calm.coefficients, calm.lips)


def test_the_residual_is_damped_in_the_lower_face_alone_while_speaking() -> None:
    model = awake()
    assert model.residual is not None
    nn.init.zeros_(model.residual.gain.weight)  # the same motion for all speech
    hidden, emotion_offset = (
        torch.randn(1, 1, SMALL.width),
        torch.randn(1, SMALL.emotion_kernel_frames, SMALL.emotion_width),
    )
    nn.init.zeros_(model.residual.speaking.weight)
    nn.init.constant_(model.residual.speaking.bias, -20.0)
    silent = model.residual(hidden, emotion_offset)[0, 0]
    nn.init.constant_(model.residual.speaking.bias, 20.0)
    speaking = model.residual(hidden, emotion_offset)[0, 0]
    jaw, brow = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("browInnerUp")
    assert abs(speaking[jaw]) < 0.95 * abs(silent[jaw])
    assert speaking[brow].item() == pytest.approx(silent[brow].item(), abs=1e-6)


def test_a_speaker_without_a_style_gets_the_mean_of_all() -> None:
    model = awake()
    arguments = speech(), emotion(HAPPY), torch.ones(2, 60)
    unseen = model(*arguments)
    torch.testing.assert_close(model(*arguments, torch.full((2,), MEAN_STYLE)), unseen, rtol=0, atol=1e-6)
    own = model(*arguments, torch.tensor([0, 3]))
    assert not torch.allclose(own, unseen, atol=1e-3)
    with torch.no_grad():
        model.styles.weight.copy_(model.styles.weight.mean(0, keepdim=True).expand(4, -1))
    torch.testing.assert_close(model(*arguments, torch.tensor([0, 3])), unseen)


def test_an_output_waits_for_its_look_ahead_and_no_longer() -> None:
    model = awake()
    features = speech()
    before = model(features, emotion(HAPPY), torch.ones(2, 60))
    features[:, 30] += 1
    moved = (model(features, emotion(HAPPY), torch.ones(2, 60)) - before).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten()[0] == 30 - SMALL.look_ahead


@pytest.mark.parametrize("frames", [1, 2, SMALL.look_ahead])
def test_the_shortest_clips(frames: int) -> None:
    weights = awake()(speech(frames), emotion(HAPPY, frames), torch.ones(2, frames))
    assert weights.shape == (2, frames, len(ARKIT_NAMES))
    assert ((weights >= 0) & (weights <= 1)).all()


@pytest.mark.parametrize(("head", "coefficients"), [("basis", 6), ("pca", 6), ("dense", 3 * 11)])
def test_vertex_heads_start_at_rest_and_give_any_topology(head: str, coefficients: int) -> None:
    model = TalkerModel(replace(SMALL, head=head, coefficients=coefficients, vertices=11)).eval()
    moved = model.displacements(model(speech(), emotion(HAPPY), torch.ones(2, 60))[0])
    assert moved.shape == (60, 11, 3)
    assert not moved.any()


def test_the_clamp_passes_gradients_that_lead_back() -> None:
    x = torch.tensor([-0.5, 0.5, 1.5, -0.5, 1.5], requires_grad=True)
    wanted = torch.tensor([1.0, 1.0, 0.0, -1.0, 2.0])  # the last two would only push further out
    (clamp_with_gradient(x) - wanted).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"injection": "sprayed"}, "injection"),
        ({"head": "none"}, "head"),
        ({"order": ("mamba", "rnn")}, "order"),
        ({"heads": 3}, "multiple"),
        ({"head": "pca"}, "vertices"),
        ({"head": "dense", "vertices": 4}, "dense"),
    ],
)
def test_invalid_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        replace(SMALL, **change)


def test_a_saved_talker_is_loaded(tmp_path: Path) -> None:
    model = awake()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    save_talker_model(model, tmp_path / "talker")
    again = load_talker_model(tmp_path / "talker")
    assert again.config == SMALL
    arguments = speech(), emotion(HAPPY), torch.ones(2, 60)
    torch.testing.assert_close(again(*arguments), model(*arguments), rtol=0, atol=1e-6)


def test_unknown_settings_of_a_checkpoint_are_named() -> None:
    with pytest.raises(CheckpointError, match="colour"):
        config_from_plain(TalkerConfig, {"colour": "blue"}, "talker")


def test_the_import_needs_neither_training_nor_hub_packages() -> None:
    code = (
        "import sys, sedtalker.talker.model; "
        "print(sorted({'lightning', 'transformers', 'numba', 'scipy'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
