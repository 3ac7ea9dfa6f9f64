"""Mixture of experts: a router selects a few feed-forward networks for each frame."""

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
        """Outputs of the experts weighted by the router, and a loss () that is 1 if all experts are used equally."""
        frames = x.flatten(0, 1)  # (M, width)
        probability = self.router(frames).softmax(-1)  # (M, experts)
        if self.top_k == len(self.experts):
            y = sum(probability[:, k : k + 1] * expert(frames) for k, expert in enumerate(self.experts))
            return y.view_as(x), x.new_ones(())  # all experts are used equally
        weight, selected = probability.topk(self.top_k, dim=-1)  # (M, top_k)
        y = self._run_selected(frames, weight / weight.sum(-1, keepdim=True), selected)
        return y.view_as(x), balance_loss(probability, selected)

    def _run_selected(self, frames: Tensor, weight: Tensor, selected: Tensor) -> Tensor:
        """Run each expert on the frames that selected it."""
        y = torch.zeros_like(frames)
        for k, expert in enumerate(self.experts):
            frame, rank = (selected == k).nonzero(as_tuple=True)
            if len(frame):
                y = y.index_add(0, frame, (weight[frame, rank, None] * expert(frames[frame])).to(y.dtype))
        return y


def balance_loss(probability: Tensor, selected: Tensor) -> Tensor:
    """Load-balancing loss of Fedus et al. 2022: experts x sum over experts of (share of frames) x (mean probability).

    Args:
        probability: (M, experts) of the router.
        selected: (M, top_k) indices of experts.
    """
    experts = probability.shape[-1]
    share = F.one_hot(selected, experts).float().mean((0, 1))
    return experts * (share * probability.mean(0)).sum()
