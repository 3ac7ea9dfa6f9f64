"""Which triangle is seen at which sample.

Each pixel holds four coverage samples with a depth and an owning triangle. Coverage is decided in whole numbers, so
that a sample on an edge belongs to exactly one of two neighbours, on every machine.
"""

from __future__ import annotations

import numpy as np

from sedtalker.render.arrays import Float, Index, Int
from sedtalker.render.buffers import (
    CHUNK,
    FIRST,
    HEIGHT,
    LANES,
    LAST,
    MIXED,
    SAMPLES,
    SOLID,
    TEXTURE,
    TWO_SIDED,
    WIDTH,
    Scene,
    Scratch,
)
from sedtalker.render.compiled import exact, inlined

Edge = tuple[float, float, float]  # steps in x and y, and the value at the origin
Line = tuple[float, float, float]  # the same, of what is linear on the screen
Plane = tuple[Line, Line, Line]  # 1 / depth, and the weights of corners b and c over depth
Box = tuple[int, int, int, int]  # left, top, right and bottom pixels, the last two excluded

SUBPIXELS = 16  # steps of the coverage grid in a pixel
SAMPLE_X = np.array((6, 14, 2, 10), np.float64)  # a rotated grid, in subpixels
SAMPLE_Y = np.array((2, 6, 10, 14), np.float64)
_LANE_X = np.repeat(np.arange(CHUNK) * float(SUBPIXELS), SAMPLES) + np.tile(SAMPLE_X, CHUNK)
_LANE_Y = np.tile(SAMPLE_Y, CHUNK)
_FAR = float(1 << 23)  # an edge function beyond it has one sign in the whole chunk; sums below are exact in float32

NOBODY = np.uint32(0xFFFFFFFF)
HAIR_CORE = 0.6  # opacity from which hair hides what is behind it
_SAME_SURFACE = 0.004  # relative depth within which samples of one surface are shaded together
_MARGIN = 8192.0  # pixels outside of the picture up to which triangles are drawn


@inlined
def _fixed(value: float) -> float:
    """Pixels -> subpixels, a whole number (float64 holds all products of two of them exactly)."""
    return np.floor(np.float64(value) * SUBPIXELS + 0.5)


@exact
def area_of(screen: Float, a: int, b: int, c: int) -> float:
    """Twice the signed area in subpixels; positive where the triangle faces the viewer."""
    ax, ay = _fixed(screen[a, 0]), _fixed(screen[a, 1])
    bx, by = _fixed(screen[b, 0]) - ax, _fixed(screen[b, 1]) - ay
    cx, cy = _fixed(screen[c, 0]) - ax, _fixed(screen[c, 1]) - ay
    return by * cx - bx * cy


@exact
def list_triangles(
    scene: Scene, screen: Float, width: int, height: int, order: Index, reach: Int, order_from: Int
) -> None:
    """Fill `order` with the triangles that face the viewer (or have two sides) and touch the picture."""
    kept = 0
    for s in range(len(scene.surfaces)):
        order_from[s] = kept
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
            area = area_of(screen, a, b, c)
            if area > 0 or (two_sided and area < 0):
                order[kept] = t
                reach[kept, 0], reach[kept, 1] = int(np.floor(top)), int(np.floor(bottom))
                kept += 1
    order_from[len(scene.surfaces)] = kept


@inlined
def _edge(ax: float, ay: float, bx: float, by: float) -> Edge:
    """(step in x, step in y, value at the origin) of a function that is >= 0 inside; an edge has one inner side."""
    dx, dy = by - ay, ax - bx
    own = 0.0 if dy > 0 or (dy == 0 and dx > 0) else -1.0
    return dx, dy, -(dx * ax + dy * ay) + own


@inlined
def bounds_of(screen: Float, a: int, b: int, c: int, left: int, top: int, right: int, bottom: int) -> Box:
    """Pixels (x0, y0, x1, y1), last ones excluded, that a triangle may touch within a rectangle."""
    x0 = max(left, int(np.floor(min(screen[a, 0], screen[b, 0], screen[c, 0]))))
    y0 = max(top, int(np.floor(min(screen[a, 1], screen[b, 1], screen[c, 1]))))
    x1 = min(right, int(np.floor(max(screen[a, 0], screen[b, 0], screen[c, 0]))) + 1)
    y1 = min(bottom, int(np.floor(max(screen[a, 1], screen[b, 1], screen[c, 1]))) + 1)
    return x0, y0, x1, y1


@inlined
def edges_of(screen: Float, a: int, b: int, c: int) -> tuple[Edge, Edge, Edge]:
    """The three edge functions of a triangle of either orientation."""
    ax, ay = _fixed(screen[a, 0]), _fixed(screen[a, 1])
    bx, by = _fixed(screen[b, 0]), _fixed(screen[b, 1])
    cx, cy = _fixed(screen[c, 0]), _fixed(screen[c, 1])
    if (by - ay) * (cx - ax) - (bx - ax) * (cy - ay) < 0:
        bx, by, cx, cy = cx, cy, bx, by
    return _edge(ax, ay, bx, by), _edge(bx, by, cx, cy), _edge(cx, cy, ax, ay)


@inlined
def inside(e0: Edge, e1: Edge, e2: Edge, x: int, y: int) -> int:
    """Bit mask of the pixel's samples inside three edges."""
    f0, f1, f2 = edge_at(e0, x, y), edge_at(e1, x, y), edge_at(e2, x, y)
    mask = 0
    for k in range(SAMPLES):
        g0 = f0 + e0[0] * SAMPLE_X[k] + e0[1] * SAMPLE_Y[k]
        g1 = f1 + e1[0] * SAMPLE_X[k] + e1[1] * SAMPLE_Y[k]
        g2 = f2 + e2[0] * SAMPLE_X[k] + e2[1] * SAMPLE_Y[k]
        if g0 >= 0 and g1 >= 0 and g2 >= 0:
            mask |= 1 << k
    return mask


@inlined
def plane_of(screen: Float, a: int, b: int, c: int) -> Plane:
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


@inlined
def weights_at(plane: Plane, x: float, y: float) -> tuple[float, float, float]:
    """(weight of b, weight of c, depth in metres) at a point of the screen: perspective-correct, never outside."""
    depth, weight_b, weight_c = plane
    far = np.float32(1) / (depth[0] * x + depth[1] * y + depth[2])
    b = (weight_b[0] * x + weight_b[1] * y + weight_b[2]) * far
    c = (weight_c[0] * x + weight_c[1] * y + weight_c[2]) * far
    b = min(max(b, np.float32(0)), np.float32(1))
    c = min(max(c, np.float32(0)), np.float32(1) - b)
    return b, c, far


@inlined
def opacity_at(scene: Scene, s: int, t: int, b: float, c: float) -> int:
    """The nearest texel's opacity in 0...255."""
    a = np.float32(1) - b - c
    width, height = scene.surfaces[s, WIDTH], scene.surfaces[s, HEIGHT]
    u = a * scene.corners[t, 0, 0] + b * scene.corners[t, 1, 0] + c * scene.corners[t, 2, 0]
    v = a * scene.corners[t, 0, 1] + b * scene.corners[t, 1, 1] + c * scene.corners[t, 2, 1]
    column = min(max(int(u * width), 0), width - 1)
    row = min(max(int((np.float32(1) - v) * height), 0), height - 1)
    return scene.texels[scene.surfaces[s, TEXTURE] + row * width + column] >> 24


@inlined
def _fill(
    edges: Float,
    slope: Float,
    f0: float,
    f1: float,
    f2: float,
    z: float,
    triangle: int,
    first: int,
    depth: Float,
    owner: Index,
) -> None:
    """Give a chunk's samples inside three edges, and nearer than what is there, to a triangle.

    `f0`, `f1`, `f2` and `z` are the edge functions and 1 / depth at the chunk's corner, `first` is its first sample.
    """
    second, third = np.uint64(LANES), np.uint64(2 * LANES)
    for i in range(np.uint64(len(slope))):
        within = min(min(f0 + edges[i], f1 + edges[second + i]), f2 + edges[third + i])
        nearness, before = z + slope[i], depth[first + i]
        takes = (within >= 0) & (nearness > before)
        depth[first + i] = nearness if takes else before
        owner[first + i] = triangle if takes else owner[first + i]


@inlined
def _cover_solid(
    screen: Float, t: int, a: int, b: int, c: int, box: Box, top: int, width: int, scratch: Scratch
) -> None:
    """Give samples to a triangle that hides whatever is behind it."""
    e0, e1, e2 = edges_of(screen, a, b, c)
    near = plane_of(screen, a, b, c)[0]
    edges, slope = scratch.edges, scratch.slope
    for i in range(LANES):
        edges[i] = np.float32(e0[0] * _LANE_X[i] + e0[1] * _LANE_Y[i])
        edges[LANES + i] = np.float32(e1[0] * _LANE_X[i] + e1[1] * _LANE_Y[i])
        edges[2 * LANES + i] = np.float32(e2[0] * _LANE_X[i] + e2[1] * _LANE_Y[i])
        slope[i] = (near[0] * np.float32(_LANE_X[i]) + near[1] * np.float32(_LANE_Y[i])) * np.float32(1 / SUBPIXELS)
    most0, most1, most2 = _most(e0), _most(e1), _most(e2)
    x0, y0, x1, y1 = box
    for y in range(y0, y1):
        for x in range(x0, x1, CHUNK):
            f0, f1, f2 = edge_at(e0, x, y), edge_at(e1, x, y), edge_at(e2, x, y)
            if f0 + most0 < 0 or f1 + most1 < 0 or f2 + most2 < 0:
                continue
            z = near[0] * np.float32(x) + near[1] * np.float32(y) + near[2]
            first = np.uint64(sample_index(x, y - top, width))
            _fill(edges, slope, _near(f0), _near(f1), _near(f2), z, t, first, scratch.depth, scratch.owner)


@inlined
def sample_index(x: int, row: int, width: int) -> int:
    """Where the samples of a pixel begin in a band's owner and depth."""
    return (row * (width + CHUNK) + x) * SAMPLES


@inlined
def _near(value: float) -> float:
    """An edge function in single precision, exact where its sign may change within a chunk."""
    return np.float32(min(max(value, -_FAR), _FAR))


@inlined
def edge_at(edge: Edge, x: int, y: int) -> float:
    """An edge function at the corner of a pixel."""
    return edge[0] * float(x * SUBPIXELS) + edge[1] * float(y * SUBPIXELS) + edge[2]


@inlined
def _most(edge: Edge) -> float:
    """What an edge function may gain within a chunk."""
    return max(edge[0], 0.0) * (CHUNK * SUBPIXELS) + max(edge[1], 0.0) * SUBPIXELS


@inlined
def nearness_at(near: Line, x: int, y: int, k: int) -> float:
    """1 / depth at sample k of a pixel."""
    column = np.float32(x) + np.float32(SAMPLE_X[k] / SUBPIXELS)
    row = np.float32(y) + np.float32(SAMPLE_Y[k] / SUBPIXELS)
    return near[0] * column + near[1] * row + near[2]


@inlined
def _cover_mixed(
    scene: Scene,
    screen: Float,
    s: int,
    t: int,
    a: int,
    b: int,
    c: int,
    box: Box,
    top: int,
    width: int,
    scratch: Scratch,
) -> None:
    """Give samples to a triangle where its texture is opaque enough."""
    e0, e1, e2 = edges_of(screen, a, b, c)
    plane = plane_of(screen, a, b, c)
    core = int(HAIR_CORE * 255)
    x0, y0, x1, y1 = box
    for y in range(y0, y1):
        for x in range(x0, x1):
            mask = inside(e0, e1, e2, x, y)
            if mask == 0:
                continue
            wb, wc, _ = weights_at(plane, np.float32(x + 0.5), np.float32(y + 0.5))
            if opacity_at(scene, s, t, wb, wc) < core:
                continue
            first = sample_index(x, y - top, width)
            for k in range(SAMPLES):
                z = nearness_at(plane[0], x, y, k)
                if mask & (1 << k) and z > scratch.depth[first + k]:
                    scratch.depth[first + k] = z
                    scratch.owner[first + k] = t


@exact
def cover(scene: Scene, screen: Float, s: int, top: int, rows: int, width: int, scratch: Scratch) -> None:
    """Give samples of the band to the triangles of an opaque surface, or of the opaque core of hair."""
    for n in range(scratch.order_from[s], scratch.order_from[s + 1]):
        if scratch.reach[n, 1] < top or scratch.reach[n, 0] >= top + rows:
            continue
        t = scratch.order[n]
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        box = bounds_of(screen, a, b, c, 0, top, width, top + rows)
        if scene.opacity[t] == SOLID:
            _cover_solid(screen, t, a, b, c, box, top, width, scratch)
        elif scene.opacity[t] == MIXED:
            _cover_mixed(scene, screen, s, t, a, b, c, box, top, width, scratch)


@inlined
def shows_one(surface: Int, owner: Index, depth: Float, first: int) -> bool:
    """Whether all samples of a pixel, from `first` on, show one surface at one depth: most pixels do."""
    a, b, c, d = owner[first], owner[first + 1], owner[first + 2], owner[first + 3]
    if a == NOBODY or b == NOBODY or c == NOBODY or d == NOBODY:
        return False
    if surface[a] != surface[b] or surface[a] != surface[c] or surface[a] != surface[d]:
        return False
    near = max(max(depth[first], depth[first + 1]), max(depth[first + 2], depth[first + 3]))
    far = min(min(depth[first], depth[first + 1]), min(depth[first + 2], depth[first + 3]))
    return near - far < _SAME_SURFACE * near


@inlined
def settle(surface: Int, owner: Index, depth: Float, first: int) -> None:
    """Let one triangle speak for all samples of a pixel, from `first` on, that show one surface at one depth."""
    for j in range(first, first + SAMPLES):
        mine, z = owner[j], depth[j]
        if mine == NOBODY:
            continue
        for i in range(first, j):
            other = owner[i]
            if other != NOBODY and surface[other] == surface[mine] and abs(depth[i] - z) < _SAME_SURFACE * z:
                owner[j] = other
                break


@inlined
def share_of(owner: Index, first: int, j: int) -> int:
    """How many of the pixel's samples sample j speaks for: those of its triangle, if it is the first of them."""
    share = np.int64(0)
    for k in range(SAMPLES):
        if owner[first + k] == owner[first + j]:
            if k < j:
                return np.int64(0)
            share += 1
    return share
