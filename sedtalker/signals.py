"""Signals that end the program by an exception, so that `finally` blocks remove temporary files."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

_RETRY = 0.05  # seconds until a signal whose exception was lost is repeated


class Ending(NamedTuple):
    """A signal that ends the program."""

    number: int
    exception: Callable[[], BaseException]
    then: Any  # handler of further signals of this number


def _repeat(number: int) -> None:
    """Send a signal to the main thread. On POSIX it also ends a system call in which that thread waits."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    elif (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, number)


@contextmanager
def raise_on_signals(*endings: Ending) -> Iterator[None]:
    """Within it, the first of these signals raises its exception.

    An exception cannot pass through compiled code that calls Python, such as LLVM's when numba compiles: Python prints
    it and goes on. Such an exception is not printed. It replaces an error that results from it, or else the signal is
    repeated. After a signal, errors of destructors are not printed either: the program ends. Handlers are restored at
    the end. Outside the main thread, where Python sets none, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {ending.number: ending for ending in endings}
    before, print_unraisable = {number: signal.getsignal(number) for number in known}, sys.unraisablehook
    raised, lost, timers = dict[BaseException, int](), list[BaseException](), list[threading.Timer]()

    def handle(number: int, frame: object) -> None:
        for ending in endings:
            signal.signal(ending.number, ending.then)
        error = known[number].exception()
        raised[error] = number
        raise error

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if error is None or error not in raised:
            if not raised:
                print_unraisable(unraisable)
            return
        lost.append(error)
        signal.signal(raised[error], handle)
        timers.append(threading.Timer(_RETRY, _repeat, (raised[error],)))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = hook
    for number in known:
        signal.signal(number, handle)
    try:
        yield
    except Exception as error:
        if lost:
            raise lost[-1] from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = (lambda unraisable: None) if raised else print_unraisable
