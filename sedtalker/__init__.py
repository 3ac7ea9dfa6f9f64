"""SEDTalker: speech in, an emotional talking 3D face out.

Modules in the order of the data: `audio` (any file -> 16 kHz mono), `speech` (-> 50 feature vectors a second),
`emotion` (-> category and intensity of every 20 ms), `talker` (-> blendshape weights or vertices), `face` (-> a mesh),
`animation` (its file), `render` and `export` (pictures, videos, engine formats). `pipeline` connects them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sedtalker.animation import Animation, load_animation
    from sedtalker.emotion.track import EmotionTrack
    from sedtalker.errors import SEDTalkerError
    from sedtalker.export.hub import push_to_hub
    from sedtalker.face.assets import load_face
    from sedtalker.face.rig import Face
    from sedtalker.pipeline import Talker, load

__version__ = "0.1.0"

_HOMES = {
    "Animation": "sedtalker.animation",
    "load_animation": "sedtalker.animation",
    "EmotionTrack": "sedtalker.emotion.track",
    "SEDTalkerError": "sedtalker.errors",
    "Face": "sedtalker.face.rig",
    "load_face": "sedtalker.face.assets",
    "Talker": "sedtalker.pipeline",
    "load": "sedtalker.pipeline",
    "push_to_hub": "sedtalker.export.hub",
}

__all__ = [
    "Animation",
    "EmotionTrack",
    "Face",
    "SEDTalkerError",
    "Talker",
    "load",
    "load_animation",
    "load_face",
    "push_to_hub",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import sedtalker` is fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sedtalker' has no attribute {name!r}")
    from sedtalker.resources import short_openmp_spin

    with short_openmp_spin():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
