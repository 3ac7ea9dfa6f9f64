"""Speech that comes in chunks: the same coefficients as from the whole recording, in flat memory.

    samples -> encoder.blocks -> read, or heard and told -> decoded        from block to block

Every step looks at a bounded stretch of sound, whatever the sizes of the chunks, so the result does not depend on them.
A frame waits for the encoder's window to be complete (`hop` and `right` of its windowing) and for the talker's
look-ahead: `latency` says how long at most.
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
"""Encoder windows for conversation: 80 ms at a time, 200 ms of look-ahead (with 80 the mouth opens a sixth less)."""

SPOOLED = 1 << 24  # bytes that a spool keeps in memory


class Block(NamedTuple):
    """Consecutive frames of speech and their emotion."""

    speech: Tensor  # (n, width), what the talker takes in of it
    posterior: Tensor  # (n, C)
    intensity: Tensor  # (n,)


def stream(
    encoder: WindowedEncoder,
    emotion: Diarizer | EmotionTrack,
    model: TalkerModel,
    chunks: Iterable[Samples],
    style: Tensor | None = None,
    diarizer_encoder: WindowedEncoder | None = None,
) -> Iterator[Tensor]:
    """Coefficients (n, K) at 50 Hz, as soon as they are known, of 16 kHz samples that come in chunks of any size.

    `emotion` is a diarizer or a track; its labels are mapped to the model's. A diarizer reads the model's features, or
    those of `listener`, which has the encoder's windows.

    Raises:
        TrackError: the diarizer or the track has an emotion that the model does not know.
    """
    labels = model.config.labels
    if not isinstance(emotion, Diarizer):
        track = emotion.with_labels(labels)
        return decode_stream(
            model, attach_track(track, (embed_speech(model, block, style) for block in encoder.blocks(chunks)))
        )
    emotion.label_matrix(labels)  # refuses labels that do not fit before any sound is taken
    if diarizer_encoder is None or diarizer_encoder is encoder:
        pairs: Iterable[tuple[Tensor, Tensor]] = ((block, block) for block in encoder.blocks(chunks))
    else:
        given, again = tee(chunks)
        pairs = zip(encoder.blocks(given), diarizer_encoder.blocks(again), strict=True)
    return decode_stream(model, diarize_stream(emotion, model, pairs, style))


def latency(windows: Windowing, model: TalkerModel) -> float:
    """The longest time in seconds between a sound and the frames that show it, computing time left out."""
    return (windows.hop + windows.right + model.config.look_ahead) / FRAME_RATE


@torch.inference_mode()
def embed_speech(model: TalkerModel, features: Tensor, style: Tensor | None = None) -> Tensor:
    """What the talker takes in (n, width) of features (n, L, D).

    `style` is (1,) or None, as in `TalkerModel.forward`.
    """
    return model.embed(features[None].to(model.layer_weights.device), style)[0].float().cpu()


def diarize_stream(
    diarizer: Diarizer, model: TalkerModel, blocks: Iterable[tuple[Tensor, Tensor]], style: Tensor | None = None
) -> Iterator[Block]:
    """Blocks of features (n, L, D) for the model and for the diarizer, taken in with their emotion, which is read with
    what came before and nothing after it.

    A reader of the whole recording hears what follows too, and decides better.
    """
    state: StreamState | None = None
    matrix = diarizer.label_matrix(model.config.labels)
    for features, listened in blocks:
        posterior, intensity, state = diarize_piece(diarizer, listened, state, look_ahead=0)
        yield Block(embed_speech(model, features, style), posterior @ matrix, intensity)


def attach_track(track: EmotionTrack, blocks: Iterable[Tensor]) -> Iterator[Block]:
    """Blocks of speech with the emotion of a track, which has the model's labels; after its end they are neutral."""
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
    """Coefficients (n, K) block by block; joined they are the model's answer to the joined blocks."""
    device = model.layer_weights.device
    state: TalkerState | None = None
    for block in blocks:
        speech, posterior, intensity = (part[None].to(device) for part in block)
        coefficients, state = model.advance(speech, posterior, intensity, state)
        yield coefficients[0].float().cpu()
    if state is not None:
        yield model.finish(state)[0].float().cpu()


class Spool:
    """Rows (n, width) of float32, written and read in order: in memory while they are few, then in a temporary file."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOLED)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows (n, width).

        Raises:
            SEDTalkerError: the disk is full.
        """
        try:
            self._file.write(np.ascontiguousarray(rows, np.float32).tobytes())
        except OSError as error:
            raise SEDTalkerError(
                f"no room for temporary files: {tempfile.gettempdir()} ({error.strerror}). Free some, or set TMPDIR"
            ) from error

    def blocks(self, rows: int = 200) -> Iterator[NDArray[np.float32]]:
        """All rows from the first on, `rows` of them at a time."""
        self._file.seek(0)
        while content := self._file.read(4 * self._width * rows):
            yield np.frombuffer(bytearray(content), np.float32).reshape(-1, self._width)
