"""Pictures made of pictures: side by side, contact sheets, error heat-maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sedtalker.render.arrays import Bytes, Float
from sedtalker.render.shade import to_linear
from sedtalker.render.text import WHITE, write

_GROUND = (24, 26, 31)
_GAP = 2  # pixels between pictures

# No error is pale skin, then yellow, orange, red and dark: dark means bad also in grey.
_HEAT = np.array(
    [(0.93, 0.93, 0.90), (0.99, 0.85, 0.46), (0.97, 0.55, 0.24), (0.84, 0.16, 0.14), (0.38, 0.02, 0.16)], np.float32
)


def heat_colors(error: Float, most: float) -> Float:
    """Errors (N,) -> sRGB (N, 3) in [0, 1]; `most` and above is the last colour."""
    at = np.clip(np.asarray(error, np.float32) / most, 0, 1) * (len(_HEAT) - 1)
    return np.stack([np.interp(at, np.arange(len(_HEAT)), _HEAT[:, k]) for k in range(3)], -1).astype(np.float32)


def vertex_error_colors(predicted: Float, true: Float, most: float) -> Float:
    """Linear colours (V, 3) of the distance between vertices (V, 3) in metres, up to `most` millimetres."""
    return to_linear(heat_colors(np.linalg.norm(predicted - true, axis=-1) * 1000, most))


def draw_scale(picture: Bytes, most: float, unit: str = "mm") -> None:
    """Draw the heat-map's scale along the lower edge of a picture (H, W, 3)."""
    height, width = picture.shape[:2]
    size, bar = max(9, height // 32), max(5, height // 64)
    left, right = round(width * 0.2), round(width * 0.8)
    top = height - round(2.4 * size) - bar
    picture[top - size :] = _GROUND
    ramp = heat_colors(np.linspace(0, most, right - left, dtype=np.float32), most)
    picture[top : top + bar, left:right] = (ramp * 255 + 0.5).astype(np.uint8)
    for share, anchor in ((0.0, "left"), (0.5, "middle"), (1.0, "right")):
        text = f"{most * share:g}" + (f" {unit}" if share == 1 else "")
        write(picture, text, round(left + share * (right - left)), top + bar + size // 4, size, WHITE, anchor)


def side_by_side(pictures: Sequence[Bytes], titles: Sequence[str] = ()) -> Bytes:
    """Pictures of one height next to each other, each with its title in the upper left corner; even sides."""
    height = pictures[0].shape[0]
    parts = []
    for index, picture in enumerate(pictures):
        picture = picture.copy()
        if index < len(titles):
            write(picture, titles[index], height // 40, height // 60, max(10, height // 28))
        parts += [picture, _filled(height, _GAP)]
    return _even(np.concatenate(parts[:-1], 1))


def grid(pictures: Sequence[Bytes], columns: int, labels: Sequence[str] = ()) -> Bytes:
    """Pictures of one size in rows, each with its label in the lower left corner."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = _filled(rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    size = max(9, height // 18)
    for index, picture in enumerate(pictures):
        cell = picture.copy()
        if index < len(labels):
            write(cell, labels[index], size // 2, height - round(size * 1.6), size)
        y, x = index // columns * (height + _GAP), index % columns * (width + _GAP)
        sheet[y : y + height, x : x + width] = cell[..., :3]
    return sheet


def _filled(height: int, width: int) -> Bytes:
    return np.broadcast_to(np.array(_GROUND, np.uint8), (height, width, 3)).copy()


def _even(picture: Bytes) -> Bytes:
    """The picture, with a column or row more where its sides are odd."""
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    padded = _filled(height + height % 2, width + width % 2)
    padded[:height, :width] = picture
    return padded
