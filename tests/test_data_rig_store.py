"""The store of rigged clips: one writer, and every reader finds what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import write_wav
from sedtalker.data.features import read_recordings
from sedtalker.data.rig_store import RigArrays, RigClip, read_rig_manifest, write_rig_store
from sedtalker.evaluation.motion import load_tracked_clip
from sedtalker.training.windows import ClipInfo, RigStore

FRAMES = {"grid_a": 60, "tts_b": 75}


def arrays_of(frames: int, seed: int) -> RigArrays:
    """Values that float16 holds exactly, another at every place; the truth is known in the first half alone."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return (rng.integers(0, 1025, shape) / 1024).astype(np.float32)

    trust = drawn(frames, 52)
    trust[frames // 2 :] = 0
    return RigArrays(drawn(frames, 52), trust, drawn(frames, 52), drawn(frames, 8), drawn(frames), drawn(frames))


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
        tracked = load_tracked_clip(root, clip, ())
        np.testing.assert_array_equal(tracked.truth, written[clip.id].weights)
        np.testing.assert_array_equal(tracked.known, written[clip.id].loss_weight.max(axis=1) > 0)
        assert len(tracked.features) == clip.frames and len(tracked.decibels) == clip.frames
