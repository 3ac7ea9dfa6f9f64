"""Rendering: camera -> scene -> geometry -> raster -> paint (shade, shadow) -> strip, captions, views -> video.

`SoftRenderer` draws a face from its vertices, `render_animation` writes a video of an animation. `RenderConfig` holds
the settings and their defaults.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sedtalker.render.animation_video import (
        contact_sheet,
        poster,
        render_animation,
        render_comparison,
        render_frames,
    )
    from sedtalker.render.camera import Camera
    from sedtalker.render.config import RenderConfig
    from sedtalker.render.soft import SoftRenderer
    from sedtalker.render.video import write_video

_MODULES = {
    "Camera": "camera",
    "RenderConfig": "config",
    "SoftRenderer": "soft",
    "contact_sheet": "animation_video",
    "poster": "animation_video",
    "render_animation": "animation_video",
    "render_comparison": "animation_video",
    "render_frames": "animation_video",
    "write_video": "video",
}

__all__ = [
    "Camera",
    "RenderConfig",
    "SoftRenderer",
    "contact_sheet",
    "poster",
    "render_animation",
    "render_comparison",
    "render_frames",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, because the renderer imports a compiler."""
    if name not in _MODULES:
        raise AttributeError(f"module 'sedtalker.render' has no attribute {name!r}")
    return getattr(import_module(f"sedtalker.render.{_MODULES[name]}"), name)
