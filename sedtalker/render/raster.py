"""Which triangle is seen at which sample.

Each pixel holds four coverage samples with a depth and an owning triangle. Coverage is decided in whole numbers, so
that a sample on an edge belongs to exactly one of two neighbours, on every machine.
"""

from __future__ import annotations

import numpy as np

from sedtalker.render.arrays import Float, Index, Int
from sedtalker.render.buffers import (
    BAND_ROWS,
    CHUNK,
    CLEAR,
    FIRST,
    HEIGHT,
    LANES,
    LAST,
    MIXED,
    NO_TRIANGLE,
    PLANE,
    SAME_SURFACE,
    SAMPLES,
    SOLID,
    SUBPIXELS,
    TEXTURE,
    TILE_ROWS,
    TWO_SIDED,
    WIDTH,
    Scene,
    Scratch,
)
from sedtalker.render.compiled import compiled, inlined
from sedtalker.render.shade import U, V
from sedtalker.render.vectors import Line, give_samples, least_in_tile, samples_within

Edge = tuple[float, float, float]  # steps in x and y, and the value at the origin
Sides = tuple[float, float, float, float]
Edges = tuple[Edge, Edge, Edge]
Values = tuple[float, float, float]  # of the edges at a pixel's corner
Plane = tuple[Line, Line, Line]  # 1 / depth, and the weights of corners b and c over depth
Box = tuple[int, int, int, int]  # left, top, right and bottom pixels, the last two excluded

ALL_SAMPLES = (1 << SAMPLES) - 1  # of a pixel, as a bit mask
EVERY_SAMPLE = (1 << LANES) - 1  # of a chunk
_FAR = float(1 << 23)  # pixels, beyond all pictures

HAIR_CORE = 0.6  # opacity from which hair hides what is behind it
_FRESH = 256  # triangles drawn before it is looked up anew what they hide
_MARGIN = 8192.0  # pixels outside of the picture up to which triangles are drawn


@inlined
def _fixed(value: float) -> float:
    """Pixels -> subpixels, a whole number (float64 holds all products of two of them exactly)."""
    return np.floor(np.float64(value) * SUBPIXELS + 0.5)


@compiled
def area_of(screen: Float, a: int, b: int, c: int) -> float:
    """Twice the signed area in subpixels; positive where the triangle faces the viewer."""
    ax, ay = _fixed(screen[a, 0]), _fixed(screen[a, 1])
    bx, by = _fixed(screen[b, 0]) - ax, _fixed(screen[b, 1]) - ay
    cx, cy = _fixed(screen[c, 0]) - ax, _fixed(screen[c, 1]) - ay
    return by * cx - bx * cy


@compiled
def list_triangles(
    scene: Scene, screen: Float, sorted_: Index, sorted_from: Int, width: int, height: int, scratch: Scratch
) -> int:
    """List the triangles that face the viewer (or have two sides) and touch the picture, by surface and band of rows.

    In each list come first those that hide all behind them, then those to blend, in the order of `sorted_`.
    Returns how many entries the lists need; where `scratch.order` has fewer, it is not filled.
    """
    bands = count_bands(height)
    reach, order_from = scratch.reach, scratch.order_from
    order_from[:] = 0
    for s in range(len(scene.surfaces)):
        for t in range(scene.surfaces[s, FIRST], scene.surfaces[s, LAST]):
            first, last = _bands_of(scene, screen, s, t, width, height)
            reach[t, 0], reach[t, 1] = first, last
            for band in range(first, last + 1):
                order_from[s * bands + band + 2] += 1
    # Counts become the places where each list begins, one further on; filling moves them to where they belong.
    for place in range(2, len(order_from)):
        order_from[place] += order_from[place - 1]
    needed = order_from[len(order_from) - 1]
    if needed > len(scratch.order):
        return needed
    for s in range(len(scene.surfaces)):
        for t in range(scene.surfaces[s, FIRST], scene.surfaces[s, LAST]):
            if scene.opacity[t] == SOLID:
                _enter(t, s * bands, scratch)
        for m in range(sorted_from[s], sorted_from[s + 1]):
            _enter(sorted_[m], s * bands, scratch)
    return needed


@inlined
def _enter(t: int, lists: int, scratch: Scratch) -> None:
    """Put a triangle at the end of the lists of the bands it touches."""
    for band in range(scratch.reach[t, 0], scratch.reach[t, 1] + 1):
        place = scratch.order_from[lists + band + 1]
        scratch.order[place] = t
        scratch.order_from[lists + band + 1] = place + 1


@inlined
def count_bands(height: int) -> int:
    """Bands of rows in a picture."""
    return (height + BAND_ROWS - 1) // BAND_ROWS


@inlined
def _bands_of(scene: Scene, screen: Float, s: int, t: int, width: int, height: int) -> tuple[int, int]:
    """First and last band in which a triangle may be seen; the last before the first where it cannot."""
    a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    left = min(screen[a, 0], screen[b, 0], screen[c, 0])
    right = max(screen[a, 0], screen[b, 0], screen[c, 0])
    top = min(screen[a, 1], screen[b, 1], screen[c, 1])
    bottom = max(screen[a, 1], screen[b, 1], screen[c, 1])
    if right < 0 or left >= width or bottom < 0 or top >= height:
        return 0, -1
    if left < -_MARGIN or right > width + _MARGIN or top < -_MARGIN or bottom > height + _MARGIN:
        return 0, -1
    area = area_of(screen, a, b, c)
    if area == 0 or (area < 0 and not scene.surfaces[s, TWO_SIDED]):
        return 0, -1
    return int(max(top, 0)) // BAND_ROWS, int(min(bottom, height - 1)) // BAND_ROWS


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
def edges_of(screen: Float, a: int, b: int, c: int) -> Edges:
    """The three edge functions of a triangle of either orientation."""
    ax, ay = _fixed(screen[a, 0]), _fixed(screen[a, 1])
    bx, by = _fixed(screen[b, 0]), _fixed(screen[b, 1])
    cx, cy = _fixed(screen[c, 0]), _fixed(screen[c, 1])
    if (by - ay) * (cx - ax) - (bx - ax) * (cy - ay) < 0:
        bx, by, cx, cy = cx, cy, bx, by
    return _edge(ax, ay, bx, by), _edge(bx, by, cx, cy), _edge(cx, cy, ax, ay)


@inlined
def sides_of(edge: Edge) -> Sides:
    """(left, step, right, step): pixels between which an edge lets a row of pixels be inside, and their step a row."""
    dx, dy, value = edge
    if dx == 0:
        return -_FAR, 0.0, _FAR, 0.0
    over = 1.0 / (dx * SUBPIXELS)
    at, step = -value * over, -dy * SUBPIXELS * over
    if dx > 0:
        return at + min(step, 0.0), step, _FAR, 0.0
    return -_FAR, 0.0, at + max(step, 0.0), step


@inlined
def span_of(edges: Edges, y: int, x0: int, x1: int) -> tuple[int, int]:
    """First and last pixel, the last excluded, that a triangle may touch in a row and within a rectangle.

    A rectangle of few chunks is looked through faster than this is reckoned.
    """
    if x1 - x0 <= CHUNK:
        return x0, x1
    row, left, right = float(y), float(x0), x1 - 1.0
    for k in range(3):
        a, step_a, e, step_e = sides_of(edges[k])
        left, right = max(left, a + step_a * row), min(right, e + step_e * row)
    return int(left), int(right) + 1


@inlined
def values_at(edges: Edges, x: int, y: int) -> Values:
    """The edge functions at the corner of a pixel."""
    column, row = float(x * SUBPIXELS), float(y * SUBPIXELS)
    (ax, ay, a), (bx, by, b), (cx, cy, c) = edges
    return ax * column + ay * row + a, bx * column + by * row + b, cx * column + cy * row + c


@inlined
def next_chunk(edges: Edges, values: Values) -> Values:
    """The edge functions a chunk further to the right; whole numbers, so nothing is lost on the way."""
    step = float(CHUNK * SUBPIXELS)
    return values[0] + step * edges[0][0], values[1] + step * edges[1][0], values[2] + step * edges[2][0]


@inlined
def plane_of(screen: Float, a: int, b: int, c: int) -> Plane:
    """What is linear on the screen: ((x, y, constant) of 1 / depth, and of corner b's and c's weight / depth)."""
    x0, y0 = screen[a, 0], screen[a, 1]
    x1, y1, x2, y2 = screen[b, 0] - x0, screen[b, 1] - y0, screen[c, 0] - x0, screen[c, 1] - y0
    area = x1 * y2 - x2 * y1
    over = np.float32(1) / area if area != 0 else np.float32(0)  # one that only rounding kept open is flat
    bx, by = y2 * over, -x2 * over
    cx, cy = -y1 * over, x1 * over
    za, zb, zc = screen[a, 2], screen[b, 2], screen[c, 2]
    zx, zy = (zb - za) * bx + (zc - za) * cx, (zb - za) * by + (zc - za) * cy
    depth = (zx, zy, za - zx * x0 - zy * y0)
    weight_b = (zb * bx, zb * by, -zb * (bx * x0 + by * y0))
    weight_c = (zc * cx, zc * cy, -zc * (cx * x0 + cy * y0))
    return depth, weight_b, weight_c


@inlined
def keep_plane(plane: Plane, t: int, planes: Float) -> None:
    """Lay a triangle's plane down as `vectors.planes_at` reads it: steps in x, steps in y, values, each in fours."""
    for quantity in range(3):
        for k in range(3):
            planes[t * PLANE + 4 * k + quantity] = plane[quantity][k]


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
    u = a * scene.corners[t, 0, U] + b * scene.corners[t, 1, U] + c * scene.corners[t, 2, U]
    v = a * scene.corners[t, 0, V] + b * scene.corners[t, 1, V] + c * scene.corners[t, 2, V]
    column = min(max(int(u * width), 0), width - 1)
    row = min(max(int((np.float32(1) - v) * height), 0), height - 1)
    return scene.texels[scene.surfaces[s, TEXTURE] + row * width + column] >> 24


@inlined
def sample_index(x: int, row: int, width: int) -> int:
    """Where the samples of a pixel begin in a band's owner and depth."""
    return (row * (width + CHUNK) + x) * SAMPLES


@inlined
def lines_of(edges: Edges, values: Values) -> tuple[Line, Line, Line]:
    """The edge functions from a pixel's corner on, in single precision: exact in the chunk where their sign changes."""
    (ax, ay, _), (bx, by, _), (cx, cy, _) = edges
    a, b, c = values
    return (
        (np.float32(ax), np.float32(ay), np.float32(a)),
        (np.float32(bx), np.float32(by), np.float32(b)),
        (np.float32(cx), np.float32(cy), np.float32(c)),
    )


@inlined
def nearness_in_chunk(near: Line, x: int, y: int) -> Line:
    """1 / depth from the corner of a pixel on."""
    return near[0], near[1], near[0] * np.float32(x) + near[1] * np.float32(y) + near[2]


@inlined
def _opaque_part(scene: Scene, s: int, t: int, plane: Plane, x: int, y: int, mask: int) -> int:
    """Those of a chunk's samples whose pixel has an opaque texel."""
    rest = mask
    for pixel in range(CHUNK):
        if rest == 0:
            break
        here = np.uint32(ALL_SAMPLES << (pixel * SAMPLES))
        if rest & here:
            b, c, _ = weights_at(plane, np.float32(x + pixel + 0.5), np.float32(y + 0.5))
            if opacity_at(scene, s, t, b, c) < HAIR_CORE * 255:
                mask &= ~here
            rest &= ~here
    return mask


@compiled
def cover(
    scene: Scene, screen: Float, s: int, top: int, rows: int, width: int, height: int, drawn: int, scratch: Scratch
) -> int:
    """Give samples of the band to the triangles of an opaque surface, or of the opaque core of hair.

    `drawn` is how many triangles were drawn since what they hide was last measured; returns the new number.
    """
    depth, owner, tiles = scratch.depth, scratch.owner, scratch.tiles
    place = s * count_bands(height) + top // BAND_ROWS
    for n in range(scratch.order_from[place], scratch.order_from[place + 1]):
        if drawn >= _FRESH:
            measure_tiles(depth, width, tiles)
            drawn = 0
        t = scratch.order[n]
        if scene.opacity[t] == CLEAR:
            continue
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = part_in_view(screen, a, b, c, np.float32(1), top, rows, width, tiles)
        if y0 >= y1:
            continue
        edges, plane = edges_of(screen, a, b, c), plane_of(screen, a, b, c)
        keep_plane(plane, t, scratch.planes)
        mixed = scene.opacity[t] == MIXED
        for y in range(y0, y1):
            left, right = span_of(edges, y, x0, x1)
            left = left // CHUNK * CHUNK
            values = values_at(edges, left, y)
            for x in range(left, right, CHUNK):
                near = nearness_in_chunk(plane[0], x, y)
                first = sample_index(x, y - top, width)
                mask = samples_within(lines_of(edges, values), near, depth, first)
                values = next_chunk(edges, values)
                if mixed:
                    mask = _opaque_part(scene, s, t, plane, x, y, mask)
                if mask:
                    give_samples(mask, t, near, depth, owner, first)
        drawn += 1
    return drawn


@compiled
def measure_tiles(depth: Float, width: int, tiles: Float) -> None:
    """The farthest nearness in each tile of the band, by which triangles behind it are known to be hidden."""
    across, stride = (width + CHUNK - 1) // CHUNK, (width + CHUNK) * SAMPLES
    for row in range(BAND_ROWS // TILE_ROWS):
        for column in range(across):
            tiles[row * across + column] = least_in_tile(depth, row * TILE_ROWS * stride + column * LANES, stride)


@inlined
def part_in_view(
    screen: Float, a: int, b: int, c: int, ahead: float, top: int, rows: int, width: int, tiles: Float
) -> Box:
    """Pixels of the band in which a triangle may be seen, `ahead` times as near as it is; no rows if all is hidden."""
    x0, y0, x1, y1 = bounds_of(screen, a, b, c, 0, top, width, top + rows)
    nearest = max(screen[a, 2], screen[b, 2], screen[c, 2]) * ahead
    across = (width + CHUNK - 1) // CHUNK
    for row in range((y0 - top) // TILE_ROWS, (y1 - top + TILE_ROWS - 1) // TILE_ROWS):
        for column in range(x0 // CHUNK, (x1 + CHUNK - 1) // CHUNK):
            if tiles[row * across + column] < nearest:
                return x0, y0, x1, y1
    return x0, y0, x1, y0


@inlined
def shows_one(scene: Scene, s: int, owner: Index, depth: Float, first: int) -> bool:
    """Whether all samples of a pixel, from `first` on, show surface s at one depth: most pixels do."""
    a, b, c, d = owner[first], owner[first + 1], owner[first + 2], owner[first + 3]
    if min(min(a, b), min(c, d)) < scene.surfaces[s, FIRST] or max(max(a, b), max(c, d)) >= scene.surfaces[s, LAST]:
        return False
    near = max(max(depth[first], depth[first + 1]), max(depth[first + 2], depth[first + 3]))
    far = min(min(depth[first], depth[first + 1]), min(depth[first + 2], depth[first + 3]))
    return near - far < SAME_SURFACE * near


@inlined
def settle(surface: Int, owner: Index, depth: Float, first: int) -> None:
    """Let one triangle speak for all samples of a pixel, from `first` on, that show one surface at one depth."""
    for j in range(first, first + SAMPLES):
        mine, z = owner[j], depth[j]
        if mine == NO_TRIANGLE:
            continue
        for i in range(first, j):
            other = owner[i]
            if other != NO_TRIANGLE and surface[other] == surface[mine] and abs(depth[i] - z) < SAME_SURFACE * z:
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
