"""Utterances whose emotion changes, made on the fly from one speaker's clips, with the true boundaries.

A made utterance is a single clip, neutral and emotional clips in the orders of Wang et al. (2023), two emotions, or a
longer run of them. Clips are cut to their speech with random margins; some are cropped to a part of from 0.4 s up; some
keep their silence, which is neutral where speech is far. The clips are joined as cached features, 50 frames a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.corpora.manifest import Utterance
from sedtalker.emotion.activity import speech_frames
from sedtalker.emotion.labels import LABELS
from sedtalker.errors import DataError
from sedtalker.speech import FRAME_RATE

BRIDGE = 0.3  # s, pauses up to this belong to the speech around them
NEAR_SPEECH = 0.3  # s around speech whose silence is nobody's: no target
SILENCE_WEIGHT = 0.3  # of a silent frame in the loss, beside 1 for speech

PATTERNS: tuple[tuple[str, float], ...] = (
    ("E", 0.35),  # one clip of any emotion, neutral among them
    ("NE", 0.12),
    ("EN", 0.12),
    ("NEN", 0.11),
    ("EE", 0.15),
    ("EEEE", 0.15),  # any emotions, four to seven clips
)
"""What is made, and how often: N a neutral clip, E a clip of an emotion."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class Mixing:
    """How utterances are made."""

    patterns: tuple[tuple[str, float], ...] = PATTERNS
    crop: float = 0.35  # share of the clips that are cropped to a part
    shortest: float = 0.4  # s, of a part
    longest_crop: float = 2.0  # s
    margin: float = 0.2  # s, most silence kept on each side of a clip's speech
    keep_silence: float = 0.15  # share of the clips that keep all their silence
    heard: float = 0.2  # weight of what listeners heard, beside what the actor meant
    longest: float = 16.0  # s, of a made utterance


@dataclass
class Mix:
    """A made utterance: features (T, L, D) float16, and a target for each frame."""

    features: Tensor
    target: Tensor  # (T, C) distribution over the labels
    intensity: Tensor  # (T,), NaN where unknown
    weight: Tensor  # (T,), 0 where there is no target

    def part(self, first: int, last: int) -> Mix:
        """The frames from `first` until `last`."""
        return Mix(*(values[first:last] for values in (self.features, self.target, self.intensity, self.weight)))


@dataclass
class Clip:
    """A corpus clip with its cached features, read from the disk (and so from the system's file cache) at each use."""

    utterance: Utterance
    caches: Sequence[Path]

    def features(self, variant: int = 0) -> Tensor:
        """Frames (T, L, D) float16 of one variant."""
        return torch.from_numpy(np.load(self._file(variant, ".npy")))

    @cached_property
    def speech(self) -> NDArray[np.bool_]:
        """Which frames of the first variant hold speech (T,)."""
        return speech_frames(np.load(self._file(0, ".loudness.npy")).astype(np.float32), BRIDGE)

    def speech_of(self, variant: int, frames: int) -> NDArray[np.bool_]:
        """The same for a variant of that many frames, whose speed may differ: the speech of the first, stretched."""
        return self.speech[np.arange(frames) * len(self.speech) // frames]

    def mix(self, variant: int, heard: float) -> Mix:
        """The whole clip with its targets."""
        features = self.features(variant)
        target, intensity, weight = targets(self.utterance, self.speech_of(variant, len(features)), heard)
        return Mix(features, *(torch.from_numpy(values) for values in (target, intensity, weight)))

    def _file(self, variant: int, ending: str) -> Path:
        path = self.caches[variant] / f"{self.utterance.id}{ending}"
        if not path.exists():
            raise DataError(f"no cached features: {path}. Run: python -m sedtalker.training.features MANIFEST -o CACHE")
        return path


class Mixer:
    """Draws utterances from clips; the same seed gives the same utterances."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        caches: Sequence[Path],
        mixing: Mixing | None = None,
        corpora: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            caches: folders of cached features, the clean ones first.
            corpora: share of the draws by corpus; equal where None.
        """
        self.mixing = mixing or Mixing()
        self.caches = [Path(cache) for cache in caches]
        self.rng = np.random.default_rng(seed)
        self.clips: dict[str, dict[str, dict[str, list[Clip]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for utterance in utterances:
            self.clips[utterance.corpus][utterance.speaker][utterance.emotion].append(Clip(utterance, self.caches))
        shares = {corpus: (corpora or {}).get(corpus, 1.0) for corpus in self.clips}
        self.corpora = list(shares)
        self.shares = np.array(list(shares.values())) / sum(shares.values())

    def draw(self) -> Mix:
        """One made utterance."""
        rng = self.rng
        speakers = self.clips[self.corpora[rng.choice(len(self.corpora), p=self.shares)]]
        by_emotion = speakers[_choose(rng, list(speakers))]
        variant = int(rng.integers(len(self.caches)))
        pieces: list[Mix] = []
        for kind in self._pattern():
            piece = self._piece(_choose(rng, by_emotion[self._emotion(kind, list(by_emotion))]), variant)
            if (
                sum(len(other.features) for other in pieces) + len(piece.features) > self.mixing.longest * FRAME_RATE
                and pieces
            ):
                break
            pieces.append(piece)
        return joined(pieces)

    def _pattern(self) -> str:
        names, shares = zip(*self.mixing.patterns, strict=True)
        pattern = names[self.rng.choice(len(names), p=np.array(shares) / sum(shares))]
        return pattern + "E" * int(self.rng.integers(4)) if len(pattern) > 3 else pattern

    def _emotion(self, kind: str, available: list[str]) -> str:
        if kind == "N" and "neutral" in available:
            return "neutral"
        return _choose(self.rng, available)

    def _piece(self, clip: Clip, variant: int) -> Mix:
        rng, mixing = self.rng, self.mixing
        whole = clip.mix(variant, mixing.heard)
        first, last = 0, len(whole.features)
        voiced = np.flatnonzero(clip.speech_of(variant, last))
        if rng.random() >= mixing.keep_silence:
            margin = mixing.margin * FRAME_RATE
            first = max(0, int(voiced[0] - rng.uniform(0, margin)))
            last = min(last, int(voiced[-1] + 1 + rng.uniform(0, margin)))
        if rng.random() < mixing.crop:
            length = int(rng.uniform(mixing.shortest, mixing.longest_crop) * FRAME_RATE)
            if last - first > length:
                first = int(rng.integers(first, last - length + 1))
                last = first + length
        return whole.part(first, last)


def targets(
    utterance: Utterance, speech: NDArray[np.bool_], heard: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Distribution (T, C), intensity (T,) and weight (T,) of a clip's frames; silence far from speech is neutral."""
    emotion = np.zeros(len(LABELS), np.float32)
    emotion[LABELS.index(utterance.emotion)] = 1
    if utterance.perceived:
        emotion *= 1 - heard
        for name, share in utterance.perceived.items():
            emotion[LABELS.index(name)] += heard * share
    silence = ~_widened(speech, round(NEAR_SPEECH * FRAME_RATE))
    target = np.repeat(emotion[None], len(speech), axis=0)
    target[silence] = np.eye(len(LABELS), dtype=np.float32)[LABELS.index("neutral")]
    strength = np.nan if utterance.intensity is None else utterance.intensity
    intensity = np.where(silence, 0.0, strength).astype(np.float32)
    weight = np.where(speech, 1.0, np.where(silence, SILENCE_WEIGHT, 0.0)).astype(np.float32)
    return target, intensity, weight


def joined(pieces: Sequence[Mix]) -> Mix:
    """Pieces one after the other, as one utterance."""
    return Mix(
        torch.cat([piece.features for piece in pieces]),
        torch.cat([piece.target for piece in pieces]),
        torch.cat([piece.intensity for piece in pieces]),
        torch.cat([piece.weight for piece in pieces]),
    )


def _widened(mask: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    return np.convolve(mask, np.ones(2 * frames + 1), mode="same")[: len(mask)] > 0.5


def _choose(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]
