"""SIMD intrinsics of the rasterizer, in LLVM vector code, for loops that the compiler does not vectorize reliably.

The samples of `CHUNK` neighbouring pixels are tested against a triangle's edges and depth at once. LLVM splits the
vectors into registers of the processor's width; the results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from sedtalker.render.buffers import (
    CHUNK,
    COLORED_CORNER_COLUMNS,
    CORNER_COLUMNS,
    DEPTH_TOLERANCE,
    GROUP,
    LANES,
    NO_TRIANGLE,
    PLANE_STRIDE,
    SAMPLE_X,
    SAMPLE_Y,
    SAMPLES,
    SUBPIXELS,
    TILE_ROWS,
)
from sedtalker.render.shade import BARYCENTRIC, BLOCK, VERTEX_COLOR, U, X, Y

_X = [pixel * SUBPIXELS + x for pixel in range(CHUNK) for x in SAMPLE_X]
_Y = [y for _ in range(CHUNK) for y in SAMPLE_Y]
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)

Line = tuple[float, float, float]  # steps in x and y, and the value at the chunk's upper left corner
Code = tuple[Any, Callable[..., Any]]


@intrinsic
def samples_within(typing_context: Any, edges: tuple[Line, Line, Line], near: Line, depth: Any, first: int) -> Code:
    """Bit mask of the samples from `first` on that are inside three edges and nearer than their `depth`.

    The steps of `edges` are per subpixel, those of `near` (1 / depth) per pixel; all are float32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        edges, near, depth, first = arguments
        lines = [_evaluate_at_samples(builder, builder.extract_value(edges, k), 1.0) for k in range(3)]
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        nearness = _evaluate_at_samples(builder, near, 1.0 / SUBPIXELS)
        before = builder.load(_vector_at(context, builder, signature.args[2], depth, first, _FLOATS), align=4)
        mask = builder.fcmp_ordered(">", nearness, before)
        for line in lines:
            mask = builder.and_(mask, builder.fcmp_ordered(">=", line, zero))
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32))

    return types.uint32(edges, near, depth, first), generate


@intrinsic
def write_samples(
    typing_context: Any, mask: int, triangle: int, near: Line, depth: Any, triangle_ids: Any, first: int
) -> Code:
    """Write a triangle and its 1 / depth to the samples from `first` on whose bits are set in the mask."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, triangle, near, depth, triangle_ids, first = arguments
        chosen = builder.bitcast(builder.trunc(mask, ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
        values = (_evaluate_at_samples(builder, near, 1.0 / SUBPIXELS), _broadcast(builder, triangle, _WORDS))
        positions = (
            _vector_at(context, builder, signature.args[3], depth, first, _FLOATS),
            _vector_at(context, builder, signature.args[4], triangle_ids, first, _WORDS),
        )
        before = [builder.load(pointer, align=4) for pointer in positions]
        if not get_host_cpu_features().get("avx512f"):  # or LLVM makes masked stores, which are slow with AVX2 alone
            builder.fence("seq_cst", "singlethread")
        for value, old, pointer in zip(values, before, positions, strict=True):
            builder.store(builder.select(chosen, value, old), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.uint32, types.uint32, near, depth, triangle_ids, first), generate


@intrinsic
def tile_minimum(typing_context: Any, depth: Any, first: int, stride: int) -> Code:
    """Minimum of a tile's samples: LANES from `first` on, in rows that are `stride` apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        depth, first, stride = arguments
        least = None
        for _ in range(TILE_ROWS):
            # Nonnegative floats have the order of their bits.
            row = builder.load(_vector_at(context, builder, signature.args[0], depth, first, _WORDS), align=4)
            least = row if least is None else builder.select(builder.icmp_unsigned("<", row, least), row, least)
            first = builder.add(first, stride)
        kind = ir.FunctionType(ir.IntType(32), [_WORDS])
        reduce = get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.umin.v{LANES}i32")
        return builder.bitcast(builder.call(reduce, [least]), ir.FloatType())

    return types.float32(depth, types.int64, types.int64), generate


@intrinsic
def covered_samples(typing_context: Any, triangle_ids: Any, first: int) -> Code:
    """Bit mask of the samples from `first` on that a triangle covers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        triangle_ids, first = arguments
        pointer = _vector_at(context, builder, signature.args[0], triangle_ids, first, _WORDS)
        ids = builder.load(pointer, align=4)
        mask = builder.icmp_unsigned("!=", ids, ir.Constant(_WORDS, [NO_TRIANGLE] * LANES))
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32))

    return types.uint32(triangle_ids, types.int64), generate


@intrinsic
def uniform_pixels(typing_context: Any, triangle_ids: Any, depth: Any, first: int, low: int, high: int) -> Code:
    """Bit mask of the samples from `first` on with triangles low...high - 1, within their pixel's depth tolerance."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        triangle_ids, depth, first, low, high = arguments
        kinds = signature.args
        ids = builder.load(_vector_at(context, builder, kinds[0], triangle_ids, first, _WORDS), align=4)
        near = builder.load(_vector_at(context, builder, kinds[1], depth, first, _FLOATS), align=4)
        mask = builder.icmp_unsigned(">=", ids, _broadcast(builder, low, _WORDS))
        mask = builder.and_(mask, builder.icmp_unsigned("<", ids, _broadcast(builder, high, _WORDS)))
        most = builder.fmul(near, ir.Constant(_FLOATS, [DEPTH_TOLERANCE] * LANES))
        for step in range(1, SAMPLES):
            others = _shuffle_mask(*(lane // SAMPLES * SAMPLES + (lane + step) % SAMPLES for lane in range(LANES)))
            behind = builder.fsub(near, builder.shuffle_vector(near, near, others))
            mask = builder.and_(mask, builder.fcmp_ordered("<", behind, most))
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32))

    return types.uint32(triangle_ids, depth, types.int64, types.int32, types.int32), generate


@intrinsic
def evaluate_planes(typing_context: Any, planes: Any, fragment: Any, block: Any, first: int) -> Code:
    """Evaluate 1 / depth, b / depth and c / depth of a group of fragments from `first` on at their pixels.

    The results are written to the block's BARYCENTRIC rows.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        planes, fragment, block, first = arguments
        kinds, four = signature.args, ir.VectorType(ir.FloatType(), 4)
        x, y = (_row(context, builder, kinds[2], block, row, first) for row in (X, Y))
        x, y = builder.load(x, align=4), builder.load(y, align=4)
        values = []
        for lane in range(GROUP):
            triangle = _load_index(context, builder, kinds[1], fragment, _plus(builder, first, lane))
            offset = _times(builder, triangle, PLANE_STRIDE)
            step_x, step_y, value = (
                builder.load(_vector_at(context, builder, kinds[0], planes, _plus(builder, offset, k), four), align=4)
                for k in (0, 4, 8)
            )
            along_x = builder.fmul(step_x, _broadcast_lane(builder, x, lane, four))
            along_y = builder.fmul(step_y, _broadcast_lane(builder, y, lane, four))
            values.append(builder.fadd(value, builder.fadd(along_x, along_y)))
        for quantity, column in enumerate(_transpose(builder, values)[:3]):
            builder.store(column, _row(context, builder, kinds[2], block, BARYCENTRIC + quantity, first), align=4)
        return context.get_dummy_value()

    return types.void(planes, fragment, block, types.int64), generate


def _make_interpolation(colored: bool) -> Any:
    """Create the intrinsic that interpolates the corners of a group of fragments' triangles."""

    @intrinsic
    def mix(typing_context: Any, scene: Any, normals: Any, fragment: Any, block: Any, first: int) -> Code:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scene, normals, fragment, block, first = arguments
            kinds = signature.args
            triangles, corners = (builder.extract_value(scene, kinds[0].fields.index(name)) for name in _SCENE_FIELDS)
            of_triangles, of_corners = (kinds[0].types[kinds[0].fields.index(name)] for name in _SCENE_FIELDS)
            eight, four = ir.VectorType(ir.FloatType(), 8), ir.VectorType(ir.FloatType(), 4)
            weights = [
                builder.load(_row(context, builder, kinds[3], block, BARYCENTRIC + k, first), align=4) for k in range(3)
            ]
            mixed, tints = [], []
            for lane in range(GROUP):
                triangle = _load_index(context, builder, kinds[2], fragment, _plus(builder, first, lane))
                corner = _times(builder, triangle, 3)
                rows, colors = [], []
                for k in range(3):
                    index = _plus(builder, corner, k)
                    point = _load_index(context, builder, of_triangles, triangles, index)
                    pointer = _vector_at(context, builder, kinds[1], normals, _times(builder, point, 4), four)
                    normal = _extend(builder, builder.load(pointer, align=4))
                    offset = _times(builder, index, COLORED_CORNER_COLUMNS if colored else CORNER_COLUMNS)
                    row = builder.load(_vector_at(context, builder, of_corners, corners, offset, eight), align=4)
                    rows.append(builder.shuffle_vector(normal, row, _shuffle_mask(0, 1, 2, *range(8 + U, 16))))
                    if colored:
                        pointer = _vector_at(
                            context, builder, of_corners, corners, _plus(builder, offset, VERTEX_COLOR), four
                        )
                        colors.append(builder.load(pointer, align=4))
                mixed.append(_weighted_sum(builder, rows, weights, lane))
                if colored:
                    tints.append(_weighted_sum(builder, colors, weights, lane))
            columns = [*_transpose(builder, mixed), *(_transpose(builder, tints)[:3] if colored else ())]
            for quantity, column in enumerate(columns):
                builder.store(column, _row(context, builder, kinds[3], block, quantity, first), align=4)
            return context.get_dummy_value()

        return types.void(scene, normals, fragment, block, types.int64), generate

    return mix


_SCENE_FIELDS = ("triangles", "corners")
interpolate_corners, interpolate_colored_corners = _make_interpolation(False), _make_interpolation(True)


def _weighted_sum(builder: Any, rows: list[Any], weights: list[Any], lane: int) -> Any:
    """Sum of three rows, each multiplied by its weight in a lane."""
    scales = [_broadcast_lane(builder, weight, lane, rows[0].type) for weight in weights]
    parts = [builder.fmul(row, scale) for row, scale in zip(rows, scales, strict=True)]
    return builder.fadd(builder.fadd(parts[0], parts[1]), parts[2])


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose GROUP rows of four or eight numbers, by swapping halves of rows, then quarters, then single numbers."""
    if rows[0].type.count == GROUP // 2:
        pairs_mask = _shuffle_mask(*range(GROUP))
        pairs = zip(rows[: GROUP // 2], rows[GROUP // 2 :], strict=True)
        rows = [builder.shuffle_vector(upper, lower, pairs_mask) for upper, lower in pairs]
    step = len(rows) // 2
    while step:
        stay = _shuffle_mask(*(lane if not lane & step else GROUP + lane - step for lane in range(GROUP)))
        move = _shuffle_mask(*(lane + step if not lane & step else GROUP + lane for lane in range(GROUP)))
        for k in range(len(rows)):
            if not k & step:
                a, b = rows[k], rows[k + step]
                rows[k], rows[k + step] = builder.shuffle_vector(a, b, stay), builder.shuffle_vector(a, b, move)
        step //= 2
    return rows


def _shuffle_mask(*numbers: int) -> Any:
    """Shuffle mask: the lanes of two vectors that form the result."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))


def _broadcast_lane(builder: Any, vector: Any, lane: int, kind: Any) -> Any:
    """Broadcast one lane of a vector to a vector of another type."""
    return builder.shuffle_vector(vector, vector, _shuffle_mask(*[lane] * kind.count))


def _extend(builder: Any, vector: Any) -> Any:
    """Extend a vector of four numbers to eight."""
    return builder.shuffle_vector(vector, vector, _shuffle_mask(0, 1, 2, 3, 0, 1, 2, 3))


def _plus(builder: Any, number: Any, more: int) -> Any:
    return builder.add(number, ir.Constant(number.type, more))


def _times(builder: Any, number: Any, factor: int) -> Any:
    return builder.mul(number, ir.Constant(number.type, factor))


def _load_index(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Load a uint32 of an array as int64."""
    number = builder.load(builder.gep(make_array(kind)(context, builder, array).data, [index]))
    return builder.zext(number, ir.IntType(64))


def _row(context: Any, builder: Any, kind: Any, block: Any, quantity: int, first: Any) -> Any:
    """Pointer to one quantity of a group of fragments in a block."""
    first = _plus(builder, first, quantity * BLOCK)
    return _vector_at(context, builder, kind, block, first, ir.VectorType(ir.FloatType(), GROUP))


def _broadcast(builder: Any, value: Any, kind: Any) -> Any:
    """Broadcast a number to all lanes."""
    lane = ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, lane)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def _evaluate_at_samples(builder: Any, line: Any, unit: float) -> Any:
    """Evaluate a linear function of the screen at the samples; `unit` is a subpixel in the unit of its steps."""
    step_x, step_y, value = (_broadcast(builder, builder.extract_value(line, k), _FLOATS) for k in range(3))
    x, y = (ir.Constant(_FLOATS, [unit * position for position in positions]) for positions in (_X, _Y))
    steps = builder.fadd(builder.fmul(step_x, x), builder.fmul(step_y, y))
    return builder.fadd(value, steps)


def _vector_at(context: Any, builder: Any, kind: Any, array: Any, first: Any, vector: Any) -> Any:
    """Pointer to a vector in an array, from the flat index `first` on."""
    pointer = builder.gep(make_array(kind)(context, builder, array).data, [first])
    return builder.bitcast(pointer, ir.PointerType(vector))
