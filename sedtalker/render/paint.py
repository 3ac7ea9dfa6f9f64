"""What is seen, as colour: a frame from its points to its bytes.

A pixel is shaded once for each different surface among its samples. Triangles of hair, brows and lashes are then blended
over the picture from back to front, each sample tested against the depth of the opaque picture.

Nothing here starts threads or keeps state: a frame is one call that releases the interpreter lock.
"""

from __future__ import annotations

import math

import numpy as np

from sedtalker.render import shade
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
)
from sedtalker.render.compiled import exact, fast
from sedtalker.render.raster import (
    NOBODY,
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
    weights_at,
)
from sedtalker.render.shadow import shadow_fragments

_SHARE, _LAY_OVER, _ADD = np.int64(0), np.int64(1), np.int64(2)  # how fragments come onto the picture
_FAINT = 0.02  # opacity below which nothing is drawn
_HAIR_BEHIND = np.float32(1 - 1e-5)  # hair does not blend over itself
_CARD_AHEAD = np.float32(1.0015)  # brows and lashes lie on the skin and are seen although they sink into it


@fast
def _height(scene, s, u, v):
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
def _roughen(scene, points, s, t, block, n):
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


@fast
def _gather(scene, normals, t, b, c, block, n):
    """Interpolate what the corners of triangle t hold into fragment n of the block."""
    size = shade.BLOCK
    a = np.float32(1) - b - c
    i, j, k = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    for axis in range(3):
        block[(shade.NX + axis) * size + n] = a * normals[i, axis] + b * normals[j, axis] + c * normals[k, axis]
    corners = scene.corners
    for q in range(CORNERS):
        block[(shade.U + q) * size + n] = a * corners[t, 0, q] + b * corners[t, 1, q] + c * corners[t, 2, q]
    for q in range(CORNERS, corners.shape[2]):
        row = shade.PAINT + q - CORNERS
        block[row * size + n] = a * corners[t, 0, q] + b * corners[t, 1, q] + c * corners[t, 2, q]


@exact
def _push(scene, shot, s, t, x, y, b, c, far, share, scratch, n):
    """Make fragment n of the block: triangle t at a pixel, with the weights of its corners and its share of the pixel."""
    block, size = scratch.block, shade.BLOCK
    _gather(scene, shot.normals, t, b, c, block, n)
    if scene.surfaces[s, BUMP_WIDTH] > 0:
        _roughen(scene, shot.points, s, t, block, n)
    block[shade.X * size + n], block[shade.Y * size + n] = np.float32(x + 0.5), np.float32(y + 0.5)
    block[shade.DEPTH * size + n] = far
    block[shade.WEIGHT * size + n] = np.float32(share) * np.float32(1 / SAMPLES)


@fast
def _finish(scene, shot, s, scratch, count, mode):
    """Texture, shadow and light for the block's fragments of one surface; then onto the picture, in their order."""
    block, color, row, size = scratch.block, scratch.color, scene.surfaces[s], shade.BLOCK
    shade.sample_texture(block, scratch.texel, count, scene.texels, row[TEXTURE], row[WIDTH], row[HEIGHT])
    if scene.corners.shape[2] > CORNERS:
        shade.tint_fragments(block, count)
    if len(shot.shadow) > 1:
        shadow_fragments(block, count, shot.eye, shot.sun, shot.shadow)
    shade.shade(block, count, scene.materials[s], row[KIND], row[TWO_SIDED], shot.eye)
    for i in range(count):
        at, weight = scratch.pixel[i] * 4, block[shade.WEIGHT * size + i]
        rest, covers = np.float32(1), weight
        if mode == _LAY_OVER:
            weight *= block[shade.ALPHA * size + i]
            rest, covers = np.float32(1) - weight, weight
        elif mode == _ADD:
            covers = np.float32(0)
        color[at] = color[at] * rest + weight * block[shade.RED * size + i]
        color[at + 1] = color[at + 1] * rest + weight * block[shade.GREEN * size + i]
        color[at + 2] = color[at + 2] * rest + weight * block[shade.BLUE * size + i]
        color[at + 3] = color[at + 3] * rest + covers


@exact
def paint(scene, shot, s, top, rows, width, scratch):
    """Shade what is seen of an opaque surface in the band."""
    owner, n = scratch.owner, np.int64(0)  # typed: a literal would be compiled for itself
    for m in range(scratch.order_from[s], scratch.order_from[s + 1]):
        t = scratch.order[m]
        if not scratch.seen[t] or scratch.reach[m, 1] < top or scratch.reach[m, 0] >= top + rows:
            continue
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = bounds_of(shot.screen, a, b, c, 0, top, width, top + rows)
        plane = plane_of(shot.screen, a, b, c)
        for y in range(y0, y1):
            for x in range(x0, x1):
                share, first = np.int64(0), np.uint64(sample_index(x, y - top, width))
                for k in range(np.uint64(SAMPLES)):
                    share += owner[first + k] == t
                if share == 0:
                    continue
                wb, wc, far = weights_at(plane, np.float32(x + 0.5), np.float32(y + 0.5))
                _push(scene, shot, s, t, x, y, wb, wc, far, share, scratch, n)
                scratch.pixel[n] = (y - top) * width + x
                n += 1
                if n == shade.BLOCK:
                    _finish(scene, shot, s, scratch, n, _SHARE)
                    n = np.int64(0)
    _finish(scene, shot, s, scratch, n, _SHARE)


@exact
def lay_over(scene, shot, s, top, rows, width, scratch):
    """Blend the sorted triangles of a surface over the band, or add their highlights to it."""
    mode = _ADD if scene.surfaces[s, MODE] == ADD else _LAY_OVER
    ahead = _HAIR_BEHIND if scene.surfaces[s, MODE] == HAIR else _CARD_AHEAD
    n = np.int64(0)
    for m in range(shot.sorted_from[s], shot.sorted_from[s + 1]):
        t = shot.sorted[m]
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = bounds_of(shot.screen, a, b, c, 0, top, width, top + rows)
        if x0 >= x1 or y0 >= y1:
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
                _push(scene, shot, s, t, x, y, wb, wc, far, share, scratch, n)
                scratch.pixel[n] = (y - top) * width + x
                n += 1
                if n == shade.BLOCK:
                    _finish(scene, shot, s, scratch, n, mode)
                    n = np.int64(0)
    _finish(scene, shot, s, scratch, n, mode)


@fast
def develop(color, background, top, rows, scale, out):
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
def draw(scene, shot, scale, scratch, out):
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
        scratch.seen[:] = np.uint8(0)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                cover(scene, shot.screen, s, top, rows, width, scratch)
        settle(scene.surface, rows, width, scratch.owner, scratch.depth, scratch.seen)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                paint(scene, shot, s, top, rows, width, scratch)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] >= HAIR:
                lay_over(scene, shot, s, top, rows, width, scratch)
        drawn += develop(scratch.color, scene.background, top, rows, scale, out)
    return drawn
