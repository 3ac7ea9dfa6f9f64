"""Text and captions on pictures."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sedtalker.errors import RenderError
from sedtalker.render.arrays import Bytes
from sedtalker.render.fonts import DEFAULT_FONT, load_font, normalize, split_clusters, split_runs

Color = tuple[int, int, int]

WHITE: Color = (236, 238, 242)

_WIDTH = 0.92  # share of a picture's width for captions
_HEIGHT = 0.45  # share of a picture's height for captions before their letters shrink
_MAX_HEIGHT = 0.96
_MIN_SIZE = 6  # pixels, smallest letters
_FontName = str | Path | None


@lru_cache(maxsize=1024)
def draw_text_line(text: str, size: int, font: _FontName = None) -> NDArray[np.float32]:
    """Draw a line of text: (h, w) coverage in [0, 1]. Lines of one size in Pillow's font have the same height.

    `font` is a font file that is tried first. Letters without a font are drawn as boxes; see `fonts.check_letters`.
    """
    text = normalize(text)
    runs = split_runs(text, font)
    left, right = _ink_extent(text, size, font)
    ascent, descent = load_font(DEFAULT_FONT, size).getmetrics()
    if all(file == DEFAULT_FONT for _, file in runs):
        image = Image.new("L", (max(1, int(np.ceil(right - left))), ascent + descent))
        ImageDraw.Draw(image).text((-left, 0), text, fill=255, font=load_font(DEFAULT_FONT, size))
        return np.asarray(image, np.float32) / np.float32(255)
    boxes = [load_font(file, size).getbbox(run, anchor="ls") for run, file in runs]
    ascent = int(np.ceil(max(ascent, *(-box[1] for box in boxes))))
    descent = int(np.ceil(max(descent, *(box[3] for box in boxes))))
    image = Image.new("L", (max(1, int(np.ceil(right - left))), ascent + descent))
    draw = ImageDraw.Draw(image)
    start = -left
    for run, file in runs:
        draw.text((start, ascent), run, fill=255, font=load_font(file, size), anchor="ls")
        start += load_font(file, size).getlength(run)
    return np.asarray(image, np.float32) / np.float32(255)


written = draw_text_line  # former name, used by programs outside of the package


@lru_cache(maxsize=8192)
def _ink_extent(text: str, size: int, font: _FontName) -> tuple[float, float]:
    """Left and right end of a normalized line's ink, in pixels from its origin."""
    runs = split_runs(text, font)
    if all(file == DEFAULT_FONT for _, file in runs):
        left, _, right, _ = load_font(DEFAULT_FONT, size).getbbox(text)
        return left, right
    start, left, right = 0.0, 0.0, 0.0
    for run, file in runs:
        box = load_font(file, size).getbbox(run, anchor="ls")
        left, right = min(left, start + box[0]), max(right, start + box[2])
        start += load_font(file, size).getlength(run)
    return left, max(right, start)


def draw_text(
    picture: Bytes,
    text: str,
    x: int,
    y: int,
    size: int,
    color: Color = WHITE,
    anchor: str = "left",
    font: _FontName = None,
) -> None:
    """Draw a line of text into a picture (H, W, 3 or 4), with its top left, middle or right corner at (x, y)."""
    ink = draw_text_line(text, size, font)
    x -= {"left": 0, "middle": ink.shape[1] // 2, "right": ink.shape[1]}[anchor]
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + ink.shape[0], picture.shape[0]), min(x + ink.shape[1], picture.shape[1])
    if top >= bottom or left >= right:
        return
    cover = ink[top - y : bottom - y, left - x : right - x, None]
    region = picture[top:bottom, left:right]
    ink_color = np.array(color if picture.shape[2] == 3 else (*color, 255), np.float32)
    region[:] = (region * (1 - cover) + ink_color * cover + 0.5).astype(np.uint8)


def draw_captions(picture: Bytes, texts: Sequence[str], font: _FontName = None) -> None:
    """Draw captions along the lower edge of a picture, one above another, with a dark outline.

    Raises:
        RenderError: they do not fit the picture.
    """
    if not texts:
        return
    height, width = picture.shape[:2]
    size, pitch, lines = fit_captions(tuple(texts), width, height, font)
    y = height - pitch * len(lines) - size // 2
    for line in lines:
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (1, 2)):
            draw_text(picture, line, width // 2 + dx, y + dy, size, (12, 13, 16), "middle", font)
        draw_text(picture, line, width // 2, y, size, WHITE, "middle", font)
        y += pitch


@lru_cache(maxsize=256)
def fit_captions(
    texts: tuple[str, ...], width: int, height: int, font: _FontName = None
) -> tuple[int, int, tuple[str, ...]]:
    """Fit captions into a picture: letter size and line pitch in pixels, and the lines.

    Raises:
        RenderError: the captions are too long even in the smallest letters.
    """
    usual = max(10, height // 22)
    readable = [(size, _HEIGHT) for size in range(usual, max(_MIN_SIZE, usual * 2 // 3) - 1, -1)]
    smaller = [(size, _MAX_HEIGHT) for size in range(usual, _MIN_SIZE - 1, -1)]
    for size, share in readable + smaller:
        max_lines = int((height * share - size // 2) / round(size * 1.25))
        lines: list[str] = []
        for text in texts:
            lines += _wrap(normalize(text), size, int(width * _WIDTH), max_lines - len(lines), font)
            if len(lines) > max_lines:
                break
        else:
            heights = [draw_text_line(line, size, font).shape[0] - size // 4 for line in lines]
            pitch = max(round(size * 1.25), *heights) if heights else 0
            if len(lines) * pitch + size // 2 <= height * share:
                return size, pitch, tuple(lines)
    letters = sum(len(text) for text in texts)
    raise RenderError(
        f"{letters} letters of captions at one time do not fit {width} x {height} pixels ({texts[0][:20]!r} ...). "
        "Split them in time, or draw a larger picture with --size"
    )


def _wrap(text: str, size: int, width: int, max_lines: int, font: _FontName) -> list[str]:
    """Wrap a normalized text into as few lines as possible, of similar length; more than `max_lines` if necessary."""
    tokens = _tokenize(text, size, width, max_lines, font)
    lines = _fill_lines(tokens, size, width, max_lines, font)
    if not 2 <= len(lines) <= max_lines:
        return lines
    if len(lines) == 2:
        splits = ([_join(tokens[:n]), _join(tokens[n:])] for n in range(1, len(tokens)))
        return min(splits, key=lambda pair: max(_line_width(line, size, font) for line in pair))
    low, high = width // 2, width
    while low < high:  # the narrowest width that needs no more lines
        middle = (low + high) // 2
        tried = _fill_lines(tokens, size, middle, len(lines), font)
        if len(tried) <= len(lines) and all(_line_width(line, size, font) <= middle for line in tried):
            high = middle
        else:
            low = middle + 1
    return _fill_lines(tokens, size, high, len(lines), font)


def _fill_lines(tokens: list[str], size: int, width: int, max_lines: int, font: _FontName) -> list[str]:
    """Fill lines greedily; stop after `max_lines` + 1 lines."""
    lines: list[str] = []
    for token in tokens:
        if lines and _line_width(lines[-1] + token, size, font) <= width:
            lines[-1] += token
        elif len(lines) > max_lines:
            break
        else:
            lines.append(token.lstrip())
    return lines


def _join(tokens: list[str]) -> str:
    return "".join(tokens).lstrip()


def _tokenize(text: str, size: int, width: int, max_lines: int, font: _FontName) -> list[str]:
    """Split a text into unbreakable tokens with their leading spaces: words, Han characters, pieces of long words."""
    tokens: list[str] = []
    for word in text.split():
        first = len(tokens)
        for cluster in split_clusters(word):
            wide = unicodedata.east_asian_width(cluster[0]) in "WF"
            closing = unicodedata.category(cluster[0]) in ("Po", "Pe", "Pf")
            opening = len(tokens) > first and unicodedata.category(tokens[-1][-1]) in ("Ps", "Pi")
            after_wide = len(tokens) > first and unicodedata.east_asian_width(tokens[-1][-1]) in "WF"
            if len(tokens) > first and not closing and not opening and (wide or after_wide):
                tokens.append(cluster)
            elif len(tokens) == first:
                tokens.append(f" {cluster}")
            else:
                tokens[-1] += cluster
        pieces = [piece for token in tokens[first:] for piece in _split_token(token, size, width, max_lines, font)]
        tokens[first:] = pieces
    return tokens


def _split_token(token: str, size: int, width: int, max_lines: int, font: _FontName) -> list[str]:
    """Split a token into pieces that fit the width; at most `max_lines` + 2 pieces."""
    if len(token) <= max(width, 1) and _line_width(token, size, font) <= width:
        return [token]
    pieces = [""]
    for cluster in split_clusters(token):
        if pieces[-1].strip() and _line_width(pieces[-1] + cluster, size, font) > width:
            if len(pieces) > max_lines + 1:
                break
            pieces.append("")
        pieces[-1] += cluster
    return pieces


def _line_width(line: str, size: int, font: _FontName) -> int:
    """Width of a normalized line in pixels."""
    left, right = _ink_extent(line.strip(), size, font)
    return max(1, int(np.ceil(right - left)))
