"""`sedtalker`: the entry point, its sub-commands and their exit codes (0 done, 1 an input failed, 2 wrong usage)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from sedtalker import __version__
from sedtalker.cli import animate, data, demo, diarize, doctor, evaluate, export, licences, render, train
from sedtalker.errors import SEDTalkerError, UsageError

COMMANDS = (animate, diarize, render, export, train, evaluate, data, demo, doctor, licences)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line: what is wrong, and where to read on."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; each sub-parser sets `run`, a function of the parsed arguments."""
    parser = OneLineParser(prog="sedtalker", description="Speech in, an emotional talking 3D face out.")
    parser.add_argument("--version", action="version", version=f"sedtalker {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except SEDTalkerError as error:
        if arguments.debug:
            raise
        print(f"sedtalker: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("sedtalker: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone; the interpreter would complain once more
        return 1
