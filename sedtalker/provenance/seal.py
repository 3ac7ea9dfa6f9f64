"""Metadata with a checksum, for containers that hold no C2PA manifest: WebM, GLB, VRMA and HTML.

The statement is JSON text: the record, and the sha256 of the file in which the 64 digits of the checksum are zeros.
It shows that a file is damaged or changed. It is not signed: who changes the file can write another checksum.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sedtalker.provenance.record import SOURCE_TYPE, Provenance

_BLANK = "0" * 64
_FORM = re.compile(rb'(\{"record":\{[^\0]{1,20000}?\},"sedtalker":1,"seal":")([0-9a-f]{64})"\}')
_GLB_HEADER = struct.Struct("<4sII")
_CHUNK_HEADER = struct.Struct("<I4s")
_HTML_START = b'<meta charset="utf-8">\n'


@dataclass(frozen=True)
class Statement:
    """A statement that was found in a file."""

    record: dict[str, Any]
    intact: bool  # the checksum fits the file


def statement(provenance: Provenance) -> str:
    """The statement with a blank checksum."""
    return f'{{"record":{provenance.text},"sedtalker":1,"seal":"{_BLANK}"}}'


def seal_file(path: Path, provenance: Provenance) -> None:
    """Add the statement to a .glb, .vrma or .html file; in other files, complete the one that the writer has put in."""
    suffix = path.suffix.lower()
    if suffix in (".glb", ".vrma"):
        _add_to_glb(path, statement(provenance))
    elif suffix == ".html":
        text = statement(provenance).replace("&", "\\u0026").replace("<", "\\u003c").replace("'", "\\u0027")
        meta = f"<meta name='digital-source-type' content='{SOURCE_TYPE}'>\n<meta name='provenance' content='{text}'>\n"
        _insert_after(path, _HTML_START, meta.encode())
    checked = _find(path)
    if checked is not None:
        position, total, _ = checked
        with path.open("r+b") as file:
            file.seek(position)
            file.write(total.encode())


def read_seal(path: Path) -> Statement | None:
    """The statement in a file; None without one."""
    found = _find(path)
    if found is None:
        return None
    _, total, text = found
    return Statement(json.loads(text)["record"], json.loads(text)["seal"] == total)


def _find(path: Path) -> tuple[int, str, str] | None:
    """Position of the checksum, what it should be, and the statement; None without a statement."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _FORM.finditer(data):
            try:
                text = match[0].decode()
                json.loads(text)
            except ValueError:
                continue
            total = hashlib.sha256(data[: match.start(2)])
            total.update(_BLANK.encode())
            for start in range(match.end(2), len(data), 1 << 20):
                total.update(data[start : start + (1 << 20)])
            return match.start(2), total.hexdigest(), text
    return None


def _add_to_glb(path: Path, text: str) -> None:
    """Add the statement to `asset.extras.provenance` of the JSON chunk, which is the first."""
    with path.open("rb") as file:
        magic, version, length = _GLB_HEADER.unpack(file.read(_GLB_HEADER.size))
        size, kind = _CHUNK_HEADER.unpack(file.read(_CHUNK_HEADER.size))
        tree = json.loads(file.read(size))
    extras = tree["asset"].get("extras")
    kept = extras if isinstance(extras, dict) else {}
    tree["asset"]["extras"] = {**kept, "provenance": json.loads(text)}
    chunk = json.dumps(tree, separators=(",", ":")).encode()
    chunk += b" " * (-len(chunk) % 4)
    start = _GLB_HEADER.size + _CHUNK_HEADER.size
    header = _GLB_HEADER.pack(magic, version, length - size + len(chunk)) + _CHUNK_HEADER.pack(len(chunk), kind)
    _rewrite(path, header + chunk, start + size)


def _insert_after(path: Path, start: bytes, added: bytes) -> None:
    """Insert bytes after the first occurrence of `start` in the first KiB of a file."""
    with path.open("rb") as file:
        head = file.read(1024)
    position = head.index(start) + len(start)
    _rewrite(path, head[:position] + added, position)


def _rewrite(path: Path, head: bytes, rest: int) -> None:
    """Replace a file by `head` and its own bytes from the position `rest` on, in constant memory."""
    copy = path.with_name(f"{path.name}.part")
    try:
        with path.open("rb") as source, copy.open("wb") as target:
            target.write(head)
            source.seek(rest)
            shutil.copyfileobj(source, target, 1 << 20)
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)
