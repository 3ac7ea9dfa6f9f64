"""Worker processes that can be replaced: one that dies costs one attempt at one task, and none outlives its parent.

`concurrent.futures.ProcessPoolExecutor` fails every pending task when one of its processes dies. Here each process has
a pipe of its own, so the parent knows what a dead one was doing, starts another in its place and tries the task again.
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

ATTEMPTS = 2  # at one task; the second is made last, when less runs at the same time
_GRACE = 5.0  # seconds that a process has to remove its temporary files before it is killed


@dataclass(frozen=True)
class WorkerDeath:
    """The outcome of a task whose process died at every attempt."""

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
        make: called once in each process; returns the function. Both it and the results are pickled.
        tasks: what the function is applied to, one at a time.
        count: largest number of processes.
        on_death: called with a task when the process that worked on it has died.

    Raises:
        SEDTalkerError: no process could be started. An exception of `make` or of the function is raised here as it is.
    """
    queue = deque(_Attempt(task) for task in tasks)
    workers: list[_Worker[Task]] = []
    ending: list[_Worker[Task]] = []
    left, failed_starts, worked, reason = len(queue), 0, False, ""
    try:
        while left:
            while len(workers) < min(count, left) and failed_starts < ATTEMPTS:
                workers.append(_start(make))
            if not workers:
                if not worked:
                    raise SEDTalkerError(
                        f"no worker process starts: the last {reason}. Use fewer --jobs, or free memory"
                    )
                for attempt in queue:
                    yield attempt.task, WorkerDeath(f"no worker process starts: the last {reason}")
                return
            while len(workers) > left and (idle := next((w for w in workers if w.ready and not w.attempt), None)):
                workers.remove(idle)  # its memory is better used by the others
                idle.pipe.close()
                ending.append(idle)
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
                    reason = _epitaph(worker)
                    if not worker.ready:
                        failed_starts += 1
                    if worker.attempt is None:
                        continue
                    task, number = worker.attempt.task, worker.attempt.number
                    on_death(task)
                    if number < ATTEMPTS:
                        queue.append(_Attempt(task, number + 1))
                    else:
                        left -= 1
                        yield task, WorkerDeath(reason)
                    continue
                if kind == "ready":
                    worker.ready, worked, failed_starts = True, True, 0
                elif kind == "done" and worker.attempt is not None:
                    finished, worker.attempt = worker.attempt.task, None
                    left -= 1
                    if queue:
                        _assign(worker, queue)  # it works while the caller looks at the result
                    yield finished, value
                elif kind == "not made" and worked:
                    workers.remove(worker)
                    ending.append(worker)
                    failed_starts += 1
                    reason = f"did not start ({value})"
                else:
                    raise value
    finally:
        _stop(workers, ending)


def _assign(worker: _Worker[Task], queue: deque[_Attempt[Task]]) -> None:
    attempt = queue.popleft()
    try:
        worker.pipe.send(attempt.task)
        worker.attempt = attempt
    except OSError:  # it died while it had nothing to do: the task was not begun
        queue.appendleft(attempt)


def _start(make: Callable[[], Callable[[Task], Any]]) -> _Worker[Task]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make), daemon=True)
    with _interrupts_blocked():
        process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, ours)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started here do not see Ctrl-C, which a terminal sends to all of them; the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _epitaph(worker: _Worker[Any]) -> str:
    """How a process ended, in words that follow "the process"."""
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


def _stop(workers: Sequence[_Worker[Any]], ending: Sequence[_Worker[Any]]) -> None:
    """End all processes: what is busy removes its temporary files first, what does not end in time is killed."""
    for worker in workers:
        if worker.attempt is not None or not worker.ready:
            worker.process.terminate()
        with suppress(OSError):
            worker.pipe.close()
    deadline = time.monotonic() + _GRACE
    for worker in (*workers, *ending):
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()


def _serve(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """Main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        try:
            function = make()
        except Exception as error:
            pipe.send(("not made", _portable(error)))
            return
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            try:
                answer = "done", function(task)
            except Exception as error:
                answer = "raised", _portable(error)
            pipe.send(answer)
    except (EOFError, OSError):  # the parent closed the pipe: there is nothing more to do
        return


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """End this process when its parent is gone, however that ended."""
    parent = parent_process()
    if parent is None:
        return
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The exception, or one of the same words where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
