"""Paint the wrinkle maps of the head, one for each movement of the skin (`sedtalker.render.wrinkles`).

A wrinkle is a groove along a line between ridges, drawn on the front of the first identity in millimetres from its
landmarks and stored in the texture coordinates that all identities share: byte 128 is flat, less is a groove.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.rig import Face, Surface
from sedtalker.recipes.head_asset.sources import Array
from sedtalker.render.wrinkles import WRINKLES

HEIGHT, WIDTH = 1024, 512  # texels
FLAT, DEEPEST = 128, 110  # bytes: no wrinkle, and the depth of a groove
FINE_LINE, CREASE = 1.0, 1.7  # mm, half width of a groove

Line = tuple[Sequence[tuple[float, float]], float]  # points (x, y) in mm, the person's left side; half width


def wrinkle_lines(face: Face) -> dict[str, list[Line]]:
    """The lines of each wrinkle on the left half of a face; x in mm from its middle, y in mm upwards."""
    at = {name: face.template[vertex, :2] * 1000 for name, vertex in face.landmarks.items()}
    eye, corner, tip = float(at["eye_left_inner"][1]), float(at["mouth_left"][1]), float(at["nose_tip"][1])
    outer = float(at["eye_left_outer"][0])
    brow, chin = float(at["brow_left_inner"][1]), float(at["chin"][1])
    forehead: list[Line] = [
        ([(0, brow + up - 1.5), (12, brow + up), (24, brow + up + 0.5), (36 - up / 4, brow + up - 2.5)], FINE_LINE)
        for up in (14, 22, 30, 38)
    ]
    inner: list[Line] = [
        ([(0, brow + up - 1), (8, brow + up + 0.5), (15, brow + up - 2)], FINE_LINE) for up in (11, 17, 23, 29)
    ]
    glabella: list[Line] = [
        ([(4.5, eye + 7), (5.5, eye + 16), (7.5, eye + 27)], CREASE),
        ([(0, eye + 8), (5, eye + 9)], FINE_LINE),
    ]
    nose: list[Line] = [([(0, eye + up), (4, eye + up - 0.5), (9, eye + up - 4)], FINE_LINE) for up in (2, -3, -8, -13)]
    crow: list[Line] = [
        ([(outer + 5, eye + 2), (outer + 10, eye + 6), (outer + 15, eye + 11)], FINE_LINE),
        ([(outer + 5, eye), (outer + 11, eye), (outer + 17, eye + 2)], FINE_LINE),
        ([(outer + 4, eye - 3), (outer + 10, eye - 7), (outer + 15, eye - 11)], FINE_LINE),
        ([(21, eye - 8), (28, eye - 11), (36, eye - 11), (43, eye - 7)], FINE_LINE),
    ]
    fold: list[Line] = [
        ([(16, tip - 1), (21, tip - 6), (26, tip - 14), (30, corner + 6), (32, corner - 3)], CREASE),
    ]
    depressor: list[Line] = [([(26, corner - 4), (28, corner - 10), (28, corner - 17)], CREASE)]
    mental: list[Line] = [([(0, chin + 17), (7, chin + 16), (14, chin + 12)], CREASE)]
    return {
        "forehead": forehead, "inner_brow": inner, "glabella": glabella, "nose": nose, "crow": crow, "fold": fold,
        "corner": depressor, "chin": mental,
    }  # fmt: skip


def paint_wrinkles(face: Face) -> dict[str, NDArray[np.uint8]]:
    """The wrinkle maps (H, W, 1) by texture name, of the first identity."""
    skin = next(surface for surface in face.surfaces if surface.material.kind == "skin")
    positions = position_map(face, skin)
    x, y = np.abs(positions[..., 0]), positions[..., 1]
    front = positions[..., 2] > 1000 * face.template[face.landmarks["eye_left_outer"], 2] - 40
    maps = {}
    for name, lines in wrinkle_lines(face).items():
        height = np.zeros(x.shape)
        for points, width in lines:
            distance, along = _distance(x, y, points)
            fade = np.clip(np.minimum(1.0, 4 * (1 - along)), 0, 1)
            if points[0][0] > 0:
                fade = fade * np.clip(0.25 + 4 * along, 0, 1)
            groove = np.exp(-np.square(distance / width)) - 0.45 * np.exp(-np.square(distance / (2.6 * width)))
            height -= fade * groove
        shown = np.where(front & np.isfinite(x), height, 0)
        maps[WRINKLES[name].texture] = np.clip(FLAT + DEEPEST * shown, 0, 255).astype(np.uint8)[..., None]
    return maps


def position_map(face: Face, surface: Surface) -> Array:
    """Position (H, W, 3) in mm of the face at each texel of a surface; NaN where there is none."""
    found = np.full((HEIGHT, WIDTH, 3), np.nan)
    corners = surface.uv[surface.uv_triangles] * (WIDTH, -HEIGHT) + (-0.5, HEIGHT - 0.5)
    for (a, b, c), points in zip(corners, 1000 * face.template[surface.triangles], strict=True):
        low, high = np.floor(np.min((a, b, c), 0)).astype(int), np.ceil(np.max((a, b, c), 0)).astype(int)
        left, top = np.maximum(low, 0)
        right, bottom = min(high[0], WIDTH - 1), min(high[1], HEIGHT - 1)
        column, row = np.meshgrid(np.arange(left, right + 1), np.arange(top, bottom + 1))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-9:
            continue
        v = ((column - a[0]) * (c[1] - a[1]) - (row - a[1]) * (c[0] - a[0])) / area
        w = ((row - a[1]) * (b[0] - a[0]) - (column - a[0]) * (b[1] - a[1])) / area
        inside = (v > -0.05) & (w > -0.05) & (v + w < 1.05)
        shares = np.stack([1 - v - w, v, w], -1)[inside]
        found[row[inside], column[inside]] = shares @ points
    return found


def _distance(x: Array, y: Array, points: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    """Distance of points (H, W) to a polyline, and the share (H, W) of its length at the nearest point."""
    ends = np.array(points)
    lengths = np.linalg.norm(np.diff(ends, axis=0), axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    nearest, along = np.full(x.shape, np.inf), np.zeros(x.shape)
    for (ax, ay), (bx, by), length, start in zip(ends[:-1], ends[1:], lengths, starts[:-1], strict=True):
        at = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length**2, 0, 1)
        distance = np.hypot(x - ax - at * (bx - ax), y - ay - at * (by - ay))
        closer = distance < nearest
        nearest, along = np.where(closer, distance, nearest), np.where(closer, start + at * length, along)
    return np.where(np.isfinite(nearest), nearest, 1e3), along / starts[-1]
