"""The OpenGL backend, for machines with a GPU or Mesa's EGL; same camera and lights as the software renderer.

It does not draw shadows, bump maps, the scalp color and the cornea's highlights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import RenderError, SEDTalkerError, require
from sedtalker.face.rig import Face
from sedtalker.render.arrays import Bytes, Float
from sedtalker.render.buffers import ADD, FIRST, HEIGHT, LAST, MODE, OPAQUE, TEXTURE, TWO_SIDED, WIDTH
from sedtalker.render.camera import Camera, front_camera
from sedtalker.render.config import Background, RenderConfig
from sedtalker.render.scene import prepare_face, update_points
from sedtalker.render.shade import AO, GROUND, LIGHT_COLORS, LIGHT_DIRECTIONS, SKY, TINT, U, V, to_srgb

T = TypeVar("T")

_BACKGROUND = (0.22, 0.24, 0.28)  # sRGB

# An OpenGL context belongs to one thread, so this thread does all OpenGL calls of the process.
_thread = ThreadPoolExecutor(1, thread_name_prefix="opengl")


@contextmanager
def _headless_platform() -> Iterator[None]:
    """Select EGL if there is no display and no choice of the user; restore the environment at the end."""
    if "PYOPENGL_PLATFORM" in os.environ or "DISPLAY" in os.environ:
        yield
        return
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    try:
        yield
    finally:
        os.environ.pop("PYOPENGL_PLATFORM", None)


@lru_cache(maxsize=1)
def _create_context() -> tuple[Any, str]:
    """The process's off-screen renderer and the name of the OpenGL device; call it in `_thread`."""
    with _headless_platform():  # PyOpenGL reads it at import, pyrender when it makes a context
        pyrender = require("pyrender", "pyrender")
        try:
            renderer = pyrender.OffscreenRenderer(64, 64)
            gl = require("OpenGL.GL", "pyrender")
            name = gl.glGetString(gl.GL_RENDERER)
            # PyOpenGL 3.1.0, which pyrender requires, creates contexts on newer Pythons but fails to pass arrays.
            gl.glDeleteTextures([gl.glGenTextures(1)])
        except Exception as error:  # drivers raise errors of many classes
            raise RenderError(
                f"OpenGL does not work here ({error}). Use the software renderer, install EGL, or upgrade PyOpenGL "
                "(pip install -U PyOpenGL)"
            ) from error
    return renderer, name.decode() if isinstance(name, bytes) else str(name)


def run_in_opengl_thread(function: Callable[[], T]) -> T:
    """Call a function in the thread that owns the OpenGL context."""
    return _thread.submit(function).result()


def probe() -> tuple[bool, str]:
    """Whether pyrender works on this machine, and the device's name or the reason why not."""
    try:
        return True, run_in_opengl_thread(_create_context)[1]
    except SEDTalkerError as error:
        return False, str(error)


class PyrenderRenderer:
    """Draws frames of one face with pyrender; same interface as `SoftRenderer`.

    Raises:
        MissingExtraError: pyrender is not installed.
        RenderError: OpenGL does not work on this machine, or a setting that `RenderConfig` rejects.
    """

    threads = 1

    def __init__(
        self,
        face: Face,
        width: int = RenderConfig.width,
        height: int = RenderConfig.height,
        camera: Camera | None = None,
        background: Background = None,
    ) -> None:
        RenderConfig(width, height, background=background)  # checks the values
        self.face, self.width, self.height = face, width, height
        self.camera = camera or front_camera(face)
        self._transparent = background == "transparent"
        color = _BACKGROUND if background is None or isinstance(background, str) else background
        self._prepared = prepare_face(
            face, self.camera, width, height, fine=False, background=np.zeros((1, 1, 3), np.float32)
        )
        self._points, self._normals = np.zeros((2, self._prepared.count, 3), np.float32)
        self._renderer, self.device = run_in_opengl_thread(_create_context)
        self._primitives: list[tuple[Any, NDArray[np.uint32]]] = []
        self._scene = self._make_scene((*color, 0.0 if self._transparent else 1.0))

    def frame(self, vertices: Float, head: Float | None = None, camera: Camera | None = None) -> Bytes:
        """Draw vertices (V, 3) in metres, moved by `head` (4, 4): (H, W, 3) sRGB bytes, or (H, W, 4) if transparent."""
        if vertices.shape != self.face.template.shape or not np.isfinite(vertices).all():
            raise RenderError(
                f"vertices of another face, or with NaN or infinity: {self.face.name}. Make the animation again"
            )
        return run_in_opengl_thread(lambda: self._draw(vertices, head, camera or self.camera))

    def _draw(self, vertices: Float, head: Float | None, camera: Camera) -> Bytes:
        from pyrender.constants import RenderFlags

        update_points(self._prepared, vertices, head, self._points, self._normals)
        renderer = self._renderer
        renderer.viewport_width, renderer.viewport_height = self.width, self.height
        renderer._platform.make_current()
        for primitive, corners in self._primitives:
            primitive.positions, primitive.normals = self._points[corners], self._normals[corners]
            if primitive._in_context():
                primitive._remove_from_context()
                primitive._add_to_context()
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = camera.axes().T, camera.eye()
        self._scene.set_pose(self._camera_node, pose)
        flags = RenderFlags.RGBA if self._transparent else RenderFlags.NONE
        color, depth = renderer.render(self._scene, flags)
        if not depth.any():
            raise RenderError("a blank frame although the face is in view: OpenGL drew nothing. Use the soft backend")
        return np.ascontiguousarray(color)

    def _make_scene(self, background: tuple[float, ...]) -> Any:
        import pyrender

        # A uniform ambient light approximates the hemisphere light.
        scene = pyrender.Scene(bg_color=background, ambient_light=(SKY + GROUND) / 2)
        flat = self._prepared.scene
        for s, row in enumerate(flat.surfaces):
            if row[MODE] == ADD:
                continue
            rows = slice(row[FIRST], row[LAST])
            corners = flat.triangles[rows].reshape(-1)
            shade = flat.corners[rows, :, AO].reshape(-1, 1)
            # pyrender draws primitives with an opacity below 1 after the others, and farther nodes first.
            opacity = np.full_like(shade, 1.0 if row[MODE] == OPAQUE else 0.998)
            primitive = pyrender.Primitive(
                positions=self._points[corners],
                normals=self._normals[corners],
                texcoord_0=flat.corners[rows][..., [U, V]].reshape(-1, 2),
                color_0=np.concatenate([np.repeat(shade, 3, 1), opacity], 1),
                material=self._material(s),
                mode=4,
            )
            self._primitives.append((primitive, corners))
            pose = np.eye(4)
            pose[2, 3] = 1e-5 * row[MODE]
            scene.add(pyrender.Mesh([primitive]), pose=pose)
        for direction, color in zip(LIGHT_DIRECTIONS, LIGHT_COLORS, strict=True):
            intensity = float(color.max())
            light = pyrender.DirectionalLight(color=color / intensity, intensity=math.pi * intensity)
            scene.add(light, pose=_pose_along(-direction))
        focal = self.camera.focal(self.width, self.height)
        lens = pyrender.IntrinsicsCamera(focal, focal, self.width / 2, self.height / 2, znear=0.01, zfar=100.0)
        self._camera_node = scene.add(lens)
        return scene

    def _material(self, s: int) -> Any:
        import pyrender

        flat = self._prepared.scene
        row, width, height = flat.surfaces[s], flat.surfaces[s, WIDTH], flat.surfaces[s, HEIGHT]
        texels = flat.texels[row[TEXTURE] :][: width * height].view(np.uint8).reshape(height, width, 4)
        image = np.concatenate([to_srgb((texels[..., :3] / 255.0) ** 2) * 255 + 0.5, texels[..., 3:]], 2).astype(
            np.uint8
        )
        blended = row[MODE] != OPAQUE
        if not blended:
            image[..., 3] = 255  # the alpha channel of a skin texture is its gloss
        return pyrender.MetallicRoughnessMaterial(
            baseColorTexture=pyrender.Texture(source=np.ascontiguousarray(image), source_channels="RGBA"),
            baseColorFactor=(*flat.materials[s, TINT : TINT + 3], 1.0),
            metallicFactor=0.0,
            roughnessFactor=1.0,
            alphaMode="BLEND" if blended else "OPAQUE",
            doubleSided=bool(row[TWO_SIDED]),
        )


def _pose_along(direction: Float) -> NDArray[np.float64]:
    """(4, 4) pose whose -z axis points along a direction."""
    backward = -direction / np.linalg.norm(direction)
    right = np.cross((0.0, 1.0, 0.0), backward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(backward, right), backward], 1)
    return pose
