"""The page at `/`: the viewer of `export --to html`, with a microphone, takes and the editor of the emotion track."""

from __future__ import annotations

import json
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import FaceError
from sedtalker.export.glb import encode_glb
from sedtalker.export.html import PAGE_FOLDER, fill_page, portrait, script_safe
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import identities, load_face
from sedtalker.face.rig import Face
from sedtalker.labels import label_colors
from sedtalker.serve.config import ServeConfig
from sedtalker.serve.engine import Description

_OWN = Path(__file__).parent / "page"
_PARTS = {  # name in the address -> file
    "three.min.js": PAGE_FOLDER / "three.min.js",
    "viewer.js": PAGE_FOLDER / "viewer.js",
    "viewer.css": PAGE_FOLDER / "page.css",
    "drawing.js": _OWN / "drawing.js",
    "live.js": _OWN / "live.js",
    "live.css": _OWN / "live.css",
    "capture.js": _OWN / "capture.js",
}
_STYLES = ("viewer.css", "live.css")
_SCRIPTS = ("three.min.js", "viewer.js", "drawing.js", "live.js")  # of the page; capture.js is for the audio thread
_MEDIA = {".js": "text/javascript", ".css": "text/css"}
WINDOW = 8.0  # s of the past that the page plots
LOOK_AHEAD = 80  # ms, of the page's sessions unless the server was given another: a conversation needs a short delay


class Page:
    """The page and its parts."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self.faces = list(dict.fromkeys([config.face, *identities()]))
        self._panel = (_OWN / "panel.html").read_text(encoding="utf-8")

    def html(self, number: str | None, description: Description) -> str:
        """The page for a face and a talker. Raises FaceError: no such face."""
        chosen = self.face(number)
        options = [
            f'<option value="{index}"{" selected" if name == chosen else ""}>{escape(Path(name).stem)}</option>'
            for index, name in enumerate(self.faces)
        ]
        return "".join(
            fill_page(
                title="SEDTalker",
                style="".join(f'<link rel="stylesheet" href="page/{name}">' for name in _STYLES),
                state='<p id="state" role="status" aria-live="polite"></p>',
                panel=self._panel.replace("{{faces}}", "".join(options)),
                data=script_safe(json.dumps(self._data(chosen, description))),
                scripts="".join(f'<script src="page/{name}"></script>' for name in _SCRIPTS),
                **{"class": ' class="live"'},
            )
        )

    def part(self, name: str) -> tuple[bytes, str] | None:
        """Content and media type of a script or style; None if there is none of this name."""
        file = _PARTS.get(name)
        return None if file is None else (file.read_bytes(), _MEDIA[file.suffix])

    def face(self, number: str | None) -> str:
        """The name of a face by its number in `faces`; None is the server's. Raises FaceError: no such face."""
        index = 0 if number is None else int(number) if number.isdecimal() and len(number) < 6 else len(self.faces)
        if index >= len(self.faces):
            raise FaceError("no such face. Choose one of the page's")
        return self.faces[index]

    def glb(self, number: str) -> bytes:
        """A face as glTF, with one frame at rest. Raises FaceError: no such face."""
        return _encode_face(self.face(number))

    def _data(self, face: str, description: Description) -> dict[str, object]:
        labels = description.labels
        number = self.faces.index(face)
        return {
            "head": f"face/{number}.glb",
            "face": number,
            "duration": WINDOW,
            "fps": self._config.fps,
            "sound": None,
            "labels": list(labels),
            "colors": label_colors(tuple(labels)),
            "trackRate": self._config.fps,
            "posterior": "",
            "intensity": "",
            "segments": [],
            "uncertain": [],
            "names": list(ARKIT_NAMES),
            "camera": portrait(_load(face)),
            "chosen": ["jawOpen", "mouthPucker", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft"],
            "signed": False,
            "lookAheads": description.look_aheads,
            "lookAhead": self._config.look_ahead or LOOK_AHEAD,
        }


@lru_cache(maxsize=2)
def _load(name: str) -> Face:
    return load_face(name)


@lru_cache(maxsize=2)
def _encode_face(name: str) -> bytes:
    face = _load(name)
    still = Animation(
        template=face.template,
        faces=face.faces,
        fps=30.0,
        emotion=EmotionTrack.neutral(1 / 30),
        blendshapes=np.zeros((1, len(face.blendshape_names)), np.float32),
        blendshape_names=face.blendshape_names,
        head=np.eye(4, dtype=np.float32)[None],
        meta={"face": face.name},
        rig=face,
    )
    return b"".join(encode_glb(still))
