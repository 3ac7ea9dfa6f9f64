"""Vertices -> weights of named shapes: what moves an engine's rig as this mesh moved.

Of each frame's displacement d (3V,) and the shapes B (3V, K) the weights w in [0, 1] minimise

    |B w - d|^2 + sum_k |B_k|^2 (temporal (w_k - w'_k)^2 + sparsity w_k)

over all frames together, where w' are the weights of the frame before. Both terms are relative to a shape's own size.
Only the Gram matrix (K, K) and B^T d (K,) of each frame are needed, so that frames are read once
and an hour fits; coordinate descent then sweeps over the weights until none moves.
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
_STILL = 1e-5  # a sweep that moves no weight by more is the last
_CHUNK_FRAMES = 128  # read at a time
_RELAXATION = 1.8  # steps are longer than to the minimum along a weight: projected over-relaxation
_OTHER_UNIT = 4.0  # two heads do not differ in size by more


@dataclass(frozen=True)
class Basis:
    """Named shapes over a neutral mesh."""

    neutral: Float  # (V, 3) metres
    names: tuple[str, ...]
    shapes: Float  # (K, V, 3) displacements at weight 1, metres


@dataclass(frozen=True)
class Solution:
    """Weights of a basis, and how far its shapes stay from the vertices."""

    names: tuple[str, ...]
    weights: Float  # (T, K) in [0, 1]
    residual_mm: Float  # (T,) distance of the vertices, root mean square over a frame

    @property
    def mean_mm(self) -> float:
        """Distance of the vertices, root mean square over a frame, mean over the frames, millimetres."""
        return float(self.residual_mm.mean()) if len(self.residual_mm) else 0.0

    @property
    def worst_mm(self) -> float:
        """Distance of the vertices in the frame that fits least, root mean square, millimetres."""
        return float(self.residual_mm.max(initial=0.0))


def face_basis(face: Face) -> Basis:
    """The blendshapes of a rigged face.

    Raises:
        FaceError: it has none.
    """
    if face.blendshapes is None:
        raise FaceError(f"no blendshapes on this face: {face.name}. Give a folder with neutral.obj and NAME.obj files")
    return Basis(face.template, face.blendshape_names, face.blendshapes)


def read_basis(folder: Path) -> Basis:
    """The shapes of a folder with the mesh at rest as `neutral.obj` and one `NAME.obj` a shape (or .ply).

    Raises:
        FaceError: no neutral mesh, no shapes, or one of another topology.
    """
    meshes = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".obj", ".ply")}
    if NEUTRAL not in meshes:
        raise FaceError(f"no {NEUTRAL}.obj: {folder}. Put the mesh at rest beside the shapes, under this name")
    neutral, triangles = read_mesh(meshes.pop(NEUTRAL))
    if not meshes:
        raise FaceError(f"no shapes: {folder}. Put one NAME.obj a shape beside {NEUTRAL}.obj")
    moved = []
    for path in meshes.values():
        vertices, others = read_mesh(path)
        if vertices.shape != neutral.shape or not np.array_equal(others, triangles):
            raise FaceError(f"another topology than {NEUTRAL}.obj: {path}. Keep the order of vertices and triangles")
        moved.append(vertices - neutral)
    return Basis(neutral, tuple(meshes), np.stack(moved))


def solve(
    frames: Iterable[Float],
    basis: Basis,
    *,
    template: Float | None = None,
    temporal: float = _TEMPORAL,
    sparsity: float = _SPARSITY,
) -> Solution:
    """Weights of `basis` for vertices (V, 3) frame after frame, in metres and without the head's rigid motion.

    `template` (V, 3) is the moving mesh at rest where that is another person than the basis: its motion is then solved,
    not its likeness. `temporal` holds neighbouring frames together, `sparsity` prefers few shapes; 0 turns each off.

    Raises:
        FaceError: the vertices have another count or unit than the basis.
    """
    rest = basis.neutral if template is None else template
    _check(rest, basis)
    shapes = basis.shapes.reshape(len(basis.names), -1)
    products, squares = [np.zeros((0, len(shapes)))], [np.zeros(0)]
    source = iter(frames)
    while chunk := list(islice(source, _CHUNK_FRAMES)):
        moved = np.stack(chunk).reshape(len(chunk), -1) - rest.ravel()
        products.append(moved @ shapes.T)
        squares.append(np.einsum("tv,tv->t", moved, moved))
    wide = shapes.astype(np.float64)
    gram = wide @ wide.T
    toward = np.concatenate(products).astype(np.float64)
    weights = np.zeros_like(toward)
    _descend(gram, toward, weights, temporal, sparsity, _SWEEPS, _STILL, _RELAXATION)
    left = (
        np.einsum("tj,jk,tk->t", weights, gram, weights) - 2 * (weights * toward).sum(axis=1) + np.concatenate(squares)
    )
    residual = 1000 * np.sqrt(np.maximum(left, 0) / len(rest))
    return Solution(basis.names, weights.astype(np.float32), residual.astype(np.float32))


def _check(rest: Float, basis: Basis) -> None:
    """Refuse a mesh that the shapes cannot be over."""
    if rest.shape != basis.neutral.shape:
        raise FaceError(
            f"{len(rest)} vertices moved, shapes over {len(basis.neutral)}: the topologies differ. "
            "Give shapes of the mesh that moves"
        )
    ratio = np.ptp(basis.neutral, axis=0).max() / max(np.ptp(rest, axis=0).max(), 1e-9)
    if not 1 / _OTHER_UNIT < ratio < _OTHER_UNIT:
        raise FaceError(f"the shapes are {ratio:.3g} times as large as the mesh that moves. Scale them to metres")


@compiler(nogil=True)
def _descend(gram, toward, weights, temporal, sparsity, sweeps, still, relaxation):  # type: ignore[no-untyped-def]
    """Coordinate descent in place over weights (T, K); gram (K, K), toward (T, K) = B^T d of each frame."""
    count, shapes = weights.shape
    slope = np.empty(shapes)  # toward - gram @ weights of the frame at hand
    for _ in range(sweeps):
        moved = 0.0
        for t in range(count):
            for k in range(shapes):
                slope[k] = toward[t, k]
            for j in range(shapes):
                if weights[t, j] != 0:
                    for k in range(shapes):
                        slope[k] -= gram[j, k] * weights[t, j]
            for k in range(shapes):
                own = gram[k, k]
                if own <= 0:
                    continue
                old = weights[t, k]
                pull = slope[k] + own * old - 0.5 * own * sparsity
                held = own
                if t > 0:
                    pull += own * temporal * weights[t - 1, k]
                    held += own * temporal
                if t < count - 1:
                    pull += own * temporal * weights[t + 1, k]
                    held += own * temporal
                new = min(1.0, max(0.0, old + relaxation * (pull / held - old)))
                if new != old:
                    weights[t, k] = new
                    moved = max(moved, abs(new - old))
                    for j in range(shapes):
                        slope[j] -= gram[k, j] * (new - old)
        if moved < still:
            break
