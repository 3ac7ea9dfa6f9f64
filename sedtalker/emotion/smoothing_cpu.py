"""Smoothing of a whole recording's posterior by a hidden Markov model whose emotion seldom changes.

A step of 40 ms alone says less than its neighbours together; a segment's emotion is found from both sides.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sedtalker.layers_cpu import Float, compiled

CHANGE_COST = 2.0  # nats, of a change between two steps; more finds short pieces less often
SHARE = 0.3  # of the smoothed posterior; it is more certain than right, so most is the step's own
SOFTENING = 1.2  # temperature of the step's own posterior, so that the sum is as certain as before
"""Chosen on validation speakers: clips, joined recordings and ordinary speech (assets/diarizer/default/ablation.md)."""


def smooth_logits(logits: Float) -> Float:
    """Logits (S, C) of a recording's steps -> those of the smoothed posterior, log-probabilities (S, C)."""
    if not len(logits):
        return logits
    own = logits - logits.max(axis=1, keepdims=True)
    smoothed = smooth_evidence(np.exp(own.astype(np.float64)), math.exp(-CHANGE_COST))
    softened = np.exp(own / SOFTENING)
    softened /= softened.sum(axis=1, keepdims=True)
    tiny = np.finfo(np.float32).tiny
    return np.log(np.maximum(SHARE * smoothed + (1 - SHARE) * softened, tiny)).astype(np.float32)


@compiled
def smooth_evidence(evidence: NDArray[np.float64], change: float) -> NDArray[np.float64]:
    """Probability (S, C) of each class at each step, given the evidence (S, C) of all steps (forward-backward).

    Args:
        evidence: likelihoods of the classes, scaled in any way in each step, one of them above 0.
        change: probability of a change between two steps, to any of the other classes alike.
    """
    steps, classes = evidence.shape
    other = change / max(1, classes - 1)
    stay = 1.0 - change - other  # `other` is added for all classes
    result = np.empty((steps, classes))
    before = np.full(classes, 1.0 / classes)
    for t in range(steps):
        total = 0.0
        for c in range(classes):
            before[c] = (before[c] if t == 0 else stay * before[c] + other) * evidence[t, c]
            total += before[c]
        for c in range(classes):
            before[c] /= total
            result[t, c] = before[c]
    after = np.ones(classes)
    for t in range(steps - 2, -1, -1):
        total = 0.0
        for c in range(classes):
            after[c] *= evidence[t + 1, c]
            total += after[c]
        for c in range(classes):
            after[c] = stay * after[c] / total + other
        total = 0.0
        for c in range(classes):
            result[t, c] *= after[c]
            total += result[t, c]
        for c in range(classes):
            result[t, c] /= total
    return result
