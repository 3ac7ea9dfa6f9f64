"""Exports carry what went in, under the names that other tools expect."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import AnimationError, SEDTalkerError
from sedtalker.export import default_path, export_animation
from sedtalker.face.rig import ARKIT_NAMES


@pytest.fixture
def animation() -> Animation:
    rng = np.random.default_rng(0)
    template = rng.standard_normal((4, 3)).astype(np.float32)
    turned = np.eye(4, dtype=np.float32)
    turned[:3, :3] = [[np.cos(0.2), 0, np.sin(0.2)], [0, 1, 0], [-np.sin(0.2), 0, np.cos(0.2)]]
    return Animation(
        template,
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        30.0,
        EmotionTrack.neutral(1.1),
        rng.random((33, 52)).astype(np.float32),
        ARKIT_NAMES,
        dense=template + rng.standard_normal((33, 4, 3)).astype(np.float32),
        head=np.stack([turned] * 33),
    )


def test_csv_has_the_columns_of_live_link_face(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "csv", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    assert columns[:4] == ["Timecode", "BlendshapeCount", "EyeBlinkLeft", "EyeLookDownLeft"] and len(columns) == 63
    assert columns[16:20] == ["JawForward", "JawRight", "JawLeft", "JawOpen"] and columns[-1] == "RightEyeRoll"
    assert rows[31]["Timecode"] == "00:00:01:01.000" and rows[0]["BlendshapeCount"] == "61"
    for name in ("JawOpen", "JawLeft", "MouthRight", "TongueOut"):
        column = ARKIT_NAMES.index(name[0].lower() + name[1:])
        assert float(rows[5][name]) == pytest.approx(animation.blendshapes[5, column], abs=1e-6)
    assert float(rows[0]["HeadYaw"]) == pytest.approx(0.2, abs=1e-6)
    assert float(rows[0]["HeadPitch"]) == pytest.approx(0, abs=1e-6)


def test_json_curves_by_name(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "json", tmp_path / "a.json")
    stored = json.loads((tmp_path / "a.json").read_text())
    assert stored["fps"] == 30.0 and list(stored["curves"]) == list(ARKIT_NAMES)
    np.testing.assert_allclose(stored["curves"]["jawOpen"], animation.blendshapes[:, 17], atol=1e-6)


def test_npy_is_the_vertices(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "npy", tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), animation.vertices)


def test_obj_sequence_sorts_in_the_order_of_time_and_reads_back(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "obj", tmp_path / "meshes")
    files = sorted((tmp_path / "meshes").iterdir())
    assert len(files) == 33
    mesh = trimesh.load(files[20], process=False)
    np.testing.assert_allclose(mesh.vertices, animation.vertices[20], atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, animation.faces)
    with pytest.raises(SEDTalkerError, match="not empty"):
        export_animation(animation, "obj", tmp_path / "meshes")
    assert len(list(tmp_path.iterdir())) == 1


def test_an_animation_without_weights_is_refused_where_weights_are_all(tmp_path: Path) -> None:
    bare = Animation(
        np.zeros((3, 3), np.float32),
        np.array([[0, 1, 2]], np.int32),
        30.0,
        EmotionTrack.neutral(1.0),
        dense=np.zeros((30, 3, 3), np.float32),
    )
    for name in ("csv", "json"):
        with pytest.raises(AnimationError, match="no blendshape weights"):
            export_animation(bare, name, default_path(tmp_path / "x.npz", name))
    assert not list(tmp_path.iterdir())
