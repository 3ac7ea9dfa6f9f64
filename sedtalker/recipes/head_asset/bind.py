"""Bind brows, lashes, hair and cloth to the face's own vertices, so that they follow any shape and expression.

MakeHuman binds them to vertices of the whole body and to helper vertices that the face does not keep. A vertex whose
references are all kept stays as it is; any other gets a triangle of the skin that lies near and moves alike.
"""

from __future__ import annotations

import numpy as np

from sedtalker.recipes.head_asset.anatomy import Ids
from sedtalker.recipes.head_asset.sources import Array

MOTION_WEIGHT = 3.0  # a millimetre of difference in motion counts as three of distance
EVENNESS = 0.003  # metres: how far weights may leave those of the triangle's middle for the sake of motion


def rebind(points: Array, motion: Array, template: Array, actions: Array, triangles: Ids) -> tuple[Ids, Array, Array]:
    """Indices (N, 3), weights (N, 3) and offsets (N, 3) in metres of points on a face.

    Args:
        points: (N, 3) where they lie at rest.
        motion: (S, N, 3) how they should move with each action.
        template: (V, 3) the face at rest.
        actions: (S, V, 3) how its vertices move.
        triangles: (F, 3) those to bind to.
    """
    chosen = triangles[_most_alike(points, motion, template, actions, triangles)]
    weights = _following_weights(motion, actions, chosen)
    offsets = points - np.einsum("nk,nkc->nc", weights, template[chosen])
    return chosen.astype(np.int32), weights, offsets


def _most_alike(points: Array, motion: Array, template: Array, actions: Array, triangles: Ids) -> Ids:
    """For each point the number of the triangle that is nearest in place and motion together."""
    place = template[triangles].mean(1)
    moves = MOTION_WEIGHT * actions[:, triangles].mean(2)
    ours = np.concatenate([points, MOTION_WEIGHT * motion.transpose(1, 0, 2).reshape(len(points), -1)], axis=1)
    theirs = np.concatenate([place, moves.transpose(1, 0, 2).reshape(len(place), -1)], axis=1)
    squares = (theirs**2).sum(1)
    nearest = [np.argmin(squares - 2 * part @ theirs.T, axis=1) for part in np.array_split(ours, 8) if len(part)]
    return np.concatenate(nearest).astype(np.int32)


def _following_weights(motion: Array, actions: Array, chosen: Ids) -> Array:
    """Weights (N, 3), summing to 1, with which the vertices of a triangle reproduce a motion best."""
    weights = np.full((len(chosen), 3), 1 / 3)
    steps = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])  # ways to change weights that keep their sum
    for n, corners in enumerate(chosen):
        moves = actions[:, corners].transpose(0, 2, 1).reshape(-1, 3)  # (3 S, 3)
        lack = motion[:, n].ravel() - moves @ weights[n]
        system = moves @ steps.T
        normal = system.T @ system + EVENNESS**2 * np.eye(2)
        weights[n] += np.linalg.solve(normal, system.T @ lack) @ steps
    return weights
