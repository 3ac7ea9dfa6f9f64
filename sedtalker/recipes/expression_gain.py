"""Measure what generated expressions add to a recogniser: `python -m sedtalker.recipes expression_gain RAVDESS`.

The recogniser is a logistic regression on statistics (mean, deviation, 90th percentile) of the action units of a clip,
trained on measured sequences of RAVDESS' actors and tested on the actor that was left out, with and without generated
sequences (`sedtalker.synthesis.expression_clips`). The long tail keeps one real clip in ten of fear, disgust and
surprise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError
from sedtalker.evaluation.bootstrap import Figure, mean_interval, show
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.action_units import ACTION_UNITS
from sedtalker.face.association import UNITS, fit_logistic
from sedtalker.recipes.fit_association import read_sequences
from sedtalker.synthesis.expression_clips import ClipOptions, draw_expression

Float = NDArray[np.float64]

RARE = ("fear", "disgust", "surprise")
KEPT = 0.1  # share of the rare emotions' real clips in the long tail
RIDGE = 0.01
FULL = 3.0  # OpenFace's intensity of a unit that the generator calls 1


def pool_units(units: Float) -> Float:
    """Mean, deviation and 90th percentile (3 U,) of a sequence (T, U)."""
    return np.concatenate([units.mean(0), units.std(0), np.percentile(units, 90, axis=0)])


def generate(count: int, emotions: Sequence[str], seed: int) -> tuple[Float, list[str]]:
    """Pooled units (N, 3 U) of generated sequences in OpenFace's units and scale, and their emotions."""
    options = ClipOptions(seconds=3.6, emotions=tuple(emotions))
    order, rows, labels = list(ACTION_UNITS), [], []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        one = draw_expression(rng, options)
        units = np.zeros((len(one.units), len(UNITS)))
        for column, unit in enumerate(UNITS):
            if unit in order:
                units[:, column] = FULL * one.units[:, order.index(unit)]
        units += rng.normal(0, 0.15, len(UNITS))  # differences between actors' neutral faces
        rows.append(pool_units(units))
        labels.append(one.emotion)
    return np.array(rows), labels


def compare(
    x: Float, emotions: NDArray[np.str_], actors: NDArray[np.str_], count: int, long_tail: bool, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each clip (N,) is recognised without and with `count` generated clips, its actor unseen."""
    labels = np.unique(emotions)
    made, made_labels = generate(count, [str(label) for label in labels if label != "neutral"], seed)
    rng = np.random.default_rng(seed)
    right = np.zeros((2, len(x)), bool)
    for actor in np.unique(actors):
        test = actors == actor
        chosen = np.flatnonzero(~test)
        if long_tail:
            chosen = chosen[~np.isin(emotions[chosen], RARE) | (rng.random(len(chosen)) < KEPT)]
        mean, deviation = x[chosen].mean(0), x[chosen].std(0) + 1e-3
        for with_made in (0, 1):
            rows = np.vstack([x[chosen], made]) if with_made else x[chosen]
            names = np.concatenate([emotions[chosen], made_labels]) if with_made else emotions[chosen]
            # generated clips together weigh half of the real ones
            weight = np.ones(len(rows))
            weight[len(chosen) :] = 0.5 * len(chosen) / max(count, 1)
            weights, bias = fit_logistic((rows - mean) / deviation, (names[:, None] == labels) * 1.0, RIDGE, weight)
            scores = (x[test] - mean) / deviation @ weights + bias
            right[with_made, test] = labels[scores.argmax(1)] == emotions[test]
    return right[0], right[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ravdess", type=Path, help="folder of RAVDESS with OpenFace's action units by frame")
    parser.add_argument("--clips", type=int, default=600, help="generated sequences (default: 600)")


def run(arguments: argparse.Namespace) -> None:
    sequences = read_sequences(arguments.ravdess)
    if not sequences:
        raise DataError(f"no sequences of action units: {arguments.ravdess}. Put OpenFace's *.npz there")
    x = np.array([pool_units(one.units) for one in sequences])
    emotions, actors = np.array([one.emotion for one in sequences]), np.array([one.actor for one in sequences])
    rows = [["training", "emotion", "real", "real and generated", "gain"]]
    for long_tail in (False, True):
        before, after = compare(x, emotions, actors, arguments.clips, long_tail)
        name = f"long tail, {KEPT:.0%} of {', '.join(RARE)}" if long_tail else "all real clips"
        for emotion in (*np.unique(emotions), "all"):
            chosen = np.ones(len(x), bool) if emotion == "all" else emotions == emotion
            rows.append([name, str(emotion), *map(show, _figures(before[chosen], after[chosen]))])
    print(f"{len(x)} real clips of {len(np.unique(actors))} actors, {arguments.clips} generated ones")
    print(markdown_table(rows))


def _figures(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> list[Figure]:
    """Recall without and with generated clips, and their difference, with intervals over the clips."""
    groups = [str(k) for k in range(len(before))]
    values = (before * 1.0, after * 1.0, after * 1.0 - before)
    return [mean_interval(list(one), groups) for one in values]
