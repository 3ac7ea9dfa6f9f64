"""An animation -> frames -> a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import RenderError
from sedtalker.face.rig import Face
from sedtalker.render.camera import portrait_camera, view_camera
from sedtalker.render.frames import map_in_order
from sedtalker.render.soft import Background, SoftRenderer
from sedtalker.render.video import Audio, write_video

if TYPE_CHECKING:
    from sedtalker.animation import Animation

Bytes = NDArray[np.uint8]
Progress = Callable[[int, int], None]


def render_frames(
    animation: Animation,
    face: Face | None = None,
    *,
    width: int = 512,
    height: int = 512,
    quality: str = "standard",
    view: str = "front",
    background: Background = None,
    threads: int | None = None,
) -> Iterator[Bytes]:
    """Draw an animation's frames (H, W, 3) in order, several at a time.

    Args:
        animation: what moves.
        face: what is drawn; the animation's own face by default. It must have the same vertices.
        width, height, quality, background: see `SoftRenderer`.
        view: see `camera.VIEWS`.
        threads: by default one for each processor.
    """
    face = face or animation.face
    front = portrait_camera(face)
    renderer = SoftRenderer(face, width, height, quality, view_camera(front, view), background)
    heads = animation.head if animation.head is not None else repeat(None)

    def draw(item: tuple[int, tuple[NDArray[np.float32], NDArray[np.float32] | None]]) -> Bytes:
        index, (vertices, head) = item
        try:
            return renderer.frame(vertices, head, view_camera(front, view, index / animation.fps))
        except RenderError as error:
            raise RenderError(f"frame {index} ({index / animation.fps:.2f} s): {error}") from error

    yield from map_in_order(draw, enumerate(zip(animation.frames(), heads, strict=False)), threads)


def render_animation(
    animation: Animation,
    path: Path | str,
    *,
    face: Face | None = None,
    width: int = 512,
    height: int = 512,
    quality: str = "standard",
    backend: str = "soft",
    view: str = "front",
    background: Background = None,
    strip: bool = True,
    audio: Audio | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw an animation into a video file; see `render_frames` and `write_video`."""
    frames = render_frames(
        animation, face, width=width, height=height, quality=quality, view=view, background=background
    )
    write_video(path, frames, animation.fps, audio)
