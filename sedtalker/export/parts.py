"""A face cut into what file formats know: triangle meshes with one position, normal and texture coordinate a vertex.

Points are the face's vertices, then those of its attachments one after another. A part repeats a point where a seam
gives it several texture coordinates. Blendshapes act on points; attachments follow by their binding, which is linear,
so that brows, lashes, hair and cloth get shapes of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.mesh import vertex_normals
from sedtalker.face.neck import head_joint_weights
from sedtalker.face.rig import Attachment, Face, Float, Index, Material, Surface

LEAST_MOTION = 1e-5  # metres; a point that a shape moves by less is left out of it
_LEAST_TURN = 0.02  # change of a unit normal below which it is left out

_CLAY = Material(kind="plain", tint=(0.56, 0.43, 0.36))  # of a mesh without surfaces


@dataclass(frozen=True)
class Shape:
    """A blendshape on a part: the vertices it moves, sparsely."""

    vertices: Index  # (M,) of the part, ascending
    moves: Float  # (M, 3) metres at weight 1
    turns: Float  # (M, 3) change of the unit normal at weight 1


@dataclass(frozen=True)
class Part:
    """One mesh with one material."""

    name: str
    material: Material
    points: Index  # (N,) the point that each vertex is
    positions: Float  # (N, 3) metres at rest
    normals: Float  # (N, 3) unit
    uv: Float  # (N, 2), v up
    triangles: Index  # (F, 3)
    colors: Float  # (N, 3) linear, multiplies the texture: baked occlusion, and the hair's colour on the scalp
    follow: Float  # (N,) share of the head's motion
    shapes: dict[str, Shape]  # those that move the part
    attachment: str | None = None  # what it belongs to, None: the face itself


def split_face(face: Face) -> list[Part]:
    """The parts of a face at rest, its own surfaces first."""
    own = list(face.surfaces) or [_bare_surface(face)]
    mesh = _Mesh(face.template, face.faces, face.blendshapes, face.blendshape_names)
    parts = [_part(face, surface, mesh, None) for surface in own]
    first = len(face.template)
    for name, attachment in face.attachments.items():
        bound = _Mesh(
            attachment.place(face.template).astype(np.float32),
            attachment.surface.triangles,
            _carried(face.blendshapes, attachment),
            face.blendshape_names,
        )
        part = _part(face, attachment.surface, bound, name)
        parts.append(replace(part, points=part.points + first))
        first += len(bound.vertices)
    return parts


def tangents(part: Part) -> Float:
    """(N, 4) unit vectors along rising u, square to the normals; the fourth is the sign of the bitangent (up v)."""
    corners, uv = part.positions[part.triangles], part.uv[part.triangles]
    (e1, e2), (d1, d2) = ((corners[:, i] - corners[:, 0] for i in (1, 2)), (uv[:, i] - uv[:, 0] for i in (1, 2)))
    area = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
    sign = np.where(area < 0, -1.0, 1.0)
    along_u = (e1 * d2[:, 1:] - e2 * d1[:, 1:]) * sign[:, None]
    ids = part.triangles.ravel()
    summed = [np.bincount(ids, np.repeat(along_u[:, axis], 3), minlength=len(part.points)) for axis in range(3)]
    along = np.stack(summed, axis=1)
    along -= part.normals * (along * part.normals).sum(axis=1, keepdims=True)
    # Where the texture is degenerate any direction square to the normal will do.
    spare = np.cross(part.normals, np.where(np.abs(part.normals[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    tangent = np.where(np.linalg.norm(along, axis=1, keepdims=True) > 1e-9, along, spare)
    tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    hand = np.where(np.bincount(ids, np.repeat(sign, 3), minlength=len(part.points)) < 0, -1.0, 1.0)
    return np.concatenate([tangent, hand[:, None]], axis=1).astype(np.float32)


class _Mesh:
    """Vertices with their normals at rest and with each shape."""

    def __init__(
        self, vertices: Float, triangles: Index, moves: NDArray[np.float32] | None, names: tuple[str, ...]
    ) -> None:
        self.vertices = vertices
        self.normals = vertex_normals(vertices, triangles)
        self.shapes: dict[str, Shape] = {}
        for name, move in zip(names, moves if moves is not None else (), strict=moves is not None):
            moved = _beyond(move, LEAST_MOTION)
            if moved.any():
                self.shapes[name] = self._shape(move, moved, triangles)

    def _shape(self, move: Float, moved: NDArray[np.bool_], triangles: Index) -> Shape:
        touched = triangles[moved[triangles].any(axis=1)]  # normals change as far as the triangles around reach
        near = np.zeros_like(moved)
        near[touched] = True
        around = triangles[near[triangles].any(axis=1)]
        turns = vertex_normals(self.vertices + move, around) - self.normals
        turns[~near] = 0
        turned = _beyond(turns, _LEAST_TURN)
        turns[~turned] = 0
        chosen = np.flatnonzero(moved | turned).astype(np.int32)
        return Shape(chosen, np.where(moved[chosen, None], move[chosen], 0).astype(np.float32), turns[chosen])


def _beyond(vectors: Float, limit: float) -> NDArray[np.bool_]:
    """(N,) where a coordinate of a vector (N, 3) exceeds the limit."""
    # Column by column: a maximum along rows of three is ten times slower.
    x, y, z = np.abs(vectors.T)
    return np.maximum(np.maximum(x, y), z) > limit


def _carried(moves: NDArray[np.float32] | None, attachment: Attachment) -> NDArray[np.float32] | None:
    """Displacements (K, N, 3) that the face's shapes give an attachment."""
    if moves is None:
        return None
    return np.einsum("nk,snkc->snc", attachment.weights, moves[:, attachment.indices])


def _part(face: Face, surface: Surface, mesh: _Mesh, attachment: str | None) -> Part:
    # One vertex for every pair of a point and a texture coordinate that occurs.
    pairs = surface.triangles.ravel().astype(np.int64) * max(len(surface.uv), 1) + surface.uv_triangles.ravel()
    kept, corners = np.unique(pairs, return_inverse=True)
    points = (kept // max(len(surface.uv), 1)).astype(np.int32)
    positions = mesh.vertices[points]
    return Part(
        name=surface.name,
        material=surface.material,
        points=points,
        positions=positions,
        normals=mesh.normals[points],
        uv=surface.uv[kept % max(len(surface.uv), 1)],
        triangles=corners.reshape(-1, 3).astype(np.int32),
        colors=_colors(face, surface)[points],
        follow=head_joint_weights(face, positions),
        shapes={name: found for name, shape in mesh.shapes.items() if len((found := _on(points, shape)).vertices)},
        attachment=attachment,
    )


def _on(points: Index, shape: Shape) -> Shape:
    """A shape of the whole mesh on the vertices of a part."""
    row = np.searchsorted(shape.vertices, points)
    hit = shape.vertices[np.minimum(row, len(shape.vertices) - 1)] == points
    return Shape(np.flatnonzero(hit).astype(np.int32), shape.moves[row[hit]], shape.turns[row[hit]])


def _colors(face: Face, surface: Surface) -> Float:
    """(P, 3) linear colours at the points of a surface's mesh."""
    light = np.clip(surface.occlusion, 0, 1)
    if surface.material.kind not in ("mouth", "teeth", "tongue"):
        light = 0.35 + 0.65 * light  # lamps still reach what the sky does not; inside the mouth they do not
    colors = np.repeat(light[:, None], 3, axis=1).astype(np.float32)
    texture = surface.material.texture
    if surface.scalp is not None and texture is not None:
        # A multiplier cannot replace the skin's colour: it turns the mean of the skin into the colour of the hair.
        skin = face.textures[texture][::16, ::16, :3].reshape(-1, 3)
        mean = np.maximum(((skin / 255.0) ** 2.2).mean(0), 1e-3)
        hair = np.clip(np.array(surface.scalp_color) / mean, 0, 1)
        colors *= 1 - surface.scalp[:, None] * (1 - hair.astype(np.float32))
    return colors


def _bare_surface(face: Face) -> Surface:
    """The one surface of a mesh that has none."""
    uv = face.uv if face.uv is not None else np.zeros((len(face.template), 2), np.float32)
    return Surface("mesh", face.faces, uv, face.faces, _CLAY, np.ones(len(face.template), np.float32))
