"""Shading: material and lights to linear RGB, and tone mapping tables to sRGB bytes.

The shader works on blocks of fragments (a fragment is one shading of one pixel). A block is a flat float32 array of
`ROWS` quantities of `BLOCK` fragments each; loops run over the fragments so that the compiler can vectorize them. For
the same reason specular lobes use no pow: `max(0, 1 - (1 - cosine) * n / 16) ** 16` equals Blinn's `cosine ** n` at
n = 16 and approximates it elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sedtalker.render.arrays import BACKWARD, CENTER_X, CENTER_Y, INVERSE_FOCAL, RIGHT, UP, Float, Index
from sedtalker.render.compiled import compiled, inlined

BLOCK = 128

# Quantities of a block, see `at`. The first ones are also the columns of a triangle's corner.
NX, NY, NZ = 0, 1, 2  # normal
U, V = 3, 4  # texture coordinates
AO = 5  # baked ambient occlusion, 1 where the point is open
KEY_VISIBILITY = 6  # share of the key light that is not in shadow
SCALP = 7  # weight of the scalp color over the skin's albedo
VERTEX_COLOR = 8  # three rows: linear RGB that multiplies the albedo
X, Y, DEPTH = 11, 12, 13  # pixels, metres along the view axis
WEIGHT = 14  # share of the pixel
RED, GREEN, BLUE, ALPHA = 15, 16, 17, 18  # albedo and opacity, then the shaded color
BARYCENTRIC = 15  # three rows: weights of the triangle's corners, overwritten by the albedo
VX, VY, VZ = 19, 20, 21  # unit vector to the camera
DIFFUSE, SPECULAR = 22, 25  # three rows each: light
ROWS = 28

# Columns of the table of materials, one row for each surface.
TINT, WRAP, SPECULAR_SCALE, EXPONENT, AMBIENT, SHEEN, SCALP_COLOR = 0, 3, 6, 7, 8, 9, 10
MATERIAL_COLUMNS = 13

# Shading models.
PLAIN, SKIN, HAIR, HIGHLIGHT, TEETH = 0, 1, 2, 3, 4


def _unit(*direction: float) -> list[float]:
    length = math.sqrt(sum(value * value for value in direction))
    return [value / length for value in direction]


KEY_LIGHT = 0
LIGHT_DIRECTIONS = np.array(
    [_unit(-0.55, 0.55, 0.75), _unit(0.85, 0.12, 0.5), _unit(0.75, 0.45, -0.75), _unit(-0.8, 0.35, -0.7)], np.float32
)
"""(4, 3) unit vectors to the key light, the fill light and the two rim lights."""
LIGHT_COLORS = np.array([(1.02, 0.93, 0.83), (0.20, 0.24, 0.30), (0.75, 0.85, 1.0), (0.40, 0.38, 0.35)], np.float32)
SKY = np.array((0.34, 0.36, 0.40), np.float32)
GROUND = np.array((0.15, 0.12, 0.105), np.float32)
_CORNEA_LIGHTS = np.array([1.0, 0.2, 0.0, 0.0], np.float32)  # scale of each light's reflection in the cornea

_SCATTERED = np.array((0.09, 0.035, 0.03), np.float32)
"""Share of the ambient light (red, green, blue) that gums and cheeks scatter to teeth which see no sky."""
_REFLECTANCE = np.float32(0.035)  # Fresnel reflectance of skin, teeth and eyes at normal incidence


@inlined
def at(quantity: int, fragment: int) -> int:
    """Index of a fragment's quantity in a block; unsigned, so that compiled code does not check for negative ones."""
    return np.uint64(quantity * BLOCK) + np.uint64(fragment)


@compiled
def _power_16(value: float) -> float:
    value *= value
    value *= value
    value *= value
    return value * value


@compiled
def sample_texture(block: Float, texel: Index, count: int, texels: Index, offset: int, width: int, height: int) -> None:
    """Bilinear lookup of albedo and opacity at (U, V); texels are packed RGBA, RGB as square roots of linear light.

    `texel` (4 * BLOCK,) is working memory: the scattered reads have their own loop, so that the other loops vectorize.
    """
    one, half = np.float32(1), np.float32(0.5)
    if width == 1 and height == 1:
        for channel in range(4):
            value = _byte(texels[offset], np.uint32(8 * channel))
            start = (RED + channel) * BLOCK
            block[start : start + count] = value * (value if channel < 3 else one)
        return
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    for i in range(count):
        x = min(right, max(np.float32(0), block[at(U, i)] * np.float32(width) - half))
        y = min(bottom, max(np.float32(0), (one - block[at(V, i)]) * np.float32(height) - half))
        column, row = np.floor(x), np.floor(y)
        block[at(RED, i)], block[at(GREEN, i)] = column, row
        block[at(U, i)], block[at(V, i)] = x - column, y - row
    for i in range(count):
        column, row = int(block[at(RED, i)]), int(block[at(GREEN, i)])
        nearest = offset + row * width + column
        east = 1 if column < width - 1 else 0
        south = width if row < height - 1 else 0
        texel[i] = texels[nearest]
        texel[at(1, i)] = texels[nearest + east]
        texel[at(2, i)] = texels[nearest + south]
        texel[at(3, i)] = texels[nearest + south + east]
    for channel in range(4):
        shift = np.uint32(8 * channel)
        for i in range(count):
            a, b = _byte(texel[i], shift), _byte(texel[at(1, i)], shift)
            c, d = _byte(texel[at(2, i)], shift), _byte(texel[at(3, i)], shift)
            upper, lower = a + (b - a) * block[at(U, i)], c + (d - c) * block[at(U, i)]
            value = upper + (lower - upper) * block[at(V, i)]
            block[at(RED + channel, i)] = value * (value if channel < 3 else one)


@compiled
def tint_fragments(block: Float, count: int) -> None:
    """Multiply albedo by the interpolated vertex colors."""
    for channel in range(3):
        for i in range(count):
            block[at(RED + channel, i)] *= block[at(VERTEX_COLOR + channel, i)]


@compiled
def _byte(packed: int, shift: int) -> float:
    """Unpack one byte of a texel, scaled to [0, 1]."""
    return np.float32(np.int32((packed >> shift) & np.uint32(255))) * np.float32(1 / 255)


@compiled
def _orient_normals(block: Float, count: int, camera: Float, two_sided: int) -> None:
    """Compute view vectors, normalize normals, and flip them toward the camera on two-sided surfaces."""
    one, inverse_focal = np.float32(1), camera[INVERSE_FOCAL]
    for i in range(count):
        x = (block[at(X, i)] - camera[CENTER_X]) * inverse_focal
        y = (camera[CENTER_Y] - block[at(Y, i)]) * inverse_focal
        vx = camera[BACKWARD] - x * camera[RIGHT] - y * camera[UP]
        vy = camera[BACKWARD + 1] - x * camera[RIGHT + 1] - y * camera[UP + 1]
        vz = camera[BACKWARD + 2] - x * camera[RIGHT + 2] - y * camera[UP + 2]
        length = one / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * length, vy * length, vz * length
        nx, ny, nz = block[at(NX, i)], block[at(NY, i)], block[at(NZ, i)]
        length = one / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
        if two_sided and nx * vx + ny * vy + nz * vz < 0:
            length = -length
        block[at(NX, i)], block[at(NY, i)], block[at(NZ, i)] = nx * length, ny * length, nz * length
        block[at(VX, i)], block[at(VY, i)], block[at(VZ, i)] = vx, vy, vz


@compiled
def _add_ambient(block: Float, count: int, material: Float, kind: int) -> None:
    """Hemispheric ambient light, darkened by occlusion; red less than blue on skin and teeth, where it is scattered."""
    sheen, ambient = material[SHEEN], material[AMBIENT]
    one, half = np.float32(1), np.float32(0.5)
    for i in range(count):
        nx, ny, nz = block[at(NX, i)], block[at(NY, i)], block[at(NZ, i)]
        facing = nx * block[at(VX, i)] + ny * block[at(VY, i)] + nz * block[at(VZ, i)]
        rim = one - max(facing, np.float32(0))
        glow = sheen * rim * rim * rim
        up = half + half * ny
        visibility = block[at(AO, i)]
        visibility_red, visibility_green, visibility_blue = visibility, visibility, visibility
        if kind == TEETH:
            visibility_red += (one - visibility) * _SCATTERED[0]
            visibility_green += (one - visibility) * _SCATTERED[1]
            visibility_blue += (one - visibility) * _SCATTERED[2]
        elif kind == SKIN:  # about visibility ** 0.75 and ** 1.12
            root = math.sqrt(visibility)
            visibility_red = root * math.sqrt(root)
            visibility_blue = visibility * (np.float32(0.88) + np.float32(0.12) * visibility)
        block[at(DIFFUSE, i)] = (ambient * (GROUND[0] + (SKY[0] - GROUND[0]) * up) + glow * SKY[0]) * visibility_red
        block[at(DIFFUSE + 1, i)] = (
            ambient * (GROUND[1] + (SKY[1] - GROUND[1]) * up) + glow * SKY[1]
        ) * visibility_green
        block[at(DIFFUSE + 2, i)] = (
            ambient * (GROUND[2] + (SKY[2] - GROUND[2]) * up) + glow * SKY[2]
        ) * visibility_blue
        block[at(SPECULAR, i)] = np.float32(0)
        block[at(SPECULAR + 1, i)] = np.float32(0)
        block[at(SPECULAR + 2, i)] = np.float32(0)


@compiled
def _add_diffuse(block: Float, count: int, material: Float, kind: int, light: int) -> None:
    """Add one light's wrapped diffuse term."""
    zero, one = np.float32(0), np.float32(1)
    lx, ly, lz = LIGHT_DIRECTIONS[light, 0], LIGHT_DIRECTIONS[light, 1], LIGHT_DIRECTIONS[light, 2]
    wrap_red, wrap_green, wrap_blue = material[WRAP], material[WRAP + 1], material[WRAP + 2]
    red = LIGHT_COLORS[light, 0] / (one + wrap_red)
    green = LIGHT_COLORS[light, 1] / (one + wrap_green)
    blue = LIGHT_COLORS[light, 2] / (one + wrap_blue)
    # Ambient occlusion darkens the key light in part only; that of teeth more, as they are in no shadow.
    least = zero if kind == TEETH else np.float32(0.35)
    soft = np.float32(0.5) if kind == SKIN else zero  # shadow edges on skin are reddish
    for i in range(count):
        facing = block[at(NX, i)] * lx + block[at(NY, i)] * ly + block[at(NZ, i)] * lz
        reached = block[at(AO, i)]
        reached_red = reached
        if light == KEY_LIGHT:  # only this light is shadowed
            arrives = block[at(KEY_VISIBILITY, i)]
            visibility = least + (one - least) * reached
            reached, reached_red = (
                visibility * arrives,
                visibility * (soft * math.sqrt(arrives) + (one - soft) * arrives),
            )
        block[at(DIFFUSE, i)] += red * max(zero, facing + wrap_red) * reached_red
        block[at(DIFFUSE + 1, i)] += green * max(zero, facing + wrap_green) * reached
        block[at(DIFFUSE + 2, i)] += blue * max(zero, facing + wrap_blue) * reached


@compiled
def _add_specular(block: Float, count: int, material: Float, kind: int, light: int) -> None:
    """Add one light's specular term: two Blinn lobes on skin, one elsewhere, with Schlick's Fresnel approximation."""
    zero, one, tenth = np.float32(0), np.float32(1), np.float32(0.1)
    lx, ly, lz = LIGHT_DIRECTIONS[light, 0], LIGHT_DIRECTIONS[light, 1], LIGHT_DIRECTIONS[light, 2]
    shadowed = one if light == KEY_LIGHT else zero
    scale, exponent = material[SPECULAR_SCALE], material[EXPONENT]
    sharp = (exponent + np.float32(8)) * np.float32(1 / 25.1)
    broad = np.float32(0)
    if kind == SKIN:
        broad = np.float32(0.45) * (np.float32(0.3) * exponent + np.float32(8)) * np.float32(1 / 25.1)
        sharp *= np.float32(0.55)
    if kind == HIGHLIGHT:
        scale *= _CORNEA_LIGHTS[light]
    steep, flat = exponent * np.float32(1 / 16), exponent * np.float32(0.3 / 16)
    for i in range(count):
        nx, ny, nz = block[at(NX, i)], block[at(NY, i)], block[at(NZ, i)]
        vx, vy, vz = block[at(VX, i)], block[at(VY, i)], block[at(VZ, i)]
        facing = nx * lx + ny * ly + nz * lz
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        length = one / math.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-9))
        half_cosine = max(zero, (nx * hx + ny * hy + nz * hz) * length)
        grazing = one - max(zero, (vx * hx + vy * hy + vz * hz) * length)
        square = grazing * grazing
        fresnel = _REFLECTANCE + np.float32(0.9) * square * square * grazing
        lobe = sharp * _power_16(max(zero, one - (one - half_cosine) * steep))
        lobe += broad * _power_16(max(zero, one - (one - half_cosine) * flat))
        arrives = one - shadowed * (one - block[at(KEY_VISIBILITY, i)])
        shine = scale * fresnel * lobe * max(zero, facing + tenth) * arrives * block[at(AO, i)]
        block[at(SPECULAR, i)] += shine * LIGHT_COLORS[light, 0]
        block[at(SPECULAR + 1, i)] += shine * LIGHT_COLORS[light, 1]
        block[at(SPECULAR + 2, i)] += shine * LIGHT_COLORS[light, 2]


@compiled
def _add_hair_specular(block: Float, count: int, material: Float, light: int) -> None:
    """Add one light's Kajiya-Kay specular term; hair strands follow the vertical projected onto the surface."""
    zero, one = np.float32(0), np.float32(1)
    lx, ly, lz = LIGHT_DIRECTIONS[light, 0], LIGHT_DIRECTIONS[light, 1], LIGHT_DIRECTIONS[light, 2]
    shadowed = one if light == KEY_LIGHT else zero
    scale, steep = material[SPECULAR_SCALE], material[EXPONENT] * np.float32(1 / 16)
    for i in range(count):
        nx, ny, nz = block[at(NX, i)], block[at(NY, i)], block[at(NZ, i)]
        facing = nx * lx + ny * ly + nz * lz
        hx, hy, hz = lx + block[at(VX, i)], ly + block[at(VY, i)], lz + block[at(VZ, i)]
        # The tangent is (0, 1, 0) - ny * n, and its square 1 - ny ** 2, as n is a unit vector.
        along = hy - ny * (nx * hx + ny * hy + nz * hz)
        size = (hx * hx + hy * hy + hz * hz + np.float32(1e-9)) * (one - ny * ny + np.float32(1e-6))
        across = math.sqrt(max(zero, one - along * along / size))
        lobe = _power_16(max(zero, one - (one - across) * steep))
        arrives = one - shadowed * (one - block[at(KEY_VISIBILITY, i)])
        shine = scale * lobe * max(zero, facing + np.float32(0.25)) * arrives * block[at(AO, i)]
        block[at(SPECULAR, i)] += shine * LIGHT_COLORS[light, 0]
        block[at(SPECULAR + 1, i)] += shine * LIGHT_COLORS[light, 1]
        block[at(SPECULAR + 2, i)] += shine * LIGHT_COLORS[light, 2]


@compiled
def _combine_light(block: Float, count: int, material: Float, kind: int) -> None:
    """Write albedo times diffuse light plus specular light into the albedo's rows."""
    one = np.float32(1)
    for channel in range(3):
        tint, scalp = material[TINT + channel], material[SCALP_COLOR + channel]
        for i in range(count):
            albedo = block[at(RED + channel, i)] * tint
            scalp_weight = block[at(SCALP, i)]
            albedo += (scalp - albedo) * scalp_weight
            shine = block[at(SPECULAR + channel, i)]
            if kind == SKIN:  # the alpha channel of a skin texture is its gloss
                shine *= block[at(ALPHA, i)] * (one - scalp_weight)
            if kind == HAIR:
                shine *= np.float32(0.25) + np.float32(2.2) * albedo
            light = block[at(DIFFUSE + channel, i)]
            if kind == HIGHLIGHT:
                light = np.float32(0)
            block[at(RED + channel, i)] = albedo * light + shine


@compiled
def shade(block: Float, count: int, material: Float, kind: int, two_sided: int, camera: Float) -> None:
    """Replace albedo by the shaded color in linear RGB.

    Args:
        block: (ROWS * BLOCK,) float32, rows up to ALPHA filled; RED, GREEN and BLUE are overwritten.
        count: fragments in the block.
        material: (MATERIAL_COLUMNS,) float32.
        kind: PLAIN, SKIN, HAIR, HIGHLIGHT or TEETH.
        two_sided: whether normals that face away are flipped.
        camera: (15,) float32, see `arrays`.
    """
    _orient_normals(block, count, camera, two_sided)
    _add_ambient(block, count, material, kind)
    for light in range(len(LIGHT_COLORS)):
        if kind != HIGHLIGHT:
            _add_diffuse(block, count, material, kind, light)
        if kind == HAIR:
            _add_hair_specular(block, count, material, light)
        elif material[SPECULAR_SCALE] > 0 and (kind != HIGHLIGHT or _CORNEA_LIGHTS[light] > 0):
            _add_specular(block, count, material, kind, light)
    _combine_light(block, count, material, kind)


def to_linear(srgb: NDArray[np.floating]) -> NDArray[np.float32]:
    """Convert sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: NDArray[np.floating]) -> NDArray[np.float32]:
    """Convert linear light to sRGB in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(np.asarray(linear, np.float32), 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def tone_map(linear: NDArray[np.floating]) -> NDArray[np.float32]:
    """Tone mapping curve: identity up to 0.6, then an exponential shoulder toward 1."""
    linear = np.asarray(linear, np.float32)
    return np.where(linear < 0.6, linear, 0.6 + 0.4 * (1 - np.exp(-(linear - 0.6) / 0.4))).astype(np.float32)


TONE_STEPS = 16384
TONE_RANGE = 4.0  # linear light at the last step of the tables
_LIGHT = np.arange(TONE_STEPS, dtype=np.float32) * (TONE_RANGE / (TONE_STEPS - 1))
TONE_LIGHT = tone_map(_LIGHT)
"""Tone-mapped linear light by index, from 0 to TONE_RANGE."""
TONE_BYTES = (to_srgb(TONE_LIGHT) * 255 + 0.5).astype(np.uint8)
"""sRGB bytes by the same index."""
DISPLAY_BYTES = (to_srgb(np.linspace(0, 1, TONE_STEPS)) * 255 + 0.5).astype(np.uint8)
"""sRGB bytes of tone-mapped linear light in [0, 1], by index."""
