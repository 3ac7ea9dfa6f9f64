"""A public benchmark of emotion diarization by frame: recordings joined from clips of CREMA-D's test actors.

The list of pieces is a file of this package, with the times at which each clip is cut. Together with a copy of CREMA-D
it gives the same labels to everybody, and the same audio up to the coding of the clips. All times are whole frames of
20 ms. The clips are those whose listeners named the acted emotion by the sound alone.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sedtalker.audio import SAMPLE_RATE, load_audio, loudness, write_wav
from sedtalker.data.concatenation import join_pieces, normalize_level
from sedtalker.data.manifest import Manifest, Utterance, audio_files
from sedtalker.data.tables import read_table
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.vad import detect_speech
from sedtalker.errors import DataError
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES
from sedtalker.resources import asset

PIECES = asset("benchmark", "crema-d-changes.tsv")
COLUMNS = ("recording", "clip", "first", "last", "emotion")
LETTERS = dict(zip("NHSAUDFX", LABELS, strict=True))
"""Letters of `frames.tsv`; X is surprise."""
REFERENCE, FRAMES = "reference.rttm", "frames.tsv"

PATTERNS = ("NE", "EN", "NEN", "EE", "NENEN", "EEEE")  # of each actor's recordings; N neutral, E another emotion
INSERTED = (0.3, 0.5, 0.5, 1.0)  # s, the middle piece of further recordings N E N
CODEC_DELAY = 1600  # samples by which a coded clip may be shorter than the publisher's
EDGE = 2  # frames of silence that are kept around the speech


@dataclass(frozen=True)
class Piece:
    """A part of a clip in a recording."""

    recording: str  # ACTOR-NUMBER
    clip: str  # the clip's file name without its suffix
    first: int  # first frame of the clip
    last: int  # the frame after the last one
    emotion: str


def read_pieces(path: Path = PIECES) -> dict[str, list[Piece]]:
    """The pieces of each recording, in their order. Raises DataError if the list cannot be read."""
    recordings: dict[str, list[Piece]] = defaultdict(list)
    for row in read_table(path, COLUMNS, optional=()):
        try:
            first, last = int(row["first"]), int(row["last"])
        except ValueError:
            first = last = 0
        if not 0 <= first < last or row["emotion"] not in LABELS:
            raise DataError(f"not a piece of a clip: {path} ({' '.join(row.values())}). Restore the list")
        recordings[row["recording"]].append(Piece(row["recording"], row["clip"], first, last, row["emotion"]))
    return dict(recordings)


def format_pieces(pieces: Iterable[Piece]) -> str:
    """The list of pieces as tab-separated text, as `read_pieces` reads it."""
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([getattr(piece, name) for name in COLUMNS] for piece in pieces)
    return text.getvalue()


def draw_pieces(manifest: Manifest, split: str = "test", seed: int = 0) -> list[Piece]:
    """Draw recordings of every speaker of a split, from clips of a single emotion that listeners agree with.

    A clip is drawn once, and rare emotions first. Speakers without enough clips have fewer recordings.
    """
    by_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for item in manifest.select(split):
        if not item.segments and item.perceived.get(item.emotion) == 1:
            by_speaker[item.speaker].append(item)
    pieces: list[Piece] = []
    for number, (speaker, clips) in enumerate(sorted(by_speaker.items())):
        rng = np.random.default_rng([seed, number])
        left = [clips[k] for k in rng.permutation(len(clips))]
        recordings = 0
        for pattern, inserted in [("NEN", seconds) for seconds in INSERTED] + [(name, None) for name in PATTERNS]:
            drawn = _draw(left, pattern, Counter(piece.emotion for piece in pieces))
            if drawn is not None:
                recordings += 1
                name = f"{speaker.rpartition('-')[2]}-{recordings:02d}"
                pieces += [
                    _cut(manifest, item, name, inserted if place == 1 else None) for place, item in enumerate(drawn)
                ]
    return pieces


def _draw(left: list[Utterance], pattern: str, used: Mapping[str, int]) -> list[Utterance] | None:
    """Take clips of a pattern out of those that are left, no emotion twice in a row; None if there are not enough.

    Emotions that are used less than others go first.
    """
    drawn: list[Utterance] = []
    for kind in pattern:
        before = drawn[-1].emotion if drawn else ""
        fits = [x for x in left if x not in drawn and (x.emotion == "neutral") == (kind == "N") and x.emotion != before]
        item = min(fits, key=lambda x: used.get(x.emotion, 0), default=None)
        if item is None:
            return None
        drawn.append(item)
    left[:] = [item for item in left if item not in drawn]
    return drawn


def _cut(manifest: Manifest, item: Utterance, recording: str, seconds: float | None) -> Piece:
    """The part of a clip from its first to its last speech, or its middle of some seconds."""
    samples = load_audio(manifest.audio(item))
    speech = np.flatnonzero(detect_speech(loudness(samples)))
    first = max(0, int(speech[0]) - EDGE)
    last = min(len(samples) // FRAME_SAMPLES, int(speech[-1]) + 1 + EDGE)
    if seconds is not None:
        length = min(last - first, round(seconds * FRAME_RATE))
        first = (first + last - length) // 2
        last = first + length
    return Piece(recording, Path(item.path).stem, first, last, item.emotion)


def segments_of(pieces: Sequence[Piece]) -> list[Segment]:
    """The true segments of a recording."""
    edges = np.cumsum([0, *(piece.last - piece.first for piece in pieces)]) / FRAME_RATE
    return [Segment(float(edges[k]), float(edges[k + 1]), piece.emotion) for k, piece in enumerate(pieces)]


def format_rttm(recordings: Mapping[str, Sequence[Piece]]) -> str:
    """A `SPEAKER` line for each segment; the 8th field is the emotion."""
    return "".join(
        f"SPEAKER {name} 1 {s.start:.2f} {s.duration:.2f} <NA> <NA> {s.emotion} <NA> <NA>\n"
        for name, pieces in recordings.items()
        for s in segments_of(pieces)
    )


def format_frames(recordings: Mapping[str, Sequence[Piece]]) -> str:
    """A line for each recording: its name, a tab, and a letter of `LETTERS` for each frame of 20 ms."""
    letter = {label: key for key, label in LETTERS.items()}
    rows = (
        f"{name}\t{''.join(letter[piece.emotion] * (piece.last - piece.first) for piece in pieces)}"
        for name, pieces in recordings.items()
    )
    return "recording\tframes\n" + "".join(f"{row}\n" for row in rows)


def write_benchmark(folder: Path, output: Path, recordings: Mapping[str, Sequence[Piece]]) -> None:
    """Write `audio/NAME.wav` (16 kHz), `reference.rttm` and `frames.tsv` from a folder of CREMA-D.

    Raises:
        DataError: a clip is missing or shorter than its piece.
    """
    clips = {path.stem: path for path in audio_files(folder)}
    missing = sorted({piece.clip for pieces in recordings.values() for piece in pieces} - {*clips})
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"a clip of the benchmark is missing: {missing[0]}{more}. Give the whole of CREMA-D: {folder}")
    for name, pieces in recordings.items():
        parts = []
        for piece in pieces:
            samples = load_audio(clips[piece.clip])[piece.first * FRAME_SAMPLES : piece.last * FRAME_SAMPLES]
            absent = (piece.last - piece.first) * FRAME_SAMPLES - len(samples)
            if absent > CODEC_DELAY:
                seconds = piece.last * FRAME_SAMPLES / SAMPLE_RATE
                raise DataError(f"a clip under {seconds:g} s: {clips[piece.clip]}. Restore the publisher's file")
            parts.append(normalize_level(np.pad(samples, (0, absent))))
        (output / "audio").mkdir(parents=True, exist_ok=True)
        write_wav(output / "audio" / f"{name}.wav", [join_pieces(parts, 0.0)[0]])
    for file, text in ((REFERENCE, format_rttm(recordings)), (FRAMES, format_frames(recordings))):
        with atomic_write(output / file) as temp_path:
            temp_path.write_text(text, encoding="utf-8")
