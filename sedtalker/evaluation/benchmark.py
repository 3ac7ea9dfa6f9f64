"""Scores of emotion segments against true ones (`sedtalker evaluate diarization REFERENCE HYPOTHESIS`).

Both sides hold segments of any number of recordings, by any system:

- RTTM: `SPEAKER recording 1 start duration <NA> <NA> emotion ...`, times in seconds, all recordings in one file;
- a table of frames: `recording`, a tab, and a letter of `data.frame_benchmark.LETTERS` for each frame of 20 ms;
- a folder with one track file for each recording (`NAME.rttm`, `.emotion.json`, `.emotion.csv`, `.TextGrid`), as
  `sedtalker diarize` writes them, or with `reference.rttm`.

Time without a segment is neutral, and the reference ends a recording. All rates count seconds: EDER is the share of the
time with a wrong emotion (Wang et al. 2023), which is the sum of false alarms (neutral called an emotion), misses (an
emotion called neutral) and confusions; the recall of an emotion is the share of its time that is recognised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.data.frame_benchmark import FRAMES, LETTERS, REFERENCE
from sedtalker.emotion.segments import Segment, clip_segments, sort_segments
from sedtalker.emotion.track_io import TRACK_SUFFIXES, read_track
from sedtalker.errors import DataError, TrackError, reason_of
from sedtalker.evaluation.bootstrap import Figure, draw_counts, interval, mean_interval, show
from sedtalker.evaluation.clips import false_rates, mean_of_known
from sedtalker.evaluation.diarization import boundary_errors, detect_insertions, fill_gaps, shared_spans
from sedtalker.evaluation.report import markdown_table
from sedtalker.files import read_text
from sedtalker.labels import LABELS, NEUTRAL, canonical_label
from sedtalker.mel import FRAME_RATE

Segmentation = Mapping[str, Sequence[Segment]]

TOLERANCE = 0.2  # s, of a boundary that counts as found
LENGTHS = (0.4, 0.75, 1.5)  # s, limits between the lengths by which insertions are counted


def read_segmentation(path: Path) -> dict[str, list[Segment]]:
    """The segments of each recording in a file or folder, sorted.

    Raises:
        DataError: there is no such file or no recording in it, or a file cannot be read.
        TrackError: a track file cannot be read, or segments overlap.
    """
    if path.is_dir():
        if (path / REFERENCE).is_file():
            return read_segmentation(path / REFERENCE)
        return _read_folder(path)
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise DataError(f"segments cannot be read: {path} ({reason}). Give RTTM, {FRAMES} or a folder") from error
    try:
        found = _parse_rttm(lines) if path.suffix.lower() == ".rttm" else _parse_frames(lines)
        ordered = {name: sort_segments(segments, float("inf")) for name, segments in found.items()}
    except (TrackError, ValueError, IndexError) as error:
        raise DataError(
            f"not emotion segments: {path} ({reason_of(error)}). Give RTTM, {FRAMES} or a folder"
        ) from error
    if not ordered:
        raise DataError(f"no recordings: {path}. Give RTTM, {FRAMES} or a folder")
    return ordered


def _parse_rttm(lines: Sequence[str]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = defaultdict(list)
    for fields in (line.split() for line in lines if line.startswith("SPEAKER")):
        start = float(fields[3])
        end = round(start + float(fields[4]), 6)
        found[fields[1]].append(Segment(start, end, canonical_label(fields[7])))
    return found


def _parse_frames(lines: Sequence[str]) -> dict[str, list[Segment]]:
    if not lines or lines[0].split("\t") != ["recording", "frames"]:
        raise TrackError("no heading of the columns recording and frames")
    found = {}
    for name, letters in (line.split("\t") for line in lines[1:] if line.strip()):
        unknown = set(letters) - {*LETTERS}
        if unknown:
            raise TrackError(f"unknown letter {min(unknown)!r} in {name}, not one of {''.join(LETTERS)}")
        edges = [0, *(k for k in range(1, len(letters)) if letters[k] != letters[k - 1]), len(letters)]
        found[name] = [Segment(a / FRAME_RATE, b / FRAME_RATE, LETTERS[letters[a]]) for a, b in pairwise(edges)]
    return found


def _read_folder(folder: Path) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TRACK_SUFFIXES or path.name.startswith(("sedtalker-", ".")):
            continue
        name = path.stem.removesuffix(".emotion")
        if name in found:
            raise DataError(f"two tracks of one recording: {name} in {folder}. Keep one format")
        found[name] = sort_segments(read_track(path, audio=name).segments, float("inf"))
    if not found:
        raise DataError(f"no track files: {folder}. Write them with: sedtalker diarize AUDIO -o {folder} --format rttm")
    return found


def confusion(predicted: Sequence[Segment], reference: Sequence[Segment], duration: float) -> NDArray[np.float64]:
    """Seconds (C, C) of each true label, in rows, by predicted label, both of `LABELS`."""
    seconds = np.zeros((len(LABELS), len(LABELS)))
    for length, seen, true in shared_spans(predicted, reference, duration):
        seconds[LABELS.index(true), LABELS.index(seen)] += length
    return seconds


def score(reference: Segmentation, hypothesis: Segmentation, seed: int = 0) -> dict[str, Any]:
    """Scores of all recordings of the reference as plain types; intervals over speakers.

    The speaker of a recording is its name up to the last hyphen.

    Raises:
        DataError: the hypothesis lacks a recording.
    """
    missing = [name for name in reference if name not in hypothesis]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"the hypothesis lacks a recording: {missing[0]}{more}. Give segments for every recording")
    speakers = [name.rpartition("-")[0] or name for name in reference]
    seconds, errors, hits, matched, insertions = [], [], [], [], []
    for speaker, (name, truth) in zip(speakers, reference.items(), strict=True):
        duration = max(segment.end for segment in truth)
        pair = [fill_gaps(clip_segments(side, 0.0, duration), duration) for side in (hypothesis[name], truth)]
        predicted, true = (_merge_equal(side) for side in pair)
        seconds.append(confusion(predicted, true, duration).ravel())
        distance = boundary_errors(predicted, true, float("inf"))
        errors.append(distance)
        hits.append([(distance <= TOLERANCE).sum(), len(distance)])
        matched.append([(boundary_errors(true, predicted, float("inf")) <= TOLERANCE).sum(), len(predicted) - 1])
        insertions += [(length, found, speaker) for length, found in detect_insertions(predicted, true)]
    draws = draw_counts(speakers, seed)
    table = (draws @ np.array(seconds)).reshape(len(draws), len(LABELS), len(LABELS))
    rates, total = false_rates(table, len(LABELS)), table.sum((1, 2))
    correct = np.einsum("rcc->r", table)
    alarms = table[:, NEUTRAL].sum(1) - table[:, NEUTRAL, NEUTRAL]
    missed = table[:, :, NEUTRAL].sum(1) - table[:, NEUTRAL, NEUTRAL]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = (np.divide(*(draws @ np.array(pairs)).T) for pairs in (hits, matched))
        precisions = np.einsum("rcc->rc", table) / table.sum(1)
        recalls = 1 - rates.negative
        f1 = np.where(recalls > 0, 2 * recalls * precisions / (recalls + precisions), recalls)
        boundary = interval(2 * precision * recall / (precision + recall))
    known = np.concatenate(errors)
    present = [label for k, label in enumerate(LABELS) if np.isfinite(rates.negative[0, k])]
    return {
        "recordings": len(reference),
        "speakers": len({*speakers}),
        "minutes": float(total[0] / 60),
        "eder": interval(1 - correct / total),
        "false_alarm": interval(alarms / total),
        "missed": interval(missed / total),
        "confused": interval((total - correct - alarms - missed) / total),
        "uar": interval(rates.uar),
        "macro_f1": interval(mean_of_known(f1)),
        "recalls": {label: interval(recalls[:, LABELS.index(label)]) for label in present},
        "boundary_f1": boundary,
        "boundary_error_median": float(np.median(np.minimum(known, 1.0))) if len(known) else None,
        "insertions_found": _insertions_by_length(insertions, seed),
        "confusion_seconds": table[0].round(3).tolist(),
        "labels": list(LABELS),
        "ignored": sorted({*hypothesis} - {*reference}),
    }


def _insertions_by_length(insertions: Sequence[tuple[float, bool, str]], seed: int) -> dict[str, Figure]:
    """Share of the inner segments (length in s, whether it was found, speaker) that are found, by their length."""
    by_length: dict[str, list[tuple[float, bool, str]]] = {}
    for low, high in pairwise((0.0, *LENGTHS, float("inf"))):
        name = f"under {high:g} s" if np.isfinite(high) else f"{low:g} s and over"
        by_length[name] = [one for one in insertions if low <= one[0] < high]
    return {
        name: mean_interval([found for _, found, _ in group], [speaker for *_, speaker in group], seed)
        for name, group in by_length.items()
        if group
    }


def _merge_equal(segments: Sequence[Segment]) -> list[Segment]:
    """Segments without gaps, with neighbours of the same emotion joined."""
    merged: list[Segment] = []
    for segment in segments:
        if merged and merged[-1].emotion == segment.emotion:
            merged[-1] = Segment(merged[-1].start, segment.end, segment.emotion)
        else:
            merged.append(segment)
    return merged


def format_scores(report: Mapping[str, Any]) -> str:
    """Format the scores as Markdown."""
    names = {
        "eder": "EDER", "false_alarm": "false alarm", "missed": "missed", "confused": "confused", "uar": "UAR",
        "macro_f1": "macro F1", "boundary_f1": f"F1 of boundaries within {TOLERANCE} s",
    }  # fmt: skip
    rows = [["score", "value"], *([title, show(report[name])] for name, title in names.items())]
    rows += [[f"recall of {label}", show(figure)] for label, figure in report["recalls"].items()]
    rows += [[f"insertions found, {span}", show(figure)] for span, figure in report["insertions_found"].items()]
    title = f"{report['recordings']} recordings of {report['speakers']} speakers, {report['minutes']:.1f} minutes"
    ignored = f"\n\nnot in the reference: {', '.join(report['ignored'][:5])}" if report["ignored"] else ""
    return f"{title}\n\n{markdown_table(rows)}{ignored}\n"
