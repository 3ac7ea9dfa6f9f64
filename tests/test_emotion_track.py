"""Emotion tracks: shapes, edits, resampling and refusal of invalid arguments."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import BLEND, EmotionTrack, check_emotion_spec, parse_emotion_spec
from sedtalker.emotion.track_io import (
    from_csv,
    from_json,
    from_rttm,
    from_textgrid,
    to_csv,
    to_json,
    to_rttm,
    to_textgrid,
)
from sedtalker.errors import TrackError
from sedtalker.labels import LABELS, canonical_label

HAPPY, SAD, ANGRY = (LABELS.index(name) for name in ("happy", "sad", "angry"))


def spoken_track(duration: float = 6.0, seed: int = 0) -> EmotionTrack:
    """A track as a diarizer gives it: soft posteriors that lean to one emotion for a second or two."""
    rng = np.random.default_rng(seed)
    track = EmotionTrack.neutral(duration)
    lean = np.repeat(rng.integers(0, len(LABELS), 20), 80)[: len(track)]
    logits = rng.normal(0, 0.3, (len(track), len(LABELS)))
    logits[np.arange(len(track)), lean] += 3
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return EmotionTrack(posterior, rng.uniform(0.2, 0.9, len(track)), duration)


def test_neutral_track_has_a_frame_for_every_20_ms():
    track = EmotionTrack.neutral(1.01)
    assert track.posterior.shape == (51, 8)
    assert track.posterior[:, 0].min() == 1
    assert track.intensity.max() == 0


def test_set_changes_the_span_and_nothing_beyond_its_blend():
    track = spoken_track()
    before = track.copy()
    track.set("happy", 0.8, start=2.0, end=4.5)
    inside = (track.times > 2 + BLEND / 2) & (track.times < 4.5 - BLEND / 2)
    outside = (track.times < 2 - BLEND / 2) | (track.times > 4.5 + BLEND / 2)
    np.testing.assert_allclose(track.posterior[inside][:, HAPPY], 1, atol=1e-6)
    np.testing.assert_allclose(track.intensity[inside], 0.8, atol=1e-6)
    np.testing.assert_array_equal(track.posterior[outside], before.posterior[outside])
    np.testing.assert_array_equal(track.intensity[outside], before.intensity[outside])


def test_set_moves_continuously_across_its_boundaries():
    track = EmotionTrack.neutral(6.0)
    track.set("happy", 1.0, start=2.0, end=4.0)
    assert np.abs(np.diff(track.intensity)).max() < 0.2


def test_set_replaces_the_segments_it_covers():
    track = EmotionTrack.neutral(6.0)
    track.set("happy", 0.8, 1, 5)
    track.set("sad", 0.4, 2, 3)
    assert [(s.emotion, s.start, s.end) for s in track.segments] == [
        ("neutral", 0, 1), ("happy", 1, 2), ("sad", 2, 3), ("happy", 3, 5), ("neutral", 5, 6),
    ]  # fmt: skip


def test_a_copy_is_independent():
    track = spoken_track()
    other = track.copy()
    other.set("angry", 1.0)
    other.scale(0.5)
    assert track.posterior[:, ANGRY].min() < 0.9
    assert track.explicit_segments is None


def test_neighbouring_segments_fade_into_each_other_and_never_through_neutral():
    segments = [Segment(0, 1, "happy", 0.8), Segment(1, 1.1, "angry", 0.8), Segment(1.1, 3, "sad", 0.8)]
    track = EmotionTrack.from_segments(segments, 3.0)
    np.testing.assert_allclose(track.intensity, 0.8, atol=1e-5)
    assert track.posterior[:, 0].max() < 1e-5


def test_time_that_no_segment_covers_is_neutral():
    track = EmotionTrack.from_segments([Segment(1, 2, "fear", 0.5)], 4.0)
    assert track.intensity[track.times > 2.2].max() == 0
    assert track.posterior[-1, 0] == 1


def test_scale_stays_in_range_and_zero_is_neutral_everywhere():
    track = spoken_track()
    track.scale(5)
    assert track.intensity.max() == 1
    track.scale(0)
    assert track.intensity.max() == 0


def test_scale_of_a_span_scales_its_segments():
    track = EmotionTrack.neutral(4)
    track.set("happy", 0.8)
    track.scale(0.5, start=1, end=2)
    assert [round(s.intensity, 3) for s in track.segments] == [0.8, 0.4, 0.8]


def test_smoothing_keeps_rows_normalised_and_reduces_variation():
    track = spoken_track()
    rough = np.abs(np.diff(track.posterior, axis=0)).mean()
    track.smooth(0.2)
    np.testing.assert_allclose(track.posterior.sum(axis=1), 1, atol=1e-5)
    assert np.abs(np.diff(track.posterior, axis=0)).mean() < rough / 3


def test_clip_cuts_frames_and_segments():
    track = spoken_track()
    track.set("sad", 0.7, 2, 4)
    part = track.clip(3, 5)
    assert part.duration == pytest.approx(2)
    np.testing.assert_array_equal(part.intensity, track.intensity[150:250])
    assert (part.segments[0].emotion, part.segments[0].start, part.segments[0].end) == ("sad", 0, 1)


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
def test_at_rate_keeps_time(fps):
    track = EmotionTrack.neutral(4.0)
    track.set("happy", 1.0, 1.5, 2.5, blend=0)
    posterior, intensity = track.at_rate(fps, round(4 * fps))
    assert posterior.shape == (4 * fps, 8)
    middles = (np.arange(4 * fps) + 0.5) / fps
    assert middles[intensity > 0.5].mean() == pytest.approx(2.0, abs=0.02)
    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-5)


def test_spec_for_the_whole_and_for_spans():
    whole = parse_emotion_spec("happy:0.8", 3.0)
    np.testing.assert_allclose(whole.intensity, 0.8, atol=1e-6)
    assert parse_emotion_spec("Sadness", 3.0).posterior[:, SAD].min() == 1
    spans = parse_emotion_spec("happy:0.8@0.5-1.5, sad:.5@2-3", 4.0)
    assert [(s.emotion, s.intensity) for s in spans.segments] == [
        ("neutral", 0.0), ("happy", 0.8), ("neutral", 0.0), ("sad", 0.5), ("neutral", 0.0),
    ]  # fmt: skip


def test_neutral_has_no_intensity():
    track = parse_emotion_spec("neutral", 2.0, spoken_track(2.0))
    assert track.intensity.max() < 1e-6
    assert [(segment.emotion, segment.intensity) for segment in track.segments] == [("neutral", 0.0)]


def test_spec_does_not_change_its_base():
    base = spoken_track()
    kept = base.posterior.copy()
    edited = parse_emotion_spec("fear:1@2-3", base.duration, base)
    np.testing.assert_array_equal(base.posterior, kept)
    np.testing.assert_array_equal(edited.posterior[:90], kept[:90])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("joyful:1", "unknown emotion"),
        ("happy:2", "0..1"),
        ("happy:0.5@2-1", "no length"),
        ("happy:0.5@1-9", "beyond the audio"),
        ("happy 0.5", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_bad_specs_are_refused_in_one_line(spec, message):
    with pytest.raises(TrackError, match=message) as caught:
        parse_emotion_spec(spec, 3.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("posterior", "intensity", "duration"),
    [
        (np.ones((50, 8)) / 8, np.zeros(49), 1.0),
        (np.ones((50, 8)), np.zeros(50), 1.0),
        (np.ones((50, 8)) / 8, np.full(50, 1.5), 1.0),
        (np.full((50, 8), np.nan), np.zeros(50), 1.0),
        (np.ones((50, 8)) / 8, np.zeros(50), 9.0),
        (np.ones((0, 8)) / 8, np.zeros(0), 0.1),
    ],
)
def test_invalid_arrays_are_refused(posterior, intensity, duration):
    with pytest.raises(TrackError):
        EmotionTrack(posterior, intensity, duration)


def test_the_plot_shows_each_emotion_in_its_colour(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    from sedtalker.emotion.plot import plot_track
    from sedtalker.labels import COLORS

    track = EmotionTrack.from_segments([Segment(0, 2, "happy", 0.8), Segment(2, 4, "angry", 0.5)], 4.0)
    plot_track(track, tmp_path / "track.png", np.random.default_rng(0).normal(0, 0.1, 64_000).astype(np.float32))
    pixels = np.asarray(image.open(tmp_path / "track.png").convert("RGB")).astype(int)
    shares = {}
    for emotion in ("happy", "angry", "sad"):
        colour = [int(COLORS[emotion][k : k + 2], 16) for k in (1, 3, 5)]
        shares[emotion] = (np.abs(pixels - colour).sum(axis=2) < 6).mean()
    assert min(shares["happy"], shares["angry"]) > 0.02
    assert shares["sad"] < 0.001


def test_the_legend_names_every_visible_emotion(tmp_path, monkeypatch):
    matplotlib_figure = pytest.importorskip("matplotlib.figure")
    from sedtalker.emotion.plot import plot_track

    drawn = []
    monkeypatch.setattr(matplotlib_figure.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    posterior = np.zeros((100, len(LABELS)), np.float32)
    posterior[:, :2] = 0.97, 0.03
    plot_track(EmotionTrack(posterior, np.zeros(100), 2.0), tmp_path / "track.png")
    assert [text.get_text() for text in drawn[0].legends[0].texts] == list(LABELS[:2])


def test_common_names_are_aliases():
    assert [canonical_label(name) for name in ("Smile2", "Irritated1", "Afraid", " NEUTRAL ")] == [
        "happy",
        "angry",
        "fear",
        "neutral",
    ]


@pytest.mark.parametrize(
    ("labels", "name", "label"),
    [
        (("neutral", "excited"), "excited", "excited"),
        (("neutral", "calm"), "Calm", "calm"),
        (("neutral", "calm"), "neu", "neutral"),
        (("neutral", "Happy"), "happy", "Happy"),
        (("neutral", "Happy"), "Happy", "Happy"),
        (("neutral", "Happy"), "joy", "Happy"),
        (("neutral", "happy", "Happy"), "Happy", "Happy"),
        (("neutral", "happy", "joy", "smile"), " JOY ", "joy"),
    ],
)
def test_a_label_comes_before_an_alias(labels, name, label):
    track = EmotionTrack.neutral(2.0, labels=labels)
    track.set(name, 0.5)
    assert [segment.emotion for segment in track.segments] == [label]
    assert track.posterior[:, labels.index(label)].min() == 1
    again = from_json(to_json(track))
    assert [segment.emotion for segment in again.segments] == [label]
    for write, read in ((to_csv, from_csv), (to_rttm, from_rttm), (to_textgrid, from_textgrid)):
        assert [segment.emotion for segment in read(write(track), labels=labels).segments] == [label]


def test_aliases_of_a_track_are_mapped_to_a_model_s_labels():
    track = EmotionTrack.neutral(2.0, labels=("anger", "neutral", "joy"))
    track.set("joy", 0.5, 0.5, 1.5)
    mapped = track.with_labels(LABELS)
    assert mapped.posterior[50, HAPPY] == 1
    assert [segment.emotion for segment in mapped.segments] == ["neutral", "happy", "neutral"]


def test_the_blend_is_centred_on_the_boundary():
    track = EmotionTrack.neutral(4.0, frame_rate=1000)
    track.set("happy", 1.0, 1.0, 3.0)
    moving = track.times[(track.intensity > 1e-4) & (track.intensity < 1 - 1e-4) & (track.times < 2)]
    assert moving.min() == pytest.approx(1 - BLEND / 2, abs=0.005)
    assert moving.max() == pytest.approx(1 + BLEND / 2, abs=0.005)


@pytest.mark.parametrize("factor", [float("inf"), float("nan"), -1, "2", None])
def test_a_scale_that_is_not_a_finite_number_is_refused_and_changes_nothing(factor):
    track = EmotionTrack.neutral(1.0)
    track.set("happy", 0.5, 0.2, 0.6)
    before = track.intensity.copy()
    with pytest.raises(TrackError):
        track.scale(factor)
    np.testing.assert_array_equal(track.intensity, before)


def test_spans_after_an_hour_are_read():
    track = parse_emotion_spec("happy:0.8@4000-4100", 5000.0)
    assert track.intensity[4050 * 50] == np.float32(0.8)
    check_emotion_spec("happy:0.8@4000-4100,sad")
    for wrong in ("happy@5-4", "happy:1.5@4000-4100", "grumpy@4000-4100", "happy@4000"):
        with pytest.raises(TrackError):
            check_emotion_spec(wrong)


@pytest.mark.parametrize("rate", [50.0, 10.0])
def test_a_longer_audio_is_neutral_after_the_track(rate):
    track = EmotionTrack.neutral(1.0, rate)
    track.set("happy", 1.0)
    longer = track.fit_duration(2.51)
    posterior, intensity = longer.at_rate(50, 126)
    assert intensity[:50].min() == 1
    assert intensity[50:].max() == 0
    assert posterior[50:, 0].min() == 1
    assert longer.duration == 2.51
    assert [(s.start, s.end, s.emotion) for s in longer.segments] == [(0, 1, "happy")]
    for near in (0.995, 1.015) if rate == 50 else (0.95, 1.05):  # of less than 1.5 frames
        fitted = EmotionTrack.neutral(near, rate).fit_duration(1.0)
        assert (len(fitted), fitted.duration) == (len(track), 1.0)
    with pytest.raises(TrackError, match="for audio of"):
        track.fit_duration(0.5)


@pytest.mark.parametrize(
    "work",
    [
        lambda track: track.set(5),
        lambda track: track.set("happy", "much"),
        lambda track: track.set("happy", 1.0, "now"),
        lambda track: track.set("happy", 1.0, 0, 1, float("nan")),
        lambda track: track.clip("a", 1),
        lambda track: track.clip(0, None),
        lambda track: track.smooth(float("inf")),
        lambda track: track.smooth("long"),
        lambda track: track.scale(1, 1, 0),
        lambda track: track.with_labels("happy"),
        lambda track: track.with_labels(("happy",)),
        lambda track: EmotionTrack.neutral("long"),
        lambda track: EmotionTrack.neutral(float("inf")),
        lambda track: EmotionTrack.neutral(1e12),
        lambda track: EmotionTrack.neutral(1, labels=("happy",)),
        lambda track: EmotionTrack.neutral(1, frame_rate=0),
        lambda track: EmotionTrack([["a"]], [0], 1),
        lambda track: EmotionTrack([[1, 0], [1]], [0, 0], 1),
        lambda track: EmotionTrack.from_segments([Segment(0, 1, "grumpy")], 1),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(work):
    with pytest.raises(TrackError) as caught:
        work(EmotionTrack.neutral(2.0))
    assert "\n" not in str(caught.value)
