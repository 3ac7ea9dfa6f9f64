"""Points, normals and screen coordinates of a frame."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sedtalker.render.arrays import BACKWARD, CENTER_X, CENTER_Y, EYE, INVERSE_FOCAL, RIGHT, UP, Float, Index, Int
from sedtalker.render.buffers import SUBPIXELS
from sedtalker.render.compiled import compiled, inlined


@compiled
def compute_points(
    vertices: Float, indices: Int, weights: Float, offsets: Float, head_weights: Float, motion: Float, points: Float
) -> None:
    """Fill `points` with the vertices and the attachments' points, each moved by its share of the head's rigid motion.

    Args:
        vertices: (V, 3) float32 metres.
        indices, weights, offsets: (A, 3), see `Attachment`.
        head_weights: (V + A,) float32 share of the motion.
        motion: (4, 4) float32.
        points: (>= V + A, 3) float32, filled.
    """
    count = len(vertices)
    for n in range(len(head_weights)):
        if n < count:
            x, y, z = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        else:
            m = n - count
            x, y, z = offsets[m, 0], offsets[m, 1], offsets[m, 2]
            for k in range(3):
                at, weight = indices[m, k], weights[m, k]
                x += weight * vertices[at, 0]
                y += weight * vertices[at, 1]
                z += weight * vertices[at, 2]
        share = head_weights[n]
        points[n, 0] = x + share * (motion[0, 0] * x + motion[0, 1] * y + motion[0, 2] * z + motion[0, 3] - x)
        points[n, 1] = y + share * (motion[1, 0] * x + motion[1, 1] * y + motion[1, 2] * z + motion[1, 3] - y)
        points[n, 2] = z + share * (motion[2, 0] * x + motion[2, 1] * y + motion[2, 2] * z + motion[2, 3] - z)


@compiled
def vertex_normals(points: Float, triangles: Int, normals: Float) -> None:
    """Fill `normals` (P, 3 or 4) with unit normals, averaged by area over the triangles (F, 3) around each point."""
    normals[:] = np.float32(0)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in range(3):
            n = triangles[t, k]
            normals[n, 0] += nx
            normals[n, 1] += ny
            normals[n, 2] += nz
    for n in range(len(normals)):
        x, y, z = normals[n, 0], normals[n, 1], normals[n, 2]
        over = np.float32(1) / math.sqrt(x * x + y * y + z * z + np.float32(1e-24))
        normals[n, 0], normals[n, 1], normals[n, 2] = x * over, y * over, z * over


@compiled
def tessellate_edges(edges: Int, points: Float, normals: Float, first: int) -> None:
    """Phong tessellation (Boubekeur and Alexa 2008): append the midpoints of edges (E, 2) from index `first` on."""
    shape = np.float32(0.3)  # half the usual shape factor 0.6, because the projections of both ends are added
    half = np.float32(0.5)
    for e in range(len(edges)):
        a, b, n = edges[e, 0], edges[e, 1], first + e
        over_a = over_b = np.float32(0)
        for k in range(3):
            along = (points[b, k] - points[a, k]) * half
            over_a -= along * normals[a, k]
            over_b += along * normals[b, k]
        length = np.float32(1e-24)
        for k in range(3):
            middle = (points[a, k] + points[b, k]) * half
            points[n, k] = middle + shape * (over_a * normals[a, k] + over_b * normals[b, k])
            normals[n, k] = normals[a, k] + normals[b, k]
            length += normals[n, k] * normals[n, k]
        over = np.float32(1) / math.sqrt(length)
        for k in range(3):
            normals[n, k] *= over


@inlined
def _to_grid(value: float) -> float:
    """Round pixels to the grid of subpixels."""
    return np.float32(np.floor(np.float64(value) * SUBPIXELS + 0.5) / SUBPIXELS)


@compiled
def project(points: Float, camera: Float, screen: Float) -> None:
    """Project points (P, 3) in metres to `screen` (P, 3): x and y in pixels, and 1 / depth.

    x and y are on the grid of coverage. If the depth and the colors of a sliver were interpolated between the exact
    corners, they would be extrapolated at the samples that it covers, and a hidden sliver would come to the front.
    """
    for n in range(len(points)):
        x, y, z = points[n, 0] - camera[EYE], points[n, 1] - camera[EYE + 1], points[n, 2] - camera[EYE + 2]
        away = -(camera[BACKWARD] * x + camera[BACKWARD + 1] * y + camera[BACKWARD + 2] * z)
        near = np.float32(1) / max(away, np.float32(1e-3))
        scale = near / camera[INVERSE_FOCAL]
        right = camera[RIGHT] * x + camera[RIGHT + 1] * y + camera[RIGHT + 2] * z
        up = camera[UP] * x + camera[UP + 1] * y + camera[UP + 2] * z
        screen[n, 0] = _to_grid(camera[CENTER_X] + right * scale)
        screen[n, 1] = _to_grid(camera[CENTER_Y] - up * scale)
        screen[n, 2] = near


@compiled
def quantize_depths(triangles: Index, chosen: Index, screen: Float, steps: int, result: NDArray[np.int16]) -> None:
    """Fill `result` (C,) int16 with 0...steps from the most distant to the nearest of the chosen triangles (C,)."""
    low, high = np.float32(np.inf), np.float32(0)
    for n in range(len(chosen)):
        t = chosen[n]
        near = screen[triangles[t, 0], 2] + screen[triangles[t, 1], 2] + screen[triangles[t, 2], 2]
        low, high = min(low, near), max(high, near)
    scale = np.float32(steps / max(np.float64(high) - np.float64(low), 1e-9))
    for n in range(len(chosen)):
        t = chosen[n]
        near = screen[triangles[t, 0], 2] + screen[triangles[t, 1], 2] + screen[triangles[t, 2], 2]
        result[n] = np.int16((near - low) * scale)
