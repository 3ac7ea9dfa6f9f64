"""Safe reading of files from others: `.npy` arrays by memory map, and pickles of arrays without running their code.

A pickle is a program. VOCASET, EmoVOCA, BIWI and FLAME ship some (written by Python 2). Only the callables that rebuild
arrays and plain containers are allowed; a file that needs any other is refused, and the error names it.
"""

from __future__ import annotations

import collections
import math
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from sedtalker.errors import DataError, reason_of
from sedtalker.files import read_array_header

_POINTER = b"version https://git-lfs"  # start of the small file that Git LFS puts in place of a large one
_LARGEST_POINTER = 1024  # bytes; they are of 120 to 140


def check_is_content(path: Path) -> None:
    """Check that a file has content and is not a Git LFS pointer.

    Raises:
        DataError: the file is missing, empty or a pointer.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}. Check the folder, or download it from its publisher")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"empty file: {path}. Download it again")
    if size <= _LARGEST_POINTER:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise DataError(
                    f"a Git LFS pointer of {size} bytes, not the data: {path}. Fetch the content with: git lfs pull"
                )


def open_array(path: Path | str) -> np.ndarray:
    """Open a `.npy` file as a read-only memory map.

    Raises:
        DataError: the file is missing, a Git LFS pointer, truncated, another format, or an array of objects.
    """
    path = Path(path)
    check_is_content(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, TypeError, OverflowError, OSError, EOFError) as error:  # also for a shape that cannot be
        raise DataError(_describe_damage(path, error)) from error


def _describe_damage(path: Path, error: Exception) -> str:
    """Why a file cannot be opened: truncated, an array of objects, or another format."""
    try:
        with path.open("rb") as file:
            shape, dtype = read_array_header(file)
            wanted = file.tell() + math.prod(shape) * dtype.itemsize
    except (ValueError, OSError, EOFError):
        return f"not a .npy array: {path} ({reason_of(error)}). Download it again"
    if dtype.hasobject:
        return f"an array of Python objects, not of numbers: {path}. Save it as float32"
    size = path.stat().st_size
    if size < wanted:
        return f"truncated array: {path} holds {size} of {wanted} bytes for shape {shape}. Download it again"
    return f"cannot open the array: {path} ({reason_of(error)}). Download it again"


def load_pickle(path: Path | str) -> Any:
    """Load a pickle of arrays and plain containers; strings and bytes of Python 2 are read as Latin-1.

    Raises:
        DataError: the file is missing, a pointer, damaged, or needs anything but arrays and plain containers.
    """
    path = Path(path)
    check_is_content(path)
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, path).load()
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"the pickle needs more memory than there is: {path}. Download it again") from error
    except Exception as error:  # a damaged pickle can fail in any way that its opcodes can
        raise DataError(
            f"not a readable pickle: {path} ({reason_of(error)}). Download it again from its publisher"
        ) from error


def load_array_dict(path: Path | str) -> dict[str, np.ndarray]:
    """Load a pickled dict of name -> array, such as `templates.pkl` (subject -> (V, 3)) and `FLAME_masks.pkl`.

    Raises:
        DataError: as `load_pickle`, or the pickle holds something else.
    """
    content = load_pickle(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"not a dict of arrays: {path} holds a {type(content).__name__}. Give the publisher's file")
    try:
        arrays = {str(name): np.asarray(array) for name, array in content.items()}
    except ValueError as error:
        raise DataError(f"not a dict of arrays: {path} ({reason_of(error)}). Give the publisher's file") from error
    unfit = [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]
    if unfit:
        raise DataError(f"not numbers: {unfit[0]!r} in {path}. Give the publisher's file")
    return arrays


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that allows only the callables of arrays and plain containers."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"the pickle needs {module}.{name}: {self.path}. Only arrays and plain containers are read; "
                "it may be malicious and was not loaded"
            ) from None

    def persistent_load(self, identity: Any) -> Any:
        raise DataError(f"the pickle refers to objects outside it: {self.path}. Download it again from its publisher")


def _latin1(text: str, encoding: str) -> bytes:
    """Replacement of `_codecs.encode`, used by old protocols for bytes; other codecs (some decompress) are refused."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(
            f"the pickle needs the codec {encoding!r}, which no array needs, so it was not loaded. Download it again"
        )
    return text.encode("latin1")


def _allowed_callables() -> dict[tuple[str, str], Any]:
    rebuild: Any = np.zeros(0).__reduce__()[0]  # numpy's _reconstruct, whose module moved between versions
    scalar: Any = np.float64(0).__reduce__()[0]
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _latin1,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[module, "_reconstruct"] = rebuild
        table[module, "scalar"] = scalar
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        table[module, "_frombuffer"] = _frombuffer
    for module in ("builtins", "__builtin__"):
        for kind in (set, frozenset, bytearray, complex, bool, int, float, str, list, dict, tuple):
            table[module, kind.__name__] = kind
    return table


def _frombuffer(buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """Replacement of the function with which NumPy rebuilds an array of pickle protocol 5."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_ALLOWED = _allowed_callables()
