"""`sedtalker`: the entry point, its sub-commands and their exit codes (0 done, 1 an input failed, 2 wrong usage)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

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
from sedtalker.cli.start import INTERRUPTED, end_command, exit_at_once
from sedtalker.errors import SEDTalkerError, UsageError, name_missing_extras, one_line, reason_of, warnings_as_lines
from sedtalker.resources import short_openmp_spin
from sedtalker.signals import Ending, raise_on_signals

COMMANDS = (
    animate, diarize, voice, render, export, face, serve, verify, critique, train, evaluate, data, bench, demo, doctor,
    licences,
)  # fmt: skip


class OneLineParser(argparse.ArgumentParser):
    """A parser that prints a usage error as one line, with the command that shows the help."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse unknown arguments here, so that the error names the sub-command and not `sedtalker`."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

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


def _endings() -> list[Ending]:
    """SIGTERM and SIGHUP, unless the process ignores them, and Ctrl-C. A second SIGTERM ends the process at once."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    endings = [
        Ending(number, partial(_Terminated, number), signal.SIG_DFL)
        for number in numbers
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, exit_at_once):
        endings.append(Ending(signal.SIGINT, KeyboardInterrupt, signal.default_int_handler))
    return endings


def _check_dashes(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Refuse the name of an existing file that argparse would read as an option."""
    for word in [] if "--" in words else words:
        if word.startswith("-") and "." in word and Path(word).is_file():
            parser.error(f"a file whose name starts with a dash looks like an option: {word}. Write ./{word}")


def _check_replaced(arguments: argparse.Namespace) -> None:
    """Raise UsageError if a file that the command writes is one that it reads."""
    values = vars(arguments).copy()
    written = [*_existing_files(values.pop("output", None)), *_existing_files(values.pop("plot", None))]
    read = [file for value in values.values() for file in _existing_files(value)] if written else []
    for file in read:
        if any(file.samefile(output) for output in written):
            raise UsageError(f"the output would replace an input: {file}. Choose another file with -o")


def _existing_files(value: object) -> list[Path]:
    """The files among the paths and texts in the value of an argument."""
    if isinstance(value, list | tuple):
        return [file for item in value for file in _existing_files(item)]
    with suppress(OSError, ValueError):  # a text that cannot be a path
        if isinstance(value, str | Path) and Path(value).is_file():
            return [Path(value)]
    return []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # file names may contain characters that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    _check_dashes(parser, sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    try:
        with raise_on_signals(*_endings()), warnings_as_lines(), short_openmp_spin(), name_missing_extras():
            _check_replaced(arguments)
            code = arguments.run(arguments)
            if sys.stdout is not None:
                sys.stdout.flush()  # raises here, and not when the interpreter ends
            return code
    except SEDTalkerError as error:
        if arguments.debug:
            raise
        print(f"sedtalker: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("sedtalker: stopped", file=sys.stderr)
        return INTERRUPTED
    except _Terminated as stopped:
        print("sedtalker: stopped", file=sys.stderr)
        return 128 + stopped.number
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has gone; the interpreter would print a second error
        return 1
    except Exception as error:  # a bug, or a full disk behind the standard output
        if arguments.debug:
            raise
        print(f"sedtalker: {_describe_unexpected(error)}", file=sys.stderr)
        _discard_output()
        return 1


def run_command() -> NoReturn:
    """Run the command line and end the process."""
    end_command(main())


def _describe_unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:  # of the file system, not a bug
        return one_line(f"{reason_of(error)}: {error.filename}. Check the path, its permissions and the free space")
    return f"unexpected {type(error).__name__} ({reason_of(error)}). Run with --debug"


def _discard_output() -> None:
    """Redirect the standard output if it cannot be written, so that the interpreter prints no second error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
