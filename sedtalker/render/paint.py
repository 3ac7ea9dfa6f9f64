"""What is seen, as colour: a frame from its points to its bytes.

A pixel is shaded once for each different surface among its samples. Triangles of hair, brows and lashes are then
blended over the picture from back to front, each sample tested against the depth of the opaque picture.

Nothing here starts threads or keeps state: a frame is one call that releases the interpreter lock.
"""

from __future__ import annotations

import math

import numpy as np

from sedtalker.render import shade
from sedtalker.render.arrays import Bytes, Float
from sedtalker.render.buffers import (
    ADD,
    BAND_ROWS,
    BUMP,
    BUMP_HEIGHT,
    BUMP_WIDTH,
    CORNERS,
    HAIR,
    HEIGHT,
    KIND,
    MODE,
    SAMPLES,
    TEXTURE,
    TWO_SIDED,
    WIDTH,
    Scene,
    Scratch,
    Shot,
)
from sedtalker.render.compiled import exact, fast, inlined
from sedtalker.render.raster import (
    NOBODY,
    area_of,
    bounds_of,
    cover,
    edges_of,
    inside,
    list_triangles,
    nearness_at,
    opacity_at,
    plane_of,
    sample_index,
    settle,
    share_of,
    shows_one,
    weights_at,
)
from sedtalker.render.shadow import shadow_fragments

_SHARE, _LAY_OVER, _ADD = np.int64(0), np.int64(1), np.int64(2)  # how fragments come onto the picture
_1, _2, _3 = np.uint64(1), np.uint64(2), np.uint64(3)  # unsigned steps
_FAINT = 0.02  # opacity below which nothing is drawn
_HAIR_BEHIND = np.float32(1 - 1e-5)  # hair does not blend over itself
_CARD_AHEAD = np.float32(1.0015)  # brows and lashes lie on the skin and are seen although they sink into it


@fast
def _height(scene: Scene, s: int, u: float, v: float) -> float:
    """Bilinear relief in metres."""
    first, width, height = scene.surfaces[s, BUMP], scene.surfaces[s, BUMP_WIDTH], scene.surfaces[s, BUMP_HEIGHT]
    x = min(max(u * np.float32(width) - np.float32(0.5), np.float32(0)), np.float32(width - 1.001))
    y = min(max((np.float32(1) - v) * np.float32(height) - np.float32(0.5), np.float32(0)), np.float32(height - 1.001))
    column, row = int(x), int(y)
    fx, fy = x - np.float32(column), y - np.float32(row)
    at = first + row * width + column
    a, b, c, d = scene.heights[at], scene.heights[at + 1], scene.heights[at + width], scene.heights[at + width + 1]
    upper, lower = a + (b - a) * fx, c + (d - c) * fx
    return upper + (lower - upper) * fy


@fast
def _roughen(scene: Scene, points: Float, s: int, t: int, block: Float, n: int) -> None:
    """Tilt fragment n's normal against the slope of the relief on triangle t."""
    size = shade.BLOCK
    u, v = block[shade.U * size + n], block[shade.V * size + n]
    across = np.float32(1) / np.float32(scene.surfaces[s, BUMP_WIDTH])
    along = np.float32(1) / np.float32(scene.surfaces[s, BUMP_HEIGHT])
    here = _height(scene, s, u, v)
    slope_u = (_height(scene, s, u + across, v) - here) / across
    slope_v = (_height(scene, s, u, v + along) - here) / along
    corners = scene.corners
    # Rise along the triangle's two sides.
    rise_b = slope_u * (corners[t, 1, 0] - corners[t, 0, 0]) + slope_v * (corners[t, 1, 1] - corners[t, 0, 1])
    rise_c = slope_u * (corners[t, 2, 0] - corners[t, 0, 0]) + slope_v * (corners[t, 2, 1] - corners[t, 0, 1])
    a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    bx, by, bz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
    cx, cy, cz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
    gx, gy, gz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    over = np.float32(1) / (gx * gx + gy * gy + gz * gz + np.float32(1e-20))
    nx, ny, nz = block[shade.NX * size + n], block[shade.NY * size + n], block[shade.NZ * size + n]
    unit = np.float32(1) / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
    # The gradient on the surface of what rises by rise_b along b and rise_c along c.
    block[shade.NX * size + n] = nx * unit - over * (rise_b * (cy * gz - cz * gy) + rise_c * (gy * bz - gz * by))
    block[shade.NY * size + n] = ny * unit - over * (rise_b * (cz * gx - cx * gz) + rise_c * (gz * bx - gx * bz))
    block[shade.NZ * size + n] = nz * unit - over * (rise_b * (cx * gy - cy * gx) + rise_c * (gx * by - gy * bx))


@inlined
def _gather(scene: Scene, normals: Float, t: int, b: float, c: float, block: Float, n: int) -> None:
    """Interpolate what the corners of triangle t hold into fragment n (unsigned) of the block."""
    a = np.float32(1) - b - c
    i, j, k = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    for axis in range(3):
        row = np.uint64((shade.NX + axis) * shade.BLOCK)
        block[row + n] = a * normals[i, axis] + b * normals[j, axis] + c * normals[k, axis]
    corners = scene.corners
    for q in range(CORNERS):
        row = np.uint64((shade.U + q) * shade.BLOCK)
        block[row + n] = a * corners[t, 0, q] + b * corners[t, 1, q] + c * corners[t, 2, q]
    for q in range(CORNERS, corners.shape[2]):
        row = np.uint64((shade.PAINT + q - CORNERS) * shade.BLOCK)
        block[row + n] = a * corners[t, 0, q] + b * corners[t, 1, q] + c * corners[t, 2, q]


@inlined
def _push(
    scene: Scene,
    shot: Shot,
    s: int,
    t: int,
    x: int,
    y: int,
    b: float,
    c: float,
    far: float,
    share: int,
    scratch: Scratch,
    n: int,
) -> None:
    """Make fragment n of a surface's block: triangle t at a pixel, with its corners' weights and its share."""
    block, at = scratch.block[s], np.uint64(n)
    _gather(scene, shot.normals, t, b, c, block, at)
    if scene.surfaces[s, BUMP_WIDTH] > 0:
        _roughen(scene, shot.points, s, t, block, n)
    block[np.uint64(shade.X * shade.BLOCK) + at] = np.float32(x + 0.5)
    block[np.uint64(shade.Y * shade.BLOCK) + at] = np.float32(y + 0.5)
    block[np.uint64(shade.DEPTH * shade.BLOCK) + at] = far
    block[np.uint64(shade.WEIGHT * shade.BLOCK) + at] = np.float32(share) * np.float32(1 / SAMPLES)


@fast
def _finish(scene: Scene, shot: Shot, s: int, scratch: Scratch, mode: int) -> None:
    """Texture, shadow and light for a surface's waiting fragments; then onto the picture, in their order."""
    block, color, row, size = scratch.block[s], scratch.color, scene.surfaces[s], shade.BLOCK
    pixel, count = scratch.pixel[s], scratch.filled[s]
    scratch.filled[s] = 0
    shade.sample_texture(block, scratch.texel, count, scene.texels, row[TEXTURE], row[WIDTH], row[HEIGHT])
    if scene.corners.shape[2] > CORNERS:
        shade.tint_fragments(block, count)
    if len(shot.shadow) > 1:
        shadow_fragments(block, count, shot.eye, shot.sun, shot.shadow)
    shade.shade(block, count, scene.materials[s], row[KIND], row[TWO_SIDED], shot.eye)
    for i in range(count):
        at, weight = np.uint64(pixel[i]) * np.uint64(4), block[shade.WEIGHT * size + i]
        rest, covers = np.float32(1), weight
        if mode == _LAY_OVER:
            weight *= block[shade.ALPHA * size + i]
            rest, covers = np.float32(1) - weight, weight
        elif mode == _ADD:
            covers = np.float32(0)
        color[at] = color[at] * rest + weight * block[shade.RED * size + i]
        color[at + _1] = color[at + _1] * rest + weight * block[shade.GREEN * size + i]
        color[at + _2] = color[at + _2] * rest + weight * block[shade.BLUE * size + i]
        color[at + _3] = color[at + _3] * rest + covers


@exact
def paint(scene: Scene, shot: Shot, top: int, rows: int, width: int, scratch: Scratch) -> None:
    """Shade what is seen of the opaque surfaces in the band, each pixel once for each of its surfaces."""
    owner, filled = scratch.owner, scratch.filled
    filled[:] = 0
    for y in range(rows):
        last, s = NOBODY, np.int32(0)
        plane = plane_of(shot.screen, 0, 0, 0)
        for x in range(width):
            first = sample_index(x, y, width)
            t = owner[first]
            whole = t == owner[first + 1] and t == owner[first + 2] and t == owner[first + 3]
            if whole and t == NOBODY:
                continue
            whole = whole or shows_one(scene.surface, owner, scratch.depth, first)
            if not whole:
                settle(scene.surface, owner, scratch.depth, first)
            for j in range(1 if whole else SAMPLES):
                t = owner[first + j]
                share = np.int64(SAMPLES) if whole else share_of(owner, first, j)
                if t == NOBODY or share == 0:
                    continue
                if t != last:
                    last, s = t, scene.surface[t]
                    plane = plane_of(shot.screen, scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2])
                wb, wc, far = weights_at(plane, np.float32(x + 0.5), np.float32(y + top + 0.5))
                n = filled[s]
                _push(scene, shot, s, t, x, y + top, wb, wc, far, share, scratch, n)
                scratch.pixel[s, n] = y * width + x
                filled[s] = n + 1
                if n + 1 == shade.BLOCK:
                    _finish(scene, shot, s, scratch, _SHARE)
    for s in range(len(filled)):
        _finish(scene, shot, np.int32(s), scratch, _SHARE)


@exact
def lay_over(scene: Scene, shot: Shot, s: int, top: int, rows: int, width: int, scratch: Scratch) -> None:
    """Blend the sorted triangles of a surface over the band, or add their highlights to it."""
    mode = _ADD if scene.surfaces[s, MODE] == ADD else _LAY_OVER
    ahead = _HAIR_BEHIND if scene.surfaces[s, MODE] == HAIR else _CARD_AHEAD
    for m in range(shot.sorted_from[s], shot.sorted_from[s + 1]):
        t = shot.sorted[m]
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = bounds_of(shot.screen, a, b, c, 0, top, width, top + rows)
        if x0 >= x1 or y0 >= y1:
            continue
        if not scene.surfaces[s, TWO_SIDED] and area_of(shot.screen, a, b, c) <= 0:
            continue
        e0, e1, e2 = edges_of(shot.screen, a, b, c)
        plane = plane_of(shot.screen, a, b, c)
        for y in range(y0, y1):
            for x in range(x0, x1):
                mask = inside(e0, e1, e2, x, y)
                if mask == 0:
                    continue
                share, first = np.int64(0), sample_index(x, y - top, width)
                for k in range(SAMPLES):
                    if mask & (1 << k) and nearness_at(plane[0], x, y, k) * ahead > scratch.depth[first + k]:
                        share += 1
                if share == 0:
                    continue
                wb, wc, far = weights_at(plane, np.float32(x + 0.5), np.float32(y + 0.5))
                if mode != _ADD and opacity_at(scene, s, t, wb, wc) < _FAINT * 255:
                    continue
                n = scratch.filled[s]
                _push(scene, shot, s, t, x, y, wb, wc, far, share, scratch, n)
                scratch.pixel[s, n] = (y - top) * width + x
                scratch.filled[s] = n + 1
                if n + 1 == shade.BLOCK:
                    _finish(scene, shot, s, scratch, mode)
    _finish(scene, shot, s, scratch, mode)


@fast
def develop(color: Float, background: Float, top: int, rows: int, scale: int, out: Bytes) -> int:
    """The band's light over the background as sRGB bytes, `scale` x `scale` pixels to one; returns the pixels drawn on.

    `out` is (H, W, 3) and holds the background already, or (H, W, 4) and gets coverage as its fourth channel.
    """
    drawn, width = 0, out.shape[1]
    share = np.float32(1 / (scale * scale))
    step = np.float32((shade.TONE_STEPS - 1) / shade.TONE_RANGE)
    last = np.float32(shade.TONE_STEPS - 1)
    for y in range(rows // scale):
        row = top // scale + y
        for x in range(width):
            red = green = blue = covered = np.float32(0)
            for j in range(scale):
                for i in range(scale):
                    at = ((y * scale + j) * width * scale + x * scale + i) * 4
                    red += color[at]
                    green += color[at + 1]
                    blue += color[at + 2]
                    covered += color[at + 3]
            covered *= share
            if covered <= 0:
                continue
            drawn += 1
            level = step * share / covered
            red, green, blue = min(red * level, last), min(green * level, last), min(blue * level, last)
            if out.shape[2] == 4:
                out[row, x, 3] = np.uint8(min(covered, np.float32(1)) * 255 + np.float32(0.5))
            elif covered < np.float32(0.999):
                over, rest = covered * last, (np.float32(1) - covered) * last
                behind = background[row, x]
                out[row, x, 0] = shade.DISPLAY_BYTES[int(over * shade.TONE_LIGHT[int(red)] + rest * behind[0])]
                out[row, x, 1] = shade.DISPLAY_BYTES[int(over * shade.TONE_LIGHT[int(green)] + rest * behind[1])]
                out[row, x, 2] = shade.DISPLAY_BYTES[int(over * shade.TONE_LIGHT[int(blue)] + rest * behind[2])]
                continue
            out[row, x, 0] = shade.TONE_BYTES[int(red)]
            out[row, x, 1] = shade.TONE_BYTES[int(green)]
            out[row, x, 2] = shade.TONE_BYTES[int(blue)]
    return drawn


@exact
def draw(scene: Scene, shot: Shot, scale: int, scratch: Scratch, out: Bytes) -> int:
    """Draw a frame into `out` (H, W, 3 or 4) uint8, from `scale` x `scale` pixels each; returns the pixels drawn on."""
    height, width = out.shape[0] * scale, out.shape[1] * scale
    surfaces = scene.surfaces
    drawn = 0
    list_triangles(scene, shot.screen, width, height, scratch.order, scratch.reach, scratch.order_from)
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        scratch.owner[:] = NOBODY
        scratch.depth[:] = np.float32(0)
        scratch.color[:] = np.float32(0)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                cover(scene, shot.screen, s, top, rows, width, scratch)
        paint(scene, shot, top, rows, width, scratch)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] >= HAIR:
                lay_over(scene, shot, np.int32(s), top, rows, width, scratch)
        drawn += develop(scratch.color, scene.background, top, rows, scale, out)
    return drawn
