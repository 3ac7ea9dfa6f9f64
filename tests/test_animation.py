"""Animation files: round trip, contract for plain numpy, and refusal of damaged files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sedtalker.animation import Animation, load_animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import AnimationError, SEDTalkerWarning
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Face


@pytest.fixture
def rig() -> Face:
    rng = np.random.default_rng(0)
    return Face(
        name="made",
        template=(0.05 * rng.standard_normal((6, 3))).astype(np.float32),
        faces=np.array([[0, 1, 2], [3, 4, 5]], np.int32),
        blendshapes=(0.01 * rng.standard_normal((52, 6, 3))).astype(np.float32),
        blendshape_names=ARKIT_NAMES,
    )


@pytest.fixture
def animation(rig: Face) -> Animation:
    track = EmotionTrack.neutral(1.0)
    track.set("happy", 0.8, start=0.4, end=0.8)
    weights = np.random.default_rng(1).random((30, 52)).astype(np.float32)
    head = np.tile(np.eye(4, dtype=np.float32), (30, 1, 1))
    return Animation(
        rig.template,
        rig.faces,
        30.0,
        track,
        weights,
        ARKIT_NAMES,
        head=head,
        meta={"audio": "a.wav", "seed": 0},
        rig=rig,
    )


def test_file_has_the_documented_arrays_without_pickle(animation: Animation, tmp_path: Path, rig: Face) -> None:
    animation.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    shapes = {name: (array.shape, array.dtype.kind) for name, array in arrays.items()}
    assert shapes["vertices"] == ((30, 6, 3), "f") and shapes["faces"] == ((2, 3), "i")
    assert shapes["posterior"] == ((30, 8), "f") and shapes["intensity"] == ((30,), "f")
    assert shapes["blendshapes"] == ((30, 52), "f") and shapes["head"] == ((30, 4, 4), "f")
    assert float(arrays["fps"]) == 30.0 and arrays["labels"][0] == "neutral"
    assert json.loads(str(arrays["meta"]))["audio"] == "a.wav"
    np.testing.assert_allclose(arrays["vertices"], rig.pose(animation.blendshapes), atol=1e-6)
    happy = arrays["posterior"][:, list(arrays["labels"]).index("happy")]
    assert happy[17] > 0.99 and happy[2] < 0.01  # frame 17 shows 0.58 s


def test_round_trip(animation: Animation, tmp_path: Path) -> None:
    animation.save(tmp_path / "a.npz")
    loaded = load_animation(tmp_path / "a.npz")
    assert len(loaded) == 30 and loaded.duration == pytest.approx(1.0)
    np.testing.assert_allclose(loaded.vertices, animation.vertices, atol=1e-6)
    np.testing.assert_array_equal(loaded.blendshapes, animation.blendshapes)
    posterior, intensity = animation.emotion.at_rate(30.0, 30)
    np.testing.assert_array_equal(loaded.emotion.posterior, posterior)
    np.testing.assert_array_equal(loaded.emotion.intensity, intensity)


def test_frames_without_speech_are_not_certain_in_a_loaded_animation_either(
    animation: Animation, tmp_path: Path
) -> None:
    track = animation.emotion
    track.speech = np.repeat(np.array([1, 0], np.float32), len(track) // 2)  # silence from the middle on
    animation.save(tmp_path / "a.npz")
    loaded = load_animation(tmp_path / "a.npz").emotion
    assert loaded.abstained.tolist() == [False] * 15 + [True] * 15
    np.testing.assert_allclose(loaded.abstained_spans, [(0.5, 1.0)])


def test_frames_equal_vertices_and_may_be_read_from_the_middle(animation: Animation) -> None:
    np.testing.assert_allclose(np.stack(list(animation.frames())), animation.vertices, atol=1e-6)
    np.testing.assert_allclose(np.stack(list(animation.frames(7, 9))), animation.vertices[7:9], atol=1e-6)


@pytest.mark.parametrize("name", ["talk.mp4", "talk.json"])
def test_another_suffix_is_refused(animation: Animation, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnimationError, match=r"saved as \.npz, not as \.(mp4|json): .*sedtalker render"):
        animation.save(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_long_rigged_animation_is_saved_as_weights_and_still_gives_vertices(tmp_path: Path) -> None:
    from sedtalker.face.assets import load_face

    face = load_face("default")
    count = 3700
    weights = np.zeros((count, 52), np.float32)
    weights[:, 17] = np.linspace(0, 1, count)
    long = Animation(
        face.template,
        face.faces,
        30.0,
        EmotionTrack.neutral(count / 30),
        weights,
        ARKIT_NAMES,
        meta={"face": "default"},
        rig=face,
    )
    long.save(tmp_path / "long.npz")
    with np.load(tmp_path / "long.npz") as stored:
        assert "vertices" not in stored.files
    loaded = load_animation(tmp_path / "long.npz")
    np.testing.assert_allclose(next(loaded.frames(3600)), face.pose(weights[3600]), atol=1e-6)


def test_broken_files_are_refused_in_one_line(animation: Animation, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    animation.save(path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(AnimationError) as refusal:
            load_animation(path)
        assert "\n" not in str(refusal.value)
    with pytest.raises(AnimationError, match="no such animation"):
        load_animation(tmp_path / "absent.npz")
    np.savez(path, vertices=np.zeros((2, 3, 3)))
    with pytest.raises(AnimationError, match="not an animation"):
        load_animation(path)


def test_vertices_of_another_program_need_no_emotion(animation: Animation, tmp_path: Path) -> None:
    arrays = {"vertices": animation.vertices, "faces": animation.faces, "template": animation.template, "fps": 25}
    np.savez(tmp_path / "own.npz", **arrays)
    loaded = load_animation(tmp_path / "own.npz")
    np.testing.assert_array_equal(loaded.vertices, animation.vertices)
    assert loaded.fps == 25 and {segment.emotion for segment in loaded.emotion.segments} == {"neutral"}
    for name in arrays:
        np.savez(tmp_path / "less.npz", **{other: array for other, array in arrays.items() if other != name})
        with pytest.raises(AnimationError, match=rf"no array {name}.*vertices \(T, V, 3\), faces, template and fps"):
            load_animation(tmp_path / "less.npz")
    np.savez(tmp_path / "half.npz", **arrays, intensity=np.zeros(len(animation)))
    with pytest.raises(AnimationError, match="no array labels, posterior"):
        load_animation(tmp_path / "half.npz")
    np.savez(tmp_path / "odd.npz", **{**arrays, "faces": animation.faces[:, :2]})
    with pytest.raises(AnimationError, match=r"do not fit each other: .*faces is"):
        load_animation(tmp_path / "odd.npz")


def test_a_face_that_is_not_in_metres_is_named(animation: Animation, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    replace(animation, template=1000 * animation.template).save(path)
    with pytest.warns(SEDTalkerWarning, match=r"the face is \d+ m large: .*own\.npz.*to metres"):
        load_animation(path)


def test_arrays_that_do_not_fit_are_refused(animation: Animation, tmp_path: Path) -> None:
    animation.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["vertices"] = arrays["vertices"][:-1]
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(AnimationError, match="do not fit"):
        load_animation(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("blendshapes", np.nan, "NaN or infinity"),
        ("vertices", np.inf, "NaN or infinity"),
        ("template", np.nan, "NaN or infinity"),
        ("head", np.nan, "NaN or infinity"),
        ("fps", 0.0, "frames a second"),
        ("fps", 1e9, "frames a second"),
        ("fps", np.nan, "fps is not a number"),
        ("faces", 10**6, "no triangles"),
        ("blendshape_names", "jawOpen", "two blendshapes of the same name"),
        ("meta", '{"audio": 3}', "wrong type"),
        ("meta", '{"face_source": ["a"]}', "wrong type"),
    ],
)
def test_values_that_no_animation_has_are_refused(
    animation: Animation, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    path = tmp_path / "a.npz"
    animation.save(path)
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays[name] = np.full(arrays[name].shape, value)
    np.savez(path, **arrays)
    with pytest.raises(AnimationError, match=message) as refusal:
        load_animation(path)
    assert "\n" not in str(refusal.value)


def test_no_triangles_are_refused(animation: Animation, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    replace(animation, faces=animation.faces[:0]).save(path)
    with pytest.raises(AnimationError, match="no triangles"):
        load_animation(path)


def test_arrays_that_do_not_fit_are_refused_before_they_are_read(
    animation: Animation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kB may unpack to gigabytes."""
    path = tmp_path / "a.npz"
    animation.save(path)
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    np.savez_compressed(path, **{**arrays, "vertices": np.zeros((1000, 100, 3), np.float32)})
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("the arrays were read"))
    with pytest.raises(AnimationError, match="do not fit"):
        load_animation(path)


def test_an_interactive_session_shows_one_line(animation: Animation) -> None:
    for shown in (repr(animation), repr(animation.emotion)):
        assert "\n" not in shown
        assert len(shown) < 120
