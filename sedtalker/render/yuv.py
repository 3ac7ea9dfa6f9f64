"""sRGB bytes -> planar YUV 4:2:0 as video encoders take it (BT.709, limited range)."""

from __future__ import annotations

import numpy as np

from sedtalker.render.arrays import Bytes
from sedtalker.render.compiled import exact

# BT.709 weights times 2 ** 16 and the limited ranges 219 and 224 over 255.
_Y_RED, _Y_GREEN, _Y_BLUE = 11966, 40254, 4064
_U_RED, _U_GREEN = -6596, -22189
_V_GREEN, _V_BLUE = -26145, -2640
_HALF = 1 << 15


@exact
def to_yuv420(frame: Bytes, out: Bytes) -> None:
    """Convert a frame (H, W, 3) with even sides into `out` (H * 3 / 2, W): luma, then U and V at half the size."""
    height, width = frame.shape[0], frame.shape[1]
    chroma = out[height:].reshape(-1)
    second = height * width // 4
    for y in range(0, height, 2):
        for j in range(2):
            for x in range(width):
                red, green, blue = (
                    np.int32(frame[y + j, x, 0]),
                    np.int32(frame[y + j, x, 1]),
                    np.int32(frame[y + j, x, 2]),
                )
                out[y + j, x] = (_Y_RED * red + _Y_GREEN * green + _Y_BLUE * blue + (16 << 16) + _HALF) >> 16
        at = y * width // 4
        for x in range(width // 2):
            red = green = blue = np.int32(0)
            for j in range(2):
                for i in range(2):
                    red += frame[y + j, 2 * x + i, 0]
                    green += frame[y + j, 2 * x + i, 1]
                    blue += frame[y + j, 2 * x + i, 2]
            middle = (128 << 18) + (1 << 17)
            chroma[at + x] = (_U_RED * red + _U_GREEN * green + (-_U_RED - _U_GREEN) * blue + middle) >> 18
            chroma[second + at + x] = ((-_V_GREEN - _V_BLUE) * red + _V_GREEN * green + _V_BLUE * blue + middle) >> 18
