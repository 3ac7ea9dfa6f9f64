"""The frame-level benchmark and its scores, against counts by brute force and pyannote.metrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from test_emotion_track_io import segmentations

from sedtalker.audio import load_audio, write_wav
from sedtalker.cli.main import main
from sedtalker.data.frame_benchmark import (
    LETTERS,
    PIECES,
    Piece,
    draw_pieces,
    format_frames,
    format_pieces,
    format_rttm,
    read_pieces,
    segments_of,
    write_benchmark,
)
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.data.speech_corpora.registry import PINNED
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.track_io import write_track
from sedtalker.errors import DataError
from sedtalker.evaluation.benchmark import read_segmentation, score
from sedtalker.evaluation.diarization import emotion_at, fill_gaps
from sedtalker.labels import LABELS

REFERENCE = {
    "1001-01": [Segment(0, 2, "neutral"), Segment(2, 2.5, "angry"), Segment(2.5, 5, "neutral")],
    "1001-02": [Segment(0, 2, "happy"), Segment(2, 4, "neutral")],
    "1002-01": [Segment(0, 3, "sad")],
}


@pytest.fixture
def clips(tmp_path):
    """A corpus of one actor with clips of 1 s, each of a constant value."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    items = []
    for emotion in ("neutral", "angry", "happy", "sad"):
        for take in range(12 if emotion == "neutral" else 8):
            name = f"1001_T{take:02d}_{emotion}"
            tone = 0.2 * np.sin(2 * np.pi * 300 * (1 + LABELS.index(emotion)) * np.arange(16_000) / 16_000)
            write_wav(folder / f"{name}.wav", [tone.astype(np.float32)])
            votes = {emotion: 1.0} if take != 1 else {"neutral": 0.5, "angry": 0.5}
            items.append(
                Utterance(
                    name, f"{name}.wav", "crema-d", "crema-d-1001", "male", "en", emotion, perceived=votes, split="test"
                )
            )
    return Manifest(str(folder), items)


def test_the_packaged_list_is_whole():
    recordings = read_pieces()
    pieces = [piece for parts in recordings.values() for piece in parts]
    assert len(recordings) > 100 and len({piece.clip for piece in pieces}) == len(pieces)
    assert {piece.emotion for piece in pieces} == {"neutral", "happy", "sad", "angry", "disgust", "fear"}
    assert all(a.emotion != b.emotion for parts in recordings.values() for a, b in itertools.pairwise(parts))
    assert format_pieces(pieces) == PIECES.read_text()
    actors = {f"crema-d-{name.split('-')[0]}" for name in recordings}
    assert {PINNED[actor] for actor in actors} == {"test"}  # so that no diarizer trains on them


def test_drawn_pieces_are_seeded_and_of_clips_that_listeners_agree_with(clips):
    pieces = draw_pieces(clips, seed=3)
    assert pieces == draw_pieces(clips, seed=3) != draw_pieces(clips, seed=4)
    assert len({piece.clip for piece in pieces}) == len(pieces) and not any("_T01_" in piece.clip for piece in pieces)
    short = [piece for piece in pieces if piece.last - piece.first in (15, 25)]
    assert {piece.recording for piece in short} == {"1001-01", "1001-02", "1001-03"}


def test_audio_and_labels_have_the_same_frames(clips, tmp_path):
    recordings = {"1001-01": [p for p in draw_pieces(clips) if p.recording == "1001-01"]}
    write_benchmark(tmp_path / "corpus", tmp_path / "out", recordings)
    samples = load_audio(tmp_path / "out/audio/1001-01.wav")
    letters = (tmp_path / "out/frames.tsv").read_text().splitlines()[1].split("\t")[1]
    assert len(samples) == 320 * len(letters)
    for number in range(2, len(letters) - 2):
        if len({*letters[number - 2 : number + 3]}) == 1:  # no boundary near it
            hertz = 50 * np.abs(np.fft.rfft(samples[320 * number : 320 * (number + 1)])).argmax()
            assert hertz == pytest.approx(300 * (1 + LABELS.index(LETTERS[letters[number]])), abs=50)
    assert read_segmentation(tmp_path / "out") == read_segmentation(tmp_path / "out/frames.tsv")


def test_a_missing_or_short_clip_is_reported(clips, tmp_path):
    with pytest.raises(DataError, match="is missing: 1009_X"):
        write_benchmark(tmp_path / "corpus", tmp_path / "out", {"r": [Piece("r", "1009_X", 0, 9, "sad")]})
    with pytest.raises(DataError, match="a clip under 2 s"):
        write_benchmark(tmp_path / "corpus", tmp_path / "out", {"r": [Piece("r", "1001_T00_sad", 0, 100, "sad")]})
    (tmp_path / "list.tsv").write_text("recording\tclip\tfirst\tlast\temotion\nr\tc\t9\t3\tsad\n")
    with pytest.raises(DataError, match="not a piece"):
        read_pieces(tmp_path / "list.tsv")


def test_scores_by_hand():
    hypothesis = {
        "1001-01": [Segment(2, 2.4, "angry"), Segment(2.4, 3, "happy")],  # a gap is neutral
        "1001-02": [Segment(0, 2, "happy"), Segment(3.5, 9, "sad")],  # beyond the reference: ignored
        "1002-01": [Segment(0, 1.5, "sad"), Segment(1.5, 3, "angry")],
        "other": [Segment(0, 1, "sad")],
    }
    report = score(REFERENCE, hypothesis)
    assert report["eder"]["value"] == pytest.approx((0.1 + 0.5 + 0.5 + 1.5) / 12)
    assert report["false_alarm"]["value"] == pytest.approx((0.5 + 0.5) / 12)
    assert report["missed"]["value"] == 0
    assert report["confused"]["value"] == pytest.approx((0.1 + 1.5) / 12)
    recalls = {name: figure["value"] for name, figure in report["recalls"].items()}
    assert recalls == pytest.approx({"neutral": 5.5 / 6.5, "happy": 1, "sad": 0.5, "angry": 0.8})
    assert report["uar"]["value"] == pytest.approx(np.mean([5.5 / 6.5, 1, 0.5, 0.8]))
    assert report["insertions_found"]["under 0.75 s"]["value"] == 1
    # true changes at 2, 2.5 and 2, of which all are found; 2, 2.4, 3 and 2, 3.5 and 1.5 are predicted
    assert report["boundary_f1"]["value"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert (report["recordings"], report["speakers"], report["ignored"]) == (3, 2, ["other"])


@pytest.mark.filterwarnings("ignore:'uem' was approximated")
@settings(max_examples=10, deadline=None)
@given(segmentations(), segmentations())
def test_scores_are_those_of_brute_force_and_of_pyannote(predicted, reference):
    core = pytest.importorskip("pyannote.core")
    identification = pytest.importorskip("pyannote.metrics.identification")
    duration = max((segment.end for segment in reference), default=0.0)
    if not duration:
        return
    report = score({"a-1": reference}, {"a-1": predicted})
    times = np.arange(0, duration, 2e-3) + 1e-3
    pairs = [(emotion_at(reference, time), emotion_at(predicted, time)) for time in times]
    recalls = {name: np.mean([b == name for a, b in pairs if a == name]) for name in {a for a, _ in pairs}}
    assert report["eder"]["value"] == pytest.approx(np.mean([a != b for a, b in pairs]), abs=0.01)
    shown = {name: figure["value"] for name, figure in report["recalls"].items()}
    for name, recall in recalls.items():
        seconds = sum(segment.duration for segment in fill_gaps(reference, duration) if segment.emotion == name)
        assert shown[name] == pytest.approx(recall, abs=0.01 + 0.008 / seconds)

    def annotation(segments):
        result = core.Annotation()
        for index, segment in enumerate(fill_gaps(segments, duration)):
            if segment.start < duration:
                result[core.Segment(segment.start, min(segment.end, duration)), index] = segment.emotion
        return result

    theirs = identification.IdentificationErrorRate()(annotation(reference), annotation(predicted))
    assert report["eder"]["value"] == pytest.approx(theirs, abs=1e-6)


def test_the_command_reads_folders_of_tracks_rttm_and_frames(tmp_path, capsys):
    pieces = {name: [Piece(name, "c", round(s.start * 50), round(s.end * 50), s.emotion) for s in segments]
              for name, segments in REFERENCE.items()}  # fmt: skip
    assert segments_of(pieces["1001-02"]) == [Segment(0, 2, "happy"), Segment(2, 4, "neutral")]
    (tmp_path / "true.rttm").write_text(format_rttm(pieces))
    (tmp_path / "true.tsv").write_text(format_frames(pieces))
    for name, segments in REFERENCE.items():
        track = EmotionTrack.from_segments(segments, segments[-1].end, audio=f"{name}.wav")
        write_track(track, tmp_path / f"tracks/{name}.emotion.json", "json")
    for hypothesis in ("tracks", "true.tsv"):
        command = ["evaluate", "diarization", str(tmp_path / "true.rttm"), str(tmp_path / hypothesis)]
        assert main([*command, "-o", str(tmp_path / "report.md")]) == 0
        assert "| EDER | 0.000 [0.000, 0.000] |" in capsys.readouterr().out
    assert "3 recordings of 2 speakers" in (tmp_path / "report.md").read_text()
    (tmp_path / "tracks/1002-01.emotion.json").unlink()
    assert main([*command[:3], str(tmp_path / "tracks")]) == 1
    assert "lacks a recording: 1002-01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.rttm", "SPEAKER r 1 0 1\n", "not emotion segments"),
        ("a.rttm", "SPEAKER r 1 0 2 <NA> <NA> sad\nSPEAKER r 1 1 2 <NA> <NA> happy\n", "overlap"),
        ("a.rttm", "SPEAKER r 1 0 2 <NA> <NA> bored\n", "unknown emotion"),
        ("a.rttm", "", "no recordings"),
        ("a.tsv", "recording\tframes\nr\tNNQ\n", "unknown letter 'Q'"),
        ("a.tsv", "file\temotion\n", "no heading"),
    ],
)
def test_broken_segments_are_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=reason):
        read_segmentation(tmp_path / name)
