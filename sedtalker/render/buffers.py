"""Buffers of the rasterizer: the constant scene, the inputs of a frame, and a thread's working memory."""

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
CHUNK = 8  # neighbouring pixels whose samples are tested at once in vector registers
LANES = CHUNK * SAMPLES
TILE_ROWS = 8  # a tile of the hierarchical depth buffer is CHUNK pixels wide and TILE_ROWS high
BAND_ROWS = 32  # a picture is drawn in bands of rows that fit a processor's cache

DEPTH_TOLERANCE = 0.004  # relative depth within which samples of one surface are shaded together

NO_TRIANGLE = 0xFFFFFFFF  # triangle id of a sample that no triangle covers

# Blend modes of surfaces.
OPAQUE, HAIR, BLEND, ADD = 0, 1, 2, 3

# Opacity of a triangle: transparent everywhere, in part, or nowhere.
CLEAR, MIXED, SOLID = 0, 1, 2

# Columns of the table of surfaces: range of triangles, blend mode, shading model, texture and bump map.
FIRST, LAST, MODE, KIND, TWO_SIDED, TEXTURE, WIDTH, HEIGHT, BUMP, BUMP_WIDTH, BUMP_HEIGHT = range(11)
SURFACE_COLUMNS = 11

# Quantities at a triangle's corner, as in the first rows of a block: padding for the normal, u and v, occlusion, key
# light, scalp; then linear RGB and padding if there are vertex colors. Both sizes fill whole vector registers.
CORNER_COLUMNS = 8
COLORED_CORNER_COLUMNS = 12

PLANE_STRIDE = 12  # numbers of a triangle's plane equations, see `raster.store_planes`
GROUP = 8  # fragments that are interpolated at once


class Scene(NamedTuple):
    """Constant data of a face; triangles of one surface are contiguous."""

    triangles: Index  # (M, 3) into the points
    corners: Float  # (M, 3, CORNER_COLUMNS or COLORED_CORNER_COLUMNS)
    surface: Int  # (M,) row in the tables
    opacity: Int  # (M,) CLEAR, MIXED or SOLID
    surfaces: Int  # (S, SURFACE_COLUMNS)
    materials: Float  # (S, shade.MATERIAL_COLUMNS)
    texels: Index  # concatenated textures, packed RGBA
    heights: Float  # concatenated bump maps, metres
    background: Float  # (H, W, 3) tone-mapped linear light


class FrameInputs(NamedTuple):
    """One frame's points, camera and shadow map."""

    points: Float  # (P, 3) metres
    normals: Float  # (P, 4), the last column is padding
    screen: Float  # (P, 3) x and y in pixels, 1 / depth
    camera: Float  # (15,), see `arrays`
    light_matrix: Float  # (3, 4) world to shadow map, see `shadow.fit_light_matrix`
    shadow_map: Float  # see `shadow.render_shadow_map`; (1, 1, 1) for baked shadows


class Scratch(NamedTuple):
    """Working memory of one frame; one for each thread."""

    triangle_ids: Index  # (BAND_ROWS * (W + CHUNK) * SAMPLES,) nearest triangle, or NO_TRIANGLE
    depth: Float  # the same size, 1 / metres
    color: Float  # (BAND_ROWS * W * 4,) linear RGB times coverage, and coverage
    tiles: Float  # hierarchical depth buffer: minimum of 1 / depth in each tile of the band
    planes: Float  # (M * PLANE_STRIDE,) of the triangles that were rasterized
    triangle_lists: Index  # visible triangles: for each surface a list for each band
    list_start: Int  # (S * bands + 2,) start of each list in `triangle_lists`
    band_range: Int  # (M, 2) first and last band that each triangle may touch
    fragment_triangle: Index  # (S * BLOCK,) triangles of each surface's queued fragments
    fragment_pixel: Index  # the same size, their pixel and number of samples, packed as in paint.py
    queued: Int  # (S,) number of queued fragments
    block: Float  # (ROWS * BLOCK,) fragments while they are shaded
    tone: Index  # (3 * W,) a row's indices in the tone tables: red, green, blue
    coverage: Float  # (W,) of that row
    texel: Index  # (4 * BLOCK,) the texels around the fragments of a block


def _allocate_aligned(count: int, kind: type) -> NDArray[Any]:
    """Allocate an array that starts on a cache line, so that vector loads do not cross lines."""
    line = 64
    memory = np.empty(count * np.dtype(kind).itemsize + line, np.uint8)
    first = -memory.ctypes.data % line
    return memory[first : first + count * np.dtype(kind).itemsize].view(kind)


def make_scratch(width: int, height: int, triangles: int, surfaces: int) -> Scratch:
    """Allocate working memory for pictures of this size, and a scene of so many triangles and surfaces."""
    samples = BAND_ROWS * (width + CHUNK) * SAMPLES
    return Scratch(
        triangle_ids=_allocate_aligned(samples, np.uint32),
        depth=_allocate_aligned(samples, np.float32),
        color=_allocate_aligned(BAND_ROWS * width * 4, np.float32),
        tiles=np.zeros(BAND_ROWS // TILE_ROWS * -(-width // CHUNK), np.float32),
        planes=_allocate_aligned(triangles * PLANE_STRIDE, np.float32),
        triangle_lists=np.empty(2 * triangles, np.uint32),
        list_start=np.empty(surfaces * -(-height // BAND_ROWS) + 2, np.int32),
        band_range=np.empty((triangles, 2), np.int32),
        fragment_triangle=np.zeros(surfaces * BLOCK, np.uint32),
        fragment_pixel=np.zeros(surfaces * BLOCK, np.uint32),
        queued=np.zeros(surfaces, np.int32),
        block=_allocate_aligned(ROWS * BLOCK, np.float32),
        tone=np.zeros(3 * width, np.uint32),
        coverage=np.zeros(width, np.float32),
        texel=np.zeros(4 * BLOCK, np.uint32),
    )
