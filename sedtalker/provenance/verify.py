"""Verification: what a file states about its origin, whether that is intact, and which mark its pictures carry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import SEDTalkerError, reason_of
from sedtalker.provenance.manifest import Manifest, read_manifest
from sedtalker.provenance.mark import HASH_BYTES, Found, MarkReader
from sedtalker.provenance.record import NO_MARK, Provenance
from sedtalker.provenance.seal import read_seal

INTACT, ALTERED, NONE = "intact", "altered", "none"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".webm", ".gif", ".mov", ".mkv", ".m4v", ".avi")
SEALED = (".webm", ".glb", ".vrm", ".vrma", ".html")
_STEP = 5  # frames; neighbours add little to the mark
_READ_EVERY = 8  # frames that are added between two attempts to read
_MOST_FRAMES = 96  # that are added


@dataclass(frozen=True)
class Verification:
    """Manifest, metadata and mark found in a file."""

    file: str
    status: str  # intact, altered or none
    statement: str  # kind of the statement: "C2PA manifest", "metadata", "signed metadata", or "" without one
    record: dict[str, Any] | None  # of the statement
    signer: str | None  # common name of the manifest's certificate
    mark: str | None  # first bytes of the record's sha256 in hexadecimal, from the picture
    frames: int  # frames that were needed to read the mark
    notes: tuple[str, ...]  # reasons of the status

    def plain(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def verify_file(path: Path) -> Verification:
    """Read manifest or metadata, and the mark of pictures and videos.

    `intact`: the statement fits the file, and the mark the statement. `altered`: the statement does not fit, or there
    is only the mark. `none`: neither of them, or a statement of another program.

    Raises:
        SEDTalkerError: there is no such file, or a picture or video that cannot be read.
    """
    if not path.is_file():
        problem = "a folder, not a file" if path.is_dir() else "no such file"
        raise SEDTalkerError(f"{problem}: {path}. Name a picture, video, .glb or .html file")
    suffix = path.suffix.lower()
    manifest = read_manifest(path) if suffix in (*PICTURES, *VIDEOS) else None
    sealed = read_seal(path) if suffix in SEALED else None
    notes: list[str] = []
    mark, readable = None, True
    if suffix in (*PICTURES, *VIDEOS):
        try:
            mark = _read_mark(path)
        except SEDTalkerError:
            if manifest is None and sealed is None:
                raise
            readable = False  # a changed byte can make the pictures unreadable and leave the statement as it is
    record, intact, kind = None, False, ""
    if manifest is not None and manifest.record is None and manifest.intact:
        notes.append(f"a C2PA manifest of another program: {manifest.generator}, signed by {manifest.signer}")
    elif manifest is not None:
        record, intact, kind = manifest.record, manifest.intact, "C2PA manifest"
        notes += _explain(manifest)
    elif sealed is not None:
        manifest = sealed.manifest
        record, intact, kind = sealed.record, sealed.intact, "metadata" if manifest is None else "signed metadata"
        notes.append("the checksum fits the file" if intact else "the file was changed after it was written")
        if manifest is not None:
            intact = intact and manifest.intact
            notes += _explain(manifest, "metadata")
    if mark is not None:
        fits, note = _compare(mark, record)
        notes.append(note)
        intact = intact and fits
    elif not readable:
        intact = False
        notes.append("its pictures are damaged and cannot be read")
    elif record is not None and suffix in (*PICTURES, *VIDEOS):
        stated = record.get("mark")
        notes.append("made without a mark, as stated" if stated == NO_MARK else "the mark in the picture is not found")
    status = INTACT if kind and intact else ALTERED if kind or mark is not None else NONE
    return Verification(
        str(path), status, kind, record, None if manifest is None else manifest.signer,
        None if mark is None else mark.digest.hex(), 0 if mark is None else mark.frames, tuple(notes),
    )  # fmt: skip


def _explain(manifest: Manifest, described: str = "file") -> list[str]:
    if manifest.intact:
        return [f"the manifest fits the {described}, signed by {manifest.signer}"]
    return [f"the manifest does not fit the {described}: {', '.join(manifest.problems) or 'invalid'}"]


def _compare(mark: Found, record: dict[str, Any] | None) -> tuple[bool, str]:
    """Whether a mark fits the record of the file, or there is no record to fit; with a note."""
    if record is None:
        return True, f"the picture has the mark of a record {mark.digest.hex()}; its statement was removed"
    if Provenance(record).digest[:HASH_BYTES] == mark.digest:
        return True, "the mark in the picture fits the statement"
    return False, f"the mark in the picture is of another record: {mark.digest.hex()}"


def _read_mark(path: Path) -> Found | None:
    reader = MarkReader()
    for frame in islice(_frames(path), 0, _STEP * _MOST_FRAMES, _STEP):
        reader.push(frame)
        if reader.frames % _READ_EVERY == 1 and (found := reader.read()) is not None:
            return found
    return reader.read() if reader.frames else None


def _frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames of a video as luma (H, W), or the picture (H, W, 3)."""
    if path.suffix.lower() in (*PICTURES, ".gif"):
        from PIL import Image, ImageSequence, UnidentifiedImageError

        try:
            with Image.open(path) as image:
                for page in ImageSequence.Iterator(image):
                    yield np.asarray(page.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise SEDTalkerError(f"unreadable picture: {path} ({reason_of(error)}). Copy it again") from error
        return
    import av

    from sedtalker.demux import ffmpeg_name

    try:
        with av.open(ffmpeg_name(path)) as container:
            if not container.streams.video:
                raise SEDTalkerError(f"no pictures in the file: {path}. Name a video")
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="gray")
    except (av.error.FFmpegError, ValueError) as error:
        raise SEDTalkerError(f"unreadable video: {path} ({reason_of(error)}). Copy it again") from error
