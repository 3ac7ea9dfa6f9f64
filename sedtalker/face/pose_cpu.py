"""Vertices of a few frames on one CPU core: a matrix product would start threads that take longer to wake.

A shape moves a part of the face. Its displacements are stored in blocks, and those without any movement are left out:
a third of the default head's are kept, and reading them is what takes the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.kernels import compiler

Float = NDArray[np.float32]
Index = NDArray[np.int64]

FEW = 8  # frames up to which this is faster than a matrix product

BLOCK = 384  # coordinates of a block

compiled = compiler(nogil=True, error_model="numpy", fastmath=True)


@compiled
def _add_displacements(weights: Float, starts: Index, shapes: Index, moved: Float, vertices: Float) -> None:
    """Add displacements times weights (T, K) to vertices (T, N).

    Those of block b of the coordinates are the rows starts[b] to starts[b + 1] of `moved` (R, BLOCK), of the numbered
    `shapes` (R,).
    """
    for block in range(starts.shape[0] - 1):
        first = block * BLOCK
        size = min(BLOCK, vertices.shape[1] - first)
        for n in range(starts[block], starts[block + 1]):
            displacements = moved[n]
            for t in range(vertices.shape[0]):
                weight = weights[t, shapes[n]]
                if weight != 0:
                    row = vertices[t, first : first + size]
                    for i in range(size):
                        row[i] += weight * displacements[i]


class PackedShapes:
    """Blendshapes (K, V, 3) without the blocks of coordinates that a shape does not move."""

    def __init__(self, blendshapes: Float) -> None:
        flat = blendshapes.reshape(len(blendshapes), -1)
        padded = np.pad(np.asarray(flat, np.float32), [(0, 0), (0, -flat.shape[1] % BLOCK)])
        blocks = padded.reshape(len(flat), -1, BLOCK).transpose(1, 0, 2)  # (blocks, K, BLOCK)
        moves = blocks.any(axis=2)
        self._moved = np.ascontiguousarray(blocks[moves])
        self._shapes = np.nonzero(moves)[1]
        self._starts = np.concatenate([[0], moves.sum(axis=1).cumsum()])

    def pose(self, weights: Float, template: Float) -> Float:
        """Vertices (T, V, 3) of weights (T, K) and a template (V, 3)."""
        vertices = np.repeat(np.asarray(template, np.float32).reshape(1, -1), len(weights), axis=0)
        weights = np.ascontiguousarray(weights, np.float32)
        _add_displacements(weights, self._starts, self._shapes, self._moved, vertices)
        return vertices.reshape(-1, *template.shape)
