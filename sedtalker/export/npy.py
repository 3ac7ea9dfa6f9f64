"""NumPy vertices (T, V, 3) in metres, as EmoVOCA keeps its sequences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.files import written_whole

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def write(animation: Animation, path: Path) -> None:
    """Write float32 vertices, streamed to disk frame after frame."""
    shape = (len(animation), *animation.template.shape)
    with written_whole(path) as aside:
        stored = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float32, shape=shape)
        for index, vertices in enumerate(animation.frames()):
            stored[index] = vertices
        stored.flush()
        del stored
