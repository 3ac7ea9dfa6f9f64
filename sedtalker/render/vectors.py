"""Samples side by side: what a compiler cannot be trusted to find in a loop, said in vectors.

The samples of `CHUNK` neighbouring pixels are held against a triangle's edges and depth at once. A vector becomes
whatever the processor has: four, eight or sixteen numbers to a register; the results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from sedtalker.render.buffers import (
    CHUNK,
    COLORED_CORNERS,
    CORNERS,
    GROUP,
    LANES,
    NO_TRIANGLE,
    PLANE,
    SAME_SURFACE,
    SAMPLE_X,
    SAMPLE_Y,
    SAMPLES,
    SUBPIXELS,
    TILE_ROWS,
)
from sedtalker.render.shade import BLOCK, PAINT, SPARE, U, X, Y

_X = [pixel * SUBPIXELS + x for pixel in range(CHUNK) for x in SAMPLE_X]
_Y = [y for _ in range(CHUNK) for y in SAMPLE_Y]
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)

Line = tuple[float, float, float]  # steps in x and y, and the value at the chunk's upper left corner
Code = tuple[Any, Callable[..., Any]]


@intrinsic
def samples_within(typing_context: Any, edges: tuple[Line, Line, Line], near: Line, depth: Any, first: int) -> Code:
    """Bit mask of the samples from `first` on that lie inside three edges and nearer than their `depth`.

    `edges` step by subpixels, `near` (1 / depth) by pixels; all of them are float32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        edges, near, depth, first = arguments
        lines = [_values(builder, builder.extract_value(edges, k), 1.0) for k in range(3)]
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        nearness = _values(builder, near, 1.0 / SUBPIXELS)
        before = builder.load(_vector_at(context, builder, signature.args[2], depth, first, _FLOATS), align=4)
        mask = builder.fcmp_ordered(">", nearness, before)
        for line in lines:
            mask = builder.and_(mask, builder.fcmp_ordered(">=", line, zero))
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32))

    return types.uint32(edges, near, depth, first), generate


@intrinsic
def give_samples(typing_context: Any, mask: int, triangle: int, near: Line, depth: Any, owner: Any, first: int) -> Code:
    """Write a triangle and its nearness to those samples from `first` on that the bit mask names."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, triangle, near, depth, owner, first = arguments
        chosen = builder.bitcast(builder.trunc(mask, ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
        values = (_values(builder, near, 1.0 / SUBPIXELS), _spread(builder, triangle, _WORDS))
        places = (
            _vector_at(context, builder, signature.args[3], depth, first, _FLOATS),
            _vector_at(context, builder, signature.args[4], owner, first, _WORDS),
        )
        for value, place in zip(values, places, strict=True):
            builder.store(builder.select(chosen, value, builder.load(place, align=4)), place, align=4)
        return context.get_dummy_value()

    return types.void(types.uint32, types.uint32, near, depth, owner, first), generate


@intrinsic
def least_in_tile(typing_context: Any, depth: Any, first: int, stride: int) -> Code:
    """The least of LANES samples from `first` on and of those below them, `stride` apart, in a tile's rows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        depth, first, stride = arguments
        least = None
        for _ in range(TILE_ROWS):
            # Floats that are not negative are ordered as their bits are.
            row = builder.load(_vector_at(context, builder, signature.args[0], depth, first, _WORDS), align=4)
            least = row if least is None else builder.select(builder.icmp_unsigned("<", row, least), row, least)
            first = builder.add(first, stride)
        kind = ir.FunctionType(ir.IntType(32), [_WORDS])
        reduce = get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.umin.v{LANES}i32")
        return builder.bitcast(builder.call(reduce, [least]), ir.FloatType())

    return types.float32(depth, types.int64, types.int64), generate


@intrinsic
def samples_owned(typing_context: Any, owner: Any, first: int) -> Code:
    """Bit mask of the samples from `first` on that somebody owns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        owner, first = arguments
        owners = builder.load(_vector_at(context, builder, signature.args[0], owner, first, _WORDS), align=4)
        mask = builder.icmp_unsigned("!=", owners, ir.Constant(_WORDS, [NO_TRIANGLE] * LANES))
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32))

    return types.uint32(owner, types.int64), generate


@intrinsic
def pixels_within(typing_context: Any, owner: Any, depth: Any, first: int, low: int, high: int) -> Code:
    """Bit mask of the samples from `first` on that triangles low...high - 1 own and that lie at their pixel's depth."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        owner, depth, first, low, high = arguments
        kinds = signature.args
        owners = builder.load(_vector_at(context, builder, kinds[0], owner, first, _WORDS), align=4)
        near = builder.load(_vector_at(context, builder, kinds[1], depth, first, _FLOATS), align=4)
        mask = builder.icmp_unsigned(">=", owners, _spread(builder, low, _WORDS))
        mask = builder.and_(mask, builder.icmp_unsigned("<", owners, _spread(builder, high, _WORDS)))
        most = builder.fmul(near, ir.Constant(_FLOATS, [SAME_SURFACE] * LANES))
        for step in range(1, SAMPLES):
            others = _lanes(*(lane // SAMPLES * SAMPLES + (lane + step) % SAMPLES for lane in range(LANES)))
            behind = builder.fsub(near, builder.shuffle_vector(near, near, others))
            mask = builder.and_(mask, builder.fcmp_ordered("<", behind, most))
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32))

    return types.uint32(owner, depth, types.int64, types.int32, types.int32), generate


@intrinsic
def planes_at(typing_context: Any, planes: Any, fragment: Any, block: Any, first: int) -> Code:
    """What `planes` say of a group of fragments from `first` on, at their places: 1 / depth, b and c over depth.

    Into the block's first three SPARE rows.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        planes, fragment, block, first = arguments
        kinds, four = signature.args, ir.VectorType(ir.FloatType(), 4)
        x, y = (_row(context, builder, kinds[2], block, row, first) for row in (X, Y))
        x, y = builder.load(x, align=4), builder.load(y, align=4)
        values = []
        for lane in range(GROUP):
            triangle = _number_at(context, builder, kinds[1], fragment, _plus(builder, first, lane))
            place = _times(builder, triangle, PLANE)
            step_x, step_y, value = (
                builder.load(_vector_at(context, builder, kinds[0], planes, _plus(builder, place, k), four), align=4)
                for k in (0, 4, 8)
            )
            along_x = builder.fmul(step_x, _lane(builder, x, lane, four))
            along_y = builder.fmul(step_y, _lane(builder, y, lane, four))
            values.append(builder.fadd(value, builder.fadd(along_x, along_y)))
        for quantity, column in enumerate(_columns(builder, values)[:3]):
            builder.store(column, _row(context, builder, kinds[2], block, SPARE + quantity, first), align=4)
        return context.get_dummy_value()

    return types.void(planes, fragment, block, types.int64), generate


def _mixer(colored: bool) -> Any:
    """A function that mixes what the corners of a group of fragments' triangles hold."""

    @intrinsic
    def mix(typing_context: Any, scene: Any, normals: Any, fragment: Any, block: Any, first: int) -> Code:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scene, normals, fragment, block, first = arguments
            kinds = signature.args
            triangles, corners = (builder.extract_value(scene, kinds[0].fields.index(name)) for name in _OF_SCENE)
            of_triangles, of_corners = (kinds[0].types[kinds[0].fields.index(name)] for name in _OF_SCENE)
            eight, four = ir.VectorType(ir.FloatType(), 8), ir.VectorType(ir.FloatType(), 4)
            shares = [
                builder.load(_row(context, builder, kinds[3], block, SPARE + k, first), align=4) for k in range(3)
            ]
            mixed, tints = [], []
            for lane in range(GROUP):
                triangle = _number_at(context, builder, kinds[2], fragment, _plus(builder, first, lane))
                corner = _times(builder, triangle, 3)
                rows, colors = [], []
                for k in range(3):
                    at = _plus(builder, corner, k)
                    point = _number_at(context, builder, of_triangles, triangles, at)
                    place = _vector_at(context, builder, kinds[1], normals, _times(builder, point, 4), four)
                    normal = _widened(builder, builder.load(place, align=4))
                    at = _times(builder, at, COLORED_CORNERS if colored else CORNERS)
                    row = builder.load(_vector_at(context, builder, of_corners, corners, at, eight), align=4)
                    rows.append(builder.shuffle_vector(normal, row, _lanes(0, 1, 2, *range(8 + U, 16))))
                    if colored:
                        place = _vector_at(context, builder, of_corners, corners, _plus(builder, at, PAINT), four)
                        colors.append(builder.load(place, align=4))
                mixed.append(_weighed(builder, rows, shares, lane))
                if colored:
                    tints.append(_weighed(builder, colors, shares, lane))
            columns = [*_columns(builder, mixed), *(_columns(builder, tints)[:3] if colored else ())]
            for quantity, column in enumerate(columns):
                builder.store(column, _row(context, builder, kinds[3], block, quantity, first), align=4)
            return context.get_dummy_value()

        return types.void(scene, normals, fragment, block, types.int64), generate

    return mix


_OF_SCENE = ("triangles", "corners")
mix_corners, mix_colored_corners = _mixer(False), _mixer(True)


def _weighed(builder: Any, rows: list[Any], shares: list[Any], lane: int) -> Any:
    """Sum of three rows, each times its share in a lane."""
    parts = [builder.fmul(row, _lane(builder, share, lane, row.type)) for row, share in zip(rows, shares, strict=True)]
    return builder.fadd(builder.fadd(parts[0], parts[1]), parts[2])


def _columns(builder: Any, rows: list[Any]) -> list[Any]:
    """GROUP rows of four or eight numbers -> as many columns of GROUP: halves of rows change places, then quarters."""
    if rows[0].type.count == GROUP // 2:
        joined = _lanes(*range(GROUP))
        pairs = zip(rows[: GROUP // 2], rows[GROUP // 2 :], strict=True)
        rows = [builder.shuffle_vector(upper, lower, joined) for upper, lower in pairs]
    step = len(rows) // 2
    while step:
        stay = _lanes(*(lane if not lane & step else GROUP + lane - step for lane in range(GROUP)))
        move = _lanes(*(lane + step if not lane & step else GROUP + lane for lane in range(GROUP)))
        for k in range(len(rows)):
            if not k & step:
                a, b = rows[k], rows[k + step]
                rows[k], rows[k + step] = builder.shuffle_vector(a, b, stay), builder.shuffle_vector(a, b, move)
        step //= 2
    return rows


def _lanes(*numbers: int) -> Any:
    """Which lanes of two vectors make a third."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))


def _lane(builder: Any, vector: Any, lane: int, kind: Any) -> Any:
    """A number of a vector in every lane of another."""
    return builder.shuffle_vector(vector, vector, _lanes(*[lane] * kind.count))


def _widened(builder: Any, vector: Any) -> Any:
    """Four numbers as the first of eight."""
    return builder.shuffle_vector(vector, vector, _lanes(0, 1, 2, 3, 0, 1, 2, 3))


def _plus(builder: Any, number: Any, more: int) -> Any:
    return builder.add(number, ir.Constant(number.type, more))


def _times(builder: Any, number: Any, factor: int) -> Any:
    return builder.mul(number, ir.Constant(number.type, factor))


def _number_at(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    """A uint32 of an array as an int64."""
    number = builder.load(builder.gep(make_array(kind)(context, builder, array).data, [place]))
    return builder.zext(number, ir.IntType(64))


def _row(context: Any, builder: Any, kind: Any, block: Any, quantity: int, first: Any) -> Any:
    """Pointer to a quantity of a group of a block's fragments."""
    place = _plus(builder, first, quantity * BLOCK)
    return _vector_at(context, builder, kind, block, place, ir.VectorType(ir.FloatType(), GROUP))


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """A number in every lane."""
    lane = ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, lane)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def _values(builder: Any, line: Any, unit: float) -> Any:
    """What is linear on the screen, at the samples; it steps by `unit` of a subpixel."""
    step_x, step_y, value = (_spread(builder, builder.extract_value(line, k), _FLOATS) for k in range(3))
    x, y = (ir.Constant(_FLOATS, [unit * place for place in places]) for places in (_X, _Y))
    steps = builder.fadd(builder.fmul(step_x, x), builder.fmul(step_y, y))
    return builder.fadd(value, steps)


def _vector_at(context: Any, builder: Any, kind: Any, array: Any, first: Any, vector: Any) -> Any:
    """Pointer to a vector that begins at a number among all of an array's."""
    place = builder.gep(make_array(kind)(context, builder, array).data, [first])
    return builder.bitcast(place, ir.PointerType(vector))
