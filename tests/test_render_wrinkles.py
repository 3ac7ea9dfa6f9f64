"""Wrinkles appear with the movements that cause them, and the default camera shows the face."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.export.html import portrait
from sedtalker.face.arkit import arkit_columns
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.render.camera import front_camera, portrait_camera
from sedtalker.render.wrinkles import WRINKLES, FaceWrinkles, has_wrinkles

WIDTH, HEIGHT = 64, 128


@pytest.fixture(scope="module")
def face() -> Face:
    return load_face()


@pytest.fixture(scope="module")
def wrinkles(face: Face) -> FaceWrinkles:
    return FaceWrinkles(face, True, (1, WIDTH, HEIGHT), (1, WIDTH, HEIGHT))


def pose(face: Face, **weights: float) -> np.ndarray:
    row = np.zeros(52, np.float32)
    for name, weight in weights.items():
        row[list(arkit_columns(name))] = weight
    return face.pose(row)


@pytest.mark.parametrize("name", WRINKLES)
def test_a_wrinkle_grows_with_its_cause(face: Face, wrinkles: FaceWrinkles, name: str) -> None:
    cause, share = next(iter(WRINKLES[name].causes.items()))
    at = list(WRINKLES).index(name)
    shown = [float(wrinkles.activations(pose(face, **{cause: weight}))[at]) for weight in (0.0, 0.5, 1.0)]
    assert shown == pytest.approx([0, 0.5 * share, share], abs=0.1)


def test_speech_and_a_face_at_rest_have_no_wrinkles(face: Face, wrinkles: FaceWrinkles) -> None:
    assert has_wrinkles(face)
    for speech in (pose(face), pose(face, jawOpen=0.5), pose(face, mouthPucker=0.8), pose(face, eyeBlink=1.0)):
        assert wrinkles.activations(speech).max() < 0.1


def test_grooves_are_darker_and_deeper_and_the_rest_does_not_change(face: Face, wrinkles: FaceWrinkles) -> None:
    base = np.full(1 + WIDTH * HEIGHT, 0xFFB4A08C, np.uint32)
    flat = np.zeros(1 + WIDTH * HEIGHT, np.float32)
    texels, heights = base.copy(), flat.copy()
    wrinkles.apply(np.ones(len(WRINKLES), np.float32), texels, base, heights, flat)
    changed = texels != base
    assert 0.001 < changed.mean() < 0.2
    assert heights.min() < -5e-5
    red = texels & 255
    assert red[heights.argmin()] < (base[0] & 255)
    assert ((texels >> 24) == 255).all()
    wrinkles.apply(wrinkles.activations(face.template), texels, base, heights, flat)
    np.testing.assert_array_equal(texels, base)
    np.testing.assert_array_equal(heights, flat)


def test_the_face_fills_two_thirds_of_the_picture_and_a_portrait_less(face: Face) -> None:
    points = face.template[[face.landmarks["chin"], face.landmarks["brow_left_inner"]]]
    near, far = (camera.project(points, 512, 512) for camera in (front_camera(face), front_camera(face, "portrait")))
    assert front_camera(face, "portrait") == portrait_camera(face)
    chin, brow = near[:, 1]
    assert 0.4 * 512 < chin - brow < 0.52 * 512  # chin to brows are about seven tenths of chin to hairline
    assert chin < 0.93 * 512
    assert far[0, 1] - far[1, 1] < 0.8 * (chin - brow)


def test_the_page_and_the_renderer_have_one_camera(face: Face) -> None:
    camera = front_camera(face)
    assert portrait(face) == {"target": list(camera.target), "distance": camera.distance}
