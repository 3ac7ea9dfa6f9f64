"""FLOPs of a training step against a count by hand."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")

from sedtalker.recipes.training_cost import SCAN_BACKWARD, SCAN_FORWARD, Cost, count_flops
from sedtalker.talker.model import TalkerConfig
from sedtalker.training.losses import Target
from sedtalker.training.talker import TalkerModule, TalkerTraining
from sedtalker.training.windows import Example


def cost_of(layers: tuple[str, ...], frames: int) -> float:
    model = TalkerConfig(
        layers=1, feature_width=8, width=16, order=layers, heads=2, kv_heads=1, look_ahead=0, states=4,
        head="dense", vertices=5, coefficients=15, injection="added", dropout=0,
    )  # fmt: skip
    module = TalkerModule(TalkerTraining("store", "output", model=model))
    target = Target(torch.randn(2, frames, 15), torch.ones(2, frames, 15), None, torch.zeros(2, frames))
    features, posterior = torch.randn(2, frames, 1, 8), torch.full((2, frames, 8), 1 / 8)
    batch = Example(features, posterior, torch.ones(2, frames), torch.zeros(2, dtype=torch.long), target)
    return count_flops(module, batch)


def test_flops_of_a_mamba_layer_are_its_products_and_its_scan() -> None:
    frames = 40
    difference = cost_of(("mamba", "mamba"), frames) - cost_of(("mamba",), frames)
    inner, rank, states, conv = 32, 1, 4, 4
    weights = 16 * 2 * inner + inner * (rank + 2 * states) + rank * inner + inner * 16 + inner * conv
    tokens = 2 * 2 * frames  # two windows; the lips are computed by a second run
    products = 3 * 2 * weights * tokens  # forward and two gradients
    scan = (SCAN_FORWARD + SCAN_BACKWARD) * inner * states * tokens
    assert difference == pytest.approx(products + scan, rel=0.25)  # gradients that nobody needs are left out


def test_the_estimate_is_the_slowest_of_compute_launches_and_loader() -> None:
    cost = Cost(1, windows=4, loader=10.0, seconds=1.0, flops=20e12, launches=1000)
    assert cost.estimate(1000, peak=100e12, utilisation=0.5, workers=4) == pytest.approx(400)  # s, by the FLOPs
    assert cost.estimate(1000, peak=1e18, utilisation=0.5, workers=4) == pytest.approx(100)  # by the loader
    assert cost.estimate(1000, peak=1e18, utilisation=0.5, workers=400) == pytest.approx(10)  # by the launches
