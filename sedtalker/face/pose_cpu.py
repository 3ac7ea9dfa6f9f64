"""Vertices of a few frames on one CPU core: a matrix product would start threads that take longer to wake."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.kernels import compiler

Float = NDArray[np.float32]

FEW = 8  # frames up to which this is faster than a matrix product

BLOCK = 1536  # coordinates that are computed at once, so that they stay in the first-level cache

compiled = compiler(nogil=True, error_model="numpy", fastmath=True)


@compiled
def _add_displacements(weights: Float, displacements: Float, template: Float, vertices: Float) -> None:
    """vertices (T, N) = template (N,) plus displacements (K, N) times weights (T, K)."""
    for first in range(0, template.shape[0], BLOCK):
        last = min(first + BLOCK, template.shape[0])
        base = template[first:last]
        for t in range(vertices.shape[0]):
            row = vertices[t, first:last]
            for i in range(row.shape[0]):
                row[i] = base[i]
            for k in range(displacements.shape[0]):
                weight = weights[t, k]
                if weight != 0:
                    moved = displacements[k, first:last]
                    for i in range(row.shape[0]):
                        row[i] += weight * moved[i]


def pose_few(weights: Float, blendshapes: Float, template: Float) -> Float:
    """Vertices (T, V, 3) of weights (T, K), blendshapes (K, V, 3) and a template (V, 3)."""
    vertices = np.empty((len(weights), template.size), np.float32)
    shapes, base = blendshapes.reshape(len(blendshapes), -1), template.reshape(-1)
    w, d, base = (np.ascontiguousarray(array, np.float32) for array in (weights, shapes, base))
    _add_displacements(w, d, base, vertices)
    return vertices.reshape(-1, *template.shape)
