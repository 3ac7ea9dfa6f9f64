"""Recordings whose emotion changes at known times: one speaker's clips cut to their speech, levelled and joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.corpora.manifest import Manifest, Utterance
from sedtalker.emotion.activity import trimmed
from sedtalker.emotion.track import Segment

Samples = NDArray[np.float32]

EDGE = 0.05  # s kept around the speech
FADE = 0.01  # s, so that a joint does not click
LEVEL = -26.0  # dB of full scale, root mean square of every piece
PATTERNS = ("NE", "EN", "NEN", "EE")  # of Wang et al. (2023), drawn alike; N neutral, E another emotion


@dataclass(frozen=True)
class Recipe:
    """Which clips follow each other; the middle one of three may be cropped."""

    clips: tuple[Utterance, ...]
    crop: float | None = None  # s


def draw_recipes(utterances: Sequence[Utterance], per_speaker: int, seed: int = 0) -> list[Recipe]:
    """Recipes for every speaker who has neutral clips and others."""
    by_speaker: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for item in utterances:
        by_speaker[item.speaker][item.emotion].append(item)
    recipes = []
    for number, (_, clips) in enumerate(sorted(by_speaker.items())):
        rng = np.random.default_rng([seed, number])
        emotions = sorted(set(clips) - {"neutral"})
        if "neutral" in clips and len(emotions) > 1:
            recipes += [Recipe(_drawn(rng, clips, emotions)) for _ in range(per_speaker)]
    return recipes


def insertions(recipes: Sequence[Recipe], lengths: Sequence[float], seed: int = 0) -> list[Recipe]:
    """The recipes of three clips, each once for every length of the inserted part in seconds."""
    return [replace(recipe, crop=length) for recipe in recipes if len(recipe.clips) == 3 for length in lengths]


def _drawn(rng: np.random.Generator, clips: dict[str, list[Utterance]], emotions: list[str]) -> tuple[Utterance, ...]:
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    first, second = rng.permutation(len(emotions))[:2]
    named = iter((emotions[first], emotions[second]))
    kinds = ["neutral" if kind == "N" else next(named) for kind in pattern]
    return tuple(clips[kind][rng.integers(len(clips[kind]))] for kind in kinds)


def render(manifest: Manifest, recipe: Recipe) -> tuple[Samples, list[Segment]]:
    """Samples (N,) of a recipe, and its true segments."""
    pieces = []
    for number, item in enumerate(recipe.clips):
        piece = trimmed(load_audio(manifest.audio(item)), EDGE)
        if recipe.crop is not None and number == 1:
            middle, half = len(piece) // 2, int(recipe.crop * SAMPLE_RATE / 2)
            piece = piece[max(0, middle - half) : middle + half]
        pieces.append(faded(levelled(piece)))
    ends = np.cumsum([len(piece) for piece in pieces]) / SAMPLE_RATE
    starts = [0.0, *ends[:-1]]
    segments = [
        Segment(float(start), float(end), item.emotion, item.intensity if item.intensity is not None else 1.0)
        for start, end, item in zip(starts, ends, recipe.clips, strict=True)
    ]
    return np.concatenate(pieces), segments


def rendered(manifest: Manifest, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Samples, list[Segment]]]:
    """Each recipe with its samples and segments."""
    for recipe in recipes:
        yield recipe, *render(manifest, recipe)


def levelled(samples: Samples) -> Samples:
    """The samples at `LEVEL`."""
    power = float(np.square(samples, dtype=np.float64).mean())
    return (samples * np.sqrt(10 ** (LEVEL / 10) / max(power, 1e-12))).astype(np.float32)


def faded(samples: Samples) -> Samples:
    """The samples with `FADE` seconds faded in and out."""
    ramp = np.linspace(0, 1, int(FADE * SAMPLE_RATE), dtype=np.float32)
    samples = samples.copy()
    samples[: len(ramp)] *= ramp
    samples[-len(ramp) :] *= ramp[::-1]
    return samples
