"""Where the packaged files lie, and where files of this machine may be written."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_KERNELS = ("face", "mamba", "render")  # folders whose functions numba compiles


def _packaged(folder: str) -> Path:
    installed = _PACKAGE / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder


def asset(*parts: str) -> Path:
    """Path of a file or folder in `assets/`, in a wheel as well as in a checkout."""
    return _packaged("assets").joinpath(*parts)


def config(*parts: str) -> Path:
    """Path of a file or folder in `configs/`, in a wheel as well as in a checkout."""
    return _packaged("configs").joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """A writable folder for what is costly to make and cheap to lose; made if absent.

    `SEDTALKER_CACHE` names it; otherwise the user's cache folder serves, and the temporary folder where that cannot be
    written (a read-only home, a container without one).
    """
    named = os.environ.get("SEDTALKER_CACHE")
    home = os.path.expanduser("~")  # noqa: PTH111, Path.expanduser raises where there is no home
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
    return Path(tempfile.mkdtemp(prefix="sedtalker-"))


def use_numba_cache() -> None:
    """Give numba a folder that can be written, so that kernels compile once a machine and not once a process.

    The folder is named by the sources of the kernels: numba looks at a kernel's own file alone, and would go on using
    an old copy of a kernel of another file that was compiled into it.

    Call it before numba is imported: numba reads the variable at import.
    """
    sources = sorted(path for folder in _KERNELS for path in (_PACKAGE / folder).glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder("numba", digest)))
