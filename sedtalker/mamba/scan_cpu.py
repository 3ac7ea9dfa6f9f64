"""The selective scan on a CPU in one pass over memory, forward and backward (numba).

The vector lanes hold neighbouring channels, a block at a time, whose states stay in the first-level cache during the
loop over time. Nothing of size (time, channels, states) is stored: the backward pass has a state of every `CHUNK` steps
and computes the others again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.kernels import LOG2_E, compiler, exp2

Array = NDArray[np.float32]

LANES = 128  # channels a block: enough to fill the vector units, few enough for the first-level cache
CHUNK = 16  # steps between two saved states

compiled = compiler(nogil=True, error_model="numpy", fastmath=True)


@compiled
def _load(block: Array, rows: Array, first: int) -> None:
    """block (N, width) = rows (N, E) from column `first` on; loops compile ten times as fast as slices."""
    for n in range(block.shape[0]):
        for i in range(block.shape[1]):
            block[n, i] = rows[n, first + i]


@compiled
def _store(block: Array, rows: Array, first: int) -> None:
    """rows (N, E) from column `first` on = block (N, width)."""
    for n in range(block.shape[0]):
        for i in range(block.shape[1]):
            rows[n, first + i] = block[n, i]


@compiled
def _forward(
    u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array, state: Array, y: Array, saved: Array
) -> None:
    """Fill y, advance `state` (batch, N, E), and fill `saved` (batch, chunks, N, E) with states between chunks.

    A is (N, E) and already multiplied by log2(e).
    """
    batch, steps, channels = u.shape
    states = A.shape[0]
    for b in range(batch):
        for first in range(0, channels, LANES):
            width = min(LANES, channels - first)
            rate = np.empty((states, width), np.float32)
            h = np.empty((states, width), np.float32)
            _load(rate, A, first)
            _load(h, state[b], first)
            step = np.empty(width, np.float32)
            entering = np.empty(width, np.float32)
            read = np.empty(width, np.float32)
            for t in range(steps):
                if t % CHUNK == 0 and saved.shape[1] > 0:
                    _store(h, saved[b, t // CHUNK], first)
                for i in range(width):
                    step[i] = delta[b, t, first + i]
                    entering[i] = step[i] * u[b, t, first + i]
                    read[i] = D[first + i] * u[b, t, first + i]
                for n in range(states):
                    into, out = B[b, t, n], C[b, t, n]
                    for i in range(width):
                        h[n, i] = exp2(step[i] * rate[n, i]) * h[n, i] + entering[i] * into
                        read[i] += out * h[n, i]
                for i in range(width):
                    y[b, t, first + i] = read[i]
            _store(h, state[b], first)


@compiled
def _recompute(u: Array, delta: Array, B: Array, rate: Array, first: int, start: int, h: Array, decay: Array) -> None:
    """Fill the states h (k + 1, N, width) after the first, and their decay (k, N, width), of the steps from `start` on.

    u and delta are (time, E), of which the columns from `first` on are read, B (time, N) and rate (N, width).
    """
    width = h.shape[2]
    step = np.empty(width, np.float32)
    entering = np.empty(width, np.float32)
    for k in range(min(decay.shape[0], u.shape[0] - start)):
        t = start + k
        for i in range(width):
            step[i] = delta[t, first + i]
            entering[i] = step[i] * u[t, first + i]
        for n in range(h.shape[1]):
            into = B[t, n]
            for i in range(width):
                decay[k, n, i] = exp2(step[i] * rate[n, i])
                h[k + 1, n, i] = decay[k, n, i] * h[k, n, i] + entering[i] * into


@compiled
def _reverse(
    u: Array, delta: Array, B: Array, C: Array, D: Array, rate: Array, first: int, start: int, h: Array, decay: Array,
    dy: Array, g: Array, change: Array, du: Array, ddelta: Array, dB: Array, dC: Array,
) -> None:  # fmt: skip
    """Gradients of the steps of `_recompute`, the last one first.

    Fill du and ddelta (time, E) and add to dB and dC (time, N). g (N, width), the gradient of the state, is carried
    back, and `change` (N, width) grows by the gradient of A.
    """
    width = h.shape[2]
    by_entering = np.empty(width, np.float32)
    by_step = np.empty(width, np.float32)
    step = np.empty(width, np.float32)
    entering = np.empty(width, np.float32)
    came = np.empty(width, np.float32)
    for k in range(min(decay.shape[0], u.shape[0] - start) - 1, -1, -1):
        t = start + k
        for i in range(width):
            step[i] = delta[t, first + i]
            entering[i] = step[i] * u[t, first + i]
            came[i] = dy[t, first + i]
            by_entering[i] = np.float32(0.0)
            by_step[i] = np.float32(0.0)
        for n in range(h.shape[1]):
            into, out = B[t, n], C[t, n]
            read = np.float32(0.0)
            entered = np.float32(0.0)
            for i in range(width):
                total = g[n, i] + out * came[i]
                read += came[i] * h[k + 1, n, i]
                entered += total * entering[i]
                by_entering[i] += total * into
                before = total * decay[k, n, i]
                faded = before * h[k, n, i]
                by_step[i] += faded * rate[n, i]
                change[n, i] += faded * step[i]
                g[n, i] = before
            dC[t, n] += read
            dB[t, n] += entered
        for i in range(width):
            x = u[t, first + i]
            du[t, first + i] = D[first + i] * came[i] + step[i] * by_entering[i]
            ddelta[t, first + i] = by_step[i] * np.float32(1 / LOG2_E) + x * by_entering[i]


@compiled
def _backward(
    u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array, saved: Array, dy: Array, dstate: Array,
    du: Array, ddelta: Array, dA: Array, dB: Array, dC: Array,
) -> None:  # fmt: skip
    """Fill du, ddelta and add to dA, dB, dC; `dstate` (batch, N, E) is carried from the end to the start.

    A is (N, E) and already multiplied by log2(e); dA is the gradient of the unmultiplied one.
    """
    states = A.shape[0]
    for b in range(u.shape[0]):
        for first in range(0, u.shape[2], LANES):
            width = min(LANES, u.shape[2] - first)
            rate = np.empty((states, width), np.float32)
            g = np.empty((states, width), np.float32)
            _load(rate, A, first)
            _load(g, dstate[b], first)
            change = np.zeros((states, width), np.float32)
            h = np.empty((CHUNK + 1, states, width), np.float32)
            decay = np.empty((CHUNK, states, width), np.float32)
            for chunk in range(saved.shape[1] - 1, -1, -1):
                start = chunk * CHUNK
                _load(h[0], saved[b, chunk], first)
                _recompute(u[b], delta[b], B[b], rate, first, start, h, decay)
                _reverse(
                    u[b], delta[b], B[b], C[b], D, rate, first, start, h, decay, dy[b], g, change, du[b], ddelta[b],
                    dB[b], dC[b],
                )  # fmt: skip
            _store(g, dstate[b], first)
            for n in range(states):
                for i in range(width):
                    dA[n, first + i] += change[n, i]


class _FusedScan(torch.autograd.Function):
    """Arguments and results of `fused_scan`, all float32 and contiguous; states are (batch, N, E)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, D, state = inputs
        scaled = (A.t() * LOG2_E).contiguous()
        last = state.clone()
        y = torch.empty_like(u)
        chunks = -(-u.shape[1] // CHUNK) if any(ctx.needs_input_grad) else 0
        saved = u.new_empty(u.shape[0], chunks, *scaled.shape)
        _forward(*_arrays(u, delta, scaled, B, C, D, last, y, saved))
        ctx.save_for_backward(u, delta, scaled, B, C, D, saved)
        return y, last

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        u, delta, scaled, B, C, D, saved = ctx.saved_tensors
        dy, dstate = gradients[0].contiguous(), gradients[1].clone(memory_format=torch.contiguous_format)
        du, ddelta, dA, dB, dC = (torch.zeros_like(x) for x in (u, delta, scaled, B, C))
        _backward(*_arrays(u, delta, scaled, B, C, D, saved, dy, dstate, du, ddelta, dA, dB, dC))
        return du, ddelta, dA.t(), dB, dC, (dy * u).sum((0, 1)), dstate


def fused_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`selective_scan` for CPU tensors, computed in float32; arguments, results and gradients as there."""
    if state is None:
        state = u.new_zeros(u.shape[0], *A.shape)
    tensors = (x.float().contiguous() for x in (u, delta, A, B, C, D, state.transpose(1, 2)))
    y, last = _FusedScan.apply(*tensors)
    return y.to(u.dtype), last.transpose(1, 2)


def _arrays(*tensors: Tensor) -> list[Array]:
    return [tensor.detach().numpy() for tensor in tensors]
