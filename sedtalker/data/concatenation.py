"""Recordings whose emotion changes at known times: clips of one speaker, trimmed, normalised in level and joined.

`python -m sedtalker.recipes concatenate MANIFEST -o DIR --per-speaker 12` writes such recordings of every speaker, and
`DIR/manifest.json` with the corpora's own recordings and these.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, load_audio, write_wav
from sedtalker.data.manifest import Manifest, Span, Utterance
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.vad import trim_silence

Samples = NDArray[np.float32]

EDGE = 0.05  # s of silence kept around the speech
FADE = 0.01  # s at each cut, against clicks
CROSSFADES = (0.02, 0.15)  # s, in a third of the training recordings
LEVEL = -26.0  # dB of full scale, root mean square of every piece
SHORT = (0.35, 1.0)  # s, of the inner clips in most training recordings
CROPPED = 0.6  # share of those recordings
PATTERNS = ("NE", "EN", "NEN", "EE")  # of Wang et al. (2023), equally likely; N neutral, E another emotion
TRAINING_PATTERNS = ("NE", "EN", "NEN", "NEN", "EE", "NENEN", "NENEN", "EEEE")


@dataclass(frozen=True)
class Recipe:
    """Order of clips of one speaker; those that are neither first nor last may be cropped."""

    clips: tuple[Utterance, ...]
    crop: float | None = None  # s, of each inner clip
    crossfade: float = 0.0  # s; 0: a cut


def draw_recipes(
    utterances: Sequence[Utterance], per_speaker: int, seed: int = 0, patterns: Sequence[str] = PATTERNS
) -> list[Recipe]:
    """Draw recipes for every speaker who has neutral clips and two other emotions."""
    by_speaker: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for item in utterances:
        by_speaker[item.speaker][item.emotion].append(item)
    recipes = []
    for number, (_, clips) in enumerate(sorted(by_speaker.items())):
        rng = np.random.default_rng([seed, number])
        emotions = sorted(set(clips) - {"neutral"})
        if "neutral" in clips and len(emotions) > 1:
            recipes += [Recipe(_draw_clips(rng, clips, emotions, patterns)) for _ in range(per_speaker)]
    return recipes


def vary_insertions(recipes: Sequence[Recipe], lengths: Sequence[float], seed: int = 0) -> list[Recipe]:
    """Repeat the recipes of three clips with every length in seconds of the middle clip."""
    return [replace(recipe, crop=length) for recipe in recipes if len(recipe.clips) == 3 for length in lengths]


def _draw_clips(
    rng: np.random.Generator, clips: dict[str, list[Utterance]], emotions: list[str], patterns: Sequence[str]
) -> tuple[Utterance, ...]:
    pattern = patterns[int(rng.integers(len(patterns)))]
    named = itertools.cycle([emotions[k] for k in rng.permutation(len(emotions))])
    kinds = ["neutral" if kind == "N" else next(named) for kind in pattern]
    return tuple(clips[kind][rng.integers(len(clips[kind]))] for kind in kinds)


def render_recipe(manifest: Manifest, recipe: Recipe) -> tuple[Samples, list[Segment]]:
    """Join the clips of a recipe: samples (N,) at 16 kHz, and the true segments."""
    pieces = []
    for number, item in enumerate(recipe.clips):
        piece = trim_silence(load_audio(manifest.audio(item)), EDGE)
        if recipe.crop is not None and 0 < number < len(recipe.clips) - 1:
            middle, half = len(piece) // 2, int(recipe.crop * SAMPLE_RATE / 2)
            piece = piece[max(0, middle - half) : middle + half]
        pieces.append(normalize_level(piece))
    samples, edges = join_pieces(pieces, recipe.crossfade)
    segments = [
        Segment(float(start), float(end), item.emotion, item.intensity if item.intensity is not None else 1.0)
        for (start, end), item in zip(itertools.pairwise(edges / SAMPLE_RATE), recipe.clips, strict=True)
    ]
    return samples, segments


def join_pieces(pieces: Sequence[Samples], crossfade: float) -> tuple[Samples, NDArray[np.int64]]:
    """Join P pieces with crossfades of `crossfade` seconds: samples (N,), and the P + 1 edges in samples.

    An edge is in the middle of a crossfade, which is at most half as long as the shortest piece.
    """
    overlap = min(int(crossfade * SAMPLE_RATE), min(len(piece) for piece in pieces) // 2)
    starts = np.cumsum([0, *(len(piece) - overlap for piece in pieces)])
    samples, ramp = np.zeros(starts[-1] + overlap, np.float32), max(overlap, int(FADE * SAMPLE_RATE))
    for start, piece in zip(starts, pieces, strict=False):
        samples[start : start + len(piece)] += fade_ends(piece, ramp)
    edges = starts + overlap // 2
    edges[0], edges[-1] = 0, len(samples)
    return samples, edges


def normalize_level(samples: Samples) -> Samples:
    """Scale samples to the level `LEVEL`."""
    power = float(np.square(samples, dtype=np.float64).mean())
    return (samples * np.sqrt(10 ** (LEVEL / 10) / max(power, 1e-12))).astype(np.float32)


def fade_ends(samples: Samples, length: int) -> Samples:
    """Fade the first `length` samples in and the last ones out."""
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    samples = samples.copy()
    samples[:length] *= ramp
    samples[-length:] *= ramp[::-1]
    return samples


def write_recordings(manifest: Manifest, folder: Path, per_speaker: int, seed: int = 0) -> Manifest:
    """Write joined recordings of every speaker to a folder; returns them as utterances with segments."""
    rng = np.random.default_rng(seed)
    recipes = draw_recipes([item for item in manifest if not item.segments], per_speaker, seed, TRAINING_PATTERNS)
    recipes = [
        replace(recipe, crop=float(rng.uniform(*SHORT))) if len(recipe.clips) > 2 and rng.random() < CROPPED else recipe
        for recipe in recipes
    ]
    blends = np.random.default_rng([seed, 1])
    recipes = [
        replace(recipe, crossfade=float(blends.uniform(*CROSSFADES))) if blends.random() < 1 / 3 else recipe
        for recipe in recipes
    ]
    utterances = []
    for number, recipe in enumerate(recipes):
        samples, segments = render_recipe(manifest, recipe)
        first = recipe.clips[0]
        name = f"changing/{first.speaker}-{number}"
        write_wav(folder / f"{name}.wav", [samples])
        spans = tuple(
            Span(segment.start, segment.end, item.emotion, item.intensity)
            for segment, item in zip(segments, recipe.clips, strict=True)
        )
        utterances.append(
            replace(first, id=name, path=f"{name}.wav", segments=spans, intensity=None, transcript="", perceived={})
        )
    return Manifest(str(folder), utterances)
