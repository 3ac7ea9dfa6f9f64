"""Training utterances whose emotion changes, joined on the fly from one speaker's clips, with exact boundaries.

A mixture is a single clip, neutral and emotional clips in the orders of Wang et al. (2023), two emotions, or a longer
series of them. Clips are trimmed to their speech with random margins; some are cropped to 0.4 s or more; some keep
their silence, which is neutral far from speech. Sounds without speech may stand between clips. Some mixtures and their
references get the mean neutral voice of another speaker. Clips are joined as cached steps, 25 per second. Recordings
whose emotion changes (utterances with segments) are used whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.curves import dilate
from sedtalker.data.manifest import Utterance
from sedtalker.data.spec_augment import mel_level
from sedtalker.emotion.diarizer import STEP_RATE, STRIDE
from sedtalker.emotion.vad import detect_speech
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.errors import DataError
from sedtalker.labels import LABELS

BRIDGE = 0.3  # s, longest pause that counts as speech
NEAR_SPEECH = 0.3  # s around speech in which silence has no target
SILENCE_WEIGHT = 0.3  # loss weight of a silent frame; speech has 1

PATTERNS = (("E", 0.35), ("NE", 0.12), ("EN", 0.12), ("NEN", 0.11), ("EE", 0.15), ("EEEE", 0.15))
"""Patterns of mixtures and their probabilities: N a neutral clip, E a clip of an emotion.

E alone may be neutral; EEEE is four to seven clips of any emotions.
"""


CHANGING = "changing"  # kind of an utterance with segments, used like an emotion
NON_SPEECH = "non-speech"  # corpus of sounds without speech
REFERENCES = (("mixed", 0.4), ("one", 0.15), ("neutral", 0.1), ("none", 0.35))
"""Kinds of references for the voice and their probabilities: clips of any emotion, of one emotion, neutral, none."""

AUGMENTED_REFERENCES = 0.2  # share of the references that mixtures of augmented clips keep with `MixerConfig.clean`
VOICE_CLIPS = 8  # most neutral clips that give a speaker's mean voice

Item = TypeVar("Item")


@dataclass(frozen=True)
class MixerConfig:
    """Distribution of the mixtures."""

    patterns: tuple[tuple[str, float], ...] = PATTERNS
    crop: float = 0.35  # share of the clips that are cropped
    shortest: float = 0.4  # s, shortest crop
    longest_crop: float = 2.0  # s
    margin: float = 0.2  # s, most silence on each side of a clip's speech
    keep_silence: float = 0.15  # share of the clips that keep all their silence
    perceived_weight: float = 0.2  # share of the listeners' votes in the target; the acted emotion has the rest
    insertion: float = 0.3  # share of the clips between two others that are cropped to 0.4 to 0.8 s
    changing: float = 0.3  # share of recordings with segments, where a speaker has some
    longest: float = 16.0  # s, longest mixture
    references: tuple[tuple[str, float], ...] = REFERENCES
    reference_seconds: tuple[float, float] = (1.0, 60.0)  # of speech; log-uniform
    non_speech: float = 0.0  # share of the joins between two clips where a sound without speech stands
    wordless: tuple[str, ...] = ("emogator",)  # corpora whose speech activity has no target
    voice_change: float = 0.0  # share of the mixtures that are moved towards another speaker's neutral voice
    clean: float = 0.0  # share of the mixtures of clean clips; above 0 others seldom have a reference, see `Mixer`
    consistent: tuple[int, ...] = (0,)  # caches that count as clean: a speaker's clips have one voice and channel there
    level_match_prob: float = 0.0  # share of the mixtures of log-mels whose clips get the same level


@dataclass
class Mixture:
    """A training utterance: steps (T, L, D) float16 of `sedtalker.emotion.diarizer.pool_frames`, and their targets."""

    steps: Tensor
    target: Tensor  # (T, C) distribution over the labels
    intensity: Tensor  # (T,), NaN where unknown
    weight: Tensor  # (T,), 0 where there is no target
    speech: Tensor  # (T,), 1 speech, 0 other sound, NaN where unknown
    teacher: Tensor  # (T, K), outputs of a teacher as of `TeacherOutputs`, NaN where unknown
    corpus: str = ""
    reference: VoiceEstimate | None = None  # of the speaker, from other clips

    def part(self, first: int, last: int) -> Mixture:
        """The steps from `first` until `last`."""
        part = slice(first, last)
        return replace(
            self,
            steps=self.steps[part],
            target=self.target[part],
            intensity=self.intensity[part],
            weight=self.weight[part],
            speech=self.speech[part],
            teacher=self.teacher[part],
        )

    def extend(self, length: int) -> Mixture:
        """The mixture with steps of zeros and without weight up to a length."""
        missing = max(0, length - len(self.weight))

        def fill(values: Tensor, value: float) -> Tensor:
            return torch.cat([values, values.new_full((missing, *values.shape[1:]), value)])

        return replace(
            self, steps=fill(self.steps, 0), target=fill(self.target, 0), intensity=fill(self.intensity, torch.nan),
            weight=fill(self.weight, 0), speech=fill(self.speech, torch.nan), teacher=fill(self.teacher, torch.nan),
        )  # fmt: skip


class TeacherOutputs:
    """Outputs of a teacher for the steps of clean recordings, from a folder that `recipes diarizer_teacher` wrote.

    A step has K numbers: the teacher's logits and features that a student learns to predict.
    """

    def __init__(self, folder: Path) -> None:
        """Raises DataError if the folder holds no outputs."""
        first = next(folder.rglob("*.npy"), None)
        if first is None:
            raise DataError(
                f"no outputs of a teacher: {folder}. Write them: python -m sedtalker.recipes diarizer_teacher"
            )
        self.folder, self.size = folder, np.load(first, mmap_mode="r").shape[1]
        self._kept: dict[str, Tensor | None] = {}

    def read(self, identity: str, steps: int) -> Tensor:
        """Outputs (steps, K) for a version of a recording, stretched to its tempo; NaN if there are none."""
        if identity not in self._kept:
            file = self.folder / f"{identity}.npy"
            self._kept[identity] = torch.from_numpy(np.load(file)) if file.is_file() else None
        outputs = self._kept[identity]
        if outputs is None:
            return torch.full((steps, self.size), torch.nan)
        return outputs[torch.arange(steps) * len(outputs) // steps].float()


@dataclass
class CachedClip:
    """A corpus clip with its cached steps, which are read from the disk at each use or kept in memory."""

    utterance: Utterance
    caches: Sequence[Path]  # folders, the clean features first; the others may lack the clip
    keep: bool = False  # keep the steps in memory after the first use
    teacher: TeacherOutputs | None = None

    @cached_property
    def variants(self) -> list[Path]:
        """Files of the clip in the caches that have it."""
        return [self.caches[number] / f"{self.utterance.id}.npy" for number in self.versions]

    @cached_property
    def versions(self) -> list[int]:
        """Numbers of the caches that have the clip."""
        files = [cache / f"{self.utterance.id}.npy" for cache in self.caches]
        if not files[0].exists():
            raise DataError(
                f"no cached features: {files[0]}. Run: "
                "python -m sedtalker.recipes cache_features MANIFEST -o CACHE --steps"
            )
        return [number for number, file in enumerate(files) if file.exists()]

    def steps(self, variant: int = 0) -> Tensor:
        """Steps (T, L, D) float16 of one variant."""
        kept = self._kept.get(variant)
        if kept is None:
            kept = torch.from_numpy(np.load(self.variants[variant]))
            if self.keep:
                self._kept[variant] = kept
        return kept

    @cached_property
    def _kept(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def speech(self) -> NDArray[np.bool_]:
        """Speech mask (T,) of the steps of the first variant."""
        levels = np.load(self.variants[0].with_suffix(".loudness.npy")).astype(np.float32)
        return detect_speech(levels, BRIDGE)[::STRIDE]

    def speech_of(self, steps: int) -> NDArray[np.bool_]:
        """Speech mask of a variant with that many steps: the first variant's, stretched to its tempo."""
        return self.speech[np.arange(steps) * len(self.speech) // steps]

    def mix(self, variant: int, mixing: MixerConfig) -> Mixture:
        """The whole clip of one variant with its targets."""
        steps, corpus = self.steps(variant), self.utterance.corpus
        speech = self.speech_of(len(steps))
        target, intensity, weight = map(
            torch.from_numpy,
            frame_targets(self.utterance, speech, mixing.perceived_weight, len(steps) / len(self.speech)),
        )
        teacher = torch.empty(len(steps), 0)
        if self.teacher is not None:
            teacher = self.teacher.read(self.utterance.id, len(steps))
        mixture = Mixture(steps, target, intensity, weight, torch.from_numpy(speech).float(), teacher, corpus)
        if corpus == NON_SPEECH:
            mixture.weight, mixture.speech = torch.zeros(len(steps)), torch.zeros(len(steps))
        elif corpus in mixing.wordless:
            mixture.speech = torch.full((len(steps),), torch.nan)
        return mixture

    def voice(self, variant: int) -> VoiceEstimate:
        """The estimate () of the voice from one variant's speech, computed once."""
        if variant not in self._voices:
            steps = self.steps(variant).flatten(1)
            spoken = steps[torch.from_numpy(self.speech_of(len(steps)))].float() / STEP_RATE**0.5
            seconds = torch.tensor(len(spoken) / STEP_RATE)
            sums = spoken.sum(0) / STEP_RATE**0.5
            self._voices[variant] = VoiceEstimate(sums, spoken.square().sum(0), seconds, torch.tensor(0.0))
        return self._voices[variant]

    @cached_property
    def _voices(self) -> dict[int, VoiceEstimate]:
        return {}


class Mixer:
    """Draws mixtures of clips; the same seed gives the same mixtures.

    Augmented clips of a speaker differ in voice and channel, so that they say little about each other, and a network
    that learns with such references does not use good ones. `MixerConfig.clean` prevents this.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        caches: Sequence[Path],
        mixing: MixerConfig | None = None,
        corpora: dict[str, float] | None = None,
        seed: int = 0,
        in_memory: bool = False,
        teacher: TeacherOutputs | None = None,
    ) -> None:
        """
        Args:
            caches: folders of cached features, the clean ones first.
            corpora: share of the mixtures by corpus; equal if None.
            in_memory: keep features in memory after their first use.
        """
        self.mixing = mixing or MixerConfig()
        self.caches = [Path(cache) for cache in caches]
        self.rng = np.random.default_rng(seed)
        self.clips: dict[str, dict[str, dict[str, list[CachedClip]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for utterance in utterances:
            kind = CHANGING if utterance.segments else utterance.emotion
            clip = CachedClip(utterance, self.caches, in_memory, teacher)
            self.clips[utterance.corpus][utterance.speaker][kind].append(clip)
        sounds = self.clips.pop(NON_SPEECH, {})
        self.sounds = [clip for kinds in sounds.values() for clips in kinds.values() for clip in clips]
        shares = {corpus: (corpora or {}).get(corpus, 1.0) for corpus in self.clips}
        self.corpora = list(shares)
        self.shares = np.array(list(shares.values())) / sum(shares.values())
        self._cached: dict[tuple[str, str, int], dict[str, list[CachedClip]]] = {}
        self._neutral_means: dict[tuple[str, str], Tensor | None] = {}

    def draw(self, reference: bool = True) -> Mixture:
        """Draw one mixture, with a reference for the voice if asked for."""
        rng = self.rng
        corpus, speaker = self._draw_speaker()
        by_emotion = self.clips[corpus][speaker]
        clean = self.mixing.clean > 0 and rng.random() < self.mixing.clean
        number = int(rng.integers(1 if clean else 1 << 16))  # version, the same for all pieces
        if self._is_changing(by_emotion):
            clip = _choose(rng, by_emotion[CHANGING])
            if self.mixing.clean:
                clean, number = True, 0
            mixture = clip.mix(number % len(clip.variants), self.mixing)
        else:
            mixture = concatenate(self._pieces([kind for kind in by_emotion if kind != CHANGING], by_emotion, number))
        if reference:
            size = mixture.steps[0].numel()
            useful = clean or self.mixing.clean == 0 or rng.random() < AUGMENTED_REFERENCES
            mixture.reference = self._reference(by_emotion, number, size) if useful else VoiceEstimate.empty(size)
        offset = self._voice_offset(corpus, speaker)
        return mixture if offset is None else change_voice(mixture, offset)

    def draw_group(self, size: int) -> tuple[list[Mixture], bool]:
        """Draw mixtures of one speaker, and whether they can be references for the voice of each other."""
        rng, mixing = self.rng, self.mixing
        corpus, speaker = self._draw_speaker()
        by_emotion, cache = self.clips[corpus][speaker], -1
        if rng.random() < mixing.clean:
            cache = int(rng.choice(mixing.consistent))
            by_emotion = self._of_cache(corpus, speaker, cache)
            if not by_emotion:
                by_emotion, cache = self._of_cache(corpus, speaker, 0), 0
        useful = cache >= 0 or mixing.clean == 0 or rng.random() < AUGMENTED_REFERENCES
        number = int(rng.integers(1 << 16))
        mixtures = [self._draw_mixture(by_emotion, cache, number) for _ in range(size)]
        offset = self._voice_offset(corpus, speaker)
        if offset is not None:
            mixtures = [change_voice(mixture, offset) for mixture in mixtures]
        return mixtures, useful and corpus not in mixing.wordless

    def _of_cache(self, corpus: str, speaker: str, cache: int) -> dict[str, list[CachedClip]]:
        """A speaker's clips in a cache, by emotion."""
        if (corpus, speaker, cache) not in self._cached:
            kinds = self.clips[corpus][speaker].items()
            chosen = {kind: [clip for clip in clips if cache in clip.versions] for kind, clips in kinds}
            self._cached[corpus, speaker, cache] = {kind: clips for kind, clips in chosen.items() if clips}
        return self._cached[corpus, speaker, cache]

    def _draw_mixture(self, by_emotion: dict[str, list[CachedClip]], cache: int, number: int) -> Mixture:
        """A mixture of clips in a cache, or of version `number` of each clip if `cache` is -1."""
        if self._is_changing(by_emotion):
            clip = _choose(self.rng, by_emotion[CHANGING])
            return clip.mix(_version(clip, cache, number), self.mixing)
        kinds = [kind for kind in by_emotion if kind != CHANGING]
        return concatenate(self._pieces(kinds, by_emotion, number, cache))

    def _is_changing(self, by_emotion: dict[str, list[CachedClip]]) -> bool:
        """Whether the next mixture is one recording with segments; always if the speaker has no other clips."""
        return CHANGING in by_emotion and (len(by_emotion) == 1 or self.rng.random() < self.mixing.changing)

    def _voice_offset(self, corpus: str, speaker: str) -> Tensor | None:
        """An offset (L * D,) towards another speaker's neutral voice, for a share of the mixtures; None for others."""
        if not self.mixing.voice_change or self.rng.random() >= self.mixing.voice_change:
            return None
        own, other = self._neutral_mean(corpus, speaker), self._neutral_mean(*self._draw_speaker())
        if own is None or other is None:
            return None
        return float(self.rng.uniform(0, 1)) * (other - own)

    def _draw_speaker(self) -> tuple[str, str]:
        """A random corpus and one of its speakers."""
        corpus = self.corpora[self.rng.choice(len(self.corpora), p=self.shares)]
        return corpus, _choose(self.rng, list(self.clips[corpus]))

    def _neutral_mean(self, corpus: str, speaker: str) -> Tensor | None:
        """Mean (L * D,) of the speech of some neutral clips of a speaker; None if there are none."""
        if (corpus, speaker) not in self._neutral_means:
            clips = (
                [] if corpus in self.mixing.wordless else self.clips[corpus][speaker].get("neutral", [])[:VOICE_CLIPS]
            )
            voices = [clip.voice(0) for clip in clips]
            seconds = sum(float(voice.seconds) for voice in voices)
            mean = torch.stack([voice.sums for voice in voices]).sum(0) / seconds if seconds else None
            self._neutral_means[corpus, speaker] = mean
        return self._neutral_means[corpus, speaker]

    def _reference(self, by_emotion: dict[str, list[CachedClip]], number: int, size: int) -> VoiceEstimate:
        """An estimate of the speaker's voice from some clips, which may be among those of the mixture."""
        rng, mixing = self.rng, self.mixing
        names, shares = zip(*mixing.references, strict=True)
        kind = names[rng.choice(len(names), p=np.array(shares) / sum(shares))]
        estimate = VoiceEstimate.empty(size)
        emotions = [name for name in by_emotion if name != CHANGING]
        if kind == "none" or not emotions or (kind == "neutral" and "neutral" not in emotions):
            return estimate
        if kind != "mixed":
            emotions = ["neutral" if kind == "neutral" else _choose(rng, emotions)]
        clips = [clip for name in emotions for clip in by_emotion[name]]
        if clips[0].utterance.corpus in mixing.wordless or len(clips) < 2:
            return estimate
        seconds = float(np.exp(rng.uniform(*np.log(mixing.reference_seconds))))
        for place in rng.permutation(len(clips))[: int(seconds) + 1]:
            estimate = estimate.add(clips[place].voice(number % len(clips[place].variants)))
            if estimate.seconds >= seconds:
                break
        return estimate._replace(reference=estimate.seconds).limited()

    def _pieces(
        self, emotions: list[str], by_emotion: dict[str, list[CachedClip]], number: int, cache: int = -1
    ) -> list[Mixture]:
        pieces: list[Mixture] = []
        pattern = self._pattern()
        for place, kind in enumerate(pattern):
            clip = _choose(self.rng, by_emotion[self._emotion(kind, emotions)])
            piece = self._piece(clip, _version(clip, cache, number), 0 < place < len(pattern) - 1)
            length = sum(len(other.steps) for other in pieces) + len(piece.steps)
            if pieces and length > self.mixing.longest * STEP_RATE:
                break
            if pieces and self.sounds and self.rng.random() < self.mixing.non_speech:
                pieces.append(self._sound())
            pieces.append(piece)
        matched = self.mixing.level_match_prob and self.rng.random() < self.mixing.level_match_prob
        return match_levels(pieces) if matched else pieces

    def _sound(self) -> Mixture:
        """A stretch of a sound without speech."""
        whole = _choose(self.rng, self.sounds).mix(0, self.mixing)
        length = min(len(whole.steps), int(self.rng.uniform(0.4, 2.0) * STEP_RATE))
        first = int(self.rng.integers(len(whole.steps) - length + 1))
        return whole.part(first, first + length)

    def _pattern(self) -> str:
        names, shares = zip(*self.mixing.patterns, strict=True)
        pattern = names[self.rng.choice(len(names), p=np.array(shares) / sum(shares))]
        return pattern + "E" * int(self.rng.integers(4)) if len(pattern) > 3 else pattern

    def _emotion(self, kind: str, available: list[str]) -> str:
        if kind == "N" and "neutral" in available:
            return "neutral"
        return _choose(self.rng, available)

    def _piece(self, clip: CachedClip, variant: int, inner: bool) -> Mixture:
        rng, mixing = self.rng, self.mixing
        whole = clip.mix(variant, mixing)
        first, last = 0, len(whole.steps)
        voiced = np.flatnonzero(clip.speech_of(last))
        inserted = inner and rng.random() < mixing.insertion
        if inserted or rng.random() >= mixing.keep_silence:
            margin = mixing.margin * STEP_RATE
            first = max(0, int(voiced[0] - rng.uniform(0, margin)))
            last = min(last, int(voiced[-1] + 1 + rng.uniform(0, margin)))
        if inserted or rng.random() < mixing.crop:
            longest = 2 * mixing.shortest if inserted else mixing.longest_crop
            length = int(rng.uniform(mixing.shortest, longest) * STEP_RATE)
            if last - first > length:
                first = int(rng.integers(first, last - length + 1))
                last = first + length
        return whole.part(first, last)


def frame_targets(
    utterance: Utterance, speech: NDArray[np.bool_], perceived_weight: float, pace: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Target distribution (T, C), intensity (T,) and loss weight (T,) of a clip's steps.

    Silence far from speech is neutral, and so is speech outside the segments of an utterance that has some.

    Args:
        pace: steps per step of the original recording, in whose time the segments are marked.
    """
    emotion = "neutral" if utterance.segments else utterance.emotion
    strength = 0.0 if utterance.segments else utterance.intensity
    target = np.tile(_distribution(emotion, utterance.perceived, perceived_weight), (len(speech), 1))
    intensity = np.full(len(speech), np.nan if strength is None else strength, np.float32)
    for span in utterance.segments:
        inside = slice(round(span.start * STEP_RATE * pace), round(span.end * STEP_RATE * pace))
        target[inside] = _distribution(span.emotion, {}, perceived_weight)
        intensity[inside] = np.nan if span.intensity is None else span.intensity
    silence = ~dilate(speech, round(NEAR_SPEECH * STEP_RATE))
    target[silence] = _distribution("neutral", {}, perceived_weight)
    intensity[silence] = 0.0
    weight = np.where(speech, 1.0, np.where(silence, SILENCE_WEIGHT, 0.0)).astype(np.float32)
    return target, intensity, weight


def _distribution(emotion: str, perceived: dict[str, float], perceived_weight: float) -> NDArray[np.float32]:
    """Distribution (C,): the acted emotion, and the share `perceived_weight` for the listeners' votes if known."""
    share = np.zeros(len(LABELS), np.float32)
    share[LABELS.index(emotion)] = 1 - perceived_weight if perceived else 1
    for name, votes in perceived.items():
        share[LABELS.index(name)] += perceived_weight * votes
    return share


def change_voice(mixture: Mixture, offset: Tensor) -> Mixture:
    """Add an offset (L * D,) to the steps of a mixture and of its reference."""
    steps = (mixture.steps.float() + offset.unflatten(0, mixture.steps.shape[1:])).half()
    reference = mixture.reference
    if reference is not None:
        seconds = reference.seconds[..., None]
        reference = reference._replace(
            sums=reference.sums + offset * seconds,
            squares=reference.squares + 2 * offset * reference.sums + offset.square() * seconds,
        )
    return replace(mixture, steps=steps, reference=reference)


def match_levels(pieces: Sequence[Mixture]) -> list[Mixture]:
    """Move pieces of log-mels to the mean of their levels."""
    levels = [mel_level(piece.steps) for piece in pieces]
    mean = np.mean(levels)
    return [replace(piece, steps=piece.steps + (mean - level)) for piece, level in zip(pieces, levels, strict=True)]


def concatenate(pieces: Sequence[Mixture]) -> Mixture:
    """Join pieces to one utterance."""
    return Mixture(
        torch.cat([piece.steps for piece in pieces]),
        torch.cat([piece.target for piece in pieces]),
        torch.cat([piece.intensity for piece in pieces]),
        torch.cat([piece.weight for piece in pieces]),
        torch.cat([piece.speech for piece in pieces]),
        torch.cat([piece.teacher for piece in pieces]),
        pieces[0].corpus,
    )


def _version(clip: CachedClip, cache: int, number: int) -> int:
    """Place of the version in a cache among a clip's versions; `number` chooses one if `cache` is -1."""
    return clip.versions.index(cache) if cache >= 0 else number % len(clip.versions)


def _choose(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]
