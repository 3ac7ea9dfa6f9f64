"""The expression that an emotion adds to speaking lips, computed by rule from the emotion of every frame.

Brows, lids, cheeks and nose are free while a person speaks and get the full expression of the table
`sedtalker.face.action_units.EMOTIONS`. The mouth gets what speech allows: a share of it, less where the lips are
rounded, and nothing that would part the lips where they are closed. So an expression reaches its full size at
intensity 1, grows with the intensity, and never opens a closure; a network that regresses towards the mean does none
of the three. Rises and falls are causal: the expression is an average over the last second of the track.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.face.action_units import EMOTIONS, MOUTH_SHARE, emotion_weights
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_FUNNEL, MOUTH_PUCKER, ROLL_LOWER, arkit_columns
from sedtalker.face.mouth_measures import GAP, WIDTH, default_measures
from sedtalker.face.visemes import OPENERS
from sedtalker.speech import FRAME_RATE

ONSET = 0.11  # seconds, time constant of each of two poles: 10 to 90 % in 0.37 s (RAVDESS' actors: 0.4 to 0.8 s)
GROWTH = 0.64
"""An intensity i shows i (1 + GROWTH (1 - i)) of the full expression: .37, .66, .81 and 1 at .25, .5, .67 and 1.
RAVDESS' actors show .66 of a strong performance's action units in a normal one, whose intensity is .5 in training
(mean over the emotions; OpenFace's units, projected on those of the strong performances)."""
CLOSED_GAP = 0.8  # mm between the lips up to which the expression does not part them
FREE_GAP = 3.0  # mm more between the lips from which the expression may part them as far as it likes
FULL_ROUNDING = 0.6  # weight of full rounding
ROUNDING_DAMPING = 0.3  # share of a smile or stretch that full rounding removes
FULL_CONTACT = 0.6  # mouthRollLower of /f v/, where the lower lip touches the teeth
CONTACT_DAMPING = 0.6  # share of the expression's opening that this contact removes
EFFORT_OF_EMOTION = {"angry": 0.15, "surprise": 0.50, "happy": 0.10, "fear": 0.12, "upset": -0.08, "sad": -0.12}
"""Relative change of the mouth's opening at full intensity. By RAVDESS' action units 25 and 26 the mouth opens wider in
angry, surprised, happy and fearful speech, and less in sad speech."""

LEAST_SQUARE = 1e-9  # of a posterior whose labels are all absent

Values = TypeVar("Values", Tensor, NDArray[np.float32])

WIDENERS = tuple(i for name in ("mouthSmile", "mouthStretch", "mouthDimple", "mouthFrown") for i in arkit_columns(name))
OPENING_CHANNELS = (JAW_OPEN, *(i for name in OPENERS for i in arkit_columns(name)))


def has_rules(labels: Sequence[str]) -> bool:
    """Whether the table has an expression for each of these emotions."""
    return set(labels) <= set(EMOTIONS)


def onset_kernel(frames: int) -> Tensor:
    """Weights (H,) of the last H frames, the current one last, that sum to 1."""
    age = torch.arange(frames).flip(0) / FRAME_RATE
    kernel = (age + 0.5 / FRAME_RATE) * torch.exp(-age / ONSET)
    return kernel / kernel.sum()


def activate(posterior: Tensor, intensity: Tensor) -> Tensor:
    """Activations (B, T, C) of the emotions: intensity (B, T) times posterior (B, T, C)."""
    return intensity[..., None].float() * posterior.float()


def sharpen(posterior: Values) -> Values:
    """Squared and normalised posterior (..., C), a tensor or an array: what a face shows of it.

    A diarizer that reads half anger, a third fear and some sadness is uncertain of one emotion. The sum of the three
    expressions is not that of anger, and no observer reads it.
    """
    squared = posterior * posterior
    sharp: Values = squared / (squared.sum(-1) + LEAST_SQUARE)[..., None]
    return sharp


def repeat_first(activation: Tensor, frames: int) -> Tensor:
    """Activations (B, frames + T, C) that start with the first one of (B, T, C), repeated."""
    return torch.cat([activation[:, :1].expand(-1, frames, -1), activation], dim=1)


class ExpressionRules(nn.Module):
    """Adds the expression of emotions to the ARKit weights of speaking lips.

    Args:
        labels: the emotions of the activations, all of them in `EMOTIONS`.
        frames: of history that an expression is averaged over.
    """

    kernel: Tensor  # (H,)
    table: Tensor  # (C, 52), weights of each emotion
    effort: Tensor  # (C,)
    emotional: Tensor  # (C,), 0 for neutral
    share: Tensor  # (52,), of an expression that speech leaves
    gap: Tensor  # (52,), mm between the lips for a weight of 1
    width: Tensor  # (52,), mm between the corners of the mouth for a weight of 1
    jaw: Tensor  # (52,), 1 for jawOpen
    widen: Tensor  # (52,), 1 for WIDENERS
    part: Tensor  # (52,), 1 for OPENING_CHANNELS

    def __init__(self, labels: Sequence[str], frames: int) -> None:
        super().__init__()
        measures = default_measures().matrix
        widen, part = (torch.zeros(len(ARKIT_NAMES)) for _ in range(2))
        widen[list(WIDENERS)], part[list(OPENING_CHANNELS)] = 1.0, 1.0
        constants = {
            "kernel": onset_kernel(frames),
            "table": torch.from_numpy(emotion_weights(labels)),
            "effort": torch.tensor([EFFORT_OF_EMOTION.get(label, 0.0) for label in labels]),
            "emotional": torch.tensor([float(any(EMOTIONS[label])) for label in labels]),
            "share": torch.tensor([MOUTH_SHARE.get(_plain(name), 1.0) for name in ARKIT_NAMES]),
            "gap": torch.from_numpy(np.ascontiguousarray(measures[:, GAP])),
            "width": torch.from_numpy(np.ascontiguousarray(measures[:, WIDTH])),
            "jaw": torch.eye(len(ARKIT_NAMES))[JAW_OPEN],
            "widen": widen,
            "part": part,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def average(self, history: Tensor) -> Tensor:
        """Activations (B, T, C) with gradual onset, of activations (B, H - 1 + T, C)."""
        return history.unfold(1, len(self.kernel), 1) @ self.kernel.to(history.dtype)

    def forward(self, lips: Tensor, activation: Tensor) -> Tensor:
        """ARKit weights (..., 52) of lips (..., 52) in 0..1 with the expression of activations (..., C)."""
        intensity = (activation @ self.emotional).clamp(max=1)
        activation = activation * (1 + GROWTH * (1 - intensity))[..., None]
        opening = (lips @ self.gap).clamp(min=0)
        rounded = ((lips[..., MOUTH_PUCKER] + lips[..., MOUTH_FUNNEL]) / FULL_ROUNDING).clamp(max=1)
        contact = (lips[..., ROLL_LOWER] / FULL_CONTACT).clamp(max=1)
        free = ((opening - CLOSED_GAP) / FREE_GAP).clamp(0, 1) * (1 - CONTACT_DAMPING * contact)
        expression = (activation @ self.table) * self.share
        expression = expression * (1 - ROUNDING_DAMPING * rounded[..., None] * self.widen)
        expression = expression * (1 - (1 - free)[..., None] * self.part)
        effort = (activation @ self.effort) * opening / self.gap[JAW_OPEN]
        return lips + expression + effort[..., None] * self.jaw


def _plain(name: str) -> str:
    """A blendshape's name without its side."""
    return name.removesuffix("Left").removesuffix("Right")
