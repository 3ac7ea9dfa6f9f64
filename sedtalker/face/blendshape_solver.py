"""Solve blendshape weights for vertices, to drive the rig of a game engine.

For each frame's displacement d (3V,) and the shapes B (3V, K), the weights w in [0, 1] minimise

    |B w - d|^2 + sum_k |B_k|^2 (temporal (w_k - w'_k)^2 + sparsity w_k)

summed over all frames, where w' are the weights of the frame before. Both penalties are relative to a shape's size.
Only the Gram matrix (K, K) and B^T d (K,) of each frame are needed, so that frames are read once and an hour fits in
memory. Coordinate descent then sweeps over the weights until they converge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sedtalker.errors import FaceError
from sedtalker.face.mesh import read_mesh
from sedtalker.face.rig import Face, Float
from sedtalker.kernels import compiler

NEUTRAL = "neutral"

_TEMPORAL = 3e-5
_SPARSITY = 1e-5
_SWEEPS = 3000  # at most
_TOLERANCE = 1e-5  # largest change of a weight in the last sweep
_CHUNK_FRAMES = 128  # read at a time
_RELAXATION = 1.8  # projected over-relaxation: steps go beyond the minimum along a weight
_MAX_SIZE_RATIO = 4.0  # of two heads in the same unit


@dataclass(frozen=True)
class Basis:
    """Named blendshapes of a neutral mesh."""

    neutral: Float  # (V, 3) metres
    names: tuple[str, ...]
    shapes: Float  # (K, V, 3) displacements at weight 1, metres


@dataclass(frozen=True)
class Solution:
    """Weights of a basis, and the residual of the vertices."""

    names: tuple[str, ...]
    weights: Float  # (T, K) in [0, 1]
    residual_mm: Float  # (T,) root mean square distance of a frame's vertices

    @property
    def mean_mm(self) -> float:
        """Mean of the frames' residuals, millimetres; 0 without frames."""
        return float(self.residual_mm.mean()) if len(self.residual_mm) else 0.0

    @property
    def worst_mm(self) -> float:
        """Largest of the frames' residuals, millimetres; 0 without frames."""
        return float(self.residual_mm.max(initial=0.0))


def face_basis(face: Face) -> Basis:
    """The blendshapes of a rigged face. Raises FaceError if the face has none."""
    if face.blendshapes is None:
        raise FaceError(f"no blendshapes on this face: {face.name}. Give a folder with neutral.obj and NAME.obj files")
    return Basis(face.template, face.blendshape_names, face.blendshapes)


def read_basis(folder: Path) -> Basis:
    """Read a folder with the mesh at rest as `neutral.obj` and one `NAME.obj` per shape (or .ply).

    Raises:
        FaceError: the neutral mesh or the shapes are missing, or a shape has another topology.
    """
    meshes = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".obj", ".ply")}
    if NEUTRAL not in meshes:
        raise FaceError(f"no {NEUTRAL}.obj: {folder}. Add the mesh at rest under this name")
    neutral, triangles = read_mesh(meshes.pop(NEUTRAL))
    if not meshes:
        raise FaceError(f"no shapes: {folder}. Add one NAME.obj per shape")
    displacements = []
    for path in meshes.values():
        vertices, others = read_mesh(path)
        if vertices.shape != neutral.shape or not np.array_equal(others, triangles):
            raise FaceError(f"another topology than {NEUTRAL}.obj: {path}. Keep the order of vertices and triangles")
        displacements.append(vertices - neutral)
    return Basis(neutral, tuple(meshes), np.stack(displacements))


def solve(
    frames: Iterable[Float],
    basis: Basis,
    *,
    template: Float | None = None,
    temporal: float = _TEMPORAL,
    sparsity: float = _SPARSITY,
) -> Solution:
    """Solve weights of `basis` for each frame.

    Args:
        frames: vertices (V, 3) in metres, without the head's rigid motion.
        basis: blendshapes of the same topology.
        template: (V, 3) the moving mesh at rest, if it is another person than the basis; None: `basis.neutral`.
        temporal: weight of the difference between neighbouring frames; 0 turns it off.
        sparsity: weight of the sum of the weights, which favours few shapes; 0 turns it off.

    Raises:
        FaceError: the vertices have another count or unit than the basis.
    """
    rest = basis.neutral if template is None else template
    _check(rest, basis)
    shapes = basis.shapes.reshape(len(basis.names), -1)
    products, squares = [np.zeros((0, len(shapes)))], [np.zeros(0)]
    source = iter(frames)
    while chunk := list(islice(source, _CHUNK_FRAMES)):
        displacements = np.stack(chunk).reshape(len(chunk), -1) - rest.ravel()
        products.append(displacements @ shapes.T)
        squares.append(np.einsum("tv,tv->t", displacements, displacements))
    double = shapes.astype(np.float64)
    gram = double @ double.T
    rhs = np.concatenate(products).astype(np.float64)
    weights = np.zeros_like(rhs)
    _descend(gram, rhs, weights, temporal, sparsity, _SWEEPS, _TOLERANCE, _RELAXATION)
    errors = (
        np.einsum("tj,jk,tk->t", weights, gram, weights) - 2 * (weights * rhs).sum(axis=1) + np.concatenate(squares)
    )
    residual = 1000 * np.sqrt(np.maximum(errors, 0) / len(rest))
    return Solution(basis.names, weights.astype(np.float32), residual.astype(np.float32))


def _check(rest: Float, basis: Basis) -> None:
    """Check that a mesh at rest (V, 3) has the topology and unit of a basis."""
    if rest.shape != basis.neutral.shape:
        raise FaceError(
            f"the topologies differ: the animation has {len(rest)} vertices, the shapes {len(basis.neutral)}. "
            "Give shapes of the animated mesh"
        )
    ratio = np.ptp(basis.neutral, axis=0).max() / max(np.ptp(rest, axis=0).max(), 1e-9)
    if not 1 / _MAX_SIZE_RATIO < ratio < _MAX_SIZE_RATIO:
        raise FaceError(f"the shapes are {ratio:.3g} times as large as the animated mesh. Scale both to metres")


@compiler(nogil=True)
def _descend(gram, rhs, weights, temporal, sparsity, sweeps, tolerance, relaxation):  # type: ignore[no-untyped-def]
    """Coordinate descent in place over weights (T, K), for gram (K, K) and rhs (T, K), B^T d of each frame."""
    count, shapes = weights.shape
    slope = np.empty(shapes)  # rhs - gram @ weights of the current frame
    for _ in range(sweeps):
        change = 0.0
        for t in range(count):
            for k in range(shapes):
                slope[k] = rhs[t, k]
            for j in range(shapes):
                if weights[t, j] != 0:
                    for k in range(shapes):
                        slope[k] -= gram[j, k] * weights[t, j]
            for k in range(shapes):
                diagonal = gram[k, k]
                if diagonal <= 0:
                    continue
                old = weights[t, k]
                numerator = slope[k] + diagonal * old - 0.5 * diagonal * sparsity
                denominator = diagonal
                if t > 0:
                    numerator += diagonal * temporal * weights[t - 1, k]
                    denominator += diagonal * temporal
                if t < count - 1:
                    numerator += diagonal * temporal * weights[t + 1, k]
                    denominator += diagonal * temporal
                new = min(1.0, max(0.0, old + relaxation * (numerator / denominator - old)))
                if new != old:
                    weights[t, k] = new
                    change = max(change, abs(new - old))
                    for j in range(shapes):
                        slope[j] -= gram[k, j] * (new - old)
        if change < tolerance:
            break
