"""Bind brows, lashes, hair and cloth to the face's vertices, so that they follow any shape and expression.

MakeHuman binds them to vertices of the whole body and to helper vertices that are not part of the face. A vertex whose
references are all part of the face keeps them; any other is bound to a near triangle of the skin with similar motion.
"""

from __future__ import annotations

import numpy as np

from sedtalker.recipes.head_asset.anatomy import Ids
from sedtalker.recipes.head_asset.sources import Array

MOTION_WEIGHT = 3.0  # a difference in motion of 1 mm counts as much as a distance of 3 mm
REGULARIZATION = 0.003  # metres; a larger value keeps the weights closer to the triangle's centre


def bind_points(
    points: Array, motion: Array, template: Array, blendshapes: Array, triangles: Ids
) -> tuple[Ids, Array, Array]:
    """Indices (N, 3), weights (N, 3) and offsets (N, 3) in metres of points on a face.

    Args:
        points: (N, 3) at rest.
        motion: (S, N, 3) their displacements under each blendshape.
        template: (V, 3) the face at rest.
        actions: (S, V, 3) displacements of its vertices.
        triangles: (F, 3) to bind to.
    """
    chosen = triangles[_nearest_triangles(points, motion, template, blendshapes, triangles)]
    weights = _fit_weights(motion, blendshapes, chosen)
    offsets = points - np.einsum("nk,nkc->nc", weights, template[chosen])
    return chosen.astype(np.int32), weights, offsets


def _nearest_triangles(points: Array, motion: Array, template: Array, blendshapes: Array, triangles: Ids) -> Ids:
    """For each point the index of the triangle that is nearest in position and motion."""
    centres = template[triangles].mean(1)
    moves = MOTION_WEIGHT * blendshapes[:, triangles].mean(2)
    ours = np.concatenate([points, MOTION_WEIGHT * motion.transpose(1, 0, 2).reshape(len(points), -1)], axis=1)
    theirs = np.concatenate([centres, moves.transpose(1, 0, 2).reshape(len(centres), -1)], axis=1)
    squares = (theirs**2).sum(1)
    nearest = [np.argmin(squares - 2 * part @ theirs.T, axis=1) for part in np.array_split(ours, 8) if len(part)]
    return np.concatenate(nearest).astype(np.int32)


def _fit_weights(motion: Array, blendshapes: Array, chosen: Ids) -> Array:
    """Weights (N, 3) of triangles' vertices that reproduce a motion best (regularised least squares); they sum to 1."""
    weights = np.full((len(chosen), 3), 1 / 3)
    steps = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])  # changes of the weights that keep their sum
    for n, corners in enumerate(chosen):
        moves = blendshapes[:, corners].transpose(0, 2, 1).reshape(-1, 3)  # (3 S, 3)
        residual = motion[:, n].ravel() - moves @ weights[n]
        system = moves @ steps.T
        normal = system.T @ system + REGULARIZATION**2 * np.eye(2)
        weights[n] += np.linalg.solve(normal, system.T @ residual) @ steps
    return weights
