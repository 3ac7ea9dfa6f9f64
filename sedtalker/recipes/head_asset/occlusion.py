"""Ambient occlusion and visibility from depth maps of many directions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sedtalker.kernels import compiler
from sedtalker.recipes.head_asset.anatomy import Ids
from sedtalker.recipes.head_asset.sources import Array

DIRECTIONS = 96
MAP_SIZE = 384  # pixels
NEAR = 0.006  # metres; occluders closer than this to a vertex are its own surface
SMOOTHING_STEPS = 2


def ambient_occlusion(vertices: Array, normals: Array, blockers: Array, triangles: Ids) -> NDArray[np.float32]:
    """Cosine-weighted share (V,) of directions from vertices (V, 3) that meet no triangle (F, 3) of blockers (B, 3)."""
    centre = (blockers.min(0) + blockers.max(0)) / 2
    radius = float(np.linalg.norm(blockers - centre, axis=1).max()) * 1.02
    unoccluded = np.zeros(len(vertices))
    total = np.zeros(len(vertices))
    for direction in sphere(DIRECTIONS):
        frame = view_axes(-direction)
        depth, _ = depth_map(blockers, triangles, centre, radius, frame)
        x, y, z = _to_map(vertices, centre, radius, frame)
        column = np.clip(x.astype(int), 0, MAP_SIZE - 1)
        row = np.clip(y.astype(int), 0, MAP_SIZE - 1)
        weight = np.maximum(normals @ direction, 0)
        unoccluded += weight * (z < depth[row, column] + NEAR)
        total += weight
    return (unoccluded / np.maximum(total, 1e-9)).astype(np.float32)


def smooth_values(values: NDArray[np.float32], triangles: Ids) -> NDArray[np.float32]:
    """Values (V,) smoothed with those of adjacent vertices."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(edges[:, 0], minlength=len(values))
    for _ in range(SMOOTHING_STEPS):
        around = np.bincount(edges[:, 0], values[edges[:, 1]], minlength=len(values)) / np.maximum(degree, 1)
        values = np.where(degree > 0, (values + around) / 2, values).astype(np.float32)
    return values


def average_nearby(values: NDArray[np.float32], points: Array, radius: float) -> NDArray[np.float32]:
    """Mean of the values (V,) at all points (V, 3) within `radius` metres, connected by triangles or not."""
    near = cKDTree(points).query_ball_point(points, radius)
    return np.array([values[ids].mean() for ids in near], np.float32)


def visible_triangles(vertices: Array, triangles: Ids, directions: Sequence[Array], size: int) -> NDArray[np.bool_]:
    """Whether each triangle (F,) covers a pixel in an orthographic view from any of the directions."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    radius = float(np.linalg.norm(vertices - centre, axis=1).max()) * 1.02
    visible = np.zeros(len(triangles), bool)
    for direction in directions:
        _, front = depth_map(vertices, triangles, centre, radius, view_axes(-direction), size)
        visible[front[front >= 0]] = True
    return visible


def sphere(count: int) -> Array:
    """Unit vectors (count, 3), nearly uniform on the sphere (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    return np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1)


def view_direction(yaw: float, pitch: float) -> Array:
    """The direction (3,) from a face to a viewer, yaw degrees to its left and pitch degrees above."""
    turn, lift = np.radians(yaw), np.radians(pitch)
    return np.array([np.sin(turn) * np.cos(lift), np.sin(lift), np.cos(turn) * np.cos(lift)])


def view_axes(direction: Array) -> Array:
    """Axes (3, 3) of a view along a direction, as rows: right, up, forward."""
    right = np.cross(direction, (0.1, 1.0, 0.03))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(right, direction), direction])


def depth_map(
    vertices: Array, triangles: Ids, centre: Array, radius: float, frame: Array, size: int = MAP_SIZE
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Orthographic depth map (size, size) of a sphere, and the nearest triangle at each pixel or -1."""
    positions = np.stack(_to_map(vertices, centre, radius, frame, size), axis=1).astype(np.float32)
    depth: NDArray[np.float32] = np.full((size, size), np.inf, np.float32)
    front: NDArray[np.int32] = np.full((size, size), -1, np.int32)
    _draw(positions, triangles, depth, front)
    return depth, front


def _to_map(
    vertices: Array, centre: Array, radius: float, frame: Array, size: int = MAP_SIZE
) -> tuple[Array, Array, Array]:
    x, y, z = frame @ (vertices - centre).T
    return (x / radius * 0.5 + 0.5) * size, (y / radius * 0.5 + 0.5) * size, z


@compiler(nogil=True)
def _draw(positions, triangles, depth, front):  # type: ignore[no-untyped-def]
    """Write depth and index of the nearest triangle at each pixel's centre to `depth` and `front`."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        x0, y0, z0 = positions[triangles[t, 0]]
        x1, y1, z1 = positions[triangles[t, 1]]
        x2, y2, z2 = positions[triangles[t, 2]]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        top, bottom = math.ceil(min(y0, y1, y2) - 0.5), math.floor(max(y0, y1, y2) - 0.5)
        left, right = math.ceil(min(x0, x1, x2) - 0.5), math.floor(max(x0, x1, x2) - 0.5)
        for y in range(max(0, top), min(height - 1, bottom) + 1):
            for x in range(max(0, left), min(width - 1, right) + 1):
                px, py = x + 0.5, y + 0.5
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                w2 = 1.0 - w0 - w1
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                z = w0 * z0 + w1 * z1 + w2 * z2
                if z < depth[y, x]:
                    depth[y, x] = z
                    front[y, x] = t
