"""A folder of binary PLY meshes, one a frame, numbered so that plain sorting is the order of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.export.meshes import pose_frames, write_sequence

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def write(animation: Animation, path: Path) -> None:
    """Write `frame_000000.ply` and on into the folder `path`, metres, the head's motion included.

    Raises:
        SEDTalkerError: the folder holds files.
    """
    corners = np.zeros(len(animation.faces), [("count", "u1"), ("ids", "<i4", 3)])
    corners["count"], corners["ids"] = 3, animation.faces
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(animation.template)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(animation.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    meshes = (header + points.astype("<f4").tobytes() + corners.tobytes() for points in pose_frames(animation))
    write_sequence(meshes, path, ".ply", len(animation))
