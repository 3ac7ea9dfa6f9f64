"""The shipped talker: as open live as from the file, and as timely with any emotion."""

from __future__ import annotations

from pathlib import Path

import pytest

from sedtalker.audio import load_audio
from sedtalker.pipeline import Talker, load
from sedtalker.recipes.streaming_parity import live_opening, timing_shift
from sedtalker.resources import asset


@pytest.fixture(scope="module")
def talker() -> Talker:
    return load(device="cpu")


def test_chunks_of_80_ms_open_the_mouth_as_the_whole_file_does(talker: Talker, speech_file: Path) -> None:
    """Within 10 %, over a shouted sentence and three seconds of the demo."""
    sounds = [load_audio(speech_file), load_audio(asset("demo.wav"))[: 3 * 16_000]]
    opening = live_opening(talker, sounds)
    for share in (opening.mean, opening.wide, opening.spread):
        assert share == pytest.approx(1, abs=0.1)
    assert opening.correlation > 0.9


@pytest.mark.parametrize("emotion", ["happy", "fear", "surprise"])
def test_another_emotion_leaves_the_lips_their_time(talker: Talker, speech_file: Path, emotion: str) -> None:
    assert abs(timing_shift(talker, load_audio(speech_file), emotion)) < 0.01  # half a frame of the features
