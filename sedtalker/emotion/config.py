"""Configuration and constants of the diarizer's networks, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.checkpoint import check_settings, config_from_plain, raise_problem
from sedtalker.encoder_config import DEFAULT_ENCODER, StreamingConfig
from sedtalker.errors import CheckpointError, TrackError, as_path
from sedtalker.labels import LABELS, label_columns
from sedtalker.mel import FRAME_RATE
from sedtalker.resources import asset

KIND = "diarizer"
OWN_ENCODER = "encoder"  # subfolder of a diarizer whose encoder was tuned together with it
STRIDE = 2  # feature frames of 20 ms that share one step of the network
STEP_RATE = FRAME_RATE // STRIDE  # steps a second
ABSENT = -30.0  # logit of a label without training data
LARGE = 4096  # weights of a matrix that a causal diarizer stores in 8 bits
LEAST_INTENSITY = 0.2  # of an emotion that is certain; a causal diarizer adds the rest by the strength

BLOCK = 10  # steps after which the estimate of the voice is updated, 0.4 s
GATE_WIDTH = 16
HALF_EVIDENCE = 5.0  # s; before training, a gate is half open with this evidence
BLOCK_LEFT = 50  # steps before a step that the blocks tuned for emotion read, 2 s
BLOCK_AHEAD = 25  # steps after it, in each block, where the future is known
HEAD_WIDTH = 64  # of the blocks' attention, as in Whisper
LEAD = 2  # steps that the networks of a stream are ahead of its frames, at most
STATE_SCALE = 0.69  # deviation of the streaming encoder's first state; the cached states have deviation 1


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
    intensity_range: tuple[float, ...] = (0.0, 1.0)  # raw intensities shown as 0 and 1; `recipes calibrate_intensity`
    causal: bool = False  # networks that need no future, know the voice and detect speech (`CausalMember`)
    blocks: int = 0  # blocks tuned for emotion, which replace the hidden states after `kept`; causal diarizers only
    block_feedforward: int = 1536
    projected_voice: bool = False  # subtract the mean of a voice's projected inputs; needs blocks
    smoothing: bool = False  # of the posterior of whole recordings (`emotion.smoothing_cpu`); causal diarizers only

    def __post_init__(self) -> None:
        check_settings(self, "diarizer", zero=("first_layer", "convolutions", "blocks"))
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
            f"blocks {self.blocks} need a causal diarizer": self.blocks > 0 and not self.causal,
            f"blocks {self.blocks} need 2 layers or more": self.blocks > 0 and self.layers < 2,
            "projected_voice needs blocks": self.projected_voice and not self.blocks,
            "smoothing needs a causal diarizer": self.smoothing and not self.causal,
            f"intensity_range {self.intensity_range} must be two numbers, the first one lower": not _is_range(
                self.intensity_range
            ),
        }
        raise_problem("diarizer", problems)

    @property
    def kept(self) -> int:
        """Hidden states of the encoder that the networks read; outputs of the blocks follow them.

        There may be more blocks than states that they replace. One state is kept at least.
        """
        return max(1, self.layers - self.blocks) if self.blocks else self.layers

    @property
    def spread_size(self) -> int:
        """Values of the spread of a voice that a causal network reads."""
        return self.width if self.projected_voice else self.layers


def find_lead(config: DiarizerConfig, early_frames: int) -> int:
    """Steps that a diarizer's networks can be ahead in a stream whose encoder knows early states of so many frames.

    Networks with blocks of their own read no state of the encoder but that after its first block.
    """
    reads_early = config.causal and config.blocks > 0 and (config.first_layer, config.kept) == (1, 1)
    return min(LEAD, early_frames // STRIDE) if reads_early else 0


def _is_range(values: Sequence[float]) -> bool:
    return len(values) == 2 and values[0] < values[1]


def block_sizes(config: DiarizerConfig) -> StreamingConfig:
    """Sizes of the blocks tuned for emotion."""
    width = config.feature_width
    return StreamingConfig(
        width=width, heads=max(1, width // HEAD_WIDTH), feedforward=config.block_feedforward, left=BLOCK_LEFT
    )


def label_matrix(config: DiarizerConfig, labels: Sequence[str]) -> NDArray[np.float32]:
    """The matrix (C, C') that maps a diarizer's posterior (T, C) to other labels (T, C').

    Raises:
        TrackError: the diarizer predicts an emotion that is not among `labels`.
    """
    columns = label_columns(config.labels, labels)
    pairs = list(zip(config.labels, columns, strict=True))
    lost = [name for name, column in pairs if column is None and name not in config.absent]
    if lost:
        raise TrackError(
            f"the diarizer predicts emotions that this talker does not know: {', '.join(lost)}. "
            f"Give the emotion (--emotion), or a diarizer of: {', '.join(labels)}"
        )
    matrix = np.zeros((len(columns), len(labels)), np.float32)
    for row, column in enumerate(columns):
        if column is not None:
            matrix[row, column] = 1
    return matrix


def find_diarizer(name: Path | str) -> Path:
    """The folder of a packaged diarizer or of one in a folder. Raises CheckpointError if the name is not a text."""
    path = as_path(name, "a diarizer", CheckpointError)
    packaged = asset("diarizer", str(name))
    return packaged if packaged.is_dir() and not path.is_absolute() else path


def load_sizes(config: dict[str, Any], folder: Path) -> DiarizerConfig:
    """The configuration in the checkpoint of a folder; an encoder of its own gets its absolute path."""
    sizes = config_from_plain(DiarizerConfig, config, KIND)
    if sizes.encoder == OWN_ENCODER:
        sizes = replace(sizes, encoder=str((folder / OWN_ENCODER).resolve()))
    return sizes
