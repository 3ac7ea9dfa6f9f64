"""Frames whose emotion is not certain, as files, strip, page, plot and notebook show them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.track_io import read_track, write_track
from sedtalker.labels import LABELS


@pytest.fixture
def track() -> EmotionTrack:
    """Happy for 2 s, then a second between three emotions, then a second of happy without speech."""
    posterior = np.full((200, len(LABELS)), 0.01, np.float32)
    posterior[:, LABELS.index("happy")] = 0.93
    posterior[100:150, [LABELS.index(label) for label in ("happy", "sad", "angry")]] = 0.3
    speech = np.repeat(np.array([1, 0], np.float32), [150, 50])
    return EmotionTrack(posterior / posterior.sum(1, keepdims=True), np.full(200, 0.6, np.float32), 4.0, speech=speech)


@pytest.fixture
def certain(track) -> EmotionTrack:
    return replace(track, posterior=np.tile(track.posterior[:1], (200, 1)), speech=np.ones(200, np.float32))


def test_spans_are_those_of_weak_evidence_or_no_speech(track, certain):
    assert track.abstained_spans == [(2.0, 4.0)]
    assert certain.abstained_spans == []
    assert (track.certain_share(0, 4), track.certain_share(1.5, 2.5), track.certain_share(3.9, 4)) == (0.5, 0.5, 0)


def test_segments_in_json_have_their_share_of_certain_frames(track, tmp_path):
    track.set("angry", 0.7, 0.0, 1.0, blend=0.0)
    write_track(track, tmp_path / "track.json")
    segments = json.loads((tmp_path / "track.json").read_text())["segments"]
    assert [segment["emotion"] for segment in segments][:2] == ["angry", "happy"]
    assert segments[0]["certain"] == 1 and segments[1]["certain"] == pytest.approx(1 / 3, abs=0.01)
    again = read_track(tmp_path / "track.json")
    np.testing.assert_allclose(again.speech, track.speech)
    assert again.abstained_spans == track.abstained_spans


def test_the_strip_is_hatched_where_the_emotion_is_not_certain(track, certain):
    from sedtalker.render.strip import EmotionStrip

    strip, plain = EmotionStrip(track, 320), EmotionStrip(certain, 320)
    rows = slice(strip._top + 2, strip._top + len(strip._timeline) - 2)
    differ = (strip.frame(3.99) != plain.frame(3.99)).any(-1)[rows]
    left, right = strip._column(3.1) + strip._pad, strip._column(3.9) + strip._pad
    assert 0.3 < differ[:, left:right].mean() < 0.7  # happy without speech, every second line
    assert not differ[:, : strip._column(1.9)].any()
    label = (strip.frame(3.5) != plain.frame(3.5)).any(-1)[: strip._top - 2]
    assert label.any() and not (strip.frame(1.0) != plain.frame(1.0)).any(-1)[: strip._top - 2].any()


def test_neutral_is_never_shown_beside_an_intensity():
    """At an onset neutral is likeliest while the intensity of the emotion has risen: the strip said neutral, 0.58."""
    posterior = np.tile(np.float32([0.55, 0.45]), (100, 1))
    posterior[50:] = (0.45, 0.55)
    track = EmotionTrack(posterior, np.full(100, 0.58, np.float32), 2.0, ("neutral", "angry"))
    calm = replace(track, intensity=np.where(track.times < 1, np.float32(0), track.intensity))
    np.testing.assert_array_equal(track.shown_intensity, calm.intensity)
    from sedtalker.render.strip import EmotionStrip

    for moment in (0.5, 1.5):
        np.testing.assert_array_equal(EmotionStrip(track, 320).frame(moment), EmotionStrip(calm, 320).frame(moment))


def test_notebook_and_page_hatch_the_spans(track, certain, tmp_path):
    from made_animation import made_animation

    from sedtalker.export.html import _data
    from sedtalker.export.notebook import track_html

    boxes = [box for box in ET.fromstring(track_html(track)).iter() if box.get("fill") == "url(#uncertain)"]
    assert [(float(box.get("x")), float(box.get("width"))) for box in boxes] == [(400, 400)]
    assert "hatched: not certain" in track_html(track)
    assert "uncertain" not in track_html(certain) and "hatched" not in track_html(certain)
    animation = replace(made_animation(tmp_path), emotion=track)
    assert _data(animation, 0.0)["uncertain"] == [(2.0, 4.0)]


def test_the_plot_names_the_hatching(track, certain, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from sedtalker.emotion import plot

    for one, expected in ((track, True), (certain, False)):
        figure = Figure()
        plot._legend(figure, one)
        assert ("not certain" in [text.get_text() for text in figure.legends[0].get_texts()]) is expected
        axes = figure.subplots()
        plot._posterior(axes, one)
        assert any(patch.get_hatch() for patch in axes.patches) is expected
    plot.plot_track(track, tmp_path / "track.png")
