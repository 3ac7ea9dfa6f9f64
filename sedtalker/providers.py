"""Functions of higher layers that the data classes offer as methods, found when they are first called.

`Animation` and `EmotionTrack` show themselves in a notebook and become meshes by functions of `sedtalker.export`, which
itself builds on them. The names here keep the imports in one direction.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

PROVIDERS: dict[str, str] = {
    "animation_html": "sedtalker.export.notebook",
    "track_html": "sedtalker.export.notebook",
    "to_trimesh": "sedtalker.export.meshes",
}
"""Name of a function and the module that has it."""


def provider(name: str) -> Callable[..., Any]:
    """The function of this name in `PROVIDERS`."""
    function: Callable[..., Any] = getattr(import_module(PROVIDERS[name]), name)
    return function
