"""The shadow that the key light throws: a depth map from the light, read back softly."""

from __future__ import annotations

import math

import numpy as np

from sedtalker.render.arrays import Float, Index, Int
from sedtalker.render.compiled import compiled
from sedtalker.render.shade import BLOCK, DEPTH, KEY, KEY_LIGHT, LIGHT_DIRECTIONS, NX, NY, NZ, X, Y

SIZE = 320  # texels along each side of the map
LAYERS = 4  # of a shadow, see `throw`
_TAPS = 2  # texels around a point that are averaged, each way
_BIAS, _SLOPE = 0.0016, 0.0022  # metres, flat on and for each unit of the tangent
_SOFT = 0.0025  # metres behind the surface over which light fades
_SKY_DIRECTIONS = 48
_OFFSET = 0.0015  # metres along the normal from which a point looks at the light


def light_view(points: Float, light: Float = LIGHT_DIRECTIONS[KEY_LIGHT]) -> Float:
    """(3, 4) world -> column and row in the map, and metres away from a light, so that all points fit."""
    toward = light.astype(np.float64)
    right = np.cross((0.0, 1.0, 0.0) if abs(toward[1]) < 0.99 else (1.0, 0.0, 0.0), toward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(toward, right), -toward])
    seen = points @ axes.T
    low, high = seen.min(0), seen.max(0)
    scale = (SIZE - 8) / max(float((high - low)[:2].max()), 1e-6)
    axes[:2] *= scale
    shift = SIZE / 2 - scale * (low + high) / 2
    shift[2] = 0.0
    return np.concatenate([axes, shift[:, None]], 1).astype(np.float32)


@compiled
def _draw_depth(points: Float, triangles: Index, view: Float, depth: Float) -> None:
    """Distance from the light of what it sees first, into `depth` (SIZE, SIZE); infinity elsewhere."""
    depth[:] = np.float32(np.inf)
    size = depth.shape[0]
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = _seen(points, a, view)
        x1, y1, z1 = _seen(points, b, view)
        x2, y2, z2 = _seen(points, c, view)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        over = np.float32(1) / area
        for row in range(max(0, int(min(y0, y1, y2))), min(size - 1, int(max(y0, y1, y2))) + 1):
            for column in range(max(0, int(min(x0, x1, x2))), min(size - 1, int(max(x0, x1, x2))) + 1):
                x, y = np.float32(column + 0.5), np.float32(row + 0.5)
                w0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) * over
                w1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) * over
                w2 = np.float32(1) - w0 - w1
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    depth[row, column] = min(depth[row, column], w0 * z0 + w1 * z1 + w2 * z2)


@compiled
def _seen(points: Float, n: int, view: Float) -> tuple[float, float, float]:
    x, y, z = points[n, 0], points[n, 1], points[n, 2]
    return (
        view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3],
        view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3],
        view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3],
    )


@compiled
def light_at(x: float, y: float, z: float, facing: float, view: Float, shadow_map: Float) -> float:
    """Share of a light, 0...1, at a point whose normal has this cosine to the light; `thrown` as in `throw`.

    Where the point is before all texels that would be averaged, or well behind them, the average is known.
    """
    depth, near, far = shadow_map[0], shadow_map[1], shadow_map[2]
    size = depth.shape[0]
    column = view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3] - np.float32(0.5)
    row = view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3] - np.float32(0.5)
    away = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
    left, top = math.floor(column), math.floor(row)
    if not (_TAPS <= left < size - _TAPS and _TAPS <= top < size - _TAPS):
        return np.float32(1)  # nothing is drawn along the map's edges
    steep = max(facing, np.float32(0.15))
    bias = np.float32(_BIAS) + np.float32(_SLOPE) * math.sqrt(max(np.float32(0), np.float32(1) - steep * steep)) / steep
    if near[top, left] + bias >= away:
        return np.float32(1)
    if far[top, left] + bias + np.float32(_SOFT) <= away:
        return np.float32(0)
    fx, fy = column - np.float32(left), row - np.float32(top)
    lit = np.float32(0)
    over = np.float32(1 / _SOFT)
    for j in range(1 - _TAPS, _TAPS + 1):
        wy = np.float32(1) - fy if j == 1 - _TAPS else (fy if j == _TAPS else np.float32(1))
        for i in range(1 - _TAPS, _TAPS + 1):
            wx = np.float32(1) - fx if i == 1 - _TAPS else (fx if i == _TAPS else np.float32(1))
            behind = np.float32(1) + (depth[top + j, left + i] + bias - away) * over
            lit += wx * wy * min(max(behind, np.float32(0)), np.float32(1))
    return lit * np.float32(1 / (2 * _TAPS - 1) ** 2)


@compiled
def render_shadow_map(points: Float, triangles: Index, view: Float, shadow_map: Float) -> None:
    """Fill `thrown` (LAYERS, SIZE, SIZE) with the triangles' shadow.

    Its layers: what the light sees first, as metres away from it; of these the least and the greatest among the texels
    that `light_at` averages; working memory.
    """
    _draw_depth(points, triangles, view, shadow_map[0])
    depth, rows = shadow_map[0], shadow_map[3]
    size = depth.shape[0]
    for out, least in ((shadow_map[1], True), (shadow_map[2], False)):
        for row in range(_TAPS, size - _TAPS):
            for column in range(size):
                best = depth[row - _TAPS + 1, column]
                for j in range(2 - _TAPS, _TAPS + 1):
                    other = depth[row + j, column]
                    best = min(best, other) if least else max(best, other)
                rows[row, column] = best
            for column in range(_TAPS, size - _TAPS):
                best = rows[row, column - _TAPS + 1]
                for i in range(2 - _TAPS, _TAPS + 1):
                    other = rows[row, column + i]
                    best = min(best, other) if least else max(best, other)
                out[row, column] = best


@compiled
def _light_points(points: Float, normals: Float, light: Float, view: Float, shadow_map: Float, out: Float) -> None:
    offset = np.float32(_OFFSET)
    for n in range(len(points)):
        nx, ny, nz = normals[n, 0], normals[n, 1], normals[n, 2]
        facing = nx * light[0] + ny * light[1] + nz * light[2]
        x, y, z = points[n, 0] + offset * nx, points[n, 1] + offset * ny, points[n, 2] + offset * nz
        out[n] = light_at(x, y, z, facing, view, shadow_map)


@compiled
def shadow_fragments(block: Float, count: int, view: Float, sun: Float, shadow_map: Float) -> None:
    """Share of the key light at each fragment of a block, into its row KEY."""
    offset = np.float32(_OFFSET)
    light = LIGHT_DIRECTIONS[KEY_LIGHT]
    for i in range(count):
        far = block[DEPTH * BLOCK + i]
        x, y = (block[X * BLOCK + i] - view[13]) * view[12] * far, (view[14] - block[Y * BLOCK + i]) * view[12] * far
        nx, ny, nz = block[NX * BLOCK + i], block[NY * BLOCK + i], block[NZ * BLOCK + i]
        unit = np.float32(1) / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
        nx, ny, nz = nx * unit, ny * unit, nz * unit
        px = view[0] + x * view[3] + y * view[6] - far * view[9] + offset * nx
        py = view[1] + x * view[4] + y * view[7] - far * view[10] + offset * ny
        pz = view[2] + x * view[5] + y * view[8] - far * view[11] + offset * nz
        facing = nx * light[0] + ny * light[1] + nz * light[2]
        block[KEY * BLOCK + i] = light_at(px, py, pz, facing, sun, shadow_map)


def light_points(points: Float, normals: Float, casters: Index, light: Float = LIGHT_DIRECTIONS[KEY_LIGHT]) -> Float:
    """(P,) share of a light, by default the key light, that reaches each point past the casting triangles."""
    view = light_view(points, light)
    shadow_map = np.empty((LAYERS, SIZE, SIZE), np.float32)
    render_shadow_map(points, casters, view, shadow_map)
    out = np.ones(len(points), np.float32)
    _light_points(points, normals, light, view, shadow_map, out)
    return out


def sky_light(points: Float, normals: Float, casters: Index) -> Float:
    """(P,) ambient occlusion: the share of the sky over each point that is open."""
    count = np.arange(_SKY_DIRECTIONS) + 0.5
    height = 1 - 2 * count / _SKY_DIRECTIONS
    turn = np.pi * (1 + 5**0.5) * count
    flat = np.sqrt(1 - height**2)
    sky = np.stack([np.cos(turn) * flat, height, np.sin(turn) * flat], 1).astype(np.float32)
    open_, total = np.zeros(len(points), np.float32), np.full(len(points), 1e-6, np.float32)
    for light in sky:
        facing = np.maximum(normals @ light, 0)
        open_ += facing * light_points(points, normals, casters, light)
        total += facing
    return open_ / total


def smoothed(light: Float, triangles: Int, steps: int = 3) -> Float:
    """Light (P,) at points, drawn to their neighbours' mean a few times: edges finer than the mesh look torn."""
    sides = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    neighbours = np.bincount(sides[:, 0], minlength=len(light))
    for _ in range(steps):
        mean = np.bincount(sides[:, 0], light[sides[:, 1]], len(light)) / np.maximum(neighbours, 1)
        light = np.where(neighbours > 0, (light + mean) / 2, light)
    return light.astype(np.float32)
