"""Methods of the data classes that higher layers provide."""

from __future__ import annotations

import pytest

from sedtalker.emotion.track import TRACK_RATE, EmotionTrack
from sedtalker.mel import FRAME_RATE
from sedtalker.providers import PROVIDERS, provider


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_can_be_imported(name: str) -> None:
    assert provider(name).__name__ == name


def test_a_track_has_html_for_notebooks() -> None:
    assert "Emotion over 1.0 s" in EmotionTrack.neutral(1.0)._repr_html_()


def test_tracks_have_the_rate_of_the_speech_features() -> None:
    assert TRACK_RATE == FRAME_RATE
