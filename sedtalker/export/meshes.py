"""Frames as meshes with the head's motion: one at a time, and as folders of numbered OBJ or PLY files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sedtalker.errors import AnimationError, require
from sedtalker.face.mesh import obj_triangles, obj_vertices
from sedtalker.face.neck import head_joint_weights, move_head
from sedtalker.face.rig import Float
from sedtalker.files import atomic_write, check_replaceable

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def pose_frames(animation: Animation, start: int = 0, stop: int | None = None) -> Iterator[Float]:
    """Vertices (V, 3) in metres of the frames from `start` to before `stop`, with the head's rigid motion."""
    if animation.head is None:
        yield from animation.frames(start, stop)
        return
    weights = head_joint_weights(animation.face, animation.template)
    for vertices, head in zip(animation.frames(start, stop), animation.head[start:stop], strict=True):
        yield move_head(vertices, head, weights)


def to_trimesh(animation: Animation, frame: int) -> Any:
    """Frame `frame` as a `trimesh.Trimesh` in metres, with the head's motion; negative numbers count from the end.

    Raises:
        AnimationError: the animation has no such frame.
        MissingExtraError: trimesh is not installed.
    """
    trimesh = require("trimesh", "mesh")
    if not -len(animation) <= frame < len(animation):
        raise AnimationError(f"no frame {frame}: the animation has {len(animation)}. Count from 0")
    index = frame % len(animation)
    (vertices,) = pose_frames(animation, index, index + 1)
    return trimesh.Trimesh(vertices, animation.faces, process=False)


def write_obj(animation: Animation, path: Path) -> None:
    """Write `frame_000000.obj` and on into the folder `path`, in metres, with the head's motion.

    Raises:
        SEDTalkerError: the folder holds other files.
    """
    triangles = obj_triangles(animation.faces)
    _write_sequence(animation, path, ".obj", lambda vertices: obj_vertices(vertices) + triangles)


def write_ply(animation: Animation, path: Path) -> None:
    """Write `frame_000000.ply` (binary) and on into the folder `path`, in metres, with the head's motion.

    Raises:
        SEDTalkerError: the folder holds other files.
    """
    corners = np.zeros(len(animation.faces), [("count", "u1"), ("ids", "<i4", 3)])
    corners["count"], corners["ids"] = 3, animation.faces
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(animation.template)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(animation.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    triangles = corners.tobytes()
    _write_sequence(animation, path, ".ply", lambda vertices: header + vertices.astype("<f4").tobytes() + triangles)


def _write_sequence(animation: Animation, path: Path, suffix: str, encode: Callable[[Float], bytes]) -> None:
    """Write one file per frame into the folder `path`, replacing an earlier sequence; file names sort by time."""
    check_replaceable(path)
    digits = max(6, len(str(len(animation))))
    with atomic_write(path) as temp_path:
        temp_path.mkdir()
        for index, vertices in enumerate(pose_frames(animation)):
            (temp_path / f"frame_{index:0{digits}d}{suffix}").write_bytes(encode(vertices))
