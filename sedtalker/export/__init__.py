"""Export animations to the formats of other tools. Files are written completely or not at all."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sedtalker.files import atomic_write

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.provenance.record import Provenance

FORMATS: dict[str, tuple[str, str]] = {
    "glb": ("sedtalker.export.glb:write", ".glb"),
    "html": ("sedtalker.export.html:write", ".html"),
    "csv": ("sedtalker.export.csv:write", ".csv"),
    "json": ("sedtalker.export.json:write", ".json"),
    "vrma": ("sedtalker.export.vrma:write", ".vrma"),
    "usd": ("sedtalker.export.usd:write", ".usdz"),
    "obj": ("sedtalker.export.meshes:write_obj", "_obj"),
    "ply": ("sedtalker.export.meshes:write_ply", "_ply"),
    "npy": ("sedtalker.export.npy:write", ".npy"),
}
"""Format -> `module:function` with the arguments (animation, path), and the ending of the path."""

SEALED = ("glb", "html", "vrma")  # with metadata of their provenance
_WITH_SOUND_FILE = ("glb", "usd", "vrma")  # played with sound, but unable to hold it
PLAYED = (*_WITH_SOUND_FILE, "html")  # with sound, in a file of its own or inside


def export_animation(animation: Animation, name: str, path: Path | str, provenance: Provenance | None = None) -> None:
    """Write `animation` in the format `name` (a key of `FORMATS`) to `path`.

    Files of the formats in `SEALED` state their provenance, by default that of `animation.meta`.

    Raises:
        SEDTalkerError: the animation lacks the data that the format holds, or the path cannot be written.
    """
    module, _, function = FORMATS[name][0].partition(":")
    write: Callable[[Animation, Path], None] = getattr(import_module(module), function)
    if name not in SEALED:
        write(animation, Path(path))
        return
    from sedtalker.provenance import attach
    from sedtalker.provenance.record import describe

    with atomic_write(path) as temp_path:
        write(animation, temp_path)
        attach(temp_path, provenance or describe(animation.meta, face=animation.face.name))


def export_sound(animation: Animation, name: str, path: Path | str) -> Path | None:
    """Write the `.wav` to play with an export of the format `name` at `path`; returns its path.

    Returns None for a format that holds its own sound or none, and if the recording was moved or changed. A file with
    the same name and other content is not replaced: the new file then has the ending `.sound.wav`.
    """
    if name not in _WITH_SOUND_FILE:
        return None
    from sedtalker.audio import stream_audio, write_wav
    from sedtalker.export.sound import find_recording
    from sedtalker.files import OUTPUT_MARKER

    source, wav = find_recording(animation), Path(path).with_suffix(".wav")
    if source is None:
        return None
    if wav.exists() and wav.samefile(source):
        return wav  # the recording itself
    target = wav.with_suffix(".sound.wav") if wav.exists() else wav  # the existing file may be a user's recording
    write_wav(target, stream_audio(source), comment=OUTPUT_MARKER)
    if target != wav and filecmp.cmp(target, wav, shallow=False):  # the existing file is an earlier export
        target.unlink()
        return wav
    return target


def default_path(animation: Path, name: str) -> Path:
    """The path of an export of the animation file `animation` if none is given, in the same folder."""
    return animation.with_name(animation.stem + FORMATS[name][1])
