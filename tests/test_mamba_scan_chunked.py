"""The chunked scan against the formula: values, states and gradients, precision, memory and number of operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mamba_scan import gradients, scan_inputs
from torch.utils._python_dispatch import TorchDispatchMode

from sedtalker.mamba import scan_chunked
from sedtalker.mamba.scan import selective_scan_reference
from sedtalker.mamba.scan_chunked import chunked_scan


@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 70),  # with and without a remainder after the last whole chunk
    channels=st.integers(1, 9),
    states=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_equals_the_formula(batch: int, steps: int, channels: int, states: int, seed: int) -> None:
    inputs = scan_inputs(batch, steps, channels, states, seed=seed)
    exact, exact_last = selective_scan_reference(*(x.double() for x in inputs))
    y, last = chunked_scan(*inputs)
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last.double(), exact_last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 16, 24, 8), (1, 50, 30, 4), (3, 33, 7, 5)])
@pytest.mark.parametrize("elements", [1, 2**26], ids=["chunk by chunk", "all chunks at once"])
def test_gradients_equal_those_of_the_formula(
    shape: tuple[int, ...], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_chunked, "BACKWARD_ELEMENTS", elements)
    inputs = [x.double() for x in scan_inputs(*shape)]
    exact = gradients(selective_scan_reference, inputs)
    for got, expected in zip(gradients(chunked_scan, inputs), exact, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_strong_decay_does_not_overflow() -> None:
    u, delta, A, B, C, D, state = scan_inputs(1, 30, 3, 2)
    strong = u, delta * 0 + 100.0, A * 0 - 50.0, B, C, D, state * 1e6
    exact = gradients(selective_scan_reference, list(strong))
    for got, expected in zip(gradients(chunked_scan, list(strong)), exact, strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_bfloat16_under_autocast_is_computed_in_float32() -> None:
    inputs = scan_inputs(2, 40, 6, 4, torch.bfloat16)
    exact, exact_last = selective_scan_reference(*(x.float() for x in inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, last = chunked_scan(*inputs)
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=1e-2, atol=1e-2)  # the rounding of the result
    torch.testing.assert_close(last, exact_last, rtol=1e-4, atol=1e-4)


def test_carried_state_continues_the_scan() -> None:
    u, delta, A, B, C, D, state = scan_inputs(2, 60, 5, 4)
    whole, last = chunked_scan(u, delta, A, B, C, D, state)
    parts, carried = [], state
    for piece in torch.arange(60).split([1, 30, 7, 22]):
        y, carried = chunked_scan(u[:, piece], delta[:, piece], A, B[:, piece], C[:, piece], D, carried)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(carried, last, rtol=1e-4, atol=1e-5)


class _Operations(TorchDispatchMode):
    """Counts the operations, each a kernel launch on a GPU, and the elements of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.largest = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.count += 1
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def test_launches_grow_with_the_root_of_the_length_and_memory_is_bounded() -> None:
    counted = {}
    for steps in (400, 1600, 6400):
        inputs = [x.to("meta") for x in scan_inputs(1, steps, 32, 16)]
        with _Operations() as operations, torch.inference_mode():
            chunked_scan(*inputs)
        counted[steps] = operations.count
        assert operations.largest <= steps * 32 * 16 / 10
    assert counted[6400] < 4.5 * counted[400]
    assert counted[1600] < 1600  # the formula needs several operations a step


@pytest.mark.slow
def test_it_can_be_compiled() -> None:
    """torch.compile traces it without its own code generator, which would need a C++ compiler."""
    inputs = [x.requires_grad_() for x in scan_inputs(1, 9, 4, 3)]
    compiled = torch.compile(chunked_scan, backend="aot_eager")
    expected, given = (scan(*inputs) for scan in (chunked_scan, compiled))
    torch.testing.assert_close(given, expected)
    wanted, gradients = (torch.autograd.grad(y.sum() + last.sum(), inputs) for y, last in (expected, given))
    torch.testing.assert_close(gradients, wanted)
