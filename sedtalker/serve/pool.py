"""Worker processes of the model. A session belongs to one worker, whose calls run in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from sedtalker.serve import reasons
from sedtalker.serve.config import ServeConfig
from sedtalker.serve.engine import Description, Engine, call_engine, start_engine

if TYPE_CHECKING:
    from sedtalker.pipeline import Talker

logger = logging.getLogger("sedtalker.serve")


class WorkerLost(Exception):
    """The worker of a session ended unexpectedly; its sessions must end."""


class Worker:
    """One process, or one thread, with an engine."""

    def __init__(self, start: Callable[[], tuple[Executor, Callable[..., Any]]]) -> None:
        self._start = start
        self.executor, self._call = start()
        self.sessions: set[str] = set()

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the engine. Raises WorkerLost, and the exceptions of the method."""
        executor = self.executor
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, self._call, method, *arguments)
        except BrokenExecutor as error:
            if executor is self.executor:  # the first of its sessions to notice starts the next process
                logger.error("a worker process ended; a new one starts", extra={"event": "worker_lost"})
                self.sessions.clear()
                self.executor, self._call = self._start()
            raise WorkerLost(reasons.WORKER_LOST) from error

    async def call_for(self, session: str, method: str, *arguments: Any) -> Any:
        """As `call`, for a session of this worker; raises WorkerLost also later than the loss of its process."""
        if session not in self.sessions:
            raise WorkerLost(reasons.WORKER_LOST)
        return await self.call(method, session, *arguments)


class WorkerPool:
    """The workers, of which the one with the fewest sessions takes the next."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers

    @classmethod
    def of_processes(cls, config: ServeConfig) -> WorkerPool:
        """Start processes that load the same talker."""

        def start() -> tuple[Executor, Callable[..., Any]]:
            executor = start_process(start_engine, config)
            executor.submit(call_engine, "describe")  # loads the talker now
            return executor, call_engine

        return cls([Worker(start) for _ in range(config.workers)])

    @classmethod
    def of_threads(cls, talker: Talker, look_ahead: int | None = None, count: int = 1) -> WorkerPool:
        """Threads of this process that share a talker."""

        def start() -> tuple[Executor, Callable[..., Any]]:
            engine = Engine(talker, look_ahead)
            return ThreadPoolExecutor(1, "engine"), lambda method, *arguments: getattr(engine, method)(*arguments)

        return cls([Worker(start) for _ in range(count)])

    async def describe(self) -> Description:
        """Facts about the talker; returns when all workers have loaded it."""
        descriptions = await asyncio.gather(*(worker.call("describe") for worker in self.workers))
        return descriptions[0]

    def choose(self, session: str) -> Worker:
        """The worker of a new session."""
        worker = min(self.workers, key=lambda worker: len(worker.sessions))
        worker.sessions.add(session)
        return worker

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            stop_executor(worker.executor)


def start_process(initializer: Callable[..., None], *arguments: Any) -> Executor:
    """An executor of one process, which starts now; the libraries in it use one thread."""
    with one_thread_each():
        executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=initializer, initargs=arguments)
        executor.submit(time.time)
    return executor


def stop_executor(executor: Executor) -> None:
    """End an executor and its processes, whose calls are not waited for; a thread ends after its call."""
    processes = list((getattr(executor, "_processes", None) or {}).values())  # `shutdown` forgets them
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        with suppress(OSError, ValueError):
            process.kill()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Libraries of processes that are started in the block use one thread."""
    values = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
