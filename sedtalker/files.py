"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sedtalker.errors import SEDTalkerError

_ASIDE = re.compile(r"\.(?P<stem>.+)~[0-9a-f]{8}(?P<suffix>(\.[^.~]*)?)")


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """A temporary path (for a file or a folder) beside `path`; renamed to it when the block ends well, else deleted.

    The temporary name keeps the suffix, since writers choose their format by it.

    Raises:
        SEDTalkerError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}~{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        put_in_place(aside, path)
    except OSError as error:
        raise SEDTalkerError(
            f"cannot write {final_name(path)}: {error.strerror or error}. Choose another folder with -o, or free space"
        ) from error
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with suppress(OSError):
                aside.unlink()


def final_name(path: Path) -> Path:
    """What a temporary path of `written_whole` is for; any other path is its own."""
    while meant := _ASIDE.fullmatch(path.name):
        path = path.with_name(meant["stem"] + meant["suffix"])
    return path


def put_in_place(aside: Path, path: Path) -> None:
    """Rename a file or folder, in place of what was there: a file of a file, a folder of a folder."""
    if aside.is_dir() and path.is_dir():
        shutil.rmtree(path)
    aside.replace(path)


def sha256(path: Path | str) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
