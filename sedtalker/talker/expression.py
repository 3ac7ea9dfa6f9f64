"""The expression that an emotion adds to speaking lips, computed by rule from the emotion of every frame.

Brows, lids, cheeks and nose are free while a person speaks and get the full expression of the table
`sedtalker.face.action_units.EMOTIONS`. The mouth gets what speech allows: a share of it, less where the lips are
rounded, and nothing that would part the lips where they are closed. So an expression reaches its full size at
intensity 1, grows with the intensity, and never opens a closure; a network that regresses towards the mean does none
of the three. Rises and falls are causal: the expression is an average over the last second of the track.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sedtalker.face.arkit import JAW_OPEN, MOUTH_FUNNEL, MOUTH_PUCKER, ROLL_LOWER
from sedtalker.talker.expression_rules import (
    CLOSED_GAP,
    CONTACT_DAMPING,
    FREE_GAP,
    FULL_CONTACT,
    FULL_ROUNDING,
    GROWTH,
    HELD_GAP,
    ROUNDING_DAMPING,
    rule_arrays,
)
from sedtalker.talker.expression_rules import has_rules as has_rules
from sedtalker.talker.expression_rules import sharpen as sharpen


def activate(posterior: Tensor, intensity: Tensor) -> Tensor:
    """Activations (B, T, C) of the emotions: intensity (B, T) times posterior (B, T, C)."""
    return intensity[..., None].float() * posterior.float()


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
    rise: Tensor  # (52,), mm that the lower lip's middle rises for a weight of 1
    jaw: Tensor  # (52,), 1 for jawOpen
    widen: Tensor  # (52,), 1 for WIDENERS
    part: Tensor  # (52,), 1 for OPENING_CHANNELS

    def __init__(self, labels: Sequence[str], frames: int) -> None:
        super().__init__()
        for name, value in rule_arrays(labels, frames).items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

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
        # A smile lifts both lips. At /f v/ the jaw takes the lower one back to the edge of the upper teeth.
        held = contact * ((opening - CLOSED_GAP) / HELD_GAP).clamp(0, 1)
        wider = (activation @ self.effort) * opening + held * (expression @ self.rise).clamp(min=0)
        return lips + expression + (wider / self.gap[JAW_OPEN])[..., None] * self.jaw
