"""Animations in the formats of other tools; one file a format, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sedtalker.animation import Animation

# format -> (module with the function `write(animation, path)`, ending of the path)
FORMATS: dict[str, tuple[str, str]] = {
    "csv": ("sedtalker.export.csv", ".csv"),
    "json": ("sedtalker.export.curves", ".json"),
    "npy": ("sedtalker.export.npy", ".npy"),
    "obj": ("sedtalker.export.obj", "_obj"),
}


def export_animation(animation: Animation, name: str, path: Path | str) -> None:
    """Write `animation` in the format `name` (a key of `FORMATS`) to `path`.

    Raises:
        SEDTalkerError: the animation lacks what the format carries, or the path cannot be written.
    """
    write: Callable[[Animation, Path], None] = import_module(FORMATS[name][0]).write
    write(animation, Path(path))


def default_path(animation: Path, name: str) -> Path:
    """Where an export of the animation file `animation` goes when no path is given: beside it."""
    return animation.with_name(animation.stem + FORMATS[name][1])
