"""Which triangle is seen where, and what it looks like there.

Each pixel holds four coverage samples with a depth and an owning triangle. Coverage is decided in whole numbers, so that a
sample on an edge belongs to exactly one of two neighbours. A pixel is shaded once for each different surface among its
samples. Triangles of hair, brows and lashes are then blended over the picture from back to front, sample by sample tested
against the depth of the opaque picture. A picture is drawn in bands of rows that fit a processor's cache.

Nothing here starts threads or keeps state: a frame is one call that releases the interpreter lock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.render import shade
from sedtalker.resources import use_numba_cache

use_numba_cache()

from numba import njit  # noqa: E402

Float = NDArray[np.float32]
Int = NDArray[np.int32]

SAMPLES = 4
SUBPIXELS = 256  # steps of the coverage grid in a pixel
SAMPLE_X = (96, 224, 32, 160)  # a rotated grid, in subpixels
SAMPLE_Y = (32, 96, 160, 224)
BAND_ROWS = 32

NOBODY = -1
_SAME_SURFACE = 0.004  # relative depth within which samples of one surface are shaded together
_HAIR_CORE = 0.6  # opacity from which hair hides what is behind it
_FAINT = 0.02  # opacity below which nothing is drawn
_MARGIN = 8192.0  # pixels outside of the picture up to which triangles are drawn

# How a surface meets those behind it.
OPAQUE, HAIR, BLEND, ADD = 0, 1, 2, 3

# Columns of the table of surfaces.
FIRST, LAST, MODE, KIND, TWO_SIDED, TEXTURE, WIDTH, HEIGHT, BUMP, BUMP_WIDTH, BUMP_HEIGHT = range(11)
SURFACE_COLUMNS = 11

# Quantities at a triangle's corners.
CORNERS = 5  # texture coordinates u and v, ambient occlusion, key light, scalp


class Scene(NamedTuple):
    """What does not change from frame to frame; triangles of one surface are neighbours."""

    triangles: Int  # (M, 3) into the points
    corners: Float  # (M, 3, CORNERS)
    surface: Int  # (M,) row in the tables
    surfaces: Int  # (S, SURFACE_COLUMNS)
    materials: Float  # (S, shade.MATERIAL_COLUMNS)
    texels: NDArray[np.uint32]  # textures one after another, packed RGBA
    heights: Float  # bump maps one after another, metres
    background: Float  # (H, W, 3) displayed linear light


class Scratch(NamedTuple):
    """Working memory of one frame; one for each thread."""

    owner: Int  # (BAND_ROWS, W, SAMPLES) triangle, or NOBODY
    depth: Float  # (BAND_ROWS, W, SAMPLES) 1 / metres
    color: Float  # (BAND_ROWS, W, 4) linear RGB times coverage, and coverage
    seen: NDArray[np.uint8]  # (M,) whether a triangle owns samples of the band
    order: Int  # (M,) triangles that may be seen, surface by surface
    count: Int  # (S + 1,) where each surface begins in `order`
    block: Float  # (shade.ROWS * shade.BLOCK,)
    pixel: Int  # (shade.BLOCK,) row * width + column in the band


def make_scratch(width: int, triangles: int, surfaces: int) -> Scratch:
    """Working memory for pictures of this width."""
    return Scratch(
        owner=np.empty((BAND_ROWS, width, SAMPLES), np.int32),
        depth=np.empty((BAND_ROWS, width, SAMPLES), np.float32),
        color=np.empty((BAND_ROWS, width, 4), np.float32),
        seen=np.empty(triangles, np.uint8),
        order=np.empty(triangles, np.int32),
        count=np.empty(surfaces + 1, np.int32),
        block=np.zeros(shade.ROWS * shade.BLOCK, np.float32),
        pixel=np.empty(shade.BLOCK, np.int32),
    )


@njit(cache=True, nogil=True)
def _fixed(value):
    """Pixels -> subpixels."""
    return np.int64(np.floor(value * SUBPIXELS + 0.5))


@njit(cache=True, nogil=True)
def _area(screen, a, b, c):
    """Twice the signed area in subpixels; positive where the triangle faces the viewer."""
    ax, ay = _fixed(screen[a, 0]), _fixed(screen[a, 1])
    bx, by = _fixed(screen[b, 0]) - ax, _fixed(screen[b, 1]) - ay
    cx, cy = _fixed(screen[c, 0]) - ax, _fixed(screen[c, 1]) - ay
    return by * cx - bx * cy


@njit(cache=True, nogil=True)
def list_triangles(scene, screen, width, height, order, count):
    """Fill `order` with the triangles that face the viewer (or have two sides) and touch the picture."""
    kept = 0
    for s in range(len(scene.surfaces)):
        count[s] = kept
        two_sided = scene.surfaces[s, TWO_SIDED]
        for t in range(scene.surfaces[s, FIRST], scene.surfaces[s, LAST]):
            a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
            left = min(screen[a, 0], screen[b, 0], screen[c, 0])
            right = max(screen[a, 0], screen[b, 0], screen[c, 0])
            top = min(screen[a, 1], screen[b, 1], screen[c, 1])
            bottom = max(screen[a, 1], screen[b, 1], screen[c, 1])
            if right < 0 or left >= width or bottom < 0 or top >= height:
                continue
            if left < -_MARGIN or right > width + _MARGIN or top < -_MARGIN or bottom > height + _MARGIN:
                continue
            area = _area(screen, a, b, c)
            if area > 0 or (two_sided and area < 0):
                order[kept] = t
                kept += 1
    count[len(scene.surfaces)] = kept


@njit(cache=True, nogil=True)
def _edge(ax, ay, bx, by):
    """(step in x, step in y, value at the origin) of an edge function that is >= 0 inside, the edge itself only once."""
    dx, dy = by - ay, ax - bx
    own = 0 if dy > 0 or (dy == 0 and dx > 0) else -1
    return dx, dy, -(dx * ax + dy * ay) + own


@njit(cache=True, nogil=True)
def _bounds(screen, a, b, c, left, top, right, bottom):
    """Pixels (x0, y0, x1, y1), last ones excluded, that a triangle may touch within a rectangle."""
    x0 = max(left, int(np.floor(min(screen[a, 0], screen[b, 0], screen[c, 0]))))
    y0 = max(top, int(np.floor(min(screen[a, 1], screen[b, 1], screen[c, 1]))))
    x1 = min(right, int(np.floor(max(screen[a, 0], screen[b, 0], screen[c, 0]))) + 1)
    y1 = min(bottom, int(np.floor(max(screen[a, 1], screen[b, 1], screen[c, 1]))) + 1)
    return x0, y0, x1, y1


@njit(cache=True, nogil=True)
def _edges(screen, a, b, c):
    """The three edge functions of a triangle of either orientation."""
    ax, ay = _fixed(screen[a, 0]), _fixed(screen[a, 1])
    bx, by = _fixed(screen[b, 0]), _fixed(screen[b, 1])
    cx, cy = _fixed(screen[c, 0]), _fixed(screen[c, 1])
    if (by - ay) * (cx - ax) - (bx - ax) * (cy - ay) < 0:
        bx, by, cx, cy = cx, cy, bx, by
    return _edge(ax, ay, bx, by), _edge(bx, by, cx, cy), _edge(cx, cy, ax, ay)


@njit(cache=True, nogil=True)
def _inside(e0, e1, e2, x, y):
    """Bit mask of the pixel's samples inside three edges."""
    column, row = x * SUBPIXELS, y * SUBPIXELS
    f0 = e0[0] * column + e0[1] * row + e0[2]
    f1 = e1[0] * column + e1[1] * row + e1[2]
    f2 = e2[0] * column + e2[1] * row + e2[2]
    mask = 0
    for k in range(SAMPLES):
        g0 = f0 + e0[0] * SAMPLE_X[k] + e0[1] * SAMPLE_Y[k]
        g1 = f1 + e1[0] * SAMPLE_X[k] + e1[1] * SAMPLE_Y[k]
        g2 = f2 + e2[0] * SAMPLE_X[k] + e2[1] * SAMPLE_Y[k]
        if (g0 | g1 | g2) >= 0:
            mask |= 1 << k
    return mask


@njit(cache=True, nogil=True)
def _plane(screen, a, b, c):
    """What is linear on the screen: ((x, y, constant) of 1 / depth, and of corner b's and c's weight / depth)."""
    x0, y0 = screen[a, 0], screen[a, 1]
    x1, y1, x2, y2 = screen[b, 0] - x0, screen[b, 1] - y0, screen[c, 0] - x0, screen[c, 1] - y0
    over = np.float32(1) / (x1 * y2 - x2 * y1)
    bx, by = y2 * over, -x2 * over
    cx, cy = -y1 * over, x1 * over
    za, zb, zc = screen[a, 2], screen[b, 2], screen[c, 2]
    zx, zy = (zb - za) * bx + (zc - za) * cx, (zb - za) * by + (zc - za) * cy
    depth = (zx, zy, za - zx * x0 - zy * y0)
    weight_b = (zb * bx, zb * by, -zb * (bx * x0 + by * y0))
    weight_c = (zc * cx, zc * cy, -zc * (cx * x0 + cy * y0))
    return depth, weight_b, weight_c


@njit(cache=True, nogil=True)
def _weights(plane, x, y):
    """(weight of b, weight of c, depth in metres) at a point of the screen, perspective-correct, within the triangle."""
    depth, weight_b, weight_c = plane
    far = np.float32(1) / (depth[0] * x + depth[1] * y + depth[2])
    b = (weight_b[0] * x + weight_b[1] * y + weight_b[2]) * far
    c = (weight_c[0] * x + weight_c[1] * y + weight_c[2]) * far
    b = min(max(b, np.float32(0)), np.float32(1))
    c = min(max(c, np.float32(0)), np.float32(1) - b)
    return b, c, far


@njit(cache=True, nogil=True)
def _opacity(scene, s, t, b, c):
    """The nearest texel's opacity in 0...255."""
    a = np.float32(1) - b - c
    width, height = scene.surfaces[s, WIDTH], scene.surfaces[s, HEIGHT]
    u = a * scene.corners[t, 0, 0] + b * scene.corners[t, 1, 0] + c * scene.corners[t, 2, 0]
    v = a * scene.corners[t, 0, 1] + b * scene.corners[t, 1, 1] + c * scene.corners[t, 2, 1]
    column = min(max(int(u * width), 0), width - 1)
    row = min(max(int((np.float32(1) - v) * height), 0), height - 1)
    return scene.texels[scene.surfaces[s, TEXTURE] + row * width + column] >> 24


@njit(cache=True, nogil=True)
def cover(scene, screen, s, top, rows, width, scratch):
    """Give samples of the band to the triangles of an opaque surface, or of the opaque core of hair."""
    owner, depth, order = scratch.owner, scratch.depth, scratch.order
    tested = scene.surfaces[s, MODE] == HAIR
    core = int(_HAIR_CORE * 255)
    for n in range(scratch.count[s], scratch.count[s + 1]):
        t = order[n]
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = _bounds(screen, a, b, c, 0, top, width, top + rows)
        if x0 >= x1 or y0 >= y1:
            continue
        e0, e1, e2 = _edges(screen, a, b, c)
        plane = _plane(screen, a, b, c)
        near = plane[0]
        for y in range(y0, y1):
            for x in range(x0, x1):
                mask = _inside(e0, e1, e2, x, y)
                if mask == 0:
                    continue
                if tested:
                    wb, wc, _ = _weights(plane, np.float32(x + 0.5), np.float32(y + 0.5))
                    if _opacity(scene, s, t, wb, wc) < core:
                        continue
                at = near[0] * x + near[1] * y + near[2]
                for k in range(SAMPLES):
                    z = (
                        at
                        + near[0] * np.float32(SAMPLE_X[k] / SUBPIXELS)
                        + near[1] * np.float32(SAMPLE_Y[k] / SUBPIXELS)
                    )
                    if mask & (1 << k) and z > depth[y - top, x, k]:
                        depth[y - top, x, k] = z
                        owner[y - top, x, k] = t


@njit(cache=True, nogil=True)
def settle(surface, rows, width, owner, depth, seen):
    """Let one triangle speak for all samples of a pixel that show one surface at one depth; mark those that speak."""
    for y in range(rows):
        for x in range(width):
            first = owner[y, x, 0]
            if first == owner[y, x, 1] and first == owner[y, x, 2] and first == owner[y, x, 3]:
                if first >= 0:
                    seen[first] = 1
                continue
            for j in range(SAMPLES):
                mine = owner[y, x, j]
                if mine < 0:
                    continue
                z = depth[y, x, j]
                for i in range(j):
                    other = owner[y, x, i]
                    if other >= 0 and surface[other] == surface[mine] and abs(depth[y, x, i] - z) < _SAME_SURFACE * z:
                        owner[y, x, j] = other
                        break
                seen[owner[y, x, j]] = 1


@njit(cache=True, nogil=True, fastmath=True)
def _gather(scene, normals, t, b, c, block, n):
    """Interpolate what the corners hold into fragment n of the block."""
    size = shade.BLOCK
    a = np.float32(1) - b - c
    i, j, k = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    for axis in range(3):
        block[(shade.NX + axis) * size + n] = a * normals[i, axis] + b * normals[j, axis] + c * normals[k, axis]
    corners = scene.corners
    for q in range(CORNERS):
        block[(shade.U + q) * size + n] = a * corners[t, 0, q] + b * corners[t, 1, q] + c * corners[t, 2, q]


@njit(cache=True, nogil=True, fastmath=True)
def _shade_block(scene, view, s, block, count):
    """Texture and light for the block's fragments of one surface."""
    row = scene.surfaces[s]
    shade.sample_texture(block, count, scene.texels, row[TEXTURE], row[WIDTH], row[HEIGHT])
    shade.shade(block, count, scene.materials[s], row[KIND], row[TWO_SIDED], view)


@njit(cache=True, nogil=True, fastmath=True)
def _put(scratch, count):
    """Add the block's fragments to the picture by their share of the pixel."""
    block, color = scratch.block, scratch.color.reshape(-1)
    size = shade.BLOCK
    for i in range(count):
        at, weight = scratch.pixel[i] * 4, block[shade.WEIGHT * size + i]
        color[at] += weight * block[shade.RED * size + i]
        color[at + 1] += weight * block[shade.GREEN * size + i]
        color[at + 2] += weight * block[shade.BLUE * size + i]
        color[at + 3] += weight


@njit(cache=True, nogil=True, fastmath=True)
def _blend(scratch, count, adds):
    """Lay the block's fragments over the picture in their order, or add them to it."""
    block, color = scratch.block, scratch.color.reshape(-1)
    size = shade.BLOCK
    for i in range(count):
        at, weight = scratch.pixel[i] * 4, block[shade.WEIGHT * size + i]
        if not adds:
            weight *= block[shade.ALPHA * size + i]
        rest = np.float32(1) if adds else np.float32(1) - weight
        color[at] = color[at] * rest + weight * block[shade.RED * size + i]
        color[at + 1] = color[at + 1] * rest + weight * block[shade.GREEN * size + i]
        color[at + 2] = color[at + 2] * rest + weight * block[shade.BLUE * size + i]
        if not adds:
            color[at + 3] = color[at + 3] * rest + weight


@njit(cache=True, nogil=True)
def paint(scene, screen, normals, view, s, top, rows, width, scratch):
    """Shade what is seen of an opaque surface in the band."""
    owner, block = scratch.owner, scratch.block
    size, n = shade.BLOCK, 0
    for m in range(scratch.count[s], scratch.count[s + 1]):
        t = scratch.order[m]
        if not scratch.seen[t]:
            continue
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = _bounds(screen, a, b, c, 0, top, width, top + rows)
        plane = _plane(screen, a, b, c)
        for y in range(y0, y1):
            for x in range(x0, x1):
                mine = owner[y - top, x]
                share = int(mine[0] == t) + int(mine[1] == t) + int(mine[2] == t) + int(mine[3] == t)
                if share == 0:
                    continue
                px, py = np.float32(x + 0.5), np.float32(y + 0.5)
                wb, wc, far = _weights(plane, px, py)
                _gather(scene, normals, t, wb, wc, block, n)
                block[shade.X * size + n], block[shade.Y * size + n], block[shade.DEPTH * size + n] = px, py, far
                block[shade.WEIGHT * size + n] = np.float32(share * 0.25)
                scratch.pixel[n] = (y - top) * width + x
                n += 1
                if n == size:
                    _shade_block(scene, view, s, block, n)
                    _put(scratch, n)
                    n = 0
    _shade_block(scene, view, s, block, n)
    _put(scratch, n)


@njit(cache=True, nogil=True)
def lay_over(scene, screen, normals, view, s, sorted_triangles, nearer, top, rows, width, scratch):
    """Blend the sorted triangles of a surface over the band; `nearer` scales 1 / depth in the test against the picture."""
    depth, block = scratch.depth, scratch.block
    size, n = shade.BLOCK, 0
    adds = scene.surfaces[s, MODE] == ADD
    for m in range(len(sorted_triangles)):
        t = sorted_triangles[m]
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = _bounds(screen, a, b, c, 0, top, width, top + rows)
        if x0 >= x1 or y0 >= y1:
            continue
        e0, e1, e2 = _edges(screen, a, b, c)
        plane = _plane(screen, a, b, c)
        near = plane[0]
        for y in range(y0, y1):
            for x in range(x0, x1):
                mask = _inside(e0, e1, e2, x, y)
                if mask == 0:
                    continue
                at = near[0] * x + near[1] * y + near[2]
                share = 0
                for k in range(SAMPLES):
                    z = (
                        at
                        + near[0] * np.float32(SAMPLE_X[k] / SUBPIXELS)
                        + near[1] * np.float32(SAMPLE_Y[k] / SUBPIXELS)
                    )
                    if mask & (1 << k) and z * nearer > depth[y - top, x, k]:
                        share += 1
                if share == 0:
                    continue
                px, py = np.float32(x + 0.5), np.float32(y + 0.5)
                wb, wc, far = _weights(plane, px, py)
                if not adds and _opacity(scene, s, t, wb, wc) < _FAINT * 255:
                    continue
                _gather(scene, normals, t, wb, wc, block, n)
                block[shade.X * size + n], block[shade.Y * size + n], block[shade.DEPTH * size + n] = px, py, far
                block[shade.WEIGHT * size + n] = np.float32(share * 0.25)
                scratch.pixel[n] = (y - top) * width + x
                n += 1
                if n == size:
                    _shade_block(scene, view, s, block, n)
                    _blend(scratch, n, adds)
                    n = 0
    _shade_block(scene, view, s, block, n)
    _blend(scratch, n, adds)


@njit(cache=True, nogil=True, fastmath=True)
def develop(color, background, top, rows, scale, out):
    """The band's light over the background as sRGB bytes, `scale` x `scale` pixels to one; returns the pixels drawn on.

    `out` is (H, W, 3) and holds the background already, or (H, W, 4) and gets coverage as its fourth channel.
    """
    drawn = 0
    share = np.float32(1 / (scale * scale))
    step = np.float32((shade.TONE_STEPS - 1) / shade.TONE_RANGE)
    last = np.float32(shade.TONE_STEPS - 1)
    for y in range(rows // scale):
        for x in range(out.shape[1]):
            red = green = blue = covered = np.float32(0)
            for j in range(scale):
                for i in range(scale):
                    red += color[y * scale + j, x * scale + i, 0]
                    green += color[y * scale + j, x * scale + i, 1]
                    blue += color[y * scale + j, x * scale + i, 2]
                    covered += color[y * scale + j, x * scale + i, 3]
            covered *= share
            if covered <= 0:
                continue
            drawn += 1
            row = top // scale + y
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


@njit(cache=True, nogil=True)
def draw(scene, screen, normals, view, sorted_triangles, sorted_count, scale, scratch, out):
    """Draw a frame into `out`; returns the number of pixels that something was drawn on.

    Args:
        scene: what does not change.
        screen: (P, 3) float32, points in pixels and 1 / depth.
        normals: (P, 3) float32.
        view: (15,) float32, see `shade.shade`.
        sorted_triangles: triangles to blend, surface by surface from back to front.
        sorted_count: (S + 1,) where each surface begins among them.
        scale: pixels drawn to a pixel of the picture, along each side.
        scratch: working memory.
        out: (H, W, 3 or 4) uint8.
    """
    height, width = out.shape[0] * scale, out.shape[1] * scale
    surfaces = scene.surfaces
    drawn = 0
    list_triangles(scene, screen, width, height, scratch.order, scratch.count)
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        scratch.owner[:] = NOBODY
        scratch.depth[:] = np.float32(0)
        scratch.color[:] = np.float32(0)
        scratch.seen[:] = np.uint8(0)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                cover(scene, screen, s, top, rows, width, scratch)
        settle(scene.surface, rows, width, scratch.owner, scratch.depth, scratch.seen)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                paint(scene, screen, normals, view, s, top, rows, width, scratch)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] >= HAIR:
                nearer = np.float32(1 - 1e-5) if surfaces[s, MODE] == HAIR else np.float32(1.0015)
                chosen = sorted_triangles[sorted_count[s] : sorted_count[s + 1]]
                lay_over(scene, screen, normals, view, s, chosen, nearer, top, rows, width, scratch)
        drawn += develop(scratch.color, scene.background, top, rows, scale, out)
    return drawn
