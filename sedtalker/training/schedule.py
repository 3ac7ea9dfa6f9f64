"""The learning rate over a run: a warm-up to the peak, then a cosine down to nothing (Smith and Topin 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

FIRST = 1 / 25  # of the peak, the rate that the warm-up begins with
LAST = FIRST / 1e4  # of the peak, the rate of the last step
MOMENTUM = (0.95, 0.85)  # Adam's first beta at the ends and at the peak


class OneCycle(LRScheduler):
    """torch's `OneCycleLR`, for any number of steps and of warm-up, which goes on when a run is given more steps.

    `OneCycleLR` divides by zero where the warm-up takes one step, and refuses steps beyond those that a checkpoint
    was made with.
    """

    def __init__(self, optimizer: Optimizer, rates: Sequence[float], steps: int, warmup: int) -> None:
        """`rates` at the peak, for each group of parameters; the warm-up takes at most half of the steps."""
        self.rates, self.steps = list(rates), steps
        self.peak = max(0.0, min(0.5, warmup / steps) * steps - 1)  # the step that has the peak
        self.decays = [group["weight_decay"] for group in optimizer.param_groups]
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at the present step; sets the momentum too."""
        if self.last_epoch < self.peak:
            ends, share = (FIRST, 1.0), self.last_epoch / self.peak
            momenta = MOMENTUM
        else:
            ends, share = (1.0, LAST), min(1.0, (self.last_epoch - self.peak) / max(self.steps - 1 - self.peak, 1e-9))
            momenta = MOMENTUM[::-1]
        momentum = _cosine(*momenta, share)
        for group in self.optimizer.param_groups:
            group["betas"] = (momentum, *group["betas"][1:])
        return [rate * _cosine(*ends, share) for rate in self.rates]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take from a checkpoint the step alone: rates, decay and number of steps are those of this run."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        rates = self.get_lr()
        self._last_lr = list(rates)
        for group, rate, decay in zip(self.optimizer.param_groups, rates, self.decays, strict=True):
            group["lr"], group["weight_decay"] = rate, decay


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
