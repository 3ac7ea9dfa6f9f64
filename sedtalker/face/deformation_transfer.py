"""Transfer blendshapes from one head to a mesh of another topology.

`transfer` solves for displacements whose gradients on the target are the deformation gradients of the source: Sumner
and Popovic, "Deformation transfer for triangle meshes" (SIGGRAPH 2004), in the equivalent form of a Poisson equation
(Botsch et al., "Deformation transfer for detail-preserving surface editing", VMV 2006). `copy_displacements` is the
baseline of Noh and Neumann, "Expression cloning" (SIGGRAPH 2001): the displacement at the corresponding point.

On heads whose true displacements are those of the source (a packaged head with another shape, re-meshed) the baseline's
median error is 1.1 % of the motion, averaged over the shapes, that of `transfer` 2.5 %; worst shapes 7.0 % and 5.5 %.
Where the proportions differ, copied displacements do not turn and scale with the surface, so `transfer` is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import require
from sedtalker.face.registration import Match
from sedtalker.face.rig import Float, Index

_REACH = 0.006  # metres; over longer distances gradients determine the displacement more than the corresponding point
_SLIVER = 0.02  # least sine of a triangle's angle in the weights


def copy_displacements(blendshapes: Float, corners: Index, match: Match, scale: float) -> Float:
    """Displacements (K, N, 3) of corresponding points, times the ratio of the sizes of the heads."""
    return (match.interpolate(corners, blendshapes) * np.float32(scale)).astype(np.float32)


def deformation_gradients(vertices: NDArray[np.floating], triangles: Index, displacement: Float) -> NDArray[np.float64]:
    """Deformation gradients (F, 3, 3) minus identity of triangles under a displacement (V, 3)."""
    rest = np.asarray(vertices, np.float64)
    frame, moved = _frames(rest[triangles]), _frames((rest + displacement)[triangles])
    gradients: NDArray[np.float64] = moved @ np.linalg.inv(frame) - np.eye(3)
    return gradients


def transfer(
    source: NDArray[np.floating],
    source_triangles: Index,
    blendshapes: Float,
    target: NDArray[np.floating],
    target_triangles: Index,
    match: Match,
    triangle_match: Match,
    confidence: NDArray[np.floating],
    scale: float,
    size: float,
) -> Float:
    """Displacements (K, N, 3) of the target's vertices.

    Args:
        source, source_triangles: of the head at rest, metres.
        blendshapes: (K, V, 3) displacements of the head.
        target, target_triangles: of the mesh at rest; every vertex is used by a triangle.
        match, triangle_match: for the target's vertices and the middles of its triangles, points of the head.
        confidence: (N,) in [0, 1], 0 for vertices without a corresponding point.
        scale: of the displacements.
        size: of the target relative to the head; gradients are displacements per size.
    """
    solvers, sparse = require("scipy.sparse.linalg", "fit"), require("scipy.sparse", "fit")
    corners = np.asarray(target, np.float64)[target_triangles]
    basis, areas = _gradient_basis(corners)  # (F, 3, 3) gradients of the corners' hat functions
    count = len(target)
    weights = np.einsum("fic,fjc->fij", basis, basis) * areas[:, None, None]
    rows = np.repeat(target_triangles, 3, axis=1).ravel()
    columns = np.tile(target_triangles, (1, 3)).ravel()
    stiffness = sparse.csr_matrix((weights.ravel(), (rows, columns)), (count, count))
    mass = np.bincount(target_triangles.ravel(), np.repeat(areas / 3, 3), minlength=count)
    mass = np.maximum(mass, 1e-12)
    pull = mass * (np.asarray(confidence, np.float64) / _REACH**2 + 1e-3 / _REACH**2)
    factor = solvers.splu((stiffness + sparse.diags(pull)).tocsc())
    confident = np.asarray(confidence)[target_triangles].min(axis=1) > 0
    goals = (
        copy_displacements(blendshapes, source_triangles, match, scale) * np.asarray(confidence, np.float32)[:, None]
    )
    result = np.zeros_like(goals)
    for shape, displacement in enumerate(blendshapes):
        if not displacement.any():
            continue
        wanted = deformation_gradients(source, source_triangles, displacement)[triangle_match.triangles]
        wanted = np.where(confident[:, None, None], wanted * (scale / size), 0.0)
        flux = np.einsum("fab,fib->fia", wanted, basis) * areas[:, None, None]  # (F, corner, xyz)
        right = np.zeros((count, 3))
        for axis in range(3):
            right[:, axis] = np.bincount(target_triangles.ravel(), flux[..., axis].ravel(), minlength=count)
        result[shape] = factor.solve(right + pull[:, None] * goals[shape])
    return result


def _frames(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices (F, 3, 3) whose columns are two sides of each triangle and its normal, scaled as in Sumner's paper."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(first, second)
    normal = normal / np.sqrt(np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18))
    return np.stack([first, second, normal], axis=2)


def _gradient_basis(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradients (F, 3, 3) of the hat function of each corner, and areas (F,); slivers count as wider ones."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double = np.linalg.norm(normal, axis=1)
    longest = np.square(corners - np.roll(corners, 1, axis=1)).sum(axis=2).max(axis=1)
    wide = np.maximum(double, _SLIVER * np.maximum(longest, 1e-12))
    unit = normal / np.maximum(double, 1e-18)[:, None]
    opposite = np.stack(
        [corners[:, 2] - corners[:, 1], corners[:, 0] - corners[:, 2], corners[:, 1] - corners[:, 0]], 1
    )
    gradients: Any = np.cross(unit[:, None], opposite) / wide[:, None, None]
    return gradients, wide / 2
