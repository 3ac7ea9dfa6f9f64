"""The selective scan in plain PyTorch, parallel over chunks of time: for devices without a compiled kernel.

A sequence of T steps is cut into K chunks of L steps, L about sqrt(T). Each of the L steps runs in all chunks at once,
then the chunks' last states are passed on one after another, so a scan takes 2 L + K short loops instead of T. Every
factor is exp of a sum of delta A <= 0, so nothing overflows. Only chunk boundaries are saved for the backward pass; it
computes the states between them again, at most `BACKWARD_ELEMENTS` at a time, and nothing of size (batch, T, E, N) is
built. Mamba's chunked form for scalar decay (Dao and Gu 2024, section 6) does not apply: here each state has its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sedtalker.mamba.scan import without_autocast

BACKWARD_ELEMENTS = 2**26  # states that the backward pass holds at once, 256 MB in float32


class _Chunks(NamedTuple):
    """The inputs by step within the chunk, L first; batch and K are one axis, batch the slower: R = batch K."""

    u: Tensor  # (L, R, E)
    delta: Tensor  # (L, R, E)
    B: Tensor  # (L, R, N)
    C: Tensor  # (L, R, N)


def chunked_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan; arguments and results as `sedtalker.mamba.scan.selective_scan`. Computes in float32 or float64."""
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    with without_autocast(u):
        start = u.new_zeros(u.shape[0], *A.shape, dtype=dtype) if state is None else state.to(dtype)
        wide = [x.to(dtype) for x in (u, delta, A, B, C)]
        y, last = _ChunkedScan.apply(*wide, start)
        return (y + D.to(dtype) * wide[0]).to(u.dtype), last


def _into_chunks(x: Tensor, length: int) -> Tensor:
    """(batch, T, n) -> (L, batch K, n), zeros after T: a step of size zero keeps the state."""
    padded = F.pad(x, (0, 0, 0, -x.shape[1] % length))
    return padded.unflatten(1, (-1, length)).permute(2, 0, 1, 3).flatten(1, 2).contiguous()


def _out_of_chunks(x: Tensor, batch: int, steps: int) -> Tensor:
    """(L, batch K, n) -> (batch, T, n), the inverse of `_into_chunks`."""
    return x.unflatten(1, (batch, -1)).permute(1, 2, 0, 3).flatten(1, 2)[:, :steps]


def _advance(h: Tensor, chunks: _Chunks, step: int, A: Tensor) -> Tensor:
    """The states h (R, E, N) after one step, in place; returns the step's decay (R, E, N)."""
    decay = torch.exp(chunks.delta[step, :, :, None] * A)
    h.mul_(decay).add_((chunks.delta[step] * chunks.u[step])[:, :, None] * chunks.B[step, :, None, :])
    return decay


def _chain(first: Tensor, ends: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """States before each chunk (batch, K, E, N), and after the last (batch, E, N).

    Args:
        first: (batch, E, N) before the first chunk.
        ends: (batch, K, E, N) after each chunk that starts at zero.
        decay: (batch, K, E, N) of a state over each whole chunk.
    """
    starts, h = [], first
    for k in range(ends.shape[1]):
        starts.append(h)
        h = torch.addcmul(ends[:, k], decay[:, k], h)
    return torch.stack(starts, 1), h


class _ChunkedScan(torch.autograd.Function):
    """y (batch, T, E) without the direct path D u, and the last state (batch, E, N)."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, steps = u.shape[:2]
        length = max(1, math.isqrt(steps))
        chunks = _Chunks(*(_into_chunks(x, length) for x in (u, delta, B, C)))
        rows = chunks.u.shape[1]
        h = u.new_zeros(rows, *A.shape)
        for step in range(length):
            _advance(h, chunks, step, A)
        decay = torch.exp(chunks.delta.sum(0)[:, :, None] * A).unflatten(0, (batch, -1))
        starts, last = _chain(state, h.unflatten(0, (batch, -1)), decay)
        h, y = starts.flatten(0, 1).clone(), torch.empty_like(chunks.u)
        for step in range(length):
            _advance(h, chunks, step, A)
            torch.matmul(h, chunks.C[step, :, :, None], out=y[step, :, :, None])
        ctx.save_for_backward(*chunks, A, starts, decay)
        ctx.steps = steps
        return _out_of_chunks(y, batch, steps), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        *inputs, A, starts, decay = ctx.saved_tensors
        chunks = _Chunks(*inputs)
        batch, number = starts.shape[:2]
        length = len(chunks.u)
        dy_chunks = _into_chunks(dy, length)  # (L, R, E)
        # the gradient at each chunk's end: within the chunks from zero, then from chunk to chunk backward in time
        g = torch.zeros_like(starts).flatten(0, 1)  # (R, E, N)
        for step in reversed(range(length)):
            g.addcmul_(dy_chunks[step, :, :, None], chunks.C[step, :, None, :])
            g.mul_(torch.exp(chunks.delta[step, :, :, None] * A))
        ends, dstate = _chain(dlast, g.unflatten(0, (batch, -1)).flip(1), decay.flip(1))
        ends, starts = ends.flip(1).flatten(0, 1), starts.flatten(0, 1)
        du, ddelta = torch.empty_like(chunks.u), torch.empty_like(chunks.delta)
        dB, dC, dA = torch.empty_like(chunks.B), torch.empty_like(chunks.C), torch.zeros_like(A)
        rows = max(1, BACKWARD_ELEMENTS // (length * A.numel()))
        for part in torch.arange(batch * number).split(rows):
            piece = slice(int(part[0]), int(part[-1]) + 1)
            gradients = _backward_rows(
                _Chunks(*(x[:, piece] for x in chunks)), A, starts[piece], ends[piece], dy_chunks[:, piece]
            )
            du[:, piece], ddelta[:, piece], dB[:, piece], dC[:, piece] = gradients[:4]
            dA += gradients[4]
        back = [_out_of_chunks(x, batch, ctx.steps) for x in (du, ddelta, dB, dC)]
        return back[0], back[1], dA, back[2], back[3], dstate


def _backward_rows(chunks: _Chunks, A: Tensor, start: Tensor, end: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """Gradients of u, delta, B, C (each as in `chunks`) and of A (E, N) for some chunks.

    Args:
        start: (R, E, N) states before the chunks.
        end: (R, E, N) gradients of the states after them.
        dy: (L, R, E) gradients of the outputs.
    """
    length = len(chunks.u)
    states = start.new_empty(length + 1, *start.shape)
    states[0] = start
    for step in range(length):
        states[step + 1] = states[step]
        _advance(states[step + 1], chunks, step, A)
    du, ddelta = torch.empty_like(dy), torch.empty_like(dy)
    dB, dC, dA = torch.empty_like(chunks.B), torch.empty_like(chunks.C), torch.zeros_like(A)
    g = end.clone()
    for step in reversed(range(length)):
        u, delta = chunks.u[step], chunks.delta[step]
        torch.matmul(dy[step, :, None, :], states[step + 1], out=dC[step, :, None, :])
        g.addcmul_(dy[step, :, :, None], chunks.C[step, :, None, :])  # the gradient of the state after this step
        torch.matmul((delta * u)[:, None, :], g, out=dB[step, :, None, :])
        entering = torch.matmul(g, chunks.B[step, :, :, None])[..., 0]  # (R, E), of delta u
        g.mul_(torch.exp(delta[:, :, None] * A))  # now of the state before this step
        exponent = g * states[step]  # (R, E, N), of delta A
        torch.addcmul((exponent * A).sum(-1), entering, u, out=ddelta[step])
        torch.mul(entering, delta, out=du[step])
        dA += torch.einsum("ren,re->en", exponent, delta)
    return du, ddelta, dB, dC, dA
