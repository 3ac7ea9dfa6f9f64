"""Coverage and interpolation against exact references."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from sedtalker.render import geometry, raster
from sedtalker.render.buffers import (
    BAND_ROWS,
    NO_TRIANGLE,
    SAMPLE_X,
    SAMPLE_Y,
    SAMPLES,
    SOLID,
    SUBPIXELS,
    Scene,
    make_scratch,
)

WIDTH = ROWS = 24


def _scene(triangles: np.ndarray) -> Scene:
    """A scene of plain opaque two-sided triangles."""
    count = len(triangles)
    surfaces = np.array([[0, count, 0, 0, 1, 0, 1, 1, 0, 0, 0]], np.int32)
    return Scene(
        triangles=triangles.astype(np.uint32),
        corners=np.zeros((count, 3, 8), np.float32),
        surface=np.zeros(count, np.int32),
        opacity=np.full(count, SOLID, np.int32),
        surfaces=surfaces,
        materials=np.zeros((1, 13), np.float32),
        texels=np.zeros(1, np.uint32),
        heights=np.zeros(1, np.float32),
        background=np.zeros((1, 1, 3), np.float32),
    )


def _rasterize(screen: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(ROWS, WIDTH, SAMPLES) triangle id of each sample, -1 without a triangle."""
    scene, scratch = _scene(triangles), make_scratch(WIDTH, ROWS, len(triangles), 1)
    scratch.triangle_ids[:] = NO_TRIANGLE
    scratch.depth[:] = 0
    nothing = np.zeros(0, np.uint32), np.zeros(2, np.int32)
    raster.list_triangles(scene, screen, *nothing, WIDTH, ROWS, scratch)
    raster.rasterize(scene, screen, 0, 0, ROWS, WIDTH, ROWS, 0, scratch)
    rows = scratch.triangle_ids.astype(np.int32).reshape(BAND_ROWS, -1)[:ROWS, : WIDTH * SAMPLES]
    return rows.reshape(ROWS, WIDTH, SAMPLES)


def _reference(triangle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples strictly inside a triangle snapped to the grid, and samples on its edges, in exact arithmetic."""
    corners = [tuple(int(np.floor(v * SUBPIXELS + 0.5)) for v in corner) for corner in triangle.astype(float)]
    (ax, ay), (bx, by), (cx, cy) = corners
    if (by - ay) * (cx - ax) - (bx - ax) * (cy - ay) < 0:
        (bx, by), (cx, cy) = (cx, cy), (bx, by)
    within = np.zeros((ROWS, WIDTH, SAMPLES), bool)
    on_edge = np.zeros((ROWS, WIDTH, SAMPLES), bool)
    for y, x, k in np.ndindex(within.shape):
        px = Fraction(x * SUBPIXELS + int(SAMPLE_X[k]))
        py = Fraction(y * SUBPIXELS + int(SAMPLE_Y[k]))
        sides = [
            (y1 - y0) * (px - x0) - (x1 - x0) * (py - y0)
            for (x0, y0), (x1, y1) in (((ax, ay), (bx, by)), ((bx, by), (cx, cy)), ((cx, cy), (ax, ay)))
        ]
        within[y, x, k] = min(sides) > 0
        on_edge[y, x, k] = min(sides) == 0
    return within, on_edge


@pytest.mark.parametrize("seed", range(6))
def test_triangle_covers_exactly_the_samples_inside(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(6, WIDTH - 6, 2) + rng.uniform(-6, 6, (3, 2))
    screen = np.concatenate([corners, np.ones((3, 1))], 1).astype(np.float32)
    triangle_ids = _rasterize(screen, np.array([[0, 1, 2]]))
    within, on_edge = _reference(screen[:, :2])
    assert within.any()
    np.testing.assert_array_equal((triangle_ids == 0) & ~on_edge, within)


def test_every_sample_belongs_to_exactly_one_of_adjacent_triangles():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:5, 0:5]
    inner = ((x > 0) & (x < 4) & (y > 0) & (y < 4))[..., None]
    points = np.stack([x, y], -1) * 5.0 + 1 + inner * rng.integers(-24, 24, (5, 5, 2)) / SUBPIXELS
    screen = np.concatenate([points.reshape(-1, 2), np.ones((25, 1))], 1).astype(np.float32)
    index = np.arange(25).reshape(5, 5)
    a, b, c, d = index[:-1, :-1].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel(), index[:-1, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    times = sum((_rasterize(screen, triangle[None]) == 0).astype(int) for triangle in triangles)
    np.testing.assert_array_equal(times[1:21, 1:21], 1)


def test_nearest_triangle_wins_the_depth_test():
    square = np.array([(2, 2), (20, 2), (20, 20)], np.float32)
    near, far = np.full((3, 1), 2.0, np.float32), np.full((3, 1), 1.0, np.float32)
    for order in ((near, far), (far, near)):
        screen = np.concatenate([np.concatenate([square, depth], 1) for depth in order])
        triangle_ids = _rasterize(screen, np.array([[0, 1, 2], [3, 4, 5]]))
        assert set(np.unique(triangle_ids)) == {-1, 0 if order[0] is near else 1}


@pytest.mark.parametrize("seed", range(4))
def test_a_hidden_sliver_does_not_come_to_the_front(seed):
    """Points on a line become a triangle when they are rounded to the grid; its depth must not be extrapolated."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(4, WIDTH - 4, (200, 2, 2))
    share = rng.uniform(0.1, 0.9, (200, 1))
    corners = np.stack([*ends.swapaxes(0, 1), ends[:, 0] + share * (ends[:, 1] - ends[:, 0])], 1)
    corners += rng.normal(0, 0.002, corners.shape)
    slivers = np.concatenate([corners, rng.uniform(1.37, 1.38, (200, 3, 1))], 2).reshape(-1, 3)
    cover = [(0.0, 0.0, 1.39), (4.0 * WIDTH, 0.0, 1.39), (0.0, 4.0 * ROWS, 1.39)]  # nearer than all of them
    x, y, near = np.concatenate([cover, slivers]).T
    camera = np.array([0, 0, 0, *np.eye(3).ravel(), 1, 0, 0], np.float32)  # at the origin, one pixel a radian
    screen = np.zeros((603, 3), np.float32)
    geometry.project(np.stack([x / near, -y / near, -1 / near], 1).astype(np.float32), camera, screen)
    assert not _rasterize(screen, np.arange(603).reshape(-1, 3)).any()


def test_interpolation_is_perspective_correct():
    corners = np.array([(-1.0, -1.0, -4.0), (1.5, -0.5, -2.0), (0.0, 1.2, -8.0)])  # camera space, metres
    focal, centre = 40.0, 12.0
    screen = np.stack(
        [centre + focal * corners[:, 0] / -corners[:, 2], centre - focal * corners[:, 1] / -corners[:, 2]], 1
    )
    screen = np.concatenate([screen, -1 / corners[:, 2:]], 1).astype(np.float32)
    plane = raster.setup_planes.py_func(screen, 0, 1, 2)
    for inside in ((0.2, 0.3), (0.6, 0.1), (0.05, 0.9)):
        weights = np.array([1 - sum(inside), *inside])
        point = weights @ corners
        x, y = centre + focal * point[0] / -point[2], centre - focal * point[1] / -point[2]
        b, c, far = raster.barycentric_at.py_func(plane, np.float32(x), np.float32(y))
        np.testing.assert_allclose((b, c), inside, atol=1e-4)
        np.testing.assert_allclose(far, -point[2], rtol=1e-4)


def test_samples_of_one_surface_at_one_depth_are_merged():
    surface = np.array([0, 0, 1], np.int32)
    triangle_ids = np.array([0, 1, 1, 2], np.uint32)
    depth = np.array([1, 1.001, 2, 1], np.float32)
    raster.merge_samples.py_func(surface, triangle_ids, depth, 0)
    np.testing.assert_array_equal(triangle_ids, (0, 0, 1, 2))  # sample 2 is another fold, sample 3 another surface
    assert [raster.count_samples.py_func(triangle_ids, 0, j) for j in range(4)] == [2, 0, 1, 1]
