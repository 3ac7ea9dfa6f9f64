"""The emotion diarizer's network: speech features -> logits of the emotions and of the intensity, every 40 ms.

A diarizer averages the logits of several small networks. Each of them projects the hidden states of some encoder
layers, averaged over pairs of frames (an emotion does not change within 40 ms). Convolutions, a bidirectional recurrent
layer and local statistics pooling follow, then one head for the category and one for the intensity.
`sedtalker.emotion.inference` runs it over long audio.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.checkpoint import (
    check_settings,
    config_from_plain,
    load_checkpoint,
    load_weights,
    raise_problem,
    save_checkpoint,
)
from sedtalker.errors import CheckpointError, TrackError, as_path
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS, label_columns
from sedtalker.resources import asset
from sedtalker.speech import DEFAULT_ENCODER, FRAME_RATE

KIND = "diarizer"
OWN_ENCODER = "encoder"  # subfolder of a diarizer whose encoder was tuned together with it
STRIDE = 2  # feature frames of 20 ms that share one step of the network
STEP_RATE = FRAME_RATE // STRIDE  # steps a second
ABSENT = -30.0  # logit of a label without training data


@dataclass(frozen=True)
class DiarizerConfig:
    """Sizes and calibration of a diarizer."""

    labels: tuple[str, ...] = LABELS
    absent: tuple[str, ...] = ("upset",)  # labels without training data; their posterior is 0
    encoder: str = DEFAULT_ENCODER  # of the features
    first_layer: int = 0  # first of the encoder's hidden states that the networks read
    layers: int = 5  # number of hidden states, up to the encoder's last
    feature_width: int = 384
    members: int = 1  # networks whose logits are averaged
    width: int = 128
    hidden: int = 96  # of the recurrent layer, each direction
    convolutions: int = 2
    kernel: int = 5  # steps of 40 ms
    statistics_windows: tuple[float, ...] = (1.0, 4.0)  # s, windows of the statistics pooling
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
            f"statistics_windows {self.statistics_windows} must be above 0": any(
                seconds <= 0 for seconds in self.statistics_windows
            ),
            f"dropout {self.dropout} must be 0 or more and below 1": not 0 <= self.dropout < 1,
            f"temperature {self.temperature} must be above 0": self.temperature <= 0,
        }
        raise_problem("diarizer", problems)


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


class Diarizer(nn.Module):
    """Ensemble of networks (`Member`) with calibrated logits."""

    absent: Tensor  # (C,) bool: labels whose posterior is 0

    def __init__(self, config: DiarizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiarizerConfig()
        self.members = nn.ModuleList(Member(config) for _ in range(config.members))
        absent = torch.tensor([label in config.absent for label in config.labels])
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, B, S, C) and intensity before its sigmoid (M, B, S) of each member; steps of `pool_frames`."""
        return self._stack([member(steps) for member in self.members])

    @property
    def _networks(self) -> list[Member]:
        return cast(list[Member], list(self.members))

    def _stack(self, predictions: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Calibrated logits (M, B, S, C) and intensities (M, B, S) of the members."""
        logits, intensity = (torch.stack(values) for values in zip(*predictions, strict=True))
        return (logits / self.config.temperature).masked_fill(self.absent, ABSENT), intensity

    def label_matrix(self, labels: Sequence[str]) -> Tensor:
        """The matrix (C, C') that maps this diarizer's posterior (T, C) to other labels (T, C').

        Raises:
            TrackError: this diarizer predicts an emotion that is not among `labels`.
        """
        columns = label_columns(self.config.labels, labels)
        pairs = list(zip(self.config.labels, columns, strict=True))
        lost = [name for name, column in pairs if column is None and name not in self.config.absent]
        if lost:
            raise TrackError(
                f"the diarizer predicts emotions that this talker does not know: {', '.join(lost)}. "
                f"Give the emotion (--emotion), or a diarizer of: {', '.join(labels)}"
            )
        matrix = torch.zeros(len(columns), len(labels))
        for row, column in enumerate(columns):
            if column is not None:
                matrix[row, column] = 1
        return matrix

    def embed(self, steps: Tensor) -> Tensor:
        """Each member's embedding of steps (B, S, L, D) without their context, side by side: (B, S, M * width)."""
        return torch.cat([member.embed(steps) for member in self._networks], dim=-1)

    def mean_logits(self, embedded: Tensor) -> Tensor:
        """Mean over the members of the logits and of the intensity before its sigmoid (B, S, C + 1).

        `embedded` (B, S, M * width) is of `embed`.
        """
        parts = embedded.chunk(len(self.members), dim=-1)
        logits, intensity = self._stack(
            [member.predict(part) for member, part in zip(self._networks, parts, strict=True)]
        )
        return torch.cat([logits, intensity[..., None]], dim=-1).mean(0)


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
        CheckpointError: the weights contain NaN or infinity.
        SEDTalkerError: the folder cannot be written, or the encoder's folder is missing.
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
    sizes = config_from_plain(DiarizerConfig, config, KIND)
    if sizes.encoder == OWN_ENCODER:
        sizes = replace(sizes, encoder=str((folder / OWN_ENCODER).resolve()))
    diarizer = Diarizer(sizes)
    load_weights(diarizer, state, folder)
    return diarizer.eval().requires_grad_(False)
