"""Kernels for layers: those in 8 bits give the same sums, the others what numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from numba import config

from sedtalker import layers_cpu
from sedtalker.layers_cpu import ADD, GELU, INT8_LANES, LANES, Int8Rows, Linear, attend
from sedtalker.weights import Int8Weights


@pytest.mark.parametrize("feature", INT8_LANES)
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 16, 4), (7, 37, 30), (32, 384, 240)])
def test_kernels_with_vector_instructions_equal_the_plain_one(
    feature: str, rows: int, outputs: int, inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not get_host_cpu_features().get(feature) or config.CPU_NAME or config.CPU_FEATURES:
        pytest.skip(f"a processor without {feature}, or numba does not compile for it")
    random = np.random.default_rng(0)
    integers = random.integers(-63, 64, (outputs, inputs)).astype(np.int8)
    integers[0], scales = 63, random.random(outputs, np.float32)
    bias, factor = random.random(outputs, np.float32), np.ones(inputs, np.float32)
    weights = Int8Weights(integers, scales, bias, factor, scale=0.01, zero=7)
    x = random.random((rows, inputs), np.float32) * 5
    x[0] = 10.0  # inputs and weights at the ends of their ranges
    results = []
    for lanes in (None, INT8_LANES[feature]):
        monkeypatch.setattr(layers_cpu, "int8_lanes", lambda lanes=lanes: lanes)
        results.append(Int8Rows(weights)(x, np.empty((rows, outputs), np.float32), GELU))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)  # processors round a constant apart


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 1, 3), (7, 37, 30), (8, 48, 64)])
def test_linear_equals_the_matrix_product(rows: int, outputs: int, inputs: int) -> None:
    random = np.random.default_rng(1)
    weight, bias = random.standard_normal((outputs, inputs), np.float32), random.random(outputs, np.float32)
    x, y = random.standard_normal((rows, inputs), np.float32), random.random((rows, outputs), np.float32)
    expected = y + x @ weight.T + bias
    np.testing.assert_allclose(Linear(weight, bias)(x, y, ADD), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "size", "group", "ahead"), [(1, 16, 1, 0), (6, 32, 2, 3), (9, 12, 1, 2)])
def test_attention_equals_the_softmax_over_each_window(rows: int, size: int, group: int, ahead: int) -> None:
    random, heads, left, first, kept = np.random.default_rng(2), 4, 5, 7, 18
    q = random.standard_normal((kept, heads * size), np.float32)
    k, v = (random.standard_normal((kept, heads // group * size + more), np.float32) for more in (0, 3))
    y = np.empty((rows, heads * size), np.float32)
    keys = np.pad(k.T, [(0, 0), (5, LANES)]).astype(np.float32, order="C")
    attend(q, first, keys, 5, v, 2, heads, group, size, left, ahead, y)
    for m in range(rows):
        window = slice(max(0, first + m - left), min(kept, first + m + ahead + 1))
        for h in range(heads):
            own, at = slice(h * size, (h + 1) * size), h // group * size
            scores = k[window, at : at + size] @ q[first + m, own] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            expected = weights / weights.sum() @ v[window, 2 + at : 2 + at + size]
            np.testing.assert_allclose(y[m, own], expected, rtol=1e-4, atol=1e-5)
