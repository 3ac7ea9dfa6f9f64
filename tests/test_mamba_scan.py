"""The fast scan against the formula: values, states and gradients over shapes, lengths and types."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sedtalker.mamba.scan import fading_state, scan_backend, selective_scan, selective_scan_reference


def scan_inputs(
    batch: int, steps: int, channels: int, states: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    """u, delta, A, B, C, D and a state, at the sizes that a trained block has."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = [
        normal(batch, steps, channels),
        F.softplus(normal(batch, steps, channels) - 2),
        -torch.exp(normal(channels, states)),
        normal(batch, steps, states),
        normal(batch, steps, states),
        normal(channels),
        normal(batch, channels, states),
    ]
    return [value.to(dtype) for value in values]


def gradients(scan, inputs: list[Tensor]) -> list[Tensor]:
    """Of a sum over outputs and last state with unequal factors, for every input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    y, last = scan(*leaves)
    factor = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    loss = (factor * y).sum() + (last * torch.linspace(-1, 1, last.numel()).view_as(last)).sum()
    return list(torch.autograd.grad(loss, leaves))


def test_one_channel_follows_the_recurrence_written_by_hand() -> None:
    u, delta, a, b, c, d = [2.0, -1.0, 0.5], [0.1, 0.7, 0.3], -1.5, [1.0, 0.5, -2.0], [0.3, 1.0, 2.0], 0.25
    h, expected = 0.0, []
    for t in range(3):
        h = math.exp(delta[t] * a) * h + delta[t] * b[t] * u[t]
        expected.append(c[t] * h + d * u[t])

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values)[None, :, None]

    for scan in (selective_scan, selective_scan_reference):
        y, last = scan(column(u), column(delta), torch.tensor([[a]]), column(b), column(c), torch.tensor([d]))
        assert y[0, :, 0].tolist() == pytest.approx(expected, rel=1e-5)
        assert last.item() == pytest.approx(h, rel=1e-5)


@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 40),  # under, at and over the chunks of the backward pass
    channels=st.integers(1, 150),  # under and over a block of lanes
    states=st.integers(1, 17),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_fused_equals_the_formula(batch: int, steps: int, channels: int, states: int, seed: int) -> None:
    inputs = scan_inputs(batch, steps, channels, states, seed=seed)
    exact, exact_last = selective_scan_reference(*(x.double() for x in inputs))
    fast, fast_last = selective_scan(*inputs)
    torch.testing.assert_close(fast.double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast_last.double(), exact_last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 16, 64, 16), (1, 50, 130, 8), (3, 33, 7, 5)])
def test_gradients_equal_those_of_the_formula(shape: tuple[int, ...]) -> None:
    inputs = scan_inputs(*shape)
    exact = gradients(selective_scan_reference, [x.double() for x in inputs])
    for got, wanted in zip(gradients(selective_scan, inputs), exact, strict=True):
        scale = wanted.abs().max().clamp(min=1)
        torch.testing.assert_close(got.double() / scale, wanted / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    inputs = scan_inputs(1, 20, 33, 4, dtype)
    fast, last = selective_scan(*inputs)
    exact, _ = selective_scan_reference(*inputs)
    assert fast.dtype == dtype and last.dtype == torch.float32
    torch.testing.assert_close(fast, exact)


def test_chunks_with_carried_state_equal_the_whole() -> None:
    u, delta, A, B, C, D, state = scan_inputs(2, 100, 40, 16)
    whole, last = selective_scan(u, delta, A, B, C, D, state)
    parts, carried = [], state
    for piece in torch.arange(100).split([1, 30, 7, 62]):
        y, carried = selective_scan(u[:, piece], delta[:, piece], A, B[:, piece], C[:, piece], D, carried)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=0)
    torch.testing.assert_close(carried, last, rtol=0, atol=0)


def test_strong_decay_neither_overflows_nor_lingers() -> None:
    u, delta, A, B, C, D, state = scan_inputs(1, 5, 3, 2)
    y, last = selective_scan(u, delta * 0 + 100.0, A * 0 - 50.0, B, C, D, state * 1e6)
    exact, exact_last = selective_scan_reference(u, delta * 0 + 100.0, A * 0 - 50.0, B, C, D, state * 1e6)
    torch.testing.assert_close(y, exact)
    torch.testing.assert_close(last, exact_last)


def test_a_state_may_be_added_to_a_scan_from_zero() -> None:
    u, delta, A, B, C, D, state = scan_inputs(2, 30, 5, 3)
    wanted, wanted_last = selective_scan_reference(u, delta, A, B, C, D, state)
    y, last = selective_scan_reference(u, delta, A, B, C, D)
    added, remaining = fading_state(delta, A, C, state)
    torch.testing.assert_close(y + added, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last + remaining, wanted_last, rtol=1e-4, atol=1e-4)


def test_the_choice_is_explained() -> None:
    assert scan_backend(torch.zeros(1)).name == "fused"
    exact = scan_backend(torch.zeros(1, dtype=torch.float64))
    assert exact.name == "reference" and "float64" in exact.reason
