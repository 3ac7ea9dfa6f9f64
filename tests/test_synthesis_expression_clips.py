"""Generated clips of expressions: what they contain, their labels and files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from sedtalker.cli.main import main
from sedtalker.errors import DataError
from sedtalker.face.action_units import ACTION_UNITS
from sedtalker.provenance.verify import INTACT, verify_file
from sedtalker.synthesis.expression_clips import ClipOptions, describe_expression, draw_expression, write_clips


def test_expressions_have_the_wanted_emotions_and_lengths() -> None:
    options = ClipOptions(emotions=("fear", "fear", "disgust"))
    drawn = [draw_expression(np.random.default_rng(seed), options) for seed in range(120)]
    assert {one.emotion for one in drawn} == {"fear", "disgust"}
    assert sum(one.emotion == "fear" for one in drawn) > 60  # named twice
    for one in drawn:
        assert one.units.shape == (60, len(ACTION_UNITS)) and one.weights.shape == (60, 52)
        assert one.weights.min() >= 0 and one.weights.max() <= 1 and one.intensity.max() <= 1
        if one.brief:
            assert (one.intensity > 0).sum() / 30 <= 0.55
    fear = next(one for one in drawn if one.emotion == "fear" and not one.blend and one.intensity.max() > 0.6)
    assert "inner brow raised" in describe_expression(fear) and "fear" in describe_expression(fear)


def test_clips_are_written_with_labels_masks_and_a_card(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    arguments = ["data", "expressions", "-o", str(folder), "--clips", "2", "--seconds", "0.6", "--fps", "10"]
    assert main([*arguments, "--size", "96"]) == 0
    clips = json.loads((folder / "clips.json").read_text())
    frames = json.loads((folder / "frames.json").read_text())
    assert len(clips) == 2 and len(frames) == 12
    assert {"AU01", "AU12", "weights", "landmarks", "emotion", "intensity"} <= frames[0].keys()
    for clip in clips:
        assert verify_file(folder / clip["video"]).status == INTACT
        with av.open(str(folder / clip["video"])) as video:
            assert sum(1 for _ in video.decode(video=0)) == clip["frames"] == 6
        with np.load(folder / clip["masks"]) as stored:
            masks = np.unpackbits(stored["masks"], axis=-1)
        assert masks.shape == (6, 96, 96) and 0.02 < masks.mean() < 0.9
    assert "belong to nobody" in (folder / "README.md").read_text()
    with pytest.raises(DataError, match="not empty"):
        write_clips(folder, ClipOptions(clips=1))


def test_an_unknown_emotion_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "expressions", "-o", str(tmp_path / "a"), "--emotions", "fear,grumpy"]) == 2
    assert "grumpy" in capsys.readouterr().err
