"""How worker processes end."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sedtalker.signals import Ending, raise_on_signals
from sedtalker.workers import BackgroundWorker, WorkerDeath, map_in_workers


def terminate_itself() -> None:
    """An exit handler that receives SIGTERM, as from a parent that stops its workers at this moment."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


class FailingLoader:
    """Fails to make the function, in a process that receives SIGTERM while it shuts down."""

    def __call__(self) -> type[str]:
        atexit.register(terminate_itself)
        raise ValueError("no model")


def run_failing_loader() -> None:
    with pytest.raises(ValueError, match="no model"):
        list(map_in_workers(FailingLoader(), ["task"], 1))


def run_here(function: str) -> subprocess.CompletedProcess[str]:
    """Run a function of this module in a new process."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_workers\n"
    script += f"if __name__ == '__main__':\n    test_workers.{function}()\n"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


def test_sigterm_during_shutdown_ends_a_worker_without_output() -> None:
    start = time.monotonic()
    run = run_here("run_failing_loader")
    assert (run.returncode, run.stderr) == (0, "")
    assert time.monotonic() - start < 50


class SlowCleanup:
    """A task that receives a second SIGTERM while it removes its temporary file."""

    def __call__(self) -> SlowCleanup:
        return self

    def run(self, folder: Path) -> None:
        (folder / "temporary").write_text("")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second signal, such as that of the parent's watcher
            (folder / "temporary").unlink()


def make_slow_cleanup():
    return SlowCleanup().run


def test_a_second_sigterm_does_not_interrupt_the_cleanup(tmp_path: Path) -> None:
    ((task, result),) = map_in_workers(make_slow_cleanup, [tmp_path], 1)
    assert task == tmp_path and "exit code 143" in result.reason
    assert not (tmp_path / "temporary").exists()


def divide_ten_by(number: int) -> float:
    if number < 0:
        os._exit(9)
    return 10 / number


def make_divider():
    return divide_ten_by


def test_background_worker_returns_results_and_raises_errors() -> None:
    with BackgroundWorker(make_divider) as worker:
        worker.submit(4)
        assert worker.wait() == 2.5
        worker.submit(0)
        with pytest.raises(ZeroDivisionError):
            worker.wait()
        worker.submit(5)
        assert worker.wait() == 2.0
        worker.submit(-1)
        assert worker.wait() == WorkerDeath("ended with exit code 9")
        worker.submit(5)
        assert isinstance(worker.wait(), WorkerDeath)


def test_background_worker_ends_where_the_caller_fails() -> None:
    worker = BackgroundWorker(make_divider)
    with pytest.raises(OSError, match="disk full"), worker, worker.close_on_error():
        raise OSError("disk full")
    worker.submit(5)
    assert isinstance(worker.wait(), WorkerDeath)


def work_slowly(folder: Path) -> None:
    (folder / "temporary").write_text("")
    try:
        time.sleep(60)
    finally:
        (folder / "temporary").unlink()


def make_slow_task():
    return work_slowly


def test_a_signal_while_a_task_is_sent_ends_its_process_as_a_busy_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Connection.send

    def send_and_stop(self: Connection, task: object) -> None:
        send(self, task)
        while not (tmp_path / "temporary").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "send", send_and_stop)
    with pytest.raises(KeyboardInterrupt):
        list(map_in_workers(make_slow_task, [tmp_path], 1))
    assert not (tmp_path / "temporary").exists()


class LostSignal:
    """Receives SIGTERM in a callback of compiled code, through which no exception can pass, and then waits."""

    def __call__(self) -> None:
        callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
        callback()
        time.sleep(60)


def run_lost_signal() -> None:
    with BackgroundWorker(LostSignal()) as worker:
        print(worker.wait())


def run_lost_signal_with_error() -> None:
    """As `LostSignal`, but in this process and with an error that results from the lost exception."""
    with raise_on_signals(Ending(signal.SIGTERM, partial(SystemExit, 143), signal.SIG_DFL)):
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))()
        raise RuntimeError("no compiled object yet")


class Noisy:
    def __del__(self) -> None:
        raise BufferError("existing exports")


def run_signal_with_noise() -> None:
    """A destructor fails while an exception of a signal ends the process."""
    noisy = Noisy()
    with raise_on_signals(Ending(signal.SIGTERM, partial(SystemExit, 143), signal.SIG_DFL)):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            del noisy


@pytest.mark.parametrize(
    ("function", "code", "output"),
    [
        ("run_lost_signal", 0, "WorkerDeath(reason='ended with exit code 143')\n"),
        ("run_lost_signal_with_error", 143, ""),
        ("run_signal_with_noise", 143, ""),
    ],
)
def test_a_signal_ends_the_process_without_a_traceback(function: str, code: int, output: str) -> None:
    start = time.monotonic()
    run = run_here(function)
    assert (run.returncode, run.stdout, run.stderr) == (code, output, "")
    assert time.monotonic() - start < 40  # the work that is ended would take a minute
