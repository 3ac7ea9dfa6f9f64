"""Mixture of experts: every frame goes through the few feed-forward networks that a router picks for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MixtureOfExperts(nn.Module):
    """x (batch, T, width) -> y (batch, T, width) and the load-balancing loss."""

    def __init__(self, width: int, hidden: int, experts: int = 2, top_k: int = 2) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts' answers weighted by the router, and a loss () that is 1 where all experts get the same share."""
        frames = x.flatten(0, 1)  # (M, width)
        probability = self.router(frames).softmax(-1)  # (M, experts)
        weight, chosen = probability.topk(self.top_k, dim=-1)  # (M, top_k)
        weight = weight / weight.sum(-1, keepdim=True)
        if self.top_k == len(self.experts):
            spread = torch.zeros_like(probability).scatter(-1, chosen, weight)
            y = sum(spread[:, k : k + 1] * expert(frames) for k, expert in enumerate(self.experts))
        else:
            y = self._sparse(frames, weight, chosen)
        return y.view_as(x), balance_loss(probability, chosen)

    def _sparse(self, frames: Tensor, weight: Tensor, chosen: Tensor) -> Tensor:
        """Each expert sees only the frames that chose it."""
        y = torch.zeros_like(frames)
        for k, expert in enumerate(self.experts):
            frame, place = (chosen == k).nonzero(as_tuple=True)
            if len(frame):
                y = y.index_add(0, frame, (weight[frame, place, None] * expert(frames[frame])).to(y.dtype))
        return y


def balance_loss(probability: Tensor, chosen: Tensor) -> Tensor:
    """Fedus et al. 2022: experts x sum over experts of (share of the choices) x (mean probability).

    Args:
        probability: (M, experts) of the router.
        chosen: (M, top_k) experts' indices.
    """
    experts = probability.shape[-1]
    share = F.one_hot(chosen, experts).float().mean((0, 1))
    return experts * (share * probability.mean(0)).sum()
