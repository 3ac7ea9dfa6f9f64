"""The emotion diarizer's network: speech features -> logits of the emotions and of the intensity, every 40 ms.

A diarizer averages the logits of several small networks. Each of them projects the hidden states of some encoder
layers, averaged over pairs of frames (an emotion does not change within 40 ms). Convolutions, a bidirectional recurrent
layer and local statistics pooling follow, then one head for the category and one for the intensity. With `causal` the
networks are those of `sedtalker.emotion.causal`, which know the voice. `sedtalker.emotion.inference` runs a diarizer
over long audio.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.audio import SAMPLE_RATE
from sedtalker.checkpoint import check_fit, load_checkpoint, load_weights, save_checkpoint
from sedtalker.emotion.causal import CausalMember, EmotionBlocks, VoiceContext, running_estimates, voice_context
from sedtalker.emotion.config import (
    ABSENT,
    BLOCK,
    BLOCK_AHEAD,
    KIND,
    LARGE,
    LEAST_INTENSITY,
    OWN_ENCODER,
    STEP_RATE,
    STRIDE,
    DiarizerConfig,
    load_sizes,
)
from sedtalker.emotion.config import find_diarizer as find_diarizer
from sedtalker.emotion.prediction import check_voice
from sedtalker.emotion.voice import ProjectedVoice, VoiceEstimate, VoiceProfile, fingerprint
from sedtalker.errors import CheckpointError
from sedtalker.files import atomic_write
from sedtalker.int8 import Int8Linear, named_weights, to_int8, use_int8
from sedtalker.speech import WindowedEncoder, load_encoder
from sedtalker.streaming_encoder import LayerState

if TYPE_CHECKING:
    from sedtalker.emotion.causal_cpu import PackedDiarizer
    from sedtalker.emotion.inference import DiarizerStream
    from sedtalker.emotion.track import EmotionTrack


class Member(nn.Module):
    """One network: steps (B, S, L, D) of `pool_frames` -> logits (B, S, C) and intensity before its sigmoid (B, S)."""

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        self.channels = nn.Dropout1d(config.dropout)
        self.project = nn.Linear(config.layers * config.feature_width, config.width)
        self.convolutions = nn.ModuleList(ConvolutionBlock(config) for _ in range(config.convolutions))
        self.recurrent = nn.GRU(config.width, config.hidden, batch_first=True, bidirectional=True)
        self.local_statistics = LocalStatisticsPooling(config) if config.statistics_windows else None
        self.dropout = nn.Dropout(config.dropout)
        features = 2 * config.hidden + (2 if config.statistics_windows else 1) * config.width
        self.category = nn.Linear(features, len(config.labels))
        self.intensity_head = nn.Linear(features, 1)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        return self.predict(self.embed(steps))

    def embed(self, steps: Tensor) -> Tensor:
        """Embedding of each step without its context: (B, S, L, D) -> (B, S, width)."""
        states = steps.flatten(2)
        return F.gelu(self.project(self.channels(states.transpose(1, 2)).transpose(1, 2)))

    def predict(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, S, C) and intensity before its sigmoid (B, S) of embedded steps (B, S, width)."""
        local = embedded
        for block in self.convolutions:
            local = block(local)
        parts = [self.recurrent(local)[0], local]
        if self.local_statistics:
            parts.append(self.local_statistics(embedded))
        features = self.dropout(torch.cat(parts, dim=-1))
        return self.category(features), self.intensity_head(features)[..., 0]


class LocalStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation around each step, projected: (B, S, width) -> (B, S, width).

    The weights are learned, so that silence can be left out.
    """

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        self.sizes = tuple(2 * round(seconds * STEP_RATE / 2) + 1 for seconds in config.statistics_windows)
        self.weight = nn.Linear(config.width, 1)
        self.join = nn.Linear(2 * len(self.sizes) * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.softplus(self.weight(x)) + 1e-3
        sums = torch.cat([weight, weight * x, weight * x.square()], -1).cumsum(1)
        parts = []
        for size in self.sizes:
            half, last = size // 2, x.shape[1] - 1
            until = torch.arange(x.shape[1], device=x.device)
            near = sums[:, (until + half).clamp(max=last)] - F.pad(sums, (0, 0, 1, 0))[:, (until - half).clamp(min=0)]
            mean, square = (near[..., 1:] / near[..., :1]).chunk(2, dim=-1)
            parts += [mean, (square - mean.square()).clamp(min=1e-4).sqrt()]
        return F.gelu(self.join(torch.cat(parts, -1)))


class Outputs(NamedTuple):
    """Calibrated outputs of a diarizer's networks; M members."""

    logits: Tensor  # (M, B, S, C), log posterior up to a constant
    intensity: Tensor  # (M, B, S), before the sigmoid; of a causal diarizer the strength, see `finish`


class Diarizer(nn.Module):
    """Ensemble of networks (`Member` or `CausalMember`) with calibrated logits."""

    absent: Tensor  # (C,) bool: labels whose posterior is 0
    average_voice: Tensor  # (size,), mean of the states of speech over many voices; causal diarizers only
    average_deviation: Tensor  # (size,), their deviation within a voice
    projected_average: Tensor  # (M * width,), mean of the projected inputs over many voices; with `projected_voice`
    projected_deviation: Tensor  # (M * width,), their deviation within a voice

    def __init__(self, config: DiarizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiarizerConfig()
        absent = torch.tensor([label in config.absent for label in config.labels])
        self.register_buffer("absent", absent, persistent=False)
        self.blocks: EmotionBlocks | None = None
        if not config.causal:
            self.members = nn.ModuleList(Member(config) for _ in range(config.members))
            return
        self.members = nn.ModuleList(CausalMember(config, STEP_RATE) for _ in range(config.members))
        if config.blocks:
            self.blocks = EmotionBlocks(config)
        size = config.layers * config.feature_width
        self.speech_head = nn.Linear(size, 1)
        if config.projected_voice:
            self.register_buffer("projected_average", torch.zeros(config.members * config.width))
            self.register_buffer("projected_deviation", torch.ones(config.members * config.width))
        self.register_buffer("average_voice", torch.zeros(size))
        self.register_buffer("average_deviation", torch.ones(size))

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, B, S, C) and intensity before its sigmoid (M, B, S) of each member; steps of `pool_frames`.

        A causal diarizer takes the estimate of the voice from all steps.
        """
        if self.config.causal:
            activity = self.speech_logits(steps).sigmoid()
            start = VoiceEstimate.empty(self.voice_size, len(steps))
            _, outputs = self.run_batch(steps, activity, start, True)
            return outputs
        return self._stack([member(steps) for member in self._networks])

    def run_batch(
        self,
        steps: Tensor,
        activity: Tensor,
        start: VoiceEstimate,
        whole: bool,
        mask: Tensor | None = None,
        ahead: int | None = None,
        others: Tensor | None = None,
    ) -> tuple[Outputs, Outputs]:
        """Outputs of a causal diarizer without and with the future.

        Args:
            steps: (B, S, L, D).
            activity: (B, S), the weight of each step in the estimate of the voice.
            start: (B,), estimates of `voice_size` before the first step.
            whole: use the estimate from all steps at every step, not the running one.
            mask: (B, input size), factors of the input channels, for dropout.
            ahead: steps that the blocks look ahead for both outputs; None: 0 without and `BLOCK_AHEAD` with the future.
            others: (B, B), 1 where an utterance of the column is a reference for the voice of the row's; `start` is
                not used then.
        """
        size = steps.shape[1]
        block = torch.arange(size, device=steps.device) // (size if whole else BLOCK)

        def contexts(values: Tensor) -> list[VoiceContext]:
            first = start
            if others is not None:
                nothing = VoiceEstimate.empty(values.shape[2], len(values))
                first = running_estimates(values, activity, nothing, 1 / STEP_RATE)[1].sum_of(others)
            before, after = running_estimates(values, activity, first, 1 / STEP_RATE)
            return self.voice_contexts(VoiceEstimate(*(part[:, None] for part in after)) if whole else before)

        known = None if self.config.projected_voice else contexts(steps.flatten(2))
        if known is not None and mask is not None:
            states = self.config.layers * self.config.feature_width
            known = [each._replace(shift=each.shift * mask[:, None, :states]) for each in known]

        def run(ahead: int) -> list[tuple[Tensor, Tensor]]:
            inputs = self.member_inputs(steps, ahead)
            projected = self.project_inputs(inputs if mask is None else inputs * mask[:, None])
            parts = zip(
                self.causal_members,
                projected.chunk(len(self.members), -1),
                contexts(projected) if known is None else known,
                strict=True,
            )
            return [member(member.adapt(part, context, block)) for member, part, context in parts]

        without = run(ahead or 0)
        with_future = run(BLOCK_AHEAD) if self.blocks is not None and ahead is None else without
        live, refined = torch.stack([raw for raw, _ in without]), torch.stack([raw for _, raw in with_future])
        return self._combine(live), self._combine(refined)

    def member_inputs(self, steps: Tensor, ahead: int) -> Tensor:
        """Standardised inputs of the networks (B, S, size), of whole recordings' steps (B, S, L, D).

        Args:
            ahead: steps that the blocks tuned for emotion look ahead.
        """
        if self.blocks is None:
            return self.standardise(steps)
        kept = self.config.kept
        return self.join_states(steps[:, :, :kept], self.blocks(steps[:, :, kept - 1], ahead)[0])

    def join_states(self, steps: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Standardised inputs of the networks (B, S, size): states (B, S, l, D) and the blocks' outputs."""
        average, deviation = self.input_average()
        return (torch.cat([steps, torch.stack(list(outputs), 2)], 2).flatten(2) - average) / deviation

    def input_average(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (size,) of an average voice at the networks' inputs.

        Blocks beyond the encoder's states have those of its last state.
        """
        beyond = self.config.kept + self.config.blocks - self.config.layers if self.blocks is not None else 0
        last = -self.config.feature_width
        average, deviation = (
            torch.cat([part, *[part[last:]] * beyond]) for part in (self.average_voice, self.average_deviation)
        )
        return average, deviation

    def standardise(self, steps: Tensor) -> Tensor:
        """Flat steps (B, S, size) relative to an average voice, of steps (B, S, L, D)."""
        return (steps.flatten(2) - self.average_voice) / self.average_deviation

    def speech_logits(self, steps: Tensor) -> Tensor:
        """Logit of speech activity (B, S) of steps (B, S, L, D), each from its step alone."""
        logits: Tensor = self.speech_head(self.standardise(steps))
        return logits[..., 0]

    @property
    def voice_size(self) -> int:
        """Size of the estimates of a voice that the networks read: of states, or of projected inputs."""
        config = self.config
        return config.members * config.width if config.projected_voice else config.layers * config.feature_width

    def voice_values(self, steps: Tensor, ahead: int = BLOCK_AHEAD) -> Tensor:
        """What the estimate of a voice reads of steps (B, S, L, D) of whole recordings: (B, S, `voice_size`)."""
        if self.config.projected_voice:
            return self.project_inputs(self.member_inputs(steps, ahead))
        return steps.flatten(2)

    @property
    def network(self) -> str:
        """Identity of the networks, see `ProjectedVoice`."""
        return fingerprint([member.project.bias.detach().cpu().numpy() for member in self.causal_members])

    def start(self, voice: VoiceProfile | None) -> VoiceEstimate:
        """The estimate (1,) of the voice's states before a recording. Raises CheckpointError if it does not fit."""
        if voice is None:
            return self._tensors(VoiceEstimate.empty_arrays(len(self.average_voice)))
        check_voice(self, voice)
        return self._tensors(VoiceEstimate.of_profile(voice))

    def start_networks(self, voice: VoiceProfile | None) -> VoiceEstimate:
        """The estimate (1,) before a recording that the networks read. Raises CheckpointError if it does not fit.

        With `projected_voice`, a profile of another diarizer, or of a version without projected inputs, has none of
        this diarizer: their mean is predicted from that of the states.
        """
        if not self.config.projected_voice:
            return self.start(voice)
        if voice is None:
            return self._tensors(VoiceEstimate.empty_arrays(self.voice_size))
        check_voice(self, voice)
        if voice.is_of(self.network, self.voice_size):
            return self._tensors(VoiceEstimate.of_projected(voice))
        states = torch.from_numpy(np.asarray(voice.mean, np.float32)).flatten().to(self.average_voice.device)
        shift = (states - self.average_voice) / self.average_deviation
        projected = torch.cat([member.project_voice(shift) for member in self.causal_members])
        mean = (projected + self.projected_average).detach().cpu().numpy()
        deviation = self.projected_deviation.cpu().numpy()
        return self._tensors(VoiceEstimate.of_statistics(mean, deviation, voice.seconds))

    def _tensors(self, estimate: VoiceEstimate) -> VoiceEstimate:
        return VoiceEstimate(*(torch.as_tensor(part)[None].to(self.absent.device) for part in estimate))

    def make_profile(self, states: VoiceEstimate, networks: VoiceEstimate) -> VoiceProfile:
        """The profile of estimates (1,) of a voice's states and of what the networks read."""
        states, networks = (VoiceEstimate(*(part[0] for part in each)) for each in (states, networks))
        profile = states.profile(self.config.encoder, self.config.layers)
        if not self.config.projected_voice:
            return profile
        return replace(profile, projected=ProjectedVoice(*networks.arrays(), self.network))

    def voice_contexts(self, estimate: VoiceEstimate) -> list[VoiceContext]:
        """What each network knows of voices (B, K)."""
        config = self.config
        if not config.projected_voice:
            context = voice_context(estimate, self.average_voice, self.average_deviation, config.layers)
            return [context] * config.members
        whole = voice_context(estimate, self.projected_average, self.projected_deviation)
        shifts, spreads = (part.chunk(config.members, -1) for part in (whole.shift, whole.spread))
        pairs = zip(shifts, spreads, strict=True)
        return [VoiceContext(shift, spread, whole.evidence) for shift, spread in pairs]

    @property
    def _networks(self) -> list[Member]:
        return cast(list[Member], list(self.members))

    @property
    def causal_members(self) -> list[CausalMember]:
        """The networks of a causal diarizer."""
        return cast(list[CausalMember], list(self.members))

    def _stack(self, predictions: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Calibrated logits (M, B, S, C) and intensities (M, B, S) of the members."""
        logits, intensity = (torch.stack(values) for values in zip(*predictions, strict=True))
        return (logits / self.config.temperature).masked_fill(self.absent, ABSENT), intensity

    def _combine(self, raw: Tensor) -> Outputs:
        """Outputs of the raw values (M, B, S, C + 1) of causal networks.

        The posterior of an emotion is sigmoid(activation) times its share among the emotions.
        """
        activation, strength, emotions = raw.split([1, 1, raw.shape[-1] - 2], dim=-1)
        neutral = self.config.labels.index("neutral")
        others = [k for k in range(len(self.config.labels)) if k != neutral]
        shares = emotions.masked_fill(self.absent[others], ABSENT).log_softmax(-1) + F.logsigmoid(activation)
        parts = [shares[..., :neutral], F.logsigmoid(-activation), shares[..., neutral:]]
        logits = torch.cat(parts, dim=-1) / self.config.temperature
        return Outputs(logits.masked_fill(self.absent, ABSENT), strength[..., 0])

    def finish(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior (..., C) and intensity (...) of the members' mean outputs (..., C + 1), as of `mean_logits`.

        The intensity of a causal diarizer is at most the posterior of all emotions, and at least `LEAST_INTENSITY`
        times it: an emotion that is certain has some intensity, and neutral speech has none. `intensity_range` follows.
        """
        posterior, level = means[..., :-1].softmax(-1), means[..., -1].sigmoid()
        if self.config.causal:
            emotional = 1 - posterior[..., self.config.labels.index("neutral")]
            level = emotional * (LEAST_INTENSITY + (1 - LEAST_INTENSITY) * level)
        low, high = self.config.intensity_range
        return posterior, ((level - low) / (high - low)).clamp(0, 1)

    def embed(self, steps: Tensor) -> Tensor:
        """Each member's embedding of steps (B, S, L, D) without their context, side by side: (B, S, M * width)."""
        return torch.cat([member.embed(steps) for member in self._networks], dim=-1)

    def project_inputs(self, inputs: Tensor) -> Tensor:
        """The same of a causal diarizer's inputs (B, S, size), from which the voice was not subtracted yet."""
        return torch.cat([member.project_steps(inputs) for member in self.causal_members], dim=-1)

    def mean_logits(self, embedded: Tensor, voice: VoiceEstimate | None = None) -> Tensor:
        """Mean over the members of the logits and of the intensity before its sigmoid (B, S, C + 1).

        Args:
            embedded: (B, S, M * width) of `embed` or `project_inputs`.
            voice: (B,), of a causal diarizer.
        """
        parts = embedded.chunk(len(self.members), dim=-1)
        if voice is not None:
            contexts = self.voice_contexts(VoiceEstimate(*(part[:, None] for part in voice)))
            block = torch.zeros(embedded.shape[1], dtype=torch.long, device=embedded.device)
            triples = zip(self.causal_members, parts, contexts, strict=True)
            return self.average([member(member.adapt(part, context, block))[1] for member, part, context in triples])
        logits, intensity = self._stack(
            [member.predict(part) for member, part in zip(self._networks, parts, strict=True)]
        )
        return torch.cat([logits, intensity[..., None]], dim=-1).mean(0)

    def average(self, raw: list[Tensor]) -> Tensor:
        """Mean over causal members of the logits and of the strength (B, S, C + 1), of their raw outputs."""
        logits, strength = self._combine(torch.stack(raw))
        return torch.cat([logits, strength[..., None]], dim=-1).mean(0)

    def enroll(self, samples: NDArray[np.float32], encoder: WindowedEncoder | None = None) -> VoiceProfile:
        """The profile of the voice in samples (N,) at 16 kHz, best of ordinary speech of 10 s or more.

        Args:
            encoder: of the features; None: the diarizer's own is loaded.

        Raises:
            CheckpointError: this diarizer does not use profiles.
        """
        from sedtalker.emotion.inference import enroll_voice

        return enroll_voice(self, (encoder or load_encoder(self.config.encoder)).blocks([samples]))

    def diarize(
        self,
        samples: NDArray[np.float32],
        audio: str | None = None,
        voice: VoiceProfile | None = None,
        encoder: WindowedEncoder | None = None,
    ) -> EmotionTrack:
        """The emotion track of samples (N,) at 16 kHz.

        Args:
            audio: name of the file, for the track.
            voice: what is known of the speaker.
            encoder: of the features; None: the diarizer's own is loaded.
        """
        from sedtalker.emotion.inference import diarize

        features = (encoder or load_encoder(self.config.encoder)).blocks([samples])
        return diarize(self, features, len(samples) / SAMPLE_RATE, audio, samples, voice)

    def compiled(self) -> PackedDiarizer:
        """The same causal diarizer for compiled code, on the CPU."""
        from sedtalker.emotion.causal_cpu import PackedDiarizer
        from sedtalker.layers_cpu import share_packed

        def build(diarizer: Diarizer) -> PackedDiarizer:
            return PackedDiarizer(diarizer.config, named_weights(diarizer))

        packed: PackedDiarizer = share_packed(self, build)
        return packed

    def stream(self, voice: VoiceProfile | None = None, lead: int = 0) -> DiarizerStream:
        """A stream of live features, before its first frame; `lead` as of `PackedStream`."""
        from sedtalker.emotion.inference import DiarizerStream

        return DiarizerStream(self, voice, lead)


class InputStream:
    """Inputs of a causal diarizer's networks for steps that arrive in pieces, as of `Diarizer.member_inputs`."""

    def __init__(self, diarizer: Diarizer, ahead: int) -> None:
        self._diarizer, self._ahead = diarizer, ahead
        self._carried: tuple[LayerState, ...] | None = None
        self._waiting: list[Tensor] = []  # states of the encoder, and outputs of each block, without an input so far

    def push(self, steps: Tensor, last: bool = False) -> Tensor:
        """Inputs (B, m, size) for the next steps (B, n, L, D); with blocks they lag by the blocks' look-ahead."""
        diarizer = self._diarizer
        if diarizer.blocks is None:
            return diarizer.standardise(steps)
        kept = diarizer.config.kept
        outputs, self._carried = diarizer.blocks(steps[:, :, kept - 1], self._ahead, self._carried, last)
        new = [steps[:, :, :kept], *outputs]
        held = [torch.cat(pair, 1) for pair in zip(self._waiting, new, strict=True)] if self._waiting else new
        count = held[-1].shape[1]
        self._waiting = [part[:, count:] for part in held]
        return diarizer.join_states(held[0][:, :count], [part[:, :count] for part in held[1:]])


class ConvolutionBlock(nn.Module):
    """Residual convolution over neighbouring steps: (B, S, width) -> (B, S, width)."""

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.convolution = nn.Conv1d(config.width, config.width, config.kernel, padding=config.kernel // 2)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(F.gelu(self.convolution(self.norm(x).transpose(1, 2)))).transpose(1, 2)


def pool_frames(features: Tensor) -> Tensor:
    """Layer-normed means over pairs of frames: (B, T, L, D) -> (B, ceil(T / 2), L, D); an odd last frame is a step."""
    pairs = features.shape[1] // STRIDE * STRIDE
    steps = features[:, :pairs].unflatten(1, (-1, STRIDE)).float().mean(2)
    steps = torch.cat([steps, features[:, pairs:].float()], 1) if pairs < features.shape[1] else steps
    return F.layer_norm(steps, steps.shape[-1:])


def save_diarizer(diarizer: Diarizer, folder: Path | str) -> None:
    """Write a diarizer to a folder that `load_diarizer` reads, and the encoder that was tuned together with it.

    Raises:
        CheckpointError: the weights contain NaN or infinity, or the blocks are in 8 bits.
        SEDTalkerError: the folder cannot be written, or the encoder's folder is missing.
    """
    if any(isinstance(module, Int8Linear) for module in diarizer.modules()):
        raise CheckpointError('a diarizer in 8 bits cannot be written. Load it with precision="float32"')
    config, encoder, own = diarizer.config, Path(diarizer.config.encoder), Path(folder, OWN_ENCODER)
    if encoder.is_absolute() and encoder.name == OWN_ENCODER:
        if encoder != own.resolve():
            with atomic_write(own) as temp_path:
                shutil.copytree(encoder, temp_path)
        config = replace(config, encoder=OWN_ENCODER)
    state = diarizer.state_dict()
    large = [name for name, tensor in state.items() if tensor.ndim > 1 and tensor.numel() >= LARGE]
    save_checkpoint(folder, KIND, asdict(config), state, large if config.causal else ())


def load_diarizer(
    name: Path | str = "default", device: str | torch.device = "cpu", precision: str = "auto"
) -> Diarizer:
    """A packaged diarizer ("default" or "open") or one in a folder, ready to use.

    Args:
        precision: of the blocks tuned for emotion, as in `load_streaming_network`.

    Raises:
        CheckpointError: no such diarizer, or one that does not fit this version.
    """
    folder = find_diarizer(name)
    config, state = load_checkpoint(folder, KIND)
    sizes = load_sizes(config, folder)
    with check_fit(folder):
        diarizer = Diarizer(sizes)
    load_weights(diarizer, state, folder)
    if diarizer.config.blocks and use_int8(device, precision):
        to_int8(diarizer)
    return diarizer.to(device).eval().requires_grad_(False)
