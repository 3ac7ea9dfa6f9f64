"""One-cycle learning rate schedule: a warm-up to the peak, then a cosine to almost 0 (Smith and Topin 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

FIRST = 1 / 25  # learning rate at the start of the warm-up, as a share of the peak
LAST = FIRST / 1e4  # learning rate of the last step, as a share of the peak
MOMENTUM = (0.95, 0.85)  # Adam's first beta at the ends and at the peak


class OneCycle(LRScheduler):
    """torch's `OneCycleLR` for any number of steps and any warm-up, also for a resumed run with more steps.

    `OneCycleLR` divides by zero for a warm-up of one step, and refuses more steps than its checkpoint was made for.
    """

    def __init__(self, optimizer: Optimizer, peak_lrs: Sequence[float], steps: int, warmup: int) -> None:
        """`peak_lrs` has one value per parameter group; the warm-up takes at most half of the steps."""
        self.peak_lrs, self.steps = list(peak_lrs), steps
        self.peak = max(0.0, min(0.5, warmup / steps) * steps - 1)  # step with the highest learning rate
        self.decays = [group["weight_decay"] for group in optimizer.param_groups]
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Learning rate of each group at the current step; also sets the momentum."""
        if self.last_epoch < self.peak:
            ends, share = (FIRST, 1.0), self.last_epoch / self.peak
            momenta = MOMENTUM
        else:
            ends, share = (1.0, LAST), min(1.0, (self.last_epoch - self.peak) / max(self.steps - 1 - self.peak, 1e-9))
            momenta = MOMENTUM[::-1]
        momentum = _cosine(*momenta, share)
        for group in self.optimizer.param_groups:
            group["betas"] = (momentum, *group["betas"][1:])
        return [lr * _cosine(*ends, share) for lr in self.peak_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore only the step; learning rates, weight decay and number of steps are those of this run."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        peak_lrs = self.get_lr()
        self._last_lr = list(peak_lrs)
        for group, lr, decay in zip(self.optimizer.param_groups, peak_lrs, self.decays, strict=True):
            group["lr"], group["weight_decay"] = lr, decay


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
