"""NumPy array of vertices (T, V, 3) in metres, the layout of EmoVOCA's sequences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.files import atomic_write

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def write(animation: Animation, path: Path) -> None:
    """Write float32 vertices frame by frame, without the head's motion."""
    layout = {"descr": "<f4", "fortran_order": False, "shape": (len(animation), *animation.template.shape)}
    with atomic_write(path) as temp_path, temp_path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, layout)
        for vertices in animation.frames():
            file.write(np.ascontiguousarray(vertices, "<f4").tobytes())
