"""Layers of the networks on one CPU core, for streams and recordings (numba).

A step of a stream has 1 to 12 frames. Torch spends most of such a step on calling its operations, and starts threads
that take longer to wake than the step takes. These kernels write to arrays that exist already, release the lock of the
interpreter and use the calling thread alone. Importing torch takes longer than a recording of a minute needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from sedtalker.kernels import LOG2_E, compiler, exp2
from sedtalker.weights import Float, Int8Weights, Weights

if TYPE_CHECKING:
    from torch import nn

STORE, GELU, SILU, ADD = range(4)  # what a linear layer does with its result; ADD: to what the output holds
LANES = 16  # outputs that are computed side by side with vector instructions
ROWS = 4  # rows of inputs for which weights are read once
FAST = ("fast",)  # flags of additions and multiplications
INT8_LANES = {"avx512vnni": (LANES,), "avx2": (2, LANES // 2)}  # registers and the outputs in each, fastest first
NORM_EPSILON = 1e-5  # of torch's layer norms
SPARE_ROWS = 96  # of `Rows`, so that the kept rows move rarely

compiled = compiler(nogil=True, error_model="numpy", fastmath=True)


@intrinsic
def _add_product(typing_context: Any, total: Any, x: Any, w: Any) -> Any:
    """total + x w in 32 bits, of int32, uint8 and int8. Numba's own sums of integers have 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, x, w = arguments
        wide = ir.IntType(32)
        return builder.add(total, builder.mul(builder.zext(x, wide), builder.sext(w, wide)))

    return types.int32(types.int32, types.uint8, types.int8), generate


def _write_dots(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Code of `_dot`."""
    lanes = LANES if signature.args[2].ndim == 4 else LANES // 2  # outputs of one register
    word, size, parts = ir.IntType(32), context.get_value_type(types.intp), range(LANES // lanes)
    vector, octets = ir.VectorType(word, lanes), ir.VectorType(ir.IntType(8), 4 * lanes)
    arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 4, 5, 6, 7)]
    inputs, weights, *terms, results = (builder.ptrtoint(array.data, size) for array in arrays)
    length = builder.extract_value(arrays[0].shape, 1)  # bytes of a row of q
    inputs = builder.add(inputs, builder.mul(arguments[1], length))
    weights = builder.add(weights, builder.mul(arguments[3], builder.mul(length, size(LANES))))
    zeros = ir.Constant(vector, [0] * lanes)
    totals = [[cgutils.alloca_once_value(builder, zeros) for _ in parts] for _ in range(ROWS)]
    for total in (total for row in totals for total in row):
        builder.store(zeros, total)

    def add_product(total: Any, copies: Any, weight: Any) -> Any:
        """total + the products of four bytes for each output."""
        if lanes == LANES:
            kind = ir.FunctionType(vector, [vector] * 3)
            dot = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
            return builder.call(dot, [total, copies, weight])
        # Weights have 7 bits, so that the 16-bit sums of two products cannot overflow.
        halves = ir.VectorType(ir.IntType(16), 2 * lanes)
        kind = ir.FunctionType(halves, [octets, octets])
        pairs = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.ub.sw")
        kind = ir.FunctionType(vector, [halves, halves])
        join = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.wd")
        products = builder.call(pairs, [builder.bitcast(copies, octets), builder.bitcast(weight, octets)])
        return builder.add(total, builder.call(join, [products, ir.Constant(halves, [1] * 2 * lanes)]))

    with cgutils.for_range(builder, builder.udiv(length, size(4))) as loop:
        at = builder.add(weights, builder.mul(loop.index, size(4 * LANES)))
        loaded = [_load(builder, builder.add(at, size(4 * lanes * part)), vector) for part in parts]
        for number, row in enumerate(totals):
            place = builder.add(inputs, builder.mul(length, size(number)))
            value = _load(builder, builder.add(place, builder.mul(loop.index, size(4))), word)
            copies = _spread(builder, value, vector)
            for total, weight in zip(row, loaded, strict=True):
                builder.store(add_product(builder.load(total), copies, weight), total)
    floats = ir.VectorType(ir.FloatType(), lanes)
    for part in parts:
        first = builder.mul(builder.add(builder.mul(arguments[3], size(LANES)), size(lanes * part)), size(4))
        correction, scale, bias = (
            _load(builder, builder.add(term, first), kind)
            for term, kind in zip(terms, (vector, floats, floats), strict=True)
        )
        for number, row in enumerate(totals):
            sums = builder.sitofp(builder.sub(builder.load(row[part]), correction), floats)
            at = builder.add(results, size(4 * (LANES * number + lanes * part)))
            value = builder.fadd(builder.fmul(sums, scale, FAST), bias, FAST)
            builder.store(value, builder.inttoptr(at, floats.as_pointer()), align=4)
    return context.get_dummy_value()


def _load(builder: Any, address: Any, kind: Any) -> Any:
    """The value of this kind at an address, of any alignment."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    """A vector whose elements are all `value`."""
    nothing = ir.Constant(vector, ir.Undefined)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.IntType(32)(0)), nothing, mask)


@intrinsic
def _dot(
    typing_context: Any, q: Any, row: Any, w: Any, block: Any, correction: Any, scale: Any, bias: Any, values: Any
) -> Any:
    """values (ROWS, LANES) = outputs of ROWS rows of q (M, K), from `row` on, for a block of `linear_int8_packed`."""
    return types.none(q, types.intp, w, types.intp, correction, scale, bias, values), _write_dots


def _write_products(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Code of `_multiply`."""
    size, number = context.get_value_type(types.intp), ir.FloatType()
    lanes = LANES // 2  # of a register: wider ones are not faster with `ROWS` rows
    vector, parts = ir.VectorType(number, lanes), range(LANES // lanes)
    x_at, x_step, rows, _, w_at, w_step, length = arguments[1:-1]
    arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 4, 8)]
    inputs, weights, results = (builder.ptrtoint(array.data, size) for array in arrays)
    weights = builder.add(weights, builder.mul(w_at, size(4)))
    last, places = builder.sub(rows, size(1)), []
    for row in range(ROWS):  # rows that do not exist repeat the last one
        own = builder.select(builder.icmp_signed("<", size(row), last), size(row), last)
        place = builder.add(x_at, builder.mul(own, x_step))
        places.append(builder.add(inputs, builder.mul(place, size(4))))
    zeros = ir.Constant(vector, [0.0] * lanes)
    totals = [[cgutils.alloca_once_value(builder, zeros) for _ in parts] for _ in range(ROWS)]
    for total in (total for row in totals for total in row):
        builder.store(zeros, total)
    with cgutils.for_range(builder, length) as loop:
        at = builder.add(weights, builder.mul(builder.mul(loop.index, w_step), size(4)))
        loaded = [_load(builder, builder.add(at, size(4 * lanes * part)), vector) for part in parts]
        for place, own_totals in zip(places, totals, strict=True):
            value = _load(builder, builder.add(place, builder.mul(loop.index, size(4))), number)
            copies = _spread(builder, value, vector)
            for total, weight in zip(own_totals, loaded, strict=True):
                product = builder.fmul(copies, weight, FAST)
                builder.store(builder.fadd(builder.load(total), product, FAST), total)
    for row, own in enumerate(totals):
        for part, total in enumerate(own):
            at = builder.add(results, size(4 * (LANES * row + lanes * part)))
            builder.store(builder.load(total), builder.inttoptr(at, vector.as_pointer()), align=4)
    return context.get_dummy_value()


@intrinsic
def _multiply(
    typing_context: Any, x: Any, x_at: Any, x_step: Any, rows: Any, w: Any, w_at: Any, w_step: Any, length: Any,
    values: Any,
) -> Any:  # fmt: skip
    """values (ROWS, LANES) = product of (rows, length) elements of x and (length, LANES) of w; contiguous arrays.

    Row r of x begins at its element x_at + r x_step, row k of w at w_at + k w_step. There are 1 to ROWS rows of x.
    """
    if any(array.layout != "C" for array in (x, w, values)):
        raise TypingError("the arrays must be contiguous")
    counts = [types.intp] * 3
    return types.none(x, *counts, w, *counts, values), _write_products


@njit(inline="always", fastmath=True)
def sigmoid(x: float) -> float:
    """Logistic function of a float32."""
    e = exp2(-abs(x) * np.float32(LOG2_E))
    return (np.float32(1.0) if x >= 0 else e) / (np.float32(1.0) + e)


@njit(inline="always", fastmath=True)
def tanh(x: float) -> float:
    """Hyperbolic tangent of a float32, to 3e-7."""
    e = exp2(np.float32(-2.0 * LOG2_E) * abs(x))
    t = (np.float32(1.0) - e) / (np.float32(1.0) + e)
    return t if x >= 0 else -t


@njit(inline="always", fastmath=True)
def softplus(x: float) -> float:
    """log(1 + exp(x)) of a float32, by the series of the inverse hyperbolic tangent, to a relative 3e-7."""
    e = exp2(-abs(x) * np.float32(LOG2_E))
    s = e / (np.float32(2.0) + e)
    q = s * s
    p = np.float32(1 / 11) + q * np.float32(1 / 13)
    p = np.float32(1 / 9) + q * p
    p = np.float32(1 / 7) + q * p
    p = np.float32(1 / 5) + q * p
    p = np.float32(1 / 3) + q * p
    return max(x, np.float32(0.0)) + np.float32(2.0) * s * (np.float32(1.0) + q * p)


@njit(inline="always", fastmath=True)
def gelu(x: float) -> float:
    """x times the normal distribution function, by Abramowitz & Stegun 7.1.26, to 2e-7 x."""
    z = abs(x) * np.float32(math.sqrt(0.5))
    t = np.float32(1.0) / (np.float32(1.0) + np.float32(0.3275911) * z)
    p = np.float32(-1.453152027) + t * np.float32(1.061405429)
    p = np.float32(1.421413741) + t * p
    p = np.float32(-0.284496736) + t * p
    p = np.float32(0.254829592) + t * p
    tail = np.float32(0.5) * p * t * exp2(-z * z * np.float32(LOG2_E))
    return x * (np.float32(1.0) - tail if x >= 0 else tail)


@njit(inline="always", fastmath=True)
def softmax(x: Float) -> None:
    """Replace x (N,) by its softmax."""
    most, total = np.float32(-3e38), np.float32(0.0)
    for i in range(x.shape[0]):
        most = max(most, x[i])
    for i in range(x.shape[0]):
        x[i] = exp2((x[i] - most) * np.float32(LOG2_E))
        total += x[i]
    for i in range(x.shape[0]):
        x[i] /= total


@compiled
def _activate(y: Float, mode: int) -> None:
    """y (M, N) = its GELU or SiLU."""
    for m in range(y.shape[0]):
        if mode == GELU:
            for n in range(y.shape[1]):
                y[m, n] = gelu(y[m, n])
        elif mode == SILU:
            for n in range(y.shape[1]):
                y[m, n] = y[m, n] * sigmoid(y[m, n])


@njit(inline="always", fastmath=True)
def _put(values: Float, y: Float, m: int, n: int, mode: int) -> None:
    """Store values (<= ROWS, LANES) in y (M, N) from row m and column n on, or add them, as far as y goes."""
    rows, columns = min(values.shape[0], y.shape[0] - m), min(LANES, y.shape[1] - n)
    for r in range(rows):
        target, own = y[m + r, n : n + columns], values[r]
        if columns == LANES and mode == ADD:
            for i in range(LANES):
                target[i] += own[i]
        elif columns == LANES:
            for i in range(LANES):
                target[i] = own[i]
        else:
            for i in range(columns):
                target[i] = own[i] + (target[i] if mode == ADD else np.float32(0.0))


@compiled
def linear(x: Float, w: Float, b: Float, y: Float, mode: int) -> None:
    """y (M, N) = x (M, K) w^T + b, with weights w (N / LANES, K, LANES) of `pack_rows` and b (>= N,)."""
    inputs, values = w.shape[1], np.empty((ROWS, LANES), np.float32)
    for block in range(w.shape[0]):
        bias = b[LANES * block : LANES * (block + 1)]
        for m in range(0, y.shape[0], ROWS):
            rows = min(ROWS, y.shape[0] - m)
            _multiply(x, m * inputs, inputs, rows, w, LANES * inputs * block, LANES, inputs, values)
            for r in range(ROWS):
                for i in range(LANES):
                    values[r, i] += bias[i]
            _put(values, y, m, LANES * block, mode)
    _activate(y, mode)


@compiled
def quantize(x: Float, factor: Float, inverse: float, zero: float, q: NDArray[np.uint8]) -> None:
    """q (>= M, >= K) = x (M, K) times factor (K,) and `inverse`, rounded, plus `zero`, in 0..255."""
    for m in range(x.shape[0]):
        for k in range(x.shape[1]):
            level = np.float32(np.rint(x[m, k] * factor[k] * inverse)) + zero
            q[m, k] = np.uint8(np.int32(min(max(level, np.float32(0.0)), np.float32(255.0))))


@compiled
def linear_int8(
    q: NDArray[np.uint8], w: NDArray[np.int8], correction: NDArray[np.int32], scale: Float, b: Float, y: Float,
    mode: int,
) -> None:  # fmt: skip
    """y (M, N) = (q w^T - correction) scale + b, of integers q (>= M, K) and w (N, K), for any processor."""
    for m in range(y.shape[0]):
        for n in range(w.shape[0]):
            total = np.int32(0)
            for k in range(w.shape[1]):
                total = _add_product(total, q[m, k], w[n, k])
            value = np.float32(total - correction[n]) * scale[n] + b[n]
            y[m, n] = value + (y[m, n] if mode == ADD else np.float32(0.0))
    _activate(y, mode)


@compiled
def linear_int8_packed(
    q: NDArray[np.uint8], w: NDArray[np.int8], correction: NDArray[np.int32], scale: Float, b: Float, y: Float,
    mode: int,
) -> None:  # fmt: skip
    """`linear_int8` with vector instructions, chosen by the shape of w; q has a multiple of 4 rows.

    With AVX-512 VNNI w is (N / LANES, K / 4, LANES, 4), with AVX2 (N / LANES, K / 4, 2, LANES / 2, 4). The arrays of
    (N,) are longer, up to the end of the last block.
    """
    values = np.empty((ROWS, LANES), np.float32)
    for block in range(w.shape[0]):
        for m in range(0, y.shape[0], ROWS):
            _dot(q, m, w, block, correction, scale, b, values)
            _put(values, y, m, LANES * block, mode)
    _activate(y, mode)


def apply_layer(x: Float, arrays: Any, y: Float, mode: int) -> None:
    """y (M, N), filled by a layer with `arrays` of `Linear` or `Int8Rows`; x is (M, K). For kernels alone.

    A call from Python takes as long as multiplying a few rows, so that kernels call each other where they can. `mode`
    is an `np.int64`: numba would compile the kernels again for literal numbers.
    """


@overload(apply_layer, strict=False)  # strict: with the same type hints
def _apply_layer(x: Any, arrays: Any, y: Any, mode: Any) -> Callable[..., None]:
    if len(arrays) == 2:

        def apply(x: Float, arrays: Any, y: Float, mode: int) -> None:
            linear(x, arrays[0], arrays[1], y, mode)

        return apply
    kernel = linear_int8 if arrays[0].ndim == 2 else linear_int8_packed

    def apply_int8(x: Float, arrays: Any, y: Float, mode: int) -> None:
        integers, correction, scale, bias, factor, inverse, zero = arrays
        rows, inputs = y.shape[0], factor.shape[0]
        # What is not filled is multiplied by zeros, or not stored.
        q = np.empty(((rows + ROWS - 1) // ROWS * ROWS, (inputs + 3) // 4 * 4), np.uint8)
        quantize(x, factor, inverse, zero, q)
        kernel(q, integers, correction, scale, bias, y, mode)

    return apply_int8


@compiled
def _run_layer(x: Float, arrays: Any, y: Float, mode: int) -> None:
    """`apply_layer`, for Python."""
    apply_layer(x, arrays, y, mode)


@compiled
def layer_norm(x: Float, gain: Float, bias: Float, y: Float) -> None:
    """y (M, N) = layer norm of x (M, N)."""
    size = x.shape[1]
    for m in range(x.shape[0]):
        total = np.float32(0.0)
        for n in range(size):
            total += x[m, n]
        mean = total / np.float32(size)
        square = np.float32(0.0)
        for n in range(size):
            square += (x[m, n] - mean) * (x[m, n] - mean)
        scale = np.float32(1.0) / np.sqrt(square / np.float32(size) + np.float32(NORM_EPSILON))
        for n in range(size):
            y[m, n] = (x[m, n] - mean) * scale * gain[n] + bias[n]


@compiled
def attend(
    q: Float, first: int, keys: Float, origin: int, v: Float, v_at: int, heads: int, group: int, size: int, left: int,
    ahead: int, y: Float,
) -> None:  # fmt: skip
    """y (M, heads x size): attention of queries over keys and values, rows of contiguous arrays (R, ...).

    Query m is row `first` + m. It reads the keys from `left` rows before it to `ahead` rows after it, as far as they
    exist. Heads follow each other in the columns, those of the values from column `v_at` on. The key of row r is column
    `origin` + r of `keys` (heads / group x size, >= origin + R + LANES). `group` heads of the queries share one of the
    keys.
    """
    low, high = max(0, first - left), min(v.shape[0], first + y.shape[0] + ahead)  # keys that any query reads
    length, whole = high - low, size % LANES == 0  # whole: values can be read where they are
    columns = LANES * ((length + LANES - 1) // LANES)
    values = v if whole else np.zeros((length, LANES * (size // LANES + 1)), np.float32)
    step, places = values.shape[1], keys.shape[1]
    queries, result = np.empty((ROWS, size), np.float32), np.empty((ROWS, LANES), np.float32)
    weights, sums = np.empty((ROWS, columns), np.float32), np.empty(ROWS, np.float32)
    root = np.float32(LOG2_E / math.sqrt(size))
    for h in range(heads):
        shared = h // group * size
        first_key = shared * places + origin + low
        first_value = low * step + v_at + shared if whole else 0
        if not whole and h % group == 0:
            for r in range(length):
                value, own = v[low + r, v_at + shared :], values[r]
                for i in range(size):  # numba takes seconds to compile assignments of slices
                    own[i] = value[i]
        for m in range(0, y.shape[0], ROWS):
            rows = min(ROWS, y.shape[0] - m)
            for r in range(rows):
                query, scaled = q[first + m + r, h * size :], queries[r]
                for i in range(size):
                    scaled[i] = query[i] * root
            start = max(0, first + m - left) - low  # of the keys that these queries read
            stop = min(v.shape[0], first + m + rows + ahead) - low
            for at in range(start // LANES * LANES, stop, LANES):
                _multiply(queries, 0, size, rows, keys, first_key + at, places, size, result)
                _put(result[:rows], weights, 0, at, STORE)
            for r in range(rows):
                begin = max(0, first + m + r - left) - low
                end = min(v.shape[0], first + m + r + ahead + 1) - low
                own, most, total = weights[r, begin:end], np.float32(-3e38), np.float32(0.0)
                for i in range(own.shape[0]):
                    most = max(most, own[i])
                for i in range(own.shape[0]):
                    own[i] = exp2(own[i] - most)
                    total += own[i]
                sums[r] = np.float32(1.0) / total
                for i in range(start, begin):
                    weights[r, i] = np.float32(0.0)
                for i in range(end, stop):
                    weights[r, i] = np.float32(0.0)
            for at in range(0, size, LANES):
                _multiply(
                    weights, start, columns, rows, values, first_value + start * step + at, step, stop - start, result
                )
                for r in range(rows):
                    target, own, inverse = y[m + r, h * size + at : (h + 1) * size], result[r], sums[r]
                    for i in range(min(LANES, target.shape[0])):
                        target[i] = own[i] * inverse


@compiled
def recur(x: Float, arrays: Any, weights: Float, bias: Float, h: Float, y: Float) -> None:
    """y (S, H), states of a GRU with inputs x (S, K); h (H,) is updated.

    `arrays` are of the layer of the input's gates (3 H), `weights` (H, 3 H) are recurrent.
    """
    hidden = h.shape[0]
    gates = np.empty((y.shape[0], 3 * hidden), np.float32)
    apply_layer(x, arrays, gates, np.int64(STORE))
    own = np.empty(3 * hidden, np.float32)
    for s in range(y.shape[0]):
        for i in range(3 * hidden):
            own[i] = bias[i]
        for k in range(hidden):
            value = h[k]
            for i in range(3 * hidden):
                own[i] += value * weights[k, i]
        for i in range(hidden):
            reset = sigmoid(gates[s, i] + own[i])
            keep = sigmoid(gates[s, hidden + i] + own[hidden + i])
            new = tanh(gates[s, 2 * hidden + i] + reset * own[2 * hidden + i])
            h[i] = new + keep * (h[i] - new)
            y[s, i] = h[i]


@lru_cache(maxsize=1)
def int8_lanes() -> tuple[int, ...] | None:
    """The shape of `LANES` outputs in registers, for the fastest instructions that the processor has and numba may use.

    None: for the plain kernel.
    """
    if not numba.config.CPU_NAME and not numba.config.CPU_FEATURES:
        features = get_host_cpu_features()
        for name, lanes in INT8_LANES.items():
            if features.get(name):
                return lanes
    return None


def pad_outputs(values: Any) -> Any:
    """Values (N, ...) with zeros to a multiple of `LANES`."""
    return np.pad(values, [(0, -len(values) % LANES)] + [(0, 0)] * (values.ndim - 1))


def pack_rows(weight: Float) -> Float:
    """Weights (N, K) for `linear`: (N / LANES, K, LANES)."""
    blocks = pad_outputs(np.asarray(weight, np.float32)).reshape(-1, LANES, weight.shape[1])
    return np.ascontiguousarray(blocks.transpose(0, 2, 1))


class Linear:
    """Weights of a linear layer in floating point or 8 bits, packed for the kernels."""

    arrays: tuple[Any, ...]  # of `apply_layer`

    def __init__(self, weight: Float, bias: Float | None = None) -> None:
        """`weight` is (N, K)."""
        self.outputs, self.inputs = weight.shape
        bias = np.zeros(self.outputs, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)
        self.arrays = pack_rows(weight), pad_outputs(bias)

    def __call__(self, x: Float, y: Float, mode: int = STORE) -> Float:
        """y (M, N), filled, of x (M, K)."""
        _run_layer(x, self.arrays, y, mode)
        return y


class Int8Rows(Linear):
    """The same of a layer in 8 bits."""

    def __init__(self, layer: Int8Weights, order: NDArray[np.intp] | None = None) -> None:
        """`order` (K,) of the inputs."""
        order = np.arange(layer.integers.shape[1]) if order is None else order
        self.outputs, self.inputs = layer.integers.shape
        integers = np.ascontiguousarray(layer.integers[:, order])
        scale, zero = np.float32(layer.scale), np.float32(layer.zero)
        terms = [integers.sum(axis=1, dtype=np.int32) * np.int32(layer.zero), layer.scales * scale, layer.bias]
        if (lanes := int8_lanes()) is not None:
            padding = [(0, -size % multiple) for size, multiple in zip(integers.shape, (LANES, 4), strict=True)]
            blocks = np.pad(integers, padding).reshape(-1, LANES, (self.inputs + 3) // 4, 4).transpose(0, 2, 1, 3)
            integers = np.ascontiguousarray(blocks).reshape(*blocks.shape[:2], *lanes, 4)
            terms = [pad_outputs(term) for term in terms]
        self.arrays = integers, *terms, np.ascontiguousarray(layer.factor[order]), np.float32(1) / scale, zero


class LayerNorm:
    """A layer norm's weights."""

    def __init__(self, gain: Float, bias: Float) -> None:
        self.arrays = np.ascontiguousarray(gain, np.float32), np.ascontiguousarray(bias, np.float32)

    def __call__(self, x: Float, y: Float) -> Float:
        """y (M, N), filled with the norm of x (M, N)."""
        layer_norm(x, *self.arrays, y)
        return y


def pack(
    weights: Weights, name: str, outputs: int, inputs: int, bias: bool = True, order: NDArray[np.intp] | None = None
) -> Linear:
    """A linear layer of these weights; `order` (K,) of its inputs. Raises KeyError or ValueError if they do not fit."""
    layer = weights.int8(name, outputs, inputs)
    if layer is not None:
        return Int8Rows(layer, order)
    weight = weights.array(f"{name}.weight", outputs, inputs)
    own = weights.array(f"{name}.bias", outputs) if bias else None
    return Linear(weight if order is None else weight[:, order], own)


def pack_norm(weights: Weights, name: str, width: int) -> LayerNorm:
    """A layer norm of these weights; raises as `pack`."""
    return LayerNorm(weights.array(f"{name}.weight", width), weights.array(f"{name}.bias", width))


def plain_norm(width: int) -> LayerNorm:
    """A layer norm whose gain is 1."""
    return LayerNorm(np.ones(width, np.float32), np.zeros(width, np.float32))


class Recurrent:
    """One layer of a GRU in one direction."""

    def __init__(self, weights: Weights, ending: str, hidden: int, inputs: int) -> None:
        """`ending` of the names of its weights, such as "l0" or "l0_reverse"."""
        self._gates = Linear(
            weights.array(f"weight_ih_{ending}", 3 * hidden, inputs), weights.array(f"bias_ih_{ending}", 3 * hidden)
        )
        self._weights = np.ascontiguousarray(weights.array(f"weight_hh_{ending}", 3 * hidden, hidden).T)
        self._bias = weights.array(f"bias_hh_{ending}", 3 * hidden)

    def start(self) -> Float:
        """The state (hidden,) before the first step."""
        return np.zeros(len(self._weights), np.float32)

    def run(self, x: Float, hidden: Float) -> Float:
        """Outputs (n, hidden) of x (n, inputs); the state (hidden,) is updated."""
        y = np.empty((len(x), len(hidden)), np.float32)
        recur(x, self._gates.arrays, self._weights, self._bias, hidden, y)
        return y


class Rows:
    """The last rows (n, width) of a sequence: rows are added at the end and dropped at the start."""

    def __init__(self, width: int) -> None:
        self._array = np.empty((2 * SPARE_ROWS, width), np.float32)
        self._offset = 0  # place of row `first`
        self.first = self.count = 0  # numbers of the first row that is kept, and of all rows so far

    def extend(self, rows: int) -> Float:
        """The next rows (rows, width), to be filled."""
        kept = self.count - self.first
        if self._offset + kept + rows > len(self._array):
            longer = kept + rows > len(self._array) - SPARE_ROWS
            self._move(kept, kept + rows + 2 * SPARE_ROWS if longer else len(self._array))
            self._offset = 0
        start = self._offset + kept
        self.count += rows
        return self._array[start : start + rows]

    def _move(self, kept: int, size: int) -> None:
        """Move the kept rows to the start of an array of `size` rows."""
        rows = self._array[self._offset : self._offset + kept].copy()
        if size != len(self._array):
            self._array = np.empty((size, rows.shape[1]), np.float32)
        self._array[:kept] = rows

    def view(self, start: int, stop: int) -> Float:
        """The rows of these numbers."""
        shift = self._offset - self.first
        return self._array[start + shift : stop + shift]

    def drop(self, before: int) -> None:
        """Drop the rows before number `before`."""
        dropped = max(0, before - self.first)
        self._offset, self.first = self._offset + dropped, self.first + dropped


class KeyRows(Rows):
    """Rows of queries, keys and values (n, 3 width) with columns of the keys, which `attend` reads."""

    def __init__(self, width: int) -> None:
        super().__init__(3 * width)
        self.columns = np.empty((width, len(self._array) + LANES), np.float32)  # filled as the rows are

    def place(self, number: int) -> int:
        """The column of the key of row `number`."""
        return self._offset + number - self.first

    def _move(self, kept: int, size: int) -> None:
        columns = self.columns[:, self._offset : self._offset + kept].copy()
        if size != len(self._array):
            self.columns = np.empty((len(columns), size + LANES), np.float32)
        self.columns[:, :kept] = columns
        super()._move(kept, size)


_packed: WeakKeyDictionary[nn.Module, tuple[object, Any]] = WeakKeyDictionary()


def share_packed(network: nn.Module, build: Callable[[Any], Any]) -> Any:
    """`build(network)`, or what it returned before, if the weights are the same as then."""
    weights = [*network.parameters(), *network.buffers()]
    version = [(part.data_ptr(), part._version) for part in weights]
    known = _packed.get(network)
    if known is None or known[0] != version:
        known = _packed[network] = version, build(network)
    return known[1]
