"""Cost of a talker."""

from __future__ import annotations

import numpy as np
import pytest
from test_talker_live import made_talker

from sedtalker.cli.main import main
from sedtalker.evaluation.bench import Soak, live_cost, offline_cost, soak

SOUND = (np.random.default_rng(0).normal(size=40_000) * 0.1).astype(np.float32)


def test_costs_of_a_small_talker() -> None:
    talker = made_talker()
    weights, vertices = offline_cost(talker, SOUND)
    assert 0 < weights < 5 and 0 < vertices < 5
    cost = live_cost(talker, SOUND, 0.08)
    assert 10 <= len(cost.steps) <= 19 and cost.steps.min() > 0
    assert cost.latency > talker.latency()


def test_a_soak_reports_its_parts() -> None:
    seen: list[Soak] = []
    state = soak(made_talker(), SOUND, 0.2, seen.append)
    assert len(seen) == 10 and state.minutes[-1] == pytest.approx(0.2)
    assert all(value > 0 for value in state.cpu)
    assert max(state.megabytes[2:]) - min(state.megabytes[2:]) < 20 or np.isnan(state.megabytes[0])


@pytest.mark.slow
def test_ten_minutes_take_no_more_memory_and_time_at_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    state = soak(made_talker(), SOUND, 10)
    with capsys.disabled():
        print(f"\nCPU seconds a second {state.cpu[1]:.4f} to {state.cpu[-1]:.4f}, MB {state.megabytes}")
    assert state.megabytes[-1] < state.megabytes[1] + 10
    assert min(state.cpu[-3:]) < 2 * min(state.cpu[:3])


@pytest.mark.slow
def test_the_command_prints_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "3"]) == 0
    printed = capsys.readouterr().out
    for part in ("offline:", "chunks of 80 ms", "chunks of 20 ms", "latency", "peak memory"):
        assert part in printed
    with pytest.raises(SystemExit) as error:
        main(["bench", "--look-ahead", "50"])
    assert error.value.code == 2
