"""Export to csv, json, npy, obj and ply, and the frame rate."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from sedtalker.animation import Animation, load_animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import AnimationError, SEDTalkerError
from sedtalker.export import default_path, export_animation
from sedtalker.export.csv import _timecode
from sedtalker.export.meshes import to_trimesh
from sedtalker.export.resample import resample_animation
from sedtalker.export.sound import describe_missing, find_recording
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.files import sha256


@pytest.fixture
def animation() -> Animation:
    rng = np.random.default_rng(0)
    template = rng.standard_normal((4, 3)).astype(np.float32)
    rotated = np.eye(4, dtype=np.float32)
    rotated[:3, :3] = [[np.cos(0.2), 0, np.sin(0.2)], [0, 1, 0], [-np.sin(0.2), 0, np.cos(0.2)]]
    return Animation(
        template,
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        30.0,
        EmotionTrack.neutral(1.1),
        rng.random((33, 52)).astype(np.float32),
        ARKIT_NAMES,
        dense=template + rng.standard_normal((33, 4, 3)).astype(np.float32),
        head=np.stack([rotated] * 33),
    )


def test_csv_has_the_columns_of_live_link_face(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "csv", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    assert columns[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"] and len(columns) == 63
    assert columns[16:20] == ["JawForward", "JawRight", "JawLeft", "JawOpen"] and columns[-1] == "RightEyeRoll"
    assert rows[31]["Timecode"] == "00:00:01:01.000" and rows[0]["BlendShapeCount"] == "61"
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
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), animation.vertices, atol=1e-6)


@pytest.mark.parametrize("name", ["obj", "ply"])
def test_mesh_sequences_sort_by_time_and_are_read_by_trimesh(animation: Animation, tmp_path: Path, name: str) -> None:
    export_animation(animation, name, tmp_path / "meshes")
    files = sorted((tmp_path / "meshes").iterdir())
    assert len(files) == 33
    mesh = trimesh.load(files[20], process=False)
    rotated = (
        animation.vertices[20] @ animation.head[20, :3, :3].T
    )  # a mesh without eyes moves with the head as a whole
    np.testing.assert_allclose(mesh.vertices, rotated, atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, animation.faces)
    np.testing.assert_allclose(to_trimesh(animation, 20 - 33).vertices, rotated, atol=1e-6)
    (tmp_path / "meshes" / "notes.txt").write_text("a user's")
    with pytest.raises(SEDTalkerError, match="not empty"):
        export_animation(animation, name, tmp_path / "meshes")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_frame_is_refused(animation: Animation) -> None:
    with pytest.raises(AnimationError, match="no frame 33"):
        to_trimesh(animation, 33)


def test_csv_of_a_rig_with_few_arkit_shapes(animation: Animation, tmp_path: Path) -> None:
    few = replace(animation, blendshapes=animation.blendshapes[:, 17:19], blendshape_names=("jawOpen", "myShape"))
    export_animation(few, "csv", tmp_path / "few.csv")
    with (tmp_path / "few.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[7]
    assert float(row["JawOpen"]) == pytest.approx(animation.blendshapes[7, 17], abs=1e-6)
    assert float(row["MouthClose"]) == 0
    with pytest.raises(AnimationError, match="ARKit name"):
        export_animation(replace(few, blendshape_names=("a", "b")), "csv", tmp_path / "none.csv")


def test_another_frame_rate_keeps_the_motion(animation: Animation) -> None:
    faster = resample_animation(animation, 60.0)
    assert len(faster) == 66 and faster.duration == pytest.approx(animation.duration)
    # Frame i at 30 fps is in the middle between frames 2 i and 2 i + 1 at 60 fps.
    np.testing.assert_allclose(
        (faster.blendshapes[2:-2:2] + faster.blendshapes[3:-2:2]) / 2,
        0.75 * animation.blendshapes[1:-1] + 0.125 * (animation.blendshapes[:-2] + animation.blendshapes[2:]),
        atol=1e-6,
    )
    np.testing.assert_allclose(faster.head[5], animation.head[2], atol=1e-6)
    assert resample_animation(animation, 30.0) is animation


def test_formats_of_weights_refuse_an_animation_without(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "fps", [1, 7.5, 10, 12.5, 14.985, 23.976, 24000 / 1001, 24, 25, 29.97, 30000 / 1001, 30, 59.94, 60, 240]
)
def test_timecodes_follow_time_at_every_rate(fps):
    previous = -1.0
    for index in [*range(300), *range(round(3600 * fps) - 3, round(3600 * fps) + 200)]:
        code = _timecode(index, fps)
        assert re.fullmatch(r"\d\d:\d\d:\d\d:\d\d+\.\d{3}", code)
        hours, minutes, seconds, frames = code.split(":")
        time = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(frames) / fps
        assert time == pytest.approx(index / fps, abs=0.002)
        assert time > previous
        previous = time
    assert _timecode(round(60 * fps), fps).startswith("00:01:00" if round(60 * fps) >= 60 * fps else "00:00:59")


def test_a_recording_that_is_not_found_is_explained(
    animation: Animation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording is named as seen from the folder of the run that made the animation."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.wav").write_bytes(b"sound")
    animation = replace(animation, meta={"audio": "a.wav", "audio_sha256": sha256(tmp_path / "a.wav")})
    monkeypatch.chdir(tmp_path)
    assert find_recording(animation) is not None
    (tmp_path / "a.wav").write_bytes(b"other")
    assert "was changed: a.wav" in describe_missing(animation, Path("a.npz"))
    monkeypatch.chdir("elsewhere")
    assert f"is not in {tmp_path / 'elsewhere'}: a.wav" in describe_missing(animation, Path("a.npz"))
    assert "no recording is named in a.npz" in describe_missing(replace(animation, meta={}), Path("a.npz"))


@pytest.mark.parametrize("named", ["a.wav", "in/a.wav", "/moved/a.wav"])
@pytest.mark.parametrize("kept", ["a.wav", "in/a.wav"])
def test_a_recording_is_also_found_in_the_folder_of_the_animation(
    animation: Animation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, kept: str
) -> None:
    folder = tmp_path / "out"
    (folder / "in").mkdir(parents=True)
    (folder / kept).write_bytes(b"sound")
    replace(animation, meta={"audio": named, "audio_sha256": sha256(folder / kept)}).save(folder / "a.npz")
    (tmp_path / "a.wav").write_bytes(b"another sound")
    monkeypatch.chdir(tmp_path)
    for path in (Path("out/a.npz"), folder / "a.npz"):
        found = find_recording(load_animation(path))
        if kept in (named, "a.wav"):
            assert found is not None and Path(found.path).samefile(folder / kept)
        else:
            assert found is None
            message = (
                "was changed: a.wav" if named == "a.wav" else f"is not in {Path(named).absolute().parent} or {folder}"
            )
            assert message in describe_missing(load_animation(path), path)
