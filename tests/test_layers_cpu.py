"""Kernels for layers in 8 bits: all give the same sums."""

from __future__ import annotations

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from numba import config

from sedtalker import layers_cpu
from sedtalker.layers_cpu import GELU, INT8_LANES, Int8Rows
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
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
