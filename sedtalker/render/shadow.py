"""Shadow mapping with a soft filter, and ambient occlusion from many shadow maps."""

from __future__ import annotations

import math

import numpy as np

from sedtalker.render.arrays import BACKWARD, CENTER_X, CENTER_Y, EYE, INVERSE_FOCAL, RIGHT, UP, Float, Index, Int
from sedtalker.render.compiled import compiled, inlined
from sedtalker.render.shade import DEPTH, KEY_LIGHT, KEY_VISIBILITY, LIGHT_DIRECTIONS, NX, NY, NZ, X, Y, at

SIZE = 320  # texels along each side of the map
LAYERS = 4  # of a shadow map, see `render_shadow_map`
_FILTER_RADIUS = 2  # texels, of the percentage-closer filter
_BIAS, _SLOPE_BIAS = 0.0016, 0.0022  # depth bias in metres: constant, and for each unit of the slope's tangent
_LEAST_FACING = 0.4  # cosine of the steepest slope: with more, light leaked between a lip and its shadow, as a comb
_SOFTNESS = 0.0025  # metres behind the occluder over which light fades
_SKY_DIRECTIONS = 48  # lights of the ambient occlusion
_NORMAL_OFFSET = 0.0015  # metres along the normal, against self-shadowing


def fit_light_matrix(points: Float, light: Float = LIGHT_DIRECTIONS[KEY_LIGHT]) -> Float:
    """(3, 4) matrix from the world to a shadow map's column, row and distance in metres, in which all points fit."""
    backward = light.astype(np.float64)
    right = np.cross((0.0, 1.0, 0.0) if abs(backward[1]) < 0.99 else (1.0, 0.0, 0.0), backward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(backward, right), -backward])
    projected = points @ axes.T
    low, high = projected.min(0), projected.max(0)
    scale = (SIZE - 8) / max(float((high - low)[:2].max()), 1e-6)
    axes[:2] *= scale
    shift = SIZE / 2 - scale * (low + high) / 2
    shift[2] = 0.0
    return np.concatenate([axes, shift[:, None]], 1).astype(np.float32)


@compiled
def _render_depth(points: Float, triangles: Index, light_matrix: Float, depth: Float) -> None:
    """Rasterize the distance from the light to the nearest triangle into `depth` (SIZE, SIZE); infinity elsewhere."""
    depth[:] = np.float32(np.inf)
    size = depth.shape[0]
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = _transform(light_matrix, points[a, 0], points[a, 1], points[a, 2])
        x1, y1, z1 = _transform(light_matrix, points[b, 0], points[b, 1], points[b, 2])
        x2, y2, z2 = _transform(light_matrix, points[c, 0], points[c, 1], points[c, 2])
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        scale = np.float32(1) / area
        for row in range(max(0, int(min(y0, y1, y2))), min(size - 1, int(max(y0, y1, y2))) + 1):
            for column in range(max(0, int(min(x0, x1, x2))), min(size - 1, int(max(x0, x1, x2))) + 1):
                x, y = np.float32(column + 0.5), np.float32(row + 0.5)
                w0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) * scale
                w1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) * scale
                w2 = np.float32(1) - w0 - w1
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    depth[row, column] = min(depth[row, column], w0 * z0 + w1 * z1 + w2 * z2)


@inlined
def _transform(matrix: Float, x: float, y: float, z: float) -> tuple[float, float, float]:
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3],
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3],
    )


@compiled
def sample_shadow(x: float, y: float, z: float, facing: float, light_matrix: Float, shadow_map: Float) -> float:
    """Share 0...1 of a light at a point; `facing` is the cosine between normal and light.

    The layers `near` and `far` decide points before or behind all texels of the filter without evaluating it.
    """
    depth, near, far = shadow_map[0], shadow_map[1], shadow_map[2]
    size = depth.shape[0]
    column, row, away = _transform(light_matrix, x, y, z)
    column, row = column - np.float32(0.5), row - np.float32(0.5)
    left, top = math.floor(column), math.floor(row)
    if not (_FILTER_RADIUS <= left < size - _FILTER_RADIUS and _FILTER_RADIUS <= top < size - _FILTER_RADIUS):
        return np.float32(1)  # the map's border is empty
    steep = max(facing, np.float32(_LEAST_FACING))
    slope = np.float32(_SLOPE_BIAS) * math.sqrt(max(np.float32(0), np.float32(1) - steep * steep)) / steep
    bias = np.float32(_BIAS) + slope
    if near[top, left] + bias >= away:
        return np.float32(1)
    if far[top, left] + bias + np.float32(_SOFTNESS) <= away:
        return np.float32(0)
    fx, fy = column - np.float32(left), row - np.float32(top)
    visibility = np.float32(0)
    steepness = np.float32(1 / _SOFTNESS)
    for j in range(1 - _FILTER_RADIUS, _FILTER_RADIUS + 1):
        wy = np.float32(1) - fy if j == 1 - _FILTER_RADIUS else (fy if j == _FILTER_RADIUS else np.float32(1))
        for i in range(1 - _FILTER_RADIUS, _FILTER_RADIUS + 1):
            wx = np.float32(1) - fx if i == 1 - _FILTER_RADIUS else (fx if i == _FILTER_RADIUS else np.float32(1))
            behind = np.float32(1) + (depth[top + j, left + i] + bias - away) * steepness
            visibility += wx * wy * min(max(behind, np.float32(0)), np.float32(1))
    return visibility * np.float32(1 / (2 * _FILTER_RADIUS - 1) ** 2)


@compiled
def render_shadow_map(points: Float, triangles: Index, light_matrix: Float, shadow_map: Float) -> None:
    """Render the triangles into `shadow_map` (LAYERS, SIZE, SIZE).

    Layers: distance from the light to the nearest triangle in metres; its minimum and its maximum over the texels of
    the filter in `sample_shadow`; working memory.
    """
    _render_depth(points, triangles, light_matrix, shadow_map[0])
    depth, rows = shadow_map[0], shadow_map[3]
    size = depth.shape[0]
    for out, least in ((shadow_map[1], True), (shadow_map[2], False)):
        for row in range(_FILTER_RADIUS, size - _FILTER_RADIUS):
            for column in range(size):
                best = depth[row - _FILTER_RADIUS + 1, column]
                for j in range(2 - _FILTER_RADIUS, _FILTER_RADIUS + 1):
                    other = depth[row + j, column]
                    best = min(best, other) if least else max(best, other)
                rows[row, column] = best
            for column in range(_FILTER_RADIUS, size - _FILTER_RADIUS):
                best = rows[row, column - _FILTER_RADIUS + 1]
                for i in range(2 - _FILTER_RADIUS, _FILTER_RADIUS + 1):
                    other = rows[row, column + i]
                    best = min(best, other) if least else max(best, other)
                out[row, column] = best


@compiled
def _light_visibility(
    points: Float, normals: Float, light: Float, light_matrix: Float, shadow_map: Float, out: Float
) -> None:
    offset = np.float32(_NORMAL_OFFSET)
    for n in range(len(points)):
        nx, ny, nz = normals[n, 0], normals[n, 1], normals[n, 2]
        facing = nx * light[0] + ny * light[1] + nz * light[2]
        x, y, z = points[n, 0] + offset * nx, points[n, 1] + offset * ny, points[n, 2] + offset * nz
        out[n] = sample_shadow(x, y, z, facing, light_matrix, shadow_map)


@compiled
def apply_shadow_map(block: Float, count: int, camera: Float, light_matrix: Float, shadow_map: Float) -> None:
    """Write the share of the key light at each fragment of a block into its row KEY_VISIBILITY."""
    offset = np.float32(_NORMAL_OFFSET)
    light, inverse_focal = LIGHT_DIRECTIONS[KEY_LIGHT], camera[INVERSE_FOCAL]
    for i in range(count):
        far = block[at(DEPTH, i)]
        x = (block[at(X, i)] - camera[CENTER_X]) * inverse_focal * far
        y = (camera[CENTER_Y] - block[at(Y, i)]) * inverse_focal * far
        nx, ny, nz = block[at(NX, i)], block[at(NY, i)], block[at(NZ, i)]
        unit = np.float32(1) / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
        nx, ny, nz = nx * unit, ny * unit, nz * unit
        px = camera[EYE] + x * camera[RIGHT] + y * camera[UP] - far * camera[BACKWARD] + offset * nx
        py = camera[EYE + 1] + x * camera[RIGHT + 1] + y * camera[UP + 1] - far * camera[BACKWARD + 1] + offset * ny
        pz = camera[EYE + 2] + x * camera[RIGHT + 2] + y * camera[UP + 2] - far * camera[BACKWARD + 2] + offset * nz
        facing = nx * light[0] + ny * light[1] + nz * light[2]
        block[at(KEY_VISIBILITY, i)] = sample_shadow(px, py, pz, facing, light_matrix, shadow_map)


def light_visibility(
    points: Float, normals: Float, casters: Index, light: Float = LIGHT_DIRECTIONS[KEY_LIGHT]
) -> Float:
    """(P,) share of a light, by default the key light, that the casting triangles let through to each point."""
    light_matrix = fit_light_matrix(points, light)
    shadow_map = np.empty((LAYERS, SIZE, SIZE), np.float32)
    render_shadow_map(points, casters, light_matrix, shadow_map)
    out = np.ones(len(points), np.float32)
    _light_visibility(points, normals, light, light_matrix, shadow_map, out)
    return out


def ambient_occlusion(points: Float, normals: Float, casters: Index) -> Float:
    """(P,) share of the hemisphere over each point that is not occluded."""
    count = np.arange(_SKY_DIRECTIONS) + 0.5
    height = 1 - 2 * count / _SKY_DIRECTIONS
    turn = np.pi * (1 + 5**0.5) * count
    flat = np.sqrt(1 - height**2)
    sky = np.stack([np.cos(turn) * flat, height, np.sin(turn) * flat], 1).astype(np.float32)
    visible, total = np.zeros(len(points), np.float32), np.full(len(points), 1e-6, np.float32)
    for light in sky:
        facing = np.maximum(normals @ light, 0)
        visible += facing * light_visibility(points, normals, casters, light)
        total += facing
    return visible / total


def smooth_light(light: Float, triangles: Int, steps: int = 3) -> Float:
    """Laplacian smoothing of light (P,) at points, because shadow edges finer than the mesh look jagged."""
    sides = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    neighbours = np.bincount(sides[:, 0], minlength=len(light))
    for _ in range(steps):
        mean = np.bincount(sides[:, 0], light[sides[:, 1]], len(light)) / np.maximum(neighbours, 1)
        light = np.where(neighbours > 0, (light + mean) / 2, light)
    return light.astype(np.float32)
