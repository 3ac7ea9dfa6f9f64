"""Non-rigid registration of a head onto a surface, and correspondences between surfaces.

The displacement field of the source is the minimiser of squared distances to the target's tangent planes plus a
bi-Laplacian smoothness term, whose weight falls from step to step, as the stiffness of Amberg, Romdhani and Vetter,
"Optimal step nonrigid ICP algorithms for surface registration" (CVPR 2007). trimesh's `nricp_amberg` needs rtree, has
four unknowns for each coordinate, and no test of the normals, without which the lips are confused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import require
from sedtalker.face.mesh import vertex_normals
from sedtalker.face.rig import Index

LENGTHS = (0.08, 0.06, 0.045, 0.033, 0.025, 0.018, 0.013, 0.0095, 0.007, 0.0055)
"""Metres over which the displacement is smooth, step by step; its fourth power is the weight of the smoothness."""
_ITERATIONS = 3  # for each length
_NORMALS = (0.015, 0.004)  # metres by which opposite normals are farther apart, first and last step
_GRIP = (0.5, 0.1)  # share of the tangential distance to the partner, first and last step
_REACH = (0.02, 0.005)  # metres, first and last step: farther points have no partner
_FACING = 0.5  # least cosine between the normals of partners
_PIN = 1e-4  # square metres of surface that a landmark of weight 1 counts as
_NEIGHBOURS = 12  # triangles that are tested for the closest point


class Anchors(NamedTuple):
    """Source vertices (K,) with known positions (K, 3) and weights (K,)."""

    vertices: Index
    positions: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """The closest points of a surface for some points."""

    triangles: Index  # (N,) of the surface
    barycentric: NDArray[np.float64]  # (N, 3) weights of the triangle's corners
    distances: NDArray[np.float64]  # (N,) metres
    facing: NDArray[np.float64]  # (N,) cosine between the normals

    def interpolate(self, corners: Index, values: NDArray[Any]) -> NDArray[Any]:
        """Values (..., V, C) of the surface's vertices at the closest points: (..., N, C)."""
        ids = corners[self.triangles]
        total = values[..., ids[:, 0], :] * self.barycentric[:, :1]
        for k in (1, 2):
            total = total + values[..., ids[:, k], :] * self.barycentric[:, k : k + 1]
        return total


class SurfaceIndex:
    """Closest points of a triangle mesh."""

    def __init__(self, vertices: NDArray[np.floating], triangles: Index) -> None:
        spatial = require("scipy.spatial", "fit")
        self.vertices, self.triangles = np.asarray(vertices, np.float64), triangles
        corners = self.vertices[triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
        self._corners = corners
        self._middles = corners.mean(axis=1)
        self._make_tree = spatial.cKDTree
        self._trees: dict[float, Any] = {}

    def closest(
        self,
        points: NDArray[np.floating],
        normals: NDArray[np.floating] | None = None,
        facing: float = _FACING,
        turn: float = 0.0,
    ) -> Match:
        """The closest points for points (N, 3).

        Args:
            points: (N, 3) metres.
            normals: (N, 3); triangles that face another way are taken only if there is no other near.
            facing: least cosine between a point's normal and the triangle's.
            turn: metres by which a point is farther from a triangle at a right angle to it.
        """
        exact: NDArray[np.float64] = np.asarray(points).astype(np.float64)
        count = min(_NEIGHBOURS, len(self.triangles))
        place = exact if normals is None else np.concatenate([exact, turn * np.asarray(normals)], axis=1)
        near = self._tree(None if normals is None else turn).query(place, k=count)[1].reshape(len(exact), count)
        best = np.full(len(exact), np.inf)
        chosen = np.zeros(len(exact), np.int64)
        weights = np.zeros((len(exact), 3))
        for column in range(count):
            ids = near[:, column]
            barycentric = _barycentric_of_closest(self._corners[ids], exact)
            places = np.einsum("nk,nkc->nc", barycentric, self._corners[ids])
            distance = np.linalg.norm(places - exact, axis=1)
            if normals is not None and turn:
                bent = np.square(self.normals[ids] - normals).sum(axis=1)
                distance = np.sqrt(np.square(distance) + turn**2 * bent)
            if normals is not None:  # one that faces away is taken only if there is no other
                distance = distance + np.where((self.normals[ids] * normals).sum(axis=1) < facing, 1.0, 0.0)
            better = distance < best
            best[better], chosen[better], weights[better] = distance[better], ids[better], barycentric[better]
        best = np.linalg.norm(np.einsum("nk,nkc->nc", weights, self._corners[chosen]) - exact, axis=1)
        cosines = np.ones(len(exact)) if normals is None else (self.normals[chosen] * normals).sum(axis=1)
        return Match(chosen.astype(np.int32), weights, best, cosines)

    def _tree(self, turn: float | None) -> Any:
        """Search tree of the triangles' middles, with their normals times `turn`."""
        key = -1.0 if turn is None else float(turn)
        if key not in self._trees:
            places = self._middles
            if turn is not None:
                places = np.concatenate([places, turn * self.normals], axis=1)
            self._trees[key] = self._make_tree(places)
        return self._trees[key]


def _barycentric_of_closest(corners: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barycentric coordinates (N, 3) of the points of triangles (N, 3, 3) that are closest to points (N, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-24)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    result = np.stack([1 - v - w, v, w], axis=1)
    if inside.all():
        return result
    outside = ~inside
    best = np.full(int(outside.sum()), np.inf)
    edges = np.zeros((len(best), 3))
    for first, second in ((0, 1), (1, 2), (2, 0)):
        start, along = corners[outside, first], corners[outside, second] - corners[outside, first]
        share = ((points[outside] - start) * along).sum(1) / np.maximum((along * along).sum(1), 1e-24)
        share = np.clip(share, 0, 1)
        distance = np.linalg.norm(start + share[:, None] * along - points[outside], axis=1)
        better = distance < best
        best[better] = distance[better]
        edges[better] = 0
        edges[better, first], edges[better, second] = 1 - share[better], share[better]
    result[outside] = edges
    return result


def smoothness(vertices: NDArray[np.float64], triangles: Index) -> tuple[Any, NDArray[np.float64]]:
    """The matrix (V, V) of the integral of squared Laplacians over a surface, and the vertices' areas (V,).

    Cotangent weights and lumped areas; negative cotangents, of obtuse triangles, count as 0.
    """
    sparse = require("scipy.sparse", "fit")
    count = len(vertices)
    corners = vertices[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    rows, columns, values = [], [], []
    for k in range(3):
        a, b = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        cotangent = np.clip((a * b).sum(axis=1) / np.maximum(2 * areas, 1e-12), 0.02, 10) / 2
        rows.append(triangles[:, (k + 1) % 3])
        columns.append(triangles[:, (k + 2) % 3])
        values.append(cotangent)
    i, j, weights = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    matrix = sparse.coo_matrix((weights, (i, j)), (count, count)).tocsr()
    matrix = matrix + matrix.T
    matrix = sparse.diags(np.asarray(matrix.sum(axis=1)).ravel()) - matrix
    mass = np.maximum(np.bincount(triangles.ravel(), np.repeat(areas / 3, 3), minlength=count), 1e-9)
    return (matrix.T @ sparse.diags(1 / mass) @ matrix).tocsc(), mass


def register(
    vertices: NDArray[np.floating],
    triangles: Index,
    data: NDArray[np.floating],
    target: SurfaceIndex,
    anchors: Anchors,
    first: int = 0,
) -> NDArray[np.float64]:
    """Positions (V, 3) of the source's vertices on the target.

    Args:
        vertices, triangles: of the source, roughly aligned with the target, metres.
        data: (V,) weights of the distance of each vertex to the target; 0 for hidden ones.
        target: the surface.
        anchors: landmarks.
        first: the step of `LENGTHS` to start with, for a source that is near the target already.
    """
    sparse, solvers = require("scipy.sparse", "fit"), require("scipy.sparse.linalg", "fit")
    rest = np.asarray(vertices, np.float64)
    smooth, mass = smoothness(rest, triangles)
    places = rest.copy()
    steps = len(LENGTHS)
    ends = (np.geomspace(*ends, steps)[first:] for ends in (_REACH, _NORMALS, _GRIP))
    for length, reach, turn, grip in zip(LENGTHS[first:], *ends, strict=True):
        for _ in range(_ITERATIONS):
            normals = vertex_normals(places.astype(np.float32), triangles).astype(np.float64)
            match = target.closest(places, normals, turn=turn)
            away = match.interpolate(target.triangles, target.vertices) - places
            along = target.normals[match.triangles]
            straight = along * (away * along).sum(axis=1, keepdims=True)
            goals = places + straight + grip * (away - straight)  # the rest of the surface may slide
            weights = data * (match.facing > _FACING) * (match.distances < reach)
            weights = mass * weights / (1 + np.square(match.distances / (0.3 * reach)))
            total = weights.copy()
            pulled = weights[:, None] * (goals - rest)
            pins = anchors.weights * _PIN
            np.add.at(total, anchors.vertices, pins)
            np.add.at(pulled, anchors.vertices, pins[:, None] * (anchors.positions - rest[anchors.vertices]))
            system = (sparse.diags(total + 1e-6 * mass) + length**4 * smooth).tocsc()
            places = rest + solvers.splu(system).solve(pulled)
    return places


def similarity(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Rotation (3, 3), scale and translation (3,) that map points (N, 3) onto others in the least-squares sense.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI 1991).
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    left, singular, right = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    scale = float((singular * signs).sum() / np.maximum(np.square(a).sum(), 1e-18))
    return rotation, scale, target.mean(axis=0) - scale * rotation @ source.mean(axis=0)
