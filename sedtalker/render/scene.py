"""Preparation of a face for rendering: flat arrays of everything that is constant over the frames.

The points are the face's vertices, the attachments' points and, where surfaces are tessellated, the midpoints of edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.face.arkit import JAW_OPEN
from sedtalker.face.neck import head_joint_weights
from sedtalker.face.rig import Face, Material, Surface
from sedtalker.render import buffers, shade
from sedtalker.render.arrays import Bytes, Float, Index, Int
from sedtalker.render.camera import Camera
from sedtalker.render.geometry import compute_points, tessellate_edges, vertex_normals
from sedtalker.render.raster import HAIR_ALPHA
from sedtalker.render.shade import to_linear
from sedtalker.render.shadow import ambient_occlusion

CLAY = Material(
    kind="skin", tint=(0.56, 0.43, 0.36), wrap=(0.30, 0.22, 0.18), specular=0.35, gloss=18.0, sheen=0.10
)  # fmt: skip
"""Material of a mesh without surfaces."""

_MODES = {"opaque": buffers.OPAQUE, "hair": buffers.HAIR, "blend": buffers.BLEND, "add": buffers.ADD}
_KINDS = {"skin": shade.SKIN, "hair": shade.HAIR, "cornea": shade.HIGHLIGHT, "teeth": shade.TEETH}
_TWO_SIDED = {"hair", "cloth", "card", "plain"}
_NO_SHADOW = {"card", "cornea"}  # too thin to cast one
_ALWAYS_LIT = {"eye", "teeth", "tongue"}  # lids and lips would make them black
_OPEN_JAW = 0.55  # jawOpen with which the inside of the mouth is lit


@dataclass(frozen=True)
class PreparedFace:
    """The scene of a face, and the data that computes a frame's points from its vertices."""

    scene: buffers.Scene
    faces: Int  # (F, 3) triangles of face and attachments before tessellation, for the normals
    indices: Int  # (A, 3) face vertices that each attachment point is bound to
    weights: Float  # (A, 3)
    offsets: Float  # (A, 3) metres
    edges: Int  # (E, 2) points of the edges that tessellation splits
    head_weights: Float  # (V + A,) skinning weight of the head's motion
    casters: Index  # (C, 3) triangles before tessellation that cast a shadow
    blended: tuple[tuple[int, Index], ...]  # surface and its triangles that are sorted and blended

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.head_weights) + len(self.edges)


def prepare_face(face: Face, camera: Camera, width: int, height: int, *, fine: bool, background: Float) -> PreparedFace:
    """Prepare a face for pictures of width x height pixels (before downsampling) from about this camera."""
    surfaces = bake_occlusion(face) or [_clay(face)]
    parts = [(surface, 0) for surface in surfaces]
    start = len(face.template)
    for attachment in face.attachments.values():
        parts.append((attachment.surface, start))
        start += len(attachment.indices)
    triangles = [surface.triangles.astype(np.int32) + first for surface, first in parts]
    colored = face.colors is not None and not face.surfaces  # surfaces have textures instead
    corners = [_corners(surface, face.colors if first == 0 else None, colored) for surface, first in parts]
    faces = np.concatenate(triangles)
    edges = np.zeros((0, 2), np.int32)
    # The outline of hair is the one that shows its corners from afar, so it is split in "standard" too.
    splits = [surface.smooth and (fine or surface.material.kind == "hair") for surface, _ in parts]
    triangles, corners, edges = _tessellate(triangles, corners, splits, start)
    bound = list(face.attachments.values())
    template = face.all_points()
    screen = camera.project(template, width, height)
    triangles, corners = _sort_front_to_back(
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
    return PreparedFace(
        scene=scene,
        faces=faces,
        indices=_concatenate([item.indices for item in bound]).astype(np.int32),
        weights=_concatenate([item.weights for item in bound]).astype(np.float32),
        offsets=_concatenate([item.offsets for item in bound]).astype(np.float32),
        edges=edges,
        head_weights=head_joint_weights(face, template),
        casters=faces[np.repeat(casts, [len(surface.triangles) for surface, _ in parts])].astype(np.uint32),
        blended=_blended_triangles(table, scene.opacity),
    )


def _concatenate(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate arrays (A, 3); (0, 3) for a face without attachments."""
    return np.concatenate(parts) if parts else np.zeros((0, 3))


def update_points(prepared: PreparedFace, vertices: Float, head: Float | None, points: Float, normals: Float) -> None:
    """Fill points (P, 3) and normals (P, 4) of a frame: vertices (V, 3) in metres, moved by `head` (4, 4)."""
    motion = np.eye(4, dtype=np.float32) if head is None else np.ascontiguousarray(head, np.float32)
    base = len(prepared.head_weights)
    compute_points(
        np.ascontiguousarray(vertices, np.float32), prepared.indices, prepared.weights, prepared.offsets,
        prepared.head_weights, motion, points,
    )  # fmt: skip
    vertex_normals(points, prepared.faces, normals[:base])
    tessellate_edges(prepared.edges, points, normals, base)


def bake_occlusion(face: Face) -> list[Surface]:
    """The surfaces of a face; those without baked occlusion get the larger one of a closed and an open mouth."""
    if all(surface.occlusion is not None for surface in face.surfaces):
        return list(face.surfaces)
    solid = [s.triangles for s in face.surfaces if s.material.mode == "opaque"] or [face.faces]
    triangles = np.concatenate(solid).astype(np.int32)
    visibility = np.zeros(len(face.template), np.float32)
    for opening in (0.0, _OPEN_JAW) if face.blendshapes is not None else (0.0,):
        points = face.template
        if opening and face.blendshapes is not None:
            points = (points + opening * face.blendshapes[JAW_OPEN]).astype(np.float32)
        normals = np.zeros_like(points)
        vertex_normals(points, face.faces.astype(np.int32), normals)
        np.maximum(visibility, ambient_occlusion(points, normals, triangles.astype(np.uint32)), out=visibility)
    baked = []
    for surface in face.surfaces:
        own = visibility if surface.material.kind not in _ALWAYS_LIT else 0.5 + 0.5 * visibility
        baked.append(surface if surface.occlusion is not None else replace(surface, occlusion=own))
    return baked


def _clay(face: Face) -> Surface:
    """The surface of a bare mesh, with its vertex colors or texture if it has any."""
    uv = face.uv if face.uv is not None else np.zeros((len(face.template), 2), np.float32)
    texture = next(iter(face.textures), None) if face.uv is not None else None
    plain = texture is None and face.colors is None
    material = replace(CLAY, texture=texture, tint=CLAY.tint if plain else (1.0, 1.0, 1.0))
    triangles = face.faces.astype(np.int32)
    normals = np.zeros_like(face.template)
    vertex_normals(face.template, triangles, normals)
    visibility = ambient_occlusion(face.template, normals, triangles.astype(np.uint32))
    return Surface("mesh", triangles, uv, triangles, material, visibility, smooth=True)


def _corners(surface: Surface, colors: Bytes | None, colored: bool) -> Float:
    """(F, 3, CORNER_COLUMNS) quantities at a surface's corners; with sRGB `colors` (V, 3) or white if `colored`."""
    count = len(surface.triangles)
    corners = np.zeros((count, 3, buffers.COLORED_CORNER_COLUMNS if colored else buffers.CORNER_COLUMNS), np.float32)
    corners[..., [shade.U, shade.V]] = surface.uv[surface.uv_triangles]
    corners[..., shade.AO] = 1.0 if surface.occlusion is None else surface.occlusion[surface.triangles]
    corners[..., shade.KEY_VISIBILITY] = 1.0
    if surface.scalp is not None:
        corners[..., shade.SCALP] = surface.scalp[surface.triangles]
    if colored:
        columns = slice(shade.VERTEX_COLOR, shade.VERTEX_COLOR + 3)
        corners[..., columns] = 1.0 if colors is None else to_linear(colors / np.float32(255))[surface.triangles]
    return corners


def _opacities(table: Int, corners: Float, texels: NDArray[np.uint32]) -> Int:
    """(M,) SOLID, MIXED or CLEAR by the opacity of each triangle's texels."""
    opacity = np.full(len(corners), buffers.SOLID, np.int32)
    grid = [(a, b) for a in range(_STEPS + 1) for b in range(_STEPS + 1 - a)]
    weights = np.array([(a, b, _STEPS - a - b) for a, b in grid], np.float32) / _STEPS
    for row in table:
        if row[buffers.MODE] == buffers.OPAQUE:
            continue
        rows = slice(row[buffers.FIRST], row[buffers.LAST])
        if row[buffers.MODE] != buffers.HAIR:
            opacity[rows] = buffers.MIXED
            continue
        width, height = row[buffers.WIDTH], row[buffers.HEIGHT]
        alpha = (texels[row[buffers.TEXTURE] :][: width * height] >> 24).astype(np.uint32).reshape(height, width)
        uv = weights @ corners[rows][:, :, [shade.U, shade.V]]
        x = np.clip((uv[..., 0] * width).astype(np.int32), 0, width - 1)
        y = np.clip(((1 - uv[..., 1]) * height).astype(np.int32), 0, height - 1)
        least, most = _filter_3x3(alpha, np.minimum)[y, x].min(1), _filter_3x3(alpha, np.maximum)[y, x].max(1)
        threshold = HAIR_ALPHA * 255
        opacity[rows] = np.select([least >= threshold, most < threshold], [buffers.SOLID, buffers.CLEAR], buffers.MIXED)
    return opacity


def _blended_triangles(table: Int, opacity: Int) -> tuple[tuple[int, Index], ...]:
    """Blended surfaces with their triangles that are not solid."""
    result = []
    for s, row in enumerate(table):
        if row[buffers.MODE] >= buffers.HAIR:
            triangles = np.flatnonzero(opacity[row[buffers.FIRST] : row[buffers.LAST]] != buffers.SOLID)
            result.append((s, (triangles + row[buffers.FIRST]).astype(np.uint32)))
    return tuple(result)


_STEPS = 10  # texture lookups along a triangle's side


def _filter_3x3(image: NDArray[np.uint32], choose: np.ufunc) -> NDArray[np.uint32]:
    """Minimum or maximum filter over 3 x 3 texels."""
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
    """Split triangles of smooth surfaces in four; returns triangles, corners, and the edges whose midpoints are new."""
    smooth_parts = [part for part, splits in zip(triangles, smooth, strict=True) if splits]
    if not smooth_parts:
        return triangles, corners, np.zeros((0, 2), np.int32)
    sides = np.concatenate([part[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2) for part in smooth_parts])
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


def _sort_front_to_back(
    triangles: list[Int], corners: list[Float], screen: Float, edges: Int, layered: list[bool]
) -> tuple[list[Int], list[Float]]:
    """Sort the triangles of layered surfaces (hair) from front to back for the face at rest.

    The depth test then rejects most triangles of the layers behind.
    """
    inverse_depth = np.concatenate([screen[:, 2], screen[edges, 2].mean(1)])
    orders = [
        np.argsort(-inverse_depth[part].sum(1), kind="stable") if sort else np.arange(len(part))
        for part, sort in zip(triangles, layered, strict=True)
    ]
    sorted_triangles = [part[order] for part, order in zip(triangles, orders, strict=True)]
    return sorted_triangles, [corner[order] for corner, order in zip(corners, orders, strict=True)]


class _Textures:
    """Concatenated textures, each reduced to its size on the screen."""

    def __init__(self, face: Face, fine: bool) -> None:
        self._face = face
        self._fine = fine
        self._slots: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.texels: list[NDArray[np.uint32]] = [np.full(1, 0xFFFFFFFF, np.uint32)]  # white, for surfaces without one
        self.heights: list[Float] = [np.zeros(1, np.float32)]
        self._texels_end, self._heights_end = 1, 1

    def color(self, surface: Surface, screen: Float) -> tuple[int, int, int]:
        """(offset, width, height) of a surface's color texture."""
        name = surface.material.texture
        if name is None:
            return 0, 1, 1
        image = _rgba(self._face.textures[name])
        level = _level(surface, screen, image.shape[1], image.shape[0])
        if (name, level) not in self._slots:
            packed = _pack(_reduce(image, level, opaque=surface.material.kind == "skin"))
            self._slots[name, level] = (self._texels_end, packed.shape[1], packed.shape[0])
            self.texels.append(packed.reshape(-1))
            self._texels_end += packed.size
        return self._slots[name, level]

    def bump(self, surface: Surface, screen: Float) -> tuple[int, int, int]:
        """(offset, width, height) of a surface's bump map; width 0 without one."""
        name = surface.material.bump
        if name is None or not self._fine:
            return 0, 0, 0
        image = self._face.textures[name][..., 0]
        level = _level(surface, screen, image.shape[1], image.shape[0])
        reduced = np.asarray(Image.fromarray(image).reduce(1 << level))
        height = reduced.astype(np.float32) * np.float32(surface.material.bump_height / 255)
        slot = (self._heights_end, height.shape[1], height.shape[0])
        self.heights.append(height.reshape(-1))
        self._heights_end += height.size
        return slot


def _rgba(image: Bytes) -> Bytes:
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 4:
        return image
    color = np.broadcast_to(image[..., :1], (*image.shape[:2], 3)) if image.shape[2] == 1 else image[..., :3]
    return np.concatenate([color, np.full((*image.shape[:2], 1), 255, np.uint8)], 2)


def _level(surface: Surface, screen: Float, width: int, height: int) -> int:
    """Mipmap level at which about one texel covers a pixel, by the median over the surface's triangles."""
    corners = surface.uv[surface.uv_triangles] * np.array([width, height], np.float32)
    texels, pixels = _areas(corners), _areas(screen[surface.triangles][..., :2])
    visible = pixels > 0.05
    if not visible.any():
        return 0
    texels_per_pixel = float(np.median(texels[visible] / pixels[visible]))
    sharper = 1.0 if surface.material.kind == "card" else 0.25  # single hairs vanish in a reduced texture
    level = round(0.5 * np.log2(max(texels_per_pixel, 1e-3)) - sharper)
    return int(np.clip(level, 0, np.log2(max(1, min(width, height)))))


def _areas(corners: Float) -> Float:
    """Areas of triangles (F, 3, 2)."""
    b, c = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]) / 2


def _reduce(image: Bytes, level: int, opaque: bool) -> Bytes:
    """Halve (H, W, 4) `level` times; `opaque` averages colors without weighting them by the fourth channel."""
    factor = 1 << level
    if factor == 1:
        return image
    if not opaque:
        return np.asarray(Image.fromarray(image).reduce(factor))
    color, rest = Image.fromarray(image[..., :3]).reduce(factor), Image.fromarray(image[..., 3]).reduce(factor)
    return np.concatenate([np.asarray(color), np.asarray(rest)[..., None]], 2)


# Texels are square roots of linear light: a perceptual quantization that needs one multiplication to decode.
_SQRT_LINEAR = (np.sqrt(to_linear(np.arange(256) / 255)) * 255 + 0.5).astype(np.uint32)


def _pack(image: Bytes) -> Index:
    """Pack (H, W, 4) sRGB and opacity into (H, W) uint32, red lowest."""
    red, green, blue = (_SQRT_LINEAR[image[..., channel]] for channel in range(3))
    return (red | green << 8 | blue << 16 | image[..., 3].astype(np.uint32) << 24).astype(np.uint32)
