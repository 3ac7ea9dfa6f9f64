"""Compilation by numba, with the machine code cached in a folder that can be written, and a fast exponential."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import event
from numba.extending import intrinsic

from sedtalker.resources import cache_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Function = TypeVar("Function", bound=Callable[..., Any])

_FOLDERS = ("face", "mamba", "recipes", "render")
_MODULES = (
    "kernels.py", "*_cpu.py", "*/*_cpu.py", "*/config.py", "encoder_config.py", "talker/expression_rules.py",
    "talker/idle_motion.py", "talker/prosody.py",
)  # fmt: skip
"""Modules with compiled functions, and with constants of such: whole folders, and files."""

LOG2_E = 1.4426950408889634
NOTICE_AFTER = 1.0  # s of compilation


class CompilationNotice(event.Listener):
    """Prints on a terminal, once, why a first run takes longer. Numba calls it, under its lock, for each function."""

    def __init__(self) -> None:
        self._depth = 0  # compilations within each other
        self._start = self._seconds = 0.0
        self._done = False

    def on_start(self, event: event.Event) -> None:
        """A function is compiled; it was not in the cache."""
        if not self._depth:
            self._start = time.perf_counter()
        self._depth += 1

    def on_end(self, event: event.Event) -> None:
        """A function was compiled."""
        self._depth -= 1
        if self._depth or self._done:
            return
        self._seconds += time.perf_counter() - self._start
        if self._seconds > NOTICE_AFTER:
            self._done = True
            if sys.stderr is not None and sys.stderr.isatty() and multiprocessing.parent_process() is None:
                print("sedtalker: compiling for this processor, once; later runs start at once", file=sys.stderr)


event.register("numba:compile", CompilationNotice())


def compiler(**options: Any) -> Callable[[Function], Function]:
    """A decorator: `numba.njit` with these options and a cache on the disk.

    The cache's folder is set for the decorated function alone; numba's configuration and the environment do not change.
    It is in the folder that the user set in `NUMBA_CACHE_DIR`, if any.
    """

    def compile_function(function: Function) -> Function:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _cache_folder(before)
        try:  # numba chooses the folder here, and compiles at the first call
            compiled = numba.njit(cache=True, **options)(function)
            if cache := getattr(compiled, "_cache", None):  # there is none with NUMBA_DISABLE_JIT
                cache.save_overload = _save_alone(cache.save_overload, Path(cache.cache_path, "lock"))
            return compiled
        finally:
            numba.config.CACHE_DIR = before

    return compile_function


def _save_alone(save: Callable[..., None], lock: Path) -> Callable[..., None]:
    """`save` of a numba cache, by one process at a time.

    Two processes that save different signatures of a function at once can give both the same name, and numba would call
    the code of the wrong one.
    """

    def save_alone(*arguments: Any) -> None:
        with ExitStack() as stack:
            if fcntl is not None:
                with suppress(OSError):  # a folder that was removed meanwhile is made again by numba
                    fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
            save(*arguments)

    return save_alone


@lru_cache(maxsize=1)
def _cache_folder(user_folder: str | None) -> str:
    """A folder named by the sources of all kernels, in the user's folder or ours.

    Numba checks the file of each kernel alone, and would keep old copies of kernels inlined from other files. In a
    folder with older files it could also load one of them while another process replaces it.
    """
    package = Path(__file__).parent
    sources = sorted(path for folder in _FOLDERS for path in (package / folder).rglob("*.py"))
    sources += sorted({path for pattern in _MODULES for path in package.glob(pattern)})
    digest = hashlib.sha256(
        b"".join([numba.__version__.encode(), *(path.read_bytes() for path in sources)])
    ).hexdigest()
    if not user_folder:
        return str(cache_folder("numba", digest[:16]))
    folder = Path(user_folder, digest[:16])
    with suppress(OSError):  # numba uses another folder if it cannot write to this one
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _float_of(typing_context: Any, value: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(inline="always", fastmath=True)
def exp2(x: float) -> float:
    """2 ** x of a float32 x <= 0 to 2e-7: the integer part is the exponent, a polynomial gives the rest.

    The polynomial is the minimax polynomial of degree 5 on [-0.5, 0.5] for the relative error.
    """
    x = max(x, np.float32(-126.0))
    whole = np.int32(x - np.float32(0.5))
    f = x - np.float32(whole)
    p = np.float32(0.00132764818)
    p = p * f + np.float32(0.00967554655)
    p = p * f + np.float32(0.0555071346)
    p = p * f + np.float32(0.240221202)
    p = p * f + np.float32(0.693146944)
    p = p * f + np.float32(1.00000012)
    return _float_of(np.int32(_bits_of(p) + (whole << np.int32(23))))
