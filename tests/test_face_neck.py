"""The head's rigid motion: full on the head, none on the shoulders."""

from __future__ import annotations

import numpy as np

from sedtalker.face.assets import load_face
from sedtalker.face.neck import head_joint_weights, move_head, neck_pivot
from sedtalker.face.rig import Face

FACE = load_face()


def test_weights_fall_from_the_chin_to_the_shoulders() -> None:
    eyes = FACE.template[FACE.parts["eye_left"], 1].mean()
    heights = np.array([0.1, 0.0, -0.12, -0.14, -0.16, -0.18, -0.20, -0.3]) + eyes
    weights = head_joint_weights(FACE, np.stack([0 * heights, heights, 0 * heights], axis=1).astype(np.float32))
    np.testing.assert_allclose(weights[[0, 1, 2, 4, 6, 7]], [1, 1, 1, 0.5, 0, 0], atol=1e-5)
    assert (np.diff(weights[2:7]) < 0).all()
    chin = FACE.template[[FACE.landmarks["chin"]]]
    assert head_joint_weights(FACE, chin)[0] > 0.95


def test_a_mesh_without_eyes_moves_as_a_whole() -> None:
    bare = Face("bare", FACE.template, FACE.faces)
    assert head_joint_weights(bare, FACE.template).min() == 1
    np.testing.assert_array_equal(neck_pivot(bare), FACE.template.mean(axis=0))


def test_the_pivot_is_inside_the_neck() -> None:
    pivot, corner = neck_pivot(FACE), FACE.template[FACE.landmarks["eye_left_outer"]]
    assert abs(pivot[0]) < 0.002
    np.testing.assert_allclose(pivot[1:] - corner[1:], (-0.135, -0.098), atol=0.002)


def test_points_move_by_their_weights() -> None:
    quarter = np.array([[0, 0, 1, 0.1], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], np.float32)  # about y, and along x
    points = np.tile(np.float32([0, 0.2, 1]), (3, 1))
    moved = move_head(points, quarter, np.float32([0, 0.5, 1]))
    np.testing.assert_allclose(moved, [(0, 0.2, 1), (0.55, 0.2, 0.5), (1.1, 0.2, 0)], atol=1e-6)
