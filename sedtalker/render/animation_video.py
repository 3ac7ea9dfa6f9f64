"""An animation -> frames, pictures and videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from sedtalker.errors import MissingExtraError, RenderError
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write
from sedtalker.render import views
from sedtalker.render.arrays import Bytes, Float
from sedtalker.render.camera import Camera, portrait_camera, view_camera
from sedtalker.render.captions import Caption, active_captions
from sedtalker.render.parallel import cores, map_in_order
from sedtalker.render.soft import Background, SoftRenderer
from sedtalker.render.strip import EmotionStrip
from sedtalker.render.text import draw_captions
from sedtalker.render.video import Audio, check_sound_length, write_video

if TYPE_CHECKING:
    from sedtalker.animation import Animation

Progress = Callable[[int, int], None]  # frames done, frames in all
Captions = Sequence[Caption]

BACKENDS = ("soft", "pyrender")

logger = logging.getLogger(__name__)


class Renderer(Protocol):
    """What draws a face; threads tells how many frames it can draw at a time."""

    threads: int

    def frame(self, vertices: Float, head: Float | None = None, camera: Camera | None = None) -> Bytes:
        """Draw vertices (V, 3): (H, W, 3 or 4) uint8."""


def make_renderer(
    face: Face,
    width: int = 512,
    height: int = 512,
    *,
    quality: str = "standard",
    backend: str = "soft",
    camera: Camera | None = None,
    background: Background = None,
) -> Renderer:
    """A renderer by its backend; the software renderer serves where OpenGL does not work, and the log says so."""
    if backend not in BACKENDS:
        raise RenderError(f"no such backend: {backend}. Choose one of {', '.join(BACKENDS)}")
    if backend == "pyrender":
        from sedtalker.render.pyrender import PyrenderRenderer

        try:
            renderer = PyrenderRenderer(face, width, height, camera, background)
        except (MissingExtraError, RenderError) as error:
            logger.warning("%s; drawing in software", error)
        else:
            logger.info("drawing with pyrender (%s)", renderer.device)
            return renderer
    logger.info("drawing in software, %d threads", cores())
    return SoftRenderer(face, width, height, quality, camera, background)


def render_frames(
    animation: Animation,
    face: Face | None = None,
    *,
    width: int = 512,
    height: int = 512,
    quality: str = "standard",
    backend: str = "soft",
    view: str = "front",
    background: Background = None,
    start: int = 0,
    stop: int | None = None,
    threads: int | None = None,
) -> Iterator[Bytes]:
    """Draw an animation's frames (H, W, 3) in order, several at a time.

    Args:
        animation: what moves.
        face: what is drawn; the animation's own face by default. It must have the same vertices.
        width, height, quality, background: see `SoftRenderer`.
        backend: "soft" or "pyrender".
        view: see `camera.VIEWS`.
        start, stop: frames to draw, `stop` excluded.
        threads: by default one for each processor.

    Raises:
        RenderError: a frame that cannot be drawn, with its number and time.
    """
    face = face or animation.face
    front = portrait_camera(face)
    renderer = make_renderer(
        face, width, height, quality=quality, backend=backend, camera=view_camera(front, view), background=background
    )  # fmt: skip

    def draw(item: tuple[int, tuple[Float, Float | None]]) -> Bytes:
        index, (vertices, head) = item
        seconds = _time(index, animation.fps)
        try:
            return renderer.frame(vertices, head, view_camera(front, view, seconds))
        except RenderError as error:
            raise RenderError(f"frame {index} at {seconds:.2f} s: {error}") from error

    heads = repeat(None) if animation.head is None else animation.head[start:stop]
    posed = enumerate(zip(animation.frames(start, stop), heads, strict=False), start)
    yield from map_in_order(draw, posed, threads or renderer.threads)


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
    captions: Captions = (),
    font: Path | None = None,
    audio: Audio | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw an animation into a video file, with the emotion strip under the face and sound if given.

    See `render_frames` and `write_video` for the arguments and errors; the strip adds to `height`. `font` is a file of
    a font for the captions, tried before the packaged ones.
    """
    frames: Iterable[Bytes] = render_frames(
        animation, face, width=width, height=height, quality=quality, backend=backend, view=view, background=background
    )
    if audio is not None:
        check_sound_length(len(animation), animation.fps, audio)  # before the frames are drawn
    shown = EmotionStrip(animation.emotion, width) if strip else None
    frames = _decorated(frames, animation.fps, shown, captions, font)
    write_video(path, _counted(frames, len(animation), progress), animation.fps, audio)


def render_comparison(
    predicted: Animation,
    true: Animation,
    path: Path | str,
    *,
    face: Face | None = None,
    width: int = 384,
    height: int = 384,
    view: str = "front",
    most: float = 10.0,
    titles: tuple[str, str, str] = ("prediction", "truth", "error"),
    audio: Audio | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw prediction, truth and their distance as a heat-map of up to `most` millimetres next to each other."""
    face = face or true.face
    if predicted.template.shape != true.template.shape:
        raise RenderError(
            f"{len(predicted.template)} and {len(true.template)} vertices cannot be compared. Predict the same topology"
        )
    camera = view_camera(portrait_camera(face), view)
    renderer = SoftRenderer(face, width, height, camera=camera)
    bare = replace(
        face, surfaces=(), attachments={}, textures={}, uv=None, colors=np.full(face.template.shape, 255, np.uint8)
    )
    heat = SoftRenderer(bare, width, height, camera=camera)

    def draw(pair: tuple[Float, Float]) -> Bytes:
        error = heat.frame(pair[0], colors=views.vertex_error_colors(*pair, most))
        views.draw_scale(error, most)
        return views.side_by_side([renderer.frame(pair[0]), renderer.frame(pair[1]), error], titles)

    count = min(len(predicted), len(true))
    frames = map_in_order(draw, zip(predicted.frames(0, count), true.frames(0, count), strict=True))
    write_video(path, _counted(frames, count, progress), true.fps, audio)


def contact_sheet(
    animation: Animation,
    path: Path | str | None = None,
    *,
    face: Face | None = None,
    count: int = 12,
    columns: int = 4,
    size: int = 256,
    quality: str = "fine",
    backend: str = "soft",
    view: str = "front",
    background: Background = None,
) -> Bytes:
    """`count` frames of an animation with their times and emotions in one picture; a PNG if `path` is given."""
    chosen = [(2 * k + 1) * len(animation) // (2 * count) for k in range(min(count, len(animation)))]
    if not chosen:
        raise RenderError("no frames to show: the animation is empty")
    pictures = _stills(animation, chosen, face, size, size, quality, backend, view, background)
    times = [_time(index, animation.fps) for index in chosen]
    labels = [f"{seconds:.2f} s  {_emotion(animation, seconds)}" for seconds in times]
    sheet = views.grid(pictures, columns, labels)
    if path is not None:
        with atomic_write(path) as temp_path:
            Image.fromarray(sheet).save(temp_path, format="PNG")
    return sheet


def poster(
    animation: Animation,
    seconds: float,
    path: Path | str | None = None,
    *,
    face: Face | None = None,
    width: int = 512,
    height: int = 512,
    quality: str = "fine",
    backend: str = "soft",
    view: str = "front",
    background: Background = None,
) -> Bytes:
    """The frame at a time as a picture; a PNG if `path` is given."""
    index = min(max(int(seconds * animation.fps), 0), len(animation) - 1)
    (picture,) = _stills(animation, [index], face, width, height, quality, backend, view, background)
    if path is not None:
        with atomic_write(path) as temp_path:
            Image.fromarray(picture).save(temp_path, format="PNG")
    return picture


def _stills(
    animation: Animation,
    chosen: Sequence[int],
    face: Face | None,
    width: int,
    height: int,
    quality: str,
    backend: str,
    view: str,
    background: Background,
) -> list[Bytes]:
    """Single frames of an animation."""
    face = face or animation.face
    front = portrait_camera(face)
    renderer = make_renderer(
        face, width, height, quality=quality, backend=backend, camera=view_camera(front, view), background=background
    )  # fmt: skip
    pictures = []
    for index in chosen:
        (vertices,) = animation.frames(index, index + 1)
        head = None if animation.head is None else animation.head[index]
        pictures.append(renderer.frame(vertices, head, view_camera(front, view, _time(index, animation.fps))))
    return pictures


def _time(index: int, fps: float) -> float:
    """The time that a frame shows, in seconds: the middle of its stay."""
    return (index + 0.5) / fps


def _emotion(animation: Animation, seconds: float) -> str:
    """The strongest emotion at a time and its intensity."""
    track = animation.emotion
    at = min(int(seconds * track.frame_rate), len(track.intensity) - 1)
    return f"{track.labels[int(np.argmax(track.posterior[at]))]} {track.intensity[at]:.1f}"


def _decorated(
    frames: Iterable[Bytes], fps: float, strip: EmotionStrip | None, captions: Captions, font: Path | None
) -> Iterator[Bytes]:
    """Frames with captions on them and the strip below."""
    active = active_captions(captions, (_time(index, fps) for index in count()))
    for index, (frame, texts) in enumerate(zip(frames, active, strict=False)):
        draw_captions(frame, texts, font)
        yield frame if strip is None else np.concatenate([frame, strip.frame(_time(index, fps))])


def _counted(frames: Iterable[Bytes], total: int, progress: Progress | None) -> Iterator[Bytes]:
    """The frames, reported as they pass."""
    for index, frame in enumerate(frames, 1):
        yield frame
        if progress is not None:
            progress(index, total)
