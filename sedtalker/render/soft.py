"""The software renderer: deterministic to the byte, without display, OpenGL or GPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import RenderError
from sedtalker.face.rig import Face
from sedtalker.render import shadow
from sedtalker.render.arrays import Bytes, Float, Index
from sedtalker.render.buffers import (
    BUMP,
    BUMP_HEIGHT,
    COLORED_CORNER_COLUMNS,
    HEIGHT,
    TEXTURE,
    FrameInputs,
    Scene,
    Scratch,
    make_scratch,
)
from sedtalker.render.camera import Camera, front_camera
from sedtalker.render.config import QUALITIES, Background, RenderConfig
from sedtalker.render.geometry import project, quantize_depths
from sedtalker.render.mouth_light import TeethLight, has_teeth
from sedtalker.render.paint import draw
from sedtalker.render.parallel import available_threads
from sedtalker.render.raster import list_triangles
from sedtalker.render.scene import PreparedFace, prepare_face, update_points
from sedtalker.render.shade import KEY_VISIBILITY, VERTEX_COLOR, to_linear, to_srgb
from sedtalker.render.wrinkles import FaceWrinkles, has_wrinkles

_CENTER_COLOR, _CORNER_COLOR = (0.30, 0.33, 0.38), (0.10, 0.11, 0.13)  # sRGB
_NO_LIGHT = np.zeros((3, 4), np.float32)
_SORT_STEPS = 30_000  # distinct depths of the sort


@dataclass
class _Buffers:
    """A thread's working memory."""

    points: Float
    normals: Float
    screen: Float
    shadow_map: Float
    scratch: Scratch
    scene: Scene  # that of the face, with texels and heights of its own if it has wrinkles, and corners if it has teeth
    wrinkles: bytes = b""  # of the activations that the scene shows


class SoftRenderer:
    """Draws frames of one face.

    Several threads may call `frame` at once: each has its own buffers, and drawing releases the interpreter lock.

    Args:
        face: the face to draw; a bare mesh is drawn with the material `scene.CLAY`.
        width, height: pixels.
        quality: "standard" bakes the key light's shadow of the resting face into the vertices and tessellates hair.
            "fine" renders a shadow map for each frame, tessellates all smooth surfaces, adds bump maps and
            supersamples.
        camera: by default `front_camera(face)`.
        background: None for a gray gradient, an sRGB color in [0, 1], or "transparent" for RGBA frames.

    Raises:
        RenderError: a setting that `RenderConfig` rejects.
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
        self.camera = camera or front_camera(face)
        self.scale = QUALITIES[quality]
        backdrop = _make_background(width, height, None if background == "transparent" else background)
        self._transparent = background == "transparent"
        self._background = _background_bytes(backdrop, self._transparent)
        self._prepared = prepare_face(
            face, self.camera, width * self.scale, height * self.scale, fine=quality == "fine", background=backdrop
        )
        self._wrinkles = _find_wrinkles(face, self._prepared, fine=quality == "fine")
        self.threads = available_threads()
        self._renders_shadows = quality == "fine"
        if not self._renders_shadows:
            self._bake_shadow()
        self._teeth = TeethLight(face, self._prepared.scene) if has_teeth(face) else None
        self._local = threading.local()

    def frame(
        self, vertices: Float, head: Float | None = None, camera: Camera | None = None, colors: Float | None = None
    ) -> Bytes:
        """Draw a frame: (H, W, 3) sRGB bytes, or (H, W, 4) if transparent.

        Args:
            vertices: (V, 3) metres.
            head: (4, 4) rigid motion of the head.
            camera: replaces the renderer's camera.
            colors: (V, 3) linear RGB, replaces the face's vertex colors; the face must have some.

        Raises:
            RenderError: vertices that are not finite or do not fit the face, or a blank frame.
        """
        _check_vertices(vertices, self.face)
        prepared, work = self._prepared, self._thread_buffers()
        update_points(prepared, vertices, head, work.points, work.normals)
        camera = camera or self.camera
        width, height = self.width * self.scale, self.height * self.scale
        camera_array = _camera_array(camera, width, height)
        project(work.points, camera_array, work.screen)
        self._list_triangles(work, width, height)
        light_matrix = shadow.fit_light_matrix(work.points) if self._renders_shadows else _NO_LIGHT
        if self._renders_shadows:
            shadow.render_shadow_map(work.points, prepared.casters, light_matrix, work.shadow_map)
        inputs = FrameInputs(work.points, work.normals, work.screen, camera_array, light_matrix, work.shadow_map)
        out = self._background.copy()
        self._update_wrinkles(work, vertices)
        if self._teeth is not None:
            self._teeth.apply(vertices, work.scene.corners)
        scene = work.scene if colors is None else _replace_colors(prepared, colors)
        pixels = draw(scene, inputs, self.scale, work.scratch, out)
        if not pixels and _in_view(work.screen, width, height):
            raise RenderError(
                "a blank frame although the face is in view: nothing of it could be drawn. Check its triangles"
            )
        return out

    def _list_triangles(self, work: _Buffers, width: int, height: int) -> None:
        """List the frame's triangles by surface and band; enlarge the lists if necessary."""
        scene = self._prepared.scene
        blended = _sort_back_to_front(self._prepared, work.screen)
        needed = list_triangles(scene, work.screen, *blended, width, height, work.scratch)
        if needed > len(work.scratch.triangle_lists):
            work.scratch = work.scratch._replace(triangle_lists=np.empty(2 * needed, np.uint32))
            list_triangles(scene, work.screen, *blended, width, height, work.scratch)

    def _update_wrinkles(self, work: _Buffers, vertices: Float) -> None:
        """Write the wrinkles of a pose into the texels of a thread."""
        if self._wrinkles is None:
            return
        shares, rest = self._wrinkles.activations(vertices), self._prepared.scene
        if shares.tobytes() != work.wrinkles:
            self._wrinkles.apply(shares, work.scene.texels, rest.texels, work.scene.heights, rest.heights)
            work.wrinkles = shares.tobytes()

    def _thread_buffers(self) -> _Buffers:
        if not hasattr(self._local, "work"):
            scene, count = self._prepared.scene, self._prepared.count
            self._local.work = _Buffers(
                points=np.zeros((count, 3), np.float32),
                normals=np.zeros((count, 4), np.float32),
                screen=np.zeros((count, 3), np.float32),
                shadow_map=np.zeros(
                    (shadow.LAYERS, shadow.SIZE, shadow.SIZE) if self._renders_shadows else (1, 1, 1), np.float32
                ),
                scratch=make_scratch(
                    self.width * self.scale, self.height * self.scale, len(scene.triangles), len(scene.surfaces)
                ),
                scene=self._own_scene(),
            )
        return self._local.work

    def _own_scene(self) -> Scene:
        """The scene with copies of the arrays that each frame changes."""
        scene = self._prepared.scene
        if self._wrinkles is not None:
            scene = scene._replace(texels=scene.texels.copy(), heights=scene.heights.copy())
        return scene if self._teeth is None else scene._replace(corners=scene.corners.copy())

    def _bake_shadow(self) -> None:
        """Write the key light's visibility on the face at rest into the corners."""
        prepared = self._prepared
        points, normals = np.zeros((prepared.count, 3), np.float32), np.zeros((prepared.count, 4), np.float32)
        update_points(prepared, self.face.template, None, points, normals)
        light = shadow.light_visibility(points, normals, prepared.casters)
        light = shadow.smooth_light(light, prepared.faces)
        scene = prepared.scene
        scene.corners[..., KEY_VISIBILITY] = light[scene.triangles]


def _find_wrinkles(face: Face, prepared: PreparedFace, fine: bool) -> FaceWrinkles | None:
    """The wrinkles of a face's skin; None for a face without them."""
    kinds = [surface.material.kind for surface in face.surfaces]
    if "skin" not in kinds or not has_wrinkles(face):
        return None
    row = prepared.scene.surfaces[kinds.index("skin")].tolist()
    return FaceWrinkles(face, fine, tuple(row[TEXTURE : HEIGHT + 1]), tuple(row[BUMP : BUMP_HEIGHT + 1]))


def _check_vertices(vertices: Float, face: Face) -> None:
    if vertices.shape != face.template.shape:
        raise RenderError(
            f"{len(vertices)} vertices for a face of {len(face.template)}: {face.name}. Give the face that was animated"
        )
    if not np.isfinite(vertices).all():
        bad = int(np.argmin(np.isfinite(vertices).all(1)))
        raise RenderError(f"vertex {bad} of {face.name} contains NaN or infinity. Make the animation again")


def _replace_colors(prepared: PreparedFace, colors: Float) -> Scene:
    """Return the scene with other vertex colors (V, 3); attachments stay white."""
    scene = prepared.scene
    if scene.corners.shape[2] != COLORED_CORNER_COLUMNS:
        raise RenderError("the face has no vertex colors to replace. Give the renderer a face with `colors`")
    point_colors = np.ones((prepared.count, 3), np.float32)
    point_colors[: len(colors)] = colors
    point_colors[len(prepared.head_weights) :] = point_colors[prepared.edges].mean(1)
    corners = scene.corners.copy()
    corners[..., VERTEX_COLOR : VERTEX_COLOR + 3] = point_colors[scene.triangles]
    return scene._replace(corners=corners)


def _sort_back_to_front(prepared: PreparedFace, screen: Float) -> tuple[Index, NDArray[np.int32]]:
    """Triangles to blend from back to front, and the start of each surface among them."""
    count = np.zeros(len(prepared.scene.surfaces) + 1, np.int32)
    ordered = []
    for s, triangles in prepared.blended:
        if not len(triangles):
            continue  # a texture that is cut out has no soft edge to blend
        steps = np.empty(len(triangles), np.int16)
        quantize_depths(prepared.scene.triangles, triangles, screen, _SORT_STEPS, steps)
        ordered.append(triangles[np.argsort(steps, kind="stable")])
        count[s + 1] = len(triangles)
    return np.concatenate(ordered or [np.zeros(0, np.uint32)]), np.cumsum(count, dtype=np.int32)


@lru_cache(maxsize=16)
def _camera_array(camera: Camera, width: int, height: int) -> Float:
    """(15,) camera array, see `arrays`."""
    lens = (1.0 / camera.focal(width, height), width / 2, height / 2)
    return np.concatenate([camera.eye(), camera.axes().reshape(-1), lens]).astype(np.float32)


def _in_view(screen: Float, width: int, height: int) -> bool:
    inside = (screen[:, 0] > 0) & (screen[:, 0] < width) & (screen[:, 1] > 0) & (screen[:, 1] < height)
    return bool(inside.any())


def _make_background(width: int, height: int, color: Background) -> Float:
    """(H, W, 3) tone-mapped linear light: one color, or a radial gradient."""
    if color is not None:
        return np.broadcast_to(to_linear(np.array(color, np.float32)), (height, width, 3)).astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    side = max(width, height)
    far = np.clip(np.hypot(x - width / 2, y - 0.42 * height) * (1.25 / side), 0, 1)[..., None]
    far = far * far * (3 - 2 * far)
    return ((1 - far) * to_linear(np.array(_CENTER_COLOR)) + far * to_linear(np.array(_CORNER_COLOR))).astype(
        np.float32
    )


def _background_bytes(backdrop: Float, transparent: bool) -> Bytes:
    """(H, W, 3 or 4) uint8 that each frame starts with."""
    if transparent:
        return np.zeros((*backdrop.shape[:2], 4), np.uint8)
    # Dithering hides the steps of the gradient.
    noise = np.random.default_rng(0).random((*backdrop.shape[:2], 1), np.float32)
    return np.clip(to_srgb(backdrop) * 255 + noise, 0, 255).astype(np.uint8)
