"""The Mamba block (Gu and Dao 2023) with carried state; parameters are named and shaped as in `mamba_ssm`.

Mamba-2's block (one decay for each head, Dao and Gu 2024) was tested instead: after 400 equal steps of the default
talker the lip error of unseen speakers was 1.252 mm, and 1.261 mm with this block; with 64 states 1.218 and 1.242 mm.
With one seed each the difference is too small for a second block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.mamba.scan import selective_scan

STEP_RANGE = (1e-3, 1e-1)  # step sizes at the start, log-uniform
STEP_FLOOR = 1e-4
SHORT_CHUNK = 16  # frames up to which sums of products are faster than torch's convolution


class MambaState(NamedTuple):
    """The state of a block between two chunks."""

    inputs: Tensor  # (batch, conv - 1, E), the last inputs of the convolution
    scan: Tensor  # (batch, E, N)


class MambaBlock(nn.Module):
    """Causal convolution and selective scan, gated: x (batch, T, width) -> y (batch, T, width)."""

    def __init__(self, width: int, states: int = 16, conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.inner, self.states = expand * width, states
        self.rank = math.ceil(width / 16)  # of the step sizes
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        self.conv1d = nn.Conv1d(self.inner, self.inner, conv, groups=self.inner)
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.rank, self.inner)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)
        self._init_steps()

    def _init_steps(self) -> None:
        """Initialise softplus(dt_proj.bias) log-uniformly in STEP_RANGE."""
        low, high = map(math.log, STEP_RANGE)
        step = torch.exp(torch.rand(self.inner) * (high - low) + low).clamp(min=STEP_FLOOR)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """y (batch, T, width), and the state after the last step; a state of None starts the sequence."""
        u, gate = self.in_proj(x).chunk(2, dim=-1)  # (batch, T, E) each
        u, inputs = self._convolve(u, None if state is None else state.inputs)
        step, B, C = self.x_proj(u).split([self.rank, self.states, self.states], dim=-1)
        delta = F.softplus(self.dt_proj(step))
        A = -torch.exp(self.A_log.float())
        y, scan = selective_scan(u, delta, A, B, C, self.D, None if state is None else state.scan)
        return self.out_proj(y * F.silu(gate)), MambaState(inputs, scan)

    def _convolve(self, u: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The causal convolution over time of u (batch, T, E), and the inputs that the next chunk needs."""
        reach = self.conv1d.kernel_size[0] - 1
        if before is None:
            before = u.new_zeros(u.shape[0], reach, self.inner)
        inputs = torch.cat([before, u], dim=1)
        if u.shape[1] <= SHORT_CHUNK:
            assert self.conv1d.bias is not None
            mixed = (inputs.unfold(1, reach + 1, 1) * self.conv1d.weight[:, 0]).sum(-1) + self.conv1d.bias
        else:
            mixed = self.conv1d(inputs.transpose(1, 2)).transpose(1, 2)
        return F.silu(mixed), inputs[:, inputs.shape[1] - reach :]
