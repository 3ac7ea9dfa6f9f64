"""Regions of a face as vertex indices by name, for metrics, losses and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Index

LIPS, UPPER, EMOTION = "lips", "upper_face", "emotion"
LIP_PAIR = "lip_pair"  # the middle of the upper lip and that of the lower, in this order

FLAME_REGIONS: dict[str, tuple[str, ...]] = {
    LIPS: ("lips",),
    UPPER: ("forehead", "eye_region"),
    EMOTION: ("forehead", "eye_region", "nose", "lips"),
}
"""The regions as unions of the masks of `FLAME_masks.pkl`."""

FLAME_VERTICES, FLAME_FACES = 5023, 9976
FLAME_LIP_PAIR = (3531, 3504)  # middle of the upper and of the lower lip, as Chae-Yeon et al. (2025) measure them

_FACE_DEPTH = 0.11  # metres behind the tip of the nose; ears, neck and the back of the head are farther behind
_CHIN_DEPTH = 0.065  # metres below the middle of the lips; lower vertices belong to the neck
_LID_TRAVEL = 0.001  # metres that a lid shape must move a vertex for it to belong to the eyes
_EMOTION_TRAVEL = 0.002  # metres that an expression must move a vertex for it to belong to the emotion mask

_LIDS = ("eyeBlink", "eyeWide", "eyeSquint")
_EMOTIONS = ("brow", "cheekSquint", "eyeSquint", "eyeWide", "noseSneer", "mouthSmile", "mouthFrown", "mouthStretch",
             "mouthUpperUp", "mouthDimple", "mouthPress")  # fmt: skip


@dataclass(frozen=True)
class VertexMasks:
    """Regions (N,) int64 by name, and their source."""

    source: str
    regions: Mapping[str, NDArray[np.int64]]

    def describe(self, region: str) -> dict[str, str | int]:
        """Name, number of vertices and hash of a region, for a table."""
        index = self.regions[region]
        return {"name": f"{self.source}: {region}", "vertices": len(index), "sha256": mask_hash(index)}


def mask_hash(index: NDArray[np.integer]) -> str:
    """The first 12 hexadecimal digits of the sha256 of the sorted indices as little-endian int64."""
    return hashlib.sha256(np.sort(np.asarray(index)).astype("<i8").tobytes()).hexdigest()[:12]


def default_masks(vertices: int) -> VertexMasks | None:
    """The masks of the default head; None if it has another number of vertices."""
    face = load_face()
    if len(face.template) != vertices:
        return None
    regions = {name: np.asarray(face.masks[name], np.int64) for name in (LIPS, UPPER, EMOTION) if name in face.masks}
    if face.lip_pairs is not None:
        regions[LIP_PAIR] = np.asarray(face.lip_pairs[len(face.lip_pairs) // 2], np.int64)
    return VertexMasks(f"head {face.name!r}", regions)


def flame_regions(masks: Mapping[str, NDArray[np.integer]]) -> dict[str, NDArray[np.int64]]:
    """The regions of FLAME's topology from the masks of `FLAME_masks.pkl`. Raises FaceError if a mask is missing."""
    missing = sorted({part for parts in FLAME_REGIONS.values() for part in parts} - set(masks))
    if missing:
        raise FaceError(f"no mask {missing[0]!r}")
    return {
        name: np.unique(np.concatenate([masks[part].reshape(-1) for part in parts])).astype(np.int64)
        for name, parts in FLAME_REGIONS.items()
    }


def rig_regions(
    template: NDArray[np.floating], blendshapes: NDArray[np.floating], parts: Mapping[str, Index]
) -> dict[str, Index]:
    """Masks of a rigged head, from its parts and from where its blendshapes move it.

    lips: both lips, red and rim. eyes: the lids. upper_face and lower_face: skin of the front, divided at the middle
    between eyes and mouth. emotion: skin and lips that brows, cheeks, lids, nose and corners of the mouth move.

    Args:
        template: (V, 3) metres.
        blendshapes: (52, V, 3) displacements in the order of ARKIT_NAMES.
        parts: vertices of skin, lips, eye_left and eye_right.
    """
    lips = parts["lips"]
    skin = np.concatenate([parts["skin"], lips])
    front = skin[template[skin, 2] > template[skin, 2].max() - _FACE_DEPTH]
    front = front[template[front, 1] > template[lips, 1].mean() - _CHIN_DEPTH]
    eyes = np.concatenate([parts["eye_left"], parts["eye_right"]])
    middle = (template[eyes, 1].mean() + template[lips, 1].mean()) / 2
    upper = template[front, 1] > middle
    return {
        LIPS: np.sort(lips),
        "eyes": _select_moving(front, blendshapes, _LIDS, _LID_TRAVEL),
        UPPER: np.sort(front[upper]),
        "lower_face": np.sort(front[~upper]),
        EMOTION: _select_moving(front, blendshapes, _EMOTIONS, _EMOTION_TRAVEL),
    }


def _select_moving(
    vertices: Index, blendshapes: NDArray[np.floating], prefixes: tuple[str, ...], travel: float
) -> Index:
    """The vertices that a blendshape with one of these prefixes moves farther than `travel` metres."""
    columns = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith(prefixes)]
    distance = np.linalg.norm(blendshapes[columns][:, vertices], axis=2).max(0)
    selected: Index = np.sort(vertices[distance > travel]).astype(np.int32)
    return selected
