"""The talker's network: speech features and the emotion of every frame -> coefficients of the motion of a face.

    features (B, T, L, D) -> weighted sum of the encoder's layers -> hybrid stack (Mamba, experts, attention) -> lips
    features, optionally  -> lip gap (`sedtalker.talker.lip_opening`)  -> the jaw of the lips, where nothing closes them
    posterior, intensity  -> a_k(t) = i(t) p_k(t)         -> expression by rule (`sedtalker.talker.expression`)
    coefficients = lips + expression

The expression can be learned instead, for faces without a rig and for emotions without a rule:

    c(t) = e_neutral + sum_k a_k(t) (e_k - e_neutral) -> emotion residual, damped in the lower face while speaking

The coefficients are the rig's blendshape weights, or those of a basis of vertex displacements, or the displacements.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.checkpoint import check_fit, config_from_plain, load_checkpoint, load_weights, save_checkpoint
from sedtalker.face.arkit import (
    ARKIT_NAMES,
    JAW_OPEN,
    MOUTH_PUCKER,
    ROLL_LOWER,
    STRETCH_LEFT,
    STRETCH_RIGHT,
    TONGUE_OUT,
)
from sedtalker.mamba.attention import AttentionState, WindowedAttention
from sedtalker.mamba.block import MambaBlock, MambaState
from sedtalker.mamba.moe import MixtureOfExperts
from sedtalker.talker.config import (
    CONTACT_GAP,
    CONTACT_ROLL,
    DOUBTFUL_CLOSURE,
    FREE_ROLL,
    KEPT_WIDTH,
    KIND,
    LARGEST_DOUBT,
    LOWER_FACE,
    MEAN_STYLE,
    OPENING_GAIN,
    PARTED_GAP,
    PARTED_RAMP,
    SHARE_OF_CLOSED_LIPS,
    SHARE_OF_CUES,
    STACK_WIDTH,
    TONGUE_GAP,
    TONGUE_HIDDEN,
    TONGUE_SHOWN,
    WIDENING_GAIN,
    WIDTH_PER_GAP,
    TalkerConfig,
)
from sedtalker.talker.config import HEADS as HEADS
from sedtalker.talker.config import INJECTIONS as INJECTIONS
from sedtalker.talker.expression import ExpressionRules, activate, repeat_first, sharpen
from sedtalker.talker.lip_opening import LipOpening

LayerState = MambaState | AttentionState


class TalkerState(NamedTuple):
    """The state between two chunks. H is `emotion_kernel_frames`."""

    layers: tuple[LayerState, ...]
    emotion_history: Tensor  # (B, H - 1, C), activations of the last frames
    last_input: Tensor  # (B, 1, width), last input of the stack, repeated after the end
    last_activation: Tensor  # (B, 1, C), repeated after the end
    ahead: int  # frames to skip before the first output
    opening: Tensor | None = None  # (2, B, opening_width), of the network of the lip gap


class Motion(NamedTuple):
    """Output for training."""

    coefficients: Tensor  # (B, T, K)
    lips: Tensor  # (B, T, K), the same speech at intensity 0
    balance: Tensor  # (), load-balancing loss, 1 if all experts are used equally
    share: Tensor | None = None  # (B, T), logit of the share of the predicted lip gap, if the talker predicts it


class TalkerModel(nn.Module):
    """The decoder from speech features and emotion to coefficients, at the features' 50 Hz."""

    def __init__(self, config: TalkerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TalkerConfig()
        self.layer_weights = nn.Parameter(torch.zeros(config.layers))
        self.project = nn.Linear(config.feature_width, config.width)
        self.styles = nn.Embedding(config.styles, config.width)
        if config.injection != "rules":
            self.emotions = nn.Embedding(len(config.labels), config.emotion_width)
        self.neutral = config.labels.index("neutral")
        self.dropout = nn.Dropout(config.dropout)
        if config.injection == "added":
            self.added = nn.Linear(config.emotion_width, config.width)
        self.stack = nn.ModuleList(HybridLayer(config, name) for name in config.order)
        self.norm = nn.LayerNorm(config.width)
        self.lips = nn.Linear(config.width, config.coefficients)
        self.residual = EmotionResidual(config) if config.injection == "residual" else None
        rules = config.injection == "rules"
        self.expression = ExpressionRules(config.labels, config.emotion_kernel_frames) if rules else None
        self.opening: LipOpening | None = None
        self.opening_share: nn.Linear | None = None
        if config.opening_width:
            self.opening = LipOpening(config.layers, config.feature_width, config.opening_width)
            self.opening_share = nn.Linear(config.width + len(SHARE_OF_CUES), 1)
            with torch.no_grad():
                self.opening_share.weight.zero_()
                self.opening_share.weight[0, config.width :] = torch.tensor(SHARE_OF_CUES)
                self.opening_share.bias.fill_(SHARE_OF_CLOSED_LIPS)
        if config.head == "basis":
            self.basis = nn.Parameter(torch.randn(config.coefficients, 3 * config.vertices) * 1e-3)  # metres
        elif config.head == "pca":
            self.register_buffer("basis", torch.zeros(config.coefficients, 3 * config.vertices))
        nn.init.zeros_(self.styles.weight)
        nn.init.zeros_(self.lips.weight)
        nn.init.zeros_(self.lips.bias)

    def forward(self, features: Tensor, posterior: Tensor, intensity: Tensor, style: Tensor | None = None) -> Tensor:
        """Coefficients (B, T, K) of whole utterances.

        Args:
            features: (B, T, L, D) of the speech encoder.
            posterior: (B, T, C) over the emotions, rows sum to 1.
            intensity: (B, T) in 0..1; 0 is exactly the neutral animation.
            style: (B,) indices of speakers, MEAN_STYLE for others; None is the mean style for all.
        """
        embedded = self.embed(features, style)
        x, activation = self._utterance_inputs(embedded, posterior, intensity)
        return self._run_utterance(x, activation, self.recording_mouth(embedded))[0]

    def motion(self, features: Tensor, posterior: Tensor, intensity: Tensor, style: Tensor | None = None) -> Motion:
        """`forward`, with the coefficients at intensity 0 and the load-balancing loss, for training."""
        embedded = self.embed(features, style)
        x, activation = self._utterance_inputs(embedded, posterior, intensity)
        mouth = self._training_mouth(embedded) if self.training else self.recording_mouth(embedded)
        neutral = torch.zeros_like(activation)
        coefficients, hidden, balance = self._run_utterance(x, activation, mouth)
        if self.config.injection == "added":
            lips = self._run_utterance(x, neutral, mouth)[0]
        else:  # the stack does not see the emotion
            lips = self._decode(hidden, self._pad_history(neutral), mouth)[:, self.config.look_ahead :]
        share = None if self.opening is None else self.share_of_gap(clamp_with_gradient(self.lips(hidden)), hidden)
        return Motion(coefficients, lips, balance, share)

    def step(
        self,
        features: Tensor,
        posterior: Tensor,
        intensity: Tensor,
        style: Tensor | None = None,
        state: TalkerState | None = None,
    ) -> tuple[Tensor, TalkerState]:
        """The next chunk of utterances; arguments as `forward`, a state of None starts the utterances.

        Returns:
            Coefficients (B, n, K) of the frames that are complete, `look_ahead` frames behind the chunk, and the state.
        """
        return self.step_embedded(self.embed(features, style), posterior, intensity, state)

    def step_embedded(
        self,
        embedded: Tensor,
        posterior: Tensor,
        intensity: Tensor,
        state: TalkerState | None = None,
        mouth: Tensor | None = None,
    ) -> tuple[Tensor, TalkerState]:
        """`step` for the embedding (B, T, embedded_width) of `embed`.

        Args:
            mouth: (B, T, 2) of `recording_mouth`, if the whole recording is known.
        """
        activation = self._activate(posterior, intensity)
        if state is None:
            history = self._pad_history(activation[:, :1])[:, :-1]
            state = TalkerState((), history, embedded[:, :1], activation[:, :1], self.config.look_ahead)
        return self._step(embedded, activation, state, mouth)

    def finish(self, state: TalkerState) -> Tensor:
        """Coefficients (B, <= look_ahead, K) of the last frames, after the last chunk."""
        frames = self.config.look_ahead
        if frames == 0:  # no frame is missing
            return state.last_input.new_zeros(len(state.last_input), 0, self.config.coefficients)
        x, activation = (last.expand(-1, frames, -1) for last in (state.last_input, state.last_activation))
        return self._step(x, activation, state)[0]

    @property
    def embedded_width(self) -> int:
        """Columns of `embed`."""
        return self.config.embedded_width

    def embed(self, features: Tensor, style: Tensor | None = None) -> Tensor:
        """Embedding (B, T, embedded_width) of features (B, T, L, D).

        The stack's input (width), a learned mixture of the encoder's layers plus the speaker's style, and that of the
        network of the lip gap.
        """
        normed = F.layer_norm(features.float(), features.shape[-1:])
        mixed = torch.einsum("btld,l->btd", normed, self.layer_weights.softmax(0))
        x = self.project(self.dropout(mixed)) + self._style(style)[:, None]
        return x if self.opening is None else torch.cat([x, self.opening.embed(features)], dim=-1)

    def read_stack(self, features: Tensor, style: Tensor | None = None) -> Tensor:
        """Output (B, T + look_ahead, width) of the stack for features (B, T, L, D); not for injection "added"."""
        x = self._pad_lookahead(self._split(self.embed(features, style))[0])
        return self._run_stack(x, x.new_zeros(len(x), x.shape[1], len(self.config.labels)), ())[0]

    def recording_mouth(self, embedded: Tensor) -> Tensor | None:
        """`scale_mouth` (B, T, 2) of the embedding of whole recordings; None without a network of the lip gap."""
        return None if self.opening is None else scale_mouth(self.opening.run_recording(self._split(embedded)[1]))

    def _training_mouth(self, embedded: Tensor) -> Tensor | None:
        """`recording_mouth`, or with an even chance that of a stream, drawn for each utterance."""
        if self.opening is None:
            return None
        inputs = self._split(embedded)[1]
        live, whole = self.opening.run_past(inputs)[0], self.opening.run_recording(inputs)
        chosen = torch.rand(len(embedded), 1, 1, device=embedded.device) < 0.5
        return torch.where(chosen, scale_mouth(live), scale_mouth(whole))

    def _split(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of the stack (B, T, width) and of the network of the lip gap (B, T, opening_width)."""
        return embedded[..., : self.config.width], embedded[..., self.config.width :]

    def _style(self, style: Tensor | None) -> Tensor:
        """(B or 1, width)."""
        mean = self.styles.weight.mean(0, keepdim=True)
        if style is None:
            return mean
        return torch.where((style == MEAN_STYLE)[:, None], mean, self.styles(style.clamp(min=0)))

    def _utterance_inputs(self, embedded: Tensor, posterior: Tensor, intensity: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, T + ahead, width) and activations (B, T + ahead, C) of the stack for whole utterances."""
        activation = self._activate(posterior, intensity)
        return self._pad_lookahead(self._split(embedded)[0]), self._pad_lookahead(activation)

    def _activate(self, posterior: Tensor, intensity: Tensor) -> Tensor:
        """Activations (B, T, C) of the emotions; rules show one emotion clearly rather than several a little."""
        return activate(posterior if self.expression is None else sharpen(posterior), intensity)

    def emotion_offset(self, activation: Tensor) -> Tensor:
        """c(t) - e_neutral = sum_k a_k(t) (e_k - e_neutral), (B, T, emotion_width), of activations a (B, T, C)."""
        return activation @ (self.emotions.weight - self.emotions.weight[self.neutral])

    def displacements(self, coefficients: Tensor) -> Tensor:
        """Vertex displacements (T, V, 3) in metres of coefficients (T, K); not for the blendshapes head."""
        if self.config.head == "blendshapes":
            raise ValueError("blendshape weights are applied by Face.pose")
        flat = coefficients if self.config.head == "dense" else coefficients @ self.basis
        return flat.unflatten(-1, (self.config.vertices, 3))

    @torch.inference_mode()
    def predict_displacements(self, curves: NDArray[np.float32]) -> NDArray[np.float32]:
        """`displacements` of arrays."""
        return self.displacements(torch.from_numpy(curves).to(self.layer_weights.device)).cpu().numpy()

    def _pad_lookahead(self, x: Tensor) -> Tensor:
        """x (B, T, ...) of whole utterances with its last frame repeated for the look-ahead."""
        return torch.cat([x, x[:, -1:].expand(-1, self.config.look_ahead, -1)], dim=1)

    def _pad_history(self, activation: Tensor) -> Tensor:
        """Activations (B, T, C) with the first one repeated before it: (B, H - 1 + T, C)."""
        return repeat_first(activation, self.config.emotion_kernel_frames - 1)

    def _run_utterance(self, x: Tensor, activation: Tensor, mouth: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (B, T, K), output of the stack and balance loss of padded x and activation (B, T + ahead, :)."""
        hidden, _, balance = self._run_stack(x, activation, ())
        coefficients = self._decode(hidden, self._pad_history(activation), mouth)
        return coefficients[:, self.config.look_ahead :], hidden, balance

    def _step(
        self, embedded: Tensor, activation: Tensor, state: TalkerState, mouth: Tensor | None = None
    ) -> tuple[Tensor, TalkerState]:
        x, inputs = self._split(embedded)
        hidden, layers, _ = self._run_stack(x, activation, state.layers)
        opening = state.opening
        if self.opening is not None and mouth is None:
            live, opening = self.opening.run_past(inputs, opening)
            mouth = scale_mouth(live)
        history = torch.cat([state.emotion_history, activation], dim=1)
        coefficients = self._decode(hidden, history, mouth)[:, state.ahead :]
        ahead = max(0, state.ahead - x.shape[1])
        last = embedded[:, -1:], activation[:, -1:]
        return coefficients, TalkerState(layers, history[:, x.shape[1] :], *last, ahead, opening)

    def _run_stack(
        self, x: Tensor, activation: Tensor, states: tuple[LayerState, ...]
    ) -> tuple[Tensor, tuple[LayerState, ...], Tensor]:
        """Output (B, T, width), states and mean balance loss of the layers; no states start the utterances."""
        if self.config.injection == "added":
            x = x + self.added(self.emotion_offset(activation) + self.emotions.weight[self.neutral])
        after, balances = [], []
        for layer, state in zip(self.stack, states or (None,) * len(self.stack), strict=True):
            x, new, balance = layer(x, state)
            after.append(new)
            balances.append(balance)
        return self.norm(x), tuple(after), torch.stack(balances).mean()

    def _decode(self, hidden: Tensor, history: Tensor, mouth: Tensor | None) -> Tensor:
        """Coefficients (B, T, K) of the stack's output (B, T, width), activations (B, H - 1 + T, C) and the mouth."""
        hidden = self.dropout(hidden)
        raw = self.lips(hidden)
        if self.residual is not None:
            raw = raw + self.residual(hidden, self.emotion_offset(history))
        if self.expression is not None:
            lips = clamp_with_gradient(raw)
            if mouth is not None:
                lips = self._fit_mouth(lips, hidden, mouth)
            raw = self.expression(lips, self.expression.average(history))
        return clamp_with_gradient(raw) if self.config.head == "blendshapes" else raw

    def _fit_mouth(self, lips: Tensor, hidden: Tensor, mouth: Tensor) -> Tensor:
        """Move the jaw of lips (B, T, 52) so that they part by a gap in mm, where nothing else decides that.

        The share of the gap, a function of the stack's output (B, T, width) and of its lips, is small where the stack
        closes them; a large predicted gap raises the share of a closure that is not sure. A visible tip of the tongue
        needs a gap of at least `TONGUE_GAP`, and a contact of the lower lip with the teeth one of at most
        `CONTACT_GAP`. The mouth's width is a part of the stack's, of which the moved jaw keeps a part, the predicted
        widening, and a little of the gap.

        Args:
            mouth: (B, T, 2), the predicted gap and widening of `scale_mouth`.
        """
        assert self.expression is not None
        width, predicted = self.expression.width, mouth[..., 0]
        own = lips @ self.expression.gap
        tongue = (lips[..., TONGUE_OUT].detach() - TONGUE_HIDDEN) / (TONGUE_SHOWN - TONGUE_HIDDEN)
        gap = torch.maximum(predicted, TONGUE_GAP * tongue.clamp(0, 1))
        share = self.share_of_gap(lips, hidden)
        parted = ((predicted.detach() - PARTED_GAP) / PARTED_RAMP).clamp(0, 1)
        share = share + parted * (share - DOUBTFUL_CLOSURE).clamp(0, LARGEST_DOUBT)
        fitted = own + share.sigmoid() * (gap - own)
        contact = ((lips[..., ROLL_LOWER].detach() - FREE_ROLL) / (CONTACT_ROLL - FREE_ROLL)).clamp(0, 1)
        touching = torch.maximum(fitted, gap).clamp(max=CONTACT_GAP)
        change = fitted + contact * (touching - fitted) - own
        fitted_lips = clamp_with_gradient(
            lips + (change / self.expression.gap[JAW_OPEN])[..., None] * self.expression.jaw
        )
        jaw = (fitted_lips - lips)[..., JAW_OPEN]
        own_width, narrowed = lips @ width, width[JAW_OPEN] * jaw
        opened = own + self.expression.gap[JAW_OPEN] * jaw
        wanted = STACK_WIDTH * (own_width + (1 - KEPT_WIDTH) * narrowed) + mouth[..., 1] + WIDTH_PER_GAP * opened
        change = (1 - contact) * (wanted - own_width - narrowed)
        return clamp_with_gradient(self._widen(fitted_lips, change))

    def _widen(self, lips: Tensor, change: Tensor) -> Tensor:
        """Lips (B, T, 52) with a mouth wider by a change (B, T) in mm.

        Stretching widens the mouth. Less of it narrows the mouth, and puckering does where there is none left.
        """
        assert self.expression is not None
        width = self.expression.width
        for_both = width[STRETCH_LEFT] + width[STRETCH_RIGHT]
        stretch = torch.maximum(change / for_both, -torch.minimum(lips[..., STRETCH_LEFT], lips[..., STRETCH_RIGHT]))
        lips = lips.clone()
        lips[..., STRETCH_LEFT] += stretch
        lips[..., STRETCH_RIGHT] += stretch
        lips[..., MOUTH_PUCKER] += (change - for_both * stretch) / width[MOUTH_PUCKER]
        return lips

    def share_of_gap(self, lips: Tensor, hidden: Tensor) -> Tensor:
        """Logit (B, T) of the share of the predicted gap for lips (B, T, 52) and the stack's output (B, T, width)."""
        assert self.opening_share is not None
        return self.opening_share(self.share_cues(lips, hidden))[..., 0]

    def share_cues(self, lips: Tensor, hidden: Tensor) -> Tensor:
        """Inputs (B, T, width + 3) of the share: the stack's output, and gap, mouthRollLower and tongueOut of lips."""
        assert self.expression is not None
        cues = [lips @ self.expression.gap, lips[..., ROLL_LOWER], lips[..., TONGUE_OUT]]
        return torch.cat([hidden, torch.stack(cues, dim=-1).detach()], dim=-1)


class HybridLayer(nn.Module):
    """A mixer over time (Mamba or attention) and optional experts, each in a pre-norm residual."""

    def __init__(self, config: TalkerConfig, name: str) -> None:
        super().__init__()
        mixer, _, experts = name.partition("+")
        self.norm = nn.LayerNorm(config.width)
        self.mixer: nn.Module
        if mixer == "mamba":
            self.mixer = MambaBlock(config.width, config.states, config.conv, config.expand)
        else:
            self.mixer = WindowedAttention(
                config.width, config.heads, config.kv_heads, config.window, config.rotary, config.rotary_rank
            )
        self.experts = None
        if experts:
            self.experts_norm = nn.LayerNorm(config.width)
            self.experts = MixtureOfExperts(config.width, config.expert_hidden, config.experts, config.top_k)

    def forward(self, x: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState, Tensor]:
        """y (B, T, width), the state, and the load-balancing loss (), 1 without experts."""
        mixed, state = self.mixer(self.norm(x), state)
        x = x + mixed
        balance = x.new_ones(())
        if self.experts is not None:
            output, balance = self.experts(self.experts_norm(x))
            x = x + output
        return x, state, balance


class EmotionResidual(nn.Module):
    """The emotion's part of the coefficients: g(h, c) - g(h, e_neutral), damped in the lower face while speaking.

    g(h, c) = out(gain(h) * direction(c)) is linear in c, so that the residual is proportional to the intensity and
    exactly zero at intensity 0. It is zero everywhere before training. c enters as a few learned averages over the last
    H = `emotion_kernel_frames` frames: a track can jump, and the expression follows gradually.
    """

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.gain = nn.Linear(config.width, 4 * config.emotion_width)
        self.direction = nn.Linear(
            config.emotion_time_constants * config.emotion_width, 4 * config.emotion_width, bias=False
        )
        age = torch.arange(config.emotion_kernel_frames).flip(0)  # frames before the current one
        constants = 2.0 * 2 ** torch.arange(config.emotion_time_constants)[:, None]  # frames, 2, 4, 8, ... at the start
        self.tempo = nn.Parameter(-age / constants)  # (time constants, H), logarithmic weights of the averages
        self.out = nn.Linear(4 * config.emotion_width, config.coefficients, bias=False)
        self.speaking = nn.Linear(config.width, 1)
        self.damping = nn.Parameter(torch.zeros(config.coefficients))
        self.register_buffer("lower", _lower_face(config), persistent=False)
        nn.init.zeros_(self.gain.weight)
        nn.init.ones_(self.gain.bias)
        nn.init.zeros_(self.out.weight)

    def forward(self, hidden: Tensor, history: Tensor) -> Tensor:
        """(B, T, K) of hidden (B, T, width) and the offsets c - e_neutral (B, H - 1 + T, emotion_width)."""
        residual = self.out(self.gain(hidden) * self.direction(self.averages(history)))
        damping = self.speaking(hidden).sigmoid() * self.damping.sigmoid() * self.lower
        return residual * (1 - damping)

    def averages(self, history: Tensor) -> Tensor:
        """(B, T, emotion_width x time constants) of offsets (B, H - 1 + T, emotion_width)."""
        batch, _, width = history.shape
        rows = history.transpose(1, 2).reshape(batch * width, 1, -1)
        averaged = F.conv1d(rows, self.tempo.softmax(-1)[:, None].to(rows.dtype))  # (B x width, time constants, T)
        return averaged.view(batch, -1, averaged.shape[-1]).transpose(1, 2)


def _lower_face(config: TalkerConfig) -> Tensor:
    """(K,) 1 where a coefficient moves the lower face; all of them if they are not blendshapes."""
    if config.head != "blendshapes":
        return torch.ones(config.coefficients)
    return torch.tensor([float(name.startswith(LOWER_FACE)) for name in ARKIT_NAMES])


class _ClampWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        outward = ((x < 0) & (gradient > 0)) | ((x > 1) & (gradient < 0))
        return gradient.masked_fill(outward, 0)


def clamp_with_gradient(x: Tensor) -> Tensor:
    """x clamped to 0..1; outside, only gradients that lead back pass.

    A plain clamp has zero gradient outside, so that a channel below 0 would stay there.
    """
    return _ClampWithGradient.apply(x)


def scale_mouth(lips: Tensor) -> Tensor:
    """Lip gap and added widening (..., 2) in mm of the prediction (..., 2) of `LipOpening`."""
    return torch.stack([OPENING_GAIN * lips[..., 0].clamp(min=0), WIDENING_GAIN * lips[..., 1]], dim=-1)


def save_talker_model(model: TalkerModel, folder: Path | str) -> None:
    """Write a talker to a folder that `load_talker_model` reads."""
    save_checkpoint(folder, KIND, asdict(model.config), model.state_dict())


def load_talker_model(folder: Path | str) -> TalkerModel:
    """The talker of a folder, in evaluation mode without gradients.

    Raises:
        CheckpointError: the folder does not hold a talker of this version.
    """
    config, state = load_checkpoint(folder, KIND)
    sizes = config_from_plain(TalkerConfig, config, KIND)
    with check_fit(folder):
        model = TalkerModel(sizes)
    load_weights(model, state, folder)
    return model.eval().requires_grad_(False)
