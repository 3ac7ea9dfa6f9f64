"""Provenance of generated media: a manifest or metadata in each file, a mark in each picture, and their verification.

record.py    what a file states about itself: tool, models, sound, face
mark.py      the mark in the luminance of a picture
manifest.py  C2PA manifests of MP4, PNG and GIF files
seal.py      metadata with a checksum for WebM, GLB and HTML files
verify.py    reads all of them back
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sedtalker.provenance.record import Provenance

_WITH_MANIFEST = (".mp4", ".png", ".gif")


def attach(path: Path, provenance: Provenance) -> None:
    """Add the statement to a complete file: a C2PA manifest if its container can hold one, else metadata.

    A folder of PNG files gets a manifest in each.

    Raises:
        SEDTalkerError: the certificate or key cannot sign.
    """
    if path.is_dir():
        for picture in sorted(path.glob("*.png")):
            attach(picture, provenance)
    elif path.suffix.lower() in _WITH_MANIFEST:
        from sedtalker.provenance.manifest import add_manifest

        add_manifest(path, provenance)
    else:
        from sedtalker.provenance.seal import seal_file

        seal_file(path, provenance)
