"""Drawing frames in a thread pool, and the number of threads that a process may use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_QUEUE_PER_THREAD = 2  # results that each thread may compute ahead of the consumer


_thread_limit: int | None = None  # of the whole process, as with `torch.set_num_threads`


def limit_threads(count: int | None) -> None:
    """Limit the drawing threads of this process, for example to its share among parallel workers; None for no limit."""
    global _thread_limit
    _thread_limit = count


def available_threads() -> int:
    """Number of processors that this process may use, up to the limit."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors if _thread_limit is None else min(_thread_limit, processors)


def map_in_order(function: Callable[[In], Out], items: Iterable[In], threads: int | None = None) -> Iterator[Out]:
    """Apply a function that releases the interpreter lock to each item in a thread pool; yield results in order.

    Only a few results are queued, however many items there are. An error is raised at the position of its item.
    """
    threads = threads or available_threads()
    queue: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="draw") as pool:
        try:
            for item in items:
                queue.append(pool.submit(function, item))
                if len(queue) > threads * _QUEUE_PER_THREAD:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()
