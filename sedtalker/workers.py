"""Replaceable worker processes: if one dies, only its current task is tried again; none outlives its parent.

`concurrent.futures.ProcessPoolExecutor` fails every pending task when one of its processes dies. Here each process has
a separate pipe. The parent therefore knows the task of a dead process, starts a new process and tries the task again.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from sedtalker.errors import SEDTalkerError
from sedtalker.signals import Ending, raise_on_signals

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 2  # per task; the second one runs last, when fewer processes share the memory
_GRACE = 10.0  # seconds for a process, on a busy machine, to remove its temporary files before it is killed


@dataclass(frozen=True)
class WorkerDeath:
    """The result of a task whose process died at every attempt."""

    reason: str


@dataclass
class _Attempt(Generic[Task]):
    task: Task
    number: int = 1


@dataclass(eq=False)
class _Worker(Generic[Task]):
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    attempt: _Attempt[Task] | None = None


def map_in_workers(
    make: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    count: int,
    on_death: Callable[[Task], None] = lambda task: None,
) -> Iterator[tuple[Task, Result | WorkerDeath]]:
    """Apply a function to each task in up to `count` processes; yields (task, result) in the order of completion.

    Args:
        make: called once in each process; returns the function. `make`, tasks and results are pickled.
        tasks: arguments of the function, one per call.
        count: maximum number of processes.
        on_death: called with the task whose process has died.

    Raises:
        SEDTalkerError: no process could be started. Exceptions of `make` and of the function are raised unchanged.
    """
    yield from _Pool(make, tasks, count, on_death).run()


class _Pool(Generic[Task, Result]):
    """The processes and the tasks without a result of `map_in_workers`."""

    def __init__(
        self,
        make: Callable[[], Callable[[Task], Result]],
        tasks: Sequence[Task],
        count: int,
        on_death: Callable[[Task], None],
    ) -> None:
        self._make, self._count, self._on_death = make, count, on_death
        self._queue = deque(_Attempt(task) for task in tasks)
        self._remaining = len(self._queue)
        self._workers: list[_Worker[Task]] = []
        self._stopping: list[_Worker[Task]] = []
        self._failed_starts, self._any_ready = 0, False
        self._reason = ""  # of the last death

    def run(self) -> Iterator[tuple[Task, Result | WorkerDeath]]:
        """Yield (task, result) in the order of completion; all processes have ended afterwards."""
        try:
            while self._remaining:
                while len(self._workers) < min(self._count, self._remaining) and self._failed_starts < ATTEMPTS:
                    self._workers.append(_start(self._make))
                if not self._workers:
                    yield from self._give_up()
                    return
                self._stop_idle()
                for worker in self._workers:
                    if worker.ready and not worker.attempt and self._queue:
                        _assign(worker, self._queue)
                pipes = {worker.pipe: worker for worker in self._workers}
                for pipe in connection.wait(list(pipes)):
                    yield from self._receive(pipes[pipe])  # type: ignore[index]
        finally:
            _stop(self._workers, self._stopping)

    def _give_up(self) -> Iterator[tuple[Task, WorkerDeath]]:
        """No process starts: raise if none ever did, else fail the tasks in the queue."""
        if not self._any_ready:
            raise SEDTalkerError(
                f"no worker process starts: the last one {self._reason}. Use fewer --jobs, or free memory"
            )
        for attempt in self._queue:
            yield attempt.task, WorkerDeath(f"did not start: the last one {self._reason}")

    def _stop_idle(self) -> None:
        """End processes for which no task is left, which frees their memory for the others."""
        idle = [worker for worker in self._workers if worker.ready and not worker.attempt]
        for worker in idle[: max(0, len(self._workers) - self._remaining)]:
            self._workers.remove(worker)
            worker.pipe.close()
            self._stopping.append(worker)

    def _receive(self, worker: _Worker[Task]) -> Iterator[tuple[Task, Result | WorkerDeath]]:
        """Read the message of a process; yields the result of its task, if it has one."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(worker)
            return
        if kind == "ready":
            worker.ready, self._any_ready, self._failed_starts = True, True, 0
        elif kind == "done" and worker.attempt is not None:
            finished, worker.attempt = worker.attempt.task, None
            self._remaining -= 1
            if self._queue:
                _assign(worker, self._queue)  # before the yield: it computes while the caller uses the result
            yield finished, value
        elif kind == "not made" and self._any_ready:
            self._workers.remove(worker)
            self._stopping.append(worker)
            self._failed_starts += 1
            self._reason = f"did not start ({value})"
        else:
            raise value

    def _replace(self, worker: _Worker[Task]) -> Iterator[tuple[Task, WorkerDeath]]:
        """Remove a process that has died; its task is tried again, or its result is the death."""
        self._workers.remove(worker)
        self._reason = _exit_reason(worker)
        if not worker.ready:
            self._failed_starts += 1
        if worker.attempt is None:
            return
        task, number = worker.attempt.task, worker.attempt.number
        self._on_death(task)
        if number < ATTEMPTS:
            self._queue.append(_Attempt(task, number + 1))
        else:
            self._remaining -= 1
            yield task, WorkerDeath(self._reason)


class BackgroundWorker(Generic[Task, Result]):
    """One process that gets ready while the caller computes, and ends with the block: submit a task, wait for it."""

    def __init__(self, make: Callable[[], Callable[[Task], Result]]) -> None:
        """`make` is called in the process; returns the function of the tasks. All of them are pickled."""
        self._worker: _Worker[Task] = _start(make)

    def __enter__(self) -> BackgroundWorker[Task, Result]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a task that was submitted afterwards has the result of a dead process."""
        _stop([self._worker], [])

    @contextmanager
    def close_on_error(self) -> Iterator[None]:
        """End the process if the block raises, so that it no longer writes."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def submit(self, task: Task) -> None:
        """Give the process its next task; `wait` first for the one before."""
        self._worker.attempt = _Attempt(task)
        with suppress(OSError):  # the process has died, which `wait` reports
            self._worker.pipe.send(task)

    def wait(self) -> Result | WorkerDeath:
        """The result of the submitted task. Exceptions of `make` and of the function are raised unchanged."""
        while True:
            try:
                kind, value = self._worker.pipe.recv()
            except (EOFError, OSError):
                return WorkerDeath(_exit_reason(self._worker))
            if kind == "ready":
                self._worker.ready = True
                continue
            self._worker.attempt = None
            if kind == "done":
                result: Result = value
                return result
            raise value


def _assign(worker: _Worker[Task], queue: deque[_Attempt[Task]]) -> None:
    attempt = worker.attempt = queue.popleft()  # before it is sent, so that a signal meanwhile ends a busy process
    try:
        worker.pipe.send(attempt.task)
    except OSError:  # the process died while it was idle; the task has not started
        worker.attempt = None
        queue.appendleft(attempt)


def _start(make: Callable[[], Callable[[Task], Any]]) -> _Worker[Task]:
    context = get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_run_worker, args=(child_end, make), daemon=True)
    with _block_interrupts():
        process.start()
    child_end.close()  # now the pipe closes when the process ends
    return _Worker(process, parent_end)


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Block Ctrl-C in processes started within it: a terminal sends it to all of them, but the parent must end them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_reason(worker: _Worker[Any]) -> str:
    """The end of a process as a predicate: "ended with exit code 1"."""
    worker.pipe.close()
    worker.process.join(_GRACE)
    code = worker.process.exitcode
    if code is None:
        worker.process.kill()
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (perhaps out of memory)" if name == "SIGKILL" else "")


def _stop(workers: Sequence[_Worker[Any]], stopping: Sequence[_Worker[Any]]) -> None:
    """End all processes: busy ones get `_GRACE` seconds to remove their temporary files, then they are killed."""
    for worker in workers:
        if worker.attempt is not None or not worker.ready:
            worker.process.terminate()
        with suppress(OSError):
            worker.pipe.close()
    deadline = time.monotonic() + _GRACE
    for worker in (*workers, *stopping):
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()


def _run_worker(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """Main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The exit handlers of the interpreter and of libraries must not see a SystemExit: they run outside the block.
    # Further signals must not interrupt the `finally` blocks that remove temporary files.
    with raise_on_signals(Ending(signal.SIGTERM, partial(SystemExit, 128 + signal.SIGTERM), signal.SIG_IGN)):
        _answer_tasks(pipe, make)


def _answer_tasks(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """Send "ready", or the exception of `make`; then one answer per task until the parent closes the pipe."""
    threading.Thread(target=watch_parent, daemon=True).start()
    try:
        try:
            function = make()
        except Exception as error:
            pipe.send(("not made", _make_picklable(error)))
            return
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            try:
                answer = "done", function(task)
            except Exception as error:
                answer = "raised", _make_picklable(error)
            pipe.send(answer)
    except (EOFError, OSError):  # the parent closed the pipe: no more tasks
        return


def watch_parent() -> None:
    """End this process when its parent has ended, for any reason; for a thread of a worker process."""
    parent = parent_process()
    if parent is None:
        return
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _make_picklable(error: Exception) -> Exception:
    """The exception itself, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
