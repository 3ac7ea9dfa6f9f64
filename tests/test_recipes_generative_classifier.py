"""The comparison of generative and discriminative classifiers, on made features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sedtalker.labels import LABELS
from sedtalker.recipes.generative_classifier import (
    SYSTEMS,
    Denoiser,
    attack,
    format_table,
    pool_speech,
    summarise,
    train,
)


def _clusters(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, 8) around a centre of each of three emotions."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 3
    centres = 2.0 * torch.randn(3, 8, generator=generator)
    return centres[y] + 0.3 * torch.randn(count, 8, generator=generator), y


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_classifier_learns_and_an_attack_lowers_its_scores(system: str) -> None:
    x, y = _clusters(90)
    model = train(system, x, y, steps=600 if system == "discriminative" else 150)
    with torch.no_grad():
        assert (model.scores(x).argmax(1) == y).float().mean() > 0.9
    changed = attack(model, x[:12], y[:12], 0.5)
    assert (changed - x[:12]).abs().max() <= 0.5 + 1e-5
    with torch.no_grad():
        rows = torch.arange(12)
        lowered = [torch.log_softmax(model.scores(v), 1)[rows, y[:12]].mean() for v in (changed, x[:12])]
    assert lowered[0] < lowered[1]


def test_denoiser_scores_are_the_same_each_time() -> None:
    model, x = Denoiser(8).eval(), _clusters(6)[0]
    with torch.no_grad():
        assert model.scores(x).shape == (6, len(LABELS))
        torch.testing.assert_close(model.scores(x), torch.cat([model.scores(part) for part in x.split(2)]))


def test_table_has_figures_and_differences() -> None:
    rng = np.random.default_rng(0)
    right = {system: {"clean": rng.integers(0, 2, 40).astype(float)} for system in SYSTEMS}
    right["plain"]["clean"] = right["discriminative"]["clean"].copy()
    table = summarise(right, np.array(["a", "b", "c", "d"] * 10))
    assert table["clean"]["plain, difference"]["value"] == 0
    assert format_table(table).count("|") > 10


def test_pooled_features_ignore_silence() -> None:
    samples = np.zeros(32_000, np.float32)
    samples[8000:16_000] = 0.3 * np.sin(np.arange(8000))
    states = np.zeros((100, 2, 3), np.float32)
    states[25:50] = 1.0
    pooled = pool_speech(states, samples)
    assert pooled.shape == (12,) and pooled[:6].min() > 0.9
