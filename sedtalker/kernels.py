"""Compilation of functions by numba, with the machine code cached in a folder that can be written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba

from sedtalker.resources import cache_folder

Function = TypeVar("Function", bound=Callable[..., Any])

_FOLDERS = ("face", "mamba", "recipes", "render")  # of the modules with compiled functions


def compiler(**options: Any) -> Callable[[Function], Function]:
    """A decorator: `numba.njit` with these options and a cache on the disk.

    The cache's folder is set for the decorated function alone; numba's configuration and the environment do not change.
    A folder that the user set in `NUMBA_CACHE_DIR` is used instead.
    """

    def compile_function(function: Function) -> Function:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = before or _cache_folder()
        try:  # numba chooses the folder here, and compiles at the first call
            compiled: Function = numba.njit(cache=True, **options)(function)
            return compiled
        finally:
            numba.config.CACHE_DIR = before

    return compile_function


@lru_cache(maxsize=1)
def _cache_folder() -> str:
    """A folder named by the sources of all kernels.

    Numba checks the file of each kernel alone, and would keep old copies of kernels inlined from other files.
    """
    package = Path(__file__).parent
    sources = sorted(path for folder in _FOLDERS for path in (package / folder).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    return str(cache_folder("numba", digest))
