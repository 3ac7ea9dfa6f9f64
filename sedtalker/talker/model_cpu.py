"""The talker's network on one CPU core, for streams and recordings: the coefficients of `TalkerModel`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sedtalker.checkpoint import check_fit, config_from_plain, load_arrays
from sedtalker.face.arkit import (
    JAW_OPEN,
    MOUTH_FUNNEL,
    MOUTH_PUCKER,
    ROLL_LOWER,
    STRETCH_LEFT,
    STRETCH_RIGHT,
    TONGUE_OUT,
)
from sedtalker.kernels import LOG2_E, exp2
from sedtalker.layers_cpu import (
    ADD,
    GELU,
    LANES,
    NORM_EPSILON,
    SILU,
    STORE,
    Float,
    Linear,
    Recurrent,
    Rows,
    attend,
    compiled,
    linear,
    pack,
    pack_norm,
    pack_rows,
    pad_outputs,
    plain_norm,
    sigmoid,
    softmax,
    softplus,
)
from sedtalker.mamba import ROTARY_BASE
from sedtalker.talker.config import (
    CONTACT_GAP,
    CONTACT_ROLL,
    DOUBTFUL_CLOSURE,
    FREE_ROLL,
    KEPT_WIDTH,
    KIND,
    LARGEST_DOUBT,
    OPENING_GAIN,
    PARTED_GAP,
    PARTED_RAMP,
    SHARE_OF_CUES,
    STACK_WIDTH,
    TONGUE_GAP,
    TONGUE_HIDDEN,
    TONGUE_SHOWN,
    WIDENING_GAIN,
    WIDTH_PER_GAP,
    TalkerConfig,
)
from sedtalker.talker.expression_rules import (
    CLOSED_GAP,
    CONTACT_DAMPING,
    FREE_GAP,
    FULL_CONTACT,
    FULL_ROUNDING,
    GROWTH,
    HELD_GAP,
    ROUNDING_DAMPING,
    rule_arrays,
    sharpen,
)
from sedtalker.talker.segments import predict_segments
from sedtalker.weights import Weights

RULE_NAMES = ("kernel", "table", "effort", "emotional", "share", "gap", "rise", "widen", "part")  # of `ExpressionRules`
BLOCK = 32  # frames that are computed at once, at most
SMALLEST_MOUTH = np.array([0, -np.inf], np.float32)  # predicted gap and widening
MOUTH_SCALE = np.array([OPENING_GAIN, WIDENING_GAIN], np.float32)


@compiled
def _mix_layers(features: Float, weights: Float, y: Float) -> None:
    """y (n, D) = weighted sum over L of the layer norms of features (n, L, D)."""
    size = np.float32(features.shape[2])
    for t in range(y.shape[0]):
        for i in range(y.shape[1]):
            y[t, i] = np.float32(0.0)
        for layer in range(weights.shape[0]):
            total = np.float32(0.0)
            for i in range(y.shape[1]):
                total += features[t, layer, i]
            mean, square = total / size, np.float32(0.0)
            for i in range(y.shape[1]):
                square += (features[t, layer, i] - mean) * (features[t, layer, i] - mean)
            scale = weights[layer] / np.sqrt(square / size + np.float32(NORM_EPSILON))
            for i in range(y.shape[1]):
                y[t, i] += (features[t, layer, i] - mean) * scale


@compiled
def _mamba(
    inputs: Float, before: Float, taps: Float, bias: Float, project: Float, no_bias: Float, step: Float,
    step_bias: Float, A: Float, D: Float, h: Float, y: Float,
) -> None:  # fmt: skip
    """y (T, E), before its projection, of a Mamba block's projected inputs (T, 2 E): u and the gate.

    Args:
        before: (conv - 1, E), the last values of u; updated.
        taps: (conv, E) of the convolution.
        project: weights (rank + 2 N, E) of `pack_rows`, to step sizes, B and C.
        step: (rank, E).
        A: (N, E) times log2(e).
        h: (N, E), the state of the scan; updated.
    """
    frames, channels = y.shape
    reach, rank, states = before.shape[0], step.shape[0], A.shape[0]
    u = np.empty((frames, channels), np.float32)
    for t in range(frames):
        for e in range(channels):
            u[t, e] = bias[e]
        for tap in range(reach + 1):
            source = t - reach + tap
            if source >= 0:
                for e in range(channels):
                    u[t, e] += taps[tap, e] * inputs[source, e]
            else:
                for e in range(channels):
                    u[t, e] += taps[tap, e] * before[source + reach, e]
        for e in range(channels):
            u[t, e] = u[t, e] * sigmoid(u[t, e])
    for row in range(reach):
        source = frames - reach + row
        for e in range(channels):
            before[row, e] = inputs[source, e] if source >= 0 else before[source + reach, e]
    parts = np.empty((frames, rank + 2 * states), np.float32)
    linear(u, project, no_bias, parts, np.int64(STORE))  # no literal, for which numba compiles it again
    delta, entering = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for t in range(frames):
        for e in range(channels):
            delta[e] = step_bias[e]
        for r in range(rank):
            value = parts[t, r]
            for e in range(channels):
                delta[e] += value * step[r, e]
        for e in range(channels):
            delta[e] = softplus(delta[e])
            entering[e] = delta[e] * u[t, e]
            y[t, e] = D[e] * u[t, e]
        for n in range(states):
            into, out = parts[t, rank + n], parts[t, rank + states + n]
            for e in range(channels):
                h[n, e] = exp2(delta[e] * A[n, e]) * h[n, e] + entering[e] * into
                y[t, e] += out * h[n, e]
        for e in range(channels):
            gate = inputs[t, channels + e]
            y[t, e] *= gate * sigmoid(gate)


@compiled
def _rotate(x: Float, column: int, heads: int, cosine: Float, sine: Float, first: int, y: Float) -> None:
    """y (R, heads x size) = columns from `column` on of x (R, ...), rotated at the positions `first` on."""
    half = cosine.shape[1]
    for r in range(y.shape[0]):
        for h in range(heads):
            at = 2 * half * h
            for i in range(half):
                even, odd = x[r, column + at + i], x[r, column + at + half + i]
                c, s = cosine[first + r, i], sine[first + r, i]
                y[r, at + i] = even * c - odd * s
                y[r, at + half + i] = even * s + odd * c


@compiled
def _rotate_keys(x: Float, column: int, heads: int, cosine: Float, sine: Float, y: Float) -> None:
    """`_rotate` from position 0 on, with the result in columns: y (heads x size, >= R)."""
    half = cosine.shape[1]
    for h in range(heads):
        at = 2 * half * h
        for i in range(half):
            for r in range(x.shape[0]):
                even, odd = x[r, column + at + i], x[r, column + at + half + i]
                y[at + i, r] = even * cosine[r, i] - odd * sine[r, i]
                y[at + half + i, r] = even * sine[r, i] + odd * cosine[r, i]


@compiled
def _mix_experts(routes: Float, inner: Float, gates: Float) -> None:
    """Multiply the expert k's part of inner (T, experts x hidden) by its share, the softmax of routes (T, experts)."""
    experts = routes.shape[1]
    hidden = inner.shape[1] // experts
    for t in range(routes.shape[0]):
        for k in range(experts):
            gates[t, k] = routes[t, k]
        softmax(gates[t])
        for k in range(experts):
            for i in range(hidden):
                inner[t, k * hidden + i] *= gates[t, k]


@compiled
def _add_expression(
    lips: Float, history: Float, kernel: Float, table: Float, effort: Float, emotional: Float, share: Float, gap: Float,
    rise: Float, widen: Float, part: Float,
) -> None:  # fmt: skip
    """lips (T, 52), clipped to 0..1, with the expression of activations (H - 1 + T, C), as `ExpressionRules`."""
    activation, expression = np.empty(table.shape[0], np.float32), np.empty(lips.shape[1], np.float32)
    for t in range(lips.shape[0]):
        intensity = np.float32(0.0)
        for c in range(table.shape[0]):
            total = np.float32(0.0)
            for age in range(kernel.shape[0]):
                total += history[t + age, c] * kernel[age]
            activation[c] = total
            intensity += total * emotional[c]
        growth = np.float32(1.0) + np.float32(GROWTH) * (np.float32(1.0) - min(intensity, np.float32(1.0)))
        opening = change = np.float32(0.0)
        for i in range(lips.shape[1]):
            lips[t, i] = min(max(lips[t, i], np.float32(0.0)), np.float32(1.0))
            opening += lips[t, i] * gap[i]
        opening = max(opening, np.float32(0.0))
        for c in range(table.shape[0]):
            activation[c] *= growth
            change += activation[c] * effort[c]
        rounded = min((lips[t, MOUTH_PUCKER] + lips[t, MOUTH_FUNNEL]) / np.float32(FULL_ROUNDING), np.float32(1.0))
        contact = min(lips[t, ROLL_LOWER] / np.float32(FULL_CONTACT), np.float32(1.0))
        free = min(max((opening - np.float32(CLOSED_GAP)) / np.float32(FREE_GAP), np.float32(0.0)), np.float32(1.0))
        shut = np.float32(1.0) - free * (np.float32(1.0) - np.float32(CONTACT_DAMPING) * contact)
        damped = np.float32(ROUNDING_DAMPING) * rounded
        lift = np.float32(0.0)
        for i in range(lips.shape[1]):
            added = np.float32(0.0)
            for c in range(table.shape[0]):
                added += activation[c] * table[c, i]
            added *= share[i] * (np.float32(1.0) - damped * widen[i]) * (np.float32(1.0) - shut * part[i])
            lift += added * rise[i]
            expression[i] = added
        held = min(max((opening - np.float32(CLOSED_GAP)) / np.float32(HELD_GAP), np.float32(0.0)), np.float32(1.0))
        change = change * opening + contact * held * max(lift, np.float32(0.0))
        expression[JAW_OPEN] += change / gap[JAW_OPEN]
        for i in range(lips.shape[1]):
            lips[t, i] = min(max(lips[t, i] + expression[i], np.float32(0.0)), np.float32(1.0))


@compiled
def _add_cues(lips: Float, per_weight: Float, inputs: Float) -> None:
    """Clip lips (T, 52) to 0..1, and write gap, mouthRollLower and tongueOut to the last columns of inputs (T, ...)."""
    at = inputs.shape[1] - 3
    for t in range(lips.shape[0]):
        gap = np.float32(0.0)
        for i in range(lips.shape[1]):
            lips[t, i] = min(max(lips[t, i], np.float32(0.0)), np.float32(1.0))
            gap += lips[t, i] * per_weight[i]
        inputs[t, at], inputs[t, at + 1], inputs[t, at + 2] = gap, lips[t, ROLL_LOWER], lips[t, TONGUE_OUT]


@compiled
def _clip(x: Any, low: Any, high: Any) -> Any:
    return min(max(x, np.float32(low)), np.float32(high))


@compiled
def _fit_mouth(lips: Float, inputs: Float, logits: Float, mouth: Float, per_weight: Float, width: Float) -> None:
    """Move lips (T, 52) towards a gap by the share with logits (T, 1), and widen them, as `TalkerModel._fit_mouth`.

    mouth (T, 2) is the predicted gap and widening in mm; per_weight and width (52,) are the mm of lip gap and of mouth
    width for a weight of 1.
    """
    for_both = width[STRETCH_LEFT] + width[STRETCH_RIGHT]
    for t in range(lips.shape[0]):
        own, share, predicted = inputs[t, inputs.shape[1] - 3], logits[t, 0], mouth[t, 0]
        tongue = (lips[t, TONGUE_OUT] - np.float32(TONGUE_HIDDEN)) / np.float32(TONGUE_SHOWN - TONGUE_HIDDEN)
        parted = max(predicted, np.float32(TONGUE_GAP) * _clip(tongue, 0, 1))
        doubt = _clip(share - np.float32(DOUBTFUL_CLOSURE), 0, LARGEST_DOUBT)
        share += doubt * _clip((predicted - np.float32(PARTED_GAP)) / np.float32(PARTED_RAMP), 0, 1)
        fitted = own + sigmoid(share) * (parted - own)
        contact = _clip((lips[t, ROLL_LOWER] - np.float32(FREE_ROLL)) / np.float32(CONTACT_ROLL - FREE_ROLL), 0, 1)
        touching = min(max(fitted, parted), np.float32(CONTACT_GAP))
        change = fitted + contact * (touching - fitted) - own
        own_width = np.float32(0.0)
        for i in range(lips.shape[1]):
            own_width += lips[t, i] * width[i]
        before = lips[t, JAW_OPEN]
        lips[t, JAW_OPEN] = _clip(before + change / per_weight[JAW_OPEN], 0, 1)
        jaw = lips[t, JAW_OPEN] - before
        narrowed = width[JAW_OPEN] * jaw
        wanted = np.float32(STACK_WIDTH) * (own_width + np.float32(1 - KEPT_WIDTH) * narrowed) + mouth[t, 1]
        wanted += np.float32(WIDTH_PER_GAP) * (own + per_weight[JAW_OPEN] * jaw)
        wider = (np.float32(1.0) - contact) * (wanted - own_width - narrowed)
        stretch = max(wider / for_both, -min(lips[t, STRETCH_LEFT], lips[t, STRETCH_RIGHT]))
        lips[t, STRETCH_LEFT] += stretch
        lips[t, STRETCH_RIGHT] += stretch
        lips[t, MOUTH_PUCKER] += (wider - for_both * stretch) / width[MOUTH_PUCKER]
        for side in (STRETCH_LEFT, STRETCH_RIGHT, MOUTH_PUCKER):
            lips[t, side] = _clip(lips[t, side], 0, 1)


def supports(config: TalkerConfig) -> bool:
    """Whether the kernels compute this model: with expression by rule, plain positions and all experts."""
    plain = config.rotary == "plain" or not any(name.startswith("attention") for name in config.order)
    dense = config.top_k == config.experts or not any(name.endswith("moe") for name in config.order)
    return config.injection == "rules" and plain and dense


def _softmax(values: Float) -> Float:
    shares = np.exp(values - values.max())
    return (shares / shares.sum()).astype(np.float32)


class _Mamba:
    """A `MambaBlock` and its state."""

    def __init__(self, weights: Weights, config: TalkerConfig) -> None:
        width, states, inner, rank = config.width, config.states, config.expand * config.width, -(-config.width // 16)
        self._in = pack(weights, "in_proj", 2 * inner, width, bias=False)
        self._out = pack(weights, "out_proj", width, inner, bias=False)
        self._weights = (
            np.ascontiguousarray(weights.array("conv1d.weight", inner, 1, config.conv)[:, 0].T),
            weights.array("conv1d.bias", inner),
            pack_rows(weights.array("x_proj.weight", rank + 2 * states, inner)),
            pad_outputs(np.zeros(rank + 2 * states, np.float32)),
            np.ascontiguousarray(weights.array("dt_proj.weight", inner, rank).T),
            weights.array("dt_proj.bias", inner),
            np.ascontiguousarray(-np.exp(weights.array("A_log", inner, states)).T * np.float32(LOG2_E)),
            weights.array("D", inner),
        )
        self._inner, self._states, self._reach = inner, states, config.conv - 1

    def start(self) -> tuple[Float, Float]:
        """The state before the first frame."""
        return np.zeros((self._reach, self._inner), np.float32), np.zeros((self._states, self._inner), np.float32)

    def add(self, x: Float, y: Float, state: tuple[Float, Float]) -> None:
        """Add the output of x (n, width) to y, and update the state."""
        mixed = np.empty((len(x), self._inner), np.float32)
        inputs = self._in(x, np.empty((len(x), 2 * self._inner), np.float32))
        _mamba(inputs, state[0], *self._weights, state[1], mixed)
        self._out(mixed, y, ADD)


class _Attention:
    """A `WindowedAttention` and its state."""

    def __init__(self, weights: Weights, config: TalkerConfig) -> None:
        width, size = config.width, config.width // config.heads
        self._heads, self._shared, self._size, self._window = config.heads, config.kv_heads, size, config.window
        heads = (("q_proj", config.heads), ("k_proj", config.kv_heads), ("v_proj", config.kv_heads))
        self._in = Linear(np.concatenate([weights.array(f"{name}.weight", n * size, width) for name, n in heads]))
        self._out = pack(weights, "o_proj", width, config.heads * size, bias=False)
        position = np.arange(config.window + BLOCK)[:, None]
        angle = position * ROTARY_BASE ** -(np.arange(0, size, 2) / size)
        self._cosine, self._sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def start(self) -> Rows:
        """The state before the first frame."""
        return Rows(self._in.outputs)

    def add(self, x: Float, y: Float, state: Rows) -> None:
        """Add the output of x (n, width) to y, and update the state."""
        own, heads = len(x), self._heads
        self._in(x, state.extend(own))
        rows = state.view(state.first, state.count)
        first = len(rows) - own
        queries, width = np.empty((len(rows), heads * self._size), np.float32), heads * self._size
        keys = np.empty((self._shared * self._size, len(rows) + LANES), np.float32)
        _rotate(rows[first:], 0, heads, self._cosine, self._sine, first, queries[first:])
        _rotate_keys(rows, width, self._shared, self._cosine, self._sine, keys)
        mixed = np.empty((own, width), np.float32)
        attend(
            queries, first, keys, 0, rows, width + len(keys), heads, heads // self._shared, self._size,
            self._window - 1, 0, mixed,
        )  # fmt: skip
        self._out(mixed, y, ADD)
        state.drop(state.count - self._window + 1)


class _Experts:
    """A `MixtureOfExperts` that uses all experts, as one wide network whose hidden units the router scales."""

    def __init__(self, weights: Weights, config: TalkerConfig) -> None:
        width, hidden, count = config.width, config.expert_hidden, config.experts
        self._router = pack(weights, "router", count, width, bias=False)
        experts = [weights.part(f"experts.{number}") for number in range(count)]
        self._in = Linear(
            np.concatenate([expert.array("0.weight", hidden, width) for expert in experts]),
            np.concatenate([expert.array("0.bias", hidden) for expert in experts]),
        )
        self._out = Linear(np.concatenate([expert.array("2.weight", width, hidden) for expert in experts], axis=1))
        self._bias = Linear(np.stack([expert.array("2.bias", width) for expert in experts], axis=1))

    def add(self, x: Float, y: Float) -> None:
        """Add the output of x (n, width) to y."""
        routes = self._router(x, np.empty((len(x), self._router.outputs), np.float32))
        inner = self._in(x, np.empty((len(x), self._in.outputs), np.float32), SILU)
        gates = np.empty_like(routes)
        _mix_experts(routes, inner, gates)
        self._out(inner, y, ADD)
        self._bias(gates, y, ADD)


class _Opening:
    """A `LipOpening`, and the share of its gap."""

    def __init__(self, weights: Weights, config: TalkerConfig) -> None:
        network, width, inputs = weights.part("opening"), config.opening_width, config.feature_width
        self._mix = _softmax(network.array("layer_weights", config.layers))
        self._project, self._norm = pack(network, "project", width, inputs), plain_norm(inputs)
        self._head, self._both_head = pack(network, "live_head", 2, width), pack(network, "offline_head", 2, 2 * width)
        self.share = pack(weights, "opening_share", 1, config.width + len(SHARE_OF_CUES))
        past, both = network.part("past"), network.part("both")
        self._layers = [Recurrent(past, f"l{layer}", width, width) for layer in range(2)]
        self._both = [
            [Recurrent(both, f"l{layer}{ending}", width, (layer + 1) * width) for ending in ("", "_reverse")]
            for layer in range(2)
        ]
        self._size = width
        self._mean, self._scale = (network.array(name, 2) for name in ("mean", "scale"))

    def start(self) -> Float:
        """The state before the first frame."""
        return np.zeros((len(self._layers), self._size), np.float32)

    def embed(self, features: Float) -> Float:
        """`LipOpening.embed` of features (n, L, D)."""
        mixed = np.empty((len(features), features.shape[2]), np.float32)
        _mix_layers(features, self._mix, mixed)
        return self._project(self._norm(mixed, mixed), np.empty((len(features), self._size), np.float32), GELU)

    def predict(self, embedded: Float, state: Float) -> Float:
        """Lip gap and added widening (n, 2) in mm of the embedding (n, width); the state is updated."""
        x = np.ascontiguousarray(embedded)
        for layer, hidden in zip(self._layers, state, strict=True):
            x = layer.run(x, hidden)
        return self._scaled(self._head, x)

    def predict_both(self, embedded: Float) -> Float:
        """The same of a whole recording, in both directions of time."""
        x = np.ascontiguousarray(embedded)
        for forward, backward in self._both:
            past = forward.run(x, forward.start())
            future = backward.run(np.ascontiguousarray(x[::-1]), backward.start())[::-1]
            x = np.concatenate([past, future], axis=1)
        return self._scaled(self._both_head, x)

    def predict_recording(self, embedded: Float) -> Float:
        """The same as `LipOpening.run_recording` combines it."""
        mouth = self.predict_both(embedded)
        mouth[:, 1] = (mouth[:, 1] + self.predict(embedded, self.start())[:, 1]) / 2
        return mouth

    def _scaled(self, head: Linear, x: Float) -> Float:
        """`scale_mouth` of a head's output."""
        mouth = head(x, np.empty((len(x), head.outputs), np.float32)) * self._scale + self._mean
        return np.maximum(mouth, SMALLEST_MOUTH) * MOUTH_SCALE


class PackedTalker:
    """The weights of a model; streams share it."""

    def __init__(self, config: TalkerConfig, weights: Weights) -> None:
        """`weights` of a `TalkerModel`."""
        self.config, width = config, config.width
        style = weights.array("styles.weight", config.styles, width).mean(0)
        self._layers = _softmax(weights.array("layer_weights", config.layers))
        self._project = Linear(
            weights.array("project.weight", width, config.feature_width), weights.array("project.bias", width) + style
        )
        self.mixers: list[_Mamba | _Attention] = []
        self.experts: list[_Experts | None] = []
        self.norms: list[tuple[Any, Any]] = []
        for number, name in enumerate(config.order):
            layer, (mixer, _, experts) = weights.part(f"stack.{number}"), name.partition("+")
            self.mixers.append((_Mamba if mixer == "mamba" else _Attention)(layer.part("mixer"), config))
            self.experts.append(_Experts(layer.part("experts"), config) if experts else None)
            self.norms.append(
                (pack_norm(layer, "norm", width), pack_norm(layer, "experts_norm", width) if experts else None)
            )
        self.norm, self.lips = pack_norm(weights, "norm", width), pack(weights, "lips", config.coefficients, width)
        self.opening = _Opening(weights, config) if config.opening_width else None
        rules = rule_arrays(config.labels, config.emotion_kernel_frames)
        self.rules = tuple(rules[name] for name in RULE_NAMES)
        self.gap_per_weight, self.width_per_weight = rules["gap"], rules["width"]

    def embed(self, features: Float) -> Float:
        """`TalkerModel.embed` (n, embedded_width) of features (n, L, D), in the mean style."""
        features = np.ascontiguousarray(features)
        mixed = np.empty((len(features), features.shape[2]), np.float32)
        _mix_layers(features, self._layers, mixed)
        x = self._project(mixed, np.empty((len(features), self.config.width), np.float32))
        return x if self.opening is None else np.concatenate([x, self.opening.embed(features)], axis=1)

    def recording_mouth(self, blocks: Iterable[Float]) -> Float | None:
        """`TalkerModel.recording_mouth` (T, 2) in mm, of blocks (n, embedded_width) of `embed`."""
        if self.opening is None:
            return None
        inputs = (block[:, self.config.width :] for block in blocks)
        return np.concatenate([np.zeros((0, 2), np.float32), *predict_segments(self.opening.predict_recording, inputs)])

    def start_steps(self) -> PackedMotion:
        """The coefficients of a stream or recording, before its first frame."""
        return PackedMotion(self)


class PackedMotion:
    """The coefficients of one stream, as `TalkerModel.step_embedded` and `finish`."""

    def __init__(self, talker: PackedTalker) -> None:
        self._talker = talker
        self._states: list[Any] = [mixer.start() for mixer in talker.mixers]
        self._history: Float | None = None  # (H - 1, C), activations of the last frames
        self._ahead = talker.config.look_ahead  # frames to skip before the first output
        self._last: tuple[Float, Float] | None = None
        self._opening = None if talker.opening is None else talker.opening.start()

    def push(self, speech: Float, posterior: Float, intensity: Float, mouth: Float | None = None) -> Float:
        """Coefficients (m, K) of the frames that are complete; arguments as `MotionDecoder.push`."""
        return self._run(speech, intensity[:, None] * sharpen(posterior), mouth)

    def _run(self, speech: Float, activation: Float, mouth: Float | None = None) -> Float:
        blocks = [slice(start, start + BLOCK) for start in range(0, len(speech), BLOCK)]
        parts = [
            self._step(speech[block], activation[block], None if mouth is None else mouth[block]) for block in blocks
        ]
        if not parts:
            return np.zeros((0, self._talker.config.coefficients), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def finish(self) -> Float:
        """Coefficients (<= look_ahead, K) of the last frames."""
        frames = self._talker.config.look_ahead
        if self._last is None or not frames:
            return np.zeros((0, self._talker.config.coefficients), np.float32)
        return self._run(*(np.repeat(last, frames, axis=0) for last in self._last))

    def _step(self, speech: Float, activation: Float, mouth: Float | None = None) -> Float:
        talker = self._talker
        x = np.array(speech[:, : talker.config.width], order="C")
        normed = np.empty_like(x)
        for mixer, experts, norms, state in zip(talker.mixers, talker.experts, talker.norms, self._states, strict=True):
            mixer.add(norms[0](x, normed), x, state)
            if experts is not None:
                experts.add(norms[1](x, normed), x)
        lips = talker.lips(talker.norm(x, normed), np.empty((len(x), talker.config.coefficients), np.float32))
        if talker.opening is not None and self._opening is not None:
            if mouth is None:
                mouth = talker.opening.predict(speech[:, talker.config.width :], self._opening)
            inputs = np.empty((len(x), talker.opening.share.inputs), np.float32)
            inputs[:, : normed.shape[1]] = normed
            _add_cues(lips, talker.gap_per_weight, inputs)
            logits = talker.opening.share(inputs, np.empty((len(x), 1), np.float32))
            per_weight = talker.gap_per_weight, talker.width_per_weight
            _fit_mouth(lips, inputs, logits, np.ascontiguousarray(mouth), *per_weight)
        before = talker.config.emotion_kernel_frames - 1
        history = np.repeat(activation[:1], before, axis=0) if self._history is None else self._history
        history = np.concatenate([history, activation])
        _add_expression(lips, history, *talker.rules)
        self._history, self._last = history[len(x) :], (speech[-1:], activation[-1:])
        skipped = min(self._ahead, len(x))
        self._ahead -= skipped
        return lips[skipped:]


def load_compiled_talker(folder: Path | str) -> PackedTalker | None:
    """The talker of a folder; None if the kernels do not support it. Raises CheckpointError as `load_talker_model`."""
    config, state, rows = load_arrays(folder, KIND)
    sizes = config_from_plain(TalkerConfig, config, KIND)
    if not supports(sizes):
        return None
    with check_fit(folder):
        weights = Weights({**state, **{name: stored.restore() for name, stored in rows.items()}})
        packed = PackedTalker(sizes, weights)
        weights.check_all_read()
    return packed
