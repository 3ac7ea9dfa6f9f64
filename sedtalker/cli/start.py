"""The start of the command line: Ctrl-C is one line also while its modules are imported."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

INTERRUPTED = 130  # exit code, as of a shell


def exit_at_once(number: int, frame: object) -> NoReturn:
    """Handler of SIGINT while no work is done and nothing has to be removed."""
    try:
        os.write(2, b"sedtalker: stopped\n")
    finally:
        os._exit(INTERRUPTED)


def start() -> NoReturn:
    """Run the command line and end the process; the entry point of the script `sedtalker`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, exit_at_once)
    from sedtalker.cli.main import run_command

    run_command()
