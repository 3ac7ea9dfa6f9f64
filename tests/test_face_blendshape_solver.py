"""The blendshape solver, against known weights and against scipy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from made_animation import made_weights
from scipy.optimize import lsq_linear

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import FaceError
from sedtalker.export.retarget import retarget
from sedtalker.face.assets import load_face
from sedtalker.face.blendshape_solver import Basis, face_basis, read_basis, solve

RNG = np.random.default_rng(7)


def made_basis(vertices: int = 300, shapes: int = 12) -> Basis:
    """Correlated shapes, so that the problem is not separable."""
    neutral = RNG.standard_normal((vertices, 3)).astype(np.float32) * 0.1
    displacements = RNG.standard_normal((shapes, vertices, 3)).astype(np.float32) * 0.004
    displacements[1:] += 0.7 * displacements[:-1]
    return Basis(neutral, tuple(f"shape{k}" for k in range(shapes)), displacements)


def smooth_weights(frames: int, shapes: int) -> np.ndarray:
    """Random walks (T, K), clipped to [0, 1]."""
    walk = np.cumsum(RNG.standard_normal((frames, shapes)) * 0.06, axis=0) + RNG.uniform(-0.3, 0.6, shapes)
    return np.clip(walk, 0, 1).astype(np.float32)


def test_recovers_the_weights_of_the_head() -> None:
    face = load_face("default")
    for weights in (made_weights(face.blendshape_names, 90), smooth_weights(90, 52)):
        solution = solve(face.pose(weights), face_basis(face))
        assert solution.names == face.blendshape_names
        assert np.abs(solution.weights - weights).max() < 0.02
        assert solution.worst_mm < 0.05


def test_agrees_with_scipy_at_the_bounds() -> None:
    basis = made_basis()
    columns = basis.shapes.reshape(12, -1).T.astype(float)
    displacements = RNG.uniform(-0.8, 1.8, (6, 12)) @ columns.T + RNG.standard_normal((6, len(columns))) * 0.003
    solution = solve(
        (basis.neutral + displacements.reshape(6, -1, 3)).astype(np.float32), basis, temporal=0, sparsity=0
    )
    for frame in range(6):
        reference = lsq_linear(columns, displacements[frame], (0, 1), tol=1e-12)
        np.testing.assert_allclose(solution.weights[frame], reference.x, atol=1e-4)
        residual = 1000 * np.sqrt(2 * reference.cost / len(basis.neutral))  # scipy's cost is half the sum of squares
        assert solution.residual_mm[frame] == pytest.approx(residual, rel=1e-4)
    assert solution.mean_mm == pytest.approx(solution.residual_mm.mean()) and solution.worst_mm > 1


def test_the_temporal_term_smooths_and_the_sparse_one_selects() -> None:
    basis = made_basis()
    weights = smooth_weights(60, 12)
    noisy = np.einsum("tk,kvc->tvc", weights, basis.shapes) + basis.neutral
    noisy = (noisy + RNG.standard_normal(noisy.shape) * 0.01).astype(np.float32)
    plain = solve(noisy, basis, temporal=0, sparsity=0).weights
    steady = solve(noisy, basis, temporal=0.3, sparsity=0).weights
    thin = solve(noisy, basis, temporal=0, sparsity=0.2).weights
    assert np.abs(np.diff(steady, axis=0)).mean() < 0.8 * np.abs(np.diff(plain, axis=0)).mean()
    assert np.abs(steady - weights).mean() < np.abs(plain - weights).mean()
    assert (thin > 0.01).sum() < (plain > 0.01).sum()


def test_the_motion_of_another_identity_is_kept() -> None:
    face = load_face("default")
    template = (face.template * 1.07).astype(np.float32)
    weights = made_weights(face.blendshape_names, 20)
    vertices = template + (face.pose(weights) - face.template)
    assert np.abs(solve(vertices, face_basis(face), template=template).weights - weights).max() < 0.02


def test_frames_may_come_from_an_iterator() -> None:
    basis = made_basis()
    weights = smooth_weights(300, 12)
    stream = (basis.neutral + np.tensordot(row, basis.shapes, 1) for row in weights)
    assert np.abs(solve(stream, basis).weights - weights).max() < 0.02
    assert solve(iter(()), basis).weights.shape == (0, 12)


def flame_like_folder(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Write a mesh of FLAME's size and its shapes, one file per shape; returns triangles and meshes."""
    sphere = trimesh.creation.uv_sphere(0.1, count=[71, 71])
    neutral = np.asarray(sphere.vertices)
    shapes = {}
    for name, axis in (("jawOpen", [0, -0.02, 0]), ("mouthSmileLeft", [0.01, 0.008, 0])):
        center = neutral[RNG.integers(len(neutral))]
        shapes[name] = np.exp(-((neutral - center) ** 2).sum(1, keepdims=True) / 0.004) * axis
        trimesh.Trimesh(neutral + shapes[name], sphere.faces, process=False).export(folder / f"{name}.obj")
    trimesh.Trimesh(neutral, sphere.faces, process=False).export(folder / "neutral.obj")
    return np.asarray(sphere.faces, np.int32), {"neutral": neutral, **shapes}


def test_retarget_to_the_shapes_of_a_folder(tmp_path: Path) -> None:
    triangles, meshes = flame_like_folder(tmp_path)
    weights = smooth_weights(50, 2)
    motion = weights[:, 0, None, None] * meshes["jawOpen"] + weights[:, 1, None, None] * meshes["mouthSmileLeft"]
    animation = Animation(
        meshes["neutral"].astype(np.float32),
        triangles,
        25.0,
        EmotionTrack.neutral(2.0),
        dense=(meshes["neutral"] + motion).astype(np.float32),
    )
    result, solution = retarget(animation, tmp_path)
    assert result.blendshape_names == ("jawOpen", "mouthSmileLeft")
    assert np.abs(result.blendshapes - weights).max() < 0.02 and solution.worst_mm < 0.01
    np.testing.assert_allclose(result.vertices, animation.dense, atol=1e-4)


def test_shapes_of_another_topology_or_unit_are_refused(tmp_path: Path) -> None:
    basis = made_basis()
    with pytest.raises(FaceError, match="topologies differ"):
        solve([basis.neutral[:10]], basis, template=basis.neutral[:10])
    with pytest.raises(FaceError, match="Scale both to metres"):
        solve([basis.neutral], replace(basis, neutral=basis.neutral * 1000), template=basis.neutral)
    with pytest.raises(FaceError, match=r"no neutral\.obj"):
        read_basis(tmp_path)
    flame_like_folder(tmp_path)
    trimesh.creation.box().export(tmp_path / "cheekPuff.obj")
    with pytest.raises(FaceError, match=r"another topology.*cheekPuff"):
        read_basis(tmp_path)
    for path in tmp_path.glob("[!n]*.obj"):
        path.unlink()
    with pytest.raises(FaceError, match="no shapes"):
        read_basis(tmp_path)
