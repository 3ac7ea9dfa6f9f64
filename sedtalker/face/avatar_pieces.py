"""The meshes of a rigged avatar at rest: vertices after the skin, and their displacements by ARKit's shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar_targets import Target
from sedtalker.face.gltf import Gltf, gltf_primitives
from sedtalker.face.rig import Float, Index
from sedtalker.face.shape_names import Shares

_BELOW, _BESIDE = 0.45, 0.40  # metres from the eyes; farther triangles are never in a portrait
_STILL = 1e-4  # of the size of a mesh; a morph target that moves it less is empty


@dataclass
class Piece:
    """A primitive at rest in the file's axes."""

    names: str
    mesh: int
    node: int
    primitive: dict[str, Any]
    points: Float  # (N, 3)
    normals: Float | None  # (N, 3)
    matrices: Float  # (3, 3) or (N, 3, 3), of displacements
    triangles: Index
    uv_sets: dict[int, Float]
    joints: Index | None  # (N, J) nodes
    weights: Float | None  # (N, J)
    light: Float | None = None  # (N,) mean of the vertex colours, where they vary
    moves_mouth: bool = False
    shapes: Float = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))  # (52, N, 3)

    def share_of(self, nodes: set[int]) -> Float:
        """Skinning weights (N,) of a set of nodes."""
        if self.joints is None or self.weights is None:
            return np.full(len(self.points), float(self.node in nodes), np.float32)
        inside = np.isin(self.joints, list(nodes))
        return (self.weights * inside).sum(axis=1).astype(np.float32)


def read_pieces(gltf: Gltf, world: NDArray[np.float64]) -> list[Piece]:
    pieces = (_read_piece(gltf, node, primitive, world) for node, primitive in gltf_primitives(gltf))
    return [piece for piece in pieces if piece is not None]


def _read_piece(gltf: Gltf, node: int, primitive: dict[str, Any], world: NDArray[np.float64]) -> Piece | None:
    """A primitive; None if it has no triangles."""
    entry = gltf.item("nodes", node)
    mesh = gltf.item("meshes", entry["mesh"])
    attributes = primitive["attributes"]
    positions = gltf.array(attributes["POSITION"]).astype(np.float32)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError("positions are not VEC3")
    triangles = gltf.triangles(primitive, len(positions))
    if not len(triangles):
        return None
    joints = weights = None
    matrices, offsets = world[node, :3, :3].astype(np.float32), world[node, :3, 3].astype(np.float32)
    if "skin" in entry and "JOINTS_0" in attributes:
        joints, weights, matrices, offsets = _skin(gltf, entry["skin"], attributes, world)
        if len(joints) != len(positions):
            raise ValueError("joints and positions differ in number")
    if np.linalg.det(np.asarray(matrices, np.float64).reshape(-1, 3, 3)[0]) < 0:
        triangles = triangles[:, [0, 2, 1]]
    read = partial(_read_attribute, gltf, attributes, len(positions))
    normals, colors = read("NORMAL"), read("COLOR_0")
    light = None if colors is None else colors[:, :3].mean(axis=1)
    uv_sets = {number: read(f"TEXCOORD_{number}") for number in range(4)}
    material = gltf.item("materials", primitive["material"]) if "material" in primitive else {}
    rest_weights = entry.get("weights") or mesh.get("weights") or []
    return Piece(
        names=" ".join(str(item.get("name", "")) for item in (material, mesh, entry)),
        mesh=entry["mesh"],
        node=node,
        primitive=primitive,
        points=transform(matrices, _move_to_rest(gltf, primitive, positions, rest_weights)) + offsets,
        normals=None if normals is None else transform(matrices, normals),
        matrices=matrices,
        triangles=triangles,
        uv_sets={number: values for number, values in uv_sets.items() if values is not None},
        joints=joints,
        weights=weights,
        light=None if light is None or np.ptp(light) < 0.02 else light,
    )


def _read_attribute(gltf: Gltf, attributes: dict[str, Any], count: int, name: str) -> Float | None:
    """Values (count, ...) of an attribute of the vertices, None if the primitive lacks it."""
    if name not in attributes:
        return None
    values = gltf.array(attributes[name]).astype(np.float32)
    if len(values) != count:
        raise ValueError(f"{name} and POSITION of a mesh differ in number")
    return values


def _move_to_rest(gltf: Gltf, primitive: dict[str, Any], positions: Float, weights: list[Any]) -> Float:
    """Positions (N, 3) with the weights that the file gives its morph targets, which move them before the skin does."""
    for weight, target in zip(weights, primitive.get("targets", []), strict=False):
        if weight and "POSITION" in target:
            positions = positions + np.float32(weight) * gltf.array(target["POSITION"]).astype(np.float32)
    return positions


def transform(matrices: Float, vectors: Float) -> Float:
    """Vectors (N, 3) by one matrix (3, 3) or a matrix each (N, 3, 3)."""
    if matrices.ndim == 2:
        return (vectors @ matrices.T).astype(np.float32)
    return np.einsum("nab,nb->na", matrices, vectors).astype(np.float32)


def _skin(
    gltf: Gltf, index: Any, attributes: dict[str, Any], world: NDArray[np.float64]
) -> tuple[Index, Float, Float, Float]:
    """Joints as nodes (N, J), their weights (N, J), and the matrices (N, 3, 3) and offsets (N, 3) of the rest pose."""
    skin = gltf.item("skins", index)
    nodes = np.array(skin["joints"], np.int32)
    if not len(nodes) or nodes.min() < 0 or nodes.max() >= len(world):
        raise ValueError("a joint is not a node")
    inverse = np.tile(np.eye(4), (len(nodes), 1, 1))
    if "inverseBindMatrices" in skin:
        inverse[:] = gltf.array(skin["inverseBindMatrices"])[: len(nodes)].reshape(-1, 4, 4).transpose(0, 2, 1)
    sets = [number for number in range(4) if f"JOINTS_{number}" in attributes]
    stored = [gltf.array(attributes[f"JOINTS_{n}"]) for n in sets]
    if any(values.dtype.kind != "u" for values in stored):
        raise ValueError("the joints of a mesh are not whole numbers from 0")
    joints = np.concatenate(stored, axis=1).astype(np.int64)
    weights = np.concatenate([gltf.array(attributes[f"WEIGHTS_{n}"]) for n in sets], axis=1).astype(np.float32)
    if joints.shape != weights.shape or (joints.size and int((joints * (weights > 0)).max()) >= len(nodes)):
        raise ValueError("a vertex refers to a joint that does not exist")
    joints = np.where(weights > 0, joints, 0)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    bind = (world[nodes] @ inverse).astype(np.float32)
    blended = np.einsum("nj,njab->nab", weights, bind[joints], optimize=True)
    return nodes[joints], weights, blended[:, :3, :3], blended[:, :3, 3]


def read_displacements(gltf: Gltf, piece: Piece, targets: dict[str, tuple[Target, ...]]) -> dict[str, Float]:
    """Displacements (N, 3) of a primitive by canonical name, before its skin."""
    stored = piece.primitive.get("targets", [])
    moved: dict[str, Float] = {}
    for name, bound in targets.items():
        for target in bound:
            if target.mesh == piece.mesh and target.number < len(stored) and "POSITION" in stored[target.number]:
                values = gltf.array(stored[target.number]["POSITION"]).astype(np.float32)
                if values.shape != piece.points.shape:
                    raise ValueError(f"the morph target {name} differs from its mesh in number")
                moved[name] = moved.get(name, 0) + np.float32(target.share) * values
    return moved


def moves(name: str, pieces: list[Piece], moved: list[dict[str, Float]]) -> bool:
    """Whether a shape moves something. Some exporters write empty morph targets for the shapes that they lack."""
    for piece, displacements in zip(pieces, moved, strict=True):
        if name in displacements:
            travel = np.abs(transform(piece.matrices, displacements[name])).max(initial=0)
            if travel > _STILL * np.ptp(piece.points, axis=0).max():
                return True
    return False


def arkit_displacements(piece: Piece, moved: dict[str, Float], shares: dict[str, Shares]) -> Float:
    """Displacements (52, N, 3) of a primitive at weight 1, in the file's axes and units."""
    result = np.zeros((len(ARKIT_NAMES), len(piece.points), 3), np.float32)
    for column, name in enumerate(ARKIT_NAMES):
        for control, share in shares.get(name, {}).items():
            if control in moved:
                result[column] += np.float32(share) * moved[control]
    for moving in np.flatnonzero(result.any(axis=(1, 2))):
        result[moving] = transform(piece.matrices, result[moving])
    return result


def moved_centre(pieces: list[Piece], names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Mean position of the vertices that the given shapes move, weighted by distance; None if they move none."""
    columns = [ARKIT_NAMES.index(name) for name in names]
    total, weight = np.zeros(3), 0.0
    for piece in pieces:
        travel = np.linalg.norm(piece.shapes[columns], axis=2).sum(axis=0).astype(np.float64) ** 2
        total += travel @ piece.points
        weight += travel.sum()
    return total / weight if weight > 0 else None


def near_head(pieces: list[Piece], eyes: NDArray[np.float64]) -> list[tuple[Piece, Index]]:
    """The pieces with their triangles that a portrait may show."""
    result = []
    for piece in pieces:
        x, y, _ = np.moveaxis(piece.points[piece.triangles], -1, 0)
        near = (y.max(axis=1) > eyes[1] - _BELOW) & (np.abs(x - eyes[0]).min(axis=1) < _BESIDE)
        if near.any():
            result.append((piece, piece.triangles[near]))
    return result


def weld(piece: Piece, used: NDArray[np.integer]) -> tuple[Index, Index]:
    """Join vertices that texture seams split, so that normals are smooth across them.

    Vertices are joined if position and displacements are equal and their normals do not oppose each other.

    Returns:
        The joined vertex of each used vertex (N,), and the used vertex of each joined one (M,).
    """
    moving = np.flatnonzero(piece.shapes.any(axis=(1, 2)))
    rows = np.concatenate([piece.points[used], *piece.shapes[moving][:, used]], axis=1)
    rows = np.ascontiguousarray(np.round(rows / 1e-6).astype(np.int64 if rows.size < 5_000_000 else np.int32))
    keys = rows.view([("", np.void, rows.itemsize * rows.shape[1])]).ravel()
    _, rows_of, group = np.unique(keys, return_index=True, return_inverse=True)
    if piece.normals is not None:
        normals = piece.normals[used]
        opposed = (normals * normals[rows_of[group]]).sum(axis=1) < 0
        _, rows_of, group = np.unique(group * 2 + opposed, return_index=True, return_inverse=True)
    return group.astype(np.int32), rows_of.astype(np.int32)


def vertex_light(piece: Piece) -> Float:
    """Light (N,) of the vertex colours, 1 without."""
    return np.ones(len(piece.points), np.float32) if piece.light is None else np.clip(piece.light, 0, 1)
