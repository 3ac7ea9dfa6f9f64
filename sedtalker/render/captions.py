"""Captions: subtitles, words with their times, or a bare text, as cues of a few words each.

| suffix | what the file holds |
|---|---|
| .srt, .vtt, .ass, .ssa | subtitles; shown without their styles and positions |
| .csv, .tsv | words or phrases with their times in seconds: columns `start`, `end`, and `text` or `word` |
| .txt | nothing but the text: it is spread over the whole length, to each caption time by its letters |
"""

from __future__ import annotations

import html
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sedtalker.errors import RenderError
from sedtalker.files import read_number, read_table, read_text

Caption = tuple[float, float, str]  # start and end in seconds, and the words

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
SUFFIXES = (*SUBTITLES[:2], ".csv", ".tsv", ".txt", *SUBTITLES[2:])

_LETTERS = 64  # of a caption: two lines of a comfortable length
_PAUSE = 0.7  # seconds without a word after which a new caption begins
_LONGEST = 1e6  # seconds
_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,:](\d{1,6}))?"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-+>\s*{_CLOCK}(?:\s.*)?")
_LIKE_TIMES = re.compile(r"\s*[-+]?\d+\s*[:.,].*-+>.*")
_TAGS = re.compile(r"</?[a-zA-Z][^<>]*>|<(?:\d+:)?\d+:\d+\.\d+>")
_OVERRIDES = re.compile(r"\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}")
_ALIASES = {
    "start": ("start", "begin", "start_time", "onset", "from", "start (s)", "start_s"),
    "end": ("end", "stop", "end_time", "offset", "to", "end (s)", "end_s"),
    "text": ("text", "word", "words", "caption", "transcript"),
}


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
        text = read_text(path)
        if suffix in SUBTITLES:
            captions = _read_subtitles(text, suffix)
        elif suffix == ".txt":
            captions = _spread(text, seconds)
        else:
            captions = _join_words(_read_words(text, "\t" if suffix == ".tsv" else None))
        for start, end, _ in captions:
            if not (0 <= start <= end <= _LONGEST or suffix == ".txt"):
                raise ValueError(f"a caption from {start:g} to {end:g} s: times must be 0 or more and in order")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RenderError(f"captions that cannot be read: {path} ({reason}). See: sedtalker render --help") from error
    if not captions:
        raise RenderError(f"no captions in the file: {path}. Give times and words, or a text")
    return captions


def check_captions(path: Path, width: int, height: int, font: Path | None = None) -> None:
    """Check before a video is made that its captions can be read and drawn.

    Raises:
        RenderError: as `read_captions`; letters that no font has; more text at a time than fits the picture.
    """
    from sedtalker.render.fonts import check_font, check_letters
    from sedtalker.render.text import fit_captions

    if font is not None:
        check_font(font)
    captions = read_captions(path, 1.0)  # the length of the video changes the times of a bare text, not its words
    try:
        check_letters((text for _, _, text in captions), font)
        for texts in active_captions(captions, sorted({start for start, _, _ in captions})):
            fit_captions(texts, width, height, font)
    except RenderError as error:
        raise RenderError(f"{path}: {error}") from error


def active_captions(captions: Sequence[Caption], times: Iterable[float]) -> Iterator[tuple[str, ...]]:
    """For each of ascending times the captions to draw, from top to bottom.

    A caption that begins while another is shown is drawn above it, so that none moves before it ends. Of those that
    begin together, the first is on top.
    """
    waiting = sorted(range(len(captions)), key=lambda index: captions[index][0])[::-1]
    shown: list[int] = []
    for time in times:
        while waiting and captions[waiting[-1]][0] <= time:
            shown.append(waiting.pop())
        shown = [index for index in shown if time < captions[index][1]]
        yield tuple(captions[index][2] for index in sorted(shown, key=lambda index: (-captions[index][0], index)))


def _read_subtitles(text: str, suffix: str) -> list[Caption]:
    """Cues of SubRip, WebVTT and SubStation Alpha.

    Raises:
        ValueError: a line of times that cannot be understood.
    """
    import pysubs2

    lines = re.split(r"\r\n|\r|\n", text)
    if suffix in (".srt", ".vtt"):
        lines = _plain_cues(_payload(lines) if suffix == ".vtt" or text.lstrip().startswith("WEBVTT") else lines)
    try:
        form = "srt" if suffix in (".srt", ".vtt") else suffix[1:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles that are not drawn here
            events = pysubs2.SSAFile.from_string("\n".join(lines), form, keep_html_tags=True)
    except Exception as error:  # the library lets its parsers' own errors through
        raise ValueError(f"no subtitles: {error}") from error
    captions = []
    for event in events:
        if event.is_comment or event.is_drawing:
            continue
        words = event.plaintext if form in ("ass", "ssa") else _plain_words(event.text)
        words = " ".join(re.sub(r"\\[Nnh]", " ", words).split())
        if words and event.start != event.end:
            captions.append((event.start / 1000, event.end / 1000, words))
    return captions


def _plain_words(text: str) -> str:
    """The words of a cue of SubRip or WebVTT, without tags, overrides and entities."""
    text = re.sub(r"<br\s*/?>", " ", text, flags=re.IGNORECASE)
    return html.unescape(_TAGS.sub("", _OVERRIDES.sub("", text)))


def _payload(lines: list[str]) -> list[str]:
    """The cues of WebVTT alone: its header, notes, styles, regions and the cues' names are left out."""
    kept: list[str] = []
    inside = False
    for line in lines:
        if _LIKE_TIMES.fullmatch(line):
            inside = True
            kept.append("")
        elif not line.strip():
            inside = False
        if inside:
            kept.append(line)
    return kept


def _plain_cues(lines: list[str]) -> list[str]:
    """Cues as the library reads them without loss: each after an empty line and a number, times as `hh:mm:ss,mmm`.

    Where no number follows, the library takes a last line of digits for one. So every cue's own number is replaced.
    """
    plain: list[str] = []
    cues = 0
    for number, line in enumerate(lines, 1):
        if not _LIKE_TIMES.fullmatch(line):
            plain.append(line)
            continue
        found = _TIMES.fullmatch(line)
        if found is None:
            raise ValueError(f"no times: {line.strip()[:60]!r} in line {number}")
        above = plain[-1].strip() if plain else ""
        if above.isdecimal() and (len(plain) < 2 or not plain[-2].strip() or int(above[:9]) in (cues, cues + 1)):
            plain.pop()
        cues += 1
        plain += ["", "0", f"{_clock(*found.groups()[:4])} --> {_clock(*found.groups()[4:])}"]
    return [*plain, "", "0"]


def _clock(hours: str | None, minutes: str, seconds: str, part: str | None) -> str:
    milliseconds = round(float(f"0.{part or 0}") * 1000)
    total = ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + milliseconds
    hour, rest = divmod(total, 3_600_000)
    if hour > 99:
        raise ValueError(f"a caption at {hour} hours")
    return f"{hour:02d}:{rest // 60_000:02d}:{rest // 1000 % 60:02d},{rest % 1000:03d}"


def _read_words(text: str, delimiter: str | None) -> list[Caption]:
    words = []
    for row in read_table(text, _ALIASES, delimiter):
        said = row.get("text", "").strip()
        if said:
            words.append((read_number(row.get("start"), "start"), read_number(row.get("end"), "end"), said))
    return words


def _join_words(words: Iterable[Caption]) -> list[Caption]:
    """Words joined to captions, which end at sentences, at pauses and where they grow long."""
    captions: list[Caption] = []
    for start, end, said in words:
        if captions:
            first, last, before = captions[-1]
            goes_on = start - last < _PAUSE and len(before) + len(said) < _LETTERS and before[-1] not in ".!?。！？؟।"
            if goes_on:
                unspaced = all(unicodedata.east_asian_width(letter) in "WF" for letter in (before[-1], said[0]))
                captions[-1] = first, end, f"{before}{'' if unspaced else ' '}{said}"
                continue
        captions.append((start, end, said))
    return captions


def _spread(text: str, seconds: float) -> list[Caption]:
    """A text without times over a length, by its letters."""
    words = [part for word in text.split() for part in _parts(word)]
    letters = sum(len(word) + 1 for word in words)
    timed, done = [], 0
    for word in words:
        start = seconds * done / letters
        done += len(word) + 1
        timed.append((start, seconds * done / letters, word))
    return _join_words(timed)


def _parts(word: str) -> list[str]:
    """A word, or the sentences of a text that is written without spaces."""
    if len(word) <= _LETTERS:
        return [word]
    return re.findall(r"[^。！？、，]{1,40}[。！？、，]*|[。！？、，]+", word)
