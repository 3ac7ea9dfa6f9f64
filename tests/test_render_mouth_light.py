"""Light on the teeth between parted lips."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face, Float, Index
from sedtalker.render.camera import front_camera
from sedtalker.render.mouth_light import DARK, LEAST, MOST, TeethLight, has_teeth
from sedtalker.render.scene import PreparedFace, prepare_face
from sedtalker.render.shade import AO, KEY_VISIBILITY

SIDE = 64
SMILE = {"mouthSmile": 1.0, "mouthUpperUp": 0.4, "mouthLowerDown": 0.6, "jawOpen": 0.1}


@pytest.fixture(scope="module")
def face() -> Face:
    return load_face()


@pytest.fixture(scope="module")
def prepared(face: Face) -> PreparedFace:
    background = np.zeros((SIDE, SIDE, 3), np.float32)
    return prepare_face(face, front_camera(face), SIDE, SIDE, fine=False, background=background)


def weights(**shares: float) -> Float:
    """ARKit weights (52,) by name, of both sides."""
    pose = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, weight in shares.items():
        pose[list(arkit_columns(name))] = weight
    return pose


def front_teeth(face: Face) -> Index:
    """The vertices at the edge of the upper front teeth."""
    teeth = face.parts["teeth_upper"]
    edge = face.template[teeth, 1] < face.template[teeth, 1].min() + 0.003
    return teeth[edge & (np.abs(face.template[teeth, 0]) < 0.008)]


def light_of_front_teeth(face: Face, prepared: PreparedFace, **opening: float) -> float:
    """Mean factor of the occlusion of the upper front teeth, for ARKit weights by name."""
    corners = prepared.scene.corners.copy()
    TeethLight(face, prepared.scene).apply(face.pose(weights(**opening)), corners)
    shown = np.isin(prepared.scene.triangles, front_teeth(face))
    baked = prepared.scene.corners[..., AO][shown]
    return float((corners[..., AO][shown] / baked).mean())


def test_teeth_get_the_least_light_behind_shut_lips_and_more_the_wider_they_part(
    face: Face, prepared: PreparedFace
) -> None:
    jaws = [light_of_front_teeth(face, prepared, jawOpen=jaw) for jaw in (0.0, 0.1, 0.2, 0.4)]
    assert jaws == sorted(jaws)
    assert jaws[0] < LEAST + 0.2 * (MOST - LEAST)
    assert light_of_front_teeth(face, prepared, **SMILE) > light_of_front_teeth(face, prepared, jawOpen=0.1)


def test_nothing_but_the_light_on_teeth_changes(face: Face, prepared: PreparedFace) -> None:
    corners = prepared.scene.corners.copy()
    TeethLight(face, prepared.scene).apply(face.template, corners)
    changed = np.argwhere(corners != prepared.scene.corners)
    teeth = next(row for row, surface in enumerate(face.surfaces) if surface.material.kind == "teeth")
    assert set(prepared.scene.surface[changed[:, 0]]) == {teeth}
    assert set(changed[:, 2]) == {AO, KEY_VISIBILITY}


def test_a_face_without_lips_or_teeth_has_no_such_light(face: Face) -> None:
    assert has_teeth(face)
    assert not has_teeth(Face("mesh", face.template, face.faces))


def test_molars_are_darker_than_front_teeth_where_the_mouth_is_wide_open(face: Face, prepared: PreparedFace) -> None:
    pose = np.zeros(len(ARKIT_NAMES), np.float32)
    pose[list(arkit_columns("jawOpen"))] = 0.5
    vertices, corners = face.pose(pose), prepared.scene.corners.copy()
    TeethLight(face, prepared.scene).apply(vertices, corners)
    lower = np.isin(prepared.scene.triangles[:, 0], face.parts["teeth_lower"])
    baked = prepared.scene.corners[lower, 0, AO]
    light, across = corners[lower, 0, AO] / baked, np.abs(vertices[prepared.scene.triangles[lower, 0], 0])
    assert light[(baked > DARK) & (across > 0.017)].mean() < 0.5 * light[across < 0.008].mean()


@pytest.mark.parametrize(("opening", "least", "most"), [({"jawOpen": 0.1}, 0.0, 0.03), (SMILE, 0.25, 0.5)])
def test_the_key_light_reaches_front_teeth_under_a_raised_lip_alone(
    face: Face, prepared: PreparedFace, opening: dict[str, float], least: float, most: float
) -> None:
    corners, teeth = prepared.scene.corners.copy(), front_teeth(face)
    TeethLight(face, prepared.scene).apply(face.pose(weights(**opening)), corners)
    shown = np.isin(prepared.scene.triangles, teeth)
    assert least <= corners[..., KEY_VISIBILITY][shown].mean() <= most
