"""Rig store: training and evaluation read written clips, and a damaged store is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import write_wav
from sedtalker.data.features import read_recordings
from sedtalker.data.rig_store import (
    RigArrays,
    RigClip,
    mark_openings_applied,
    read_arrays,
    read_features,
    read_rig_manifest,
    write_arrays,
    write_rig_store,
)
from sedtalker.errors import DataError
from sedtalker.evaluation.motion import load_tracked_clip
from sedtalker.training.windows import ClipInfo, RigStore

FRAMES = {"grid_a": 60, "tts_b": 75}


def arrays_of(frames: int, seed: int) -> RigArrays:
    """Different values, each exact in float16; the true motion is known only in the first half."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (rng.integers(0, 1025, shape) / 1024).astype(np.float32)

    loss_weight = draw(frames, 52)
    loss_weight[frames // 2 :] = 0
    return RigArrays(draw(frames, 52), loss_weight, draw(frames, 52), draw(frames, 8), draw(frames), draw(frames))


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, dict[str, RigArrays]]:
    root, written = tmp_path / "store", {}

    def clips():
        for seed, (name, frames) in enumerate(FRAMES.items()):
            path = root / "audio" / f"{name}.wav"
            write_wav(path, [np.full(frames * 320, 0.1, np.float32)])
            written[name] = arrays_of(frames, seed)
            split = "train" if seed == 0 else "validation"
            yield RigClip(name, str(path), f"speaker{seed}", name.split("_")[0], split, "en"), written[name]

    (root / "features").mkdir(parents=True)
    for clip in write_rig_store(root, clips()):
        np.save(root / "features" / f"{clip.id}.npy", np.full((clip.frames, 2, 3), 0.25, np.float16))
    return root, written


def test_the_clips_are_listed_as_written(store) -> None:
    root, _ = store
    clips = read_rig_manifest(root).clips
    assert [(clip.id, clip.speaker, clip.source, clip.split, clip.frames) for clip in clips] == [
        ("grid_a", "speaker0", "grid", "train", 60),
        ("tts_b", "speaker1", "tts", "validation", 75),
    ]
    assert [Path(clip.audio).is_file() for clip in clips] == [True, True]
    assert read_recordings(root / "manifest.json") == [(clip.id, Path(clip.audio)) for clip in clips]


def test_training_reads_what_was_written(store) -> None:
    root, written = store
    opened = RigStore(root)
    assert opened.clips == [
        ClipInfo("grid_a", "speaker0", "grid", "train", 60),
        ClipInfo("tts_b", "speaker1", "tts", "validation", 75),
    ]
    for clip in opened.clips:
        arrays = written[clip.id]
        example = opened.example(clip, 7, 33, 4)
        for got, expected in (
            (example.target.values, arrays.weights),
            (example.target.loss_weight, arrays.loss_weight),
            (example.target.neutral, np.clip(arrays.weights - arrays.expression, 0, 1)),
            (example.target.closed, arrays.closed),
            (example.posterior, arrays.posterior),
            (example.intensity, arrays.intensity),
        ):
            np.testing.assert_array_equal(got, expected[7:33])
        assert example.features.shape == (26, 2, 3) and (example.features == 0.25).all() and example.style == 4


def test_evaluation_reads_what_was_written(store) -> None:
    root, written = store
    for clip in read_rig_manifest(root).clips:
        tracked = load_tracked_clip(root, clip, read_features(root, clip.id).float(), ())
        np.testing.assert_array_equal(tracked.truth, written[clip.id].weights)
        np.testing.assert_array_equal(tracked.known, written[clip.id].loss_weight.max(axis=1) > 0)
        assert len(tracked.features) == clip.frames and len(tracked.decibels) == clip.frames


def test_a_pseudo_labelled_opening_and_its_mark_are_read_back(store) -> None:
    root, written = store
    assert not read_rig_manifest(root).openings_applied and read_arrays(root, "tts_b").opening is None
    opening = np.linspace(0, 0.5, 75, dtype=np.float16)
    write_arrays(root, "tts_b", replace(written["tts_b"], opening=opening))
    clips = read_rig_manifest(root).clips
    mark_openings_applied(root)
    np.testing.assert_array_equal(read_arrays(root, "tts_b").opening, opening)
    np.testing.assert_array_equal(read_arrays(root, "tts_b").weights, written["tts_b"].weights)
    assert read_rig_manifest(root).openings_applied and read_rig_manifest(root).clips == clips


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"frame_rate": 25}, "another frame rate"),
        ({"names": ["jawOpen"]}, "other blendshapes"),
        ({"clips": [{"id": "a"}]}, "not a rig store"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(store, change: dict[str, object], message: str) -> None:
    path = store[0] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        read_rig_manifest(store[0])


def test_a_clip_without_an_array_is_refused(store) -> None:
    path = store[0] / "clips" / "grid_a.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "trust"}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"without 'trust': .*grid_a\.npz"):
        read_arrays(store[0], "grid_a")


def test_a_recording_is_stored_by_a_relative_path_only_inside_the_store(store, tmp_path: Path) -> None:
    root, _ = store
    outside = tmp_path / "other.wav"
    write_rig_store(root, [(RigClip("a", str(outside), "s", "tts", "train", "en"), arrays_of(5, 0))])
    assert json.loads((root / "manifest.json").read_text())["clips"][0]["audio"] == str(outside)
    assert read_rig_manifest(root).clips[0].audio == str(outside)
