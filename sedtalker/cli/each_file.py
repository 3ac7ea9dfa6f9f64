"""Several files in one command: an error of one of them does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from sedtalker.errors import SEDTalkerError


def process_each(files: Iterable[Path], work: Callable[[Path], None]) -> bool:
    """Call `work` with every file; prints each error as a line on stderr, returns whether a file failed."""
    failed = False
    for path in files:
        try:
            work(path)
        except SEDTalkerError as error:
            failed = True
            print(f"sedtalker: {error}", file=sys.stderr)
    return failed
