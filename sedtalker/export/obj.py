"""A folder of Wavefront OBJ meshes, one a frame, numbered so that plain sorting is the order of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sedtalker.export.meshes import pose_frames, write_sequence
from sedtalker.face.mesh import obj_triangles, obj_vertices

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def write(animation: Animation, path: Path) -> None:
    """Write `frame_000000.obj` and on into the folder `path`, metres, the head's motion included.

    Raises:
        SEDTalkerError: the folder holds files.
    """
    triangles = obj_triangles(animation.faces)
    meshes = (obj_vertices(points) + triangles for points in pose_frames(animation))
    write_sequence(meshes, path, ".obj", len(animation))
