"""Drawing a frame: rasterize, shade and blend each band of rows, then resolve it to bytes.

Opaque surfaces use multisampling: a pixel is shaded once for each different surface among its samples. Triangles of
hair, brows and lashes are then blended over the picture from back to front, with a depth test at each sample.

`draw` starts no threads, keeps no state and releases the interpreter lock.
"""

from __future__ import annotations

import math

import numpy as np

from sedtalker.render import shade
from sedtalker.render.arrays import Bytes, Float, Index
from sedtalker.render.buffers import (
    ADD,
    BAND_ROWS,
    BUMP,
    BUMP_HEIGHT,
    BUMP_WIDTH,
    CHUNK,
    COLORED_CORNER_COLUMNS,
    FIRST,
    GROUP,
    HAIR,
    HEIGHT,
    KIND,
    LAST,
    MODE,
    NO_TRIANGLE,
    SAMPLES,
    SOLID,
    TEXTURE,
    TWO_SIDED,
    WIDTH,
    FrameInputs,
    Scene,
    Scratch,
)
from sedtalker.render.compiled import compiled, inlined
from sedtalker.render.raster import (
    ALL_SAMPLES,
    EVERY_SAMPLE,
    Plane,
    barycentric_at,
    count_bands,
    count_samples,
    evaluate_edges,
    inverse_depth_at,
    is_uniform_pixel,
    merge_samples,
    next_chunk,
    opacity_at,
    rasterize,
    row_span,
    sample_index,
    setup_edges,
    setup_planes,
    store_planes,
    to_single_precision,
    update_tiles,
    visible_bounds,
)
from sedtalker.render.shade import at
from sedtalker.render.shadow import apply_shadow_map
from sedtalker.render.simd import (
    covered_samples,
    evaluate_planes,
    interpolate_colored_corners,
    interpolate_corners,
    samples_within,
    uniform_pixels,
)

_ACCUMULATE, _ALPHA_BLEND, _ADDITIVE = np.int64(0), np.int64(1), np.int64(2)  # ways to composite fragments
_1, _2, _3, _4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)  # unsigned steps
_COUNTS = np.array([bin(mask).count("1") for mask in range(1 << SAMPLES)])  # number of samples in a bit mask
# A queued fragment's pixel: row in the band, column and number of samples, packed.
_COUNT_BITS, _ROW_BITS = np.uint32(3), np.uint32(16)
_COUNT_MASK, _COLUMN_MASK = np.uint32(7), np.uint32(0xFFFF)
_MIN_ALPHA = 0.02  # fragments of a lower opacity are discarded
# Factors of 1 / depth in the depth test of blended surfaces.
_HAIR_DEPTH_BIAS = np.float32(1 - 1e-5)  # hair does not blend over itself
_CARD_DEPTH_BIAS = np.float32(1.0015)  # brows and lashes are drawn although they penetrate the skin
_HIGHLIGHT_DEPTH_BIAS = np.float32(1 - 2e-4)  # a closing lid is close to the cornea and covers it


@compiled
def _sample_height(scene: Scene, s: int, u: float, v: float) -> float:
    """Bilinear lookup in the bump map of surface s, in metres."""
    first, width, height = scene.surfaces[s, BUMP], scene.surfaces[s, BUMP_WIDTH], scene.surfaces[s, BUMP_HEIGHT]
    x = min(np.float32(width - 1.001), max(np.float32(0), u * np.float32(width) - np.float32(0.5)))
    y = min(np.float32(height - 1.001), max(np.float32(0), (np.float32(1) - v) * np.float32(height) - np.float32(0.5)))
    column, row = int(x), int(y)
    fx, fy = x - np.float32(column), y - np.float32(row)
    above = first + row * width + column
    below = above + width
    a, b, c, d = scene.heights[above], scene.heights[above + 1], scene.heights[below], scene.heights[below + 1]
    upper, lower = a + (b - a) * fx, c + (d - c) * fx
    return upper + (lower - upper) * fy


@compiled
def _perturb_normal(scene: Scene, points: Float, s: int, t: int, block: Float, n: int) -> None:
    """Bump mapping: tilt fragment n's normal by the gradient of the bump map on triangle t."""
    u, v = block[at(shade.U, n)], block[at(shade.V, n)]
    across = np.float32(1) / np.float32(scene.surfaces[s, BUMP_WIDTH])
    along = np.float32(1) / np.float32(scene.surfaces[s, BUMP_HEIGHT])
    here = _sample_height(scene, s, u, v)
    slope_u = (_sample_height(scene, s, u + across, v) - here) / across
    slope_v = (_sample_height(scene, s, u, v + along) - here) / along
    corner_a, corner_b, corner_c = scene.corners[t, 0], scene.corners[t, 1], scene.corners[t, 2]
    # Height differences along two sides of the triangle.
    rise_b = slope_u * (corner_b[shade.U] - corner_a[shade.U]) + slope_v * (corner_b[shade.V] - corner_a[shade.V])
    rise_c = slope_u * (corner_c[shade.U] - corner_a[shade.U]) + slope_v * (corner_c[shade.V] - corner_a[shade.V])
    a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    bx, by, bz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
    cx, cy, cz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
    gx, gy, gz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    over = np.float32(1) / (gx * gx + gy * gy + gz * gz + np.float32(1e-20))
    nx, ny, nz = block[at(shade.NX, n)], block[at(shade.NY, n)], block[at(shade.NZ, n)]
    unit = np.float32(1) / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
    # Surface gradient of a linear height that rises by rise_b along side b and by rise_c along side c.
    block[at(shade.NX, n)] = nx * unit - over * (rise_b * (cy * gz - cz * gy) + rise_c * (gy * bz - gz * by))
    block[at(shade.NY, n)] = ny * unit - over * (rise_b * (cz * gx - cx * gz) + rise_c * (gz * bx - gx * bz))
    block[at(shade.NZ, n)] = nz * unit - over * (rise_b * (cx * gy - cy * gx) + rise_c * (gx * by - gy * bx))


@compiled
def _compute_barycentric(planes: Float, fragment_triangle: Index, count: int, block: Float) -> None:
    """Compute depth and perspective-correct barycentric coordinates of a block's fragments, clamped to the triangle."""
    one, zero = np.float32(1), np.float32(0)
    for first in range(0, count, GROUP):
        evaluate_planes(planes, fragment_triangle, block, first)
    for n in range(np.uint64(count)):
        far = one / block[at(shade.BARYCENTRIC, n)]
        b = min(one, max(zero, block[at(shade.BARYCENTRIC + 1, n)] * far))
        c = min(one - b, max(zero, block[at(shade.BARYCENTRIC + 2, n)] * far))
        block[at(shade.DEPTH, n)] = far
        block[at(shade.BARYCENTRIC, n)] = one - b - c
        block[at(shade.BARYCENTRIC + 1, n)] = b
        block[at(shade.BARYCENTRIC + 2, n)] = c


@compiled
def _interpolate(scene: Scene, normals: Float, fragment_triangle: Index, count: int, block: Float) -> None:
    """Interpolate the quantities at the triangles' corners by the block's barycentric coordinates."""
    if scene.corners.shape[2] == COLORED_CORNER_COLUMNS:
        for first in range(0, count, GROUP):
            interpolate_colored_corners(scene, normals, fragment_triangle, block, first)
    else:
        for first in range(0, count, GROUP):
            interpolate_corners(scene, normals, fragment_triangle, block, first)


@inlined
def _queue_fragment(scratch: Scratch, s: int, t: int, x: int, row: int, samples: int) -> bool:
    """Queue a fragment of triangle t of surface s at a pixel of the band; returns whether the queue is full."""
    n = scratch.queued[s]
    scratch.fragment_triangle[s * shade.BLOCK + n] = t
    scratch.fragment_pixel[s * shade.BLOCK + n] = (row << _ROW_BITS | x) << _COUNT_BITS | samples
    scratch.queued[s] = n + 1
    return n + 1 == shade.BLOCK


@compiled
def _unpack_pixels(fragment_pixel: Index, count: int, top: int, block: Float) -> None:
    """Unpack the fragments' pixel coordinates and their shares of the pixels into the block."""
    for i in range(count):
        x, row = (fragment_pixel[i] >> _COUNT_BITS) & _COLUMN_MASK, fragment_pixel[i] >> (_COUNT_BITS + _ROW_BITS)
        block[at(shade.X, i)] = np.float32(np.int32(x)) + np.float32(0.5)
        block[at(shade.Y, i)] = np.float32(np.int32(row) + top) + np.float32(0.5)
        block[at(shade.WEIGHT, i)] = np.float32(np.int32(fragment_pixel[i] & _COUNT_MASK)) * np.float32(1 / SAMPLES)


@compiled
def flush_fragments(
    scene: Scene, frame: FrameInputs, s: int, top: int, width: int, scratch: Scratch, mode: int
) -> None:
    """Shade a surface's queued fragments and composite them onto the band in their order."""
    count = scratch.queued[s]
    if count == 0:
        return
    scratch.queued[s] = 0
    block, row = scratch.block, scene.surfaces[s]
    first = s * shade.BLOCK
    fragment_triangle, fragment_pixel = scratch.fragment_triangle[first:], scratch.fragment_pixel[first:]
    _unpack_pixels(fragment_pixel, count, top, block)
    _compute_barycentric(scratch.planes, fragment_triangle, count, block)
    _interpolate(scene, frame.normals, fragment_triangle, count, block)
    if row[BUMP_WIDTH] > 0:
        for n in range(count):
            _perturb_normal(scene, frame.points, s, fragment_triangle[n], block, n)
    shade.sample_texture(block, scratch.texel, count, scene.texels, row[TEXTURE], row[WIDTH], row[HEIGHT])
    if scene.corners.shape[2] == COLORED_CORNER_COLUMNS:
        shade.tint_fragments(block, count)
    if len(frame.shadow_map) > 1:
        apply_shadow_map(block, count, frame.camera, frame.light_matrix, frame.shadow_map)
    shade.shade(block, count, scene.materials[s], row[KIND], row[TWO_SIDED], frame.camera)
    _composite(block, fragment_pixel, count, width, mode, scratch.color)


@compiled
def _composite(block: Float, fragment_pixel: Index, count: int, width: int, mode: int, color: Float) -> None:
    """Composite shaded fragments onto the band's color buffer."""
    for i in range(np.uint64(count)):
        x, row = (fragment_pixel[i] >> _COUNT_BITS) & _COLUMN_MASK, fragment_pixel[i] >> (_COUNT_BITS + _ROW_BITS)
        pixel = (np.uint64(row) * np.uint64(width) + np.uint64(x)) * np.uint64(4)
        weight = block[at(shade.WEIGHT, i)]
        keep, coverage = np.float32(1), weight
        if mode == _ALPHA_BLEND:
            weight *= block[at(shade.ALPHA, i)]
            keep, coverage = np.float32(1) - weight, weight
        elif mode == _ADDITIVE:
            coverage = np.float32(0)
        color[pixel] = color[pixel] * keep + weight * block[at(shade.RED, i)]
        color[pixel + _1] = color[pixel + _1] * keep + weight * block[at(shade.GREEN, i)]
        color[pixel + _2] = color[pixel + _2] * keep + weight * block[at(shade.BLUE, i)]
        color[pixel + _3] = color[pixel + _3] * keep + coverage


@inlined
def _queue_chunk(scratch: Scratch, s: int, left: int, row: int, first: int) -> None:
    """Queue a chunk of pixels that surface s covers fully; the queue must have room for them."""
    n = s * shade.BLOCK + scratch.queued[s]
    for i in range(CHUNK):
        scratch.fragment_triangle[n + i] = scratch.triangle_ids[first + SAMPLES * i]
        scratch.fragment_pixel[n + i] = (row << _ROW_BITS | (left + i)) << _COUNT_BITS | SAMPLES
    scratch.queued[s] += CHUNK


@inlined
def _queue_pixel(scene: Scene, frame: FrameInputs, x: int, y: int, top: int, width: int, scratch: Scratch) -> None:
    """Queue a pixel's fragments, one for each of its surfaces."""
    triangle_ids, first = scratch.triangle_ids, sample_index(x, y, width)
    t = triangle_ids[first]
    if t != NO_TRIANGLE:
        s = scene.surface[t]
        if is_uniform_pixel(scene, s, triangle_ids, scratch.depth, first):
            if _queue_fragment(scratch, s, t, x, y, SAMPLES):
                flush_fragments(scene, frame, s, top, width, scratch, _ACCUMULATE)
            return
    merge_samples(scene.surface, triangle_ids, scratch.depth, first)
    for j in range(SAMPLES):
        t = triangle_ids[first + j]
        if t == NO_TRIANGLE:
            continue
        count = count_samples(triangle_ids, first, j)
        s = scene.surface[t]
        if count and _queue_fragment(scratch, s, t, x, y, count):
            flush_fragments(scene, frame, s, top, width, scratch, _ACCUMULATE)


@compiled
def shade_band(scene: Scene, frame: FrameInputs, top: int, rows: int, width: int, scratch: Scratch) -> None:
    """Shade the visible opaque surfaces of the band, each pixel once for each of its surfaces."""
    triangle_ids, depth, queued = scratch.triangle_ids, scratch.depth, scratch.queued
    queued[:] = 0
    for y in range(rows):
        for left in range(0, width, CHUNK):
            first = sample_index(left, y, width)
            covered = covered_samples(triangle_ids, first)
            if covered == 0:
                continue
            s = scene.surface[triangle_ids[first]] if covered & 1 else np.int32(0)
            uniform = uniform_pixels(triangle_ids, depth, first, scene.surfaces[s, FIRST], scene.surfaces[s, LAST])
            if uniform == EVERY_SAMPLE and left + CHUNK <= width:
                if queued[s] + CHUNK >= shade.BLOCK:
                    flush_fragments(scene, frame, s, top, width, scratch, _ACCUMULATE)
                _queue_chunk(scratch, s, left, y, first)
                continue
            for x in range(left, min(left + CHUNK, width)):
                if covered & ALL_SAMPLES:
                    _queue_pixel(scene, frame, x, y, top, width, scratch)
                covered >>= SAMPLES
    for s in range(len(queued)):
        flush_fragments(scene, frame, np.int32(s), top, width, scratch, _ACCUMULATE)


@inlined
def _blend_samples(
    scene: Scene, frame: FrameInputs, s: int, t: int, plane: Plane, mask: int, x: int, y: int, top: int, width: int,
    scratch: Scratch, mode: int,
) -> None:  # fmt: skip
    """Queue the fragments of triangle t at the samples of the chunk from pixel (x, y) on that the bit mask names.

    The last chunk of a row may extend beyond the picture.
    """
    column = x
    while mask and column < width:
        count = _COUNTS[mask & ALL_SAMPLES]
        if count:
            b, c, _ = barycentric_at(plane, np.float32(column + 0.5), np.float32(y + 0.5))
            visible = mode == _ADDITIVE or opacity_at(scene, s, t, b, c) >= _MIN_ALPHA * 255
            if visible and _queue_fragment(scratch, s, t, column, y - top, count):
                flush_fragments(scene, frame, s, top, width, scratch, mode)
        mask >>= SAMPLES
        column += 1


@compiled
def blend_band(
    scene: Scene, frame: FrameInputs, s: int, top: int, rows: int, width: int, height: int, scratch: Scratch
) -> None:
    """Blend a surface's triangles that are not solid over the band, or add their highlights to it."""
    mode = _ADDITIVE if scene.surfaces[s, MODE] == ADD else _ALPHA_BLEND
    depth_bias = _CARD_DEPTH_BIAS
    if scene.surfaces[s, MODE] == HAIR:
        depth_bias = _HAIR_DEPTH_BIAS
    elif mode == _ADDITIVE:
        depth_bias = _HIGHLIGHT_DEPTH_BIAS
    band = s * count_bands(height) + top // BAND_ROWS
    for n in range(scratch.list_start[band], scratch.list_start[band + 1]):
        t = scratch.triangle_lists[n]
        if scene.opacity[t] == SOLID:
            continue
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = visible_bounds(frame.screen, a, b, c, depth_bias, top, rows, width, scratch.tiles)
        if y0 >= y1:
            continue
        edges, plane = setup_edges(frame.screen, a, b, c), setup_planes(frame.screen, a, b, c)
        store_planes(plane, t, scratch.planes)
        for y in range(y0, y1):
            left, right = row_span(edges, y, x0, x1)
            left = left // CHUNK * CHUNK
            values = evaluate_edges(edges, left, y)
            for x in range(left, right, CHUNK):
                near = inverse_depth_at(plane[0], x, y)
                near = near[0] * depth_bias, near[1] * depth_bias, near[2] * depth_bias
                first = sample_index(x, y - top, width)
                mask = samples_within(to_single_precision(edges, values), near, scratch.depth, first)
                values = next_chunk(edges, values)
                _blend_samples(scene, frame, s, t, plane, mask, x, y, top, width, scratch, mode)
    flush_fragments(scene, frame, s, top, width, scratch, mode)


@compiled
def resolve(color: Float, background: Float, top: int, rows: int, scale: int, scratch: Scratch, out: Bytes) -> int:
    """Downsample, tone-map and blend the band over the background; returns the number of pixels that were drawn on.

    `out` is (H, W, 3) and already contains the background, or (H, W, 4) and gets coverage as its alpha channel.
    """
    pixels, width = 0, np.uint64(out.shape[1])
    tone, coverage = scratch.tone, scratch.coverage
    last = np.float32(shade.TONE_STEPS - 1)
    if scale > 1:
        _downsample(color, rows, out.shape[1], scale)
    for y in range(rows // scale):
        row = top // scale + y
        tone_indices(color, np.uint64(y) * width * _4, width, tone, coverage)
        for x in range(width):
            covered = coverage[x]
            if covered <= 0:
                continue
            pixels += 1
            red, green, blue = tone[x], tone[width + x], tone[_2 * width + x]
            if out.shape[2] == 4:
                out[row, x, 3] = np.uint8(min(covered, np.float32(1)) * 255 + np.float32(0.5))
            elif covered < np.float32(0.999):
                front, back = covered * last, (np.float32(1) - covered) * last
                behind = background[row, x]
                out[row, x, 0] = shade.DISPLAY_BYTES[int(front * shade.TONE_LIGHT[red] + back * behind[0])]
                out[row, x, 1] = shade.DISPLAY_BYTES[int(front * shade.TONE_LIGHT[green] + back * behind[1])]
                out[row, x, 2] = shade.DISPLAY_BYTES[int(front * shade.TONE_LIGHT[blue] + back * behind[2])]
                continue
            out[row, x, 0] = shade.TONE_BYTES[red]
            out[row, x, 1] = shade.TONE_BYTES[green]
            out[row, x, 2] = shade.TONE_BYTES[blue]
    return pixels


@inlined
def _downsample(color: Float, rows: int, width: int, scale: int) -> None:
    """Replace `scale` x `scale` pixels by their mean, in place."""
    share = np.float32(1 / (scale * scale))
    for y in range(rows // scale):
        for x in range(width):
            for channel in range(4):
                total = np.float32(0)
                for j in range(scale):
                    for i in range(scale):
                        total += color[(((y * scale + j) * width + x) * scale + i) * 4 + channel]
                color[(y * width + x) * 4 + channel] = total * share


@inlined
def tone_indices(color: Float, first: int, width: int, tone: Index, coverage: Float) -> None:
    """Compute a row's indices in the tone tables, and its coverage."""
    step = np.float32((shade.TONE_STEPS - 1) / shade.TONE_RANGE)
    zero, last = np.float32(0), np.float32(shade.TONE_STEPS - 1)
    for x in range(width):  # min(last, max(zero, value)) in this order also clamps NaN
        pixel = first + x * _4
        covered = color[pixel + _3]
        level = step / max(covered, np.float32(1e-6))
        tone[x] = np.int32(min(last, max(zero, color[pixel] * level)))
        tone[width + x] = np.int32(min(last, max(zero, color[pixel + _1] * level)))
        tone[_2 * width + x] = np.int32(min(last, max(zero, color[pixel + _2] * level)))
        coverage[x] = covered


@compiled
def draw(scene: Scene, frame: FrameInputs, scale: int, scratch: Scratch, out: Bytes) -> int:
    """Draw a frame into `out` (H, W, 3 or 4) uint8, supersampled `scale` x `scale`; returns the pixels drawn on."""
    height, width = out.shape[0] * scale, out.shape[1] * scale
    surfaces = scene.surfaces
    pixels = 0
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        scratch.triangle_ids[:] = NO_TRIANGLE
        scratch.depth[:] = np.float32(0)
        scratch.color[:] = np.float32(0)
        scratch.tiles[:] = np.float32(0)
        since_update = 0
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                since_update = rasterize(scene, frame.screen, s, top, rows, width, height, since_update, scratch)
        update_tiles(scratch.depth, width, scratch.tiles)
        shade_band(scene, frame, top, rows, width, scratch)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] >= HAIR:
                blend_band(scene, frame, np.int32(s), top, rows, width, height, scratch)
        pixels += resolve(scratch.color, scene.background, top, rows, scale, scratch, out)
    return pixels
