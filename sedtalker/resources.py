"""Paths of packaged files, the cache folder, and settings of libraries that are read at import."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _find_packaged(folder: str) -> Path:
    installed = _PACKAGE / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder


def asset(*parts: str) -> Path:
    """Path of a file or folder in `assets/`, in a wheel as well as in a checkout."""
    return _find_packaged("assets").joinpath(*parts)


def config(*parts: str) -> Path:
    """Path of a file or folder in `configs/`, in a wheel as well as in a checkout."""
    return _find_packaged("configs").joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """A writable folder for files that can be made again; it is created if missing.

    The first that can be written of: `SEDTALKER_CACHE`, the user's cache folder, one of the user in the temporary
    folder, one of this process there.
    """
    named = os.environ.get("SEDTALKER_CACHE")
    home = os.path.expanduser("~")  # noqa: PTH111, Path.expanduser raises without a home
    home_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    user = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = [Path(named)] if named else []
    candidates += [] if str(home_cache).startswith("~") else [home_cache / "sedtalker"]
    candidates += [Path(tempfile.gettempdir(), f"sedtalker-{user}")]
    for candidate in candidates:
        folder = candidate.joinpath(*parts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    folder = Path(_process_folder(), *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@lru_cache(maxsize=1)
def _process_folder() -> str:
    """A temporary folder of this process."""
    return tempfile.mkdtemp(prefix="sedtalker-")


@contextmanager
def short_openmp_spin() -> Iterator[None]:
    """Shorten the busy wait of OpenMP threads, if torch is first imported in this block.

    Busy waiting makes the speech model three times as slow where other programs use the processors too. OpenMP reads
    the variable when torch is imported; the environment is the same after the block.
    """
    name = "GOMP_SPINCOUNT"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1000"
    try:
        yield
    finally:
        os.environ.pop(name, None)


@contextmanager
def pause_collection() -> Iterator[None]:
    """Pause the garbage collector if large packages are first imported in this block, and exempt them from it.

    Each of its passes over the million objects of torch takes 0.1 s.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
