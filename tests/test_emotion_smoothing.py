"""Smoothing of a recording's posterior: the hidden Markov model against an exhaustive sum, and its effect on tracks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.emotion.inference import predict_frames
from sedtalker.emotion.smoothing_cpu import smooth_evidence, smooth_logits
from sedtalker.errors import CheckpointError

CAUSAL = DiarizerConfig(feature_width=24, layers=3, width=16, hidden=12, kernel=3, causal=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("steps", "classes"), [(1, 3), (2, 2), (6, 3)])
def test_the_probabilities_are_sums_over_all_paths(steps, classes):
    evidence, change = np.random.default_rng(steps).random((steps, classes)), 0.2
    wanted = np.zeros((steps, classes))
    for path in product(range(classes), repeat=steps):
        changes = np.count_nonzero(np.diff(path))
        chance = (1 - change) ** (steps - 1 - changes) * (change / (classes - 1)) ** changes
        wanted[np.arange(steps), path] += chance * evidence[np.arange(steps), path].prod()
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(smooth_evidence(evidence, change), wanted, atol=1e-12)


def test_a_doubtful_step_follows_its_neighbours_and_a_piece_of_half_a_second_stays():
    """25 steps a second."""
    rng, path = np.random.default_rng(0), np.repeat([0, 1, 0], [50, 13, 50])
    logits = rng.normal(0, 1, (len(path), 8)).astype(np.float32)
    logits[np.arange(len(path)), path] += 2
    own, smoothed = softmax(logits), softmax(smooth_logits(logits))
    np.testing.assert_allclose(smoothed.sum(axis=1), 1, rtol=1e-5)
    assert (own.argmax(axis=1) == path).mean() < 0.9 < 0.97 < (smoothed.argmax(axis=1) == path).mean()
    assert (smoothed[50:63].argmax(axis=1) == 1).mean() > 0.8


def test_certain_steps_stay_nearly_as_they_are():
    """Also labels without training data, whose logits are far below the others."""
    logits = np.full((40, 8), -3.0, np.float32)
    logits[:20, 0], logits[20:, 3], logits[:, 4] = 3.0, 3.0, -30.0
    own, smoothed = softmax(logits), softmax(smooth_logits(logits))
    assert np.abs(smoothed - own).max() < 0.03
    assert smoothed[:, 4].max() < 1e-9


@pytest.mark.parametrize("length", [0, 1, 3])
def test_short_recordings(length):
    assert smooth_logits(np.zeros((length, 8), np.float32)).shape == (length, 8)


def test_whole_recordings_are_smoothed_and_streams_are_not():
    torch.manual_seed(0)
    plain = Diarizer(CAUSAL).eval()
    smoothing = Diarizer(replace(CAUSAL, smoothing=True)).eval()
    smoothing.load_state_dict(plain.state_dict())
    features = torch.randn(400, 3, 24)
    means = [predict_frames(each, features) for each in (plain, smoothing)]
    changes = [float((each.posterior.diff(dim=0).abs()).sum()) for each in means]
    assert changes[1] < 0.9 * changes[0]
    np.testing.assert_allclose(
        smoothing.compiled().predict([features.numpy()]).posterior, means[1].posterior, atol=2e-4
    )
    live = [each.stream().push(features).posterior for each in (plain, smoothing)]
    torch.testing.assert_close(*live)


def test_others_cannot_be_smoothed():
    with pytest.raises(CheckpointError, match="smoothing"):
        DiarizerConfig(smoothing=True)
