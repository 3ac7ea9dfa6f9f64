"""Frames as meshes: posed with the head's motion, one by one, and as folders of numbered files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import AnimationError, require
from sedtalker.face.neck import head_joint_weights, move_head
from sedtalker.files import atomic_write, check_replaceable

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def pose_frames(animation: Animation) -> Iterator[NDArray[np.float32]]:
    """Vertices (V, 3) in metres, frame after frame, the head's rigid motion included."""
    if animation.head is None:
        yield from animation.frames()
        return
    share = head_joint_weights(animation.face, animation.template)
    for vertices, head in zip(animation.frames(), animation.head, strict=True):
        yield move_head(vertices, head, share)


def to_trimesh(animation: Animation, frame: int) -> Any:
    """Frame `frame` as a `trimesh.Trimesh`, in metres, the head's motion included; negative numbers count from the end.

    Raises:
        AnimationError: there is no such frame.
        MissingExtraError: trimesh is not installed.
    """
    trimesh = require("trimesh", "mesh")
    if not -len(animation) <= frame < len(animation):
        raise AnimationError(f"no frame {frame}: the animation has {len(animation)}. Count from 0")
    index = frame % len(animation)
    vertices = next(animation.frames(index, index + 1))
    if animation.head is not None:
        vertices = move_head(vertices, animation.head[index], head_joint_weights(animation.face, animation.template))
    return trimesh.Trimesh(vertices, animation.faces, process=False)


def write_sequence(meshes: Iterable[bytes], path: Path, suffix: str, count: int) -> None:
    """Write each mesh to `frame_000000` and on in the folder `path`; an earlier sequence there is replaced.

    Raises:
        SEDTalkerError: the folder holds other files.
    """
    check_replaceable(path)
    digits = max(6, len(str(count)))
    with atomic_write(path) as temp_path:
        temp_path.mkdir()
        for index, mesh in enumerate(meshes):
            (temp_path / f"frame_{index:0{digits}d}{suffix}").write_bytes(mesh)
