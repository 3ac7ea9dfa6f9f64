"""Speech that comes in chunks: the same coefficients as from the whole recording, in flat memory.

    samples -> encoded -> read -> decoded        each takes an iterator of chunks of any size and gives one of blocks

Every step looks at a bounded stretch of sound, whatever the sizes of the chunks, so the result does not depend on them.
A frame waits for the encoder's window to be complete (`hop` and `right` of its windowing) and for the talker's
look-ahead: `latency` says how long at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sedtalker.audio import Samples
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.streaming import StreamState, diarize_piece
from sedtalker.emotion.track import EmotionTrack
from sedtalker.speech import FRAME_RATE, FRAME_SAMPLES, WindowedEncoder, Windowing
from sedtalker.talker.model import TalkerModel, TalkerState

LIVE = Windowing(left=2 * FRAME_RATE, hop=4, right=4)
"""Encoder windows for conversation: 80 ms at a time, with 80 ms of look-ahead."""


class Block(NamedTuple):
    """Consecutive frames of speech and their emotion."""

    features: Tensor  # (n, L, D)
    posterior: Tensor  # (n, C)
    intensity: Tensor  # (n,)


def stream(
    encoder: WindowedEncoder,
    emotion: Diarizer | EmotionTrack,
    model: TalkerModel,
    chunks: Iterable[Samples],
    style: Tensor | None = None,
) -> Iterator[Tensor]:
    """Coefficients (n, K) at 50 Hz, as soon as they are known, of 16 kHz samples that come in chunks of any size.

    `emotion` is what reads it from the voice, or a track that says it.
    """
    features = encoded(encoder, chunks)
    blocks = read(emotion, features) if isinstance(emotion, Diarizer) else told(emotion, features)
    return decoded(model, blocks, style)


def latency(windows: Windowing, model: TalkerModel) -> float:
    """The longest time in seconds between a sound and the frames that show it, computing time left out."""
    return (windows.hop + windows.right + model.config.look_ahead) / FRAME_RATE


@torch.inference_mode()
def encoded(encoder: WindowedEncoder, chunks: Iterable[Samples]) -> Iterator[Tensor]:
    """Hidden states (n, L, D) block by block; joined they are `encoder.encode` of the joined samples."""
    windows = encoder.windows
    held = torch.zeros(0)  # the samples from frame `first` on
    first = start = 0  # frames
    for chunk in chunks:
        held = torch.cat([held, torch.as_tensor(chunk, dtype=torch.float32)])
        while first + len(held) // FRAME_SAMPLES >= start + windows.hop + windows.right:
            yield _window(encoder, held, first, start, start + windows.hop, start + windows.hop + windows.right)
            start += windows.hop
            dropped = max(0, start - windows.left) - first
            held, first = held[dropped * FRAME_SAMPLES :], first + dropped
    frames = first + math.ceil(len(held) / FRAME_SAMPLES)
    for begin in range(start, frames, windows.hop):
        end = min(begin + windows.hop, frames)
        yield _window(encoder, held, first, begin, end, min(frames, end + windows.right))


def _window(encoder: WindowedEncoder, held: Tensor, first: int, start: int, end: int, last: int) -> Tensor:
    """Hidden states of the frames start..end, seen with what lies between left context and frame `last`."""
    begin = max(0, start - encoder.windows.left)
    samples = held[(begin - first) * FRAME_SAMPLES : (last - first) * FRAME_SAMPLES]
    missing = (last - begin) * FRAME_SAMPLES - len(samples)
    hidden = encoder.network(torch.nn.functional.pad(samples, (0, missing)).to(encoder.device))
    return hidden[start - begin : end - begin].cpu()


def read(diarizer: Diarizer, blocks: Iterable[Tensor]) -> Iterator[Block]:
    """The emotion of each block of features, heard with what came before it and nothing after it.

    A reader of the whole recording hears what follows too, and decides better.
    """
    state: StreamState | None = None
    for features in blocks:
        posterior, intensity, state = diarize_piece(diarizer, features, state, look_ahead=0)
        yield Block(features, posterior, intensity)


def told(track: EmotionTrack, blocks: Iterable[Tensor]) -> Iterator[Block]:
    """Blocks of features with the emotion that a track gives them; its last frame holds beyond its end."""
    count = max(1, math.ceil(track.duration * FRAME_RATE))
    posterior, intensity = map(torch.from_numpy, track.at_rate(FRAME_RATE, count))
    start = 0
    for features in blocks:
        frames = torch.arange(start, start + len(features)).clamp(max=count - 1)
        yield Block(features, posterior[frames], intensity[frames])
        start += len(features)


@torch.inference_mode()
def decoded(model: TalkerModel, blocks: Iterable[Block], style: Tensor | None = None) -> Iterator[Tensor]:
    """Coefficients (n, K) block by block; joined they are the model's answer to the joined blocks.

    `style` is (1,) or None, as in `TalkerModel.forward`.
    """
    device = model.layer_weights.device
    state: TalkerState | None = None
    for block in blocks:
        features, posterior, intensity = (part[None].to(device) for part in block)
        coefficients, state = model.step(features, posterior, intensity, style, state)
        yield coefficients[0].float().cpu()
    if state is not None:
        yield model.finish(state)[0].float().cpu()
