"""A folder of Wavefront OBJ meshes, one a frame, numbered so that plain sorting is the order of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sedtalker.errors import SEDTalkerError
from sedtalker.files import written_whole

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def write(animation: Animation, path: Path) -> None:
    """Write `frame_000000.obj` and on into the folder `path`, which must not hold anything yet.

    Raises:
        SEDTalkerError: the folder holds files.
    """
    if path.is_dir() and any(path.iterdir()):
        raise SEDTalkerError(f"the folder is not empty: {path}. Remove it or choose another with -o")
    triangles = "".join(f"f {a} {b} {c}\n" for a, b, c in (animation.faces + 1).tolist())
    digits = max(6, len(str(len(animation))))
    with written_whole(path) as aside:
        aside.mkdir()
        for index, vertices in enumerate(animation.frames()):
            lines = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in vertices.tolist())
            (aside / f"frame_{index:0{digits}d}.obj").write_text(lines + triangles, encoding="ascii")
        if path.is_dir():
            path.rmdir()
