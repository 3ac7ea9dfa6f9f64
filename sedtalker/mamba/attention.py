"""Causal attention over a window, with grouped queries, rotary positions and a key-value cache; linear cost."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.mamba import ROTARY_BASE


class AttentionState(NamedTuple):
    """The key-value cache of the last `window` frames; places before the first frame are masked."""

    keys: Tensor  # (batch, kv_heads, window, d), before the rotary embedding
    values: Tensor  # (batch, kv_heads, window, d)
    valid: int  # number of frames in the cache, at its right


class WindowedAttention(nn.Module):
    """Each frame attends to itself and the `window - 1` frames before: (batch, T, width) -> (batch, T, width)."""

    def __init__(
        self, width: int, heads: int = 4, kv_heads: int = 2, window: int = 50, rotary: str = "plain", rank: int = 4
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.window = heads, kv_heads, window
        self.size = width // heads
        self.q_proj = nn.Linear(width, heads * self.size, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.size, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.size, bias=False)
        self.o_proj = nn.Linear(heads * self.size, width, bias=False)
        self.rotary = RotaryPositions(kv_heads, self.size, rank if rotary == "low-rank" else 0)

    def forward(self, x: Tensor, state: AttentionState | None = None) -> tuple[Tensor, AttentionState]:
        """y (batch, T, width), and the state after the last frame.

        Queries are taken in blocks of up to `window` frames; a block sees its own keys and the `window` before it.
        """
        q = self.q_proj(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # (batch, heads, T, d)
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.size)).transpose(1, 2)  # (batch, kv_heads, T, d)
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.size)).transpose(1, 2)
        state = state or self._empty_state(k)
        k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        mixed = self._attend(q, k, v, state.valid)  # (batch, heads, T, d)
        y = self.o_proj(mixed.transpose(1, 2).flatten(2))
        valid = min(self.window, state.valid + x.shape[1])
        return y, AttentionState(k[:, :, -self.window :], v[:, :, -self.window :], valid)

    def _empty_state(self, like: Tensor) -> AttentionState:
        empty = like.new_zeros(like.shape[0], self.kv_heads, self.window, self.size)
        return AttentionState(empty, empty, 0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, valid: int) -> Tensor:
        """Queries (batch, heads, T, d) over keys and values (batch, kv_heads, window + T, d)."""
        batch, _, frames, _ = q.shape
        block = min(self.window, frames)
        count = -(-frames // block)
        padding = (0, 0, 0, count * block - frames)
        q = F.pad(q, padding).unflatten(2, (count, block))  # (batch, heads, count, block, d)
        q = q.unflatten(1, (self.kv_heads, -1)).permute(0, 3, 1, 2, 4, 5)  # (batch, count, kv_heads, group, block, d)
        k, v = (F.pad(t, padding).unfold(2, self.window + block, block) for t in (k, v))
        k, v = (t.permute(0, 2, 1, 4, 3)[:, :, :, None] for t in (k, v))  # (batch, count, kv_heads, 1, reach, d)
        q = self.rotary(q, first=self.window)
        k = self.rotary(k, first=0)
        scores = q @ k.transpose(-1, -2) * self.size**-0.5
        hidden = _hidden_keys(self.window, count, block, valid, q.device)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        mixed = weights.to(v.dtype) @ v  # (batch, count, kv_heads, group, block, d)
        return mixed.permute(0, 2, 3, 1, 4, 5).reshape(batch, self.heads, count * block, self.size)[:, :, :frames]


@lru_cache(maxsize=64)
def _hidden_keys(window: int, count: int, block: int, valid: int, device: torch.device) -> Tensor:
    """(count, 1, 1, block, window + block): the keys that each query of each block does not attend to."""
    with torch.inference_mode(False):  # training may read it too
        query = torch.arange(block, device=device)[:, None] + window
        key = torch.arange(window + block, device=device)
        near = (key <= query) & (key > query - window)  # (block, reach)
        position = torch.arange(count, device=device)[:, None] * block + key  # in the row of all keys
        present = position >= window - valid  # (count, reach)
        return ~(near & present[:, None])[:, None, None]


@lru_cache(maxsize=64)
def _plain_rotation(
    size: int, first: int, frames: int, kind: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine (frames, size / 2) of the angles at the positions first, first + 1, ..."""
    with torch.inference_mode(False):
        position = torch.arange(first, first + frames, device=device)[:, None]
        angle = (position * (ROTARY_BASE ** -(torch.arange(0, size, 2, device=device) / size))).to(kind)
        return angle.cos(), angle.sin()


class RotaryPositions(nn.Module):
    """Rotary position embedding (Su et al. 2021).

    With rank > 0 the frequencies of each head are multiplied by exp(a learned low-rank correction), zero before
    training. Only differences of positions matter, so that the positions of a block can start anywhere.
    """

    def __init__(self, heads: int, size: int, rank: int = 0) -> None:
        super().__init__()
        self.plain: Tensor  # (d / 2,)
        self.register_buffer("plain", ROTARY_BASE ** -(torch.arange(0, size, 2) / size), persistent=False)
        self.heads_factor = nn.Parameter(torch.zeros(heads, rank)) if rank else None
        self.pairs_factor = nn.Parameter(torch.randn(rank, size // 2) * rank**-0.5) if rank else None

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Rotate x (batch, count, heads, group, T, d) at the positions first, first + 1, ..."""
        if self.heads_factor is None or self.pairs_factor is None:
            return _rotate(x, *_plain_rotation(x.shape[-1], first, x.shape[-2], x.dtype, x.device))
        frequency = self.plain * torch.exp(self.heads_factor @ self.pairs_factor)  # (heads, d / 2)
        position = torch.arange(first, first + x.shape[-2], device=x.device)
        angle = (position[:, None] * frequency[:, None, None, :].float()).to(x.dtype)  # (heads, 1, T, d / 2)
        return _rotate(x, angle.cos(), angle.sin())


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the pairs of halves of x (..., T, d)."""
    even, odd = x.chunk(2, dim=-1)
    return torch.cat([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
