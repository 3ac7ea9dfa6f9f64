"""Rotations against scipy's."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.rotations import head_angles, nearest_rotations, rotation_matrices, to_quaternions

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation


@pytest.fixture(scope="module")
def degrees() -> np.ndarray:
    return np.random.default_rng(0).uniform(-80, 80, (200, 3)).astype(np.float32)


def expected(degrees: np.ndarray) -> np.ndarray:
    return Rotation.from_euler("YXZ", degrees[:, [1, 0, 2]], degrees=True).as_matrix()


def test_matrices_of_pitch_yaw_and_roll(degrees: np.ndarray) -> None:
    np.testing.assert_allclose(rotation_matrices(degrees), expected(degrees), atol=1e-6)


def test_head_angles_invert_the_matrices(degrees: np.ndarray) -> None:
    found = np.degrees([head_angles(matrix) for matrix in expected(degrees)])
    np.testing.assert_allclose(found, degrees[:, [1, 0, 2]], atol=1e-4)


def test_quaternions_are_scipys_and_continuous() -> None:
    turns = Rotation.from_rotvec(np.linspace(0, 4 * np.pi, 300)[:, None] * [0.6, 0.0, 0.8])
    found = to_quaternions(turns.as_matrix())
    wanted = turns.as_quat()
    np.testing.assert_allclose(np.abs((found * wanted).sum(axis=1)), 1, atol=1e-6)
    assert ((found[1:] * found[:-1]).sum(axis=1) > 0).all()
    assert to_quaternions(np.zeros((0, 3, 3))).shape == (0, 4)


def test_nearest_rotations(degrees: np.ndarray) -> None:
    motions = np.tile(np.eye(4, dtype=np.float32), (len(degrees), 1, 1))
    motions[:, :3, :3] = expected(degrees) * 0.9 + np.random.default_rng(1).normal(0, 0.02, (len(degrees), 3, 3))
    wanted = Rotation.from_matrix(motions[:, :3, :3]).as_matrix()
    np.testing.assert_allclose(nearest_rotations(motions.copy())[:, :3, :3], wanted, atol=1e-5)
