"""Light that reaches the teeth between the mouth corners."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.export.parts import split_face
from sedtalker.face.assets import load_face
from sedtalker.face.mouth_light import light_between_corners

CORNERS = np.array([[-0.02, 0.0, 0.1], [0.02, 0.0, 0.1]])


def test_a_tooth_in_the_middle_sees_nearly_all_and_one_behind_the_cheek_little() -> None:
    teeth = np.array([[0.0, 0.0, 0.099], [0.012, 0.0, 0.09], [0.024, 0.0, 0.07], [-0.024, 0.0, 0.07]])
    middle, premolar, left, right = light_between_corners(teeth, CORNERS)
    assert middle > 0.99
    assert middle > premolar > left
    assert left == pytest.approx(right)
    assert left < 0.15


def test_the_share_is_that_of_the_visible_sky() -> None:
    """Against the cosine-weighted integral over directions between both corners, squared."""
    tooth = np.array([[0.005, 0.0, 0.09]])
    edges = np.arctan2(CORNERS[:, 0] - 0.005, 0.01)
    angles = np.linspace(edges[0], edges[1], 10_001)
    share = np.cos(angles).mean() * (edges[1] - edges[0]) / 2
    assert light_between_corners(tooth, CORNERS)[0] == pytest.approx(share**2, rel=1e-4)


def test_exported_molars_are_darker_than_front_teeth() -> None:
    (teeth,) = (part for part in split_face(load_face()) if part.material.kind == "teeth")
    across, light = np.abs(teeth.positions[:, 0]), teeth.colors[:, 0]
    assert light[across > 0.02].mean() < 0.2 * light[across < 0.008].mean()


def test_exported_teeth_keep_the_hue_of_their_tint() -> None:
    face = load_face()
    (teeth,) = (part for part in split_face(face) if part.material.kind == "teeth")
    (surface,) = (surface for surface in face.surfaces if surface.material.kind == "teeth")
    tint = np.array(surface.material.tint)
    assert tint.max() > 1
    np.testing.assert_allclose(teeth.material.tint, tint / tint.max(), rtol=1e-6)
    assert teeth.colors.max() <= 1


def test_the_exported_lining_of_the_mouth_is_dark() -> None:
    (lining,) = (part for part in split_face(load_face()) if part.material.kind == "mouth")
    assert 0.1 < lining.colors.max() < 0.2
