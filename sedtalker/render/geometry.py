"""Points and normals of a frame."""

from __future__ import annotations

import math

import numpy as np

from sedtalker.render.arrays import Float, Int
from sedtalker.render.compiled import compiled


@compiled
def place(
    vertices: Float, indices: Int, weights: Float, offsets: Float, follows: Float, motion: Float, points: Float
) -> None:
    """The face's vertices and its attachments, each moved by its share of the head's rigid motion, into `points`.

    Args:
        vertices: (V, 3) float32 metres.
        indices, weights, offsets: (A, 3), see `Attachment`.
        follows: (V + A,) float32 share of the motion.
        motion: (4, 4) float32.
        points: (>= V + A, 3) float32, filled.
    """
    own = len(vertices)
    for n in range(len(follows)):
        if n < own:
            x, y, z = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        else:
            m = n - own
            x, y, z = offsets[m, 0], offsets[m, 1], offsets[m, 2]
            for k in range(3):
                at, weight = indices[m, k], weights[m, k]
                x += weight * vertices[at, 0]
                y += weight * vertices[at, 1]
                z += weight * vertices[at, 2]
        share = follows[n]
        points[n, 0] = x + share * (motion[0, 0] * x + motion[0, 1] * y + motion[0, 2] * z + motion[0, 3] - x)
        points[n, 1] = y + share * (motion[1, 0] * x + motion[1, 1] * y + motion[1, 2] * z + motion[1, 3] - y)
        points[n, 2] = z + share * (motion[2, 0] * x + motion[2, 1] * y + motion[2, 2] * z + motion[2, 3] - z)


@compiled
def vertex_normals(points: Float, triangles: Int, normals: Float) -> None:
    """Unit normals, weighted by the areas of the triangles (F, 3) around each point, into `normals` (P, 3 or 4)."""
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
def bend_middles(edges: Int, points: Float, normals: Float, first: int) -> None:
    """Middles of edges (E, 2), drawn towards the tangent planes of both ends (Phong tessellation), from `first` on."""
    strength = np.float32(0.3)  # half of the usual 0.6, since each end pulls
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
            points[n, k] = middle + strength * (over_a * normals[a, k] + over_b * normals[b, k])
            normals[n, k] = normals[a, k] + normals[b, k]
            length += normals[n, k] * normals[n, k]
        over = np.float32(1) / math.sqrt(length)
        for k in range(3):
            normals[n, k] *= over


@compiled
def project(points: Float, view: Float, screen: Float) -> None:
    """Points (P, 3) in metres -> x and y in pixels and 1 / depth, into `screen`; `view` as in `buffers.Shot`."""
    for n in range(len(points)):
        x, y, z = points[n, 0] - view[0], points[n, 1] - view[1], points[n, 2] - view[2]
        away = -(view[9] * x + view[10] * y + view[11] * z)
        near = np.float32(1) / max(away, np.float32(1e-3))
        scale = near / view[12]
        screen[n, 0] = view[13] + (view[3] * x + view[4] * y + view[5] * z) * scale
        screen[n, 1] = view[14] - (view[6] * x + view[7] * y + view[8] * z) * scale
        screen[n, 2] = near
