"""Metadata with a checksum, for containers that hold no C2PA manifest: WebM, GLB, VRMA and HTML.

The statement is JSON text: the record, and the sha256 of the file in which the 64 digits of the checksum are zeros.
It shows that a file is damaged or changed. Without a certificate of the user it is not signed: who changes the file
can write another checksum. With one, it also has a C2PA manifest of the statement in base64 (blank while the checksum
is computed); the manifest holds the hash of the statement, and the statement that of the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sedtalker.errors import SEDTalkerError
from sedtalker.files import final_name
from sedtalker.provenance.manifest import Manifest, read_text_manifest, sign_text
from sedtalker.provenance.record import SOURCE_TYPE, Provenance

_BLANK = "0" * 64
_FORM = re.compile(
    rb'\{"record":\{[^\0]{1,20000}?\},"sedtalker":1,"seal":"(?P<seal>[0-9a-f]{64})"'
    rb'(,"manifest":"(?P<manifest>[\w+/= ]*)")?\}'
)
_MARGIN = 64  # characters of the manifest's place, beyond its length for a blank checksum
_GLB_HEADER = struct.Struct("<4sII")
_CHUNK_HEADER = struct.Struct("<I4s")
_HTML_START = b'<meta charset="utf-8">\n'


@dataclass(frozen=True)
class Statement:
    """A statement that was found in a file."""

    record: dict[str, Any]
    intact: bool  # the checksum fits the file
    manifest: Manifest | None  # of the statement; None if it is not signed


def statement(provenance: Provenance, path: Path | None = None) -> str:
    """The statement for a file, with a blank checksum, and a blank place for the manifest if it will be signed."""
    text = f'{{"record":{provenance.text},"sedtalker":1,"seal":"{_BLANK}"'
    manifest = b"" if provenance.sign is None else base64.b64encode(sign_text(text.encode(), provenance, path))
    return f'{text},"manifest":"{" " * (len(manifest) + _MARGIN)}"}}' if manifest else text + "}"


def seal_file(path: Path, provenance: Provenance) -> None:
    """Add the statement to a .glb, .vrm, .vrma or .html file; in others, complete the one that the writer has put in.

    Raises:
        SEDTalkerError: the certificate or key cannot sign.
    """
    suffix = path.suffix.lower()
    if suffix in (".glb", ".vrm", ".vrma"):
        _add_to_glb(path, statement(provenance, path))
    elif suffix == ".html":
        text = statement(provenance, path).replace("&", "\\u0026").replace("<", "\\u003c").replace("'", "\\u0027")
        meta = f"<meta name='digital-source-type' content='{SOURCE_TYPE}'>\n<meta name='provenance' content='{text}'>\n"
        _insert_after(path, _HTML_START, meta.encode())
    found = _find(path)
    if found is None:
        return
    with path.open("r+b") as file:
        file.seek(found.start + found.seal.start)
        file.write(found.total.encode())
        if found.manifest is not None:
            signed = base64.b64encode(sign_text(found.to_sign(), provenance, path))
            if len(signed) > found.manifest.stop - found.manifest.start:
                raise SEDTalkerError(f"the C2PA manifest is too long: {final_name(path)}. Sign with a shorter chain")
            file.seek(found.start + found.manifest.start)
            file.write(signed)


def read_seal(path: Path) -> Statement | None:
    """The statement in a file; None without one.

    Raises:
        MissingExtraError: the statement is signed, and c2pa cannot be imported.
    """
    found = _find(path)
    if found is None:
        return None
    manifest = None
    if found.manifest is not None:
        try:
            stored = base64.b64decode(found.text[found.manifest].strip(), validate=True)
            manifest = read_text_manifest(stored, found.to_sign())
        except ValueError:
            manifest = Manifest(None, False, ("not base64",), "", "", None)
    seal = found.text[found.seal].decode()
    return Statement(json.loads(found.text)["record"], seal == found.total, manifest)


@dataclass(frozen=True)
class _Found:
    """A statement in a file, as bytes."""

    start: int  # position in the file
    text: bytes
    seal: slice  # place of the checksum in the text
    manifest: slice | None  # place of the manifest in the text
    total: str  # what the checksum should be

    def to_sign(self) -> bytes:
        """The statement with the right checksum and a blank manifest."""
        text = bytearray(_blank(self.text, self.manifest))
        text[self.seal] = self.total.encode()
        return bytes(text)


def _blank(text: bytes, place: slice | None) -> bytes:
    return text if place is None else text[: place.start] + b" " * (place.stop - place.start) + text[place.stop :]


def _find(path: Path) -> _Found | None:
    """The statement of a file; None without one."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _FORM.finditer(data):
            text, start = bytes(match[0]), match.start()
            try:
                json.loads(text)
            except ValueError:
                continue
            seal = slice(match.start("seal") - start, match.end("seal") - start)
            signed = match["manifest"] is not None
            manifest = slice(match.start("manifest") - start, match.end("manifest") - start) if signed else None
            blank = bytearray(_blank(text, manifest))
            blank[seal] = _BLANK.encode()
            total = hashlib.sha256(data[:start])
            total.update(blank)
            for position in range(match.end(), len(data), 1 << 20):
                total.update(data[position : position + (1 << 20)])
            return _Found(start, text, seal, manifest, total.hexdigest())
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
