"""Store of a vertex corpus, in one format for all corpora, for training and evaluation of talkers.

STORE/manifest.json   version, corpus, rates, splits, and one entry a clip
STORE/clips/ID.npy    (T, V, 3) displacements from the subject's template, metres, float16 or float32; opened by
                      memory map, so that any window of frames is read alone
STORE/audio/KEY.wav   mono 16 kHz, once for all variants of a sentence
STORE/templates.npz   subject -> (V, 3) float32
STORE/faces.npy       (F, 3) triangles, where the corpus ships a mesh
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sedtalker.data.safe_files import open_array
from sedtalker.data.vertex_corpora.sequences import Template
from sedtalker.errors import DataError, reason_of
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS

KIND = "vertices"
VERSION = 1
DTYPES = ("float16", "float32")

Frames = NDArray[np.float32]  # (T, V, 3) metres


@dataclass(frozen=True)
class VertexClip:
    """One sequence of the store."""

    id: str
    subject: str
    sentence: str
    split: str
    emotion: str
    intensity: float  # 0..1
    expression: str  # the corpus's own name of the emotion
    level: int
    frames: int
    audio: str  # key of audio/KEY.wav, and of cached features
    seconds: float  # of the sound


@dataclass(frozen=True)
class Store:
    """A prepared corpus, opened for reading."""

    root: Path
    corpus: str
    fps: float
    source_fps: float
    dtype: str
    vertices: int
    clips: tuple[VertexClip, ...]
    settings: dict[str, Any] = field(default_factory=dict)  # the manifest

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[VertexClip]:
        return iter(self.clips)

    def select(self, *splits: str) -> list[VertexClip]:
        """The clips of the named splits, in the store's order."""
        return [clip for clip in self.clips if clip.split in splits]

    @cached_property
    def templates(self) -> dict[str, Template]:
        """Subject -> (V, 3) float32, metres."""
        with np.load(self.root / "templates.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    @cached_property
    def faces(self) -> NDArray[np.int32] | None:
        """Triangles (F, 3), where the corpus shipped a mesh."""
        path = self.root / "faces.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's labels, and after them the corpus's own that have no counterpart."""
        return LABELS + tuple(sorted({clip.emotion for clip in self.clips} - set(LABELS)))

    def sound(self, clip: VertexClip) -> Path:
        """The recording of a clip, 16 kHz."""
        return self.root / "audio" / f"{clip.audio}.wav"

    def features(self, clip: VertexClip) -> Path:
        """Path of the cached speech features (T, L, D) float16 at 50 Hz of a clip's sound."""
        return self.root / "features" / f"{clip.audio}.npy"

    def displacements(self, clip: VertexClip, start: int = 0, stop: int | None = None) -> Frames:
        """Displacements (stop - start, V, 3) from the subject's template in metres; only these frames are read."""
        # torch converts float16 ten times faster than numpy
        return torch.from_numpy(np.array(self.memmap(clip)[start:stop])).float().numpy()

    def memmap(self, clip: VertexClip) -> NDArray[np.floating]:
        """The clip's whole array as a memory map, (T, V, 3) of the store's type.

        Raises:
            DataError: its file is missing, damaged or of another shape.
        """
        array = open_array(self.root / "clips" / f"{clip.id}.npy")
        if array.shape != (clip.frames, self.vertices, 3):
            raise DataError(
                f"shape {array.shape} differs from the manifest: {clip.id} in {self.root}. Prepare it again"
            )
        return array

    def motion(self, clip: VertexClip) -> Frames:
        """Positions (T, V, 3) in metres."""
        return self.displacements(clip) + self.templates[clip.subject]


def open_store(folder: Path | str) -> Store:
    """Open a store that `prepare` finished.

    Raises:
        DataError: the folder is not a store, has another version, or its preparation was not finished.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    if not manifest.get("complete"):
        raise DataError(
            f"preparation not finished: {root}. Run sedtalker data prepare again; it continues where it stopped"
        )
    try:
        clips = tuple(VertexClip(**entry) for entry in manifest["clips"])
        return Store(
            root,
            manifest["corpus"],
            float(manifest["fps"]),
            float(manifest["source_fps"]),
            manifest["dtype"],
            int(manifest["vertices"]),
            clips,
            manifest,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a store's manifest: {root / 'manifest.json'} ({reason_of(error)}). Prepare it again"
        ) from error


def is_store(folder: Path | str) -> bool:
    """Whether a folder holds a store of vertices, finished or not, or one whose manifest is damaged."""
    try:
        manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError:
        return True
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a store of vertices, as plain types.

    Raises:
        DataError: there is none, or it is of another kind or version.
    """
    path = root / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"no store: {path} ({error.strerror}). Make one with: sedtalker data prepare") from error
    except ValueError as error:
        raise DataError(
            f"not a manifest: {path} ({reason_of(error)}). Make one with: sedtalker data prepare"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise DataError(f"not a store of vertices: {path}. Make one with: sedtalker data prepare")
    if manifest.get("version") != VERSION:
        raise DataError(f"a store of version {manifest.get('version')}: {path}. Prepare it again")
    return manifest


def write_manifest(root: Path, settings: dict[str, Any], clips: Iterable[VertexClip], complete: bool) -> None:
    """Write a store's manifest; `complete` marks that every clip is written."""
    document = {"kind": KIND, "version": VERSION, "complete": complete, **settings}
    document["clips"] = [asdict(clip) for clip in clips]
    with atomic_write(root / "manifest.json") as temp_path:
        temp_path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def split_counts(clips: Iterable[VertexClip]) -> dict[str, tuple[int, int, int]]:
    """Clips, frames and subjects of each split."""
    clips = list(clips)
    counts = Counter(clip.split for clip in clips)
    return {
        split: (
            counts[split],
            sum(clip.frames for clip in clips if clip.split == split),
            len({clip.subject for clip in clips if clip.split == split}),
        )
        for split in sorted(counts)
    }
