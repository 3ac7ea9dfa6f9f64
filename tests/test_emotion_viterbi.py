"""Viterbi decoding: the best path under a minimum duration against an exhaustive search, and noisy posteriors."""

from __future__ import annotations

from itertools import groupby, pairwise, product

import numpy as np
import pytest

from sedtalker.emotion.viterbi import ViterbiConfig, decode_segments, viterbi
from sedtalker.labels import LABELS


def exhaustive(scores: np.ndarray, transition_penalty: float, minimum: int) -> float:
    """Score of the best path, tried one by one."""
    frames, classes = scores.shape
    best = -np.inf
    for path in product(range(classes), repeat=frames):
        runs = [len(list(run)) for _, run in groupby(path)]
        if min(runs) >= minimum:
            best = max(best, scores[np.arange(frames), path].sum() - transition_penalty * (len(runs) - 1))
    return best


@pytest.mark.parametrize(("frames", "classes", "minimum"), [(9, 2, 1), (9, 2, 3), (8, 3, 2), (7, 3, 4), (5, 3, 5)])
def test_viterbi_finds_the_best_path(frames, classes, minimum):
    for seed in range(8):
        scores = np.random.default_rng(seed).normal(size=(frames, classes))
        path = viterbi(scores, 0.7, minimum)
        runs = [len(list(run)) for _, run in groupby(path)]
        assert min(runs) >= minimum
        score = scores[np.arange(frames), path].sum() - 0.7 * (len(runs) - 1)
        assert score == pytest.approx(exhaustive(scores, 0.7, minimum))


def test_a_track_shorter_than_the_minimum_is_one_segment():
    assert viterbi(np.array([[0.0, 1.0], [2.0, 0.0]]), 0.0, 10).tolist() == [0, 0]


def posterior_of(path: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, noise, (len(path), len(LABELS)))
    logits[np.arange(len(path)), path] += 2
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def test_noisy_posteriors_give_few_segments_at_the_right_times():
    path = np.repeat([0, 1, 0, 3], [100, 75, 60, 90])
    posterior = posterior_of(path, noise=1.0)
    changes = np.count_nonzero(np.diff(posterior.argmax(axis=1)))
    segments = decode_segments(posterior, np.full(len(path), 0.5, np.float32), LABELS, 50.0, len(path) / 50)
    assert changes > 20
    assert [s.emotion for s in segments] == ["neutral", "happy", "neutral", "angry"]
    np.testing.assert_allclose([s.start for s in segments], [0, 2, 3.5, 4.7], atol=0.12)
    assert [s.intensity for s in segments] == [0, 0.5, 0, 0.5]


def test_segments_cover_the_track_without_gaps():
    posterior = posterior_of(np.random.default_rng(1).integers(0, 8, 400), noise=1.0)
    segments = decode_segments(posterior, np.full(400, 0.5, np.float32), LABELS, 50.0, 7.99)
    assert segments[0].start == 0
    assert segments[-1].end == 7.99
    assert all(a.end == b.start for a, b in pairwise(segments))


def test_no_segment_is_shorter_than_the_minimum():
    posterior = posterior_of(np.repeat(np.random.default_rng(2).integers(0, 8, 100), 7), noise=0.1)
    segments = decode_segments(
        posterior, np.full(700, 0.5, np.float32), LABELS, 50.0, 14.0, ViterbiConfig(0.4, 0.1, 1.0)
    )
    assert min(s.duration for s in segments) >= 0.4 - 1e-9
    assert len(segments) > 5
