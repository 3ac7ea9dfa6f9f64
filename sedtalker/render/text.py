"""Words on pictures, in Pillow's own font."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sedtalker.render.arrays import Bytes

Color = tuple[int, int, int]

WHITE: Color = (236, 238, 242)


@lru_cache(maxsize=1024)
def written(text: str, size: int) -> NDArray[np.float32]:
    """(h, w) coverage of a line of text; all lines of one size are equally high."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (size, size // 4)
    image = Image.new("L", (max(1, int(np.ceil(right - left))), ascent + descent))
    ImageDraw.Draw(image).text((-left, 0), text, fill=255, font=font)
    return np.asarray(image, np.float32) / np.float32(255)


def write(picture: Bytes, text: str, x: int, y: int, size: int, color: Color = WHITE, anchor: str = "left") -> None:
    """Write a line into a picture (H, W, 3 or 4); (x, y) is the top left corner, the top middle, or the top right."""
    ink = written(text, size)
    x -= {"left": 0, "middle": ink.shape[1] // 2, "right": ink.shape[1]}[anchor]
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + ink.shape[0], picture.shape[0]), min(x + ink.shape[1], picture.shape[1])
    if top >= bottom or left >= right:
        return
    cover = ink[top - y : bottom - y, left - x : right - x, None]
    place = picture[top:bottom, left:right]
    paint = np.array(color if picture.shape[2] == 3 else (*color, 255), np.float32)
    place[:] = (place * (1 - cover) + paint * cover + 0.5).astype(np.uint8)


def caption(picture: Bytes, text: str) -> None:
    """Write a caption along the lower edge of a picture, shadowed so that it reads on anything, in up to two lines."""
    size = max(10, picture.shape[0] // 22)
    lines = _wrap(text, size, int(picture.shape[1] * 0.92))
    y = picture.shape[0] - round(size * 1.25) * len(lines) - size // 2
    for line in lines:
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (1, 2)):
            write(picture, line, picture.shape[1] // 2 + dx, y + dy, size, (12, 13, 16), "middle")
        write(picture, line, picture.shape[1] // 2, y, size, WHITE, "middle")
        y += round(size * 1.25)


def _wrap(text: str, size: int, width: int) -> list[str]:
    """The text in one line, or in two of about the same length."""
    words = text.split()
    if written(text, size).shape[1] <= width or len(words) < 2:
        return [text]
    splits = ((" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words)))
    return list(min(splits, key=lambda lines: max(written(line, size).shape[1] for line in lines)))
