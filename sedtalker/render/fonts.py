"""Choice of fonts by the letters of a text: the user's font file, Pillow's font, packaged fonts, system fonts."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont, features

from sedtalker.errors import RenderError, reason_of
from sedtalker.resources import asset

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class FontFile:
    """A font file; an empty path is Pillow's default font."""

    path: str = ""
    index: int = 0  # in a collection (.ttc)


DEFAULT_FONT = FontFile()
PACKAGED = ("DejaVuSans.woff", "LohitDevanagari.woff", "DroidSansFallback.woff")

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc", ".woff")
_STYLES = re.compile(r"bold|italic|oblique|light|thin|black|medium|mono|serif|condensed|math|heavy|unifont|lastresort")
_COLOR_TABLES = {"CBDT", "COLR", "SVG ", "sbix"}
_MAX_LISTED = 8  # letters in an error message


def load_font(font: FontFile, size: int) -> Font:
    """Load a font at a size in pixels."""
    return _load(font, max(1, int(size)))


@lru_cache(maxsize=256)
def _load(font: FontFile, size: int) -> Font:
    if font == DEFAULT_FONT:
        default = ImageFont.load_default(size)
        if not isinstance(default, ImageFont.FreeTypeFont):
            raise RenderError("this Pillow cannot draw text (it lacks FreeType). Install Pillow from its wheel")
        return default
    layout = ImageFont.Layout.RAQM if can_shape() else ImageFont.Layout.BASIC
    return ImageFont.truetype(font.path, size, font.index, layout_engine=layout)


@lru_cache(maxsize=1)
def can_shape() -> bool:
    """Whether Pillow supports complex scripts and right-to-left text."""
    return bool(features.check("raqm"))


def check_font(path: Path | str) -> None:
    """Check that a file is a usable font.

    Raises:
        RenderError: a missing file, not a font, or a font without outlines (color bitmaps).
    """
    if not Path(path).is_file():
        raise RenderError(f"no such font: {path}. Give a .ttf, .otf or .ttc file with --font")
    try:
        load_font(FontFile(str(path)), 16)
    except (OSError, ValueError) as error:
        raise RenderError(
            f"not a font: {path} ({reason_of(error)}). Give a .ttf, .otf or .ttc file with --font"
        ) from error
    if not len(_code_point_array(FontFile(str(path)))):
        raise RenderError(f"a font without outlines: {path}. Give another font with --font")


def normalize(text: str) -> str:
    """Normalize text for drawing: composed letters, plain spaces, no control characters or variation selectors."""
    if text.isascii() and text.isprintable():
        return text
    text = "".join(" " if letter.isspace() else letter for letter in unicodedata.normalize("NFC", text))
    return "".join(letter for letter in text if not _is_invisible(letter))


def _is_invisible(letter: str) -> bool:
    category = unicodedata.category(letter)
    selector = "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
    control = category in ("Cc", "Cs") or letter in "\u00ad\u2060\ufeff"
    return selector or control or (category == "Cf" and not can_shape())


def split_clusters(text: str) -> list[str]:
    """Split into letters, each with the marks and joiners that follow it."""
    clusters: list[str] = []
    for letter in text:
        extends = unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf") or "\U0001f3fb" <= letter <= "\U0001f3ff"
        if clusters and (extends or clusters[-1].endswith("\u200d")):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    return clusters


def split_runs(text: str, font: Path | str | None = None) -> list[tuple[str, FontFile]]:
    """Split a normalized line into runs of one font, in visual order from left to right.

    A line that one font can draw is one run. Letters without a font get Pillow's default font, which draws a box.
    """
    for candidate in _preferred_fonts(font):
        if _has_letters(candidate, text):
            return [(text, candidate)] if text else []
    base = _is_right_to_left(text) or False
    clusters = split_clusters(text)
    directions = _resolve_directions([_is_right_to_left(cluster) for cluster in clusters], base)
    runs: list[tuple[str, FontFile, bool]] = []
    for cluster, direction in zip(clusters, directions, strict=True):
        if cluster.isspace() and runs:
            chosen = runs[-1][1]
        else:
            chosen = _font_for(cluster, None if font is None else str(font)) or DEFAULT_FONT
        if runs and runs[-1][1:] == (chosen, direction):
            runs[-1] = runs[-1][0] + cluster, chosen, direction
        else:
            runs.append((cluster, chosen, direction))
    return [(run, chosen) for run, chosen, _ in _visual_order(runs, base)]


def _resolve_directions(directions: list[bool | None], base: bool) -> list[bool]:
    """Resolve neutral letters: the direction of both neighbours, or the line's where those differ.

    Rules N1 and N2 of the Unicode bidirectional algorithm (UAX #9).
    """
    before: list[bool] = []
    after: list[bool] = []
    for ordered, sides in ((directions, before), (directions[::-1], after)):
        last = base
        for direction in ordered:
            last = last if direction is None else direction
            sides.append(last)
    return [one if one == other else base for one, other in zip(before, after[::-1], strict=True)]


def _visual_order(runs: list[tuple[str, FontFile, bool]], base: bool) -> list[tuple[str, FontFile, bool]]:
    """Reorder runs: reverse those against the line's direction, then all runs of a right-to-left line.

    Rule L2 of the Unicode bidirectional algorithm (UAX #9) for two levels.
    """
    ordered: list[tuple[str, FontFile, bool]] = []
    opposite: list[tuple[str, FontFile, bool]] = []
    for run in reversed(runs) if base else runs:
        if run[2] == base:
            ordered += [*reversed(opposite), run]
            opposite = []
        else:
            opposite.append(run)
    return ordered + opposite[::-1]


def _is_right_to_left(text: str) -> bool | None:
    """Direction of the first letter that has one, or None."""
    for letter in text:
        direction = unicodedata.bidirectional(letter)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return None


def check_letters(texts: Iterable[str], font: Path | str | None = None) -> None:
    """Check that texts can be drawn.

    Raises:
        RenderError: letters without a font, or a script that this Pillow cannot shape; the message has no file name.
    """
    lines = {normalize(text) for text in texts}
    named = None if font is None else str(font)
    clusters = sorted({cluster for line in lines for cluster in split_clusters(line)})
    missing = [cluster for cluster in clusters if not cluster.isspace() and _font_for(cluster, named) is None]
    if missing:
        listed = ", ".join(f"{_escape(cluster)} ({_code_points(cluster)})" for cluster in missing[:_MAX_LISTED])
        more = f" and {len(missing) - _MAX_LISTED} more" if len(missing) > _MAX_LISTED else ""
        raise RenderError(f"no font has the letters {listed}{more}. Give a font that has them with --font FILE")
    if not can_shape() and any(_needs_shaping(cluster) for cluster in clusters):
        raise RenderError(
            "this Pillow cannot shape letters of complex scripts (it lacks raqm). Install Pillow from its wheel"
        )


def _escape(cluster: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in cluster)


def _code_points(cluster: str) -> str:
    return " ".join(f"U+{ord(letter):04X}" for letter in cluster)


def _needs_shaping(cluster: str) -> bool:
    marks = any(unicodedata.category(letter) in ("Mn", "Mc") for letter in cluster)
    return marks or bool(_is_right_to_left(cluster))


def _preferred_fonts(font: Path | str | None) -> list[FontFile]:
    named = [] if font is None else [FontFile(str(font))]
    return [*named, DEFAULT_FONT, *(FontFile(str(asset("fonts", name))) for name in PACKAGED)]


@lru_cache(maxsize=8192)
def _font_for(cluster: str, font: str | None) -> FontFile | None:
    """The first font with a letter and its marks, or None."""
    for candidate in _preferred_fonts(font):
        if _has_letters(candidate, cluster):
            return candidate
    return next((candidate for candidate in _system_fonts() if _has_letters(candidate, cluster)), None)


def _has_letters(font: FontFile, text: str) -> bool:
    if font == DEFAULT_FONT and text.isascii():
        return True
    required = {ord(letter) for letter in text if font == DEFAULT_FONT or unicodedata.category(letter) != "Cf"}
    letters = _code_point_array(font)
    return bool(np.isin(np.array(sorted(required), np.uint32), letters, assume_unique=True).all())


@lru_cache(maxsize=4096)
def _code_point_array(font: FontFile) -> NDArray[np.uint32]:
    """Sorted code points of a font's outlines; empty for an unreadable font or one of color bitmaps."""
    from fontTools.ttLib import TTFont

    source = io.BytesIO(load_font(DEFAULT_FONT, 10).font_bytes) if font == DEFAULT_FONT else font.path
    try:
        with TTFont(source, fontNumber=font.index, lazy=True) as file:
            outlined = {"glyf", "CFF ", "CFF2"} & {*file.keys()} and not _COLOR_TABLES & {*file.keys()}
            codes = sorted(file.getBestCmap() or ()) if outlined else []
    except Exception:  # fontTools has no common error class; broken system fonts are skipped
        codes = []
    return np.array(codes, np.uint32)


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[FontFile, ...]:
    """Installed fonts, regular styles first."""
    try:
        command = ["fc-list", "--format", "%{file}\t%{index}\n"]
        listed = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout
        rows = [line.rpartition("\t") for line in os.fsdecode(listed).splitlines()]
        fonts = {FontFile(path, int(index) & 0xFFFF) for path, _, index in rows if path and index.isdigit()}
    except (OSError, subprocess.SubprocessError):
        files = (file for folder in _font_folders() if folder.is_dir() for file in folder.rglob("*"))
        fonts = {FontFile(str(file)) for file in files}
    usable = [font for font in fonts if font.path.lower().endswith(_SUFFIXES)]
    return tuple(sorted(usable, key=lambda font: (len(_STYLES.findall(Path(font.path).name.lower())), font.path)))


def _font_folders() -> list[Path]:
    home = os.path.expanduser("~")  # noqa: PTH111, Path.expanduser raises without a home folder
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home)
        return [Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"), Path(local, "Microsoft", "Windows", "Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path(home, "Library", "Fonts")]
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path(home, ".local", "share", "fonts")]
