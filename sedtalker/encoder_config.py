"""Names, sizes and timing of the speech encoders, without their networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sedtalker.checkpoint import check_settings, raise_problem
from sedtalker.errors import CheckpointError, SEDTalkerError
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES, MEL_WINDOW
from sedtalker.resources import asset

DEFAULT_ENCODER = "whisper-tiny.en"
BUILT_IN = (DEFAULT_ENCODER, "whisper-tiny.en-streaming")
"""Encoders of the package."""
STREAMING_KIND = "streaming-encoder"
REACH = FRAME_SAMPLES + MEL_WINDOW // 2  # samples before and after a frame's start that its convolutions read
PERIOD = 1500  # frames after which positions repeat, 30 s

LOOK_AHEAD = {80: (1, 1, 1), 120: (2, 2, 1), 200: (4, 3, 2), 400: (7, 7, 5)}
"""Frames after a frame that the attention of each block reads, by look-ahead in ms.

Their sum, in frames of 20 ms, plus the 12.5 ms of the last mel window after a frame's end is at most the look-ahead.
"""
DEFAULT_LOOK_AHEAD = 120  # ms
EARLY_AHEAD = 1  # frames that attention reads after a frame for its early state

Encoder = TypeVar("Encoder", bound="LookAheadDial")


def encoder_folder(name: Path | str) -> Path:
    """The folder of a built-in encoder, or of one in a folder; it may not exist."""
    return asset("speech", str(name)) if str(name) in BUILT_IN else Path(name)


@dataclass(frozen=True)
class Windowing:
    """Overlapping windows over frames: each gives `hop` frames, computed with context on both sides.

    The encoder's card compares some. They change cost and latency, and accuracy very little.
    """

    left: int = 1 * FRAME_RATE  # frames of context before
    hop: int = 4 * FRAME_RATE  # frames of output
    right: int = 1 * FRAME_RATE  # frames of context after, the encoder's look-ahead

    def __post_init__(self) -> None:
        for name, value, least in (("left", self.left, 0), ("hop", self.hop, 1), ("right", self.right, 0)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise SEDTalkerError(f"windows with {name} of {value!r}: give whole frames of 20 ms, {least} or more")


LONG_WINDOWS = Windowing(hop=8 * FRAME_RATE)  # for encoders wider than tiny.en: less overlap


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder of Whisper's kind; the defaults are tiny.en's.

    Raises:
        CheckpointError: a size is not a positive integer, or the heads do not divide the width.
    """

    mels: int = 80
    width: int = 384
    heads: int = 6
    feedforward: int = 1536
    layers: int = 4  # blocks

    def __post_init__(self) -> None:
        check_settings(self, "speech encoder", zero=("left",))
        raise_problem("speech encoder", {"the heads do not divide the width": self.width % self.heads != 0})


@dataclass(frozen=True)
class StreamingConfig(EncoderConfig):
    """Sizes of a streaming encoder."""

    layers: int = 3
    left: int = 100  # frames before a frame that attention reads
    floor: float = -7.0  # log10 of the smallest mel power
    look_ahead: int = DEFAULT_LOOK_AHEAD  # ms, the default of streams


def periodic_positions(width: int) -> NDArray[np.float32]:
    """Whisper's sinusoidal positions (PERIOD, width) with frequencies rounded to multiples of 2 pi / PERIOD."""
    half = width // 2
    frequencies = np.exp(-math.log(10000.0) / (half - 1) * np.arange(half))  # rad a frame
    unit = 2 * math.pi / PERIOD
    angles = np.arange(PERIOD)[:, None] * np.rint(frequencies / unit) * unit
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class EarlyStream(Protocol):
    """Features (n, layers, width) of streamed sound, and states of its first block before the others are known."""

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of the frames that became complete with the next samples (N,)."""

    def finish(self) -> NDArray[np.float32]:
        """Features of the frames that still wait, after the last samples."""

    def take_early(self) -> NDArray[np.float32]:
        """Early states (n, width) of the next frames: those after the first block, `EARLY_AHEAD` frames ahead."""


class LookAheadDial(ABC):
    """Timing of a streaming encoder, whose look-ahead can be chosen.

    `windows.hop` is the number of frames of a chunk. `windows.right` is the requested look-ahead: the largest of
    `LOOK_AHEAD` that does not exceed it is used, or else the smallest.
    """

    def __init__(self, name: str, config: StreamingConfig, windows: Windowing | None) -> None:
        self.name, self.layers, self.width = name, config.layers + 1, config.width
        self.windows = windows or Windowing(config.left, LONG_WINDOWS.hop, config.look_ahead * FRAME_RATE // 1000)
        requested = self.windows.right * 1000 / FRAME_RATE
        self.look_ahead = max((ms for ms in LOOK_AHEAD if ms <= requested), default=min(LOOK_AHEAD))  # ms

    @property
    def delay(self) -> float:
        """Longest time in frames, in a stream, from the end of a frame to the end of the sound that it needs."""
        return sum(LOOK_AHEAD[self.look_ahead]) + (REACH - FRAME_SAMPLES) / FRAME_SAMPLES

    @property
    def early_frames(self) -> int:
        """Frames that the early states of `early_stream` are ahead of the frames with all states; 0 without them."""
        ahead = LOOK_AHEAD[self.look_ahead]
        return sum(ahead) - min(EARLY_AHEAD, ahead[0])

    @abstractmethod
    def early_stream(self) -> EarlyStream:
        """A stream of live sound, before its first sample, that gives early states, too."""

    @abstractmethod
    def with_windows(self: Encoder, windows: Windowing) -> Encoder:
        """The same network with other sizes of chunks and another look-ahead."""

    def with_look_ahead(self: Encoder, look_ahead: int) -> Encoder:
        """The same network with another look-ahead in ms. Raises CheckpointError if not in `LOOK_AHEAD`."""
        if look_ahead not in LOOK_AHEAD:
            known = ", ".join(map(str, LOOK_AHEAD))
            raise CheckpointError(f"no look-ahead of {look_ahead!r} ms in the speech encoder {self.name}. Use {known}")
        return self.with_windows(replace(self.windows, right=look_ahead * FRAME_RATE // 1000))
