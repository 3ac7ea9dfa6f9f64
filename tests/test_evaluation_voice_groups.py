"""Figures of the lips by group of voices, with the largest gap first."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.evaluation.lips import ClosureFigures
from sedtalker.evaluation.voice_groups import VoiceClip, median_pitch, pitch_band, voice_figures


def made_clip(speaker: str, pitch: float, closed: int) -> VoiceClip:
    """A clip of ten bilabials and four other phones, of which one is in contact."""
    return VoiceClip(speaker, "en", pitch, ClosureFigures(10, closed, 4, 1, 0, 0, (), (0.01, -0.03), (), ()))


def test_gaps_come_first_and_figures_are_those_of_the_counts():
    low = [made_clip("a", 110, 6) for _ in range(4)] + [made_clip("b", 120, 8) for _ in range(4)]
    high = [made_clip(speaker, 230, 10) for speaker in "cd" for _ in range(4)]
    figures = voice_figures([*low, *high])
    first = next(iter(figures))
    assert first == "gap of closure_recall, speaker a against d" and figures[first][0] == pytest.approx(0.4)
    assert figures["gap of closure_recall, pitch under 155 Hz against 200 Hz and over"][0] == pytest.approx(0.3)
    value, least, most = figures["closure_recall, pitch under 155 Hz"]
    assert (value, least, most) == pytest.approx((0.7, 0.6, 0.8))  # two speakers of .6 and .8
    assert figures["false_contact, language en"][0] == pytest.approx(0.25)
    assert figures["apex_error_seconds, language en"][0] == pytest.approx(0.02)
    assert np.isnan(figures["labiodental_contact, language en"][0])
    assert not any("to 200 Hz" in name for name in figures)


def test_pitch_of_a_voice():
    times = np.arange(16_000) / 16_000
    for pitch in (110, 240):
        tone = sum(np.sin(2 * np.pi * pitch * order * times) / order for order in range(1, 8))
        assert median_pitch((0.1 * tone).astype(np.float32)) == pytest.approx(pitch, rel=0.03)
    assert np.isnan(median_pitch(np.zeros(16_000, np.float32)))
    assert [pitch_band(x) for x in (100, 155, 220)] == ["under 155 Hz", "155 to 200 Hz", "200 Hz and over"]
