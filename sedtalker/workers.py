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
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from sedtalker.errors import SEDTalkerError

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 2  # per task; the second one runs last, when fewer processes share the memory
_GRACE = 5.0  # seconds for a process to remove its temporary files before it is killed


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
    queue = deque(_Attempt(task) for task in tasks)
    workers: list[_Worker[Task]] = []
    stopping: list[_Worker[Task]] = []
    remaining, failed_starts, any_ready, reason = len(queue), 0, False, ""
    try:
        while remaining:
            while len(workers) < min(count, remaining) and failed_starts < ATTEMPTS:
                workers.append(_start(make))
            if not workers:
                if not any_ready:
                    raise SEDTalkerError(
                        f"no worker process starts: the last one {reason}. Use fewer --jobs, or free memory"
                    )
                for attempt in queue:
                    yield attempt.task, WorkerDeath(f"did not start: the last one {reason}")
                return
            while len(workers) > remaining and (idle := next((w for w in workers if w.ready and not w.attempt), None)):
                workers.remove(idle)  # frees its memory for the others
                idle.pipe.close()
                stopping.append(idle)
            for worker in workers:
                if worker.ready and not worker.attempt and queue:
                    _assign(worker, queue)
            pipes = {worker.pipe: worker for worker in workers}
            for pipe in connection.wait(list(pipes)):
                worker = pipes[pipe]  # type: ignore[index]
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    reason = _exit_reason(worker)
                    if not worker.ready:
                        failed_starts += 1
                    if worker.attempt is None:
                        continue
                    task, number = worker.attempt.task, worker.attempt.number
                    on_death(task)
                    if number < ATTEMPTS:
                        queue.append(_Attempt(task, number + 1))
                    else:
                        remaining -= 1
                        yield task, WorkerDeath(reason)
                    continue
                if kind == "ready":
                    worker.ready, any_ready, failed_starts = True, True, 0
                elif kind == "done" and worker.attempt is not None:
                    finished, worker.attempt = worker.attempt.task, None
                    remaining -= 1
                    if queue:
                        _assign(worker, queue)  # before the yield: it computes while the caller uses the result
                    yield finished, value
                elif kind == "not made" and any_ready:
                    workers.remove(worker)
                    stopping.append(worker)
                    failed_starts += 1
                    reason = f"did not start ({value})"
                else:
                    raise value
    finally:
        _stop(workers, stopping)


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
    attempt = queue.popleft()
    try:
        worker.pipe.send(attempt.task)
        worker.attempt = attempt
    except OSError:  # the process died while it was idle; the task has not started
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
    signal.signal(signal.SIGTERM, _raise_exit)
    try:
        _answer_tasks(pipe, make)
    finally:  # the exit handlers of the interpreter and of libraries must not see a SystemExit
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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


def _raise_exit(number: int, frame: object) -> None:
    """Signal handler: end the process through its `finally` blocks, which remove temporary files."""
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt them
    raise SystemExit(128 + number)


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
