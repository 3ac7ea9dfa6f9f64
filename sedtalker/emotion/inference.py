"""Running a diarizer: windows with overlap-add over long audio, the emotion track, and streams.

Memory does not grow with the length of the audio, except for the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.emotion.diarizer import STEP_RATE, STRIDE, Diarizer, pool_frames
from sedtalker.emotion.track import EmotionTrack, frame_count
from sedtalker.emotion.vad import loudness, silence_weight
from sedtalker.speech import FRAME_RATE, Windowing

WINDOW = 40 * STEP_RATE  # steps that the network sees at once
OVERLAP = 8 * STEP_RATE  # steps of the cross-fade between two windows
BLOCKS = Windowing(left=0, hop=8 * FRAME_RATE, right=0)  # frames that become steps at once, an even number
LOOK_AHEAD = round(0.4 * FRAME_RATE)  # frames
CONTEXT = 8 * FRAME_RATE  # past frames that a stream reads again with every piece


def diarize(
    diarizer: Diarizer,
    features: Tensor | Iterable[Tensor],
    duration: float,
    audio: str | None = None,
    samples: NDArray[np.float32] | None = None,
) -> EmotionTrack:
    """The emotion track of features (T, L, D) at 50 Hz, or of blocks of them.

    Args:
        duration: of the audio, in seconds.
        audio: name of the file, for the track.
        samples: (N,) at 16 kHz; if given, long silence becomes neutral.
    """
    posterior, intensity = predict_frames(diarizer, features)
    loudness_db = None if samples is None else loudness(samples)
    return build_track(posterior, intensity, diarizer.config.labels, duration, audio, loudness_db)


@torch.inference_mode()
def predict_frames(diarizer: Diarizer, features: Tensor | Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Posterior (T, C) and intensity (T,) of features (T, L, D), or of blocks (t, L, D) of them in order."""
    count = 0

    def embed_blocks() -> Iterator[Tensor]:
        nonlocal count
        for block, _, _ in sliding_windows([features] if isinstance(features, Tensor) else features, BLOCKS):
            count += len(block)
            steps = pool_frames(block[None, :, diarizer.config.first_layer :].to(diarizer.absent.device))
            yield diarizer.embed(steps)[0]

    training = diarizer.training
    diarizer.eval()
    windows = overlap_add(embed_blocks(), lambda window: diarizer.mean_logits(window[None])[0], WINDOW, OVERLAP)
    logits = torch.cat(list(windows))[None].cpu()
    diarizer.train(training)
    posterior = upsample_steps(logits[..., :-1].softmax(-1), count)[0]
    return posterior, upsample_steps(logits[..., -1:].sigmoid(), count)[0, :, 0]


def build_track(
    posterior: Tensor,
    intensity: Tensor,
    labels: tuple[str, ...],
    duration: float,
    audio: str | None = None,
    loudness_db: NDArray[np.float32] | None = None,
) -> EmotionTrack:
    """The emotion track of posterior (T, C) and intensity (T,) at 50 Hz.

    Args:
        labels: (C,) of the posterior.
        duration: of the audio, in seconds.
        audio: name of the file, for the track.
        loudness_db: (T,) of `sedtalker.audio.loudness`; if given, long silence becomes neutral.
    """
    count = frame_count(duration, FRAME_RATE)
    values, level = _fit_length(posterior.numpy(), count), _fit_length(intensity.numpy(), count)
    if loudness_db is not None:
        silence = _fit_length(silence_weight(loudness_db), count)
        neutral = np.eye(len(labels), dtype=np.float32)[labels.index("neutral")]
        values = values + silence[:, None] * (neutral - values)
        level = level * (1 - silence)
    return EmotionTrack(values, level, duration, labels, float(FRAME_RATE), audio)


@dataclass(frozen=True)
class StreamState:
    """The state of a stream between two pieces."""

    features: Tensor  # (t, L, D), the context and the frames that are not final yet
    pending: int  # number of the frames at the end that are not final yet


def diarize_piece(
    diarizer: Diarizer,
    features: Tensor,
    state: StreamState | None = None,
    look_ahead: int = LOOK_AHEAD,
    last: bool = False,
) -> tuple[Tensor, Tensor, StreamState]:
    """Posterior (t, C) and intensity (t,) of the frames that become final with a new piece of features (T, L, D).

    Every frame is predicted with up to 8 s of the past and at least `look_ahead` frames of the future. Diarizers are
    trained on utterances cut at random, so a sudden end is familiar to them. Each piece costs as much as 8 s of audio;
    with pieces of 0.2 s or more that is far below real time.

    Args:
        last: this is the last piece, and every frame becomes final.
    """
    window = features if state is None else torch.cat([state.features, features])
    pending = len(features) if state is None else state.pending + len(features)
    final = pending if last else max(0, pending - look_ahead)
    nothing = torch.empty(0, len(diarizer.config.labels)), torch.empty(0)
    posterior, intensity = predict_frames(diarizer, window) if final else nothing
    first = len(window) - pending
    keep = min(len(window), pending - final + CONTEXT)
    # Drop an even number of frames, so that the same frames form pairs again.
    keep += (len(window) - keep) % 2
    after = StreamState(window[len(window) - keep :], pending - final)
    return posterior[first : first + final], intensity[first : first + final], after


def upsample_steps(steps: Tensor, frames: int) -> Tensor:
    """Steps (B, S, C) -> frames (B, frames, C), linearly between the middles of the steps."""
    values = F.interpolate(steps.transpose(1, 2), scale_factor=STRIDE, mode="linear", align_corners=False)
    return values.transpose(1, 2)[:, :frames]


def overlap_add(
    blocks: Iterable[Tensor], predict: Callable[[Tensor], Tensor], window: int, overlap: int
) -> Iterator[Tensor]:
    """`predict`, (s, D) -> (s, C), over blocks (n, D) in windows of up to `window` steps, with linear cross-fades.

    Holds no more than a window and a block at a time.
    """
    hop, tail = window - overlap, None  # the tail: predictions for the steps that the next window sees too
    for steps, _, _ in sliding_windows(blocks, Windowing(left=0, hop=hop, right=overlap)):
        if tail is not None and len(steps) <= overlap:
            break  # the last window contained all of it
        predicted = predict(steps)
        if tail is not None:
            ramp = ((torch.arange(overlap, device=predicted.device) + 0.5) / overlap)[:, None]
            predicted = torch.cat([ramp * predicted[:overlap] + (1 - ramp) * tail, predicted[overlap:]])
        yield predicted[:hop]
        tail = predicted[hop:]
    if tail is not None:
        yield tail


def sliding_windows(blocks: Iterable[Tensor], windows: Windowing) -> Iterator[tuple[Tensor, int, int]]:
    """Overlapping windows (T, L, D) over blocks (t, L, D) of any length, with the first and last new frame of each.

    Holds no more than a window and a block at a time.
    """
    buffer = None  # at most `left` frames of context, then new frames
    context = 0  # frames of context in the buffer
    for block in blocks:
        buffer = block if buffer is None else torch.cat([buffer, block])
        while len(buffer) >= context + windows.hop + windows.right:
            last = context + windows.hop
            yield buffer[: last + windows.right], context, last
            drop = max(0, last - windows.left)
            buffer, context = buffer[drop:], last - drop
    while buffer is not None and context < len(buffer):
        last = min(context + windows.hop, len(buffer))
        yield buffer[: last + windows.right], context, last
        drop = max(0, last - windows.left)
        buffer, context = buffer[drop:], last - drop


def _fit_length(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Cut frames to `count`, or repeat the last one up to it."""
    missing = count - len(values)
    return values[:count] if missing <= 0 else np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
