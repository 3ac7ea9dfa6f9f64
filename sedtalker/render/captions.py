"""What is said, and when: subtitles, words with their times, or a bare text, as captions of a few words each.

| suffix | what the file holds |
|---|---|
| .srt, .vtt | subtitles; shown as they are |
| .csv, .tsv | words or phrases with their times in seconds: columns `start`, `end`, and `text` or `word` |
| .txt | nothing but the text: it is spread over the whole length, to each caption time by its letters |
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from sedtalker.errors import RenderError

Caption = tuple[float, float, str]  # start and end in seconds, and what is said

SUFFIXES = (".srt", ".vtt", ".csv", ".tsv", ".txt")

_LETTERS = 64  # of a caption: two lines of a comfortable length
_PAUSE = 0.7  # seconds without a word after which a new caption begins
_TIME = re.compile(r"(?:(\d+):)?(\d+):(\d+)[.,](\d+)")


def caption_file(named: Path, of: Path) -> Path:
    """The file of captions for an input: the one named, or in a folder named, the one called as the input is.

    Raises:
        RenderError: there is none.
    """
    if named.is_file():
        return named
    beside = [named / f"{of.stem}{suffix}" for suffix in SUFFIXES]
    for path in beside:
        if path.is_file():
            return path
    wanted = f"{beside[0]} (or {', '.join(SUFFIXES[1:])})" if named.is_dir() else named
    raise RenderError(f"no captions: {wanted}. Name a file, or a folder with one for each input")


def read_captions(path: Path, seconds: float) -> list[Caption]:
    """Captions of a file for a video of so many seconds.

    Raises:
        RenderError: an unknown suffix, or a file that does not hold what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RenderError(f"no captions in a {suffix or 'nameless'} file: {path}. Give one of {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if suffix in (".srt", ".vtt"):
            captions = _subtitles(text)
        elif suffix == ".txt":
            captions = _spread(text, seconds)
        else:
            captions = _together(_timed_words(text, "," if suffix == ".csv" else "\t"))
    except (OSError, ValueError, KeyError) as error:
        raise RenderError(f"captions that cannot be read: {path} ({error}). See: sedtalker render --help") from error
    if not captions:
        raise RenderError(f"no captions in the file: {path}. Give times and words, or a text")
    return captions


def _subtitles(text: str) -> list[Caption]:
    """Blocks of a time line and what is said, in the manner of SubRip and WebVTT."""
    captions = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        for at, line in enumerate(lines):
            if "-->" in line:
                start, end = (_seconds(part) for part in line.split("-->"))
                said = re.sub(r"<[^>]*>", "", " ".join(lines[at + 1 :])).strip()
                captions += [(start, end, said)] if said else []
                break
    return captions


def _seconds(text: str) -> float:
    found = _TIME.search(text)
    if found is None:
        raise ValueError(f"no time: {text.strip()}")
    hours, minutes, whole, part = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(whole) + float(f"0.{part}")


def _timed_words(text: str, delimiter: str) -> list[Caption]:
    words = []
    for row in csv.DictReader(text.splitlines(), delimiter=delimiter):
        said = (row.get("text") or row.get("word") or "").strip()
        if said:
            words.append((float(row["start"]), float(row["end"]), said))
    return words


def _together(words: Iterable[Caption]) -> list[Caption]:
    """Words put together into captions, parted at sentences, pauses and where they grow long."""
    captions: list[Caption] = []
    for start, end, said in words:
        if captions:
            first, last, before = captions[-1]
            goes_on = start - last < _PAUSE and len(before) + len(said) < _LETTERS and before[-1] not in ".!?"
            if goes_on:
                captions[-1] = first, end, f"{before} {said}"
                continue
        captions.append((start, end, said))
    return captions


def _spread(text: str, seconds: float) -> list[Caption]:
    """A text without times over a length, by its letters."""
    words = text.split()
    letters = sum(len(word) + 1 for word in words)
    timed, done = [], 0
    for word in words:
        start = seconds * done / letters
        done += len(word) + 1
        timed.append((start, seconds * done / letters, word))
    return _together(timed)
