"""`sedtalker`: the entry point, its sub-commands and their exit codes (0 done, 1 an input failed, 2 wrong usage)."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import NoReturn

from sedtalker import __version__
from sedtalker.cli import (
    animate,
    bench,
    critique,
    data,
    demo,
    diarize,
    doctor,
    evaluate,
    export,
    face,
    licences,
    render,
    serve,
    train,
    verify,
    voice,
)
from sedtalker.errors import SEDTalkerError, UsageError, warnings_as_lines
from sedtalker.resources import short_openmp_spin

COMMANDS = (
    animate, diarize, voice, render, export, face, serve, verify, critique, train, evaluate, data, bench, demo, doctor,
    licences,
)  # fmt: skip


class OneLineParser(argparse.ArgumentParser):
    """A parser that prints a usage error as one line, with the command that shows the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sub-parser sets `run`, a function of the parsed arguments."""
    parser = OneLineParser(prog="sedtalker", description="Speech in, an emotional talking 3D face out.")
    parser.add_argument("--version", action="version", version=f"sedtalker {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands, common)
    return parser


class _Terminated(BaseException):
    """SIGTERM or SIGHUP as an exception, so that `finally` blocks remove temporary files and end worker processes."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise `_Terminated`, unless the process ignores them."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the program immediately
        raise _Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        numbers = []
    try:
        for number in numbers:
            signal.signal(number, stop)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # file names may contain characters that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    try:
        with _termination_raises(), warnings_as_lines(), short_openmp_spin():
            return arguments.run(arguments)
    except SEDTalkerError as error:
        if arguments.debug:
            raise
        print(f"sedtalker: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("sedtalker: stopped", file=sys.stderr)
        return 130
    except _Terminated as stopped:
        print("sedtalker: stopped", file=sys.stderr)
        return 128 + stopped.number
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has gone; the interpreter would print a second error
        return 1
