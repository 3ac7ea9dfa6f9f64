"""Pickles of the corpora, read without trusting them: NumPy arrays and plain containers, nothing else.

A pickle is a program. VOCASET, EmoVOCA, BIWI and FLAME ship some (written by Python 2), so the few callables that
rebuild an array are let through, and a file that asks for any other is refused with the name of what it asked for.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from sedtalker.data.arrays import check_is_content
from sedtalker.errors import DataError


def load_pickle(path: Path | str) -> Any:
    """What a pickle of arrays and plain containers holds; strings and bytes of Python 2 are read as latin-1.

    Raises:
        DataError: the file is missing, a pointer, damaged, or asks for anything but arrays and plain containers.
    """
    path = Path(path)
    check_is_content(path)
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, path).load()
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"the pickle asks for more memory than there is: {path}. Get it again") from error
    except Exception as error:  # a damaged pickle can fail in any way that its opcodes can
        raise DataError(f"not a readable pickle: {path} ({error}). Get it again from its publisher") from error


def load_array_dict(path: Path | str) -> dict[str, np.ndarray]:
    """A pickled dict of name -> array, such as `templates.pkl` (subject -> (V, 3)) and `FLAME_masks.pkl`.

    Raises:
        DataError: as `load_pickle`, or it holds something else.
    """
    content = load_pickle(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"not a dict of arrays: {path} holds a {type(content).__name__}. Give the publisher's file")
    try:
        arrays = {str(name): np.asarray(array) for name, array in content.items()}
    except ValueError as error:
        raise DataError(f"not a dict of arrays: {path} ({error}). Give the publisher's file") from error
    unfit = [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]
    if unfit:
        raise DataError(f"not numbers: {unfit[0]!r} in {path}. Give the publisher's file")
    return arrays


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows the callables of arrays and plain containers."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"the pickle asks for {module}.{name}: {self.path}. Only arrays and plain containers are read; "
                "it may be hostile and was not loaded"
            ) from None

    def persistent_load(self, identity: Any) -> Any:
        raise DataError(f"the pickle refers to objects outside it: {self.path}. Get it again from its publisher")


def _latin1(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` does for bytes in an old protocol; other codecs (some decompress) are not needed."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"the pickle asks for the codec {encoding!r}, which no array needs. It was not loaded")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
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
    """How NumPy rebuilds an array of pickle protocol 5."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_ALLOWED = _allowed()
