"""A causal network of the diarizer that takes a running estimate of the voice off its input.

States are standardised with the mean and deviation of an average voice. A step's projection W x becomes
(W x - g W m) s + b: m is the mean of the voice's states so far. The gates g depend on the seconds of evidence, at first
as n / (n + 5), and were trained with little and with much of it. s depends on the spread of the voice's states relative
to the average voice's. Causal convolutions, a forward recurrent layer and statistics of the past follow. Offline, a
backward recurrent layer and statistics of the future refine the result.

With `DiarizerConfig.blocks` the last states that the networks read come from blocks of the encoder that were tuned
for emotion (`EmotionBlocks`). The voice is still estimated from the encoder's own states, and its part in the
projection has weights of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.emotion.config import BLOCK, GATE_WIDTH, HALF_EVIDENCE, STATE_SCALE, DiarizerConfig, block_sizes
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.precision import bfloat16_products
from sedtalker.streaming_encoder import LayerState, StreamingLayer


class VoiceContext(NamedTuple):
    """The voice that a network knows in each of K blocks."""

    shift: Tensor  # (B, K, size), standardised mean of the voice; or (B, K, width), of its projections
    spread: Tensor  # (B, K, L), log ratio of the deviations, mean over each layer; or (B, K, width)
    evidence: Tensor  # (B, K, 2), log(1 + seconds), in total and of the reference


class MemberState(NamedTuple):
    """State of a network between two chunks."""

    convolutions: tuple[Tensor, ...]  # (B, kernel - 1, width) each: their last inputs
    hidden: Tensor  # (1, B, hidden), of the recurrent layer
    past: Tensor  # (B, n, width), steps that the statistics read again


class EmotionBlocks(nn.Module):
    """Blocks of the speech encoder that were tuned for emotion, on steps instead of frames."""

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        width = config.feature_width
        sizes = block_sizes(config)
        self.scale = nn.Parameter(torch.full((width,), STATE_SCALE))
        self.layers = nn.ModuleList(StreamingLayer(sizes) for _ in range(config.blocks))

    def forward(
        self, states: Tensor, ahead: int, carried: tuple[LayerState, ...] | None = None, last: bool = True
    ) -> tuple[list[Tensor], tuple[LayerState, ...]]:
        """Layer-normed outputs (B, m, D) of each block for the next steps (B, n, D), and the state after them.

        Args:
            ahead: steps that each block looks ahead.
            carried: state after the steps before; None: these are the first.
            last: no steps follow. Otherwise the outputs of a block stop `ahead` steps before the end of its input.
        """
        x, outputs, after = states * self.scale, [], []
        for number, layer in enumerate(self.layers):
            with bfloat16_products(x.device, enabled=self.training):
                x, state = layer(x, ahead, None if carried is None else carried[number], last)
            outputs.append(F.layer_norm(x.float(), x.shape[-1:]))
            after.append(state)
        return outputs, tuple(after)


class CausalMember(nn.Module):
    """One network: projected steps (B, S, width) and the voice -> raw outputs (B, S, C + 1).

    Outputs are the activation (logit of any emotion against neutral), the strength (logit, of the intensity), and the
    logits of the C - 1 emotions.
    """

    def __init__(self, config: DiarizerConfig, steps_per_second: int) -> None:
        super().__init__()
        width, hidden, outputs = config.width, config.hidden, len(config.labels) + 1
        self.project = nn.Linear((config.kept + config.blocks) * config.feature_width, width)
        self.voice = nn.Linear(config.layers * config.feature_width, width, bias=False) if config.blocks else None
        opening = nn.Linear(GATE_WIDTH, 2 * width)
        nn.init.zeros_(opening.weight)
        nn.init.zeros_(opening.bias)
        self.gates = nn.Sequential(nn.Linear(2, GATE_WIDTH), nn.GELU(), opening)
        self.projected_voice = config.projected_voice
        self.spread = nn.Linear(config.spread_size, width, bias=False)
        nn.init.zeros_(self.spread.weight)
        self.convolutions = nn.ModuleList(CausalConvolution(config) for _ in range(config.convolutions))
        self.recurrent = nn.GRU(width, hidden, batch_first=True)
        sizes = tuple(round(seconds * steps_per_second) for seconds in config.statistics_windows)
        self.past = PastStatistics(config, sizes) if sizes else None
        self.backward_recurrent = nn.GRU(width, hidden, batch_first=True)
        self.future = PastStatistics(config, sizes) if sizes else None
        self.dropout = nn.Dropout(config.dropout)
        statistics = width if sizes else 0
        self.live_head = nn.Linear(hidden + width + statistics, outputs)
        self.offline_head = nn.Linear(hidden + statistics, outputs, bias=False)

    def project_steps(self, steps: Tensor) -> Tensor:
        """Projection (B, S, width) of standardised flat steps (B, S, size), without its bias."""
        return F.linear(steps, self.project.weight)

    def project_voice(self, mean: Tensor) -> Tensor:
        """Projection (..., width) of the standardised mean (..., size) of a voice's states."""
        return F.linear(mean, self.project.weight if self.voice is None else self.voice.weight)

    def adapt(self, projected: Tensor, voice: VoiceContext, block: Tensor) -> Tensor:
        """Embedding (B, S, width) of projected steps for the voice of each step's block (S,)."""
        shift, scale = self.voice_terms(voice)
        return F.gelu((projected - shift[:, block]) * scale[:, block] + self.project.bias)

    def voice_terms(self, voice: VoiceContext) -> tuple[Tensor, Tensor]:
        """What a block's steps subtract, and the factor of the rest, (B, K, width) each."""
        seconds = voice.evidence[..., :1].expm1().clamp(min=1e-3)
        opening = self.gates(voice.evidence) + (seconds / HALF_EVIDENCE).log()
        mean_gate, spread_gate = opening.sigmoid().chunk(2, dim=-1)
        mean = voice.shift if self.projected_voice else self.project_voice(voice.shift)
        return mean_gate * mean, torch.exp(torch.tanh(spread_gate * self.spread(voice.spread)))

    def run_past(self, embedded: Tensor, state: MemberState | None = None) -> tuple[Tensor, Tensor, MemberState]:
        """Raw outputs (B, S, C + 1) from the past alone, local features (B, S, width), and the state after them."""
        local, kept = embedded, []
        for number, block in enumerate(self.convolutions):
            local, inputs = block(local, None if state is None else state.convolutions[number])
            kept.append(inputs)
        recurrent, hidden = self.recurrent(local, None if state is None else state.hidden)
        parts, past = [recurrent, local], embedded[:, :0] if state is None else state.past
        if self.past is not None:
            known = torch.cat([past, embedded], dim=1)
            parts.append(self.past(known)[:, past.shape[1] :])
            past = known[:, max(0, known.shape[1] - self.past.longest + 1) :]
        outputs: Tensor = self.live_head(self.dropout(torch.cat(parts, dim=-1)))
        return outputs, local, MemberState(tuple(kept), hidden, past)

    def run_future(self, embedded: Tensor, local: Tensor) -> Tensor:
        """What the future adds to the raw outputs (B, S, C + 1)."""
        parts = [self.backward_recurrent(local.flip(1))[0].flip(1)]
        if self.future is not None:
            parts.append(self.future(embedded.flip(1)).flip(1))
        added: Tensor = self.offline_head(self.dropout(torch.cat(parts, dim=-1)))
        return added

    def forward(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs (B, S, C + 1) without and with the future."""
        live, local, _ = self.run_past(embedded)
        return live, live + self.run_future(embedded, local)


class CausalConvolution(nn.Module):
    """Residual convolution over the last steps: (B, S, width) -> (B, S, width) and its last inputs."""

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.convolution = nn.Conv1d(config.width, config.width, config.kernel)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        reach = self.convolution.kernel_size[0] - 1
        inputs = self.norm(x)
        inputs = F.pad(inputs, (0, 0, reach, 0)) if before is None else torch.cat([before, inputs], dim=1)
        added = F.gelu(self.convolution(inputs.transpose(1, 2))).transpose(1, 2)
        return x + self.dropout(added), inputs[:, inputs.shape[1] - reach :]


class PastStatistics(nn.Module):
    """Weighted mean and deviation over the last steps of each window, projected: (B, S, width) -> (B, S, width).

    The weights are learned, so that silence can be left out.
    """

    def __init__(self, config: DiarizerConfig, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.longest = sizes, max(sizes)
        self.weight = nn.Linear(config.width, 1)
        self.join = nn.Linear(2 * len(sizes) * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.softplus(self.weight(x)) + 1e-3
        sums = F.pad(torch.cat([weight, weight * x, weight * x.square()], -1).cumsum(1), (0, 0, 1, 0))
        parts = []
        until = torch.arange(1, x.shape[1] + 1, device=x.device)
        for size in self.sizes:
            near = sums[:, until] - sums[:, (until - size).clamp(min=0)]
            mean, square = (near[..., 1:] / near[..., :1]).chunk(2, dim=-1)
            parts += [mean, (square - mean.square()).clamp(min=1e-4).sqrt()]
        return F.gelu(self.join(torch.cat(parts, -1)))


def voice_context(
    estimate: VoiceEstimate, average: Tensor, deviation: Tensor, layers: int | None = None
) -> VoiceContext:
    """The context of estimates (B, K): relative to an average voice of mean and deviation (size,).

    Args:
        layers: over whose values the spread is a mean; None: of projected inputs, whose mean is not standardised.
    """
    mean, spread = estimate.statistics()
    known = (estimate.seconds > 0)[..., None]
    shift, ratio = mean - average, (spread / deviation).log()
    if layers is not None:
        shift, ratio = shift / deviation, ratio.unflatten(-1, (layers, -1)).mean(-1)
    evidence = torch.stack([estimate.seconds, estimate.reference], dim=-1).log1p()
    return VoiceContext(torch.where(known, shift, 0.0), torch.where(known, ratio, 0.0), evidence)


def running_estimates(
    steps: Tensor, activity: Tensor, start: VoiceEstimate, step_seconds: float
) -> tuple[VoiceEstimate, VoiceEstimate]:
    """Estimates (B, K) before each block of `BLOCK` steps, and those (B,) after all.

    Args:
        steps: (B, S, size).
        activity: (B, S), weight of a step, 0..1.
        start: (B,), before the first step.
        step_seconds: duration of a step.
    """
    missing = -steps.shape[1] % BLOCK
    weight = (F.pad(activity, (0, missing)) * step_seconds).unflatten(1, (-1, BLOCK))[:, :, None]  # (B, K, 1, BLOCK)
    blocks = F.pad(steps, (0, 0, 0, missing)).unflatten(1, (-1, BLOCK))  # (B, K, BLOCK, size)
    parts = ((weight @ blocks)[:, :, 0], (weight @ blocks.square())[:, :, 0], weight.sum((2, 3)))
    totals = [torch.cat([first[:, None], part], 1).cumsum(1) for first, part in zip(start[:3], parts, strict=True)]
    reference = start.reference[:, None].expand_as(totals[2])
    before = VoiceEstimate(totals[0][:, :-1], totals[1][:, :-1], totals[2][:, :-1], reference[:, :-1])
    after = VoiceEstimate(totals[0][:, -1], totals[1][:, -1], totals[2][:, -1], start.reference)
    return before, after
