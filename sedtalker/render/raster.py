"""The rasterizer: triangle setup, coverage, the depth buffer and the lists of triangles of each band.

Each pixel has four coverage samples with a depth and a triangle id. Coverage uses integer edge functions and a fill
rule, so that a sample on a shared edge belongs to exactly one of two triangles, on every machine.
"""

from __future__ import annotations

import numpy as np

from sedtalker.render.arrays import Float, Index, Int
from sedtalker.render.buffers import (
    BAND_ROWS,
    CHUNK,
    CLEAR,
    DEPTH_TOLERANCE,
    FIRST,
    HEIGHT,
    LANES,
    LAST,
    MIXED,
    NO_TRIANGLE,
    PLANE_STRIDE,
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
from sedtalker.render.simd import Line, samples_within, tile_minimum, write_samples

Edge = tuple[float, float, float]  # an edge function: steps in x and y, and the value at the origin
Sides = tuple[float, float, float, float]
Edges = tuple[Edge, Edge, Edge]
Values = tuple[float, float, float]  # edge functions at a pixel's corner
Plane = tuple[Line, Line, Line]  # plane equations of 1 / depth, and of barycentric b and c over depth
Box = tuple[int, int, int, int]  # left, top, right and bottom pixels, right and bottom excluded

ALL_SAMPLES = (1 << SAMPLES) - 1  # of a pixel, as a bit mask
EVERY_SAMPLE = (1 << LANES) - 1  # of a chunk
_FAR = float(1 << 23)  # pixels, beyond all pictures

HAIR_ALPHA = 0.6  # opacity from which a texel of hair is drawn as opaque
_TILE_UPDATE_INTERVAL = 256  # triangles between two updates of the hierarchical depth buffer
_MARGIN = 8192.0  # pixels; triangles that reach farther outside the picture are dropped


@inlined
def _to_subpixels(value: float) -> float:
    """Round pixels to whole subpixels; float64 represents products of two of them exactly."""
    return np.floor(np.float64(value) * SUBPIXELS + 0.5)


@compiled
def signed_area(screen: Float, a: int, b: int, c: int) -> float:
    """Twice the signed area in subpixels; positive for front faces."""
    ax, ay = _to_subpixels(screen[a, 0]), _to_subpixels(screen[a, 1])
    bx, by = _to_subpixels(screen[b, 0]) - ax, _to_subpixels(screen[b, 1]) - ay
    cx, cy = _to_subpixels(screen[c, 0]) - ax, _to_subpixels(screen[c, 1]) - ay
    return by * cx - bx * cy


@compiled
def list_triangles(
    scene: Scene, screen: Float, blended: Index, blended_start: Int, width: int, height: int, scratch: Scratch
) -> int:
    """List the triangles that touch the picture by surface and band, without culled back faces.

    Each list starts with the solid triangles, followed by the blended ones in the order of `blended`. Returns the
    number of entries that the lists need; if `scratch.triangle_lists` has fewer, it is not filled.
    """
    bands = count_bands(height)
    band_range, list_start = scratch.band_range, scratch.list_start
    list_start[:] = 0
    for s in range(len(scene.surfaces)):
        for t in range(scene.surfaces[s, FIRST], scene.surfaces[s, LAST]):
            first, last = _band_range(scene, screen, s, t, width, height)
            band_range[t, 0], band_range[t, 1] = first, last
            for band in range(first, last + 1):
                list_start[s * bands + band + 2] += 1
    # The sum up to a list is stored one entry further on; `_append_to_bands` moves it back by advancing it to its end.
    for k in range(2, len(list_start)):
        list_start[k] += list_start[k - 1]
    needed = list_start[len(list_start) - 1]
    if needed > len(scratch.triangle_lists):
        return needed
    for s in range(len(scene.surfaces)):
        for t in range(scene.surfaces[s, FIRST], scene.surfaces[s, LAST]):
            if scene.opacity[t] == SOLID:
                _append_to_bands(t, s * bands, scratch)
        for m in range(blended_start[s], blended_start[s + 1]):
            _append_to_bands(blended[m], s * bands, scratch)
    return needed


@inlined
def _append_to_bands(t: int, lists: int, scratch: Scratch) -> None:
    """Append a triangle to the lists of the bands that it touches."""
    for band in range(scratch.band_range[t, 0], scratch.band_range[t, 1] + 1):
        end = scratch.list_start[lists + band + 1]
        scratch.triangle_lists[end] = t
        scratch.list_start[lists + band + 1] = end + 1


@inlined
def count_bands(height: int) -> int:
    """Number of bands in a picture."""
    return (height + BAND_ROWS - 1) // BAND_ROWS


@inlined
def _band_range(scene: Scene, screen: Float, s: int, t: int, width: int, height: int) -> tuple[int, int]:
    """First and last band that a triangle may touch; (0, -1) if it is culled or outside the picture."""
    a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    left = min(screen[a, 0], screen[b, 0], screen[c, 0])
    right = max(screen[a, 0], screen[b, 0], screen[c, 0])
    top = min(screen[a, 1], screen[b, 1], screen[c, 1])
    bottom = max(screen[a, 1], screen[b, 1], screen[c, 1])
    if right < 0 or left >= width or bottom < 0 or top >= height:
        return 0, -1
    if left < -_MARGIN or right > width + _MARGIN or top < -_MARGIN or bottom > height + _MARGIN:
        return 0, -1
    area = signed_area(screen, a, b, c)
    if area == 0 or (area < 0 and not scene.surfaces[s, TWO_SIDED]):
        return 0, -1
    return int(max(top, 0)) // BAND_ROWS, int(min(bottom, height - 1)) // BAND_ROWS


@inlined
def _edge(ax: float, ay: float, bx: float, by: float) -> Edge:
    """Edge function from a to b, >= 0 inside; the fill rule gives samples on the edge to one of two neighbours."""
    dx, dy = by - ay, ax - bx
    bias = 0.0 if dy > 0 or (dy == 0 and dx > 0) else -1.0
    return dx, dy, -(dx * ax + dy * ay) + bias


@inlined
def bounding_box(screen: Float, a: int, b: int, c: int, left: int, top: int, right: int, bottom: int) -> Box:
    """Bounding box of a triangle, clipped to a rectangle."""
    x0 = max(left, int(np.floor(min(screen[a, 0], screen[b, 0], screen[c, 0]))))
    y0 = max(top, int(np.floor(min(screen[a, 1], screen[b, 1], screen[c, 1]))))
    x1 = min(right, int(np.floor(max(screen[a, 0], screen[b, 0], screen[c, 0]))) + 1)
    y1 = min(bottom, int(np.floor(max(screen[a, 1], screen[b, 1], screen[c, 1]))) + 1)
    return x0, y0, x1, y1


@inlined
def setup_edges(screen: Float, a: int, b: int, c: int) -> Edges:
    """Triangle setup: the three edge functions, for either orientation."""
    ax, ay = _to_subpixels(screen[a, 0]), _to_subpixels(screen[a, 1])
    bx, by = _to_subpixels(screen[b, 0]), _to_subpixels(screen[b, 1])
    cx, cy = _to_subpixels(screen[c, 0]), _to_subpixels(screen[c, 1])
    if (by - ay) * (cx - ax) - (bx - ax) * (cy - ay) < 0:
        bx, by, cx, cy = cx, cy, bx, by
    return _edge(ax, ay, bx, by), _edge(bx, by, cx, cy), _edge(cx, cy, ax, ay)


@inlined
def edge_limits(edge: Edge) -> Sides:
    """(left, step, right, step): pixels between which an edge function is >= 0 in row 0, and their steps per row."""
    dx, dy, value = edge
    if dx == 0:
        return -_FAR, 0.0, _FAR, 0.0
    over = 1.0 / (dx * SUBPIXELS)
    at, step = -value * over, -dy * SUBPIXELS * over
    if dx > 0:
        return at + min(step, 0.0), step, _FAR, 0.0
    return -_FAR, 0.0, at + max(step, 0.0), step


@inlined
def row_span(edges: Edges, y: int, x0: int, x1: int) -> tuple[int, int]:
    """First and last pixel, the last excluded, that a triangle may touch in a row, within x0...x1.

    In a narrow range, testing all samples is faster than this computation.
    """
    if x1 - x0 <= CHUNK:
        return x0, x1
    row, left, right = float(y), float(x0), x1 - 1.0
    for k in range(3):
        a, step_a, e, step_e = edge_limits(edges[k])
        left, right = max(left, a + step_a * row), min(right, e + step_e * row)
    return int(left), int(right) + 1


@inlined
def evaluate_edges(edges: Edges, x: int, y: int) -> Values:
    """Edge functions at the upper left corner of a pixel."""
    column, row = float(x * SUBPIXELS), float(y * SUBPIXELS)
    (ax, ay, a), (bx, by, b), (cx, cy, c) = edges
    return ax * column + ay * row + a, bx * column + by * row + b, cx * column + cy * row + c


@inlined
def next_chunk(edges: Edges, values: Values) -> Values:
    """Edge functions one chunk to the right; exact, because they are whole numbers."""
    step = float(CHUNK * SUBPIXELS)
    return values[0] + step * edges[0][0], values[1] + step * edges[1][0], values[2] + step * edges[2][0]


@inlined
def setup_planes(screen: Float, a: int, b: int, c: int) -> Plane:
    """Triangle setup: (x, y, constant) of 1 / depth and of barycentric b and c over depth, all linear on screen."""
    x0, y0 = screen[a, 0], screen[a, 1]
    x1, y1, x2, y2 = screen[b, 0] - x0, screen[b, 1] - y0, screen[c, 0] - x0, screen[c, 1] - y0
    area = x1 * y2 - x2 * y1
    over = np.float32(1) / area if area != 0 else np.float32(0)  # zero for a degenerate triangle
    bx, by = y2 * over, -x2 * over
    cx, cy = -y1 * over, x1 * over
    za, zb, zc = screen[a, 2], screen[b, 2], screen[c, 2]
    zx, zy = (zb - za) * bx + (zc - za) * cx, (zb - za) * by + (zc - za) * cy
    depth = (zx, zy, za - zx * x0 - zy * y0)
    weight_b = (zb * bx, zb * by, -zb * (bx * x0 + by * y0))
    weight_c = (zc * cx, zc * cy, -zc * (cx * x0 + cy * y0))
    return depth, weight_b, weight_c


@inlined
def store_planes(plane: Plane, t: int, planes: Float) -> None:
    """Store a triangle's planes for `simd.evaluate_planes`: steps in x, steps in y, constants, in groups of four."""
    for quantity in range(3):
        for k in range(3):
            planes[t * PLANE_STRIDE + 4 * k + quantity] = plane[quantity][k]


@inlined
def barycentric_at(plane: Plane, x: float, y: float) -> tuple[float, float, float]:
    """Perspective-correct barycentric b and c, clamped to the triangle, and depth in metres at a screen point."""
    depth, weight_b, weight_c = plane
    far = np.float32(1) / (depth[0] * x + depth[1] * y + depth[2])
    b = (weight_b[0] * x + weight_b[1] * y + weight_b[2]) * far
    c = (weight_c[0] * x + weight_c[1] * y + weight_c[2]) * far
    b = min(max(b, np.float32(0)), np.float32(1))
    c = min(max(c, np.float32(0)), np.float32(1) - b)
    return b, c, far


@inlined
def opacity_at(scene: Scene, s: int, t: int, b: float, c: float) -> float:
    """Opacity 0...255, bilinear between four texels, so that the edge of hair is smooth."""
    one, half = np.float32(1), np.float32(0.5)
    a = one - b - c
    width, height = scene.surfaces[s, WIDTH], scene.surfaces[s, HEIGHT]
    u = a * scene.corners[t, 0, U] + b * scene.corners[t, 1, U] + c * scene.corners[t, 2, U]
    v = a * scene.corners[t, 0, V] + b * scene.corners[t, 1, V] + c * scene.corners[t, 2, V]
    x = min(max(u * np.float32(width) - half, np.float32(0)), np.float32(width - 1))
    y = min(max((one - v) * np.float32(height) - half, np.float32(0)), np.float32(height - 1))
    column, row = int(x), int(y)
    nearest = scene.surfaces[s, TEXTURE] + row * width + column
    east = 1 if column < width - 1 else 0
    south = width if row < height - 1 else 0
    right, down = x - np.float32(column), y - np.float32(row)
    upper = _alpha(scene, nearest) * (one - right) + _alpha(scene, nearest + east) * right
    lower = _alpha(scene, nearest + south) * (one - right) + _alpha(scene, nearest + south + east) * right
    return upper * (one - down) + lower * down


@inlined
def _alpha(scene: Scene, texel: int) -> float:
    return np.float32(np.int32(scene.texels[texel] >> np.uint32(24)))


@inlined
def sample_index(x: int, row: int, width: int) -> int:
    """Index of a pixel's first sample in `Scratch.triangle_ids` and `Scratch.depth`."""
    return (row * (width + CHUNK) + x) * SAMPLES


@inlined
def to_single_precision(edges: Edges, values: Values) -> tuple[Line, Line, Line]:
    """Edge functions relative to a pixel's corner in float32; exact in the chunk where their sign changes."""
    (ax, ay, _), (bx, by, _), (cx, cy, _) = edges
    a, b, c = values
    return (
        (np.float32(ax), np.float32(ay), np.float32(a)),
        (np.float32(bx), np.float32(by), np.float32(b)),
        (np.float32(cx), np.float32(cy), np.float32(c)),
    )


@inlined
def inverse_depth_at(near: Line, x: int, y: int) -> Line:
    """1 / depth relative to the corner of a pixel."""
    return near[0], near[1], near[0] * np.float32(x) + near[1] * np.float32(y) + near[2]


@inlined
def _keep_opaque(scene: Scene, s: int, t: int, plane: Plane, x: int, y: int, mask: int) -> int:
    """Clear the bits of a chunk's samples whose pixel has a texel that is not opaque."""
    rest = mask
    for pixel in range(CHUNK):
        if rest == 0:
            break
        here = np.uint32(ALL_SAMPLES << (pixel * SAMPLES))
        if rest & here:
            b, c, _ = barycentric_at(plane, np.float32(x + pixel + 0.5), np.float32(y + 0.5))
            if opacity_at(scene, s, t, b, c) < HAIR_ALPHA * 255:
                mask &= ~here
            rest &= ~here
    return mask


@compiled
def rasterize(
    scene: Scene,
    screen: Float,
    s: int,
    top: int,
    rows: int,
    width: int,
    height: int,
    since_update: int,
    scratch: Scratch,
) -> int:
    """Depth-test the triangles of an opaque surface, or the opaque texels of hair, and write the band's samples.

    `since_update` counts the triangles since the last update of the hierarchical depth buffer; returns the new count.
    """
    depth, triangle_ids, tiles = scratch.depth, scratch.triangle_ids, scratch.tiles
    band = s * count_bands(height) + top // BAND_ROWS
    for n in range(scratch.list_start[band], scratch.list_start[band + 1]):
        if since_update >= _TILE_UPDATE_INTERVAL:
            update_tiles(depth, width, tiles)
            since_update = 0
        t = scratch.triangle_lists[n]
        if scene.opacity[t] == CLEAR:
            continue
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = visible_bounds(screen, a, b, c, np.float32(1), top, rows, width, tiles)
        if y0 >= y1:
            continue
        edges, plane = setup_edges(screen, a, b, c), setup_planes(screen, a, b, c)
        store_planes(plane, t, scratch.planes)
        mixed = scene.opacity[t] == MIXED
        for y in range(y0, y1):
            left, right = row_span(edges, y, x0, x1)
            left = left // CHUNK * CHUNK
            values = evaluate_edges(edges, left, y)
            for x in range(left, right, CHUNK):
                near = inverse_depth_at(plane[0], x, y)
                first = sample_index(x, y - top, width)
                mask = samples_within(to_single_precision(edges, values), near, depth, first)
                values = next_chunk(edges, values)
                if mixed:
                    mask = _keep_opaque(scene, s, t, plane, x, y, mask)
                if mask:
                    write_samples(mask, t, near, depth, triangle_ids, first)
        since_update += 1
    return since_update


@compiled
def update_tiles(depth: Float, width: int, tiles: Float) -> None:
    """Update the hierarchical depth buffer: the minimum of 1 / depth in each tile of the band."""
    across, stride = (width + CHUNK - 1) // CHUNK, (width + CHUNK) * SAMPLES
    for row in range(BAND_ROWS // TILE_ROWS):
        for column in range(across):
            tiles[row * across + column] = tile_minimum(depth, row * TILE_ROWS * stride + column * LANES, stride)


@inlined
def visible_bounds(
    screen: Float, a: int, b: int, c: int, depth_bias: float, top: int, rows: int, width: int, tiles: Float
) -> Box:
    """Bounding box of a triangle in the band; no rows if all tiles hide it. `depth_bias` multiplies its 1 / depth."""
    x0, y0, x1, y1 = bounding_box(screen, a, b, c, 0, top, width, top + rows)
    nearest = max(screen[a, 2], screen[b, 2], screen[c, 2]) * depth_bias
    across = (width + CHUNK - 1) // CHUNK
    for row in range((y0 - top) // TILE_ROWS, (y1 - top + TILE_ROWS - 1) // TILE_ROWS):
        for column in range(x0 // CHUNK, (x1 + CHUNK - 1) // CHUNK):
            if tiles[row * across + column] < nearest:
                return x0, y0, x1, y1
    return x0, y0, x1, y0


@inlined
def is_uniform_pixel(scene: Scene, s: int, triangle_ids: Index, depth: Float, first: int) -> bool:
    """Whether all samples of a pixel, from `first` on, show surface s at one depth; true for most pixels."""
    a, b, c, d = triangle_ids[first], triangle_ids[first + 1], triangle_ids[first + 2], triangle_ids[first + 3]
    if min(min(a, b), min(c, d)) < scene.surfaces[s, FIRST] or max(max(a, b), max(c, d)) >= scene.surfaces[s, LAST]:
        return False
    near = max(max(depth[first], depth[first + 1]), max(depth[first + 2], depth[first + 3]))
    far = min(min(depth[first], depth[first + 1]), min(depth[first + 2], depth[first + 3]))
    return near - far < DEPTH_TOLERANCE * near


@inlined
def merge_samples(surface: Int, triangle_ids: Index, depth: Float, first: int) -> None:
    """Give the samples of a pixel, from `first` on, that show one surface at one depth the same triangle id."""
    for j in range(first, first + SAMPLES):
        own, z = triangle_ids[j], depth[j]
        if own == NO_TRIANGLE:
            continue
        for i in range(first, j):
            other = triangle_ids[i]
            if other != NO_TRIANGLE and surface[other] == surface[own] and abs(depth[i] - z) < DEPTH_TOLERANCE * z:
                triangle_ids[j] = other
                break


@inlined
def count_samples(triangle_ids: Index, first: int, j: int) -> int:
    """Number of a pixel's samples with the triangle of sample j; 0 if an earlier sample has the same triangle."""
    count = np.int64(0)
    for k in range(SAMPLES):
        if triangle_ids[first + k] == triangle_ids[first + j]:
            if k < j:
                return np.int64(0)
            count += 1
    return count
