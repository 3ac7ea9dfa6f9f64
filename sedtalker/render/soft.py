"""The software renderer: needs no display, no OpenGL and no GPU, and draws the same frame from the same vertices."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import RenderError
from sedtalker.face.rig import Face
from sedtalker.render import shadow
from sedtalker.render.arrays import Bytes, Float, Index
from sedtalker.render.buffers import COLORED_CORNERS, Scene, Scratch, Shot, make_scratch
from sedtalker.render.camera import Camera, portrait_camera
from sedtalker.render.config import QUALITIES, Background, RenderConfig
from sedtalker.render.geometry import project
from sedtalker.render.paint import draw
from sedtalker.render.parallel import cores
from sedtalker.render.raster import list_triangles
from sedtalker.render.scene import Prepared, locate, prepare
from sedtalker.render.shade import KEY, PAINT, to_linear, to_srgb

_CENTER_COLOR, _CORNER_COLOR = (0.30, 0.33, 0.38), (0.10, 0.11, 0.13)  # sRGB
_NO_SUN = np.zeros((3, 4), np.float32)
_SORT_STEPS = 30_000  # depths told apart when sorting


@dataclass
class _Work:
    """A thread's working memory."""

    points: Float
    normals: Float
    screen: Float
    shadow: Float
    scratch: Scratch


class SoftRenderer:
    """Draws one face, again and again.

    Frames may be drawn from several threads at once; each keeps working memory of its own, and the drawing itself
    releases the interpreter lock.

    Args:
        face: what to draw; a bare mesh is drawn in clay.
        width, height: pixels.
        quality: "standard" for speed: the key light's shadow is the resting face's and moves along with the skin.
            "fine" for stills and final videos: the shadow is each frame's own, skin has relief, outlines are softer.
        camera: by default `portrait_camera(face)`.
        background: None for a soft grey, an sRGB colour in [0, 1], or "transparent" for RGBA frames.
    """

    def __init__(
        self,
        face: Face,
        width: int = RenderConfig.width,
        height: int = RenderConfig.height,
        quality: str = RenderConfig.quality,
        camera: Camera | None = None,
        background: Background = None,
    ) -> None:
        RenderConfig(width, height, quality, background=background)  # checks the values
        self.face, self.width, self.height, self.quality = face, width, height, quality
        self.camera = camera or portrait_camera(face)
        self.scale = QUALITIES[quality]
        backdrop = _backdrop(width, height, None if background == "transparent" else background)
        self._transparent = background == "transparent"
        self._canvas = _canvas(backdrop, self._transparent)
        self._prepared = prepare(
            face, self.camera, width * self.scale, height * self.scale, fine=quality == "fine", background=backdrop
        )
        self.threads = cores()
        self._casts = quality == "fine"
        if not self._casts:
            self._bake_shadow()
        self._local = threading.local()

    def frame(
        self, vertices: Float, head: Float | None = None, camera: Camera | None = None, colors: Float | None = None
    ) -> Bytes:
        """Draw a frame: (H, W, 3) sRGB bytes, or (H, W, 4) if transparent.

        Args:
            vertices: (V, 3) metres.
            head: (4, 4) rigid motion of the head.
            camera: in place of the renderer's own.
            colors: (V, 3) linear RGB, in place of the face's own; the face must have some.

        Raises:
            RenderError: vertices that are not finite or do not fit the face, or a blank frame.
        """
        _check(vertices, self.face)
        prepared, work = self._prepared, self._work()
        locate(prepared, vertices, head, work.points, work.normals)
        camera = camera or self.camera
        width, height = self.width * self.scale, self.height * self.scale
        view = _view(camera, width, height)
        project(work.points, view, work.screen)
        self._list(work, width, height)
        sun = shadow.light_view(work.points) if self._casts else _NO_SUN
        if self._casts:
            shadow.render_shadow_map(work.points, prepared.casters, sun, work.shadow)
        shot = Shot(work.points, work.normals, work.screen, view, sun, work.shadow)
        out = self._canvas.copy()
        scene = prepared.scene if colors is None else _colored(prepared, colors)
        drawn = draw(scene, shot, self.scale, work.scratch, out)
        if not drawn and _in_view(work.screen, width, height):
            raise RenderError(
                "a blank frame although the face is in view: nothing of it could be drawn. Check its triangles"
            )
        return out

    def _list(self, work: _Work, width: int, height: int) -> None:
        """List the frame's triangles, in more room where they need it."""
        scene = self._prepared.scene
        blended = _sort(self._prepared, work.screen)
        needed = list_triangles(scene, work.screen, *blended, width, height, work.scratch)
        if needed > len(work.scratch.order):
            work.scratch = work.scratch._replace(order=np.empty(2 * needed, np.uint32))
            list_triangles(scene, work.screen, *blended, width, height, work.scratch)

    def _work(self) -> _Work:
        if not hasattr(self._local, "work"):
            scene, count = self._prepared.scene, self._prepared.count
            self._local.work = _Work(
                points=np.zeros((count, 3), np.float32),
                normals=np.zeros((count, 4), np.float32),
                screen=np.zeros((count, 3), np.float32),
                shadow=np.zeros((shadow.LAYERS, shadow.SIZE, shadow.SIZE) if self._casts else (1, 1, 1), np.float32),
                scratch=make_scratch(
                    self.width * self.scale, self.height * self.scale, len(scene.triangles), len(scene.surfaces)
                ),
            )
        return self._local.work

    def _bake_shadow(self) -> None:
        """Write the key light that reaches the face at rest into the corners."""
        prepared = self._prepared
        points, normals = np.zeros((prepared.count, 3), np.float32), np.zeros((prepared.count, 4), np.float32)
        locate(prepared, self.face.template, None, points, normals)
        light = shadow.light_points(points, normals, prepared.casters)
        light = shadow.smoothed(light, prepared.faces)
        scene = prepared.scene
        scene.corners[..., KEY] = light[scene.triangles]


def _check(vertices: Float, face: Face) -> None:
    if vertices.shape != face.template.shape:
        raise RenderError(
            f"{len(vertices)} vertices for a face of {len(face.template)}: {face.name}. Give the face that was animated"
        )
    if not np.isfinite(vertices).all():
        bad = int(np.argmin(np.isfinite(vertices).all(1)))
        raise RenderError(f"a vertex that is not a number: vertex {bad} of {face.name}. The animation is broken")


def _colored(prepared: Prepared, colors: Float) -> Scene:
    """The scene with other colours at the vertices; attachments stay as they are."""
    scene = prepared.scene
    if scene.corners.shape[2] != COLORED_CORNERS:
        raise RenderError("colours for a face that has none. Give the renderer a face with `colors`")
    every = np.ones((prepared.count, 3), np.float32)
    every[: len(colors)] = colors
    every[len(prepared.follows) :] = every[prepared.edges].mean(1)
    corners = scene.corners.copy()
    corners[..., PAINT : PAINT + 3] = every[scene.triangles]
    return scene._replace(corners=corners)


def _sort(prepared: Prepared, screen: Float) -> tuple[Index, NDArray[np.int32]]:
    """Triangles to blend from back to front, and where each surface begins among them."""
    count = np.zeros(len(prepared.scene.surfaces) + 1, np.int32)
    chosen = []
    for s, triangles in prepared.blended:
        nearness = screen[prepared.scene.triangles[triangles], 2].sum(1)
        low, high = float(nearness.min()), float(nearness.max())
        steps = ((nearness - low) * (_SORT_STEPS / max(high - low, 1e-9))).astype(np.int16)
        chosen.append(triangles[np.argsort(steps, kind="stable")])
        count[s + 1] = len(triangles)
    return np.concatenate(chosen or [np.zeros(0, np.uint32)]), np.cumsum(count, dtype=np.int32)


def _view(camera: Camera, width: int, height: int) -> Float:
    """The camera as `shade.shade` takes it."""
    over = 1.0 / camera.focal(width, height)
    return np.concatenate([camera.eye(), camera.axes().reshape(-1), (over, width / 2, height / 2)]).astype(np.float32)


def _in_view(screen: Float, width: int, height: int) -> bool:
    inside = (screen[:, 0] > 0) & (screen[:, 0] < width) & (screen[:, 1] > 0) & (screen[:, 1] < height)
    return bool(inside.any())


def _backdrop(width: int, height: int, color: Background) -> Float:
    """(H, W, 3) displayed linear light: one colour, or a soft vignette."""
    if color is not None:
        return np.broadcast_to(to_linear(np.array(color, np.float32)), (height, width, 3)).astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    side = max(width, height)
    far = np.clip(np.hypot(x - width / 2, y - 0.42 * height) * (1.25 / side), 0, 1)[..., None]
    far = far * far * (3 - 2 * far)
    return ((1 - far) * to_linear(np.array(_CENTER_COLOR)) + far * to_linear(np.array(_CORNER_COLOR))).astype(
        np.float32
    )


def _canvas(backdrop: Float, transparent: bool) -> Bytes:
    """What a frame is drawn on."""
    if transparent:
        return np.zeros((*backdrop.shape[:2], 4), np.uint8)
    # Half a step of noise hides the steps of a slow gradient.
    noise = np.random.default_rng(0).random((*backdrop.shape[:2], 1), np.float32)
    return np.clip(to_srgb(backdrop) * 255 + noise, 0, 255).astype(np.uint8)
