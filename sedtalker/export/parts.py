"""Split a face into triangle meshes with one position, normal and texture coordinate per vertex, as file formats need.

Points are the face's vertices, followed by those of its attachments. A part repeats a point at a texture seam.
Blendshapes move points. Attachments are bound linearly to the face, so that brows, lashes, hair and cloth get
blendshapes with the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.mesh import vertex_normals
from sedtalker.face.mouth_light import light_between_corners
from sedtalker.face.neck import head_joint_weights
from sedtalker.face.rig import Attachment, Face, Float, Index, Material, Surface

MIN_DISPLACEMENT = 1e-5  # metres; points that a shape moves by less are omitted from it
_MIN_NORMAL_CHANGE = 0.02  # smaller changes of a unit normal are omitted

_LINING_LIGHT = 0.15  # most of the light on the mouth's lining
_CLAY = Material(kind="plain", tint=(0.56, 0.43, 0.36))  # for a mesh without surfaces


@dataclass(frozen=True)
class Shape:
    """A blendshape of a part, for the vertices that it moves."""

    vertices: Index  # (M,) of the part, ascending
    displacements: Float  # (M, 3) metres at weight 1
    normal_changes: Float  # (M, 3) of the unit normal at weight 1


@dataclass(frozen=True)
class Part:
    """One mesh with one material."""

    name: str
    material: Material
    points: Index  # (N,) point of each vertex
    positions: Float  # (N, 3) metres at rest
    normals: Float  # (N, 3) unit
    uv: Float  # (N, 2), v up
    triangles: Index  # (F, 3)
    colors: Float  # (N, 3) linear, multiplies the texture: baked occlusion, and the hair's colour on the scalp
    head_weights: Float  # (N,) skinning weights of the head joint
    shapes: dict[str, Shape]  # that move the part
    attachment: str | None = None  # its name; None for a surface of the face


def split_face(face: Face) -> list[Part]:
    """The parts of a face at rest; its own surfaces come first."""
    own = list(face.surfaces) or [_bare_surface(face)]
    mesh = _Mesh(face.template, face.faces, face.blendshapes, face.blendshape_names)
    parts = [_part(face, surface, mesh, None) for surface in own]
    first = len(face.template)
    for name, attachment in face.attachments.items():
        bound = _Mesh(
            attachment.place(face.template).astype(np.float32),
            attachment.surface.triangles,
            _attachment_displacements(face.blendshapes, attachment),
            face.blendshape_names,
        )
        part = _part(face, attachment.surface, bound, name)
        parts.append(replace(part, points=part.points + first))
        first += len(bound.vertices)
    return parts


def tangents(part: Part) -> Float:
    """Tangents (N, 4): unit vectors along u, orthogonal to the normals, and the sign of the bitangent along v."""
    corners, uv = part.positions[part.triangles], part.uv[part.triangles]
    (e1, e2), (d1, d2) = ((corners[:, i] - corners[:, 0] for i in (1, 2)), (uv[:, i] - uv[:, 0] for i in (1, 2)))
    area = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
    sign = np.where(area < 0, -1.0, 1.0)
    along_u = (e1 * d2[:, 1:] - e2 * d1[:, 1:]) * sign[:, None]
    ids = part.triangles.ravel()
    summed = [np.bincount(ids, np.repeat(along_u[:, axis], 3), minlength=len(part.points)) for axis in range(3)]
    along = np.stack(summed, axis=1)
    along -= part.normals * (along * part.normals).sum(axis=1, keepdims=True)
    # Where the texture is degenerate, any direction orthogonal to the normal is valid.
    fallback = np.cross(part.normals, np.where(np.abs(part.normals[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    tangent = np.where(np.linalg.norm(along, axis=1, keepdims=True) > 1e-9, along, fallback)
    tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    bitangent_sign = np.where(np.bincount(ids, np.repeat(sign, 3), minlength=len(part.points)) < 0, -1.0, 1.0)
    return np.concatenate([tangent, bitangent_sign[:, None]], axis=1).astype(np.float32)


class _Mesh:
    """Vertices with their normals at rest, and their blendshapes."""

    def __init__(self, vertices: Float, triangles: Index, displacements: Float | None, names: tuple[str, ...]) -> None:
        self.vertices = vertices
        self.normals = vertex_normals(vertices, triangles)
        self.shapes: dict[str, Shape] = {}
        if displacements is None:
            return
        for name, displacement in zip(names, displacements, strict=True):
            moving = _exceeds(displacement, MIN_DISPLACEMENT)
            if moving.any():
                self.shapes[name] = self._shape(displacement, moving, triangles)

    def _shape(self, displacement: Float, moving: NDArray[np.bool_], triangles: Index) -> Shape:
        near = np.zeros_like(moving)
        near[triangles[moving[triangles].any(axis=1)]] = True  # normals change at the corners of moving triangles
        around = triangles[near[triangles].any(axis=1)]
        changes = vertex_normals(self.vertices + displacement, around) - self.normals
        changes[~near] = 0
        turning = _exceeds(changes, _MIN_NORMAL_CHANGE)
        changes[~turning] = 0
        ids = np.flatnonzero(moving | turning).astype(np.int32)
        return Shape(ids, np.where(moving[ids, None], displacement[ids], 0).astype(np.float32), changes[ids])


def _exceeds(vectors: Float, limit: float) -> NDArray[np.bool_]:
    """Whether any coordinate of each vector (N, 3) exceeds the limit."""
    # By columns: a maximum along rows of three is ten times slower.
    x, y, z = np.abs(vectors.T)
    return np.maximum(np.maximum(x, y), z) > limit


def _attachment_displacements(blendshapes: Float | None, attachment: Attachment) -> Float | None:
    """Displacements (K, N, 3) of an attachment under the blendshapes (K, V, 3) of its face."""
    if blendshapes is None:
        return None
    return np.einsum("nk,snkc->snc", attachment.weights, blendshapes[:, attachment.indices])


def _part(face: Face, surface: Surface, mesh: _Mesh, attachment: str | None) -> Part:
    # One vertex for each pair of a point and a texture coordinate that occurs.
    pairs = surface.triangles.ravel().astype(np.int64) * max(len(surface.uv), 1) + surface.uv_triangles.ravel()
    vertices, corners = np.unique(pairs, return_inverse=True)
    points = (vertices // max(len(surface.uv), 1)).astype(np.int32)
    positions = mesh.vertices[points]
    # File formats clip a tint at 1, which would change its hue (ivory teeth became grey): its brightness is in colours.
    brightness = max(1.0, *surface.material.tint)
    red, green, blue = (float(value) / brightness for value in surface.material.tint)
    return Part(
        name=surface.name,
        material=replace(surface.material, tint=(red, green, blue)),
        points=points,
        positions=positions,
        normals=mesh.normals[points],
        uv=surface.uv[vertices % max(len(surface.uv), 1)],
        triangles=corners.reshape(-1, 3).astype(np.int32),
        colors=np.minimum(_colors(face, surface)[points] * np.float32(brightness), 1),
        head_weights=head_joint_weights(face, mesh.vertices)[points],
        shapes={name: own for name, shape in mesh.shapes.items() if len((own := _restrict(shape, points)).vertices)},
        attachment=attachment,
    )


def _restrict(shape: Shape, points: Index) -> Shape:
    """A shape of the whole mesh, restricted to the points of a part."""
    row = np.searchsorted(shape.vertices, points)
    moving = shape.vertices[np.minimum(row, len(shape.vertices) - 1)] == points
    return Shape(
        np.flatnonzero(moving).astype(np.int32), shape.displacements[row[moving]], shape.normal_changes[row[moving]]
    )


def _colors(face: Face, surface: Surface) -> Float:
    """Linear colours (P, 3) at the points of a surface's mesh."""
    points = len(face.template) if surface.occlusion is None else len(surface.occlusion)
    light = np.ones(points, np.float32) if surface.occlusion is None else np.clip(surface.occlusion, 0, 1)
    if surface.material.kind not in ("mouth", "teeth", "tongue"):
        light = 0.35 + 0.65 * light  # direct light reaches occluded skin, but not the inside of the mouth
    if surface.material.kind == "mouth":
        light = np.minimum(light, _LINING_LIGHT)  # viewers have no shadows of the lips, and would make cheeks pale
    if surface.material.kind == "teeth" and face.lip_pairs is not None and points == len(face.template):
        rims = face.template[face.lip_pairs[:, 0]]
        mouth_corners = rims[[rims[:, 0].argmin(), rims[:, 0].argmax()]]
        light = (light * light_between_corners(face.template, mouth_corners)).astype(np.float32)
    colors = np.repeat(light[:, None], 3, axis=1).astype(np.float32)
    texture = surface.material.texture
    if surface.scalp is not None and texture is not None:
        # Vertex colours only multiply the texture: this factor turns the mean colour of the skin into that of the hair.
        skin = face.textures[texture][::16, ::16, :3].reshape(-1, 3)
        mean = np.maximum(((skin / 255.0) ** 2.2).mean(0), 1e-3)
        hair = np.clip(np.array(surface.scalp_color) / mean, 0, 1)
        colors *= 1 - surface.scalp[:, None] * (1 - hair.astype(np.float32))
    return colors


def _bare_surface(face: Face) -> Surface:
    """A surface for a mesh without any."""
    uv = face.uv if face.uv is not None else np.zeros((len(face.template), 2), np.float32)
    return Surface("mesh", face.faces, uv, face.faces, _CLAY, np.ones(len(face.template), np.float32))
