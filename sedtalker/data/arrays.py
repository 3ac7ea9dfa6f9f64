"""`.npy` files of others, opened with care: by memory map, after what is commonly wrong with them was looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sedtalker.errors import DataError

_POINTER = b"version https://git-lfs"  # the first bytes of what Git LFS leaves in place of a large file
_LARGEST_POINTER = 1024  # bytes; they are of 120 to 140


def check_is_content(path: Path) -> None:
    """Refuse a file that is missing, empty, or a Git LFS pointer in place of the content.

    Raises:
        DataError: it is one of those.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}. Check the folder, or get it from its publisher")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"empty file: {path}. Get it again")
    if size <= _LARGEST_POINTER:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise DataError(
                    f"a Git LFS pointer of {size} bytes, not the data: {path}. Fetch the content with: git lfs pull"
                )


def open_array(path: Path | str) -> np.ndarray:
    """The array of a `.npy` file as a read-only memory map.

    Raises:
        DataError: missing, a pointer, truncated, not such a file, or an array of objects.
    """
    path = Path(path)
    check_is_content(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(_what_is_wrong(path, error)) from error


def _what_is_wrong(path: Path, error: Exception) -> str:
    """Tell a truncated array and an array of objects from a file that is no array at all."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            wanted = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    except (ValueError, OSError, EOFError):
        return f"not a .npy array: {path} ({error}). Get it again"
    if dtype.hasobject:
        return f"an array of Python objects, not of numbers: {path}. Save it as float32"
    size = path.stat().st_size
    if size < wanted:
        return f"truncated array: {path} holds {size} of {wanted} bytes for shape {shape}. Get it again"
    return f"cannot open the array: {path} ({error}). Get it again"
