"""Streaming: coefficients of speech that comes in chunks, equal to those of the whole recording, in constant memory.

    samples -> encoder.blocks -> diarize_stream, or embed_speech and attach_track -> decode_stream        block by block

Every step depends on a bounded stretch of audio, so that the result does not depend on the sizes of the chunks. A frame
waits for the encoder's window (`hop` and `right` of its windowing) and for the talker's look-ahead: see `latency`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.audio import Samples
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.inference import StreamState, diarize_piece
from sedtalker.emotion.track import EmotionTrack, frame_count
from sedtalker.errors import SEDTalkerError
from sedtalker.speech import FRAME_RATE, WindowedEncoder, Windowing
from sedtalker.talker.model import TalkerModel, TalkerState

LIVE = Windowing(left=2 * FRAME_RATE, hop=4, right=10)
"""Encoder windows for conversation: hops of 80 ms, 200 ms of look-ahead (with 80 ms the mouth opens a sixth less)."""

SPOOLED = 1 << 24  # bytes that a spool holds in memory


class Block(NamedTuple):
    """Consecutive frames of speech and their emotion."""

    speech: Tensor  # (n, width), of `TalkerModel.embed`
    posterior: Tensor  # (n, C)
    intensity: Tensor  # (n,)


def stream(
    encoder: WindowedEncoder,
    emotion: Diarizer | EmotionTrack,
    model: TalkerModel,
    chunks: Iterable[Samples],
    diarizer_encoder: WindowedEncoder | None = None,
) -> Iterator[Tensor]:
    """Coefficients (n, K) at 50 Hz for chunks of 16 kHz samples of any size, each as soon as it can be computed.

    Args:
        encoder: of the features for the model.
        emotion: a diarizer, or a track; its labels are mapped to the model's.
        chunks: mono samples (n,).
        diarizer_encoder: of the features for the diarizer, with the encoder's windows; None: the same features.

    Raises:
        TrackError: the diarizer or the track has an emotion that the model does not know.
    """
    labels = model.config.labels
    if not isinstance(emotion, Diarizer):
        track = emotion.with_labels(labels)
        speech = (embed_speech(model, block) for block in encoder.blocks(chunks))
        return decode_stream(model, attach_track(track, speech))
    emotion.label_matrix(labels)  # raises TrackError before any audio is read
    if diarizer_encoder is None or diarizer_encoder is encoder:
        pairs: Iterable[tuple[Tensor, Tensor]] = ((block, block) for block in encoder.blocks(chunks))
    else:
        first, second = tee(chunks)
        pairs = zip(encoder.blocks(first), diarizer_encoder.blocks(second), strict=True)
    return decode_stream(model, diarize_stream(emotion, model, pairs))


def latency(windows: Windowing, model: TalkerModel) -> float:
    """The longest delay of a frame after its sound, in seconds, without computing time."""
    return (windows.hop + windows.right + model.config.look_ahead) / FRAME_RATE


@torch.inference_mode()
def embed_speech(model: TalkerModel, features: Tensor) -> Tensor:
    """The talker's input (n, width) of features (n, L, D), in the mean style."""
    return model.embed(features[None].to(model.layer_weights.device))[0].float().cpu()


def diarize_stream(diarizer: Diarizer, model: TalkerModel, blocks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Block]:
    """Embedded blocks with diarized emotion, of features (n, L, D) for the model and for the diarizer.

    The diarizer sees the past alone, and is less accurate than with the whole recording.
    """
    state: StreamState | None = None
    matrix = diarizer.label_matrix(model.config.labels)
    for features, diarizer_features in blocks:
        posterior, intensity, state = diarize_piece(diarizer, diarizer_features, state, look_ahead=0)
        yield Block(embed_speech(model, features), posterior @ matrix, intensity)


def attach_track(track: EmotionTrack, blocks: Iterable[Tensor]) -> Iterator[Block]:
    """Blocks of embedded speech (n, width) with the emotion of a track over the model's labels, neutral after it."""
    count = frame_count(track.duration)
    posterior, intensity = map(torch.from_numpy, track.at_rate(FRAME_RATE, count))
    neutral = torch.eye(len(track.labels))[None, track.labels.index("neutral")]
    posterior, intensity = torch.cat([posterior, neutral]), torch.cat([intensity, torch.zeros(1)])
    start = 0
    for speech in blocks:
        frames = torch.arange(start, start + len(speech)).clamp(max=count)
        yield Block(speech, posterior[frames], intensity[frames])
        start += len(speech)


@torch.inference_mode()
def decode_stream(model: TalkerModel, blocks: Iterable[Block]) -> Iterator[Tensor]:
    """Coefficients (n, K) block by block; together they equal the model's output for all blocks at once."""
    device = model.layer_weights.device
    state: TalkerState | None = None
    for block in blocks:
        speech, posterior, intensity = (part[None].to(device) for part in block)
        coefficients, state = model.step_embedded(speech, posterior, intensity, state)
        yield coefficients[0].float().cpu()
    if state is not None:
        yield model.finish(state)[0].float().cpu()


class Spool:
    """Rows (n, width) of float32, written and read in order: in memory up to `SPOOLED` bytes, then in a file."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOLED)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows (n, width). Raises SEDTalkerError if the disk is full."""
        try:
            self._file.write(np.ascontiguousarray(rows, np.float32).tobytes())
        except OSError as error:
            raise SEDTalkerError(
                f"no space for temporary files: {tempfile.gettempdir()} ({error.strerror}). Free some, or set TMPDIR"
            ) from error

    def blocks(self, rows: int = 200) -> Iterator[NDArray[np.float32]]:
        """All rows from the first one, `rows` at a time."""
        self._file.seek(0)
        while content := self._file.read(4 * self._width * rows):
            yield np.frombuffer(bytearray(content), np.float32).reshape(-1, self._width)
