"""Functions of `sedtalker.export` that are methods of data classes, imported at their first call.

`Animation` and `EmotionTrack` have methods (HTML for notebooks, conversion to trimesh) that `sedtalker.export`
implements, and `sedtalker.export` imports these classes. The table of names keeps the imports in one direction.
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
"""Modules of the functions, by name."""


def provider(name: str) -> Callable[..., Any]:
    """The function of this name in `PROVIDERS`."""
    function: Callable[..., Any] = getattr(import_module(PROVIDERS[name]), name)
    return function
