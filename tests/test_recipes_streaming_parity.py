"""Streaming parity and emotion-invariant timing: on models with known answers, and of the packaged talker."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import load_audio
from sedtalker.mel import FRAME_RATE
from sedtalker.pipeline import Talker, load
from sedtalker.recipes import streaming_parity
from sedtalker.recipes.streaming_parity import live_opening, timing_shift
from sedtalker.talker.streaming import OFFLINE_LOOK_AHEAD, TalkerStream


@pytest.fixture(scope="module")
def talker() -> Talker:
    return load(device="cpu")


def test_a_stream_s_look_ahead_gives_its_gap_for_files(
    talker: Talker, speech_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = load_audio(speech_file)[: 2 * 16_000]
    gap = partial(streaming_parity.animation_gap, look_ahead=OFFLINE_LOOK_AHEAD)
    monkeypatch.setattr(streaming_parity, "animation_gap", gap)
    opening = live_opening(talker, [samples], look_ahead=OFFLINE_LOOK_AHEAD)
    assert (opening.mean, opening.wide, opening.spread) == pytest.approx((1, 1, 1), abs=1e-3)
    assert opening.correlation > 0.9999


def test_a_smaller_streamed_gap_has_a_smaller_ratio(
    talker: Talker, speech_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(work):
        def closed(*arguments):
            frames = work(*arguments)
            return frames._replace(weights=0 * frames.weights)

        return closed

    for name in ("push", "finish"):
        monkeypatch.setattr(TalkerStream, name, close(getattr(TalkerStream, name)))
    opening = live_opening(talker, [load_audio(speech_file)[:16_000]])
    assert opening.mean < 0.5 and opening.spread == 0


@pytest.mark.parametrize("frames", [-3, 0, 2])
def test_a_shift_of_the_gap_is_measured(talker: Talker, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    curve = np.convolve(np.random.default_rng(0).uniform(size=200), np.ones(5) / 5, "same")

    def shifted_gap(talker, samples, track):
        emotional = not np.allclose(track.intensity, 0)
        return np.roll(curve, frames) if emotional else curve

    monkeypatch.setattr(streaming_parity, "animation_gap", shifted_gap)
    shift = timing_shift(talker, np.zeros(4 * 16_000, np.float32), "happy")
    assert shift == pytest.approx(frames / FRAME_RATE, abs=0.25 / FRAME_RATE)


@pytest.mark.slow
def test_the_packaged_talker_opens_the_mouth_equally_in_chunks_of_80_ms(talker: Talker, speech_file: Path) -> None:
    opening = live_opening(talker, [load_audio(speech_file)])
    assert (opening.mean, opening.wide, opening.spread) == pytest.approx((1, 1, 1), abs=0.1)
    assert opening.correlation > 0.9
