"""Tasks end although `asyncio.wait_for` loses a cancellation."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("uvicorn")

from sedtalker.serve.cancellation import cancel_tasks


def test_a_task_that_loses_one_cancellation_ends() -> None:
    lost = []

    async def loses_one() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(True)

    async def fails() -> None:
        raise ValueError("dropped")

    async def run() -> list[bool]:
        tasks = [asyncio.create_task(loses_one()), asyncio.create_task(fails())]
        await asyncio.sleep(0.01)
        await asyncio.wait_for(cancel_tasks(tasks), 5)
        return [task.done() for task in tasks]

    assert asyncio.run(run()) == [True, True] and lost
