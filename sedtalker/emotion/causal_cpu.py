"""The causal diarizer on one CPU core, for streams and recordings: the outputs of `Diarizer`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.checkpoint import check_fit, load_arrays
from sedtalker.emotion.config import (
    ABSENT,
    BLOCK,
    BLOCK_AHEAD,
    GATE_WIDTH,
    HALF_EVIDENCE,
    KIND,
    LEAST_INTENSITY,
    STEP_RATE,
    STRIDE,
    DiarizerConfig,
    block_sizes,
    find_diarizer,
    load_sizes,
)
from sedtalker.emotion.prediction import BLOCKS, OVERLAP, WINDOW, Prediction, check_voice
from sedtalker.emotion.smoothing_cpu import smooth_logits
from sedtalker.emotion.voice import ProjectedVoice, VoiceEstimate, VoiceProfile, fingerprint
from sedtalker.kernels import LOG2_E, exp2
from sedtalker.layers_cpu import (
    GELU,
    NORM_EPSILON,
    Float,
    KeyRows,
    Linear,
    Recurrent,
    Rows,
    compiled,
    gelu,
    pack,
    pack_norm,
    plain_norm,
    sigmoid,
    softmax,
    softplus,
)
from sedtalker.streaming_encoder_cpu import PackedLayer, run_layers
from sedtalker.weights import Weights, quantize_layers

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
def _average(raw: Float, neutral: int, absent: NDArray[np.bool_], temperature: float, y: Float) -> None:
    """y (S, C + 1), mean logits and strength over the members, of raw outputs (M, S, C + 1), as `Diarizer.average`.

    `absent` is (C,).
    """
    labels, members = absent.shape[0], np.float32(raw.shape[0])
    for s in range(y.shape[0]):
        for c in range(labels + 1):
            y[s, c] = np.float32(0.0)
        for m in range(raw.shape[0]):
            activation, most, total = raw[m, s, 0], np.float32(-3e38), np.float32(0.0)
            y[s, labels] += raw[m, s, 1] / members
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


@compiled
def _finish(means: Float, neutral: int, low: float, high: float, y: Float) -> None:
    """Fill the posterior and the intensity, y (S, >= C + 1), of mean logits and strength (S, C + 1).

    As `Diarizer.finish`; `low` and `high` are the range of the intensity.
    """
    labels = means.shape[1] - 1
    for s in range(means.shape[0]):
        for c in range(labels):
            y[s, c] = means[s, c]
        softmax(y[s, :labels])
        least = np.float32(LEAST_INTENSITY)
        strength = least + (np.float32(1.0) - least) * sigmoid(means[s, labels])
        level = (np.float32(1.0) - y[s, neutral]) * strength
        y[s, labels] = min(max((level - low) / (high - low), np.float32(0.0)), np.float32(1.0))


class _Convolution:
    """A `CausalConvolution`."""

    def __init__(self, weights: Weights, config: DiarizerConfig) -> None:
        width, self.taps = config.width, config.kernel
        weight = weights.array("convolution.weight", width, width, self.taps)  # (out, in, taps)
        self.norm = pack_norm(weights, "norm", width)
        self.linear = Linear(weight.transpose(0, 2, 1).reshape(width, -1), weights.array("convolution.bias", width))

    def run(self, x: Float, before: Float) -> tuple[Float, Float]:
        """Outputs (S, width) of x (S, width), and the last inputs, given those (taps - 1, width) before."""
        inputs = np.concatenate([before, np.empty_like(x)])
        self.norm(x, inputs[self.taps - 1 :])
        rows = np.concatenate([inputs[tap : tap + len(x)] for tap in range(self.taps)], axis=1)
        return x + self.linear(rows, np.empty_like(x), GELU), inputs[len(x) :]


class _Statistics:
    """A `PastStatistics`."""

    def __init__(self, weights: Weights, config: DiarizerConfig) -> None:
        width, count = config.width, len(config.statistics_windows)
        self._weight = weights.array("weight.weight", 1, width)[0]
        self._bias = np.float32(weights.array("weight.bias", 1)[0])
        self._sizes = np.array([round(seconds * STEP_RATE) for seconds in config.statistics_windows])
        self._join = pack(weights, "join", width, 2 * count * width)

    def start(self) -> tuple[Float, NDArray[np.float64]]:
        """The state before the first step."""
        columns = 1 + 2 * len(self._weight)
        return np.zeros((int(self._sizes.max()), columns), np.float32), np.zeros((len(self._sizes), columns))

    def run(self, x: Float, state: tuple[Float, NDArray[np.float64]], done: int) -> Float:
        """Outputs (S, width) of x (S, width); the state after `done` steps is updated."""
        values = np.empty((len(x), self._join.inputs), np.float32)
        _summarise(x, self._weight, self._bias, self._sizes, *state, done, values)
        return self._join(values, np.empty_like(x), GELU)


class _Member:
    """The weights of a `CausalMember`."""

    def __init__(self, weights: Weights, config: DiarizerConfig) -> None:
        width, hidden, outputs = config.width, config.hidden, len(config.labels) + 1
        self.width = width
        self.bias = weights.array("project.bias", width)
        self.convolutions = [
            _Convolution(weights.part(f"convolutions.{number}"), config) for number in range(config.convolutions)
        ]
        self.voice_gates = pack(weights, "gates.0", GATE_WIDTH, 2), pack(weights, "gates.2", 2 * width, GATE_WIDTH)
        self.spread = pack(weights, "spread", width, config.spread_size, bias=False)
        self.recurrent = Recurrent(weights.part("recurrent"), "l0", hidden, width)
        self.backward = Recurrent(weights.part("backward_recurrent"), "l0", hidden, width)
        self.past = self.future = None
        if config.statistics_windows:
            self.past, self.future = (_Statistics(weights.part(name), config) for name in ("past", "future"))
        statistics = width if config.statistics_windows else 0
        self.head = pack(weights, "live_head", outputs, hidden + width + statistics)
        self.offline_head = pack(weights, "offline_head", outputs, hidden + statistics, bias=False)

    def voice_terms(self, projected: Float, spread: Float, evidence: Float) -> tuple[Float, Float]:
        """`CausalMember.voice_terms` (width,) each, of a projected mean (width,), spread (1, n) and evidence (1, 2)."""
        hidden = self.voice_gates[0](evidence, np.empty((1, self.voice_gates[0].outputs), np.float32), GELU)
        opening = self.voice_gates[1](hidden, np.empty((1, 2 * self.width), np.float32))[0]
        opening += np.log(max(np.expm1(evidence[0, 0]), LEAST_EVIDENCE) / HALF_EVIDENCE)
        mean_gate, spread_gate = np.split(1 / (1 + np.exp(-np.maximum(opening, LEAST_LOGIT))), 2)
        ratio = self.spread(spread, np.empty((1, self.width), np.float32))[0]
        return mean_gate * projected, np.exp(np.tanh(spread_gate * ratio))

    def run_past(self, embedded: Float, state: _MemberState, done: int, raw: Float) -> Float:
        """Fill the raw outputs (S, C + 1) of the embedding (S, width) after `done` steps; returns local features."""
        local = embedded
        for number, block in enumerate(self.convolutions):
            local, state.convolutions[number] = block.run(local, state.convolutions[number])
        parts = [self.recurrent.run(local, state.hidden), local]
        if self.past is not None and state.past is not None:
            parts.append(self.past.run(embedded, state.past, done))
        self.head(np.concatenate(parts, axis=1), raw)
        return local

    def run_future(self, embedded: Float, local: Float) -> Float:
        """What the future adds to the raw outputs (S, C + 1)."""
        parts = [self.backward.run(np.ascontiguousarray(local[::-1]), self.backward.start())]
        if self.future is not None:
            parts.append(self.future.run(np.ascontiguousarray(embedded[::-1]), self.future.start(), 0))
        added = np.empty((len(local), self.offline_head.outputs), np.float32)
        return self.offline_head(np.concatenate(parts, axis=1), added)[::-1]


class _MemberState:
    """State of a member between two chunks."""

    def __init__(self, member: _Member) -> None:
        self.convolutions = [np.zeros((block.taps - 1, member.width), np.float32) for block in member.convolutions]
        self.hidden = member.recurrent.start()
        self.past = None if member.past is None else member.past.start()


class _Piece(NamedTuple):
    """Part of a recording."""

    frames: int
    steps: Float  # (S, size)
    speech: Float  # (S,)
    projected: Float  # (m, M * width), inputs of the networks, of earlier steps
    projected_speech: Float  # (m,)


class _VoiceTerms(NamedTuple):
    """What a member subtracts from a projection, and the factor of the rest, (width,) each."""

    shift: Float
    scale: Float


class PackedDiarizer:
    """The weights of a causal diarizer; streams share it."""

    def __init__(self, config: DiarizerConfig, weights: Weights) -> None:
        """`weights` of a causal `Diarizer`."""
        self.config, width = config, config.feature_width
        size = config.layers * width
        self.first_layer = config.first_layer
        self.average, self.deviation = (weights.array(name, size) for name in ("average_voice", "average_deviation"))
        self.absent = np.array([label in config.absent for label in config.labels])
        self.neutral = config.labels.index("neutral")
        self.temperature = np.float32(config.temperature)
        self.low, self.high = map(np.float32, config.intensity_range)
        parts = [weights.part(f"members.{number}") for number in range(config.members)]
        self.members = [_Member(part, config) for part in parts]
        self.speech = pack(weights, "speech_head", 1, size)
        inputs = (config.kept + config.blocks) * width
        self.project = Linear(np.concatenate([part.array("project.weight", config.width, inputs) for part in parts]))
        self.voice, self.blocks = self.project, list[PackedLayer]()  # `self.voice` projects the mean of the states
        self.kept = config.kept * width
        if config.blocks:
            blocks, sizes = weights.part("blocks"), block_sizes(config)
            self.blocks = [PackedLayer(blocks.part(f"layers.{number}"), sizes) for number in range(config.blocks)]
            self.scale, self.output_norm = blocks.array("scale", width), plain_norm(width)
            beyond = config.kept + config.blocks - config.layers
            self.input_average, self.input_deviation = (
                np.concatenate([part, *[part[-width:]] * beyond]) for part in (self.average, self.deviation)
            )
            self.voice = Linear(np.concatenate([part.array("voice.weight", config.width, size) for part in parts]))
        self.network = fingerprint([member.bias for member in self.members])
        if config.projected_voice:
            self.projected_average, self.projected_deviation = (
                weights.array(name, self.project.outputs) for name in ("projected_average", "projected_deviation")
            )

    def pool_early(self, states: Float) -> tuple[Float, Float]:
        """Steps (S, D) of early states (2 S, D), and the same relative to an average voice."""
        size, width = len(states) // STRIDE, states.shape[1]
        steps, standardised = (np.empty((size, width), np.float32) for _ in range(2))
        _pool(states[:, None], 0, self.average[:width], self.deviation[:width], steps, standardised)
        return steps, standardised

    def stream(self, voice: VoiceProfile | None = None, lead: int = 0) -> PackedStream:
        """A stream of live features, before its first frame; `lead` as of `PackedStream`."""
        return PackedStream(self, voice, lead)

    def start(self, voice: VoiceProfile | None) -> VoiceEstimate:
        """The estimate of the voice's states before a recording; raises CheckpointError if the profile does not fit."""
        if voice is None:
            return VoiceEstimate.empty_arrays(len(self.average))
        check_voice(self, voice)
        return VoiceEstimate.of_profile(voice)

    def start_networks(self, voice: VoiceProfile | None) -> VoiceEstimate:
        """The estimate before a recording that the networks read, as `Diarizer.start_networks`; raises as `start`."""
        if not self.config.projected_voice:
            return self.start(voice)
        if voice is None:
            return VoiceEstimate.empty_arrays(self.project.outputs)
        check_voice(self, voice)
        if voice.is_of(self.network, self.project.outputs):
            return VoiceEstimate.of_projected(voice)
        shift = (np.asarray(voice.mean, np.float32).reshape(1, -1) - self.average) / self.deviation
        mean = self.voice(shift, np.empty((1, self.voice.outputs), np.float32))[0] + self.projected_average
        return VoiceEstimate.of_statistics(mean, self.projected_deviation, voice.seconds)

    def predict(self, features: Iterable[Float], voice: VoiceProfile | None = None) -> Prediction:
        """Prediction for blocks (t, L, D) of the features of a recording, as `predict_frames` of its `Diarizer`."""
        estimate, count = self.start_networks(voice), 0
        activity, projected = [np.zeros(0, np.float32)], [np.zeros((0, self.project.outputs), np.float16)]
        for piece in self._read(features):
            count += piece.frames
            activity.append(piece.speech)
            if self.config.projected_voice:
                estimate = add_evidence(estimate, piece.projected, piece.projected_speech).limited()
            else:
                estimate = add_evidence(estimate, piece.steps, piece.speech).limited()
            projected.append(piece.projected.astype(np.float16))  # those of the whole recording are kept
        means = self._overlap_add(np.concatenate(projected), self.voice_terms(estimate))
        if self.config.smoothing:
            means[:, :-1] = smooth_logits(means[:, :-1])
        rows = upsample_steps(self.finish(means, np.concatenate(activity)), count)
        return Prediction(rows[:, :-2], rows[:, -2], rows[:, -1])

    def enroll(self, features: Iterable[Float]) -> VoiceProfile:
        """The profile of the voice in blocks (t, L, D) of features."""
        states, networks = self.start(None), self.start_networks(None)
        if not self.config.projected_voice:  # the blocks need not run
            for frames, _ in _cut(features, BLOCKS.hop):
                steps, _, speech = self.pool(frames)
                states = add_evidence(states, steps, speech)
            return self.make_profile(states, states)
        for piece in self._read(features):
            states = add_evidence(states, piece.steps, piece.speech)
            networks = add_evidence(networks, piece.projected, piece.projected_speech)
        return self.make_profile(states, networks)

    def make_profile(self, states: VoiceEstimate, networks: VoiceEstimate) -> VoiceProfile:
        """The profile of estimates of a voice's states and of what the networks read."""
        profile = states.profile(self.config.encoder, self.config.layers)
        if not self.config.projected_voice:
            return profile
        return replace(profile, projected=ProjectedVoice(*networks.arrays(), self.network))

    def _read(self, features: Iterable[Float]) -> Iterator[_Piece]:
        """Blocks (t, L, D) of the features of a recording in pieces, whose projected inputs lag by the look-ahead."""
        inputs, waiting = _NetworkInputs(self, BLOCK_AHEAD), np.zeros(0, np.float32)
        for frames, last in _cut(features, BLOCKS.hop):
            steps, standardised, speech = self.pool(frames)
            rows = inputs.push(steps, standardised, last)
            projected = self.project(rows, np.empty((len(rows), self.project.outputs), np.float32))
            waiting = np.concatenate([waiting, speech])
            yield _Piece(len(frames), steps, speech, projected, waiting[: len(rows)])
            waiting = waiting[len(rows) :]

    def pool(self, frames: Float) -> tuple[Float, Float, Float]:
        """Steps (S, size) of frames (T, layers, D), the same relative to an average voice, and speech (S,).

        An odd last frame is a step.
        """
        if len(frames) % STRIDE:
            frames = np.concatenate([frames, frames[-1:]])
        size = len(frames) // STRIDE
        steps, standardised = (np.empty((size, len(self.average)), np.float32) for _ in range(2))
        _pool(frames, self.first_layer, self.average, self.deviation, steps, standardised)
        logits = self.speech(standardised, np.empty((size, 1), np.float32))[:, 0]
        return steps, standardised, _logistic(logits)

    def voice_terms(self, estimate: VoiceEstimate) -> list[_VoiceTerms]:
        """The terms of each member for a voice, as `sedtalker.emotion.causal.voice_context`."""
        mean, spread = (np.asarray(part) for part in estimate.statistics())
        evidence = np.log1p(np.array([[estimate.seconds, estimate.reference]], np.float32))
        known, members = bool(estimate.seconds > 0), self.members
        if self.config.projected_voice:
            projected = mean - self.projected_average if known else np.zeros_like(mean)
            ratio = np.log(spread / self.projected_deviation) if known else np.zeros_like(mean)
            ratios = [part[None] for part in np.split(ratio, len(members))]
        else:
            shift, ratio = np.zeros((1, len(self.average)), np.float32), np.zeros((1, self.config.layers), np.float32)
            if known:
                shift[0] = (mean - self.average) / self.deviation
                ratio[0] = np.log(spread / self.deviation).reshape(self.config.layers, -1).mean(1)
            projected = self.voice(shift, np.empty((1, self.voice.outputs), np.float32))[0]
            ratios = [ratio] * len(members)
        return [
            _VoiceTerms(*member.voice_terms(own, ratio, evidence))
            for member, own, ratio in zip(members, np.split(projected, len(members)), ratios, strict=True)
        ]

    def _overlap_add(self, projected: NDArray[np.float16], terms: list[_VoiceTerms]) -> Float:
        """Mean outputs (S, C + 1) over the members, in windows of up to `WINDOW` steps with linear cross-fades."""
        hop, means = WINDOW - OVERLAP, np.zeros((len(projected), len(self.config.labels) + 1), np.float32)
        for start in range(0, len(projected), hop):
            part = projected[start : start + WINDOW]
            if start and len(part) <= OVERLAP:
                break  # the last window contained all of it
            predicted = self._run_window(part.astype(np.float32), terms)
            if start:
                ramp = ((np.arange(OVERLAP, dtype=np.float32) + 0.5) / OVERLAP)[:, None]
                predicted[:OVERLAP] = ramp * predicted[:OVERLAP] + (1 - ramp) * means[start : start + OVERLAP]
            means[start : start + len(part)] = predicted
        return means

    def _run_window(self, projected: Float, terms: list[_VoiceTerms]) -> Float:
        """Mean outputs (S, C + 1) over the members of projected steps (S, M width), from the past and the future."""
        raw, column = np.empty((len(self.members), len(projected), len(self.config.labels) + 1), np.float32), 0
        for member, own, outputs in zip(self.members, terms, raw, strict=True):
            embedded = np.empty((len(projected), member.width), np.float32)
            _adapt(projected, column, own.shift, own.scale, member.bias, embedded)
            local = member.run_past(embedded, _MemberState(member), 0, outputs)
            outputs += member.run_future(embedded, local)
            column += member.width
        return self.average_members(raw)

    def average_members(self, raw: Float) -> Float:
        """Mean logits and strength (S, C + 1) of the members' raw outputs (M, S, C + 1)."""
        means = np.empty(raw.shape[1:], np.float32)
        _average(raw, self.neutral, self.absent, self.temperature, means)
        return means

    def finish(self, means: Float, speech: Float) -> Float:
        """Posterior, intensity and speech (S, C + 2) of mean outputs (S, C + 1) and speech (S,)."""
        rows = np.empty((len(means), means.shape[1] + 1), np.float32)
        _finish(means, self.neutral, self.low, self.high, rows)
        rows[:, -1] = speech
        return rows


def add_evidence(estimate: VoiceEstimate, values: Float, activity: Float) -> VoiceEstimate:
    """The estimate after steps' values (S, size) with speech activity (S,)."""
    evidence = _Evidence(estimate)
    evidence.add(values, activity * np.float32(1 / STEP_RATE))
    return evidence.total


class _Evidence:
    """An estimate of a voice, and the sums since it was updated."""

    def __init__(self, estimate: VoiceEstimate) -> None:
        self.estimate = estimate
        self._sums, self._squares = (np.zeros(estimate.sums.shape, np.float32) for _ in range(2))
        self._seconds = np.float32(0)

    def add(self, values: Float, weight: Float) -> None:
        """Add steps' values (S, size), each with a weight (S,) in seconds."""
        _add_evidence(values, weight, self._sums, self._squares)
        self._seconds += weight.sum()

    @property
    def total(self) -> VoiceEstimate:
        """The estimate of all so far."""
        sums = VoiceEstimate(self._sums.copy(), self._squares.copy(), self._seconds, np.zeros((), np.float32))
        return self.estimate.add(sums)


class _NetworkInputs:
    """Inputs of the networks for steps that arrive in pieces, as `InputStream`."""

    def __init__(self, packed: PackedDiarizer, ahead: int) -> None:
        self._packed, self._ahead = packed, ahead
        if packed.blocks:
            width = len(packed.scale)
            self._kept = Rows(packed.kept)
            self._hidden = [Rows(width) for _ in range(len(packed.blocks) + 1)]
            self._qkv = [KeyRows(width) for _ in packed.blocks]

    def push(self, steps: Float, standardised: Float, last: bool = False) -> Float:
        """Inputs (m, input size) of steps (S, size); with blocks they lag by the blocks' look-ahead.

        Args:
            standardised: (S, size), the steps relative to an average voice.
            last: no steps follow.
        """
        packed = self._packed
        if not packed.blocks:
            return standardised
        width, at = len(packed.scale), packed.kept
        self._kept.extend(len(steps))[:] = standardised[:, :at]
        self._hidden[0].extend(len(steps))[:] = steps[:, at - width : at] * packed.scale
        run_layers(packed.blocks, [self._ahead] * len(packed.blocks), self._hidden, self._qkv, last)
        start, stop = self._hidden[-1].first, self._hidden[-1].count
        inputs = np.empty((stop - start, len(packed.input_average)), np.float32)
        inputs[:, :at] = self._kept.view(start, stop)
        for rows in self._hidden[1:]:
            part, x = slice(at, at + width), rows.view(start, stop)
            normed = packed.output_norm(x, np.empty_like(x))
            inputs[:, part] = (normed - packed.input_average[part]) / packed.input_deviation[part]
            at = part.stop
        for rows in (self._kept, *self._hidden):
            rows.drop(stop)
        return inputs


def _logistic(x: Float) -> Float:
    return (1 / (1 + np.exp(-np.maximum(x, LEAST_LOGIT)))).astype(np.float32)


def _cut(blocks: Iterable[Float], size: int) -> Iterator[tuple[Float, bool]]:
    """Blocks of `size` rows, the last one shorter, of blocks of any length; and whether it is the last one."""
    held: list[Float] = []
    for block in blocks:
        held.append(np.asarray(block, np.float32))
        while sum(map(len, held)) > size:
            rows = np.concatenate(held)
            yield np.ascontiguousarray(rows[:size]), False
            held = [rows[size:]]
    if held:
        yield np.ascontiguousarray(np.concatenate(held)), True


def upsample_steps(steps: Float, frames: int) -> Float:
    """Steps (S, ...) -> frames (`frames`, ...), linearly between the middles of the steps."""
    before, after = np.concatenate([steps[:1], steps[:-1]]), np.concatenate([steps[1:], steps[-1:]])
    near, far = np.float32(0.75), np.float32(0.25)
    pairs = np.stack([near * steps + far * before, near * steps + far * after], axis=1)
    return pairs.reshape(-1, *steps.shape[1:])[:frames]


class PackedSteps:
    """Steps of one stream of a causal diarizer, with its running estimate of the voice.

    The estimate and the activity read all states of the encoder. The networks can be `lead` steps ahead of them, with
    early states (`find_lead`).
    """

    def __init__(self, packed: PackedDiarizer, voice: VoiceProfile | None = None, lead: int = 0) -> None:
        """Raises CheckpointError if the profile does not fit."""
        self._packed, self._lead = packed, lead
        self._networks = self._voice = _Evidence(packed.start(voice))  # what the networks read, and the states
        if packed.config.projected_voice:
            self._networks = _Evidence(packed.start_networks(voice))
        self._steps = self._run = 0  # steps with all states, and steps that the networks have read
        self._states = [_MemberState(member) for member in packed.members]
        self._inputs = _NetworkInputs(packed, 0)
        self._block_end = 0  # step at which the networks use the next estimate
        self._start_block()
        self.drop_ahead()

    def _start_block(self) -> None:
        """Start a block of `BLOCK` steps: update what the members know of the voice."""
        self._terms = self._packed.voice_terms(self._networks.estimate)
        self._block_end += BLOCK

    @property
    def profile(self) -> VoiceProfile:
        """The voice after the last step."""
        return self._packed.make_profile(self._voice.total, self._networks.total)

    def drop_ahead(self) -> None:
        """Other sound follows than the networks have read ahead of the frames."""
        packed = self._packed
        self._early = np.zeros((0, packed.config.feature_width), np.float32)
        self._raw = np.zeros((len(packed.members), 0, packed.members[0].head.outputs), np.float32)  # of steps ahead
        self._projected = np.zeros((0, packed.project.outputs), np.float32)  # of steps whose speech is not known yet
        self._count_steps(self._run - self._steps)

    def run(self, frames: Float, early: Float | None = None) -> Float:
        """Posterior, intensity and speech (S, C + 2) of frames (2 S, layers, D).

        Args:
            early: (n, D), early states of the next frames, if the networks are ahead. The posterior and the intensity
                are those of `lead` steps later, or of the last step of the sound.
        """
        packed, size = self._packed, len(frames) // STRIDE
        steps, standardised = (np.empty((size, len(packed.average)), np.float32) for _ in range(2))
        _pool(frames, packed.first_layer, packed.average, packed.deviation, steps, standardised)
        speech = packed.speech(standardised, np.empty((size, 1), np.float32))
        activity = _logistic(speech[:, 0])
        weight = activity * np.float32(1 / STEP_RATE)
        read = (steps, standardised) if early is None else self._read_early(early, self._steps + size)
        raw, done, counted = [self._raw], 0, 0
        while done < len(read[0]) or counted < size:  # up to the end of a block, where the estimate changes
            if count := min(self._block_end - self._run, len(read[0]) - done):
                raw.append(self._run_networks(*(part[done : done + count] for part in read)))
                done += count
            if count := min(self._block_end - self._slack - self._steps, size - counted):
                part = slice(counted, counted + count)
                self._voice.add(steps[part], weight[part])
                if packed.config.projected_voice:
                    own = self._projected[:count]
                    self._networks.add(own, weight[part][: len(own)])
                    self._projected = self._projected[count:]
                counted += count
                self._count_steps(count)
        known = np.concatenate(raw, axis=1)
        shown = known[:, (np.arange(size) + self._lead).clip(max=known.shape[1] - 1)]
        self._raw = known[:, size:]
        return packed.finish(packed.average_members(shown), activity)

    def _read_early(self, early: Float, complete: int) -> tuple[Float, Float]:
        """The next steps of the networks, up to `lead` steps after the first `complete` ones; see `pool_early`."""
        waiting = np.concatenate([self._early, early])
        count = min(len(waiting) // STRIDE, complete + self._lead - self._run)
        self._early = waiting[STRIDE * count :]
        return self._packed.pool_early(waiting[: STRIDE * count])

    def _run_networks(self, steps: Float, standardised: Float) -> Float:
        """Raw outputs (M, S, C + 1) of the members for the next steps (S, size)."""
        packed = self._packed
        inputs = self._inputs.push(steps, standardised)
        size, column = len(inputs), 0
        projected = packed.project(inputs, np.empty((size, packed.project.outputs), np.float32))
        if packed.config.projected_voice:
            self._projected = np.concatenate([self._projected, projected])
        raw = np.empty((len(packed.members), size, packed.members[0].head.outputs), np.float32)
        for number, (member, state, terms) in enumerate(zip(packed.members, self._states, self._terms, strict=True)):
            embedded = np.empty((size, member.width), np.float32)
            _adapt(projected, column, terms.shift, terms.scale, member.bias, embedded)
            member.run_past(embedded, state, self._run, raw[number])
            column += member.width
        self._run += size
        return raw

    @property
    def _slack(self) -> int:
        """Steps before the end of a block without which the estimate is updated: the networks are ahead of them."""
        return max(0, self._lead - 1)

    def _count_steps(self, count: int) -> None:
        """Count steps whose evidence was added. At the end of a block, the members learn of it."""
        self._steps += count
        while self._steps + self._slack >= self._block_end:
            self._voice = _Evidence(self._voice.total.limited())
            if self._packed.config.projected_voice:
                self._networks = _Evidence(self._networks.total.limited())
            else:
                self._networks = self._voice
            self._start_block()


class PackedStream:
    """Live diarization: each frame of features gives a frame of the prediction at once.

    A step of two frames is read when its second frame arrives: predictions do not depend on the sizes of the pieces.
    """

    def __init__(self, packed: PackedDiarizer, voice: VoiceProfile | None = None, lead: int = 0) -> None:
        """`lead`: steps that the networks are ahead with early states, of `find_lead`."""
        self._packed, self._start, self._lead = packed, voice, lead
        self.reset()

    def reset(self) -> None:
        """Return to the state before the first frame."""
        labels = self._packed.config.labels
        self._steps = PackedSteps(self._packed, self._start, self._lead)
        self._waiting: Float | None = None  # first frame of a step, (1, L, D)
        neutral = np.eye(len(labels) + 2, dtype=np.float32)[labels.index("neutral")]
        self._last = neutral[None]  # posterior, intensity and speech of the last step

    @property
    def profile(self) -> VoiceProfile:
        """The voice so far."""
        return self._steps.profile

    def drop_ahead(self) -> None:
        """Other frames follow than those of the early states so far."""
        self._steps.drop_ahead()

    def push(self, features: Float, early: Float | None = None) -> Prediction:
        """The prediction for the next frames, features (n, L, D); n may be 0.

        Args:
            early: (m, D), early states of the next frames, if there is a lead. Then n is even, except at the end.
        """
        waiting = 0 if self._waiting is None else 1
        frames = features if self._waiting is None else np.concatenate([self._waiting, features])
        whole = len(frames) // STRIDE * STRIDE
        values = self._last
        if whole or early is not None:
            values = np.concatenate([self._last, self._steps.run(np.ascontiguousarray(frames[:whole]), early)])
        self._waiting = frames[whole:] if whole < len(frames) else None
        self._last = values[-1:]
        # Frame 2 s shows step s - 1, which is the last complete one, and frame 2 s + 1 shows step s. With early states
        # both frames come at once and show the same.
        first = waiting + (1 if early is None else 2)
        shown = values[((np.arange(len(features)) + first) // STRIDE).clip(max=len(values) - 1)]
        return Prediction(shown[:, :-2], shown[:, -2], shown[:, -1])


def load_compiled_diarizer(name: Path | str = "default") -> PackedDiarizer | None:
    """The diarizer of this name; None if it is not a causal one. Raises CheckpointError as `load_diarizer`."""
    folder = find_diarizer(name)
    config, state, rows = load_arrays(folder, KIND)
    sizes = load_sizes(config, folder)
    if not sizes.causal:
        return None
    with check_fit(folder):
        weights = quantize_layers({**state, **{name: stored.restore() for name, stored in rows.items()}}, {})
        packed = PackedDiarizer(sizes, weights)
        weights.check_all_read()
    return packed
