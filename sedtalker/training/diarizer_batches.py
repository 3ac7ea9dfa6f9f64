"""Batches of mixtures of a diarizer's training: lengths, groups of one speaker, mixup and masks in time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from sedtalker.data.emotion_mixtures import Mixer, Mixture
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.training.diarizer_config import GROUP

GROUP_LENGTHS = (0.3, 0.9)  # quantiles of the lengths of a batch's utterances, between which its length is drawn
SORTED_BATCHES = 8  # batches whose utterances are drawn together and then sorted by length


@dataclass
class Batch:
    """Synthetic utterances of one length."""

    steps: Tensor  # (B, T, L, D)
    target: Tensor  # (B, T, C)
    intensity: Tensor  # (B, T), NaN where unknown
    weight: Tensor  # (B, T)
    speech: Tensor  # (B, T), NaN where unknown
    teacher: Tensor  # (B, T, K), NaN where unknown
    log_prior: Tensor  # (B, 1, C), of the labels in the utterance's corpus
    voice: VoiceEstimate  # (B,), the reference
    useful: Tensor | None = None  # (B / GROUP,) bool, groups of one speaker whose utterances can be references

    @property
    def group(self) -> int:
        """Number of neighbouring utterances that are mixed and masked alike."""
        return 1 if self.useful is None else GROUP


class MixedUtterances(IterableDataset[Batch]):
    """Endless batches of utterances of similar length, cut to the shortest; each loader worker draws its own."""

    def __init__(
        self, mixer: Mixer, size: int, log_priors: dict[str, Tensor], references: bool = True, groups: bool = False
    ) -> None:
        self.mixer, self.size, self.log_priors, self.references = mixer, size, log_priors, references
        self.groups = groups  # of one speaker, which are references for the voice of each other

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None:
            self.mixer.rng = self.mixer.rng.spawn(worker.num_workers)[worker.id]
        while self.groups:
            yield self._draw_groups()
        while True:
            mixes = [self.mixer.draw(self.references) for _ in range(SORTED_BATCHES * self.size)]
            drawn = sorted(mixes, key=lambda mix: len(mix.weight))
            for k in self.mixer.rng.permutation(SORTED_BATCHES):
                yield self._batch(drawn[k * self.size : (k + 1) * self.size])

    def _draw_groups(self) -> Batch:
        """Groups of one speaker each. Utterances are cut to a drawn length, or extended by steps without weight."""
        rng, groups = self.mixer.rng, [self.mixer.draw_group(GROUP) for _ in range(self.size // GROUP)]
        mixes = [mixture for group, _ in groups for mixture in group]
        steps = int(np.quantile([len(mix.weight) for mix in mixes], rng.uniform(*GROUP_LENGTHS)))
        starts = [int(rng.integers(max(0, len(mix.weight) - steps) + 1)) for mix in mixes]
        mixes = [mix.part(start, start + steps).extend(steps) for mix, start in zip(mixes, starts, strict=True)]
        return replace(self._batch(mixes), useful=torch.tensor([useful for _, useful in groups]))

    def _batch(self, mixes: Sequence[Mixture]) -> Batch:
        length = min(len(mix.weight) for mix in mixes)
        starts = [int(self.mixer.rng.integers(len(mix.weight) - length + 1)) for mix in mixes]
        parts = [mix.part(start, start + length) for mix, start in zip(mixes, starts, strict=True)]
        names = ("steps", "target", "intensity", "weight", "speech", "teacher")
        priors = torch.stack([self.log_priors[part.corpus][None] for part in parts])
        references = [part.reference or VoiceEstimate.empty(part.steps[0].numel()) for part in parts]
        voice = VoiceEstimate(*map(torch.stack, zip(*references, strict=True)))
        steps, target, intensity, weight, speech, teacher = (
            torch.stack([getattr(part, name) for part in parts]) for name in names
        )
        return Batch(steps, target, intensity, weight, speech, teacher, priors, voice)


def draw_references(useful: Tensor) -> Tensor:
    """References (B, B) for the voices of the utterances of groups: 1 where the column's is one for the row's.

    Args:
        useful: (B / GROUP,) bool, groups with references.
    """
    size, device = len(useful) * GROUP, useful.device
    same = torch.block_diag(*[torch.ones(GROUP, GROUP, device=device)] * len(useful)) - torch.eye(size, device=device)
    share = torch.rand(size, 1, device=device) * 1.8 - 0.6  # none for a third of the utterances
    chosen = (torch.rand(size, size, device=device) < share).float()
    return same * chosen * useful.float().repeat_interleave(GROUP)[:, None]


class Blend(NamedTuple):
    """A batch after mixup and masking."""

    steps: Tensor  # (B, T, L, D)
    target: Tensor  # (B, T, C)
    weight: Tensor  # (B, T), weight of the target
    intensity: Tensor  # (B, T), 0 where its weight is 0
    intensity_weight: Tensor  # (B, T)
    activity: Tensor  # (B, T), weight of a step in the estimate of the voice
    teacher: Tensor  # (B, T, K), 0 where its weight is 0
    teacher_weight: Tensor  # (B, T)
    log_prior: Tensor  # (B, 1, C)
    voice: VoiceEstimate  # (B,)


def mixup_and_mask(batch: Batch, mixup_prob: float, time_mask_max: float) -> Blend:
    """Apply mixup of pairs of utterances (Zhang et al. 2018) with a probability, and mask a stretch of each.

    Targets are mixed by the share of their utterance times their weight, so that an unknown target has no effect.
    """
    steps, target, weight = batch.steps.float(), batch.target, batch.weight
    level_weight, level = weight * ~batch.intensity.isnan(), batch.intensity.nan_to_num(0)
    activity, log_prior, voice = batch.speech.nan_to_num(0), batch.log_prior, batch.voice
    teacher_weight, teacher = weight * ~batch.teacher.isnan().any(-1), batch.teacher.nan_to_num(0)
    size, length = weight.shape
    if float(torch.rand(())) < mixup_prob:
        share = float(torch.distributions.Beta(0.4, 0.4).sample())
        first = torch.randperm(size // batch.group, device=steps.device)[:, None] * batch.group
        order = (first + torch.arange(batch.group, device=steps.device)).flatten()
        steps = torch.lerp(steps, steps[order], share)
        target, weight = _mix_targets(target, weight, order, share)
        level, level_weight = _mix_targets(level, level_weight, order, share)
        teacher, teacher_weight = _mix_targets(teacher, teacher_weight, order, share)
        activity = torch.lerp(activity, activity[order], share)
        log_prior = torch.logaddexp(
            log_prior + math.log(max(1 - share, 1e-6)), log_prior[order] + math.log(max(share, 1e-6))
        )
        voice = _mix_voices(voice, order, share)
    hidden = (torch.rand(size, 1, device=steps.device) * time_mask_max * length).round()
    start = torch.rand(size, 1, device=steps.device) * (length - hidden)
    place = torch.arange(length, device=steps.device)
    kept = (place < start) | (place >= start + hidden)
    return Blend(
        steps * kept[..., None, None], target, weight, level, level_weight, activity * kept, teacher, teacher_weight,
        log_prior, voice,
    )  # fmt: skip


def _mix_voices(voice: VoiceEstimate, order: Tensor, share: float) -> VoiceEstimate:
    """Mix estimates (B,) with the same in another order; the evidence is the smaller of the two."""
    seconds = torch.minimum(voice.seconds, voice.seconds[order])

    def mix(sums: Tensor) -> Tensor:
        means = sums / voice.seconds.clamp(min=1e-9)[:, None]
        return torch.lerp(means, means[order], share) * seconds[:, None]

    return VoiceEstimate(mix(voice.sums), mix(voice.squares), seconds, seconds)


def _mix_targets(truth: Tensor, weight: Tensor, order: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mix targets (B, T, ...) of weight (B, T) with the same in another order; returns targets and weights."""
    own, other = (1 - share) * weight, share * weight[order]
    both = own + other
    part = torch.where(both > 0, other / both.clamp(min=1e-12), share).reshape(*both.shape, *[1] * (truth.ndim - 2))
    return torch.lerp(truth, truth[order], part.to(truth.dtype)), both
