"""True sequences of an evaluation: clips of a store or files of a folder; and predictions in files of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import load_audio
from sedtalker.data.preflight import as_frames
from sedtalker.data.safe_files import open_array
from sedtalker.data.vertex_corpora.emovoca import emotion_of, parse_name
from sedtalker.data.vertex_corpora.templates import read_template_mesh, read_templates
from sedtalker.data.vertex_store import Store, VertexClip, is_store, open_store
from sedtalker.errors import DataError

Float = NDArray[np.floating]


@dataclass(frozen=True)
class Item:
    """One true sequence."""

    id: str
    subject: str = ""
    sentence: str = ""
    emotion: str = ""
    level: str = ""
    sound: str = ""  # its name in a phone table

    def group(self, kind: str) -> str:
        """Name of the item's group of a kind in `GROUPS`."""
        return f"{self.emotion} {self.level}" if kind == "emotion and level" else str(getattr(self, kind))


Predict = Callable[[Item], Float]  # positions (T, V, 3) in metres of a sequence


class Truth(Protocol):
    """True sequences."""

    fps: float
    split: str
    items: Sequence[Item]

    def motion(self, item: Item) -> Float:
        """Positions (T, V, 3) in metres."""
        ...

    def template(self, item: Item) -> Float | None:
        """Face at rest (V, 3); None if unknown."""
        ...

    def loudness(self, item: Item) -> float | None:
        """Root mean square of the audio samples; None if unknown."""
        ...


class StoreTruth:
    """The clips of one split of a prepared store."""

    def __init__(self, store: Store, split: str) -> None:
        self.store, self.split, self.fps = store, split, store.fps
        self._loudness: dict[str, float] = {}
        self.clips: dict[str, VertexClip] = {clip.id: clip for clip in store.select(split)}
        if not self.clips:
            raise DataError(f"no clips of the {split} split: {store.root}. Choose another with --split")
        self.items: Sequence[Item] = [
            Item(clip.id, clip.subject, clip.sentence, clip.emotion, str(clip.level), clip.audio)
            for clip in self.clips.values()
        ]

    def motion(self, item: Item) -> Float:
        return self.store.motion(self.clips[item.id])

    def template(self, item: Item) -> Float | None:
        return self.store.templates[item.subject]

    def loudness(self, item: Item) -> float | None:
        clip = self.clips[item.id]
        if clip.audio not in self._loudness:
            self._loudness[clip.audio] = float(np.sqrt(np.square(load_audio(self.store.sound(clip))).mean()))
        return self._loudness[clip.audio]


class FolderTruth:
    """A folder of `.npy` positions or `.npz` animations; subject, emotion and level are parsed from EmoVOCA's names."""

    def __init__(self, folder: Path, fps: float, templates: Path | None = None) -> None:
        self.folder, self.fps, self.split = folder, fps, "all of the folder"
        self.templates = _read_templates(templates)
        self.paths = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".npy", ".npz")}
        if not self.paths:
            raise DataError(f"no .npy or .npz: {folder}. Give a folder of true sequences, or a prepared store")
        self.items: Sequence[Item] = [_parse_item(name) for name in self.paths]

    def motion(self, item: Item) -> Float:
        motion, fps = read_motion(self.paths[item.id], None)
        if fps is not None and fps != self.fps:
            raise DataError(f"{fps:g} fps, not {self.fps:g}: {self.paths[item.id]}. Use --fps {fps:g}")
        return motion

    def template(self, item: Item) -> Float | None:
        return self.templates.get(item.subject, self.templates.get(""))

    def loudness(self, item: Item) -> float | None:
        return None


def open_truth(
    folder: Path | str, split: str = "test", fps: float | None = None, templates: Path | None = None
) -> Truth:
    """Open a prepared store, or a folder of sequences at `fps` (default 30).

    Raises:
        DataError: it is neither, or has no sequences of the split.
    """
    folder = Path(folder)
    if is_store(folder):
        return StoreTruth(open_store(folder), split)
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}. Give true sequences, or a prepared store")
    return FolderTruth(folder, fps or 30.0, templates)


def read_motion(path: Path, vertices: int | None) -> tuple[Float, float | None]:
    """Read positions (T, V, 3) in metres of an animation (.npz) or array (.npy), and the frame rate if the file has it.

    Raises:
        SEDTalkerError: the file cannot be read or is of another topology.
    """
    if path.suffix == ".npz":
        from sedtalker.animation import load_animation

        animation = load_animation(path)
        return animation.vertices, animation.fps
    array = open_array(path)
    if vertices is None:
        if array.ndim == 2 and array.shape[1] % 3 == 0:
            vertices = array.shape[1] // 3
        elif array.ndim == 3 and array.shape[2] == 3:
            vertices = array.shape[1]
        else:
            raise DataError(f"shape {array.shape} is neither (T, V, 3) nor (T, 3 V): {path}. Export positions")
    return as_frames(array, vertices), None


def read_predictions(folder: Path | str, fps: float) -> Predict:
    """Function that reads predicted positions at `fps` of a sequence from `ID.npz` or `ID.npy` in a folder.

    Raises:
        DataError: the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"no such folder: {root}. Give the predicted sequences, named as the true ones")
    return _PredictedFiles(root, fps)


@dataclass(frozen=True)
class _PredictedFiles:
    root: Path
    fps: float

    def __call__(self, item: Item) -> Float:
        paths = [self.root / f"{item.id}.npz", self.root / f"{item.id}.npy"]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise DataError(f"no prediction: {self.root / item.id}.npz or .npy. Predict it, or remove its true file")
        motion, own_fps = read_motion(path, None)
        if own_fps is not None and own_fps != self.fps:
            raise DataError(f"{own_fps:g} fps predicted, {self.fps:g} true: {path}. Animate it with --fps {self.fps:g}")
        return motion


def _parse_item(name: str) -> Item:
    try:
        subject, sentence, expression, level = parse_name(name)
    except DataError:
        return Item(name)
    return Item(name, subject, sentence, emotion_of(expression, level)[0], str(level))


def _read_templates(path: Path | None) -> Mapping[str, Float]:
    """Templates by subject of a pickle, or one mesh for all under the empty name."""
    if path is None:
        return {}
    if path.suffix == ".pkl":
        return read_templates(path.parent, path)
    return {"": read_template_mesh(path)[0]}
