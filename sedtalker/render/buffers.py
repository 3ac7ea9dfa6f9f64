"""The arrays that drawing works on: what never changes, what belongs to a frame, and a thread's working memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sedtalker.render.arrays import Float, Index, Int
from sedtalker.render.shade import BLOCK, ROWS

SAMPLES = 4  # of a pixel's coverage
CHUNK = 8  # neighbouring pixels whose samples are tested side by side in vector registers
LANES = CHUNK * SAMPLES
BAND_ROWS = 32  # a picture is drawn in bands of rows that fit a processor's cache

# How a surface meets those behind it.
OPAQUE, HAIR, BLEND, ADD = 0, 1, 2, 3

# Triangles of which nothing, something, all hides what is behind.
CLEAR, MIXED, SOLID = 0, 1, 2

# Columns of the table of surfaces.
FIRST, LAST, MODE, KIND, TWO_SIDED, TEXTURE, WIDTH, HEIGHT, BUMP, BUMP_WIDTH, BUMP_HEIGHT = range(11)
SURFACE_COLUMNS = 11

# At a triangle's corners: texture coordinates u and v, occlusion, key light, scalp; linear RGB if it has any.
CORNERS = 5
COLORED_CORNERS = 8


class Scene(NamedTuple):
    """What does not change from frame to frame; triangles of one surface are neighbours."""

    triangles: Index  # (M, 3) into the points
    corners: Float  # (M, 3, CORNERS or COLORED_CORNERS)
    surface: Int  # (M,) row in the tables
    opacity: Int  # (M,) CLEAR, MIXED or SOLID
    surfaces: Int  # (S, SURFACE_COLUMNS)
    materials: Float  # (S, shade.MATERIAL_COLUMNS)
    texels: Index  # textures one after another, packed RGBA
    heights: Float  # bump maps one after another, metres
    background: Float  # (H, W, 3) displayed linear light


class Shot(NamedTuple):
    """One frame's points and camera."""

    points: Float  # (P, 3) metres
    normals: Float  # (P, 3)
    screen: Float  # (P, 3) x and y in pixels, 1 / depth
    eye: Float  # (15,) the camera: position, right, up, backward, 1 / focal length, and the picture's centre in pixels
    sorted: Index  # triangles to blend, surface by surface from back to front
    sorted_from: Int  # (S + 1,) where each surface begins among them
    sun: Float  # (3, 4) world -> the shadow map, see `shadow.light_view`
    shadow: Float  # (N, N) metres from the key light, or (1, 1) where no shadow is cast


class Scratch(NamedTuple):
    """Working memory of one frame; one for each thread."""

    owner: Index  # (BAND_ROWS * (W + CHUNK) * SAMPLES,) triangle, or raster.NOBODY
    depth: Float  # the same size, 1 / metres
    color: Float  # (BAND_ROWS * W * 4,) linear RGB times coverage, and coverage
    order: Index  # (M,) triangles that may be seen, surface by surface
    reach: Int  # (M, 2) first and last row of the picture that each of them may touch
    order_from: Int  # (S + 1,) where each surface begins in `order`
    block: Float  # (S, shade.ROWS * shade.BLOCK) each surface's fragments that wait to be shaded
    pixel: Int  # (S, shade.BLOCK) their pixel in the band, row * width + column
    filled: Int  # (S,) how many wait
    texel: Index  # (4 * shade.BLOCK,) the texels around them
    edges: Float  # (3 * LANES,) a triangle's edge functions over a chunk
    slope: Float  # (LANES,) its 1 / depth over a chunk


def make_scratch(width: int, triangles: int, surfaces: int) -> Scratch:
    """Working memory for pictures of this width."""
    samples = BAND_ROWS * (width + CHUNK) * SAMPLES
    return Scratch(
        owner=np.empty(samples, np.uint32),
        depth=np.empty(samples, np.float32),
        color=np.empty(BAND_ROWS * width * 4, np.float32),
        order=np.empty(triangles, np.uint32),
        reach=np.empty((triangles, 2), np.int32),
        order_from=np.empty(surfaces + 1, np.int32),
        block=np.zeros((surfaces, ROWS * BLOCK), np.float32),
        pixel=np.zeros((surfaces, BLOCK), np.int32),
        filled=np.zeros(surfaces, np.int32),
        texel=np.zeros(4 * BLOCK, np.uint32),
        edges=np.empty(3 * LANES, np.float32),
        slope=np.empty(LANES, np.float32),
    )
