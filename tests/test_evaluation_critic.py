"""The critic of expressions: brief ones, evidence, differences from the track, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_animation import made_animation

from sedtalker.cli.main import main
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import SEDTalkerError
from sedtalker.evaluation.critic import critique_animation, critique_weights, format_critique, measure_recall
from sedtalker.face.action_units import emotion_weights
from sedtalker.face.arkit import ARKIT_NAMES

FPS = 30.0


def _show(spans: dict[str, tuple[float, float]], seconds: float = 4.0) -> np.ndarray:
    """Weights (T, 52) of a face that shows emotions from a start to an end in seconds."""
    weights = np.zeros((round(seconds * FPS), len(ARKIT_NAMES)))
    for emotion, (start, end) in spans.items():
        weights[round(start * FPS) : round(end * FPS)] = emotion_weights((emotion,))[0]
    return weights


def test_brief_expressions_are_found_with_their_evidence() -> None:
    critique = critique_weights(_show({"happy": (0.5, 0.8), "disgust": (2.0, 2.4)}), FPS)
    assert [(span.emotion, span.brief) for span in critique.spans] == [("happy", True), ("disgust", True)]
    happy, disgust = critique.spans
    assert happy.start == pytest.approx(0.5, abs=0.07) and happy.end == pytest.approx(0.8, abs=0.07)
    assert "lip corners pulled up" in happy.evidence["mouth"] and happy.text.endswith("-> happy")
    assert "nose wrinkled" in disgust.evidence["nose"]


def test_differences_from_the_track_are_listed() -> None:
    track = EmotionTrack.from_segments([Segment(0.0, 2.0, "happy", 0.9), Segment(2.0, 4.0, "sad", 0.9)], 4.0)
    critique = critique_weights(_show({"happy": (0.0, 4.0)}), FPS, track)
    (difference,) = critique.differences
    assert (difference.face, difference.track) == ("happy", "sad")
    assert difference.start == pytest.approx(2.3, abs=0.15) and difference.end == pytest.approx(4.0, abs=0.1)
    assert critique.agreement == pytest.approx(0.57, abs=0.05)
    assert "the track has sad, the face shows happy" in format_critique(critique)
    assert critique_weights(_show({"happy": (0.0, 2.0)}), FPS, track).differences[-1].face == "neutral"


def test_a_face_at_rest_shows_nothing() -> None:
    critique = critique_weights(np.full((60, len(ARKIT_NAMES)), 0.02), FPS, EmotionTrack.neutral(2.0))
    assert critique.spans == () and critique.differences == () and critique.agreement == 1.0


def test_inserted_expressions_are_counted() -> None:
    short, longer = measure_recall(_show({}), FPS, count=12)
    assert short.seconds == 0.3 and longer.inserted == 12
    assert short.noticed >= 10 and longer.found >= 9
    assert short.false_spans_per_minute == 0


def test_the_command_prints_a_table_json_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    animation = made_animation(tmp_path)
    animation.save(tmp_path / "a.npz", dense=False)
    assert main(["critique", str(tmp_path / "a.npz"), "--plot", str(tmp_path / "a.png")]) == 0
    assert "expressions" in capsys.readouterr().out and (tmp_path / "a.png").stat().st_size > 1000
    assert main(["critique", "--json", str(tmp_path / "a.npz"), str(tmp_path / "absent.npz")]) == 1
    output = capsys.readouterr()
    (document,) = json.loads(output.out)
    assert len(document["probabilities"]) == len(animation) and "no such file" in output.err
    (tmp_path / "a.mp4").write_bytes(b"")  # the animation of the same name is read
    assert main(["critique", str(tmp_path / "a.mp4")]) == 0


def test_an_animation_without_weights_is_refused(tmp_path: Path) -> None:
    animation = made_animation(tmp_path)
    bare = replace(animation, dense=animation.vertices, blendshapes=None, blendshape_names=())
    with pytest.raises(SEDTalkerError, match="no ARKit weights"):
        critique_animation(bare, "a.npz")
