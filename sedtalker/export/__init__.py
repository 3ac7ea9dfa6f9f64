"""Animations in the formats of other tools; one file a format, each written whole or not at all."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sedtalker.animation import Animation

# format -> (module with the function `write(animation, path)`, ending of the path)
FORMATS: dict[str, tuple[str, str]] = {
    "glb": ("sedtalker.export.glb", ".glb"),
    "html": ("sedtalker.export.html", ".html"),
    "csv": ("sedtalker.export.csv", ".csv"),
    "json": ("sedtalker.export.curves", ".json"),
    "usd": ("sedtalker.export.usd", ".usdz"),
    "obj": ("sedtalker.export.obj", "_obj"),
    "ply": ("sedtalker.export.ply", "_ply"),
    "npy": ("sedtalker.export.npy", ".npy"),
}

_PLAYED_WITH_SOUND = ("glb", "usd")  # and cannot hold it


def export_animation(animation: Animation, name: str, path: Path | str) -> None:
    """Write `animation` in the format `name` (a key of `FORMATS`) to `path`.

    Raises:
        SEDTalkerError: the animation lacks what the format carries, or the path cannot be written.
    """
    write: Callable[[Animation, Path], None] = import_module(FORMATS[name][0]).write
    write(animation, Path(path))


def export_sound(animation: Animation, name: str, path: Path | str) -> Path | None:
    """Write the `.wav` that goes beside an export of the format `name` at `path`; returns its path.

    None where the format is not played with sound or holds its own, or where the sound is no longer where it was.
    """
    if name not in _PLAYED_WITH_SOUND:
        return None
    from sedtalker.audio import stream_audio, write_wav
    from sedtalker.export.sound import find_recording
    from sedtalker.files import OUTPUT_MARKER

    source, beside = find_recording(animation), Path(path).with_suffix(".wav")
    if source is None:
        return None
    if beside.exists() and beside.samefile(source):
        return beside  # the recording itself
    made = beside.with_suffix(".sound.wav") if beside.exists() else beside  # what is there may be somebody's recording
    write_wav(made, stream_audio(source), comment=OUTPUT_MARKER)
    if made != beside and filecmp.cmp(made, beside, shallow=False):  # it was an earlier export's
        made.unlink()
        return beside
    return made


def default_path(animation: Path, name: str) -> Path:
    """Where an export of the animation file `animation` goes when no path is given: beside it."""
    return animation.with_name(animation.stem + FORMATS[name][1])
