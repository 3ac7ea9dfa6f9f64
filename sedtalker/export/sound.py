"""The recording of an animation, and its encoding for a web page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sedtalker.audio import SAMPLE_RATE, AudioFile, Samples, to_int16
from sedtalker.files import sha256

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def find_recording(animation: Animation) -> AudioFile | None:
    """The file and track that the animation was made from; None if it was moved or changed."""
    for path in files_of_recording(animation):
        if animation.meta.get("audio_sha256") == sha256(path):
            return AudioFile(path, animation.meta.get("audio_track"))
    return None


def files_of_recording(animation: Animation) -> list[Path]:
    """The files that can be the recording: at the path that the animation names, or in the animation's own folder."""
    named = Path(animation.meta.get("audio") or "")
    paths = (
        [named]
        if animation.file is None
        else [named, animation.file.parent / named, animation.file.parent / named.name]
    )
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def describe_missing(animation: Animation, path: Path) -> str:
    """Why `find_recording` finds nothing for the animation in the file `path`, and the remedy."""
    named = animation.meta.get("audio")
    if not named:
        return f"no recording is named in {path}. Name it with --audio"
    folders = [Path(named), *([] if animation.file is None else [animation.file])]
    missing = " or ".join(dict.fromkeys(str(file.absolute().parent) for file in folders))
    found = "was changed" if files_of_recording(animation) else f"is not in {missing}"
    return f"the recording of {path} {found}: {Path(named).name}. Name it with --audio"


def write_flac(blocks: Iterable[Samples], file: IO[bytes]) -> float:
    """Write blocks (n,) of samples at 16 kHz as FLAC, 16-bit mono; returns their length in seconds.

    Every browser plays FLAC, and unlike MP3 and AAC it has no encoder delay.
    """
    import av

    count = 0
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for block in blocks:
            frame = av.AudioFrame.from_ndarray(to_int16(block)[None], format="s16", layout="mono")
            frame.rate, frame.pts = SAMPLE_RATE, count
            count += len(block)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return count / SAMPLE_RATE
