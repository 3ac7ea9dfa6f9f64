"""Ending the tasks of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

_AGAIN = 0.05  # seconds


async def cancel_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended; their errors are dropped.

    Before Python 3.12 `asyncio.wait_for` loses a cancellation that arrives when its result is ready
    (python/cpython#86296), so the tasks are cancelled until they end.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
