"""Posing a face and its attachments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sedtalker.face.assets import load_face
from sedtalker.face.pose_cpu import PackedShapes
from sedtalker.face.rig import Face


def test_motion_is_linear() -> None:
    face = load_face()
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 52), np.float32)
    expected = face.pose(one) + face.pose(other) - face.template
    np.testing.assert_allclose(face.pose(one + other), expected, atol=1e-6)
    np.testing.assert_allclose(face.pose(np.stack([one, other]))[1], face.pose(other), atol=1e-7)


def test_attachments_follow_the_face() -> None:
    face = load_face()
    shifted = face.template + np.float32([0.1, -0.2, 0.3])
    for attachment in face.attachments.values():
        expected = attachment.place(face.template) + np.float32([0.1, -0.2, 0.3])
        np.testing.assert_allclose(attachment.place(shifted), expected, atol=1e-5)
    points = face.all_points(shifted)
    assert len(points) == len(face.template) + sum(len(a.indices) for a in face.attachments.values())
    np.testing.assert_array_equal(points[: len(shifted)], shifted)


def test_a_face_without_blendshapes_cannot_be_posed() -> None:
    bare = Face("bare", np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    with pytest.raises(ValueError, match="no blendshapes"):
        bare.pose(np.zeros(52))


@pytest.mark.parametrize("vertices", [1, 128, 700])
def test_a_few_frames_are_posed_as_many(vertices: int) -> None:
    rng = np.random.default_rng(0)
    shapes, template = np.zeros((3, vertices, 3), np.float32), rng.normal(size=(vertices, 3)).astype(np.float32)
    shapes[0, -1] = 1, 2, 3
    shapes[1, vertices // 4 : vertices // 2] = rng.normal(size=(vertices // 2 - vertices // 4, 3))
    weights = rng.uniform(size=(4, 3)).astype(np.float32)
    expected = template + np.einsum("tk,kvc->tvc", weights, shapes)
    np.testing.assert_allclose(PackedShapes(shapes).pose(weights, template), expected, atol=1e-6)
    still = PackedShapes(np.zeros_like(shapes)).pose(weights, template)
    np.testing.assert_array_equal(still, np.repeat(template[None], 4, 0))
    face = load_face("default")
    assert face.blendshapes is not None
    weights = rng.uniform(size=(2, len(face.blendshapes))).astype(np.float32)
    for head in (face, replace(face, template=face.template + 1)):
        for _ in range(2):  # the second call uses the packed shapes
            np.testing.assert_allclose(head.pose_few(weights), head.pose(weights), atol=1e-6)
