"""What is seen, as colour: a frame from its points to its bytes.

A pixel is shaded once for each different surface among its samples. Triangles of hair, brows and lashes are then
blended over the picture from back to front, each sample tested against the depth of the opaque picture.

Nothing here starts threads or keeps state: a frame is one call that releases the interpreter lock.
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
    COLORED_CORNERS,
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
    Scene,
    Scratch,
    Shot,
)
from sedtalker.render.compiled import compiled, inlined
from sedtalker.render.raster import (
    ALL_SAMPLES,
    EVERY_SAMPLE,
    count_bands,
    cover,
    edges_of,
    keep_plane,
    lines_of,
    measure_tiles,
    nearness_in_chunk,
    next_chunk,
    opacity_at,
    part_in_view,
    plane_of,
    sample_index,
    settle,
    share_of,
    shows_one,
    span_of,
    values_at,
    weights_at,
)
from sedtalker.render.shadow import shadow_fragments
from sedtalker.render.vectors import (
    mix_colored_corners,
    mix_corners,
    pixels_within,
    planes_at,
    samples_owned,
    samples_within,
)

_SHARE, _LAY_OVER, _ADD = np.int64(0), np.int64(1), np.int64(2)  # how fragments come onto the picture
_1, _2, _3, _4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)  # unsigned steps
_COUNTS = np.array([bin(mask).count("1") for mask in range(1 << SAMPLES)])  # samples that a bit mask names
# A fragment's row in the band, its column and its share of the pixel, packed.
_SHARE_BITS, _ROW_BITS = np.uint32(3), np.uint32(16)
_SHARES, _COLUMNS = np.uint32(7), np.uint32(0xFFFF)
_FAINT = 0.02  # opacity below which nothing is drawn
_HAIR_BEHIND = np.float32(1 - 1e-5)  # hair does not blend over itself
_CARD_AHEAD = np.float32(1.0015)  # brows and lashes lie on the skin and are seen although they sink into it
_WET_BEHIND = np.float32(1 - 2e-4)  # a lid that closes passes close by the cornea, and covers it


@compiled
def _height(scene: Scene, s: int, u: float, v: float) -> float:
    """Bilinear relief in metres."""
    first, width, height = scene.surfaces[s, BUMP], scene.surfaces[s, BUMP_WIDTH], scene.surfaces[s, BUMP_HEIGHT]
    x = min(np.float32(width - 1.001), max(np.float32(0), u * np.float32(width) - np.float32(0.5)))
    y = min(np.float32(height - 1.001), max(np.float32(0), (np.float32(1) - v) * np.float32(height) - np.float32(0.5)))
    column, row = int(x), int(y)
    fx, fy = x - np.float32(column), y - np.float32(row)
    at = first + row * width + column
    a, b, c, d = scene.heights[at], scene.heights[at + 1], scene.heights[at + width], scene.heights[at + width + 1]
    upper, lower = a + (b - a) * fx, c + (d - c) * fx
    return upper + (lower - upper) * fy


@compiled
def _roughen(scene: Scene, points: Float, s: int, t: int, block: Float, n: int) -> None:
    """Tilt fragment n's normal against the slope of the relief on triangle t."""
    size = shade.BLOCK
    u, v = block[shade.U * size + n], block[shade.V * size + n]
    across = np.float32(1) / np.float32(scene.surfaces[s, BUMP_WIDTH])
    along = np.float32(1) / np.float32(scene.surfaces[s, BUMP_HEIGHT])
    here = _height(scene, s, u, v)
    slope_u = (_height(scene, s, u + across, v) - here) / across
    slope_v = (_height(scene, s, u, v + along) - here) / along
    start, at_b, at_c = scene.corners[t, 0], scene.corners[t, 1], scene.corners[t, 2]
    # Rise along the triangle's two sides.
    rise_b = slope_u * (at_b[shade.U] - start[shade.U]) + slope_v * (at_b[shade.V] - start[shade.V])
    rise_c = slope_u * (at_c[shade.U] - start[shade.U]) + slope_v * (at_c[shade.V] - start[shade.V])
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


@compiled
def _weigh(planes: Float, fragment: Index, count: int, block: Float) -> None:
    """Depth of a block's fragments and the weights of their triangles' corners: perspective-correct, never outside."""
    one, zero = np.float32(1), np.float32(0)
    for first in range(0, count, GROUP):
        planes_at(planes, fragment, block, first)
    for n in range(np.uint64(count)):
        far = one / block[_row(shade.SPARE) + n]
        b = min(one, max(zero, block[_row(shade.SPARE + 1) + n] * far))
        c = min(one - b, max(zero, block[_row(shade.SPARE + 2) + n] * far))
        block[_row(shade.DEPTH) + n] = far
        block[_row(shade.SPARE) + n] = one - b - c
        block[_row(shade.SPARE + 1) + n] = b
        block[_row(shade.SPARE + 2) + n] = c


@compiled
def _interpolate(scene: Scene, normals: Float, fragment: Index, count: int, block: Float) -> None:
    """Fill a weighed block with what the corners of the fragments' triangles hold."""
    if scene.corners.shape[2] == COLORED_CORNERS:
        for first in range(0, count, GROUP):
            mix_colored_corners(scene, normals, fragment, block, first)
    else:
        for first in range(0, count, GROUP):
            mix_corners(scene, normals, fragment, block, first)


@inlined
def _row(quantity: int) -> int:
    """Where a quantity begins in a block; unsigned."""
    return np.uint64(quantity * shade.BLOCK)


@inlined
def _push(scratch: Scratch, s: int, t: int, x: int, row: int, share: int) -> bool:
    """Let a fragment wait: triangle t of surface s at a pixel of the band. Returns whether the block is full."""
    n = scratch.filled[s]
    scratch.fragment[s * shade.BLOCK + n] = t
    scratch.place[s * shade.BLOCK + n] = (row << _ROW_BITS | x) << _SHARE_BITS | share
    scratch.filled[s] = n + 1
    return n + 1 == shade.BLOCK


@compiled
def _unpack(place: Index, count: int, top: int, block: Float) -> None:
    """Where the fragments of a block lie in the picture, and how much of their pixels they are."""
    for i in range(count):
        x, row = (place[i] >> _SHARE_BITS) & _COLUMNS, place[i] >> (_SHARE_BITS + _ROW_BITS)
        block[shade.X * shade.BLOCK + i] = np.float32(np.int32(x)) + np.float32(0.5)
        block[shade.Y * shade.BLOCK + i] = np.float32(np.int32(row) + top) + np.float32(0.5)
        block[shade.WEIGHT * shade.BLOCK + i] = np.float32(np.int32(place[i] & _SHARES)) * np.float32(1 / SAMPLES)


@compiled
def flush_fragments(scene: Scene, shot: Shot, s: int, top: int, width: int, scratch: Scratch, mode: int) -> None:
    """Texture, shadow and light for a surface's waiting fragments; then onto the picture, in their order."""
    count = scratch.filled[s]
    if count == 0:
        return
    scratch.filled[s] = 0
    block, row = scratch.block, scene.surfaces[s]
    fragment, place = scratch.fragment[s * shade.BLOCK :], scratch.place[s * shade.BLOCK :]
    _unpack(place, count, top, block)
    _weigh(scratch.planes, fragment, count, block)
    _interpolate(scene, shot.normals, fragment, count, block)
    if row[BUMP_WIDTH] > 0:
        for n in range(count):
            _roughen(scene, shot.points, s, fragment[n], block, n)
    shade.sample_texture(block, scratch.texel, count, scene.texels, row[TEXTURE], row[WIDTH], row[HEIGHT])
    if scene.corners.shape[2] == COLORED_CORNERS:
        shade.tint_fragments(block, count)
    if len(shot.shadow) > 1:
        shadow_fragments(block, count, shot.eye, shot.sun, shot.shadow)
    shade.shade(block, count, scene.materials[s], row[KIND], row[TWO_SIDED], shot.eye)
    _lay_down(block, place, count, width, mode, scratch.color)


@compiled
def _lay_down(block: Float, place: Index, count: int, width: int, mode: int, color: Float) -> None:
    """Put shaded fragments onto the band's picture."""
    for i in range(np.uint64(count)):
        x, row = (place[i] >> _SHARE_BITS) & _COLUMNS, place[i] >> (_SHARE_BITS + _ROW_BITS)
        at = (np.uint64(row) * np.uint64(width) + np.uint64(x)) * np.uint64(4)
        weight = block[_row(shade.WEIGHT) + i]
        rest, covers = np.float32(1), weight
        if mode == _LAY_OVER:
            weight *= block[_row(shade.ALPHA) + i]
            rest, covers = np.float32(1) - weight, weight
        elif mode == _ADD:
            covers = np.float32(0)
        color[at] = color[at] * rest + weight * block[_row(shade.RED) + i]
        color[at + _1] = color[at + _1] * rest + weight * block[_row(shade.GREEN) + i]
        color[at + _2] = color[at + _2] * rest + weight * block[_row(shade.BLUE) + i]
        color[at + _3] = color[at + _3] * rest + covers


@inlined
def _push_chunk(scratch: Scratch, s: int, left: int, row: int, first: int) -> None:
    """Let a chunk of pixels wait, each one whole fragment of surface s; the block has room for them."""
    n = s * shade.BLOCK + scratch.filled[s]
    for i in range(CHUNK):
        scratch.fragment[n + i] = scratch.owner[first + SAMPLES * i]
        scratch.place[n + i] = (row << _ROW_BITS | (left + i)) << _SHARE_BITS | SAMPLES
    scratch.filled[s] += CHUNK


@inlined
def _enter_pixel(scene: Scene, shot: Shot, x: int, y: int, top: int, width: int, scratch: Scratch) -> None:
    """Let a pixel's fragments wait, one for each of its surfaces."""
    owner, first = scratch.owner, sample_index(x, y, width)
    t = owner[first]
    if t != NO_TRIANGLE:
        s = scene.surface[t]
        if shows_one(scene, s, owner, scratch.depth, first):
            if _push(scratch, s, t, x, y, SAMPLES):
                flush_fragments(scene, shot, s, top, width, scratch, _SHARE)
            return
    settle(scene.surface, owner, scratch.depth, first)
    for j in range(SAMPLES):
        t = owner[first + j]
        if t == NO_TRIANGLE:
            continue
        share = share_of(owner, first, j)
        s = scene.surface[t]
        if share and _push(scratch, s, t, x, y, share):
            flush_fragments(scene, shot, s, top, width, scratch, _SHARE)


@compiled
def paint(scene: Scene, shot: Shot, top: int, rows: int, width: int, scratch: Scratch) -> None:
    """Shade what is seen of the opaque surfaces in the band, each pixel once for each of its surfaces."""
    owner, depth, filled = scratch.owner, scratch.depth, scratch.filled
    filled[:] = 0
    for y in range(rows):
        for left in range(0, width, CHUNK):
            first = sample_index(left, y, width)
            shown = samples_owned(owner, first)
            if shown == 0:
                continue
            s = scene.surface[owner[first]] if shown & 1 else np.int32(0)
            plain = pixels_within(owner, depth, first, scene.surfaces[s, FIRST], scene.surfaces[s, LAST])
            if plain == EVERY_SAMPLE and left + CHUNK <= width:
                if filled[s] + CHUNK >= shade.BLOCK:
                    flush_fragments(scene, shot, s, top, width, scratch, _SHARE)
                _push_chunk(scratch, s, left, y, first)
                continue
            for x in range(left, min(left + CHUNK, width)):
                if shown & ALL_SAMPLES:
                    _enter_pixel(scene, shot, x, y, top, width, scratch)
                shown >>= SAMPLES
    for s in range(len(filled)):
        flush_fragments(scene, shot, np.int32(s), top, width, scratch, _SHARE)


@compiled
def lay_over(scene: Scene, shot: Shot, s: int, top: int, rows: int, width: int, height: int, scratch: Scratch) -> None:
    """Blend the triangles of a surface that are not solid over the band, or add their highlights to it."""
    mode = _ADD if scene.surfaces[s, MODE] == ADD else _LAY_OVER
    ahead = _HAIR_BEHIND if scene.surfaces[s, MODE] == HAIR else _WET_BEHIND if mode == _ADD else _CARD_AHEAD
    place = s * count_bands(height) + top // BAND_ROWS
    for n in range(scratch.order_from[place], scratch.order_from[place + 1]):
        t = scratch.order[n]
        if scene.opacity[t] == SOLID:
            continue
        a, b, c = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
        x0, y0, x1, y1 = part_in_view(shot.screen, a, b, c, ahead, top, rows, width, scratch.tiles)
        if y0 >= y1:
            continue
        edges, plane = edges_of(shot.screen, a, b, c), plane_of(shot.screen, a, b, c)
        keep_plane(plane, t, scratch.planes)
        for y in range(y0, y1):
            left, right = span_of(edges, y, x0, x1)
            left = left // CHUNK * CHUNK
            values = values_at(edges, left, y)
            for x in range(left, right, CHUNK):
                near = nearness_in_chunk(plane[0], x, y)
                near = near[0] * ahead, near[1] * ahead, near[2] * ahead
                mask = samples_within(lines_of(edges, values), near, scratch.depth, sample_index(x, y - top, width))
                values = next_chunk(edges, values)
                column = x
                while mask:
                    share = _COUNTS[mask & ALL_SAMPLES]
                    if share:
                        wb, wc, _ = weights_at(plane, np.float32(column + 0.5), np.float32(y + 0.5))
                        seen = mode == _ADD or opacity_at(scene, s, t, wb, wc) >= _FAINT * 255
                        if seen and _push(scratch, s, t, column, y - top, share):
                            flush_fragments(scene, shot, s, top, width, scratch, mode)
                    mask >>= SAMPLES
                    column += 1
    flush_fragments(scene, shot, s, top, width, scratch, mode)


@compiled
def resolve(color: Float, background: Float, top: int, rows: int, scale: int, scratch: Scratch, out: Bytes) -> int:
    """The band's light over the background as sRGB bytes, `scale` x `scale` pixels to one; returns the pixels drawn on.

    `out` is (H, W, 3) and holds the background already, or (H, W, 4) and gets coverage as its fourth channel.
    """
    drawn, width = 0, np.uint64(out.shape[1])
    tone, coverage = scratch.tone, scratch.coverage
    last = np.float32(shade.TONE_STEPS - 1)
    if scale > 1:
        _shrink(color, rows, out.shape[1], scale)
    for y in range(rows // scale):
        row = top // scale + y
        tone_indices(color, np.uint64(y) * width * _4, width, tone, coverage)
        for x in range(width):
            covered = coverage[x]
            if covered <= 0:
                continue
            drawn += 1
            red, green, blue = tone[x], tone[width + x], tone[_2 * width + x]
            if out.shape[2] == 4:
                out[row, x, 3] = np.uint8(min(covered, np.float32(1)) * 255 + np.float32(0.5))
            elif covered < np.float32(0.999):
                over, rest = covered * last, (np.float32(1) - covered) * last
                behind = background[row, x]
                out[row, x, 0] = shade.DISPLAY_BYTES[int(over * shade.TONE_LIGHT[red] + rest * behind[0])]
                out[row, x, 1] = shade.DISPLAY_BYTES[int(over * shade.TONE_LIGHT[green] + rest * behind[1])]
                out[row, x, 2] = shade.DISPLAY_BYTES[int(over * shade.TONE_LIGHT[blue] + rest * behind[2])]
                continue
            out[row, x, 0] = shade.TONE_BYTES[red]
            out[row, x, 1] = shade.TONE_BYTES[green]
            out[row, x, 2] = shade.TONE_BYTES[blue]
    return drawn


@inlined
def _shrink(color: Float, rows: int, width: int, scale: int) -> None:
    """Means of `scale` x `scale` pixels, in their place, row after row."""
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
    """Places in the tone tables of a row's light where it is covered, and how far it is."""
    step = np.float32((shade.TONE_STEPS - 1) / shade.TONE_RANGE)
    zero, last = np.float32(0), np.float32(shade.TONE_STEPS - 1)
    for x in range(width):  # in this order, limits also hold what is no number
        at = first + x * _4
        covered = color[at + _3]
        level = step / max(covered, np.float32(1e-6))
        tone[x] = np.int32(min(last, max(zero, color[at] * level)))
        tone[width + x] = np.int32(min(last, max(zero, color[at + _1] * level)))
        tone[_2 * width + x] = np.int32(min(last, max(zero, color[at + _2] * level)))
        coverage[x] = covered


@compiled
def draw(scene: Scene, shot: Shot, scale: int, scratch: Scratch, out: Bytes) -> int:
    """Draw a frame into `out` (H, W, 3 or 4) uint8, from `scale` x `scale` pixels each; returns the pixels drawn on."""
    height, width = out.shape[0] * scale, out.shape[1] * scale
    surfaces = scene.surfaces
    drawn = 0
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        scratch.owner[:] = NO_TRIANGLE
        scratch.depth[:] = np.float32(0)
        scratch.color[:] = np.float32(0)
        scratch.tiles[:] = np.float32(0)
        covering = 0
        for s in range(len(surfaces)):
            if surfaces[s, MODE] <= HAIR:
                covering = cover(scene, shot.screen, s, top, rows, width, height, covering, scratch)
        measure_tiles(scratch.depth, width, scratch.tiles)
        paint(scene, shot, top, rows, width, scratch)
        for s in range(len(surfaces)):
            if surfaces[s, MODE] >= HAIR:
                lay_over(scene, shot, np.int32(s), top, rows, width, height, scratch)
        drawn += resolve(scratch.color, scene.background, top, rows, scale, scratch, out)
    return drawn
