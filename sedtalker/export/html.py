"""One self-contained HTML file: the head in three.js with its sound, the emotion track and selected curves.

The file contains the glTF of `glb.py` (compressed), the sound as FLAC and three.js. It needs no network access, and its
content security policy forbids any. File names and labels are only inserted as text.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import cache, partial
from html import escape
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import stream_audio
from sedtalker.export.glb import encode_glb
from sedtalker.export.sound import find_recording, write_flac
from sedtalker.face.asset_io import quantize
from sedtalker.face.framing import FIELD_OF_VIEW, frame_face
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write
from sedtalker.labels import label_colors

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.emotion.track import EmotionTrack

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; media-src blob:; "
    "connect-src blob:"
)
PAGE_FOLDER = Path(__file__).parent / "page"
_BLOCK = 1 << 20  # bytes of sound in memory at a time
_SELECTED = 5  # curves that the page shows at first


def write(animation: Animation, path: Path) -> None:
    """Write the page, with sound unless the recording was moved or changed."""
    with atomic_write(path) as temp_path, temp_path.open("w", encoding="utf-8") as file:
        file.writelines(html_page(animation))


def html_page(animation: Animation) -> Iterator[str]:
    """The page as text, in pieces, so that a page of an hour is never in memory as a whole."""
    source = find_recording(animation)
    with tempfile.TemporaryFile() as sound:
        seconds = 0.0 if source is None else write_flac(stream_audio(source), sound)
        sound.seek(0)
        yield from _fill_template(animation, sound, seconds)


def _fill_template(animation: Animation, sound: IO[bytes], sound_seconds: float) -> Iterator[str]:
    """The pieces of the page of an animation."""
    title = Path(animation.meta.get("audio") or animation.face.name).name
    return fill_page(
        title=escape(title),
        subtitle=escape(_subtitle(animation)),
        policy=f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        style=f"<style>\n{_read_part('page.css')}\n</style>",
        data=script_safe(json.dumps(_data(animation, sound_seconds), separators=(",", ":"))),
        scripts=chain(
            ['<script type="application/octet-stream" id="head">'],
            _encode_base64(_compress(encode_glb(animation))),
            ['</script>\n<script type="application/octet-stream" id="sound">'],
            _encode_base64(iter(partial(sound.read, _BLOCK), b"")),
            [f"</script>\n<script>\n{_read_part('three.min.js')}\n</script>\n"],
            [f"<script>\n{_read_part('viewer.js')}\n</script>"],
        ),
    )


def fill_page(**fields: str | Iterable[str]) -> Iterator[str]:
    """The pieces of the template page.html, with HTML for its fields; a field that is not given is empty."""
    first, *pieces = _read_part("page.html").split("{{")
    yield first
    for name, _, rest in (piece.partition("}}") for piece in pieces):
        content = fields.get(name, "")
        yield from [content] if isinstance(content, str) else content
        yield rest


def _compress(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes as gzip."""
    packer = zlib.compressobj(4, wbits=zlib.MAX_WBITS + 16)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def _encode_base64(blocks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for block in blocks:
        rest += block
        whole = len(rest) // 3 * 3  # three bytes make four letters; only the last block may be padded
        yield b64encode(rest[:whole]).decode()
        rest = rest[whole:]
    yield b64encode(rest).decode()


@cache
def _read_part(name: str) -> str:
    return (PAGE_FOLDER / name).read_text(encoding="utf-8")


def script_safe(text: str) -> str:
    """JSON escaped so that it cannot end the script element that contains it."""
    return text.replace("<", "\\u003c")


def _subtitle(animation: Animation) -> str:
    model = animation.meta.get("model")
    parts = [f"{animation.duration:.1f} s", f"{animation.fps:g} fps", f"face {animation.face.name}"]
    return " · ".join([*parts, *([f"talker {model}"] if model else [])])


def _data(animation: Animation, sound_seconds: float) -> dict[str, Any]:
    track: EmotionTrack = animation.emotion
    return {
        "duration": max(animation.duration, sound_seconds),
        "fps": animation.fps,
        "sound": "audio/flac" if sound_seconds else None,
        "labels": list(track.labels),
        "colors": label_colors(track.labels),
        "trackRate": track.frame_rate,
        "posterior": _encode_shares(track.posterior),
        "intensity": _encode_shares(track.intensity),
        "segments": [
            {"start": s.start, "end": s.end, "emotion": s.emotion, "intensity": s.intensity} for s in track.segments
        ],
        "uncertain": track.abstained_spans,
        "camera": portrait(animation.face),
        "chosen": _select_curves(animation),
        "signed": animation.blendshapes is None,  # weights of principal components are signed
    }


def _encode_shares(values: NDArray[np.float32]) -> str:
    return b64encode(quantize(values).tobytes()).decode()


def portrait(face: Face) -> dict[str, Any]:
    """Target of the page's camera in metres, and its distance: those of the renderer, or a view of the whole mesh."""
    framed = frame_face(face)
    if framed is not None:
        return {"target": list(framed[0]), "distance": framed[1]}
    low, high = face.template.min(0), face.template.max(0)
    radius = float(np.linalg.norm(high - low)) / 2
    distance = radius / np.sin(np.radians(FIELD_OF_VIEW / 2))
    return {"target": ((low + high) / 2).astype(float).tolist(), "distance": float(distance)}


def _select_curves(animation: Animation) -> list[str]:
    """Names of the curves that the page shows at first: the jaw, then those of most motion, one side, without gaze."""
    if animation.blendshapes is None or not len(animation):
        return ["motion_00", "motion_01", "motion_02"]
    spread = animation.blendshapes.std(axis=0)
    names = [animation.blendshape_names[k] for k in np.argsort(-spread, kind="stable") if spread[k] > 0]
    selected = ["jawOpen"] if "jawOpen" in names else []
    for name in names:
        other = name.replace("Right", "Left") if "Right" in name else name.replace("Left", "Right")
        if name not in selected and other not in selected and not name.startswith("eyeLook"):
            selected.append(name)
    return selected[:_SELECTED]
