"""Losses of a diarizer: category, intensity, and agreement with a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.data.emotion_mixtures import TeacherOutputs
from sedtalker.emotion.diarizer import Diarizer, Outputs
from sedtalker.training.diarizer_batches import Blend
from sedtalker.training.diarizer_config import DiarizerTraining


class TeacherLoss(nn.Module):
    """Losses of a student: its posterior (Hinton et al. 2015), and a teacher's features from its blocks' outputs.

    The targets are those of the clean recording, also for augmented versions.
    """

    def __init__(self, training: DiarizerTraining, diarizer: Diarizer) -> None:
        super().__init__()
        self.settings, self.labels = training, len(training.model.labels)
        self.size = TeacherOutputs(Path(training.teacher)).size
        self._outputs: list[Tensor] = []  # of the blocks in the running step
        self.predict: nn.Linear | None = None
        if diarizer.blocks is not None and self.size > self.labels:
            width = training.model.blocks * training.model.feature_width
            self.predict = nn.Linear(width, self.size - self.labels)
            diarizer.blocks.register_forward_hook(self._keep_outputs)

    def _keep_outputs(self, blocks: nn.Module, inputs: Any, result: tuple[list[Tensor], Any]) -> None:
        self._outputs = result[0]

    def targets(self, teacher: Tensor) -> Tensor:
        """Posteriors at the temperature instead of the logits of (B, T, K); features stay."""
        logits, features = teacher.split([self.labels, self.size - self.labels], -1)
        return torch.cat([(logits / self.settings.teacher_temperature).softmax(-1), features], -1)

    def forward(self, outputs: Sequence[Outputs], shares: Sequence[float], blend: Blend) -> Tensor:
        """Loss () of the outputs, weighted by their shares, and of the features."""
        settings = self.settings
        posterior, features = blend.teacher.split([self.labels, self.size - self.labels], -1)
        weight = blend.teacher_weight
        total, count = torch.zeros((), device=weight.device), weight.sum().clamp(min=1)
        for each, share in zip(outputs, shares, strict=True):
            entropy = -(posterior * F.log_softmax(each.logits / settings.teacher_temperature, -1)).sum(-1)
            divergence = (entropy + torch.special.entr(posterior).neg().sum(-1)) * settings.teacher_temperature**2
            total = total + settings.teacher_weight * share * (divergence * weight).mean(0).sum() / count
        if self.predict is not None:
            error = (self.predict(torch.cat(self._outputs, -1)) - features).square().mean(-1)
            total = total + settings.teacher_feature_weight * (error * weight).sum() / count
        return total


def category_loss(logits: Tensor, target: Tensor, weight: Tensor, smoothing: float, present: Tensor) -> Tensor:
    """Weighted mean cross-entropy () between the logits of the members and target distributions.

    Args:
        logits: (M, B, T, C).
        target: (B, T, C).
        weight: (B, T).
        smoothing: share of the target that is spread evenly over the present labels.
        present: (C,) bool, labels with training data; the others get no share of the smoothing.
    """
    smooth = present / present.sum()
    smoothed = (1 - smoothing) * target + smoothing * smooth
    entropy = -(smoothed * F.log_softmax(logits, -1)).sum(-1)
    return (entropy * weight).sum() / weight.sum().clamp(min=1)


def intensity_loss(intensity_logits: Tensor, intensity: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean cross-entropy () of intensity logits (M, B, T) with targets (B, T) in 0..1; NaN: unknown."""
    known = weight * ~intensity.isnan()
    target = intensity.nan_to_num(0).expand_as(intensity_logits)
    entropy = F.binary_cross_entropy_with_logits(intensity_logits, target, reduction="none")
    return (entropy * known).sum() / known.sum().clamp(min=1)
