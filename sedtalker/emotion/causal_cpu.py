"""The causal diarizer for a few steps at a time on one CPU core: the outputs of `CausalMember.run_past`."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sedtalker.emotion.causal import BLOCK, HALF_EVIDENCE, CausalConvolution, CausalMember, PastStatistics
from sedtalker.emotion.diarizer import ABSENT, LEAST_INTENSITY, STEP_RATE, STRIDE, Diarizer
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.kernels import LOG2_E, exp2
from sedtalker.layers_cpu import (
    GELU,
    NORM_EPSILON,
    Float,
    Linear,
    Rows,
    compiled,
    gelu,
    pack,
    recur,
    share_packed,
    sigmoid,
    softmax,
    softplus,
)
from sedtalker.streaming_encoder import StreamingLayer
from sedtalker.streaming_encoder_cpu import PackedLayer

LEAST_WEIGHT = 1e-3  # of a step in the statistics, as in `PastStatistics`
LEAST_VARIANCE = 1e-4
LEAST_EVIDENCE = 1e-3  # s, as in `CausalMember.voice_terms`
LEAST_LOGIT = -60.0  # of a gate; less would overflow


@compiled
def _pool(frames: Float, first_layer: int, average: Float, deviation: Float, steps: Float, standardised: Float) -> None:
    """steps (S, L D) of frames (2 S, layers, D), as `pool_frames`, and the same relative to an average voice."""
    size = frames.shape[2]
    for s in range(steps.shape[0]):
        for layer in range(first_layer, frames.shape[1]):
            at = (layer - first_layer) * size
            total = np.float32(0.0)
            for i in range(size):
                steps[s, at + i] = np.float32(0.5) * (frames[2 * s, layer, i] + frames[2 * s + 1, layer, i])
                total += steps[s, at + i]
            mean, square = total / np.float32(size), np.float32(0.0)
            for i in range(size):
                steps[s, at + i] -= mean
                square += steps[s, at + i] * steps[s, at + i]
            scale = np.float32(1.0) / np.sqrt(square / np.float32(size) + np.float32(NORM_EPSILON))
            for i in range(size):
                steps[s, at + i] *= scale
                standardised[s, at + i] = (steps[s, at + i] - average[at + i]) / deviation[at + i]


@compiled
def _add_evidence(steps: Float, activity: Float, sums: Float, squares: Float) -> None:
    """Add the steps (S, size) and their squares, times `activity` (S,), to the sums (size,)."""
    for s in range(steps.shape[0]):
        for i in range(steps.shape[1]):
            weighted = activity[s] * steps[s, i]
            sums[i] += weighted
            squares[i] += weighted * steps[s, i]


@compiled
def _adapt(projected: Float, column: int, shift: Float, scale: Float, bias: Float, y: Float) -> None:
    """y (S, width), as `CausalMember.adapt`, of columns from `column` on of projected (S, ...)."""
    for s in range(y.shape[0]):
        for i in range(y.shape[1]):
            y[s, i] = gelu((projected[s, column + i] - shift[i]) * scale[i] + bias[i])


@compiled
def _summarise(
    x: Float, weight: Float, bias: float, sizes: NDArray[np.int64], ring: Float, sums: NDArray[np.float64], done: int,
    y: Float,
) -> None:  # fmt: skip
    """y (S, 2 W len(sizes)), means and deviations over the last `sizes` steps, as `PastStatistics`.

    Args:
        x: (S, W).
        ring: (longest, 1 + 2 W), weights, weighted values and weighted squares of the last steps; updated.
        sums: (len(sizes), 1 + 2 W), their sums over each window; updated.
        done: steps before these.
    """
    width = x.shape[1]
    for s in range(x.shape[0]):
        number = done + s
        level = bias
        for i in range(width):
            level += weight[i] * x[s, i]
        level = softplus(level) + np.float32(LEAST_WEIGHT)
        for w in range(sizes.shape[0]):
            if number >= sizes[w]:
                old = (number - sizes[w]) % ring.shape[0]
                for i in range(1 + 2 * width):
                    sums[w, i] -= ring[old, i]
        place = number % ring.shape[0]
        ring[place, 0] = level
        for i in range(width):
            ring[place, 1 + i] = level * x[s, i]
            ring[place, 1 + width + i] = level * x[s, i] * x[s, i]
        for w in range(sizes.shape[0]):
            for i in range(1 + 2 * width):
                sums[w, i] += ring[place, i]
            at = 2 * w * width
            for i in range(width):
                mean = np.float32(sums[w, 1 + i] / sums[w, 0])
                square = np.float32(sums[w, 1 + width + i] / sums[w, 0])
                y[s, at + i] = mean
                y[s, at + width + i] = np.sqrt(max(square - mean * mean, np.float32(LEAST_VARIANCE)))


@compiled
def _decide(
    raw: Float, neutral: int, absent: NDArray[np.bool_], temperature: float, low: float, high: float,
    speech: Float, y: Float,
) -> None:  # fmt: skip
    """y (S, C + 2), posterior, intensity and speech, of raw outputs (M, S, C + 1) and the logits of speech (S, 1).

    As `Diarizer.average` and `Diarizer.finish`. `absent` is (C,); `low` and `high` are the range of the intensity.
    """
    labels, members = absent.shape[0], np.float32(raw.shape[0])
    for s in range(y.shape[0]):
        for c in range(labels):
            y[s, c] = np.float32(0.0)
        level = np.float32(0.0)
        for m in range(raw.shape[0]):
            activation, most, total = raw[m, s, 0], np.float32(-3e38), np.float32(0.0)
            level += raw[m, s, 1] / members
            for c in range(labels):
                if c != neutral and not absent[c]:
                    most = max(most, raw[m, s, 2 + c - (c > neutral)])
            for c in range(labels):
                if c != neutral and not absent[c]:
                    total += exp2((raw[m, s, 2 + c - (c > neutral)] - most) * np.float32(LOG2_E))
            shift = most + np.log(total) + softplus(-activation)
            for c in range(labels):
                logit = -softplus(activation) if c == neutral else raw[m, s, 2 + c - (c > neutral)] - shift
                y[s, c] += (np.float32(ABSENT) if absent[c] else logit / temperature) / members
        softmax(y[s, :labels])
        least = np.float32(LEAST_INTENSITY)
        level = (np.float32(1.0) - y[s, neutral]) * (least + (np.float32(1.0) - least) * sigmoid(level))
        y[s, labels] = min(max((level - low) / (high - low), np.float32(0.0)), np.float32(1.0))
        y[s, labels + 1] = sigmoid(speech[s, 0])


class _Convolution:
    """A `CausalConvolution`."""

    def __init__(self, layer: CausalConvolution) -> None:
        weight = layer.convolution.weight.detach().numpy()  # (out, in, taps)
        bias = layer.convolution.bias
        assert bias is not None
        self.taps, self.norm = weight.shape[2], pack(layer.norm)
        self.linear = Linear(weight.transpose(0, 2, 1).reshape(len(weight), -1), bias.detach().numpy())

    def run(self, x: Float, before: Float) -> tuple[Float, Float]:
        """Outputs (S, width) of x (S, width), and the last inputs, given those (taps - 1, width) before."""
        inputs = np.concatenate([before, np.empty_like(x)])
        self.norm(x, inputs[self.taps - 1 :])
        rows = np.concatenate([inputs[tap : tap + len(x)] for tap in range(self.taps)], axis=1)
        return x + self.linear(rows, np.empty_like(x), GELU), inputs[len(x) :]


class _Member:
    """The weights of a `CausalMember` for the past."""

    def __init__(self, member: CausalMember) -> None:
        self.width, self.hidden = member.project.out_features, member.recurrent.hidden_size
        self.bias = member.project.bias.detach().numpy()
        self.convolutions = [
            _Convolution(block) for block in member.convolutions if isinstance(block, CausalConvolution)
        ]
        weights = {name: value.detach().numpy() for name, value in member.recurrent.named_parameters()}
        self.voice_gates, self.spread = (pack(member.gates[0]), pack(member.gates[2])), pack(member.spread)
        self.gates = Linear(weights["weight_ih_l0"], weights["bias_ih_l0"])
        self.recurrent = np.ascontiguousarray(weights["weight_hh_l0"].T), weights["bias_hh_l0"]
        self.past: PastStatistics | None = member.past
        if self.past is not None:
            self.weight = self.past.weight.weight.detach().numpy()[0]
            self.weight_bias = np.float32(self.past.weight.bias.item())
            self.sizes, self.join = np.array(self.past.sizes), pack(self.past.join)
        self.head = pack(member.live_head)

    def voice_terms(self, projected: Float, spread: Float, evidence: Float) -> tuple[Float, Float]:
        """`CausalMember.voice_terms` (width,) each, of a projected mean (width,), spread (1, L) and evidence (1, 2).

        Torch would start threads for these products.
        """
        hidden = self.voice_gates[0](evidence, np.empty((1, self.voice_gates[0].outputs), np.float32), GELU)
        opening = self.voice_gates[1](hidden, np.empty((1, 2 * self.width), np.float32))[0]
        opening += np.log(max(np.expm1(evidence[0, 0]), LEAST_EVIDENCE) / HALF_EVIDENCE)
        mean_gate, spread_gate = np.split(1 / (1 + np.exp(-np.maximum(opening, LEAST_LOGIT))), 2)
        ratio = self.spread(spread, np.empty((1, self.width), np.float32))[0]
        return mean_gate * projected, np.exp(np.tanh(spread_gate * ratio))


class _MemberState:
    """State of a member between two chunks."""

    def __init__(self, member: _Member) -> None:
        width = member.width
        self.convolutions = [np.zeros((block.taps - 1, width), np.float32) for block in member.convolutions]
        self.hidden = np.zeros(member.hidden, np.float32)
        if member.past is not None:
            self.ring = np.zeros((member.past.longest, 1 + 2 * width), np.float32)
            self.sums = np.zeros((len(member.sizes), 1 + 2 * width))


class PackedDiarizer:
    """The weights of a causal diarizer; streams share it."""

    def __init__(self, diarizer: Diarizer) -> None:
        device = diarizer.absent.device.type
        diarizer = diarizer if device == "cpu" else deepcopy(diarizer).cpu()
        self.copy = None if device == "cpu" else diarizer  # on the CPU
        self.first_layer = diarizer.config.first_layer
        self.average, self.deviation = diarizer.average_voice.numpy(), diarizer.average_deviation.numpy()
        self.absent, self.neutral = diarizer.absent.numpy(), diarizer.config.labels.index("neutral")
        self.temperature = np.float32(diarizer.config.temperature)
        self.low, self.high = map(np.float32, diarizer.config.intensity_range)
        self.members = [_Member(member) for member in diarizer.causal_members]
        self.speech = pack(diarizer.speech_head)
        self.project = Linear(np.concatenate([m.project.weight.detach().numpy() for m in diarizer.causal_members]))
        self.voice, self.blocks = self.project, None  # `voice` projects the mean of the voice
        if diarizer.blocks is not None:
            layers = [PackedLayer(layer) for layer in diarizer.blocks.layers if isinstance(layer, StreamingLayer)]
            self.blocks, self.scale = layers, diarizer.blocks.scale.detach().numpy()
            self.output_norm = pack(nn.LayerNorm(len(self.scale)))  # its gain is 1
            self.kept = diarizer.config.kept * len(self.scale)
            self.input_average, self.input_deviation = (part.numpy() for part in diarizer.input_average())
            weights = [m.voice.weight.detach().numpy() for m in diarizer.causal_members if m.voice is not None]
            self.voice = Linear(np.concatenate(weights))

    def run_blocks(self, steps: Float, standardised: Float, memory: list[Rows]) -> Float:
        """Inputs of the networks (S, input size) of steps (S, size): the blocks' outputs follow the kept states.

        Args:
            standardised: (S, size), the steps relative to an average voice.
            memory: queries, keys and values of the last steps, of each block; updated.
        """
        assert self.blocks is not None
        width, at = len(self.scale), self.kept
        inputs = np.empty((len(steps), len(self.input_average)), np.float32)
        inputs[:, :at] = standardised[:, :at]
        x = steps[:, at - width : at] * self.scale
        for block, qkv in zip(self.blocks, memory, strict=True):
            start, y = qkv.count, np.empty_like(x)
            block.qkv(block.attention_norm(x, y), qkv.extend(len(x)))
            block.read(x, qkv.view(qkv.first, qkv.count), start - qkv.first, 0, y)
            qkv.drop(qkv.count - block.left)
            x = y
            part = slice(at, at + width)
            normed = self.output_norm(x, np.empty_like(x))
            inputs[:, part] = (normed - self.input_average[part]) / self.input_deviation[part]
            at = part.stop
        return inputs


class PackedSteps:
    """Steps of one stream of a causal diarizer, with its running estimate of the voice."""

    def __init__(self, diarizer: Diarizer, start: VoiceEstimate) -> None:
        """`start` (1,) is the estimate of the voice before the first step."""
        self._packed: PackedDiarizer = share_packed(diarizer, PackedDiarizer)
        self._diarizer = self._packed.copy or diarizer
        self._states = [_MemberState(member) for member in self._packed.members]
        self._memory = [Rows(block.qkv.outputs) for block in self._packed.blocks or ()]
        self._estimate, self._steps = VoiceEstimate(*(part.cpu() for part in start)), 0
        self._terms: list[tuple[Float, Float]] = []
        self._start_block()

    def _start_block(self) -> None:
        """Start a block of `BLOCK` steps: update what the members know of the voice."""
        context = self._diarizer.voice_context(VoiceEstimate(*(part[:, None] for part in self._estimate)))
        shift, spread, evidence = (np.ascontiguousarray(part[0].numpy()) for part in context)
        projected = self._packed.voice(shift, np.empty((1, self._packed.voice.outputs), np.float32))[0]
        self._terms, column = [], 0
        for member in self._packed.members:
            own = projected[column : column + member.width]
            self._terms.append(member.voice_terms(own, spread, evidence))
            column += member.width
        self._sums, self._squares = (np.zeros(len(self._packed.average), np.float32) for _ in range(2))
        self._seconds = 0.0

    @property
    def estimate(self) -> VoiceEstimate:
        """The estimate (1,) of the voice after the last step."""
        seconds = torch.tensor([self._seconds])
        added = torch.from_numpy(self._sums.copy())[None], torch.from_numpy(self._squares.copy())[None]
        return self._estimate.add(VoiceEstimate(*added, seconds, torch.zeros(1)))

    def run(self, frames: Float) -> Float:
        """Posterior, intensity and speech (S, C + 2) of frames (2 S, layers, D)."""
        size, done = len(frames) // STRIDE, 0
        rows: list[Float] = []
        while done < size:  # up to the end of a block, where the estimate of the voice changes
            count = min(BLOCK - self._steps % BLOCK, size - done)
            rows.append(self._run_block(frames[STRIDE * done : STRIDE * (done + count)]))
            done += count
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _run_block(self, frames: Float) -> Float:
        packed, size = self._packed, len(frames) // STRIDE
        steps, standardised = (np.empty((size, len(packed.average)), np.float32) for _ in range(2))
        _pool(frames, packed.first_layer, packed.average, packed.deviation, steps, standardised)
        speech = packed.speech(standardised, np.empty((size, 1), np.float32))
        inputs = standardised if packed.blocks is None else packed.run_blocks(steps, standardised, self._memory)
        projected = packed.project(inputs, np.empty((size, packed.project.outputs), np.float32))
        raw, column = np.empty((len(packed.members), size, packed.members[0].head.outputs), np.float32), 0
        for number, (member, state, terms) in enumerate(zip(packed.members, self._states, self._terms, strict=True)):
            self._run_member(member, state, terms, projected, column, raw[number])
            column += member.width
        rows = np.empty((size, len(packed.absent) + 2), np.float32)
        _decide(raw, packed.neutral, packed.absent, packed.temperature, packed.low, packed.high, speech, rows)
        activity, duration = np.ascontiguousarray(rows[:, -1]), 1 / STEP_RATE
        _add_evidence(steps, activity * np.float32(duration), self._sums, self._squares)
        self._seconds += float(activity.sum()) * duration
        self._steps += size
        if self._steps % BLOCK == 0:
            self._estimate = self.estimate.limited()
            self._start_block()
        return rows

    def _run_member(
        self,
        member: _Member,
        state: _MemberState,
        terms: tuple[Float, Float],
        projected: Float,
        column: int,
        raw: Float,
    ) -> None:
        """Fill the raw outputs (S, C + 1) of a member, whose projections begin at `column`."""
        size = len(projected)
        embedded = np.empty((size, member.width), np.float32)
        _adapt(projected, column, *terms, member.bias, embedded)
        local = embedded
        for number, block in enumerate(member.convolutions):
            local, state.convolutions[number] = block.run(local, state.convolutions[number])
        gates = member.gates(local, np.empty((size, 3 * member.hidden), np.float32))
        recurrent = np.empty((size, member.hidden), np.float32)
        recur(gates, *member.recurrent, state.hidden, recurrent)
        parts = [recurrent, local]
        if member.past is not None:
            statistics = np.empty((size, member.join.inputs), np.float32)
            _summarise(
                embedded, member.weight, member.weight_bias, member.sizes, state.ring, state.sums, self._steps,
                statistics,
            )  # fmt: skip
            parts.append(member.join(statistics, np.empty((size, member.join.outputs), np.float32), GELU))
        member.head(np.concatenate(parts, axis=1), raw)
