"""The learning rate of a run: torch's one-cycle schedule, for every number of steps."""

from __future__ import annotations

import pytest
import torch

from sedtalker.training.schedule import OneCycle


def optimiser() -> torch.optim.AdamW:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": decay} for decay in (0.1, 0.0)]
    return torch.optim.AdamW(groups, 1.0)


def rates(optimizer: torch.optim.AdamW, schedule, steps: int) -> list[tuple[float, ...]]:
    """Rates and momentum of each step."""
    found = []
    for _ in range(steps):
        found.append((*(group["lr"] for group in optimizer.param_groups), optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("steps", "warmup"), [(30, 5), (30, 100), (8, 2), (1000, 100), (5, 2), (3, 2)])
def test_it_is_one_cycle_of_torch(steps: int, warmup: int) -> None:
    theirs, ours = optimiser(), optimiser()
    share = min(0.5, warmup / steps)
    expected = torch.optim.lr_scheduler.OneCycleLR(theirs, [2e-3, 1e-4], total_steps=steps, pct_start=share)
    schedule = OneCycle(ours, [2e-3, 1e-4], steps, warmup)
    for got, wanted in zip(rates(ours, schedule, steps), rates(theirs, expected, steps), strict=True):
        assert got == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0, 1, 2, 100])
def test_any_number_of_steps_and_of_warmup_has_rates(steps: int, warmup: int) -> None:
    optimizer = optimiser()
    found = [rate for rate, _, _ in rates(optimizer, OneCycle(optimizer, [1.0, 1.0], steps, warmup), steps)]
    assert all(0 < rate <= 1 for rate in found)
    if warmup < 2:
        assert found[0] == 1 and found == sorted(found, reverse=True)


def test_a_resumed_run_with_more_steps_uses_its_own_learning_rates() -> None:
    first = optimiser()
    schedule = OneCycle(first, [1.0, 0.5], 8, 2)
    rates(first, schedule, 8)
    again = optimiser()
    longer = OneCycle(again, [0.1, 0.05], 16, 2)
    again.load_state_dict(first.state_dict())  # as Lightning restores them, in this order
    longer.load_state_dict(schedule.state_dict())
    whole = optimiser()
    expected = rates(whole, OneCycle(whole, [0.1, 0.05], 16, 2), 16)[8:]
    for got, wanted in zip(rates(again, longer, 8), expected, strict=True):
        assert got == pytest.approx(wanted)
    assert [group["weight_decay"] for group in again.param_groups] == [0.1, 0.0]
