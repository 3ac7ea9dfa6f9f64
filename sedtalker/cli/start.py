"""The start and the end of the process of the command line.

Ctrl-C is one line also while the modules are imported. At the end torch is not freed, which would take 0.2 s.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

INTERRUPTED = 130  # exit code, as of a shell

_exit_code: int | None = None  # of the command, when it has ended


def exit_at_once(number: int, frame: object) -> NoReturn:
    """Handler of SIGINT while no work is done and nothing has to be removed."""
    try:
        os.write(2, b"sedtalker: stopped\n")
    finally:
        os._exit(INTERRUPTED)


@atexit.register  # when this module is imported, before others register handlers: the last of them all to run
def _end_process() -> None:
    """End the process of a command that has ended, unless its output cannot be written, which Python then reports."""
    if _exit_code is not None:
        with suppress(OSError, ValueError):  # a stream that is full or closed
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(_exit_code)


def end_command(code: int) -> NoReturn:
    """Wait for the threads, run the exit handlers and end the process, without freeing what it has imported."""
    global _exit_code
    _exit_code = code
    sys.exit(code)


def start() -> NoReturn:
    """Run the command line and end the process; the entry point of the script `sedtalker`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, exit_at_once)
    from sedtalker.cli.main import run_command

    run_command()
