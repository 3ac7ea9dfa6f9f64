"""Transfer of the default head's 52 shapes to a mesh on which it was registered: `transfer_shapes`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError, require
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.deformation_transfer import transfer
from sedtalker.face.fit_types import ShapeFit, SourceHead, UserMesh
from sedtalker.face.mesh import vertex_normals
from sedtalker.face.registration import Match, SurfaceIndex
from sedtalker.face.rig import Float, Index

_CONFIDENT = (0.004, 0.010)  # metres to the registered head: fully, and not at all
_GOOD, _BAD = 0.0015, 0.004  # metres, mean distance over face and lips: good, refused
_SAME_SIZE = (0.85, 1.18)  # relative sizes of adult heads, whose faces move by the same millimetres
_OPEN_LIPS = 0.009  # metres along the surface between facing vertices of parted lips
_SCALE = (0.7, 1.5)  # limits of the factors that close lids and lips


def transfer_shapes(source: SourceHead, mesh: UserMesh, fitted: NDArray[np.float64], size: float) -> ShapeFit:
    """Correspondences and displacements of the component with the face. `size` is relative to the default head."""
    blendshapes = source.face.blendshapes
    assert blendshapes is not None
    shapes = blendshapes[:, source.used]
    scale = size / float(np.clip(size, *_SAME_SIZE))
    used, inverse = np.unique(mesh.main.ravel().astype(np.int64), return_inverse=True)
    corners = inverse.reshape(-1, 3).astype(np.int32)
    surface = mesh.whole[used]
    normals = vertex_normals(surface, corners).astype(np.float64)
    head = SurfaceIndex(fitted, source.triangles)
    match = _match_sides(source, head, surface, corners, normals, shapes)
    near, far = _CONFIDENT
    confidence = np.clip((far - match.distances) / (far - near), 0, 1) * (match.facing > 0.2)
    distances = SurfaceIndex(surface, corners).closest(fitted).distances
    mean = float(distances[source.front].mean())
    if mean > _BAD:
        raise FaceError(
            f"the default head does not fit: {mesh.path} (mean distance {1000 * mean:.1f} mm over the face). Give "
            "landmarks with --landmarks, or check that it is a human head"
        )
    middles = surface[corners].mean(axis=1)
    facing = np.cross(surface[corners[:, 1]] - surface[corners[:, 0]], surface[corners[:, 2]] - surface[corners[:, 0]])
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-18)
    triangle_match = _match_triangles(source, head, match, middles, facing, corners)
    moved = transfer(
        source.points, source.triangles, shapes, surface, corners, match, triangle_match, confidence, scale, size,
    )  # fmt: skip
    nearest = _nearest(surface, normals, fitted, vertex_normals(fitted.astype(np.float32), source.triangles))
    upper, lower = _lip_rows(source, shapes, match, nearest, surface, fitted)
    _check_lips(mesh.path, surface, corners, upper, lower)
    left, right = (_close_lids(source, fitted, moved, nearest, side) for side in ("Left", "Right"))
    close = _close_lips(moved, upper, lower)
    return ShapeFit(
        source, mesh, fitted, scale, used, match, moved, nearest, upper, lower, (left, right), close, distances
    )  # fmt: skip


def _match_sides(
    source: SourceHead, head: SurfaceIndex, surface: Float, corners: Index, normals: NDArray[np.float64], shapes: Float
) -> Match:
    """Corresponding points of the mesh's vertices; near the mouth on the lip that their neighbours belong to."""
    match = head.closest(surface, normals, facing=0.2)
    travel = -shapes[JAW_OPEN][:, 1]
    low = travel > 0.5 * travel.max()  # moves with the jaw
    triangle_low = low[source.triangles].mean(axis=1) > 0.5
    pairs = source.face.lip_pairs
    assert pairs is not None
    line = head.vertices[source.find(pairs.ravel())]
    spatial = require("scipy.spatial", "fit")
    near = np.flatnonzero(spatial.cKDTree(line).query(surface)[0] < 0.012)
    if not len(near):
        return match
    is_low = triangle_low[match.triangles].astype(np.float64)
    sides = np.unique(np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    degree = np.bincount(sides.ravel(), minlength=len(surface))
    for _ in range(3):
        total = np.bincount(sides[:, 0], is_low[sides[:, 1]], len(surface))
        total += np.bincount(sides[:, 1], is_low[sides[:, 0]], len(surface))
        mean = (total + is_low) / (degree + 1)
        is_low[near] = mean[near] > 0.5
    wrong = near[is_low[near] != triangle_low[match.triangles[near]]]
    for side in (0.0, 1.0):
        ids = wrong[is_low[wrong] == side]
        allowed = np.flatnonzero(triangle_low == bool(side))
        if len(ids):
            again = SurfaceIndex(head.vertices, source.triangles[allowed]).closest(
                surface[ids], normals[ids], facing=0.0
            )
            match.triangles[ids] = allowed[again.triangles]
            match.barycentric[ids], match.distances[ids] = again.barycentric, again.distances
            match.facing[ids] = np.maximum(again.facing, 0.3)
    return match


def _match_triangles(
    source: SourceHead, head: SurfaceIndex, match: Match, middles: Float, normals: NDArray[np.float64], corners: Index
) -> Match:
    """Corresponding points of the triangles' middles, on the same side of the lips as their corners."""
    found = head.closest(middles, normals, facing=0.2)
    wrong = (
        np.linalg.norm(
            found.interpolate(source.triangles, head.vertices)
            - match.interpolate(source.triangles, head.vertices)[corners].mean(axis=1),
            axis=1,
        )
        > 0.006
    )
    found.triangles[wrong] = match.triangles[corners[wrong, 0]]
    return found


def _nearest(
    surface: Float, normals: NDArray[np.float64], fitted: NDArray[np.float64], fitted_normals: Float
) -> NDArray[np.int64]:
    """For each vertex of the registered head, the vertex of the mesh nearest to it that faces the same way."""
    spatial = require("scipy.spatial", "fit")
    count = min(8, len(surface))
    distance, ids = spatial.cKDTree(surface).query(fitted, k=count)
    distance, ids = distance.reshape(len(fitted), count), ids.reshape(len(fitted), count)
    cosine = np.einsum("nkc,nc->nk", normals[ids], fitted_normals)
    chosen = (distance + np.where(cosine < 0.2, 0.003, 0)).argmin(axis=1)
    result: NDArray[np.int64] = ids[np.arange(len(fitted)), chosen]
    return result


def _lip_rows(
    source: SourceHead,
    shapes: Float,
    match: Match,
    nearest: NDArray[np.int64],
    surface: Float,
    fitted: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertices of the mesh's upper and lower lip that correspond to the lip pairs."""
    pairs = source.face.lip_pairs
    assert pairs is not None
    spatial = require("scipy.spatial", "fit")
    travel = match.interpolate(source.triangles, -shapes[JAW_OPEN][:, 1:2])[:, 0]
    jaw = -shapes[JAW_OPEN][:, 1]
    limit = (jaw[source.find(pairs[:, 0])].mean() + jaw[source.find(pairs[:, 1])].mean()) / 2
    rows = []
    for column, low in ((0, False), (1, True)):
        own = np.flatnonzero((travel > limit) == low)
        at = fitted[source.find(pairs[:, column])]
        rows.append(own[spatial.cKDTree(surface[own]).query(at)[1]])
    return rows[0], rows[1]


def _check_lips(path: Path, surface: Float, corners: Index, upper: NDArray[np.int64], lower: NDArray[np.int64]) -> None:
    """Raise FaceError if the lips are one surface: facing points of parted lips are connected only around the mouth."""
    graph, sparse = require("scipy.sparse.csgraph", "fit"), require("scipy.sparse", "fit")
    middle = slice(len(upper) // 2 - 1, len(upper) // 2 + 2)
    centre = surface[np.concatenate([upper[middle], lower[middle]])].mean(axis=0)
    inside = np.linalg.norm(surface - centre, axis=1) < 0.045
    sides = np.unique(np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    sides = sides[inside[sides].all(axis=1)]
    lengths = np.linalg.norm(surface[sides[:, 0]] - surface[sides[:, 1]], axis=1)
    matrix = sparse.coo_matrix((np.maximum(lengths, 1e-9), (sides[:, 0], sides[:, 1])), (len(surface), len(surface)))
    starts, ends = upper[middle], lower[middle]
    paths = graph.dijkstra(matrix.tocsr(), directed=False, indices=starts, limit=0.1)
    along = paths[np.arange(len(starts)), ends] - np.linalg.norm(surface[starts] - surface[ends], axis=1)
    if np.median(along) < _OPEN_LIPS:
        raise FaceError(
            f"the lips of this mesh are one closed surface: {path}. Cut it along the line between the lips, so that "
            "the mouth can open"
        )


def _close_lids(
    source: SourceHead, fitted: NDArray[np.float64], moved: Float, nearest: NDArray[np.int64], side: str
) -> float:
    """Scale eyeBlink of a side so that the lids meet as on the default head; returns the factor."""
    column = ARKIT_NAMES.index(f"eyeBlink{side}")
    rim = lid_rim(source, side)
    blendshapes = source.face.blendshapes
    assert blendshapes is not None
    falls = blendshapes[column][source.used][:, 1]
    upper, lower = rim[falls[rim] < 0.5 * falls[rim].min()], rim[falls[rim] >= 0.5 * falls[rim].min()]
    if len(upper) < 3 or len(lower) < 3:
        return 1.0
    x = source.points[:, 0]
    partner = lower[np.abs(x[upper][:, None] - x[lower][None]).argmin(axis=1)]
    middle = np.argsort(falls[upper])[: len(upper) // 2 + 1]
    upper, partner = upper[middle], partner[middle]
    gap, own = (fitted[upper, 1] - fitted[partner, 1]), (source.points[upper, 1] - source.points[partner, 1])
    closing = moved[column, nearest[partner], 1] - moved[column, nearest[upper], 1]
    expected = (falls[partner] - falls[upper]) / np.maximum(own, 1e-4)
    factor = float(np.median(expected * gap / np.maximum(closing, 1e-4)))
    factor = float(np.clip(factor, *_SCALE)) if np.isfinite(factor) else 1.0
    moved[column] *= np.float32(factor)
    return factor


def lid_rim(source: SourceHead, side: str) -> NDArray[np.int64]:
    """Rows of the vertices on the border of the skin around an eye."""
    skin = source.face.surfaces[0].triangles
    sides = np.sort(skin[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(sides, axis=0, return_counts=True)
    border = np.unique(edges[counts == 1])
    eye = source.face.template[source.face.parts[f"eye_{side.lower()}"]].mean(axis=0)
    near = np.linalg.norm(source.face.template[border] - eye, axis=1) < 0.025
    return source.find(border[near])


def _close_lips(moved: Float, upper: NDArray[np.int64], lower: NDArray[np.int64]) -> float:
    """Scale mouthClose so that with an equal jawOpen it leaves the lips as at rest; returns the factor."""
    middle = slice(len(upper) // 4, len(upper) - len(upper) // 4)
    opening, closing = (
        float((moved[column, upper[middle], 1] - moved[column, lower[middle], 1]).mean())
        for column in (JAW_OPEN, MOUTH_CLOSE)
    )
    factor = float(np.clip(-opening / closing, *_SCALE)) if opening > 0 > closing else 1.0
    moved[MOUTH_CLOSE] *= np.float32(factor)
    return factor
