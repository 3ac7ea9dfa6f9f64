"""One self-contained HTML file: the head in three.js, its sound, the emotion track and chosen curves under it.

Everything is inside: the glTF of `glb.py` (compressed), the sound as FLAC, three.js. The file needs no network, and its
content policy forbids it any. What comes from outside (file names, labels) is only ever set as text.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import stream_audio
from sedtalker.export.glb import encode_glb
from sedtalker.export.palette import label_colors
from sedtalker.export.sound import find_recording, write_flac
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.emotion.track import EmotionTrack

_PAGE = Path(__file__).parent / "page"
_BLOCK = 1 << 20  # bytes of sound that are in memory at a time
_CHOSEN = 5  # curves shown at first
_FIELD_OF_VIEW = 20.0  # degrees, as in viewer.js
_PORTRAIT = np.array([0.0, -0.045, -0.06])  # metres from between the eyes to the middle of a portrait


def write(animation: Animation, path: Path) -> None:
    """Write the page, with the sound of the animation's source where that file still is what it was."""
    with atomic_write(path) as temp_path, temp_path.open("w", encoding="utf-8") as file:
        file.writelines(html_page(animation))


def html_page(animation: Animation) -> Iterator[str]:
    """The page as text, piece by piece, so that an hour of it is never in memory."""
    source = find_recording(animation)
    with tempfile.TemporaryFile() as sound:
        heard = 0.0 if source is None else write_flac(stream_audio(source), sound)
        sound.seek(0)
        yield from _filled(animation, heard, sound)


def _filled(animation: Animation, heard: float, sound: IO[bytes]) -> Iterator[str]:
    """The page's pieces, of which `heard` seconds of sound are one."""
    title = Path(animation.meta.get("audio") or animation.face.name).name
    filled: dict[str, Iterable[str]] = {
        "title": [escape(title)],
        "subtitle": [escape(_subtitle(animation))],
        "css": [_file("page.css")],
        "data": [_script_safe(json.dumps(_data(animation, heard), separators=(",", ":")))],
        "head": _in_base64(_compressed(encode_glb(animation))),
        "sound": _in_base64(iter(partial(sound.read, _BLOCK), b"")),
        "three": [_file("three.min.js")],
        "viewer": [_file("viewer.js")],
    }
    first, *pieces = _file("page.html").split("{{")
    yield first
    for name, _, rest in (piece.partition("}}") for piece in pieces):
        yield from filled[name]
        yield rest


def _compressed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as gzip."""
    packer = zlib.compressobj(4, wbits=zlib.MAX_WBITS + 16)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def _in_base64(blocks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for block in blocks:
        rest += block
        whole = len(rest) // 3 * 3  # three bytes make four letters, and only an end may be padded
        yield b64encode(rest[:whole]).decode()
        rest = rest[whole:]
    yield b64encode(rest).decode()


@cache
def _file(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _script_safe(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c")


def _subtitle(animation: Animation) -> str:
    model = animation.meta.get("model")
    facts = [f"{animation.duration:.1f} s", f"{animation.fps:g} fps", f"face {animation.face.name}"]
    return " · ".join([*facts, *([f"talker {model}"] if model else [])])


def _data(animation: Animation, heard: float) -> dict[str, Any]:
    track: EmotionTrack = animation.emotion
    return {
        "duration": max(animation.duration, heard),
        "fps": animation.fps,
        "sound": "audio/flac" if heard else None,
        "labels": list(track.labels),
        "colors": label_colors(track.labels),
        "trackRate": track.frame_rate,
        "posterior": _bytes(track.posterior),
        "intensity": _bytes(track.intensity),
        "segments": [
            {"start": s.start, "end": s.end, "emotion": s.emotion, "intensity": s.intensity} for s in track.segments
        ],
        "camera": _camera(animation.face),
        "chosen": _most_moved(animation),
        "signed": animation.blendshapes is None,  # components of a motion go both ways
    }


def _bytes(shares: NDArray[np.float32]) -> str:
    return b64encode((np.clip(shares, 0, 1) * 255 + 0.5).astype(np.uint8).tobytes()).decode()


def _camera(face: Face) -> dict[str, Any]:
    """Where the portrait's camera looks (metres), and from how far."""
    if "eye_left" in face.parts and "eye_right" in face.parts:
        eyes = [face.template[face.parts[name]].mean(0) for name in ("eye_left", "eye_right")]
        return {"target": ((eyes[0] + eyes[1]) / 2 + _PORTRAIT).tolist(), "distance": 1.0}
    low, high = face.template.min(0), face.template.max(0)
    reach = float(np.linalg.norm(high - low)) / 2
    distance = reach / np.sin(np.radians(_FIELD_OF_VIEW / 2))
    return {"target": ((low + high) / 2).astype(float).tolist(), "distance": float(distance)}


def _most_moved(animation: Animation) -> list[str]:
    """Names of the curves shown at first: the jaw, then what moves most, without gaze, one of left and right."""
    if animation.blendshapes is None or not len(animation):
        return ["motion_00", "motion_01", "motion_02"]
    spread = animation.blendshapes.std(axis=0)
    names = [animation.blendshape_names[k] for k in np.argsort(-spread, kind="stable") if spread[k] > 0]
    shown = ["jawOpen"] if "jawOpen" in names else []
    for name in names:
        other = name.replace("Right", "Left") if "Right" in name else name.replace("Left", "Right")
        if name not in shown and other not in shown and not name.startswith("eyeLook"):
            shown.append(name)
    return shown[:_CHOSEN]
