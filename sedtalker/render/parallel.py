"""Whole frames in parallel, handed out in order, with few in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD = 2  # frames each thread may be ahead of the one who takes them


_share: int | None = None


def use_cores(count: int) -> None:
    """Let this process draw with so many threads: the others' share is not its own."""
    global _share
    _share = count


def cores() -> int:
    """Processors this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return there if _share is None else min(_share, there)


def map_in_order(function: Callable[[In], Out], items: Iterable[In], threads: int | None = None) -> Iterator[Out]:
    """Apply a function that releases the interpreter lock to each item, results in the items' order.

    At most a few results wait, however many items there are. An error reaches the caller at its own place.
    """
    threads = threads or cores()
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="draw") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
