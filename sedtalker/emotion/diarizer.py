"""The emotion diarizer: speech features -> posterior over the emotions and intensity, for every 20 ms.

Several small networks listen and their logits are averaged. Each projects the hidden states of some of the encoder's
layers, averaged over pairs of frames (an emotion does not change within 40 ms); then convolutions, a recurrent layer
that reads both ways, and beside it the mean and the spread of what surrounds each step; two heads. Long audio is read
in overlapping windows that fade into each other, so that memory is flat and no seam is left.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.checkpoint import check_settings, load_checkpoint, load_weights, raise_problem, save_checkpoint
from sedtalker.emotion.track import EmotionTrack, frame_count
from sedtalker.emotion.vad import loudness, silence_weight
from sedtalker.errors import CheckpointError, TrackError, as_path
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS, label_columns
from sedtalker.resources import asset
from sedtalker.speech import DEFAULT_ENCODER, FRAME_RATE, Windowing

KIND = "diarizer"
OWN_ENCODER = "encoder"  # folder beside a diarizer's weights, where its encoder was tuned along with it
STRIDE = 2  # feature frames of 20 ms that share one step of the network
STEP_RATE = FRAME_RATE // STRIDE  # steps a second
WINDOW = 40 * STEP_RATE  # steps seen at once
OVERLAP = 8 * STEP_RATE  # steps in which one window fades into the next
BLOCKS = Windowing(left=0, hop=8 * FRAME_RATE, right=0)  # frames that become steps at once, an even number
ABSENT = -30.0  # logit of a label without training data


@dataclass(frozen=True)
class DiarizerConfig:
    """Sizes and calibration of a diarizer."""

    labels: tuple[str, ...] = LABELS
    absent: tuple[str, ...] = ("upset",)  # labels that no corpus taught; their posterior is 0
    encoder: str = DEFAULT_ENCODER  # whose features are read
    first_layer: int = 0  # of its hidden states that is read
    layers: int = 5  # that are read: from that one to the encoder's last
    feature_width: int = 384
    members: int = 1  # networks whose logits are averaged
    width: int = 128
    hidden: int = 96  # of the recurrent layer, each way
    convolutions: int = 2
    kernel: int = 5  # steps of 40 ms
    surroundings: tuple[float, ...] = (1.0, 4.0)  # s around a step whose mean and spread are taken
    dropout: float = 0.3
    temperature: float = 1.0  # divides the logits; fitted on validation speakers

    def __post_init__(self) -> None:
        check_settings(self, "diarizer", zero=("first_layer", "convolutions"))
        problems = {
            f"labels {self.labels} need different names with neutral among them": "neutral" not in self.labels
            or len(set(self.labels)) < len(self.labels),
            f"absent {self.absent} must be labels other than neutral": not set(self.absent)
            <= set(self.labels) - {"neutral"},
            f"kernel {self.kernel} must be odd": self.kernel % 2 == 0,
            f"surroundings {self.surroundings} must be above 0": any(seconds <= 0 for seconds in self.surroundings),
            f"dropout {self.dropout} must be 0 or more and below 1": not 0 <= self.dropout < 1,
            f"temperature {self.temperature} must be above 0": self.temperature <= 0,
        }
        raise_problem("diarizer", problems)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> DiarizerConfig:
        """The configuration of plain types, as a checkpoint holds it."""
        known = {field.name for field in fields(cls)}
        if set(values) - known:
            raise CheckpointError(f"unknown settings of a diarizer: {sorted(set(values) - known)}. Update sedtalker")
        plain: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in values.items()}
        return cls(**plain)


class Member(nn.Module):
    """One network: steps (B, S, L, D) of `pool_frames` -> logits (B, S, C) and intensity before its sigmoid (B, S)."""

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        self.channels = nn.Dropout1d(config.dropout)
        self.project = nn.Linear(config.layers * config.feature_width, config.width)
        self.convolutions = nn.ModuleList(ConvolutionBlock(config) for _ in range(config.convolutions))
        self.recurrent = nn.GRU(config.width, config.hidden, batch_first=True, bidirectional=True)
        self.surroundings = LocalStatisticsPooling(config) if config.surroundings else None
        self.dropout = nn.Dropout(config.dropout)
        joined = 2 * config.hidden + (2 if config.surroundings else 1) * config.width
        self.category = nn.Linear(joined, len(config.labels))
        self.strength = nn.Linear(joined, 1)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.embed(steps))

    def embed(self, steps: Tensor) -> Tensor:
        """What each step says by itself: (B, S, L, D) -> (B, S, width)."""
        states = steps.flatten(2)
        return F.gelu(self.project(self.channels(states.transpose(1, 2)).transpose(1, 2)))

    def heads(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, S, C) and intensity before its sigmoid (B, S), each step read with what surrounds it."""
        local = embedded
        for block in self.convolutions:
            local = block(local)
        parts = [self.recurrent(local)[0], local]
        if self.surroundings:
            parts.append(self.surroundings(embedded))
        joined = self.dropout(torch.cat(parts, dim=-1))
        return self.category(joined), self.strength(joined)[..., 0]


class LocalStatisticsPooling(nn.Module):
    """Mean and standard deviation of the steps around each step: (B, S, width) -> (B, S, width).

    Steps count by a learned weight, so that silence need not.
    """

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__()
        self.sizes = tuple(2 * round(seconds * STEP_RATE / 2) + 1 for seconds in config.surroundings)
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


class Diarizer(nn.Module):
    """Speech features -> posterior and intensity, by the mean of its members."""

    absent: Tensor  # (C,) bool: labels whose posterior is 0

    def __init__(self, config: DiarizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiarizerConfig()
        self.members = nn.ModuleList(Member(config) for _ in range(config.members))
        absent = torch.tensor([label in config.absent for label in config.labels])
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, B, S, C) and intensity before its sigmoid (M, B, S) of each member; steps of `pool_frames`."""
        return self._stacked([member(steps) for member in self.members])

    @property
    def _networks(self) -> list[Member]:
        return cast(list[Member], list(self.members))

    def _stacked(self, heard: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        logits, strength = (torch.stack(values) for values in zip(*heard, strict=True))
        return (logits / self.config.temperature).masked_fill(self.absent, ABSENT), strength

    def label_matrix(self, labels: Sequence[str]) -> Tensor:
        """The matrix (C, C') that turns this diarizer's posterior (T, C) into one over other labels (T, C').

        Raises:
            TrackError: an emotion that this diarizer can find is none of `labels`.
        """
        columns = label_columns(self.config.labels, labels)
        pairs = list(zip(self.config.labels, columns, strict=True))
        lost = [name for name, column in pairs if column is None and name not in self.config.absent]
        if lost:
            raise TrackError(
                f"the diarizer finds emotions that this talker does not know: {', '.join(lost)}. "
                f"Give the emotion (--emotion), or a diarizer of: {', '.join(labels)}"
            )
        matrix = torch.zeros(len(columns), len(labels))
        for row, column in enumerate(columns):
            if column is not None:
                matrix[row, column] = 1
        return matrix

    @torch.inference_mode()
    def frames(self, features: Tensor | Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Posterior (T, C) and intensity (T,) of features (T, L, D), or of blocks of them in order, in flat memory."""
        count = 0

        def embedded() -> Iterator[Tensor]:
            nonlocal count
            for block, _, _ in sliding_windows([features] if isinstance(features, Tensor) else features, BLOCKS):
                count += len(block)
                steps = pool_frames(block[None, :, self.config.first_layer :].to(self.absent.device))
                yield torch.cat([member.embed(steps) for member in self._networks], dim=-1)[0]

        said = torch.cat(list(overlap_add(embedded(), self._said, WINDOW, OVERLAP)))[None].cpu()
        posterior = upsample_steps(said[..., :-1].softmax(-1), count)[0]
        return posterior, upsample_steps(said[..., -1:].sigmoid(), count)[0, :, 0]

    def _said(self, embedded: Tensor) -> Tensor:
        """The members' mean logits and intensity before its sigmoid (S, C + 1) of one window (S, M * width)."""
        parts = embedded[None].chunk(len(self.members), dim=-1)
        logits, strength = self._stacked(
            [member.heads(part) for member, part in zip(self._networks, parts, strict=True)]
        )
        return torch.cat([logits, strength[..., None]], dim=-1).mean(0)[0]

    def diarize(
        self,
        features: Tensor | Iterable[Tensor],
        duration: float,
        audio: str | None = None,
        samples: NDArray[np.float32] | None = None,
    ) -> EmotionTrack:
        """The emotion track of features (T, L, D) at 50 Hz, or of blocks of them.

        Args:
            duration: of the audio, in seconds.
            audio: name of the file, kept in the track.
            samples: (N,) at 16 kHz; where given, long silence is neutral.
        """
        training = self.training
        self.eval()
        posterior, intensity = self.frames(features)
        self.train(training)
        levels = None if samples is None else loudness(samples)
        return self.track(posterior, intensity, duration, audio, levels)

    def track(
        self,
        posterior: Tensor,
        intensity: Tensor,
        duration: float,
        audio: str | None = None,
        levels: NDArray[np.float32] | None = None,
    ) -> EmotionTrack:
        """The emotion track of posterior (T, C) and intensity (T,) at 50 Hz.

        Args:
            duration: of the audio, in seconds.
            audio: name of the file, kept in the track.
            levels: (T,) loudness; where given, long silence is neutral.
        """
        count = frame_count(duration, FRAME_RATE)
        felt, strength = _fitted(posterior.numpy(), count), _fitted(intensity.numpy(), count)
        if levels is not None:
            silence = _fitted(silence_weight(levels), count)
            neutral = np.eye(len(self.config.labels), dtype=np.float32)[self.config.labels.index("neutral")]
            felt = felt + silence[:, None] * (neutral - felt)
            strength = strength * (1 - silence)
        return EmotionTrack(felt, strength, duration, self.config.labels, float(FRAME_RATE), audio)


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
    """Normed means over pairs of frames: (B, T, L, D) -> (B, ceil(T / 2), L, D); an odd last frame stands alone."""
    pairs = features.shape[1] // STRIDE * STRIDE
    steps = features[:, :pairs].unflatten(1, (-1, STRIDE)).float().mean(2)
    steps = torch.cat([steps, features[:, pairs:].float()], 1) if pairs < features.shape[1] else steps
    return F.layer_norm(steps, steps.shape[-1:])


def upsample_steps(steps: Tensor, frames: int) -> Tensor:
    """Steps (B, S, C) -> frames (B, frames, C), linearly between the middles of the steps."""
    whole = F.interpolate(steps.transpose(1, 2), scale_factor=STRIDE, mode="linear", align_corners=False)
    return whole.transpose(1, 2)[:, :frames]


def overlap_add(
    blocks: Iterable[Tensor], say: Callable[[Tensor], Tensor], window: int, overlap: int
) -> Iterator[Tensor]:
    """What is said (n, C) of blocks (s, D), in windows of up to `window` steps that fade linearly into each other.

    Holds no more than a window and a block at a time.
    """
    hop, tail = window - overlap, None  # the tail: what the last window says of the steps that the next one sees too
    for seen, _, _ in sliding_windows(blocks, Windowing(left=0, hop=hop, right=overlap)):
        if tail is not None and len(seen) <= overlap:
            break  # the last window saw all of it
        said = say(seen)
        if tail is not None:
            ramp = ((torch.arange(overlap, device=said.device) + 0.5) / overlap)[:, None]
            said = torch.cat([ramp * said[:overlap] + (1 - ramp) * tail, said[overlap:]])
        yield said[:hop]
        tail = said[hop:]
    if tail is not None:
        yield tail


def sliding_windows(blocks: Iterable[Tensor], windows: Windowing) -> Iterator[tuple[Tensor, int, int]]:
    """Overlapping windows (T, L, D) over blocks (t, L, D) of any length, and which of their frames, first to last,
    are new.

    Holds no more than a window and a block at a time.
    """
    held = None  # what has come in and is still needed: at most `left` frames of context, then new ones
    known = 0  # how many of them are context
    for block in blocks:
        held = block if held is None else torch.cat([held, block])
        while len(held) >= known + windows.hop + windows.right:
            last = known + windows.hop
            yield held[: last + windows.right], known, last
            drop = max(0, last - windows.left)
            held, known = held[drop:], last - drop
    while held is not None and known < len(held):
        last = min(known + windows.hop, len(held))
        yield held[: last + windows.right], known, last
        drop = max(0, last - windows.left)
        held, known = held[drop:], last - drop


def save_diarizer(diarizer: Diarizer, folder: Path | str) -> None:
    """Write a diarizer to a folder that `load_diarizer` reads, with its own encoder if one came along with it.

    Raises:
        CheckpointError: weights that are not finite.
        SEDTalkerError: the folder cannot be written, or its own encoder is no longer where it was.
    """
    config, encoder, own = diarizer.config, Path(diarizer.config.encoder), Path(folder, OWN_ENCODER)
    if encoder.is_absolute() and encoder.name == OWN_ENCODER:
        if encoder != own.resolve():
            with atomic_write(own) as temp_path:
                shutil.copytree(encoder, temp_path)
        config = replace(config, encoder=OWN_ENCODER)
    save_checkpoint(folder, KIND, asdict(config), diarizer.state_dict())


def load_diarizer(name: Path | str = "default") -> Diarizer:
    """A packaged diarizer ("default", "base", "open") or one in a folder, ready to use.

    Raises:
        CheckpointError: no such diarizer, or one that does not fit this version.
    """
    path = as_path(name, "a diarizer", CheckpointError)
    packaged = asset("diarizer", str(name))
    folder = packaged if packaged.is_dir() and not path.is_absolute() else path
    config, state = load_checkpoint(folder, KIND)
    sizes = DiarizerConfig.from_plain(config)
    if sizes.encoder == OWN_ENCODER:
        sizes = replace(sizes, encoder=str((folder / OWN_ENCODER).resolve()))
    diarizer = Diarizer(sizes)
    load_weights(diarizer, state, folder)
    return diarizer.eval().requires_grad_(False)


def _fitted(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Frames cut to `count`, or their last one held until then."""
    return (
        values[:count]
        if len(values) >= count
        else np.concatenate([values, np.repeat(values[-1:], count - len(values), axis=0)])
    )
