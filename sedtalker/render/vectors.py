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

from sedtalker.render.buffers import CHUNK, LANES, NOBODY, SAMPLE_X, SAMPLE_Y, SAMPLES, SUBPIXELS, TILE_ROWS
from sedtalker.render.shade import BLOCK

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
def pixels_of(typing_context: Any, owner: Any, first: int) -> Code:
    """Two bit masks of the samples from `first` on: owned by nobody; owned by the same as the whole pixel's others."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        owner, first = arguments
        owners = builder.load(_vector_at(context, builder, signature.args[0], owner, first, _WORDS), align=4)
        nobody = builder.icmp_unsigned("==", owners, ir.Constant(_WORDS, [NOBODY] * LANES))
        same = None
        for step in range(1, SAMPLES):
            others = [lane // SAMPLES * SAMPLES + (lane + step) % SAMPLES for lane in range(LANES)]
            turned = builder.shuffle_vector(owners, owners, ir.Constant(_WORDS, others))
            equal = builder.icmp_unsigned("==", owners, turned)
            same = equal if same is None else builder.and_(same, equal)
        masks = [builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(32)) for mask in (nobody, same)]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint32, 2)(owner, types.int64), generate


def _mixer(count: int) -> Any:
    """A function that mixes three rows of a table of `count` columns and lays the columns into rows of a block."""

    @intrinsic
    def mix(typing_context: Any, table: Any, rows: tuple[int, int, int], shares: Line, block: Any, first: int) -> Code:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, rows, shares, block, first = arguments
            vector = ir.VectorType(ir.FloatType(), count)
            mixed = None
            for k in range(3):
                row = builder.mul(builder.extract_value(rows, k), ir.Constant(ir.IntType(64), count))
                values = builder.load(_vector_at(context, builder, signature.args[0], table, row, vector), align=4)
                part = builder.fmul(_spread(builder, builder.extract_value(shares, k), vector), values)
                mixed = part if mixed is None else builder.fadd(mixed, part)
            place = _vector_at(context, builder, signature.args[3], block, first, ir.FloatType())
            for column in range(count):
                value = builder.extract_element(mixed, ir.Constant(ir.IntType(32), column))
                builder.store(value, builder.gep(place, [ir.Constant(ir.IntType(64), column * BLOCK)]), align=4)
            return context.get_dummy_value()

        return types.void(table, types.UniTuple(types.int64, 3), shares, block, types.int64), generate

    return mix


mix_3, mix_5, mix_8 = (_mixer(count) for count in (3, 5, 8))


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
