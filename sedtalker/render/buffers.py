"""The arrays that drawing works on: what never changes, what belongs to a frame, and a thread's working memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.render.arrays import Float, Index, Int
from sedtalker.render.shade import BLOCK, ROWS

SUBPIXELS = 16  # steps of the coverage grid in a pixel
SAMPLE_X = (6, 14, 2, 10)  # a pixel's coverage samples: a rotated grid, in subpixels
SAMPLE_Y = (2, 6, 10, 14)
SAMPLES = len(SAMPLE_X)
CHUNK = 8  # neighbouring pixels whose samples are tested side by side in vector registers
LANES = CHUNK * SAMPLES
TILE_ROWS = 8  # a tile is a chunk wide and so many rows high; what it hides at the least is known
BAND_ROWS = 32  # a picture is drawn in bands of rows that fit a processor's cache

SAME_SURFACE = 0.004  # relative depth within which samples of one surface are shaded together

NO_TRIANGLE = 0xFFFFFFFF  # owns a sample that no triangle covers

# How a surface meets those behind it.
OPAQUE, HAIR, BLEND, ADD = 0, 1, 2, 3

# Triangles of which nothing, something, all hides what is behind.
CLEAR, MIXED, SOLID = 0, 1, 2

# Columns of the table of surfaces.
FIRST, LAST, MODE, KIND, TWO_SIDED, TEXTURE, WIDTH, HEIGHT, BUMP, BUMP_WIDTH, BUMP_HEIGHT = range(11)
SURFACE_COLUMNS = 11

# At a triangle's corner: room for the normal, texture coordinates u and v, occlusion, key light, scalp; linear RGB and
# a spare place if it has any. These are the first rows of a block, and whole vector registers.
CORNERS = 8
COLORED_CORNERS = 12

PLANE = 12  # numbers that tell where in a triangle a point of the screen lies, see `raster.keep_plane`
GROUP = 8  # fragments that are interpolated side by side


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
    normals: Float  # (P, 4), the last one spare
    screen: Float  # (P, 3) x and y in pixels, 1 / depth
    eye: Float  # (15,) the camera: position, right, up, backward, 1 / focal length, and the picture's centre in pixels
    sun: Float  # (3, 4) world -> the shadow map, see `shadow.light_view`
    shadow: Float  # the key light's, see `shadow.throw`, or (1, 1, 1) where none is thrown


class Scratch(NamedTuple):
    """Working memory of one frame; one for each thread."""

    owner: Index  # (BAND_ROWS * (W + CHUNK) * SAMPLES,) triangle, or NOBODY
    depth: Float  # the same size, 1 / metres
    color: Float  # (BAND_ROWS * W * 4,) linear RGB times coverage, and coverage
    tiles: Float  # the farthest 1 / depth in each tile of the band
    planes: Float  # (M * PLANE,) of the triangles that were drawn
    order: Index  # triangles that may be seen, surface by surface and in it band by band
    reach: Int  # (M, 2) first and last band that each triangle may touch
    order_from: Int  # (S * bands + 2,) where each of these lists begins in `order`
    fragment: Index  # (S * shade.BLOCK,) triangles of each surface's fragments that wait to be shaded
    place: Index  # the same size, their pixel and their share of it, packed as paint.py says
    filled: Int  # (S,) how many wait
    block: Float  # (shade.ROWS * shade.BLOCK,) fragments while they are shaded
    tone: Index  # (3 * W,) a row's places in the tables of tones: red, green, blue
    coverage: Float  # (W,) of that row
    texel: Index  # (4 * shade.BLOCK,) the texels around them


def _aligned(count: int, kind: type) -> NDArray[Any]:
    """An array that begins where a cache line does: a vector register's worth of it lies in no two lines."""
    line = 64
    room = np.empty(count * np.dtype(kind).itemsize + line, np.uint8)
    first = -room.ctypes.data % line
    return room[first : first + count * np.dtype(kind).itemsize].view(kind)


def make_scratch(width: int, height: int, triangles: int, surfaces: int) -> Scratch:
    """Working memory for pictures of this size, and a scene of so many triangles and surfaces."""
    samples = BAND_ROWS * (width + CHUNK) * SAMPLES
    return Scratch(
        owner=_aligned(samples, np.uint32),
        depth=_aligned(samples, np.float32),
        color=_aligned(BAND_ROWS * width * 4, np.float32),
        tiles=np.zeros(BAND_ROWS // TILE_ROWS * -(-width // CHUNK), np.float32),
        planes=_aligned(triangles * PLANE, np.float32),
        order=np.empty(2 * triangles, np.uint32),
        reach=np.empty((triangles, 2), np.int32),
        order_from=np.empty(surfaces * -(-height // BAND_ROWS) + 2, np.int32),
        fragment=np.zeros(surfaces * BLOCK, np.uint32),
        place=np.zeros(surfaces * BLOCK, np.uint32),
        filled=np.zeros(surfaces, np.int32),
        block=_aligned(ROWS * BLOCK, np.float32),
        tone=np.zeros(3 * width, np.uint32),
        coverage=np.zeros(width, np.float32),
        texel=np.zeros(4 * BLOCK, np.uint32),
    )
