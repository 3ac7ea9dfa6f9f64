"""Reading of captions: subtitles, words with times, or plain text, as captions of a few words each.

| suffix | content |
|---|---|
| .srt, .vtt, .ass, .ssa | subtitles; their styles and positions are ignored |
| .csv, .tsv | words or phrases with times in seconds: columns `start`, `end`, and `text` or `word`; whole numbers with
captions of minutes are milliseconds, as Whisper writes them |
| .txt | text without times: it is distributed over the whole length by the number of letters |
"""

from __future__ import annotations

import html
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from sedtalker.errors import RenderError, reason_of
from sedtalker.files import read_number, read_table, read_text

Caption = tuple[float, float, str]  # start and end in seconds, and the text

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
SUFFIXES = (*SUBTITLES[:2], ".csv", ".tsv", ".txt", *SUBTITLES[2:])

_MAX_LETTERS = 64  # of a caption of several words: two lines
_MAX_PAUSE = 0.7  # seconds between two words of a caption
_MAX_SECONDS = 1e6  # seconds
_MIN_MILLISECONDS = 60  # median length of captions in a table from which whole numbers are milliseconds
_TIMESTAMP = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,:](\d{1,6}))?"
_CUE_TIMES = re.compile(rf"\s*{_TIMESTAMP}\s*-+>\s*{_TIMESTAMP}(?:\s.*)?")
_CUE_TIMES_LOOSE = re.compile(r"\s*[-+]?\d+\s*[:.,].*-+>.*")
_TAGS = re.compile(r"</?[a-zA-Z][^<>]*>|<(?:\d+:)?\d+:\d+\.\d+>")
_OVERRIDES = re.compile(r"\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}")
_ALIASES = {
    "start": ("start", "begin", "start_time", "onset", "from", "start (s)", "start_s"),
    "end": ("end", "stop", "end_time", "offset", "to", "end (s)", "end_s"),
    "text": ("text", "word", "words", "caption", "transcript"),
}


def caption_file(named: Path, source: Path) -> Path:
    """The caption file of an input: `named` itself, or the file in the folder `named` with the input's name.

    Raises:
        RenderError: no such file.
    """
    if named.is_file():
        return named
    candidates = [named / f"{source.stem}{suffix}" for suffix in SUFFIXES]
    files = {path.name.lower(): path for path in named.iterdir()} if named.is_dir() else {}
    for path in candidates:
        found = path if path.is_file() else files.get(path.name.lower())  # suffixes such as .SRT
        if found is not None and found.is_file():
            return found
    expected = f"{candidates[0]} (or {', '.join(SUFFIXES[1:])})" if named.is_dir() else named
    raise RenderError(f"no captions: {expected}. Give a file, or a folder with a file for each input")


def read_captions(path: Path, seconds: float) -> list[Caption]:
    """Read the captions for a video of this length in seconds.

    Raises:
        RenderError: an unknown suffix, or a file that does not match its suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RenderError(f"no captions in a {suffix or 'nameless'} file: {path}. Give one of {', '.join(SUFFIXES)}")
    try:
        text = read_text(path)
        if suffix in SUBTITLES:
            captions = _read_subtitles(text, suffix)
        elif suffix == ".txt":
            captions = _distribute_text(text, seconds)
        else:
            captions = _group_words(_read_words(text, "\t" if suffix == ".tsv" else None))
        for start, end, _ in captions:
            if not (0 <= start <= end <= _MAX_SECONDS or suffix == ".txt"):
                raise ValueError(f"a caption from {start:g} to {end:g} s: times must be 0 or more and in order")
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise RenderError(f"captions that cannot be read: {path} ({reason}). See: sedtalker render --help") from error
    if not captions:
        raise RenderError(f"no captions in the file: {path}. Give times and words, or a text")
    return captions


def check_captions(path: Path, width: int, height: int, font: Path | None = None) -> None:
    """Check that captions can be read and drawn, before the video is rendered.

    Raises:
        RenderError: as `read_captions`; letters without a font; more text at one time than fits the picture.
    """
    from sedtalker.render.fonts import check_font, check_letters
    from sedtalker.render.text import fit_captions

    if font is not None:
        check_font(font)
    captions = read_captions(path, 1.0)  # the length only affects the times of plain text
    try:
        check_letters((text for _, _, text in captions), font)
        for texts in active_captions(captions, sorted({start for start, _, _ in captions})):
            fit_captions(texts, width, height, font)
    except RenderError as error:
        raise RenderError(f"{path}: {error}") from error


def active_captions(captions: Sequence[Caption], times: Iterable[float]) -> Iterator[tuple[str, ...]]:
    """Yield for each of ascending times the captions to draw, from top to bottom.

    A caption that starts during another is drawn above it, so that captions do not move. Of captions that start at the
    same time, the first is on top.
    """
    waiting = sorted(range(len(captions)), key=lambda index: captions[index][0])[::-1]
    active: list[int] = []
    for time in times:
        while waiting and captions[waiting[-1]][0] <= time:
            active.append(waiting.pop())
        active = [index for index in active if time < captions[index][1]]
        yield tuple(captions[index][2] for index in sorted(active, key=lambda index: (-captions[index][0], index)))


def _read_subtitles(text: str, suffix: str) -> list[Caption]:
    """Cues of SubRip, WebVTT and SubStation Alpha."""
    import pysubs2

    lines = re.split(r"\r\n|\r|\n", text)
    if suffix in (".srt", ".vtt"):
        lines = _normalize_cues(_vtt_cues(lines) if suffix == ".vtt" or text.lstrip().startswith("WEBVTT") else lines)
    try:
        form = "srt" if suffix in (".srt", ".vtt") else suffix[1:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, which are ignored
            events = pysubs2.SSAFile.from_string("\n".join(lines), form, keep_html_tags=True)
    except Exception as error:  # pysubs2 passes on its parsers' errors
        raise ValueError(f"no subtitles: {error}") from error
    captions = []
    for event in events:
        if event.is_comment or event.is_drawing:
            continue
        words = event.plaintext if form in ("ass", "ssa") else _strip_markup(event.text)
        words = " ".join(re.sub(r"\\[Nnh]", " ", words).split())
        if words and event.start != event.end:
            captions.append((event.start / 1000, event.end / 1000, words))
    return captions


def _strip_markup(text: str) -> str:
    """Remove tags, overrides and entities from a cue of SubRip or WebVTT."""
    text = re.sub(r"<br\s*/?>", " ", text, flags=re.IGNORECASE)
    return html.unescape(_TAGS.sub("", _OVERRIDES.sub("", text)))


def _vtt_cues(lines: list[str]) -> list[str]:
    """Extract the cues of WebVTT, without header, notes, styles, regions and the cues' names."""
    cues: list[str] = []
    inside = False
    for line in lines:
        if _CUE_TIMES_LOOSE.fullmatch(line):
            inside = True
            cues.append("")
        elif not line.strip():
            inside = False
        if inside:
            cues.append(line)
    return cues


def _normalize_cues(lines: list[str]) -> list[str]:
    """Normalize cues for pysubs2: an empty line and a number before each, and times as `hh:mm:ss,mmm`.

    pysubs2 drops a last line of digits as a cue number, so the function replaces each cue's number and appends one.
    """
    result: list[str] = []
    cues = 0
    for number, line in enumerate(lines, 1):
        if not _CUE_TIMES_LOOSE.fullmatch(line):
            result.append(line)
            continue
        match = _CUE_TIMES.fullmatch(line)
        if match is None:
            raise ValueError(f"invalid times: {line.strip()[:60]!r} in line {number}")
        above = result[-1].strip() if result else ""
        if above.isdecimal() and (len(result) < 2 or not result[-2].strip() or int(above[:9]) in (cues, cues + 1)):
            result.pop()
        cues += 1
        start, end = _format_timestamp(*match.groups()[:4]), _format_timestamp(*match.groups()[4:])
        result += ["", "0", f"{start} --> {end}"]
    return [*result, "", "0"]


def _format_timestamp(hours: str | None, minutes: str, seconds: str, part: str | None) -> str:
    milliseconds = round(float(f"0.{part or 0}") * 1000)
    total = ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + milliseconds
    hour, rest = divmod(total, 3_600_000)
    if hour > 99:
        raise ValueError(f"a caption at {hour} hours")
    return f"{hour:02d}:{rest // 60_000:02d}:{rest // 1000 % 60:02d},{rest % 1000:03d}"


def _read_words(text: str, delimiter: str | None) -> list[Caption]:
    words = []
    whole = True
    for row in read_table(text, _ALIASES, delimiter):
        word = row.get("text", "").strip()
        if word:
            whole = whole and all(row.get(name, "").isdecimal() for name in ("start", "end"))
            words.append((read_number(row.get("start"), "start"), read_number(row.get("end"), "end"), word))
    if whole and words and median(end - start for start, end, _ in words) >= _MIN_MILLISECONDS:
        words = [(start / 1000, end / 1000, word) for start, end, word in words]
    return words


def _group_words(words: Iterable[Caption]) -> list[Caption]:
    """Group words into captions that end at sentences, at pauses and at a maximum length."""
    captions: list[Caption] = []
    for start, end, word in words:
        if captions:
            first, last, before = captions[-1]
            continues = (
                start - last < _MAX_PAUSE and len(before) + len(word) < _MAX_LETTERS and before[-1] not in ".!?。！？؟।"
            )
            if continues:
                unspaced = all(unicodedata.east_asian_width(letter) in "WF" for letter in (before[-1], word[0]))
                captions[-1] = first, end, f"{before}{'' if unspaced else ' '}{word}"
                continue
        captions.append((start, end, word))
    return captions


def _distribute_text(text: str, seconds: float) -> list[Caption]:
    """Distribute a text over a length in seconds, in proportion to the number of letters."""
    words = [part for word in text.split() for part in _split_unspaced(word)]
    letters = sum(len(word) + 1 for word in words)
    timed, done = [], 0
    for word in words:
        start = seconds * done / letters
        done += len(word) + 1
        timed.append((start, seconds * done / letters, word))
    return _group_words(timed)


def _split_unspaced(word: str) -> list[str]:
    """Split a text without spaces into its sentences; return a word as it is."""
    if len(word) <= _MAX_LETTERS:
        return [word]
    from sedtalker.render.fonts import split_clusters

    parts = re.findall(r"[^。！？、，]{1,40}[。！？、，]*|[。！？、，]+", word)
    for index in range(1, len(parts)):  # marks stay with their letter
        clusters = split_clusters(parts[index - 1][-1] + parts[index])
        parts[index - 1] += clusters[0][1:]
        parts[index] = "".join(clusters[1:])
    return [part for part in parts if part]
