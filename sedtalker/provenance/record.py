"""The record: what a file that this program writes states about its origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

TOOL = "SEDTalker"
SOURCE_TYPE = "trainedAlgorithmicMedia"
"""Digital source type of media made by a trained model, a term of `SOURCE_TYPES`."""

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"  # vocabulary of the IPTC

MARK = "org.sedtalker.mark.1"  # of `mark.py`
NO_MARK = "none (turned off by the user)"
SYNTHETIC_FACE = "synthetic face that belongs to nobody"
USER_FACE = "mesh of the user"


@dataclass(frozen=True)
class Provenance:
    """The record of a file, and how to attach it."""

    record: Mapping[str, Any] = field(default_factory=dict)  # plain types
    sign: tuple[Path, Path] | None = None  # certificate chain and private key (PEM); None: the self-made certificate

    @property
    def mark(self) -> bool:
        """Whether pictures get the mark."""
        return self.record.get("mark") == MARK

    @cached_property
    def text(self) -> str:
        """The record as JSON, the same for equal records."""
        return json.dumps(self.record, sort_keys=True, separators=(",", ":"))

    @cached_property
    def digest(self) -> bytes:
        """sha256 of `text`: 32 bytes. The mark holds the first of them, the manifest's identifier the first 16."""
        return hashlib.sha256(self.text.encode()).digest()


def describe(
    meta: Mapping[str, Any], *, face: str | None = None, mark: bool = True, sign: tuple[Path, Path] | None = None
) -> Provenance:
    """The provenance of an animation with this `Animation.meta`.

    Args:
        face: name of the face if it is not the one in `meta`.
        mark: whether pictures get the mark; the record states it either way.
        sign: certificate chain and private key, PEM files.
    """
    from sedtalker.face.assets import identities

    name = face or meta.get("face")
    record = {
        "tool": TOOL,
        "version": meta.get("sedtalker"),
        "digital_source_type": SOURCE_TYPE,
        "models": meta.get("weights") or {"talker": {"name": meta.get("model")}},
        "audio_sha256": meta.get("audio_sha256"),
        "face": SYNTHETIC_FACE if name in identities() else USER_FACE,
        "mark": MARK if mark else NO_MARK,
    }
    return Provenance(record, sign)
