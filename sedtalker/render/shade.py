"""Light on surfaces: linear RGB in, display bytes out.

Fragments (one shading of one pixel) are shaded by the block. A block is a flat float32 array of `ROWS` quantities of
`BLOCK` fragments each; the loops run along the fragments, so that the compiler turns them into vector instructions.
For the same reason there is no pow: a lobe is the sixteenth power of a clipped line, which is exactly Blinn's at an
exponent of 16 and a close likeness of it, with an end, at others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sedtalker.render.arrays import Float, Index
from sedtalker.render.compiled import compiled

BLOCK = 128

# Rows of a block.
NX, NY, NZ = 0, 1, 2  # unit normal
U, V = 3, 4  # texture coordinates
AO = 5  # baked ambient occlusion
KEY = 6  # share of the key light that arrives
SCALP = 7  # share of the hair's colour that the skin takes
PAINT = 8  # three rows: what the albedo is multiplied with, where corners have colours
X, Y, DEPTH = 11, 12, 13  # picture coordinates in pixels, metres along the view axis
WEIGHT = 14  # share of the pixel
RED, GREEN, BLUE, ALPHA = 15, 16, 17, 18  # albedo and opacity; in the end, the colour
VX, VY, VZ = 19, 20, 21  # unit vector to the eye
DIFFUSE, SPECULAR = 22, 25  # three rows each
SPARE = 15  # three rows: working memory before there are colours
ROWS = 28

# Columns of the table of materials, one row a surface.
TINT, WRAP, GLOSSY, EXPONENT, AMBIENT, SHEEN, SCALP_COLOR = 0, 3, 6, 7, 8, 9, 10
MATERIAL_COLUMNS = 13

# How a surface answers light.
PLAIN, SKIN, HAIR, HIGHLIGHT = 0, 1, 2, 3


def _unit(*direction: float) -> list[float]:
    length = math.sqrt(sum(value * value for value in direction))
    return [value / length for value in direction]


KEY_LIGHT = 0
LIGHT_DIRECTIONS = np.array(
    [_unit(-0.55, 0.55, 0.75), _unit(0.85, 0.12, 0.5), _unit(0.75, 0.45, -0.75), _unit(-0.8, 0.35, -0.7)], np.float32
)
"""(4, 3) to the key, the fill and the two rim lights."""
LIGHT_COLORS = np.array([(1.02, 0.93, 0.83), (0.20, 0.24, 0.30), (0.75, 0.85, 1.0), (0.40, 0.38, 0.35)], np.float32)
SKY = np.array((0.34, 0.36, 0.40), np.float32)
GROUND = np.array((0.15, 0.12, 0.105), np.float32)
_HIGHLIGHT_SHARE = np.array([1.0, 0.2, 0.0, 0.0], np.float32)  # of each light in a wet eye

_REFLECTANCE = np.float32(0.035)  # of skin, teeth and eyes, facing the light


@compiled
def _power_16(value: float) -> float:
    value *= value
    value *= value
    value *= value
    return value * value


@compiled
def sample_texture(block: Float, texel: Index, count: int, texels: Index, offset: int, width: int, height: int) -> None:
    """Bilinear albedo and opacity at (U, V); texels are packed RGBA bytes, RGB as square roots of linear light.

    `texel` (4 * BLOCK,) is working memory: reading scattered texels is a loop of its own, so that others are vectors.
    """
    one, half = np.float32(1), np.float32(0.5)
    if width == 1 and height == 1:
        for channel in range(4):
            value = _byte(texels[offset], np.uint32(8 * channel))
            block[(RED + channel) * BLOCK : (RED + channel) * BLOCK + count] = value * (value if channel < 3 else one)
        return
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    for i in range(count):
        x = min(right, max(np.float32(0), block[U * BLOCK + i] * np.float32(width) - half))
        y = min(bottom, max(np.float32(0), (one - block[V * BLOCK + i]) * np.float32(height) - half))
        column, row = np.floor(x), np.floor(y)
        block[RED * BLOCK + i], block[GREEN * BLOCK + i] = column, row
        block[U * BLOCK + i], block[V * BLOCK + i] = x - column, y - row
    for i in range(count):
        column, row = int(block[RED * BLOCK + i]), int(block[GREEN * BLOCK + i])
        at = offset + row * width + column
        east = 1 if column < width - 1 else 0
        south = width if row < height - 1 else 0
        texel[i] = texels[at]
        texel[BLOCK + i] = texels[at + east]
        texel[2 * BLOCK + i] = texels[at + south]
        texel[3 * BLOCK + i] = texels[at + south + east]
    for channel in range(4):
        shift = np.uint32(8 * channel)
        for i in range(count):
            a, b = _byte(texel[i], shift), _byte(texel[BLOCK + i], shift)
            c, d = _byte(texel[2 * BLOCK + i], shift), _byte(texel[3 * BLOCK + i], shift)
            upper, lower = a + (b - a) * block[U * BLOCK + i], c + (d - c) * block[U * BLOCK + i]
            value = upper + (lower - upper) * block[V * BLOCK + i]
            block[(RED + channel) * BLOCK + i] = value * (value if channel < 3 else one)


@compiled
def tint_fragments(block: Float, count: int) -> None:
    """Multiply albedo by the interpolated colours of the corners."""
    for channel in range(3):
        for i in range(count):
            block[(RED + channel) * BLOCK + i] *= block[(PAINT + channel) * BLOCK + i]


@compiled
def _byte(packed: int, shift: int) -> float:
    """A byte of a packed texel in [0, 1]."""
    return np.float32(np.int32((packed >> shift) & np.uint32(255))) * np.float32(1 / 255)


@compiled
def _face_the_eye(block: Float, count: int, view: Float, two_sided: int) -> None:
    """Vectors to the eye, unit normals, and normals turned to the viewer on surfaces seen from both sides."""
    one = np.float32(1)
    for i in range(count):
        x, y = (block[X * BLOCK + i] - view[13]) * view[12], (view[14] - block[Y * BLOCK + i]) * view[12]
        vx = view[9] - x * view[3] - y * view[6]
        vy = view[10] - x * view[4] - y * view[7]
        vz = view[11] - x * view[5] - y * view[8]
        length = one / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * length, vy * length, vz * length
        nx, ny, nz = block[NX * BLOCK + i], block[NY * BLOCK + i], block[NZ * BLOCK + i]
        length = one / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
        if two_sided and nx * vx + ny * vy + nz * vz < 0:
            length = -length
        block[NX * BLOCK + i], block[NY * BLOCK + i], block[NZ * BLOCK + i] = nx * length, ny * length, nz * length
        block[VX * BLOCK + i], block[VY * BLOCK + i], block[VZ * BLOCK + i] = vx, vy, vz


@compiled
def _add_ambient(block: Float, count: int, material: Float, kind: int) -> None:
    """Sky and ground by the normal's height, darkened by occlusion; in skin, red survives longer between the folds."""
    sheen, ambient = material[SHEEN], material[AMBIENT]
    one, half = np.float32(1), np.float32(0.5)
    for i in range(count):
        nx, ny, nz = block[NX * BLOCK + i], block[NY * BLOCK + i], block[NZ * BLOCK + i]
        facing = nx * block[VX * BLOCK + i] + ny * block[VY * BLOCK + i] + nz * block[VZ * BLOCK + i]
        rim = one - max(facing, np.float32(0))
        glow = sheen * rim * rim * rim
        up = half + half * ny
        open_ = block[AO * BLOCK + i]
        open_red, open_blue = open_, open_
        if kind == SKIN:  # open ** 0.75 and open ** 1.12
            root = math.sqrt(open_)
            open_red, open_blue = root * math.sqrt(root), open_ * (np.float32(0.88) + np.float32(0.12) * open_)
        block[DIFFUSE * BLOCK + i] = (ambient * (GROUND[0] + (SKY[0] - GROUND[0]) * up) + glow * SKY[0]) * open_red
        block[(DIFFUSE + 1) * BLOCK + i] = (ambient * (GROUND[1] + (SKY[1] - GROUND[1]) * up) + glow * SKY[1]) * open_
        block[(DIFFUSE + 2) * BLOCK + i] = (
            ambient * (GROUND[2] + (SKY[2] - GROUND[2]) * up) + glow * SKY[2]
        ) * open_blue
        block[SPECULAR * BLOCK + i] = np.float32(0)
        block[(SPECULAR + 1) * BLOCK + i] = np.float32(0)
        block[(SPECULAR + 2) * BLOCK + i] = np.float32(0)


@compiled
def _add_diffuse(block: Float, count: int, material: Float, kind: int, light: int) -> None:
    """One light's wrapped diffuse."""
    zero, one = np.float32(0), np.float32(1)
    lx, ly, lz = LIGHT_DIRECTIONS[light, 0], LIGHT_DIRECTIONS[light, 1], LIGHT_DIRECTIONS[light, 2]
    wrap_red, wrap_green, wrap_blue = material[WRAP], material[WRAP + 1], material[WRAP + 2]
    red = LIGHT_COLORS[light, 0] / (one + wrap_red)
    green = LIGHT_COLORS[light, 1] / (one + wrap_green)
    blue = LIGHT_COLORS[light, 2] / (one + wrap_blue)
    shadowed = one if light == KEY_LIGHT else zero
    least = np.float32(0.35) * shadowed  # occlusion is about the sky: the key light takes it in part
    soft = np.float32(0.5) * shadowed if kind == SKIN else zero  # shadow edges on skin are red
    for i in range(count):
        facing = block[NX * BLOCK + i] * lx + block[NY * BLOCK + i] * ly + block[NZ * BLOCK + i] * lz
        arrives = one - shadowed * (one - block[KEY * BLOCK + i])
        open_ = least + (one - least) * block[AO * BLOCK + i]
        lit, lit_red = open_ * arrives, open_ * (soft * math.sqrt(arrives) + (one - soft) * arrives)
        block[DIFFUSE * BLOCK + i] += red * max(zero, facing + wrap_red) * lit_red
        block[(DIFFUSE + 1) * BLOCK + i] += green * max(zero, facing + wrap_green) * lit
        block[(DIFFUSE + 2) * BLOCK + i] += blue * max(zero, facing + wrap_blue) * lit


@compiled
def _add_gloss(block: Float, count: int, material: Float, kind: int, light: int) -> None:
    """One light's highlight: two Blinn lobes on skin, one elsewhere, with Schlick's rise towards the rim."""
    zero, one, tenth = np.float32(0), np.float32(1), np.float32(0.1)
    lx, ly, lz = LIGHT_DIRECTIONS[light, 0], LIGHT_DIRECTIONS[light, 1], LIGHT_DIRECTIONS[light, 2]
    shadowed = one if light == KEY_LIGHT else zero
    strength, exponent = material[GLOSSY], material[EXPONENT]
    sharp = (exponent + np.float32(8)) * np.float32(1 / 25.1)
    broad = np.float32(0)
    if kind == SKIN:
        broad = np.float32(0.45) * (np.float32(0.3) * exponent + np.float32(8)) * np.float32(1 / 25.1)
        sharp *= np.float32(0.55)
    if kind == HIGHLIGHT:
        strength *= _HIGHLIGHT_SHARE[light]
    steep, flat = exponent * np.float32(1 / 16), exponent * np.float32(0.3 / 16)
    for i in range(count):
        nx, ny, nz = block[NX * BLOCK + i], block[NY * BLOCK + i], block[NZ * BLOCK + i]
        vx, vy, vz = block[VX * BLOCK + i], block[VY * BLOCK + i], block[VZ * BLOCK + i]
        facing = nx * lx + ny * ly + nz * lz
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        length = one / math.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-9))
        toward = max(zero, (nx * hx + ny * hy + nz * hz) * length)
        grazing = one - max(zero, (vx * hx + vy * hy + vz * hz) * length)
        square = grazing * grazing
        mirror = _REFLECTANCE + np.float32(0.9) * square * square * grazing
        lobe = sharp * _power_16(max(zero, one - (one - toward) * steep))
        lobe += broad * _power_16(max(zero, one - (one - toward) * flat))
        arrives = one - shadowed * (one - block[KEY * BLOCK + i])
        shine = strength * mirror * lobe * max(zero, facing + tenth) * arrives * block[AO * BLOCK + i]
        block[SPECULAR * BLOCK + i] += shine * LIGHT_COLORS[light, 0]
        block[(SPECULAR + 1) * BLOCK + i] += shine * LIGHT_COLORS[light, 1]
        block[(SPECULAR + 2) * BLOCK + i] += shine * LIGHT_COLORS[light, 2]


@compiled
def _add_strand_gloss(block: Float, count: int, material: Float, light: int) -> None:
    """One light's band of highlights across strands that run along the vertical as it lies on the surface."""
    zero, one = np.float32(0), np.float32(1)
    lx, ly, lz = LIGHT_DIRECTIONS[light, 0], LIGHT_DIRECTIONS[light, 1], LIGHT_DIRECTIONS[light, 2]
    shadowed = one if light == KEY_LIGHT else zero
    strength, steep = material[GLOSSY], material[EXPONENT] * np.float32(1 / 16)
    for i in range(count):
        nx, ny, nz = block[NX * BLOCK + i], block[NY * BLOCK + i], block[NZ * BLOCK + i]
        facing = nx * lx + ny * ly + nz * lz
        hx, hy, hz = lx + block[VX * BLOCK + i], ly + block[VY * BLOCK + i], lz + block[VZ * BLOCK + i]
        # The tangent is (0, 1, 0) - ny * n, and its square 1 - ny ** 2, as n is a unit vector.
        along = hy - ny * (nx * hx + ny * hy + nz * hz)
        size = (hx * hx + hy * hy + hz * hz + np.float32(1e-9)) * (one - ny * ny + np.float32(1e-6))
        across = math.sqrt(max(zero, one - along * along / size))
        lobe = _power_16(max(zero, one - (one - across) * steep))
        arrives = one - shadowed * (one - block[KEY * BLOCK + i])
        shine = strength * lobe * max(zero, facing + np.float32(0.25)) * arrives * block[AO * BLOCK + i]
        block[SPECULAR * BLOCK + i] += shine * LIGHT_COLORS[light, 0]
        block[(SPECULAR + 1) * BLOCK + i] += shine * LIGHT_COLORS[light, 1]
        block[(SPECULAR + 2) * BLOCK + i] += shine * LIGHT_COLORS[light, 2]


@compiled
def _add_up(block: Float, count: int, material: Float, kind: int) -> None:
    """Albedo times diffuse light plus highlights, into the albedo's rows."""
    one = np.float32(1)
    for channel in range(3):
        tint, scalp = material[TINT + channel], material[SCALP_COLOR + channel]
        for i in range(count):
            albedo = block[(RED + channel) * BLOCK + i] * tint
            covered = block[SCALP * BLOCK + i]
            albedo += (scalp - albedo) * covered
            shine = block[(SPECULAR + channel) * BLOCK + i]
            if kind == SKIN:  # the opacity of a skin texture is its gloss
                shine *= block[ALPHA * BLOCK + i] * (one - covered)
            if kind == HAIR:
                shine *= np.float32(0.25) + np.float32(2.2) * albedo
            light = block[(DIFFUSE + channel) * BLOCK + i]
            if kind == HIGHLIGHT:
                light = np.float32(0)
            block[(RED + channel) * BLOCK + i] = albedo * light + shine


@compiled
def shade(block: Float, count: int, material: Float, kind: int, two_sided: int, view: Float) -> None:
    """Turn albedo into the colour that reaches the eye, in linear RGB.

    Args:
        block: (ROWS * BLOCK,) float32, its rows up to ALPHA filled; RED, GREEN and BLUE are overwritten.
        count: fragments in the block.
        material: (MATERIAL_COLUMNS,) float32.
        kind: PLAIN, SKIN, HAIR or HIGHLIGHT.
        two_sided: whether normals that face away are turned.
        view: (15,) float32: eye, right, up, backward, 1 / focal length, and the picture's centre in pixels.
    """
    _face_the_eye(block, count, view, two_sided)
    _add_ambient(block, count, material, kind)
    for light in range(len(LIGHT_COLORS)):
        if kind != HIGHLIGHT:
            _add_diffuse(block, count, material, kind, light)
        if kind == HAIR:
            _add_strand_gloss(block, count, material, light)
        elif material[GLOSSY] > 0 and (kind != HIGHLIGHT or _HIGHLIGHT_SHARE[light] > 0):
            _add_gloss(block, count, material, kind, light)
    _add_up(block, count, material, kind)


def to_linear(srgb: NDArray[np.floating]) -> NDArray[np.float32]:
    """sRGB in [0, 1] -> linear light."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: NDArray[np.floating]) -> NDArray[np.float32]:
    """Linear light -> sRGB in [0, 1]."""
    linear = np.clip(np.asarray(linear, np.float32), 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def shoulder(linear: NDArray[np.floating]) -> NDArray[np.float32]:
    """Film's answer to bright light: straight up to 0.6, then ever flatter towards 1."""
    linear = np.asarray(linear, np.float32)
    return np.where(linear < 0.6, linear, 0.6 + 0.4 * (1 - np.exp(-(linear - 0.6) / 0.4))).astype(np.float32)


TONE_STEPS = 16384
TONE_RANGE = 4.0  # linear light at the last step of the tables
_LIGHT = np.arange(TONE_STEPS, dtype=np.float32) * (TONE_RANGE / (TONE_STEPS - 1))
TONE_LIGHT = shoulder(_LIGHT)
"""Linear light in steps of TONE_RANGE / TONE_STEPS -> displayed linear light."""
TONE_BYTES = (to_srgb(TONE_LIGHT) * 255 + 0.5).astype(np.uint8)
"""The same -> sRGB bytes."""
DISPLAY_BYTES = (to_srgb(np.linspace(0, 1, TONE_STEPS)) * 255 + 0.5).astype(np.uint8)
"""Displayed linear light in [0, 1] -> sRGB bytes."""
