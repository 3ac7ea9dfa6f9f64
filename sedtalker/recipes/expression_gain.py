"""Measure what generated expressions add to a recogniser: `python -m sedtalker.recipes expression_gain RAVDESS`.

The recogniser is a logistic regression on statistics (mean, deviation, 90th percentile) of the action units of a clip,
trained on measured sequences of RAVDESS' actors and tested on the actor that was left out, with and without generated
sequences of two kinds:

    table    the clips of `sedtalker data expressions`, whose patterns come from one table
    matched  patterns of the measured clips of all actors but the tested one (`action_units/per_clip.csv`, from which
             the association is fitted), two of one emotion mixed, that rise and fall on a neutral sequence of a
             training actor and are measured as OpenFace's dynamic models do (`RESET`)

The long tail keeps one real clip in ten of fear, disgust and surprise. The penalty and the weight of the generated
clips are chosen from `RIDGES` and `SHARES` by leaving out one training actor at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError
from sedtalker.evaluation.bootstrap import Figure, mean_interval, show
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.action_units import ACTION_UNITS
from sedtalker.face.association import UNITS, fit_logistic
from sedtalker.recipes.fit_association import read_clips, read_sequences
from sedtalker.synthesis.expression_clips import ClipOptions, draw_expression

Float = NDArray[np.float64]

RARE = ("fear", "disgust", "surprise")
KEPT = 0.1  # share of the rare emotions' real clips in the long tail
RIDGES = (0.01, 0.1)
SHARES = (0.5, 2.0)  # weight of all generated clips, the real ones having 1
FULL = 3.0  # OpenFace's intensity of a unit that the generator calls 1
RESET = (1, 2, 5, 9, 15, 17, 20, 23, 25, 26, 45)
"""Units that OpenFace's dynamic models measure relative to a low percentile of the clip."""
RESET_PERCENTILE = 10

Generate = Callable[[str, NDArray[np.int64], int], tuple[Float, NDArray[np.str_]]]
"""(left-out actor, rows of the training clips, seed) -> pooled units (N, 3 U) of generated clips and their emotions."""


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


@dataclass(frozen=True)
class MatchedGenerator:
    """Generated sequences whose patterns have the distribution of the measured ones."""

    sequences: Sequence[Float]  # measured units (T, U) of each clip
    emotions: NDArray[np.str_]  # of the sequences
    patterns: Float  # (M, U) measured means over clips, minus the actor's neutral face
    pattern_emotions: NDArray[np.str_]
    pattern_actors: NDArray[np.str_]
    count: int

    def __call__(self, left_out: str, rows: NDArray[np.int64], seed: int) -> tuple[Float, NDArray[np.str_]]:
        rng = np.random.default_rng(seed)
        carriers = [self.sequences[row] for row in rows if self.emotions[row] == "neutral"]
        labels = np.unique(self.pattern_emotions)
        pooled, names = [], []
        for number in range(self.count):
            label = str(labels[number % len(labels)])
            known = self.patterns[(self.pattern_emotions == label) & (self.pattern_actors != left_out)]
            first, second = known[rng.integers(len(known), size=2)]
            share = rng.random()
            carrier = carriers[int(rng.integers(len(carriers)))]
            pooled.append(pool_units(_place(share * first + (1 - share) * second, carrier, rng)))
            names.append(label)
        return np.array(pooled), np.array(names)


def _place(pattern: Float, carrier: Float, rng: np.random.Generator, fps: float = 30.0) -> Float:
    """A neutral sequence (T, U) on which a pattern (U,) rises and falls around the speech."""
    time = np.arange(len(carrier)) / fps
    start, end = rng.uniform(0.3, 1.1, 2)
    rise, fall = rng.uniform(0.2, 0.6, 2)
    held = rng.uniform(0, 0.6)  # share that is shown throughout
    ramp = np.clip(np.minimum((time - start + rise) / rise, (time[-1] - time - end + fall) / fall), 0, 1)
    course = held + (1 - held) * ramp * ramp * (3 - 2 * ramp)
    shown: Float = carrier + pattern * course[:, None] / course.mean()
    for column in [UNITS.index(unit) for unit in RESET]:
        before, after = (np.percentile(values[:, column], RESET_PERCENTILE) for values in (carrier, shown))
        shown[:, column] += before - after
    return shown


def compare(
    x: Float,
    emotions: NDArray[np.str_],
    actors: NDArray[np.str_],
    generators: Mapping[str, Generate],
    long_tail: bool,
    seed: int = 0,
) -> dict[str, NDArray[np.bool_]]:
    """Whether each clip (N,) is recognised, its actor unseen: with real clips, and with each kind of generated ones."""
    rng = np.random.default_rng(seed)
    right = {name: np.zeros(len(x), bool) for name in ("real", *generators)}
    for fold, actor in enumerate(np.unique(actors)):
        test, rows = np.flatnonzero(actors == actor), np.flatnonzero(actors != actor)
        if long_tail:
            rows = rows[~np.isin(emotions[rows], RARE) | (rng.random(len(rows)) < KEPT)]
        inner = [
            (rows[actors[rows] != other], rows[actors[rows] == other], str(other)) for other in np.unique(actors[rows])
        ]

        def score(ridge: float, share: float, made: Sequence[tuple[Float, NDArray[np.str_]]], inner=inner) -> float:  # type: ignore[no-untyped-def]
            """Mean over the emotions of the inner recall."""
            read = [_recognise(x, emotions, k, t, ridge, share, m) for (k, t, _), m in zip(inner, made, strict=True)]
            answers, truth = np.concatenate(read), np.concatenate([emotions[t] for _, t, _ in inner])
            return float(np.mean([(answers[truth == label] == label).mean() for label in np.unique(truth)]))

        none = (np.zeros((0, x.shape[1])), np.zeros(0, emotions.dtype))
        ridge = max(RIDGES, key=lambda value: score(value, 0.0, [none] * len(inner)))
        right["real"][test] = _recognise(x, emotions, rows, test, ridge, 0.0, none) == emotions[test]
        for name, generate_clips in generators.items():
            made = [generate_clips(other, kept, seed + fold) for kept, _, other in inner]
            share = max(SHARES, key=lambda value: score(ridge, value, made))
            answers = _recognise(x, emotions, rows, test, ridge, share, generate_clips(str(actor), rows, seed + fold))
            right[name][test] = answers == emotions[test]
    return right


def _recognise(
    x: Float,
    emotions: NDArray[np.str_],
    rows: NDArray[np.int64],
    test: NDArray[np.int64],
    ridge: float,
    share: float,
    made: tuple[Float, NDArray[np.str_]],
) -> NDArray[np.str_]:
    """Emotions read in the clips `test` by a regression on the clips `rows` and generated ones of weight `share`."""
    labels = np.unique(emotions)
    mean, deviation = x[rows].mean(0), x[rows].std(0) + 1e-3
    values = (np.vstack([x[rows], made[0]]) - mean) / deviation
    names = np.concatenate([emotions[rows], made[1]])
    weight = np.ones(len(names))
    weight[len(rows) :] = share * len(rows) / max(len(made[1]), 1)
    weights, bias = fit_logistic(values, (names[:, None] == labels) * 1.0, ridge, weight)
    scores = (x[test] - mean) / deviation @ weights + bias
    read: NDArray[np.str_] = labels[scores.argmax(1)]
    return read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ravdess", type=Path, help="folder of RAVDESS with OpenFace's action units by frame and by clip"
    )
    parser.add_argument("--clips", type=int, default=350, help="generated sequences of each kind (default: 350)")


def run(arguments: argparse.Namespace) -> None:
    sequences = read_sequences(arguments.ravdess)
    if not sequences:
        raise DataError(f"no sequences of action units: {arguments.ravdess}. Put OpenFace's *.npz there")
    measured = read_clips(arguments.ravdess)
    x = np.array([pool_units(one.units) for one in sequences])
    emotions, actors = np.array([one.emotion for one in sequences]), np.array([one.actor for one in sequences])
    shown = [str(label) for label in np.unique(emotions) if label != "neutral"]

    def from_table(_: str, __: NDArray[np.int64], seed: int) -> tuple[Float, NDArray[np.str_]]:
        pooled, names = generate(arguments.clips, shown, seed)
        return pooled, np.array(names)

    patterns, names = np.array(measured.emotions), np.array(measured.actors)
    units = [one.units for one in sequences]
    matched = MatchedGenerator(units, emotions, measured.units, patterns, names, arguments.clips)
    rows = [["training", "emotion", "real", "with table", "gain", "with matched", "gain"]]
    for long_tail in (False, True):
        right = compare(x, emotions, actors, {"table": from_table, "matched": matched}, long_tail)
        title = f"long tail, {KEPT:.0%} of {', '.join(RARE)}" if long_tail else "all real clips"
        for emotion in (*np.unique(emotions), "all"):
            chosen = np.ones(len(x), bool) if emotion == "all" else emotions == emotion
            rows.append([title, str(emotion), *map(show, _figures({k: v[chosen] for k, v in right.items()}))])
    print(f"{len(x)} real clips of {len(np.unique(actors))} actors, {arguments.clips} generated ones of each kind")
    print(markdown_table(rows))


def _figures(right: Mapping[str, NDArray[np.bool_]]) -> list[Figure]:
    """Recall with real clips; then recall with each kind of generated ones and its gain. Intervals are over clips."""
    real = right["real"] * 1.0
    values = [real]
    for name in right:
        if name != "real":
            values += [right[name] * 1.0, right[name] * 1.0 - real]
    groups = [str(k) for k in range(len(real))]
    return [mean_interval(list(one), groups) for one in values]
