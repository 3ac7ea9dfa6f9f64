"""Cost of the scan and of attention as ratios to the peers' methods, measured together: pytest tests/bench -n 0 -s

CPU seconds of one thread, the best of a few runs. Times are printed, never asserted; the results of both methods
must be equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sedtalker.mamba.attention import WindowedAttention
from sedtalker.mamba.scan import selective_scan, selective_scan_reference
from sedtalker.mamba.scan_chunked import chunked_scan


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cpu_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Least CPU time of a run, after one that compiles and warms up."""
    run()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return min(spent)


def scan_inputs(steps: int) -> list[Tensor]:
    torch.manual_seed(0)
    channels, states = 1024, 16
    return [
        torch.randn(1, steps, channels),
        F.softplus(torch.randn(1, steps, channels) - 3),
        -torch.arange(1.0, states + 1).repeat(channels, 1),
        torch.randn(1, steps, states),
        torch.randn(1, steps, states),
        torch.ones(channels),
    ]


def test_scan_forward() -> None:
    inputs = scan_inputs(900)
    with torch.inference_mode():
        slow = cpu_seconds(lambda: selective_scan_reference(*inputs), 3)
        fast = cpu_seconds(lambda: selective_scan(*inputs), 10)
        plain = cpu_seconds(lambda: chunked_scan(*inputs), 3)
    print(f"\nscan, 900 frames, 1024 channels, 16 states: {1e3 * fast:.1f} ms, {slow / fast:.1f} x the reference")
    print(f"in plain PyTorch, in chunks: {1e3 * plain:.1f} ms, {slow / plain:.1f} x the reference")
    torch.testing.assert_close(selective_scan(*inputs), selective_scan_reference(*inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [300, pytest.param(900, marks=pytest.mark.nightly)])  # 900: a minute
def test_scan_forward_and_backward(steps: int) -> None:
    inputs = [x.requires_grad_() for x in scan_inputs(steps)]

    def both(scan: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(scan(*inputs)[0].sum(), inputs)

    start = time.process_time()
    expected = both(selective_scan_reference)()  # once: it needs many times as long as the others
    slow = time.process_time() - start
    fast = cpu_seconds(both(selective_scan), 10)
    plain = cpu_seconds(both(chunked_scan), 3)
    print(f"\nscan and its gradients, {steps} frames: {1e3 * fast:.1f} ms, {slow / fast:.0f} x the reference")
    print(f"in plain PyTorch, in chunks: {1e3 * plain:.1f} ms, {slow / plain:.0f} x the reference")
    torch.testing.assert_close(both(selective_scan)(), expected, atol=1e-3, rtol=1e-3)  # sums over the frames


def test_windowed_attention_against_full() -> None:
    block, x = WindowedAttention(128).eval(), torch.randn(1, 6000, 128)

    def full() -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, 32)).transpose(1, 2) for p in (block.q_proj, block.k_proj, block.v_proj))
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        return block.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    with torch.inference_mode():
        ratio = cpu_seconds(full, 3) / cpu_seconds(lambda: block(x), 3)
        assert full().shape == block(x)[0].shape
    print(f"\nattention over 1 s against all of 120 s: {ratio:.1f} x cheaper")
