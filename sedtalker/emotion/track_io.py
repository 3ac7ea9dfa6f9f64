"""Track files: JSON (the whole track), and RTTM, CSV and TextGrid (its segments), each read and written.

In JSON, `frames.segments` repeats the segments of the frames as they were written. Differences between it and
`segments` are edits by a person and override the frames. Spans whose segment was removed become neutral.

Fields that name a recording (JSON's `audio`, RTTM's second field, a column `file` of CSV, names of TextGrid tiers) are
compared with the audio: segments of other recordings are never applied.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from sedtalker.emotion.segments import Segment, neutral_gaps, overlay, sort_segments
from sedtalker.emotion.track import TRACK_RATE, EmotionTrack
from sedtalker.errors import TrackError, reason_of
from sedtalker.files import atomic_write, read_number, read_table, read_text
from sedtalker.labels import LABELS, canonical_label, check_labels

VERSION = 1
TRACK_SUFFIXES = (".json", ".rttm", ".csv", ".textgrid")
TOLERANCE = 2e-3  # s, and of the intensity, within which segments are equal; above the rounding of the files
DIGITS = 4  # decimals of times, posteriors and intensities
MAX_FRAMES = 10_000_000  # 55 hours; a longer duration is a mistake and would exhaust the memory
COLUMNS = {
    "start": ("start", "begin", "onset", "start_time", "from", "xmin", "start (s)", "start_s"),
    "end": ("end", "stop", "offset", "end_time", "to", "xmax", "end (s)", "end_s"),
    "duration": ("duration", "length", "dur", "duration (s)", "duration_s"),
    "emotion": ("emotion", "label", "category", "emotion_label"),
    "intensity": ("intensity", "strength"),
    "confidence": ("confidence", "score", "probability"),
    "file": ("file", "audio", "filename", "file_name", "recording", "path", "wav", "uri", "clip"),
}
"""Known headings of a CSV, by their meaning."""

FilePath = str | os.PathLike[str]


def write_track(track: EmotionTrack, path: FilePath, form: str | None = None) -> None:
    """Write a track as `form` (json, rttm, csv or textgrid); None: by the suffix of `path`.

    Raises:
        TrackError: another format.
        SEDTalkerError: the folder cannot be written.
    """
    text = _format(f".{form}" if form else Path(path).suffix, path)[0](track)
    with atomic_write(Path(path)) as temp_path:
        temp_path.write_text(text, encoding="utf-8")


def write_json(track: EmotionTrack, path: FilePath) -> None:
    """Write the whole track as JSON to a path with any suffix."""
    write_track(track, path, "json")


def read_track(
    path: FilePath, duration: float | None = None, audio: str | None = None, labels: Sequence[str] = LABELS
) -> EmotionTrack:
    """Read a track from .json, .rttm, .csv or .TextGrid.

    Args:
        duration: of the audio, in seconds. A longer track is refused; a shorter one is neutral at its end. None: the
            duration in the file, or the end of the last segment.
        audio: name of the audio; only its segments are read from a file of several recordings. None: unknown, and a
            file of several recordings is refused.
        labels: of the track, if the file does not list them.

    Raises:
        TrackError: the file cannot be read, is not a valid track, or belongs to other recordings.
    """
    parse = _format(Path(path).suffix, path)[1]
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise TrackError(f"track cannot be read: {path} ({reason}). Check the path and that it is text") from error
    try:
        return parse(text, duration, audio, labels)
    except TrackError as error:
        raise type(error)(" ".join(f"{path}: {error}".split())) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
        message = f"not an emotion track: {path} ({_reason(error)}). See sedtalker diarize"
        raise TrackError(" ".join(message.split())) from error


def _reason(error: Exception) -> str:
    """The reason of an error in words for users."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, IndexError):
        return "it ends too early"
    if isinstance(error, RecursionError):
        return "too many nested brackets"
    return str(error)[:200]


Writer = Callable[[EmotionTrack], str]
Reader = Callable[[str, float | None, str | None, Sequence[str]], EmotionTrack]


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
    """The whole track as JSON text, with a line for each segment, so that a person can edit it."""
    segments = [_plain(segment) for segment in track.segments]
    if track.speech is not None:
        for segment in segments:
            segment["certain"] = round(track.certain_share(segment["start"], segment["end"]), DIGITS)
    head = {
        "version": VERSION,
        "audio": track.audio,
        "duration": round(track.duration, 6),
        "frame_rate": int(track.frame_rate) if float(track.frame_rate).is_integer() else track.frame_rate,
        "labels": list(track.labels),
    }
    # Row by row, because an hour of frames as Python floats takes more memory than the whole track.
    rows = ", ".join(json.dumps([round(float(value), DIGITS) for value in row]) for row in track.posterior)
    frames: dict[str, Any] = {
        "segments": segments,
        "intensity": [round(float(value), DIGITS) for value in track.intensity],
    }
    if track.speech is not None:
        frames["speech"] = [round(float(value), DIGITS) for value in track.speech]
    lines = ",\n    ".join(json.dumps(segment) for segment in segments)
    fields = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    fields += [f'  "segments": [\n    {lines}\n  ]', f'  "frames": {json.dumps(frames)[:-1]}, "posterior": [{rows}]}}']
    return "{\n" + ",\n".join(fields) + "\n}\n"


def from_json(
    text: str, duration: float | None = None, audio: str | None = None, labels: Sequence[str] = LABELS
) -> EmotionTrack:
    """The track of JSON text. Edited segments override the frames; the frames may be missing."""
    document = json.loads(text)
    if not isinstance(document, dict) or not ("segments" in document or "frames" in document):
        raise TrackError("it has neither segments nor frames. A track needs one of them")
    if document.get("version", VERSION) != VERSION:
        raise TrackError(f"version {document['version']}. This sedtalker reads version {VERSION}")
    labels = _labels(document.get("labels", list(labels)))
    named = document.get("audio")
    if named is not None and not isinstance(named, str):
        raise TrackError(f"audio {json.dumps(named)[:40]} is not a file name. Write a name or null")
    if named:
        _choose_recording([named], audio)
    written = _segments(document.get("segments"), labels)
    frame_rate = 50.0 if document.get("frame_rate") is None else _number(document["frame_rate"], "frame_rate")
    if not 1 <= frame_rate <= 1000:
        raise TrackError(f"a frame rate of {frame_rate:g} Hz. It must be in 1..1000; 50 is usual")
    stated = None if document.get("duration") is None else _number(document["duration"], "duration")
    span = _span(written, stated, duration, frame_rate)
    frames = document.get("frames")
    if not frames:
        return _fit(EmotionTrack.from_segments(written, span, labels, frame_rate, named), duration)
    if not isinstance(frames, dict):
        raise TrackError("frames is not an object with posterior and intensity. Diarize the audio again")
    track = _fit(_track_of_frames(frames, stated, labels, frame_rate, named), duration)
    recorded = frames.get("segments")
    before = track.segments if recorded is None else _segments(recorded, labels)
    if "segments" in document:
        _apply_edits(track, before, sort_segments(written, track.duration))
    return track


def _track_of_frames(
    frames: dict[str, Any], duration: float | None, labels: tuple[str, ...], rate: float, audio: str | None
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
    span = duration if duration is not None else len(posterior) / rate
    speech = None if frames.get("speech") is None else np.asarray(frames["speech"], np.float32)
    return EmotionTrack(posterior / total, intensity, span, labels, rate, audio, speech=speech)


def _apply_edits(track: EmotionTrack, before: list[Segment], after: list[Segment]) -> None:
    """Apply the segments of an edited file to the frames.

    If the list has some of the old segments, spans of the removed ones become neutral. If all segments are new, the
    rest of the track follows the frames.
    """
    edited = [segment for segment in after if not any(_same(segment, old) for old in before)]
    if edited and len(edited) == len(after):
        track.override(edited)
        track.explicit_segments = reduce(overlay, edited, before)
        return
    old_gaps = neutral_gaps(before, track.duration, TOLERANCE)
    gaps = [
        gap
        for gap in neutral_gaps(after, track.duration, TOLERANCE)
        if not any(old.start - TOLERANCE <= gap.start and gap.end <= old.end + TOLERANCE for old in old_gaps)
    ]
    if edited or gaps:
        track.override([*edited, *gaps])
    track.explicit_segments = after


def _same(one: Segment, other: Segment) -> bool:
    differences = (one.start - other.start, one.end - other.end, one.intensity - other.intensity)
    return one.emotion == other.emotion and all(abs(difference) <= TOLERANCE for difference in differences)


def _fit(track: EmotionTrack, duration: float | None) -> EmotionTrack:
    """The track with a duration in seconds; None keeps its own."""
    return track if duration is None else track.fit_duration(duration)


def to_rttm(track: EmotionTrack) -> str:
    """A `SPEAKER` line for each segment: field 8 is the emotion, field 9 the confidence, field 10 the intensity.

    In NIST's format the tenth field is a look-ahead time, which does not apply here.
    """
    name = re.sub(r"\s+", "_", Path(track.audio).stem) if track.audio else UNNAMED
    segments = track.segments or [Segment(0.0, track.duration, "neutral", 0.0)]
    rows = (
        f"SPEAKER {name} 1 {s.start:.{DIGITS}f} {s.duration:.{DIGITS}f} <NA> <NA> {s.emotion} "
        f"{s.confidence:.{DIGITS}f} {s.intensity:.{DIGITS}f}"
        for s in segments
    )
    return "".join(f"{row}\n" for row in rows)


def from_rttm(
    text: str, duration: float | None = None, audio: str | None = None, labels: Sequence[str] = LABELS
) -> EmotionTrack:
    """The track of RTTM text; a missing intensity is 1."""
    lines = [line.split() for line in text.splitlines()]
    rows = [fields for fields in lines if fields and fields[0] == "SPEAKER"]
    if not rows:
        raise TrackError("it has no SPEAKER line. See sedtalker diarize --format rttm")
    short = next((fields for fields in rows if len(fields) < 8), None)
    if short:
        raise TrackError(
            f"a SPEAKER line of {len(short)} fields: {' '.join(short)[:60]}. RTTM has ten; the 8th is the emotion"
        )
    own = _choose_recording([fields[1] for fields in rows], audio)
    segments = []
    for fields in (fields for fields in rows if fields[1] in own):
        emotion = canonical_label(fields[7], labels)
        start, length = read_number(fields[3], "start"), read_number(fields[4], "duration")
        defaults = zip([*fields[8:10], "<NA>", "<NA>"], (1.0, _default_intensity(emotion)), strict=False)
        confidence, intensity = (
            default if field == "<NA>" else read_number(field, "confidence or intensity") for field, default in defaults
        )
        segments.append(Segment(start, round(start + length, 6), emotion, intensity, confidence))
    return _from_segments(segments, duration, labels)


class SeveralRecordingsError(TrackError):
    """A track file of several recordings, read without the name of one."""


UNNAMED = "audio"  # name of an unknown recording in RTTM
_MEDIA_SUFFIXES = frozenset(
    """
    wav wave w64 rf64 flac mp2 mp3 ogg oga opus spx m4a m4b m4v aac ac3 wma aif aiff aifc au snd caf amr ape wv tta sph
    nist mp4 mkv mka mov webm weba avi flv wmv mpg mpeg ts mts m2ts 3gp 3g2 qt vob npy npz json rttm csv
    """.split()  # noqa: SIM905, a list would take many lines
)


def _choose_recording(names: Iterable[str], audio: str | None) -> set[str]:
    """The names that match the audio; all names if the file or the audio has no name.

    Raises:
        SeveralRecordingsError: the names belong to several recordings and the audio has no name.
        TrackError: the names belong to other recordings.
    """
    found = {name: _stem(name) for name in names}
    different = sorted({*found.values()})
    if different == [_stem(UNNAMED)] or (audio is None and len(different) < 2):
        return {*found}
    listed = ", ".join(different[:8]) + (", ..." if len(different) > 8 else "")
    if audio is None:
        raise SeveralRecordingsError(f"segments of several recordings: {listed}. Keep those of one, or name the audio")
    own = {name for name, stem in found.items() if stem == _stem(audio)}
    own = own or {name for name, stem in found.items() if stem == _stem(Path(audio).stem)}  # a suffix of another kind
    if not own:
        raise TrackError(
            f"segments of other recordings: {listed}; none of {_stem(audio)}. Give its own track, or rename it"
        )
    return own


def _stem(name: str) -> str:
    """A recording's name without folders and the suffix of a media file, with underscores for blanks, as in RTTM.

    Other endings are part of the name: `talk.take1` and `talk.take2` are two recordings.
    """
    name = unicodedata.normalize("NFC", name).strip().replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = re.sub(r"\s+", "_", name).casefold()
    stem, _, suffix = name.rpartition(".")
    return stem if stem and suffix in _MEDIA_SUFFIXES else name


def to_csv(track: EmotionTrack) -> str:
    """A header and one row a segment."""
    rows = (
        f"{s.start:.{DIGITS}f},{s.end:.{DIGITS}f},{s.emotion},{s.intensity:.{DIGITS}f},{s.confidence:.{DIGITS}f}"
        for s in track.segments
    )
    return "start,end,emotion,intensity,confidence\n" + "".join(f"{row}\n" for row in rows)


def from_csv(
    text: str, duration: float | None = None, audio: str | None = None, labels: Sequence[str] = LABELS
) -> EmotionTrack:
    """The track of CSV text with a heading of `COLUMNS`; intensity and confidence are optional.

    Semicolons or tabs may separate the columns, and numbers may have a decimal comma.
    """
    rows = list(read_table(text, COLUMNS, required=(("start",), ("end", "duration"), ("emotion",))))
    if any("file" in row for row in rows):
        unnamed = sum("file" not in row for row in rows)
        if unnamed:
            raise TrackError(f"{unnamed} of {len(rows)} rows name no file. Fill the column in every row")
        own = _choose_recording([row["file"] for row in rows], audio)
        rows = [row for row in rows if row["file"] in own]
    segments = []
    for number, row in enumerate(rows, 1):
        if "emotion" not in row:
            raise TrackError(f"no emotion in row {number}. Write one, or delete the row")
        start = read_number(row.get("start"), "start")
        end = read_number(row["end"], "end") if "end" in row else start + read_number(row.get("duration"), "end")
        emotion = canonical_label(row["emotion"], labels)
        intensity = read_number(row["intensity"], "intensity") if "intensity" in row else _default_intensity(emotion)
        confidence = read_number(row["confidence"], "confidence") if "confidence" in row else 1.0
        segments.append(Segment(start, end, emotion, intensity, confidence))
    return _from_segments(segments, duration, labels)


def to_textgrid(track: EmotionTrack) -> str:
    """Praat's long format with three interval tiers: emotion, intensity, confidence."""
    segments = track.segments
    end = _textgrid_number(track.duration)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", "size = 3", "item []:"]
    for number, name in enumerate(("emotion", "intensity", "confidence"), 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(segments)}"]
        for index, segment in enumerate(segments, 1):
            value = getattr(segment, name)
            text = value.replace('"', '""') if isinstance(value, str) else f"{value:.{DIGITS}f}"
            lines += [f"        intervals [{index}]:", f"            xmin = {_textgrid_number(segment.start)}"]
            lines += [f"            xmax = {_textgrid_number(segment.end)}", f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def from_textgrid(
    text: str, duration: float | None = None, audio: str | None = None, labels: Sequence[str] = LABELS
) -> EmotionTrack:
    """The track of a TextGrid (long or short): its tier `emotion`, or its only one; empty intervals are neutral."""
    tiers, end = _textgrid_tiers(text)
    emotions = _emotion_tier(tiers, audio)
    segments = []
    for start, stop, name in emotions:
        if not name.strip():
            continue
        emotion = canonical_label(name, labels)
        intensity = _textgrid_value(tiers.get("intensity", []), start, stop, _default_intensity(emotion))
        confidence = _textgrid_value(tiers.get("confidence", []), start, stop, 1.0)
        segments.append(Segment(start, stop, emotion, intensity, confidence))
    return _from_segments(segments, duration, labels, end)


def _emotion_tier(tiers: dict[str, Tier], audio: str | None) -> Tier:
    """The tier named `emotion`, else the one named as the recording, else the only one."""
    by_name = {name.strip().lower(): tier for name, tier in tiers.items()}
    for name in ("emotion", "emotions"):
        if name in by_name:
            return by_name[name]
    others = {name: tier for name, tier in tiers.items() if name.strip().lower() not in ("intensity", "confidence")}
    own = [tier for name, tier in others.items() if audio is not None and _stem(name) == _stem(audio)]
    if len(own) == 1:
        return own[0]
    if not others:
        raise TrackError("it has no interval tier. Make one named emotion")
    if len(others) > 1:
        raise TrackError(
            f"several tiers, none named emotion: {', '.join(others)[:120]}. Rename the tier with the emotions"
        )
    return next(iter(others.values()))


Tier = list[tuple[float, float, str]]  # start and end in seconds, and the text
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\w.\[])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w\]])')


def _textgrid_tiers(text: str) -> tuple[dict[str, Tier], float]:
    """Interval tiers by name, and the end of the grid; both formats have the same sequence of numbers and texts."""
    tokens = [
        match.group(1).replace('""', '"') if match.group(2) is None else float(match.group(2))
        for match in _TOKEN.finditer(text)
    ]
    if tokens[:2] != ["ooTextFile", "TextGrid"]:
        raise TrackError("not a TextGrid of Praat. Save it as a text file")
    end, position = float(tokens[3]), 5
    tiers: dict[str, Tier] = {}
    for _ in range(int(tokens[4])):
        kind, name, size = tokens[position], str(tokens[position + 1]), int(tokens[position + 4])
        if kind not in ("IntervalTier", "TextTier") or size < 0:
            raise TrackError(f"not a tier of a TextGrid: {str(kind)[:40]!r}. Save it with Praat again")
        width = 3 if kind == "IntervalTier" else 2
        entries = tokens[position + 5 : position + 5 + width * size]
        if len(entries) < width * size:
            raise TrackError(f"tier {name[:40]!r} ends too early. Save the TextGrid with Praat again")
        if kind == "IntervalTier":
            if name in tiers:
                raise TrackError(f"two tiers are named {name[:40]!r}. Rename one")
            triples = zip(entries[::3], entries[1::3], entries[2::3], strict=True)
            tiers[name] = [(float(start), float(stop), str(mark)) for start, stop, mark in triples]
        position += 5 + width * size
    return tiers, end


def _textgrid_value(tier: Tier, start: float, stop: float, default: float) -> float:
    middle = (start + stop) / 2
    inside = [mark for first, last, mark in tier if first <= middle < last and mark.strip()]
    return read_number(inside[0], "intensity or confidence") if inside else default


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


def _segments(entries: Any, labels: tuple[str, ...]) -> list[Segment]:
    if not isinstance(entries, list | None):
        raise TrackError(f"segments is not a list: {json.dumps(entries)[:40]}. See sedtalker diarize")
    return [_segment(entry, labels, number) for number, entry in enumerate(entries or [], 1)]


def _segment(entry: Any, labels: tuple[str, ...], number: int) -> Segment:
    """A segment of JSON; intensity and confidence may be absent or null."""
    where = f"segment {number}"
    if not isinstance(entry, dict):
        raise TrackError(f"{where} is not an object: {json.dumps(entry)[:40]}. It needs start, end and emotion")
    absent = [name for name in ("start", "end", "emotion") if entry.get(name) is None]
    if absent:
        raise TrackError(f"{where} has no {' and no '.join(absent)}. It needs start, end and emotion")
    emotion = canonical_label(str(entry["emotion"]), labels)
    intensity, confidence = entry.get("intensity"), entry.get("confidence")
    return Segment(
        _number(entry["start"], f"start of {where}"),
        _number(entry["end"], f"end of {where}"),
        emotion,
        _default_intensity(emotion) if intensity is None else _number(intensity, f"intensity of {where}"),
        1.0 if confidence is None else _number(confidence, f"confidence of {where}"),
    )


def _number(value: Any, name: str) -> float:
    """A finite number of JSON; a number in quotes counts."""
    if isinstance(value, str):
        return read_number(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TrackError(f"{name} is not a number: {json.dumps(value)[:40]}. Write seconds, or 0 to 1")
    return float(value)


def _default_intensity(emotion: str) -> float:
    return 0.0 if emotion == "neutral" else 1.0


def _labels(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise TrackError(f"labels {names!r}: need a list of names with neutral among them")
    return check_labels(names)


def _span(
    segments: list[Segment], stated: float | None, duration: float | None, frame_rate: float = TRACK_RATE
) -> float:
    """Duration of the track of segments: that in the file, or of the audio, or the end of the last segment.

    If a segment ends after the duration in the file, that of the audio is used.
    """
    if duration is not None:
        if stated is not None and stated > duration + 1.5 / TRACK_RATE:
            raise TrackError(
                f"the track lasts {stated:g} s and the audio {duration:g} s. Diarize this audio, or cut it"
            )
        end = max((segment.end for segment in segments), default=0.0)
        return duration if stated is None or end > stated + 0.5 / TRACK_RATE else stated
    if stated is None and not segments:
        raise TrackError("it has neither a duration nor segments. Give one of them")
    span = max(segment.end for segment in segments) if stated is None else stated
    if not 0 < span * frame_rate <= MAX_FRAMES:
        raise TrackError(f"a duration of {span:g} s. Give more than 0 and at most {MAX_FRAMES / frame_rate:g} s")
    return span


def _from_segments(
    segments: list[Segment], duration: float | None, labels: Sequence[str], stated: float | None = None
) -> EmotionTrack:
    return _fit(EmotionTrack.from_segments(segments, _span(segments, stated, duration), labels), duration)
