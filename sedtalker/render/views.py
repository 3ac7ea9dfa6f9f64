"""Layouts of several pictures, and error heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sedtalker.render.arrays import Bytes, Float
from sedtalker.render.shade import to_linear
from sedtalker.render.text import WHITE, draw_text

_BACKGROUND = (24, 26, 31)
_GAP = 2  # pixels between pictures

# From pale over yellow, orange and red to dark, with decreasing brightness, so that it also works in gray.
_HEAT_COLORS = np.array(
    [(0.93, 0.93, 0.90), (0.99, 0.85, 0.46), (0.97, 0.55, 0.24), (0.84, 0.16, 0.14), (0.38, 0.02, 0.16)], np.float32
)


def heat_colors(error: Float, max_error: float) -> Float:
    """Map errors (N,) to sRGB (N, 3) in [0, 1]; `max_error` and above get the last color."""
    at = np.clip(np.asarray(error, np.float32) / max_error, 0, 1) * (len(_HEAT_COLORS) - 1)
    columns = [np.interp(at, np.arange(len(_HEAT_COLORS)), column) for column in _HEAT_COLORS.T]
    return np.stack(columns, -1).astype(np.float32)


def vertex_error_colors(predicted: Float, true: Float, max_error: float) -> Float:
    """Linear colors (V, 3) of the distances between vertices (V, 3) in metres, up to `max_error` millimetres."""
    return to_linear(heat_colors(np.linalg.norm(predicted - true, axis=-1) * 1000, max_error))


def draw_scale(picture: Bytes, max_error: float, unit: str = "mm") -> None:
    """Draw the heat map's scale along the lower edge of a picture (H, W, 3)."""
    height, width = picture.shape[:2]
    size, bar = max(9, height // 32), max(5, height // 64)
    left, right = round(width * 0.2), round(width * 0.8)
    top = height - round(2.4 * size) - bar
    picture[top - size :] = _BACKGROUND
    ramp = heat_colors(np.linspace(0, max_error, right - left, dtype=np.float32), max_error)
    picture[top : top + bar, left:right] = (ramp * 255 + 0.5).astype(np.uint8)
    for share, anchor in ((0.0, "left"), (0.5, "middle"), (1.0, "right")):
        text = f"{max_error * share:g}" + (f" {unit}" if share == 1 else "")
        draw_text(picture, text, round(left + share * (right - left)), top + bar + size // 4, size, WHITE, anchor)


def side_by_side(pictures: Sequence[Bytes], titles: Sequence[str] = ()) -> Bytes:
    """Join pictures of one height next to each other, with titles in the upper left corners, padded to even sides."""
    height = pictures[0].shape[0]
    parts = []
    for index, picture in enumerate(pictures):
        picture = picture.copy()
        if index < len(titles):
            draw_text(picture, titles[index], height // 40, height // 60, max(10, height // 28))
        parts += [picture, _make_background(height, _GAP)]
    return _pad_to_even(np.concatenate(parts[:-1], 1))


def grid(pictures: Sequence[Bytes], columns: int, labels: Sequence[str] = ()) -> Bytes:
    """Join pictures of one size in rows, with labels in the lower left corners."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = _make_background(rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    size = max(9, height // 18)
    for index, picture in enumerate(pictures):
        cell = picture.copy()
        if index < len(labels):
            draw_text(cell, labels[index], size // 2, height - round(size * 1.6), size)
        y, x = index // columns * (height + _GAP), index % columns * (width + _GAP)
        sheet[y : y + height, x : x + width] = cell[..., :3]
    return sheet


def _make_background(height: int, width: int) -> Bytes:
    return np.broadcast_to(np.array(_BACKGROUND, np.uint8), (height, width, 3)).copy()


def _pad_to_even(picture: Bytes) -> Bytes:
    """Pad odd sides of a picture by one pixel, as video codecs need even ones."""
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    padded = _make_background(height + height % 2, width + width % 2)
    padded[:height, :width] = picture
    return padded
