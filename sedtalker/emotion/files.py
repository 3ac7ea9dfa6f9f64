"""Track files: JSON (the whole track), and RTTM, CSV and TextGrid (its segments), each read and written.

In JSON, `frames.segments` repeats the segments that belonged to the frames when they were written. What differs from
it in `segments` was edited by a person and overrides the frames; time that no segment covers any more is neutral.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from sedtalker.emotion.labels import LABELS, canonical
from sedtalker.emotion.track import FRAME_RATE, EmotionTrack, Segment, checked_segments, paste
from sedtalker.errors import TrackError
from sedtalker.files import written_whole

VERSION = 1
TRACK_SUFFIXES = (".json", ".rttm", ".csv", ".textgrid")
TOLERANCE = 2e-3  # s and units of intensity: what counts as the same segment, above the rounding of the files
DIGITS = 4  # decimals of times, posteriors and intensities

FilePath = str | os.PathLike[str]


def write_track(track: EmotionTrack, path: FilePath, form: str | None = None) -> None:
    """Write a track as `form` (json, rttm, csv or textgrid), or as the suffix of `path` says.

    Raises:
        TrackError: another format.
        SEDTalkerError: the folder cannot be written.
    """
    text = _format(f".{form}" if form else Path(path).suffix, path)[0](track)
    with written_whole(Path(path)) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(track: EmotionTrack, path: FilePath) -> None:
    """Write the whole track as JSON, whatever the suffix of `path`."""
    write_track(track, path, "json")


def read_track(path: FilePath, duration: float | None = None) -> EmotionTrack:
    """Read a track from .json, .rttm, .csv or .TextGrid.

    Args:
        duration: of the audio that the track is for, in seconds; a track that ends beyond it is refused, and one that
            ends before it is neutral for the rest. None: as the file says, or until its last segment ends.

    Raises:
        TrackError: the file cannot be read, or holds what no track can.
    """
    reader = _format(Path(path).suffix, path)[1]
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrackError(
            f"track cannot be read: {path} ({getattr(error, 'strerror', None) or 'not text'}). Check the path"
        ) from error
    try:
        return reader(text, duration)
    except TrackError as error:
        raise TrackError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
        raise TrackError(
            f"not an emotion track: {path} ({type(error).__name__}: {error}). See sedtalker diarize"
        ) from error


Writer = Callable[[EmotionTrack], str]
Reader = Callable[[str, float | None], EmotionTrack]


def _format(suffix: str, path: FilePath) -> tuple[Writer, Reader]:
    formats: dict[str, tuple[Writer, Reader]] = {
        ".json": (to_json, from_json),
        ".rttm": (to_rttm, from_rttm),
        ".csv": (to_csv, from_csv),
        ".textgrid": (to_textgrid, from_textgrid),
    }
    if suffix.lower() not in formats:
        raise TrackError(f"unknown kind of track file: {path}. Use .json, .rttm, .csv or .TextGrid")
    return formats[suffix.lower()]


def to_json(track: EmotionTrack) -> str:
    """The whole track as JSON text; one line a segment, so that a person can edit it."""
    segments = [_plain(segment) for segment in track.segments]
    head = {
        "version": VERSION,
        "audio": track.audio,
        "duration": round(track.duration, 6),
        "frame_rate": _tidy(track.frame_rate),
        "labels": list(track.labels),
    }
    # Row by row: the numbers of an hour as Python's own are worth more memory than all the rest of a track.
    rows = ", ".join(json.dumps([round(float(value), DIGITS) for value in row]) for row in track.posterior)
    frames = {"segments": segments, "intensity": [round(float(value), DIGITS) for value in track.intensity]}
    lines = ",\n    ".join(json.dumps(segment) for segment in segments)
    fields = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    fields += [f'  "segments": [\n    {lines}\n  ]', f'  "frames": {json.dumps(frames)[:-1]}, "posterior": [{rows}]}}']
    return "{\n" + ",\n".join(fields) + "\n}\n"


def from_json(text: str, duration: float | None = None) -> EmotionTrack:
    """The track of JSON text; edited segments override its frames, and segments alone are enough."""
    document = json.loads(text)
    if not isinstance(document, dict) or not ("segments" in document or "frames" in document):
        raise TrackError("neither segments nor frames in it. A track needs one of them")
    if document.get("version", VERSION) != VERSION:
        raise TrackError(f"version {document['version']}. This sedtalker reads version {VERSION}")
    labels = _labels(document.get("labels", list(LABELS)))
    written = [_segment(entry, labels) for entry in document.get("segments") or []]
    frame_rate = float(document.get("frame_rate", 50.0))
    if not 1 <= frame_rate <= 1000:
        raise TrackError(f"a frame rate of {frame_rate:g} Hz. It must lie in 1..1000; 50 is usual")
    span = _span(written, document.get("duration"), duration)
    audio = document.get("audio")
    if not document.get("frames"):
        return EmotionTrack.from_segments(written, span, labels, frame_rate, audio)
    track = _track_of_frames(document["frames"], document.get("duration"), labels, frame_rate, audio)
    recorded = document["frames"].get("segments")
    before = track.segments if recorded is None else [_segment(entry, labels) for entry in recorded]
    if "segments" in document:
        _apply_edits(track, before, checked_segments(written, span))
    return track if duration is None else _extended(track, duration)


def _track_of_frames(
    frames: Any, duration: Any, labels: tuple[str, ...], rate: float, audio: str | None
) -> EmotionTrack:
    posterior = np.asarray(frames["posterior"], np.float32)
    intensity = np.asarray(frames["intensity"], np.float32)
    if posterior.ndim != 2 or not len(posterior):
        raise TrackError(
            f"frames.posterior of shape {posterior.shape}. Need a row of {len(labels)} numbers for every frame"
        )
    total = posterior.sum(axis=1, keepdims=True)
    if not np.isfinite(posterior).all() or (np.abs(total - 1) > 1e-2).any():
        raise TrackError("frames.posterior holds rows that do not sum to 1. Diarize the audio again")
    span = float(duration) if duration is not None else len(posterior) / rate
    return EmotionTrack(posterior / total, intensity, span, labels, rate, audio)


def _apply_edits(track: EmotionTrack, before: list[Segment], after: list[Segment]) -> None:
    """Lay the segments that a person wrote over the frames.

    A list that still holds segments of the old one was edited line by line: what was taken out of it is neutral. A list
    of new segments alone says what changes there and leaves the rest to the frames.
    """
    edited = [segment for segment in after if not any(_same(segment, old) for old in before)]
    if edited and len(edited) == len(after):
        track.override(edited)
        track.given = reduce(paste, edited, before)
        return
    gaps = [
        gap
        for gap in _gaps(after, track.duration)
        if not any(_inside(gap, old) for old in _gaps(before, track.duration))
    ]
    if edited or gaps:
        track.override([*edited, *gaps])
    track.given = after


def _gaps(segments: list[Segment], duration: float) -> list[Segment]:
    """Neutral segments where none is."""
    edges = [0.0, *(time for segment in segments for time in (segment.start, segment.end)), duration]
    spans = zip(edges[::2], edges[1::2], strict=True)
    return [Segment(start, end, "neutral", 0.0) for start, end in spans if end - start > TOLERANCE]


def _inside(gap: Segment, other: Segment) -> bool:
    return other.start - TOLERANCE <= gap.start and gap.end <= other.end + TOLERANCE


def _same(one: Segment, other: Segment) -> bool:
    differences = (one.start - other.start, one.end - other.end, one.intensity - other.intensity)
    return one.emotion == other.emotion and all(abs(difference) <= TOLERANCE for difference in differences)


def _extended(track: EmotionTrack, duration: float) -> EmotionTrack:
    """The track on audio of another length: refused when longer than the audio, neutral for what it lacks."""
    if track.duration > duration + 1.5 / track.frame_rate:
        raise TrackError(
            f"the track lasts {track.duration:g} s and the audio {duration:g} s. Diarize this audio, or cut it"
        )
    whole = EmotionTrack.neutral(duration, track.frame_rate, track.labels, track.audio)
    frames = min(len(whole), len(track))
    whole.posterior[:frames] = track.posterior[:frames]
    whole.intensity[:frames] = track.intensity[:frames]
    whole.given = track.given
    return whole


def to_rttm(track: EmotionTrack) -> str:
    """One `SPEAKER` line a segment; the eighth field is the emotion, the ninth the confidence, a tenth the intensity.

    NIST's format gives the ninth to the confidence and the tenth to a look-ahead time, which no one has here.
    """
    name = re.sub(r"\s+", "_", Path(track.audio).stem) if track.audio else "audio"
    rows = (
        f"SPEAKER {name} 1 {s.start:.{DIGITS}f} {s.duration:.{DIGITS}f} <NA> <NA> {s.emotion} "
        f"{s.confidence:.{DIGITS}f} {s.intensity:.{DIGITS}f}"
        for s in track.segments
    )
    return "".join(f"{row}\n" for row in rows)


def from_rttm(text: str, duration: float | None = None) -> EmotionTrack:
    """The track of RTTM text; where it has no intensity, emotions count as 1."""
    segments = []
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        emotion = canonical(fields[7])
        start, length = float(fields[3]), float(fields[4])
        confidence, intensity = (_number_or(field, None) for field in [*fields[8:10], "<NA>", "<NA>"][:2])
        strength = _default_intensity(emotion) if intensity is None else intensity
        segments.append(
            Segment(start, round(start + length, 6), emotion, strength, 1.0 if confidence is None else confidence)
        )
    return _from_segments(segments, duration)


def to_csv(track: EmotionTrack) -> str:
    """A header and one row a segment."""
    rows = (
        f"{s.start:.{DIGITS}f},{s.end:.{DIGITS}f},{s.emotion},{s.intensity:.{DIGITS}f},{s.confidence:.{DIGITS}f}"
        for s in track.segments
    )
    return "start,end,emotion,intensity,confidence\n" + "".join(f"{row}\n" for row in rows)


def from_csv(text: str, duration: float | None = None) -> EmotionTrack:
    """The track of CSV text with a header; intensity and confidence may be absent."""
    rows = csv.DictReader(text.splitlines())
    return _from_segments(
        [_segment({key: value for key, value in row.items() if value}, LABELS) for row in rows], duration
    )


def to_textgrid(track: EmotionTrack) -> str:
    """Praat's long format with three interval tiers: emotion, intensity, confidence."""
    segments = track.segments
    end = _textgrid_number(track.duration)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", "size = 3", "item []:"]
    for number, name in enumerate(("emotion", "intensity", "confidence"), 1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
        ]
        lines += [f"        xmax = {end}", f"        intervals: size = {len(segments)}"]
        for index, segment in enumerate(segments, 1):
            value = getattr(segment, name)
            text = value if isinstance(value, str) else f"{value:.{DIGITS}f}"
            lines += [f"        intervals [{index}]:", f"            xmin = {_textgrid_number(segment.start)}"]
            lines += [f"            xmax = {_textgrid_number(segment.end)}", f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def from_textgrid(text: str, duration: float | None = None) -> EmotionTrack:
    """The track of a TextGrid (long or short): its tier `emotion`, or its first; empty intervals are neutral."""
    tiers, end = _textgrid_tiers(text)
    if not tiers:
        raise TrackError("no interval tier in it. Make one named emotion")
    emotions = tiers.get("emotion") or next(iter(tiers.values()))
    segments = []
    for start, stop, name in emotions:
        if not name.strip():
            continue
        emotion = canonical(name)
        intensity = _textgrid_value(tiers.get("intensity", []), start, stop, _default_intensity(emotion))
        confidence = _textgrid_value(tiers.get("confidence", []), start, stop, 1.0)
        segments.append(Segment(start, stop, emotion, intensity, confidence))
    return _from_segments(segments, duration, end)


_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\w.\[])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w\]])')


def _textgrid_tiers(text: str) -> tuple[dict[str, list[tuple[float, float, str]]], float]:
    """Interval tiers by name, and the end of the grid: both formats are the same row of numbers and quoted texts."""
    tokens = [match.group(1) if match.group(2) is None else float(match.group(2)) for match in _TOKEN.finditer(text)]
    if tokens[:2] != ["ooTextFile", "TextGrid"]:
        raise TrackError("no TextGrid of Praat. Save it as a text file")
    end, position = float(tokens[3]), 5
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    for _ in range(int(tokens[4])):
        kind, name, size = tokens[position], str(tokens[position + 1]), int(tokens[position + 4])
        width = 3 if kind == "IntervalTier" else 2
        entries = tokens[position + 5 : position + 5 + width * size]
        if kind == "IntervalTier":
            triples = zip(entries[::3], entries[1::3], entries[2::3], strict=True)
            tiers[name] = [(float(start), float(stop), str(mark)) for start, stop, mark in triples]
        position += 5 + width * size
    return tiers, end


def _textgrid_value(tier: list[tuple[float, float, str]], start: float, stop: float, default: float) -> float:
    middle = (start + stop) / 2
    inside = [mark for first, last, mark in tier if first <= middle < last and mark.strip()]
    return float(inside[0]) if inside else default


def _textgrid_number(value: float) -> str:
    return f"{round(value, 6):g}" if value < 1 else f"{round(value, 6)}"


def _plain(segment: Segment) -> dict[str, Any]:
    return {
        "start": round(segment.start, DIGITS),
        "end": round(segment.end, DIGITS),
        "emotion": segment.emotion,
        "intensity": round(segment.intensity, DIGITS),
        "confidence": round(segment.confidence, DIGITS),
    }


def _segment(entry: dict[str, Any], labels: tuple[str, ...]) -> Segment:
    emotion = canonical(str(entry["emotion"]), labels)
    intensity = entry.get("intensity")
    return Segment(
        float(entry["start"]),
        float(entry["end"]),
        emotion,
        _default_intensity(emotion) if intensity is None else float(intensity),
        float(entry.get("confidence", 1.0)),
    )


def _default_intensity(emotion: str) -> float:
    return 0.0 if emotion == "neutral" else 1.0


def _labels(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or "neutral" not in names:
        raise TrackError(f"labels {names!r}: need a list of names with neutral among them")
    return tuple(names)


def _span(segments: list[Segment], written: Any, duration: float | None) -> float:
    """Length of the track: of the audio where known, else as written, else until the last segment ends."""
    if duration is not None:
        if written is not None and float(written) > duration + 1.5 / FRAME_RATE:
            raise TrackError(
                f"the track lasts {float(written):g} s and the audio {duration:g} s. Diarize this audio, or cut it"
            )
        return duration
    if written is not None:
        return float(written)
    if not segments:
        raise TrackError("neither a duration nor segments in it. Give one of them")
    return max(segment.end for segment in segments)


def _from_segments(segments: list[Segment], duration: float | None, written: float | None = None) -> EmotionTrack:
    span = _span(segments, written, duration)
    if not math.isfinite(span):
        raise TrackError(f"duration {span}. Give a number of seconds")
    return EmotionTrack.from_segments(segments, span)


def _number_or(text: str, default: float | None) -> float | None:
    return default if text == "<NA>" else float(text)


def _tidy(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
