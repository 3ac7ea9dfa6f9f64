"""A face prepared for drawing: everything that does not change from frame to frame, as flat arrays.

Points are the face's vertices, then those of its attachments, then, where surfaces are tessellated, the middles of
edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.face.neck import head_joint_weights
from sedtalker.face.rig import Face, Material, Surface
from sedtalker.render import buffers, shade
from sedtalker.render.arrays import Bytes, Float, Index, Int
from sedtalker.render.camera import Camera
from sedtalker.render.geometry import bend_middles, place, vertex_normals
from sedtalker.render.raster import HAIR_CORE
from sedtalker.render.shade import to_linear
from sedtalker.render.shadow import sky_light

CLAY = Material(
    kind="skin", tint=(0.56, 0.43, 0.36), wrap=(0.30, 0.22, 0.18), specular=0.35, gloss=18.0, sheen=0.10
)  # fmt: skip
"""What a mesh without surfaces is made of."""

_MODES = {"opaque": buffers.OPAQUE, "hair": buffers.HAIR, "blend": buffers.BLEND, "add": buffers.ADD}
_KINDS = {"skin": shade.SKIN, "hair": shade.HAIR, "cornea": shade.HIGHLIGHT}
_TWO_SIDED = {"hair", "cloth", "card", "plain"}
_NO_SHADOW = {"card", "cornea"}  # too thin to throw one


@dataclass(frozen=True)
class Prepared:
    """What the renderer needs beside `buffers.Scene`: how the points of a frame come from the face's vertices."""

    scene: buffers.Scene
    faces: Int  # (F, 3) triangles of face and attachments before tessellation, which normals are computed from
    indices: Int  # (A, 3) face vertices that each attachment point hangs on
    weights: Float  # (A, 3)
    offsets: Float  # (A, 3) metres
    edges: Int  # (E, 2) points whose middles are points too
    follows: Float  # (V + A,) share of the head's motion that a point takes
    casters: Index  # (C, 3) triangles before tessellation that throw a shadow
    blended: tuple[tuple[int, Index], ...]  # surface and its triangles that must be sorted

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.follows) + len(self.edges)


def prepare(face: Face, camera: Camera, width: int, height: int, *, fine: bool, background: Float) -> Prepared:
    """Flatten a face for pictures of width x height pixels (drawn pixels, before any reduction) from this camera."""
    surfaces = list(face.surfaces) or [_clay(face)]
    parts = [(surface, 0) for surface in surfaces]
    start = len(face.template)
    for attachment in face.attachments.values():
        parts.append((attachment.surface, start))
        start += len(attachment.indices)
    triangles = [surface.triangles.astype(np.int32) + first for surface, first in parts]
    colored = face.colors is not None and not face.surfaces  # where there are surfaces, textures say it better
    corners = [_corners(surface, face.colors if first == 0 else None, colored) for surface, first in parts]
    faces = np.concatenate(triangles)
    edges = np.zeros((0, 2), np.int32)
    if fine:
        triangles, corners, edges = _tessellate(triangles, corners, [surface.smooth for surface, _ in parts], start)
    bound = list(face.attachments.values())
    template = face.all_points()
    screen = camera.project(template, width, height)
    triangles, corners = _nearest_first(
        triangles, corners, screen, edges, [surface.material.mode == "hair" for surface, _ in parts]
    )
    textures = _Textures(face, fine)
    table = np.zeros((len(parts), buffers.SURFACE_COLUMNS), np.int32)
    last = 0
    for row, (surface, first), part in zip(table, parts, triangles, strict=True):
        material = surface.material
        row[buffers.FIRST], row[buffers.LAST] = last, last + len(part)
        last += len(part)
        row[buffers.MODE], row[buffers.KIND] = _MODES[material.mode], _KINDS.get(material.kind, shade.PLAIN)
        row[buffers.TWO_SIDED] = material.kind in _TWO_SIDED
        row[buffers.TEXTURE : buffers.HEIGHT + 1] = textures.color(surface, screen[first:])
        row[buffers.BUMP : buffers.BUMP_HEIGHT + 1] = textures.bump(surface, screen[first:])
    all_triangles = np.concatenate(triangles).astype(np.uint32)
    all_corners = np.ascontiguousarray(np.concatenate(corners))
    texels = np.concatenate(textures.texels)
    scene = buffers.Scene(
        triangles=all_triangles,
        corners=all_corners,
        surface=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in triangles]),
        opacity=_opacities(table, all_corners, texels),
        surfaces=table,
        materials=np.stack([_material(surface) for surface, _ in parts]),
        texels=texels,
        heights=np.concatenate(textures.heights),
        background=background,
    )
    casts = np.array([surface.material.kind not in _NO_SHADOW for surface, _ in parts])
    return Prepared(
        scene=scene,
        faces=faces,
        indices=_joined([item.indices for item in bound]).astype(np.int32),
        weights=_joined([item.weights for item in bound]).astype(np.float32),
        offsets=_joined([item.offsets for item in bound]).astype(np.float32),
        edges=edges,
        follows=head_joint_weights(face, template),
        casters=faces[np.repeat(casts, [len(surface.triangles) for surface, _ in parts])].astype(np.uint32),
        blended=_blended(table, scene.opacity),
    )


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Rows of three under each other; none of a face that wears nothing."""
    return np.concatenate(parts) if parts else np.zeros((0, 3))


def locate(prepared: Prepared, vertices: Float, head: Float | None, points: Float, normals: Float) -> None:
    """Fill points (P, 3) and normals (P, 4) of a frame: vertices (V, 3) in metres, moved by `head` (4, 4)."""
    motion = np.eye(4, dtype=np.float32) if head is None else np.ascontiguousarray(head, np.float32)
    base = len(prepared.follows)
    place(
        np.ascontiguousarray(vertices, np.float32), prepared.indices, prepared.weights, prepared.offsets,
        prepared.follows, motion, points,
    )  # fmt: skip
    vertex_normals(points, prepared.faces, normals[:base])
    bend_middles(prepared.edges, points, normals, base)


def _clay(face: Face) -> Surface:
    """The one surface of a bare mesh, in its own colours or texture if it has any."""
    uv = face.uv if face.uv is not None else np.zeros((len(face.template), 2), np.float32)
    texture = next(iter(face.textures), None) if face.uv is not None else None
    plain = texture is None and face.colors is None
    material = replace(CLAY, texture=texture, tint=CLAY.tint if plain else (1.0, 1.0, 1.0))
    triangles = face.faces.astype(np.int32)
    normals = np.zeros_like(face.template)
    vertex_normals(face.template, triangles, normals)
    open_ = sky_light(face.template, normals, triangles.astype(np.uint32))
    return Surface("mesh", triangles, uv, triangles, material, open_, smooth=True)


def _corners(surface: Surface, colors: Bytes | None, colored: bool) -> Float:
    """(F, 3, CORNERS) quantities at a surface's corners, all key light; with sRGB `colors` (V, 3) if `colored`."""
    count = len(surface.triangles)
    corners = np.zeros((count, 3, buffers.COLORED_CORNERS if colored else buffers.CORNERS), np.float32)
    corners[..., [shade.U, shade.V]] = surface.uv[surface.uv_triangles]
    corners[..., shade.AO] = surface.occlusion[surface.triangles]
    corners[..., shade.KEY] = 1.0
    if surface.scalp is not None:
        corners[..., shade.SCALP] = surface.scalp[surface.triangles]
    if colored:
        paints = slice(shade.PAINT, shade.PAINT + 3)
        corners[..., paints] = 1.0 if colors is None else to_linear(colors / np.float32(255))[surface.triangles]
    return corners


def _opacities(table: Int, corners: Float, texels: NDArray[np.uint32]) -> Int:
    """(M,) whether each triangle hides all, some or nothing of what is behind it, by its texture's opacity."""
    opacity = np.full(len(corners), buffers.SOLID, np.int32)
    grid = [(a, b) for a in range(_STEPS + 1) for b in range(_STEPS + 1 - a)]
    shares = np.array([(a, b, _STEPS - a - b) for a, b in grid], np.float32) / _STEPS
    for row in table:
        if row[buffers.MODE] == buffers.OPAQUE:
            continue
        chosen = slice(row[buffers.FIRST], row[buffers.LAST])
        if row[buffers.MODE] != buffers.HAIR:
            opacity[chosen] = buffers.MIXED
            continue
        width, height = row[buffers.WIDTH], row[buffers.HEIGHT]
        alpha = (texels[row[buffers.TEXTURE] :][: width * height] >> 24).astype(np.uint32).reshape(height, width)
        uv = shares @ corners[chosen][:, :, [shade.U, shade.V]]
        x = np.clip((uv[..., 0] * width).astype(np.int32), 0, width - 1)
        y = np.clip(((1 - uv[..., 1]) * height).astype(np.int32), 0, height - 1)
        least, most = _spread(alpha, np.minimum)[y, x].min(1), _spread(alpha, np.maximum)[y, x].max(1)
        core = HAIR_CORE * 255
        opacity[chosen] = np.select([least >= core, most < core], [buffers.SOLID, buffers.CLEAR], buffers.MIXED)
    return opacity


def _blended(table: Int, opacity: Int) -> tuple[tuple[int, Index], ...]:
    """Each surface that is blended, and its triangles that let something through."""
    blended = []
    for s, row in enumerate(table):
        if row[buffers.MODE] >= buffers.HAIR:
            through = np.flatnonzero(opacity[row[buffers.FIRST] : row[buffers.LAST]] != buffers.SOLID)
            blended.append((s, (through + row[buffers.FIRST]).astype(np.uint32)))
    return tuple(blended)


_STEPS = 10  # along a triangle's side, when its texture is looked through


def _spread(image: NDArray[np.uint32], choose: np.ufunc) -> NDArray[np.uint32]:
    """The least or greatest of each texel and its eight neighbours."""
    padded = np.pad(image, 1, mode="edge")
    rows = choose(choose(padded[:-2], padded[1:-1]), padded[2:])
    return choose(choose(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _material(surface: Surface) -> Float:
    material = surface.material
    columns = (
        *material.tint, *material.wrap, material.specular, material.gloss, material.ambient, material.sheen,
        *surface.scalp_color,
    )  # fmt: skip
    return np.array(columns, np.float32)


def _tessellate(
    triangles: list[Int], corners: list[Float], smooth: list[bool], first_middle: int
) -> tuple[list[Int], list[Float], Int]:
    """Split triangles of smooth surfaces in four; returns triangles, corners, and edges whose middles are new."""
    chosen = [part for part, splits in zip(triangles, smooth, strict=True) if splits]
    if not chosen:
        return triangles, corners, np.zeros((0, 2), np.int32)
    sides = np.concatenate([part[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2) for part in chosen])
    edges, inverse = np.unique(np.sort(sides, 1), axis=0, return_inverse=True)
    middles = (inverse.reshape(-1, 3) + first_middle).astype(np.int32)
    split_triangles, split_corners = [], []
    for part, corner, splits in zip(triangles, corners, smooth, strict=True):
        if not splits:
            split_triangles.append(part)
            split_corners.append(corner)
            continue
        (a, b, c), (ab, bc, ca) = part.T, middles[: len(part)].T
        middles = middles[len(part) :]
        quarters = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        split_triangles.append(np.stack([np.stack(quarter, 1) for quarter in quarters], 1).reshape(-1, 3))
        a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        split_corners.append(
            np.stack([np.stack(quarter, 1) for quarter in quarters], 1).reshape(-1, 3, corner.shape[2])
        )
    return split_triangles, split_corners, edges.astype(np.int32)


def _nearest_first(
    triangles: list[Int], corners: list[Float], screen: Float, edges: Int, chosen: list[bool]
) -> tuple[list[Int], list[Float]]:
    """The triangles of chosen surfaces from front to back, as the camera sees the face at rest.

    Hair lies in layers: what is drawn first hides the others, so that less is drawn in vain.
    """
    nearness = np.concatenate([screen[:, 2], screen[edges, 2].mean(1)])
    orders = [
        np.argsort(-nearness[part].sum(1), kind="stable") if layered else np.arange(len(part))
        for part, layered in zip(triangles, chosen, strict=True)
    ]
    sorted_triangles = [part[order] for part, order in zip(triangles, orders, strict=True)]
    return sorted_triangles, [corner[order] for corner, order in zip(corners, orders, strict=True)]


class _Textures:
    """Textures packed one after another, each at the size it is seen at."""

    def __init__(self, face: Face, fine: bool) -> None:
        self._face = face
        self._fine = fine
        self._placed: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.texels: list[NDArray[np.uint32]] = [np.full(1, 0xFFFFFFFF, np.uint32)]  # white, for surfaces without one
        self.heights: list[Float] = [np.zeros(1, np.float32)]
        self._texels_end, self._heights_end = 1, 1

    def color(self, surface: Surface, screen: Float) -> tuple[int, int, int]:
        """(offset, width, height) of a surface's colours."""
        name = surface.material.texture
        if name is None:
            return 0, 1, 1
        image = _rgba(self._face.textures[name])
        level = _level(surface, screen, image.shape[1], image.shape[0])
        if (name, level) not in self._placed:
            packed = _pack(_reduce(image, level, opaque=surface.material.kind == "skin"))
            self._placed[name, level] = (self._texels_end, packed.shape[1], packed.shape[0])
            self.texels.append(packed.reshape(-1))
            self._texels_end += packed.size
        return self._placed[name, level]

    def bump(self, surface: Surface, screen: Float) -> tuple[int, int, int]:
        """(offset, width, height) of a surface's relief; width 0 where there is none."""
        name = surface.material.bump
        if name is None or not self._fine:
            return 0, 0, 0
        image = self._face.textures[name][..., 0]
        level = _level(surface, screen, image.shape[1], image.shape[0])
        reduced = np.asarray(Image.fromarray(image).reduce(1 << level))
        height = reduced.astype(np.float32) * np.float32(surface.material.bump_height / 255)
        place = (self._heights_end, height.shape[1], height.shape[0])
        self.heights.append(height.reshape(-1))
        self._heights_end += height.size
        return place


def _rgba(image: Bytes) -> Bytes:
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 4:
        return image
    color = np.broadcast_to(image[..., :1], (*image.shape[:2], 3)) if image.shape[2] == 1 else image[..., :3]
    return np.concatenate([color, np.full((*image.shape[:2], 1), 255, np.uint8)], 2)


def _level(surface: Surface, screen: Float, width: int, height: int) -> int:
    """How often to halve a texture so that about a texel falls on a pixel: the median over the surface's triangles."""
    corners = surface.uv[surface.uv_triangles] * np.array([width, height], np.float32)
    texels, pixels = _areas(corners), _areas(screen[surface.triangles][..., :2])
    seen = pixels > 0.05
    if not seen.any():
        return 0
    a_pixel = float(np.median(texels[seen] / pixels[seen]))
    sharper = 1.0 if surface.material.kind == "card" else 0.25  # single hairs drown in what is between them
    level = round(0.5 * np.log2(max(a_pixel, 1e-3)) - sharper)
    return int(np.clip(level, 0, np.log2(max(1, min(width, height)))))


def _areas(corners: Float) -> Float:
    """Areas of triangles (F, 3, 2)."""
    b, c = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]) / 2


def _reduce(image: Bytes, level: int, opaque: bool) -> Bytes:
    """(H, W, 4) halved `level` times; colours count by their opacity, unless the fourth channel is something else."""
    factor = 1 << level
    if factor == 1:
        return image
    if not opaque:
        return np.asarray(Image.fromarray(image).reduce(factor))
    color, rest = Image.fromarray(image[..., :3]).reduce(factor), Image.fromarray(image[..., 3]).reduce(factor)
    return np.concatenate([np.asarray(color), np.asarray(rest)[..., None]], 2)


# Colours are kept as square roots of linear light, which spends bits as the eye does and is quick to undo.
_ROOTS = (np.sqrt(to_linear(np.arange(256) / 255)) * 255 + 0.5).astype(np.uint32)


def _pack(image: Bytes) -> Index:
    """(H, W, 4) sRGB and opacity -> (H, W) bytes side by side, red lowest."""
    red, green, blue = (_ROOTS[image[..., channel]] for channel in range(3))
    return (red | green << 8 | blue << 16 | image[..., 3].astype(np.uint32) << 24).astype(np.uint32)
