"""Track files: round trips, edits by hand, and refusal of invalid files."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_emotion_track import spoken_track

from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.track_io import (
    from_csv,
    from_json,
    from_rttm,
    from_textgrid,
    read_track,
    to_csv,
    to_json,
    to_rttm,
    to_textgrid,
    write_track,
)
from sedtalker.errors import SEDTalkerError, TrackError
from sedtalker.labels import LABELS

TEXT_FORMATS = [(to_rttm, from_rttm), (to_csv, from_csv), (to_textgrid, from_textgrid)]


@st.composite
def segmentations(draw):
    """Segments in order, with or without gaps between, on a grid of 10 ms."""
    edges = sorted(draw(st.lists(st.integers(0, 2000), min_size=2, max_size=12, unique=True)))
    spans = [span for span in itertools.pairwise(edges) if draw(st.booleans())] or [(edges[0], edges[1])]
    unit = st.integers(0, 1000).map(lambda value: value / 1000)
    return [Segment(a / 100, b / 100, draw(st.sampled_from(LABELS)), draw(unit), draw(unit)) for a, b in spans]


def same_segments(one, other):
    assert [s.emotion for s in one] == [s.emotion for s in other]
    for name in ("start", "end", "intensity", "confidence"):
        np.testing.assert_allclose([getattr(s, name) for s in one], [getattr(s, name) for s in other], atol=1.5e-4)


@settings(max_examples=60, deadline=None)
@given(segmentations())
@example([Segment(0.0, 0.08, "neutral", 0.0, 0.0), Segment(0.09, 1.0, "neutral", 0.0, 0.0)])
@example([Segment(0.0, 0.5, "happy", 0.9, 1.0), Segment(0.51, 0.6, "sad", 0.4, 1.0), Segment(0.63, 2.0, "angry", 1.0)])
def test_segments_survive_every_format(segments):
    track = EmotionTrack.from_segments(segments, 21.0)
    for write, read in [*TEXT_FORMATS, (to_json, from_json)]:
        same_segments(read(write(track), 21.0).segments, segments)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 12))
def test_frames_survive_json(seed, duration):
    track = spoken_track(duration, seed)
    back = from_json(to_json(track))
    np.testing.assert_allclose(back.posterior, track.posterior, atol=4e-4)
    np.testing.assert_allclose(back.intensity, track.intensity, atol=1e-4)
    assert back.duration == pytest.approx(track.duration, abs=1e-5)
    same_segments(back.segments, track.segments)


def test_json_follows_the_contract():
    document = json.loads(to_json(spoken_track()))
    assert set(document) == {"version", "audio", "duration", "frame_rate", "labels", "segments", "frames"}
    assert (document["version"], document["frame_rate"], document["labels"]) == (1, 50, list(LABELS))
    assert set(document["segments"][0]) == {"start", "end", "emotion", "intensity", "confidence"}
    assert np.shape(document["frames"]["posterior"]) == (300, 8)
    assert np.shape(document["frames"]["intensity"]) == (300,)


def edited(change) -> tuple[EmotionTrack, EmotionTrack]:
    track = EmotionTrack.neutral(6.0)
    track.set("angry", 0.9, 2, 4)
    track.explicit_segments = None  # as if a diarizer had predicted it
    document = json.loads(to_json(track))
    change(document["segments"])
    return track, from_json(json.dumps(document))


def test_an_unedited_file_does_not_change_the_frames():
    track, back = edited(lambda segments: None)
    np.testing.assert_allclose(back.posterior, track.posterior, atol=1e-3)


def test_an_edited_segment_overrides_its_frames_and_no_others():
    track, back = edited(lambda segments: segments[1].update(emotion="happy", intensity=0.3))
    start, end = track.segments[1].start, track.segments[1].end
    inside = (back.times > start + 0.15) & (back.times < end - 0.15)
    outside = (back.times < start - 0.15) | (back.times > end + 0.15)
    assert back.posterior[inside, LABELS.index("happy")].min() > 0.99
    np.testing.assert_allclose(back.intensity[inside], 0.3, atol=1e-3)
    np.testing.assert_allclose(back.posterior[outside], track.posterior[outside], atol=1e-3)


def test_a_deleted_segment_becomes_neutral():
    _, back = edited(lambda segments: segments.pop(1))
    inside = (back.times > 2.2) & (back.times < 3.8)
    assert back.posterior[inside, 0].min() > 0.99
    assert back.intensity[inside].max() < 0.01


def test_a_file_with_segments_only_is_a_track():
    back = from_json('{"version": 1, "segments": [{"start": 1, "end": 2, "emotion": "happy"}]}', duration=3.0)
    assert back.duration == 3.0
    assert back.posterior[75, LABELS.index("happy")] == 1
    assert back.intensity[75] == 1


def test_files_by_suffix(tmp_path):
    track = EmotionTrack.from_segments([Segment(0.5, 1.5, "disgust", 0.5, 0.75)], 2.0, audio="my talk.wav")
    for suffix in ("json", "rttm", "csv", "TextGrid"):
        write_track(track, tmp_path / f"a.{suffix}")
        same_segments(read_track(tmp_path / f"a.{suffix}", 2.0).segments, track.segments)
    assert (tmp_path / "a.rttm").read_text().split()[:2] == ["SPEAKER", "my_talk"]


def test_a_textgrid_of_praat_in_the_short_format_is_read():
    text = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2.5\n<exists>\n1\n"IntervalTier"\n'
        '"emotion"\n0\n2.5\n2\n0\n1\n""\n1\n2.5\n"sad"\n'
    )
    track = from_textgrid(text)
    assert track.duration == 2.5
    assert [(s.start, s.end, s.emotion) for s in track.segments] == [(1, 2.5, "sad")]


def test_a_track_may_be_shorter_than_the_audio_and_never_longer(tmp_path):
    write_track(spoken_track(4.0), tmp_path / "a.json")
    longer = read_track(tmp_path / "a.json", 5.0)
    assert (longer.duration, longer.intensity[-1]) == (5.0, 0.0)
    with pytest.raises(TrackError, match="audio"):
        read_track(tmp_path / "a.json", 3.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 9, "segments": []}',
        '{"segments": []}',
        '{"duration": 2, "segments": [{"start": 0, "end": 1, "emotion": "bored"}]}',
        '{"duration": 2, "segments": [{"start": 0, "end": 3, "emotion": "happy"}]}',
        '{"duration": 2, "segments": [{"start": 1, "end": 1, "emotion": "happy"}]}',
        '{"duration": 2, "segments": [{"start": 0, "end": 1, "emotion": "happy", "intensity": 1.2}]}',
        '{"duration": 2, "segments": [{"start": 0, "end": NaN, "emotion": "happy"}]}',
        '{"segments": [{"start": 0, "end": 1.5, "emotion": "fear"}, {"start": 1, "end": 2, "emotion": "sad"}]}',
        '{"duration": 2, "segments": 7}',
        '{"duration": "long", "segments": []}',
        '{"duration": 0.02, "frames": {"posterior": [[1, 1, 0, 0, 0, 0, 0, 0]], "intensity": [0]}}',
        '{"duration": 0.02, "frames": {"posterior": [[1, 0]], "intensity": [0]}}',
        '{"duration": 5, "frames": {"posterior": [[1, 0, 0, 0, 0, 0, 0, 0]], "intensity": [0]}}',
    ],
)
def test_invalid_track_files_are_refused_in_one_line(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(TrackError) as caught:
        read_track(path)
    assert "\n" not in str(caught.value)
    assert "bad.json" in str(caught.value)


def test_missing_unknown_and_binary_files_are_refused(tmp_path):
    (tmp_path / "noise.json").write_bytes(bytes(range(128, 256)))
    for name in ("none.json", "track.docx", "noise.json"):
        with pytest.raises(SEDTalkerError):
            read_track(tmp_path / name)


RTTM = "SPEAKER {} 1 0.000 1.000 <NA> <NA> {} <NA> <NA>\n"
TWO = RTTM.format("speech", "happy") + RTTM.format("other", "angry")
BOTH_FILES = "file,start,end,emotion\nin/speech.wav,0,1,happy\nother.wav,0,1,angry\n"


def _textgrid(*tiers: tuple[str, str]) -> str:
    """A short TextGrid with one interval per tier."""
    head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n{len(tiers)}\n'
    return head + "".join(f'"IntervalTier"\n"{name}"\n0\n2\n1\n0\n2\n"{text}"\n' for name, text in tiers)


def _emotions(tmp_path: Path, name: str, text: str, audio: str | None) -> set[str]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return {segment.emotion for segment in read_track(tmp_path / name, 2.0, audio).segments}


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.rttm", TWO), ("a.csv", BOTH_FILES), ("a.TextGrid", _textgrid(("speech", "happy"), ("other", "angry")))],
)
def test_only_segments_of_the_audio_are_read(tmp_path, name, text):
    assert _emotions(tmp_path, name, text, "folder/speech.mp3") == {"happy"}
    assert _emotions(tmp_path, name, text, "Other.WAV") == {"angry"}
    for audio in (None, "third.wav"):
        with pytest.raises(TrackError, match=r"other.*speech|speech.*other"):
            _emotions(tmp_path, name, text, audio)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.rttm", RTTM.format("other", "angry")),
        ("a.csv", "start,end,emotion,file\n0,1,angry,other\n"),
        ("a.json", '{"audio": "in/other.wav", "segments": [{"start": 0, "end": 1, "emotion": "angry"}]}'),
    ],
)
def test_a_track_of_another_recording_is_refused_with_its_name(tmp_path, name, text):
    with pytest.raises(TrackError, match="other"):
        _emotions(tmp_path, name, text, "speech.wav")
    assert _emotions(tmp_path, name, text, None) == {"angry"}
    assert _emotions(tmp_path, name, text, "other.flac") == {"angry"}


def test_tracks_without_a_recording_fit_any(tmp_path):
    track = EmotionTrack.from_segments([Segment(0.5, 1.5, "disgust", 0.5, 0.75)], 2.0)
    for suffix in ("json", "rttm", "csv", "TextGrid"):
        write_track(track, tmp_path / f"a.{suffix}")
        same_segments(read_track(tmp_path / f"a.{suffix}", 2.0, "speech.wav").segments, track.segments)
    nothing = EmotionTrack.from_segments([], 2.0)
    write_track(nothing, tmp_path / "b.rttm")
    assert read_track(tmp_path / "b.rttm", 2.0).intensity.max() == 0


def test_recordings_whose_names_differ_after_a_point_are_not_mixed(tmp_path):
    text = RTTM.format("talk.take1", "happy") + RTTM.format("talk.take2", "angry")
    assert _emotions(tmp_path, "a.rttm", text, "talk.take1.wav") == {"happy"}
    assert _emotions(tmp_path, "a.rttm", text, "talk.take2.unknown") == {"angry"}
    with pytest.raises(TrackError, match="several recordings"):
        _emotions(tmp_path, "a.rttm", text, None)


def test_names_match_in_any_unicode_form(tmp_path):
    assert _emotions(tmp_path, "a.rttm", RTTM.format("cafe\u0301", "happy"), "caf\u00e9.wav") == {"happy"}


def test_names_with_spaces_and_points_match(tmp_path):
    track = EmotionTrack.from_segments([Segment(0.5, 1.5, "disgust", 0.5)], 2.0, audio="x/my talk.01.wav")
    write_track(track, tmp_path / "a.rttm")
    same_segments(read_track(tmp_path / "a.rttm", 2.0, "my talk.01.mp3").segments, track.segments)
    with pytest.raises(TrackError, match="other recordings"):
        read_track(tmp_path / "a.rttm", 2.0, "my talk.02.wav")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_textgrid_in_the_encodings_of_praat(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = mark + _textgrid(("mots", 'il a dit ""déjà"" 5'), ("emotion", "happy"))
    (tmp_path / "a.TextGrid").write_bytes(text.encode(encoding))
    assert [(s.start, s.end, s.emotion) for s in read_track(tmp_path / "a.TextGrid").segments] == [(0, 2, "happy")]


def test_quotes_in_a_textgrid_are_unescaped():
    labels = ("neutral", 'so "happy"')
    text = to_textgrid(EmotionTrack.from_segments([Segment(0, 2, 'so "happy"')], 2.0, labels))
    with pytest.raises(TrackError) as caught:  # the name is read unchanged and is not a label of the default model
        from_textgrid(text)
    assert repr('so "happy"') in str(caught.value)


def test_ambiguous_tiers_are_listed():
    with pytest.raises(TrackError, match="Anna, Ben"):
        from_textgrid(_textgrid(("Anna", "happy"), ("Ben", "sad")))
    with pytest.raises(TrackError, match="two tiers"):
        from_textgrid(_textgrid(("emotion", "happy"), ("emotion", "sad")))
    assert from_textgrid(_textgrid(("words", "yes"), ("Emotion", "sad"))).segments[0].emotion == "sad"


@pytest.mark.parametrize(
    "text",
    [
        "start;end;emotion;intensity\n0;1,2;happy;0,8\n",
        "Start (s)\tEnd (s)\tLabel\tIntensity\n0\t1.2\thappy\t0.8\n",
        'onset,duration,emotion,intensity\n0,"1,2",happy,"0,8"\n\n',
        "sep=;\r\nemotion;begin;stop;strength;confidence\r\nhappy;0;1,2;.8;\r\n",
    ],
)
def test_tables_of_other_programs_are_read(text):
    segment = from_csv(text, 2.0).segments[0]
    assert (segment.start, segment.end, segment.emotion, segment.intensity) == (0, 1.2, "happy", 0.8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("begin,emotion\n0,happy\n", "no column end"),
        ("from,to,mood\n0,1,happy\n", "no column emotion"),
        ("start,end,emotion\n0,1,5,happy\n", "decimal comma"),
        ("start,end,emotion\n0,1_0,happy\n", "1_0"),
        ("start,end,emotion\n0,,happy\n", "no end"),
        ("start,begin,end,emotion\n0,0,1,happy\n", "twice the column"),
        ("", "empty"),
    ],
)
def test_invalid_tables_are_refused_with_the_reason(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(TrackError, match=words) as caught:
        read_track(tmp_path / "a.csv", 2.0)
    assert "Error" not in str(caught.value).replace("TrackError", "")


def test_null_is_the_default_and_missing_fields_are_named():
    segment = '{{"start": 0, "end": 1, "emotion": "happy", {}}}'
    text = '{{"duration": 2, "audio": null, "frame_rate": null, "frames": null, "segments": [{}]}}'
    read = from_json(text.format(segment.format('"confidence": null, "intensity": null'))).segments[0]
    assert (read.confidence, read.intensity) == (1.0, 1.0)
    for wrong in ('"confidence": true', '"confidence": [1]', '"start": null', '"end": {}', '"intensity": 1e999'):
        with pytest.raises(TrackError, match="segment 1"):
            from_json(text.format(segment.format(wrong)))


def test_absurd_durations_are_refused_before_memory_is_allocated():
    for text in ('{"duration": 1e12, "segments": []}', '{"segments": [{"start": 0, "end": 1e15, "emotion": "sad"}]}'):
        with pytest.raises(TrackError, match="duration"):
            from_json(text)


def _mutate(draw: st.DrawFn) -> bytes:
    """A track file with some of its bytes changed, or pieces of the formats in any order."""
    track = EmotionTrack.from_segments([Segment(0.0, 0.4, "happy", 0.5), Segment(0.5, 1.0, "sad")], 1.0, audio="a.wav")
    writer = draw(st.sampled_from([to_json, to_rttm, to_csv, to_textgrid]))
    data = bytearray(writer(track).encode(draw(st.sampled_from(["utf-8", "utf-16"]))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 12)))
        pieces = [
            b"",
            b"\0",
            b"-1",
            b"null",
            b"[",
            b'"',
            b",",
            b"1e999",
            b"99999999999",
            b"nan",
            b"\n",
            b"SPEAKER",
            b"\xff\xfe",
            b"{}",
        ]
        data[at:end] = draw(st.sampled_from(pieces) | st.binary(max_size=6))
    return bytes(data)


mutated_tracks = st.composite(_mutate)() | st.binary(max_size=100)
suffixes = st.sampled_from([".json", ".rttm", ".csv", ".TextGrid"])
durations = st.sampled_from([None, 1.0, 3.0])


def _read_anything(path: Path, data: bytes, duration: float | None) -> None:
    path.write_bytes(data)
    try:
        track = read_track(path, duration, "a.wav")
    except SEDTalkerError as error:
        assert "\n" not in str(error)
        return
    assert np.isfinite(track.posterior).all()
    assert track.intensity.min(initial=0) >= 0
    assert track.intensity.max(initial=0) <= 1
    assert duration is None or track.duration == duration


@settings(max_examples=300, deadline=None)
@given(mutated_tracks, suffixes, durations)
def test_any_file_gives_a_track_or_one_line(tmp_path_factory, data, suffix, duration):
    _read_anything(tmp_path_factory.getbasetemp() / f"any{suffix}", data, duration)


@pytest.mark.nightly
@settings(max_examples=100_000, deadline=None)
@given(mutated_tracks, suffixes, durations)
def test_very_many_files_give_a_track_or_one_line(tmp_path_factory, data, suffix, duration):
    _read_anything(tmp_path_factory.getbasetemp() / f"many{suffix}", data, duration)


def test_a_long_recording_of_many_segments_is_read_in_linear_time(tmp_path: Path) -> None:
    """4,000 segments took 22 CPU seconds when each was blended into all frames."""
    path = tmp_path / "long.json"
    segments = [{"start": i, "end": i + 1, "emotion": "happy", "intensity": 0.5} for i in range(4000)]
    path.write_text(json.dumps({"duration": 4000, "segments": segments}))
    started = time.process_time()
    track = read_track(path)
    assert time.process_time() - started < 5
    assert len(track.segments) == 4000 and track.intensity[-1] == 0.5
