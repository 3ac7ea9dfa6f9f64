"""Conversion of sRGB bytes to planar YUV 4:2:0 (BT.709, limited range), the input format of video encoders."""

from __future__ import annotations

import numpy as np

from sedtalker.render.arrays import Bytes
from sedtalker.render.compiled import compiled, inlined

# BT.709 weights times 2 ** 16 and the limited ranges 219 and 224 over 255.
_Y_RED, _Y_GREEN, _Y_BLUE = np.int32(11966), np.int32(40254), np.int32(4064)
_U_RED, _U_GREEN, _U_BLUE = np.int32(-6596), np.int32(-22189), np.int32(6596 + 22189)
_V_RED, _V_GREEN, _V_BLUE = np.int32(26145 + 2640), np.int32(-26145), np.int32(-2640)
_BLACK = np.int32((16 << 16) + (1 << 15))
_GREY = np.int32((128 << 18) + (1 << 17))  # of a sum of four pixels
_1, _2, _3, _6 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(6)  # unsigned steps


@compiled
def to_yuv420(frame: Bytes, out: Bytes) -> None:
    """Convert a frame (H, W, 3) with even sides into `out` (H * 3 / 2, W): luma, then U and V at half the size."""
    height, width = frame.shape[0], frame.shape[1]
    pixels, planes = frame.reshape(-1), out.reshape(-1)
    second = np.uint64(height * width // 4)
    for i in range(np.uint64(height * width)):
        red, green, blue = np.int32(pixels[_3 * i]), np.int32(pixels[_3 * i + _1]), np.int32(pixels[_3 * i + _2])
        planes[i] = (_Y_RED * red + _Y_GREEN * green + _Y_BLUE * blue + _BLACK) >> 16
    for y in range(np.uint64(height // 2)):
        upper = y * np.uint64(6 * width)
        lower, at = upper + np.uint64(3 * width), np.uint64(height * width) + y * np.uint64(width // 2)
        for x in range(np.uint64(width // 2)):
            red = _sum_pair(pixels, upper + _6 * x) + _sum_pair(pixels, lower + _6 * x)
            green = _sum_pair(pixels, upper + _6 * x + _1) + _sum_pair(pixels, lower + _6 * x + _1)
            blue = _sum_pair(pixels, upper + _6 * x + _2) + _sum_pair(pixels, lower + _6 * x + _2)
            planes[at + x] = (_U_RED * red + _U_GREEN * green + _U_BLUE * blue + _GREY) >> 18
            planes[second + at + x] = (_V_RED * red + _V_GREEN * green + _V_BLUE * blue + _GREY) >> 18


@inlined
def _sum_pair(pixels: Bytes, at: int) -> int:
    """Sum of a channel over a pixel and its right neighbour."""
    return np.int32(pixels[at]) + np.int32(pixels[at + _3])
