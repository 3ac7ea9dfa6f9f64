"""Render an animation to frames, pictures and videos."""

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
from sedtalker.provenance import attach
from sedtalker.provenance.mark import Mark
from sedtalker.provenance.record import Provenance, describe
from sedtalker.render import views
from sedtalker.render.arrays import Bytes, Float
from sedtalker.render.camera import Camera, front_camera, view_camera
from sedtalker.render.captions import Caption, active_captions
from sedtalker.render.config import RenderConfig
from sedtalker.render.parallel import available_threads, map_in_order
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.strip import EmotionStrip
from sedtalker.render.text import draw_captions
from sedtalker.render.video import Audio, check_sound_length, write_video

if TYPE_CHECKING:
    from sedtalker.animation import Animation

Progress = Callable[[int, int], None]  # frames done, total frames
Captions = Sequence[Caption]

VIDEO = RenderConfig()
SHEET = RenderConfig(width=256, height=256, quality="fine")  # default of each frame of a contact sheet
POSTER = RenderConfig(quality="fine")
COMPARISON = RenderConfig(width=384, height=384)  # default of each of the three pictures

logger = logging.getLogger(__name__)


class Renderer(Protocol):
    """Draws frames of one face; `threads` is the number of frames it can draw at a time."""

    threads: int

    def frame(self, vertices: Float, head: Float | None = None, camera: Camera | None = None) -> Bytes:
        """Draw vertices (V, 3): (H, W, 3 or 4) uint8."""


def make_renderer(face: Face, config: RenderConfig, camera: Camera | None = None) -> Renderer:
    """Create the renderer of `config.backend`; without OpenGL, log a warning and return the software renderer."""
    size, background = (config.width, config.height), config.background
    if config.backend == "pyrender":
        from sedtalker.render.pyrender import PyrenderRenderer

        try:
            renderer = PyrenderRenderer(face, *size, camera, background)
        except (MissingExtraError, RenderError) as error:
            logger.warning("%s; drawing in software", error)
        else:
            logger.info("drawing with pyrender (%s)", renderer.device)
            return renderer
    logger.info("drawing in software, %d threads", available_threads())
    return SoftRenderer(face, *size, config.quality, camera, background)


def prepare_renderer(face: Face, config: RenderConfig = VIDEO) -> Renderer:
    """The renderer of `render_frames` and `render_animation`, for a face that is known before its animation."""
    return make_renderer(face, config, view_camera(front_camera(face, config.framing), config.view))


def render_frames(
    animation: Animation,
    config: RenderConfig = VIDEO,
    *,
    start: int = 0,
    stop: int | None = None,
    threads: int | None = None,
    renderer: Renderer | None = None,
) -> Iterator[Bytes]:
    """Draw an animation's frames in order, several at a time.

    Args:
        start, stop: the frames to draw, `stop` excluded.
        threads: by default one for each processor.
        renderer: of `prepare_renderer` for the animation's face; None: a new one.

    Yields:
        (H, W, 3) uint8 sRGB, or (H, W, 4) with a transparent background.

    Raises:
        RenderError: a frame that cannot be drawn, with its number and time.
    """
    front = front_camera(animation.face, config.framing)
    renderer = renderer or prepare_renderer(animation.face, config)

    def draw(item: tuple[int, tuple[Float, Float | None]]) -> Bytes:
        index, (vertices, head) = item
        seconds = _time(index, animation.fps)
        try:
            return renderer.frame(vertices, head, view_camera(front, config.view, seconds))
        except RenderError as error:
            raise RenderError(f"frame {index} at {seconds:.2f} s: {error}") from error

    heads = repeat(None) if animation.head is None else animation.head[start:stop]
    poses = enumerate(zip(animation.frames(start, stop), heads, strict=False), start)
    yield from map_in_order(draw, poses, threads or renderer.threads)


def render_animation(
    animation: Animation,
    path: Path | str,
    config: RenderConfig = VIDEO,
    *,
    strip: bool = True,
    captions: Captions = (),
    font: Path | None = None,
    audio: Audio | None = None,
    progress: Progress | None = None,
    provenance: Provenance | None = None,
    renderer: Renderer | None = None,
) -> None:
    """Draw an animation into a video file, with captions, sound and the emotion strip below the face.

    See `render_frames` and `write_video` for arguments and errors. The strip adds to `config.height`. `font` is a font
    file for the captions, tried before the packaged fonts. `provenance` is by default that of `animation.meta`.
    """
    if audio is not None:
        check_sound_length(len(animation), animation.fps, audio)  # before the frames are drawn
    emotion_strip = EmotionStrip(animation.emotion, config.width) if strip else None
    drawn = render_frames(animation, config, renderer=renderer)
    frames = _add_overlays(drawn, animation.fps, emotion_strip, captions, font)
    shown = _report_progress(frames, len(animation), progress)
    write_video(path, shown, animation.fps, audio, provenance or describe(animation.meta, face=animation.face.name))


def render_comparison(
    predicted: Animation,
    true: Animation,
    path: Path | str,
    config: RenderConfig = COMPARISON,
    *,
    face: Face | None = None,
    max_error: float = 10.0,
    audio: Audio | None = None,
) -> None:
    """Draw prediction, truth and a heat map of their distance, up to `max_error` millimetres, next to each other."""
    face = face or true.face
    if predicted.template.shape != true.template.shape:
        raise RenderError(
            f"{len(predicted.template)} and {len(true.template)} vertices cannot be compared. Predict the same topology"
        )
    camera = view_camera(front_camera(face, config.framing), config.view)
    renderer = make_renderer(face, config, camera)
    bare = replace(
        face, surfaces=(), attachments={}, textures={}, uv=None, colors=np.full(face.template.shape, 255, np.uint8)
    )
    heat_map = SoftRenderer(bare, config.width, config.height, config.quality, camera, config.background)

    def draw(pair: tuple[Float, Float]) -> Bytes:
        error = heat_map.frame(pair[0], colors=views.vertex_error_colors(*pair, max_error))
        views.draw_scale(error, max_error)
        pictures = [renderer.frame(pair[0]), renderer.frame(pair[1]), error]
        return views.side_by_side(pictures, ("prediction", "truth", "error"))

    count = min(len(predicted), len(true))
    frames = map_in_order(draw, zip(predicted.frames(0, count), true.frames(0, count), strict=True))
    write_video(path, frames, true.fps, audio, describe(predicted.meta, face=face.name))


def contact_sheet(
    animation: Animation,
    path: Path | str | None = None,
    config: RenderConfig = SHEET,
    *,
    count: int = 12,
    columns: int = 4,
    provenance: Provenance | None = None,
) -> Bytes:
    """Draw `count` frames with their times and emotions in one picture (H, W, 3); save it as PNG if `path` is given."""
    indices = [(2 * k + 1) * len(animation) // (2 * count) for k in range(min(count, len(animation)))]
    pictures = _render_stills(animation, indices, config)
    times = [_time(index, animation.fps) for index in indices]
    labels = [f"{seconds:.2f} s  {_emotion(animation, seconds)}" for seconds in times]
    sheet = views.grid(pictures, columns, labels)
    if path is not None:
        _save_png(sheet, path, provenance or describe(animation.meta, face=animation.face.name))
    return sheet


def poster(
    animation: Animation,
    seconds: float,
    path: Path | str | None = None,
    config: RenderConfig = POSTER,
    *,
    provenance: Provenance | None = None,
) -> Bytes:
    """Draw the frame at a time (H, W, 3 or 4); save it as PNG if `path` is given."""
    index = min(max(int(seconds * animation.fps), 0), len(animation) - 1)
    (picture,) = _render_stills(animation, [index], config)
    if path is not None:
        _save_png(picture, path, provenance or describe(animation.meta, face=animation.face.name))
    return picture


def _save_png(picture: Bytes, path: Path | str, provenance: Provenance) -> None:
    """Save a picture with its manifest and, unless it is turned off, the mark."""
    marked = Mark(provenance.digest).add(picture) if provenance.mark else picture
    with atomic_write(path) as temp_path:
        Image.fromarray(marked).save(temp_path, format="PNG")
        attach(temp_path, provenance)


def _render_stills(animation: Animation, indices: Sequence[int], config: RenderConfig) -> list[Bytes]:
    """Draw single frames. Raises RenderError without any."""
    if not indices or not len(animation):
        raise RenderError("no frames to show: the animation is empty")
    front, renderer = front_camera(animation.face, config.framing), prepare_renderer(animation.face, config)
    pictures = []
    for index in indices:
        (vertices,) = animation.frames(index, index + 1)
        head = None if animation.head is None else animation.head[index]
        pictures.append(renderer.frame(vertices, head, view_camera(front, config.view, _time(index, animation.fps))))
    return pictures


def _time(index: int, fps: float) -> float:
    """The time in seconds at the middle of a frame."""
    return (index + 0.5) / fps


def _emotion(animation: Animation, seconds: float) -> str:
    """The strongest emotion at a time and its intensity."""
    track = animation.emotion
    index = min(int(seconds * track.frame_rate), len(track.intensity) - 1)
    return f"{track.labels[int(np.argmax(track.posterior[index]))]} {track.intensity[index]:.1f}"


def _add_overlays(
    frames: Iterable[Bytes], fps: float, strip: EmotionStrip | None, captions: Captions, font: Path | None
) -> Iterator[Bytes]:
    """Draw captions on the frames and append the strip below."""
    active = active_captions(captions, (_time(index, fps) for index in count()))
    for index, (frame, texts) in enumerate(zip(frames, active, strict=False)):
        draw_captions(frame, texts, font)
        yield frame if strip is None else np.concatenate([frame, strip.frame(_time(index, fps))])


def _report_progress(frames: Iterable[Bytes], total: int, progress: Progress | None) -> Iterator[Bytes]:
    """Yield the frames and call `progress` after each."""
    for index, frame in enumerate(frames, 1):
        yield frame
        if progress is not None:
            progress(index, total)
