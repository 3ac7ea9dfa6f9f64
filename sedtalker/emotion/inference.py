"""Running a diarizer: windows with overlap-add over long audio, the emotion track, and streams.

Memory does not grow with the length of the audio, except for the result, and for the embedded steps that a causal
diarizer keeps of a whole recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.emotion.causal import running_estimates
from sedtalker.emotion.config import BLOCK_AHEAD, STEP_RATE, STRIDE
from sedtalker.emotion.diarizer import Diarizer, InputStream, pool_frames
from sedtalker.emotion.prediction import BLOCKS, OVERLAP, WINDOW, Prediction, build_track, check_voice
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import loudness
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.mel import FRAME_RATE
from sedtalker.speech import Windowing

LOOK_AHEAD = round(0.4 * FRAME_RATE)  # frames
CONTEXT = 8 * FRAME_RATE  # past frames that a stream reads again with every piece


def diarize(
    diarizer: Diarizer,
    features: Tensor | Iterable[Tensor],
    duration: float,
    audio: str | None = None,
    samples: NDArray[np.float32] | None = None,
    voice: VoiceProfile | None = None,
) -> EmotionTrack:
    """The emotion track of features (T, L, D) at 50 Hz, or of blocks of them.

    Args:
        duration: of the audio, in seconds.
        audio: name of the file, for the track.
        samples: (N,) at 16 kHz; if given, long silence becomes neutral.
        voice: what is known of the speaker.
    """
    prediction = predict_frames(diarizer, features, voice)
    loudness_db = None if samples is None else loudness(samples)
    return build_track(prediction, diarizer.config.labels, duration, audio, loudness_db)


@torch.inference_mode()
def predict_frames(
    diarizer: Diarizer, features: Tensor | Iterable[Tensor], voice: VoiceProfile | None = None
) -> Prediction:
    """Prediction for features (T, L, D), or for blocks (t, L, D) of them in order.

    A causal diarizer reads everything twice: the voice that it subtracts is that of the whole recording and of
    `voice`. `DiarizerStream` knows the voice up to a frame only.
    """
    causal, count = diarizer.config.causal, 0
    if voice is not None:
        check_voice(diarizer, voice)
    inputs = InputStream(diarizer, BLOCK_AHEAD) if causal else None
    estimate, activity = diarizer.start_networks(voice) if causal else None, [torch.zeros(0)]
    read = 0  # projected inputs so far

    def add(values: Tensor, speech: Tensor) -> None:
        nonlocal estimate
        assert estimate is not None
        estimate = running_estimates(values, speech, estimate, 1 / STEP_RATE)[1].limited()

    def project(rows: Tensor) -> Tensor:
        nonlocal read
        projected = diarizer.project_inputs(rows)
        if diarizer.config.projected_voice:
            add(projected, torch.cat(activity)[None, read : read + projected.shape[1]].to(projected.device))
        read += projected.shape[1]
        return projected[0].half()  # those of the whole recording are kept

    def embed_blocks() -> Iterator[Tensor]:
        nonlocal count
        for block, _, _ in sliding_windows([features] if isinstance(features, Tensor) else features, BLOCKS):
            count += len(block)
            steps = pool_frames(block[None, :, diarizer.config.first_layer :].to(diarizer.absent.device))
            if inputs is not None:
                speech = diarizer.speech_logits(steps).sigmoid()
                activity.append(speech[0].cpu())
                if not diarizer.config.projected_voice:
                    add(steps.flatten(2), speech)
                yield project(inputs.push(steps))
            else:
                yield diarizer.embed(steps)[0]
        if inputs is not None and count:
            yield project(inputs.push(steps[:, :0], last=True))

    training = diarizer.training
    diarizer.eval()
    embedded: Iterable[Tensor] = list(embed_blocks()) if causal else embed_blocks()
    windows = overlap_add(
        embedded,
        lambda part: diarizer.mean_logits(part[None].float(), estimate)[0],
        WINDOW,
        OVERLAP,
    )
    means = torch.cat(list(windows)).cpu()
    if diarizer.config.smoothing:
        from sedtalker.emotion.smoothing_cpu import smooth_logits  # compiled

        means[:, :-1] = torch.from_numpy(smooth_logits(means[:, :-1].numpy()))
    posterior, intensity = diarizer.finish(means[None])
    diarizer.train(training)
    speech = upsample_steps(torch.cat(activity)[None, :, None], count)[0, :, 0] if causal else None
    return Prediction(upsample_steps(posterior, count)[0], upsample_steps(intensity[..., None], count)[0, :, 0], speech)


@torch.inference_mode()
def enroll_voice(diarizer: Diarizer, features: Tensor | Iterable[Tensor]) -> VoiceProfile:
    """The profile of the voice in features (T, L, D), or in blocks (t, L, D) of them.

    Raises:
        CheckpointError: the diarizer does not use profiles.
    """
    check_voice(diarizer)
    states, networks = diarizer.start(None), diarizer.start_networks(None)
    inputs = InputStream(diarizer, BLOCK_AHEAD) if diarizer.config.projected_voice else None
    activity = torch.zeros(1, 0, device=diarizer.absent.device)  # of steps without projected inputs so far

    def add_projected(rows: Tensor) -> None:
        nonlocal networks, activity
        projected = diarizer.project_inputs(rows)
        known, activity = activity.tensor_split([projected.shape[1]], dim=1)
        networks = running_estimates(projected, known, networks, 1 / STEP_RATE)[1]

    for block, _, _ in sliding_windows([features] if isinstance(features, Tensor) else features, BLOCKS):
        steps = pool_frames(block[None, :, diarizer.config.first_layer :].to(diarizer.absent.device))
        speech = diarizer.speech_logits(steps).sigmoid()
        states = running_estimates(steps.flatten(2), speech, states, 1 / STEP_RATE)[1]
        if inputs is not None:
            activity = torch.cat([activity, speech], 1)
            add_projected(inputs.push(steps))
    if inputs is not None and float(states.seconds) > 0:
        add_projected(inputs.push(steps[:, :0], last=True))
    return diarizer.make_profile(states, networks)


class DiarizerStream:
    """Live diarization: each frame of features gives a frame of the prediction at once.

    A causal diarizer carries its state (`sedtalker.emotion.causal_cpu.PackedStream`). Others read the last 8 s again
    with each piece, without look-ahead.
    """

    def __init__(self, diarizer: Diarizer, voice: VoiceProfile | None = None, lead: int = 0) -> None:
        self.diarizer, self._voice, self._lead = diarizer, voice, lead
        if voice is not None:
            check_voice(diarizer, voice)
        self.reset()

    def reset(self) -> None:
        """Return to the state before the first frame."""
        self._state: StreamState | None = None
        causal = self.diarizer.config.causal
        self._stream = self.diarizer.compiled().stream(self._voice, self._lead) if causal else None

    @property
    def profile(self) -> VoiceProfile:
        """The voice so far."""
        check_voice(self.diarizer)
        assert self._stream is not None
        return self._stream.profile

    def drop_ahead(self) -> None:
        """As `PackedStream.drop_ahead`."""
        if self._stream is not None:
            self._stream.drop_ahead()

    @torch.inference_mode()
    def push(self, features: Tensor | NDArray[np.float32], early: NDArray[np.float32] | None = None) -> Prediction:
        """The prediction for the next frames, features (n, L, D); n may be 0. `early` as in `PackedStream.push`."""
        new = torch.as_tensor(features)
        if self._stream is None:
            posterior, intensity, self._state = diarize_piece(self.diarizer, new, self._state, look_ahead=0)
            return Prediction(posterior, intensity, None)
        return Prediction(*map(torch.from_numpy, self._stream.push(new.cpu().numpy(), early)))


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
    posterior, intensity = predict_frames(diarizer, window)[:2] if final else nothing
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
