"""The fast scan against the formula: values, states and gradients over shapes, lengths and types."""

from __future__ import annotations

import math
import re
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sedtalker.cli import doctor
from sedtalker.mamba import scan as scans
from sedtalker.mamba.block import MambaBlock
from sedtalker.mamba.scan import scan_backend, selective_scan, selective_scan_reference


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
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(carried, last, rtol=1e-5, atol=1e-5)


def test_strong_decay_does_not_overflow() -> None:
    u, delta, A, B, C, D, state = scan_inputs(1, 5, 3, 2)
    y, last = selective_scan(u, delta * 0 + 100.0, A * 0 - 50.0, B, C, D, state * 1e6)
    exact, exact_last = selective_scan_reference(u, delta * 0 + 100.0, A * 0 - 50.0, B, C, D, state * 1e6)
    torch.testing.assert_close(y, exact)
    torch.testing.assert_close(last, exact_last)


def test_the_backend_has_a_reason() -> None:
    assert scan_backend(torch.zeros(1)).name == "fused"
    exact = scan_backend(torch.zeros(1, dtype=torch.float64))
    assert exact.name == "chunked" and "float64" in exact.reason


def kernel_scan(u, delta, A, B, C, D=None, return_last_state=False):
    """mamba_ssm's `selective_scan_fn` with the checks of its compiled kernel (csrc/selective_scan.cpp), in Python."""
    kind, (batch, channels, steps), states = u.dtype, u.shape, A.shape[1]
    assert kind in (torch.float32, torch.float16, torch.bfloat16)
    assert delta.dtype == B.dtype == C.dtype == kind
    assert A.dtype == D.dtype == torch.float32
    assert states <= 256
    assert delta.shape == u.shape and A.shape == (channels, states) and D.shape == (channels,)
    assert B.shape == C.shape == (batch, states, steps)
    assert all(x.stride(-1) == 1 or x.shape[-1] == 1 for x in (u, delta, B, C, D))
    y, last = selective_scan_reference(
        *(x.transpose(1, 2) for x in (u, delta)), A, *(x.transpose(1, 2) for x in (B, C)), D
    )
    out = y.transpose(1, 2)
    if out.requires_grad:
        out.register_hook(lambda dout: _check(dout.dtype == kind))
    return (out, last.detach()) if return_last_state else out  # the kernel has no gradient of the last state


def _check(right: bool) -> None:
    assert right


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """All tensors claim to be on a CUDA device; call it with mamba_ssm's interface module, or None."""

    def install(interface: object) -> None:
        def version(name: str) -> str:
            if interface is None:
                raise PackageNotFoundError(name)
            return "2.3.3"

        monkeypatch.setattr(scans, "version", version)
        monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", interface)
        scans.mamba_ssm_kernel.cache_clear()

    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True), raising=False)
    yield install
    scans.mamba_ssm_kernel.cache_clear()


COMPILED = SimpleNamespace(selective_scan_fn=kernel_scan, selective_scan_cuda=object())
UNCOMPILED = SimpleNamespace(selective_scan_fn=kernel_scan, selective_scan_cuda=None)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("carried", [True, False])
def test_the_kernel_gets_valid_types_under_autocast(kind: torch.dtype, carried: bool, installed) -> None:
    installed(COMPILED)
    u, delta, A, B, C, D, state = scan_inputs(2, 20, 6, 4)
    inputs = u.to(kind), delta, A, B.to(kind), C.to(kind), D.to(kind)  # autocast leaves softplus in float32
    before = state if carried else None
    assert scan_backend(inputs[0], carried=carried).name == ("chunked" if carried else "mamba_ssm")
    y, last = selective_scan(*inputs, before)
    exact, exact_last = selective_scan_reference(u, delta, A, B, C, D, before)
    bounds = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.1}
    assert y.dtype == kind
    torch.testing.assert_close(y.float(), exact, atol=bounds[kind], rtol=bounds[kind])
    torch.testing.assert_close(last, exact_last, atol=bounds[kind], rtol=bounds[kind])


def test_a_block_trains_through_the_kernel_under_autocast(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(COMPILED)
    softplus = F.softplus
    monkeypatch.setattr(F, "softplus", lambda x: softplus(x.float()))  # as CUDA's autocast does, and the CPU's not
    torch.manual_seed(0)
    block, x = MambaBlock(16), torch.randn(2, 12, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = block(x)
        y.float().square().sum().backward()
        block(x, state)  # the next chunk
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in block.parameters())


def test_unsupported_inputs_use_the_chunked_scan(installed) -> None:
    installed(COMPILED)
    assert "float64" in scan_backend(torch.zeros(1, dtype=torch.float64)).reason
    inputs = scan_inputs(1, 3, 2, 257)
    backend = scan_backend(inputs[0], 257)
    assert backend.name == "chunked" and "256 states" in backend.reason
    torch.testing.assert_close(selective_scan(*inputs)[0], selective_scan_reference(*inputs)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("interface", "reason"),
    [(None, "is not installed"), (UNCOMPILED, "without its compiled kernel.*MAMBA_KEEP_CUDA_BUILD")],
)
def test_without_a_kernel_the_chunked_scan_runs_and_doctor_shows_the_reason(
    interface: object, reason: str, installed
) -> None:
    installed(interface)
    inputs = scan_inputs(1, 5, 3, 2)
    backend = scan_backend(inputs[0])
    assert backend.name == "chunked" and re.search(reason, backend.reason)
    torch.testing.assert_close(selective_scan(*inputs), selective_scan_reference(*inputs))
    state, name, words = doctor._mamba()
    assert (state, name) == (doctor.ABSENT, "mamba-ssm") and re.search(reason, words)


def test_a_kernel_that_does_not_import_is_named(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(COMPILED)

    def broken(name: str) -> None:
        raise OSError("undefined symbol:\n_ZN3c10")

    monkeypatch.setattr(scans.importlib, "import_module", broken)
    backend = scan_backend(torch.zeros(1))
    assert backend.name == "chunked" and "does not import (undefined symbol: _ZN3c10)" in backend.reason


def test_doctor_shows_the_kernel_in_use(installed) -> None:
    installed(COMPILED)
    assert doctor._mamba()[0] == doctor.GOOD


def test_autocast_does_not_lower_the_precision_of_the_reference() -> None:
    inputs = scan_inputs(1, 20, 6, 4)
    exact, _ = selective_scan_reference(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = selective_scan_reference(*inputs)
    torch.testing.assert_close(y, exact, rtol=1e-6, atol=1e-6)
