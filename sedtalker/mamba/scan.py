"""The selective scan of Mamba (Gu and Dao 2023): the reference, and the choice of a fast implementation.

For every batch row and channel e with N states, over time t:

    h[t] = exp(delta[t, e] A[e]) h[t - 1] + delta[t, e] B[t] u[t, e]        (N,)
    y[t, e] = C[t] . h[t] + D[e] u[t, e]

`selective_scan` uses the implementation that `scan_backend` returns.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch
from torch import Tensor


class Backend(NamedTuple):
    """An implementation of the scan, and the reason for it."""

    name: str  # "mamba_ssm", "fused" or "chunked"
    reason: str


KERNEL_STATES = 256  # the most states a channel that mamba_ssm's kernel takes


class Kernel(NamedTuple):
    """`selective_scan_fn` of mamba_ssm, or None and the reason."""

    scan: Callable[..., tuple[Tensor, Tensor]] | None
    reason: str


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan by the fastest implementation that fits the tensors.

    Args:
        u: (batch, T, E) input.
        delta: (batch, T, E) positive step sizes.
        A: (E, N) negative decay rates.
        B: (batch, T, N) input matrix.
        C: (batch, T, N) output matrix.
        D: (E,) direct path.
        state: (batch, E, N) before the first step; None is zero.

    Returns:
        y (batch, T, E) in the type of `u` (autocast mixes types), and the state (batch, E, N) after the last step.
    """
    backend = scan_backend(u, A.shape[1], carried=state is not None).name
    if backend == "mamba_ssm":
        return _scan_mamba_ssm(u, delta, A, B, C, D)
    if backend == "fused":
        from sedtalker.mamba.scan_cpu import fused_scan

        return fused_scan(u, delta, A, B, C, D, state)
    from sedtalker.mamba.scan_chunked import chunked_scan

    return chunked_scan(u, delta, A, B, C, D, state)


def scan_backend(u: Tensor, states: int = 1, carried: bool = False) -> Backend:
    """The implementation that `selective_scan` uses.

    Args:
        u: the input; its device and type decide.
        states: number of states a channel (N).
        carried: whether the scan starts from a given state.
    """
    if u.is_cuda:
        if u.dtype == torch.float64:
            return Backend("chunked", "mamba_ssm's kernel takes float32, float16 and bfloat16, the input is float64")
        if states > KERNEL_STATES:
            return Backend("chunked", f"mamba_ssm's kernel takes at most {KERNEL_STATES} states, not {states}")
        kernel = mamba_ssm_kernel()
        if kernel.scan is not None and carried:
            return Backend("chunked", "mamba_ssm's kernel cannot start from a given state")
        return Backend(
            "chunked" if kernel.scan is None else "mamba_ssm", f"the input is on a CUDA device and {kernel.reason}"
        )
    if u.device.type != "cpu":
        return Backend("chunked", f"mamba_ssm has no kernel for {u.device.type} devices")
    if u.dtype == torch.float64:
        return Backend("chunked", "the fused kernel computes in float32, the input is float64")
    return Backend("fused", "the input is on the CPU")


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The formula, step by step; arguments and results as `selective_scan`. Slow, for tests."""
    kind = u.dtype
    u, delta, A, B, C, D = (x.double() if kind == torch.float64 else x.float() for x in (u, delta, A, B, C, D))
    decay = torch.exp(delta[..., None] * A)  # (batch, T, E, N)
    entering = delta[..., None] * B[:, :, None, :] * u[..., None]  # (batch, T, E, N)
    h = torch.zeros_like(decay[:, 0]) if state is None else state.to(decay.dtype)  # (batch, E, N)
    steps = []
    with without_autocast(u):
        for t in range(u.shape[1]):
            h = decay[:, t] * h + entering[:, t]
            steps.append(torch.einsum("ben,bn->be", h, C[:, t]))
    y = torch.stack(steps, dim=1) + D * u
    return y.to(kind), h


@lru_cache(maxsize=1)
def mamba_ssm_kernel() -> Kernel:
    """The CUDA kernel of mamba_ssm, if it is installed and works."""
    try:
        installed = version("mamba-ssm")
    except PackageNotFoundError:
        return Kernel(None, "mamba_ssm is not installed (extra: cuda)")
    name = f"mamba_ssm {installed}"
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # its imports raise errors of many types: no Triton driver, another torch
        return Kernel(None, f"{name} does not import ({' '.join(str(error).split())}). Install it for this torch")
    # since 2.3.2 the module imports without the compiled kernel, and raises when it is called
    if getattr(module, "selective_scan_cuda", None) is None:
        return Kernel(
            None,
            f"{name} is installed without its compiled kernel. "
            "Install it again: MAMBA_KEEP_CUDA_BUILD=TRUE pip install --force-reinstall --no-build-isolation mamba-ssm",
        )
    return Kernel(module.selective_scan_fn, f"{name} is installed with its compiled kernel")


def _scan_mamba_ssm(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of mamba_ssm, from a state of zero.

    The kernel needs channels before time and one type for u, delta, B and C; autocast gives `u` in a half type and
    `delta` in float32 (softplus). It computes in float32, and A and D must be float32.
    """
    kernel = mamba_ssm_kernel().scan
    assert kernel is not None
    arguments = [x.to(u.dtype).transpose(1, 2).contiguous() for x in (u, delta, B, C)]
    y, last = kernel(*arguments[:2], A.float(), *arguments[2:], D.float(), return_last_state=True)
    return y.transpose(1, 2), last


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """A context without autocast, which would compute products in a half type."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
