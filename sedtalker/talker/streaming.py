"""Streaming: the motion of speech that comes in chunks, equal to that of the whole recording, in constant memory.

    samples -> encoder -> embed_speech, and diarizer or track -> MotionDecoder -> frames        block by block

Every step depends on a bounded stretch of audio, and carries its state from block to block, so that the result does not
depend on the sizes of the chunks. `TalkerStream.latency` is the longest delay of a frame.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, Samples, to_samples
from sedtalker.curves import Resampler
from sedtalker.emotion.config import find_lead, label_matrix
from sedtalker.emotion.track import EmotionTrack, frame_count
from sedtalker.emotion.vad import LONG_SILENCE, SILENCE_LEVEL
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.encoder_config import EarlyStream, LookAheadDial, Windowing
from sedtalker.errors import SEDTalkerError, TrackError, as_number
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import canonical_label
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES
from sedtalker.talker.config import LOWER_FACE, TalkerConfig
from sedtalker.talker.idle_motion import LOOK_AHEAD, STILL, IdleMotionGenerator, apply_idle_motion
from sedtalker.talker.model_cpu import PackedTalker
from sedtalker.talker.prosody import SILENCE, ProsodyTracker

if TYPE_CHECKING:
    from sedtalker.emotion.causal_cpu import PackedDiarizer
    from sedtalker.emotion.diarizer import Diarizer
    from sedtalker.speech import WindowedEncoder
    from sedtalker.streaming_encoder_cpu import CompiledEncoder
    from sedtalker.talker.model import TalkerModel

Float = NDArray[np.float32]

LIVE = Windowing(left=2 * FRAME_RATE, hop=4, right=10)
"""Windows for conversation of encoders without a dial: hops of 80 ms, 200 ms of look-ahead."""
LIVE_LOOK_AHEAD, OFFLINE_LOOK_AHEAD = 120, 400  # ms, defaults of the dial: a file is there, and waiting costs nothing

STEP = 2 * FRAME_SAMPLES  # that are computed at once, at least: a step of 20 ms costs nearly as much as one of 80 ms
LONGEST_STEP = 8 * SAMPLE_RATE  # samples that are computed at once, at most
REST_FRAMES = 3  # frames in which an interruption brings the lips to rest
RESUME_FRAMES = 6  # frames in which the motion goes over to that of the next sound
DIARIZER_FRAMES = 12  # frames that a diarizer reads at once if it reads the last seconds again with each piece
NEUTRAL_FRAMES = 10  # frames in which the emotion of the voice ends in long silence

SPOOLED = 1 << 24  # bytes that a spool holds in memory

_LOWER = np.array([name.startswith(LOWER_FACE) for name in ARKIT_NAMES])


class Frames(NamedTuple):
    """Motion of n frames, n from 0 on; K is 52 for talkers that move a rig."""

    time: NDArray[np.floating]  # (n,) middle of the frame in seconds of the audio
    weights: Float  # (n, K) blendshape weights or other coefficients
    head: Float  # (n, 3) degrees: pitch (positive is down), yaw (positive is to the person's left) and roll
    gaze: Float  # (n, 2) degrees to the person's left and up; the weights contain it
    posterior: Float  # (n, C) over the model's labels
    intensity: Float  # (n,) 0..1
    speech: Float  # (n,) 1 while the voice speaks, else 0


class EmotionSource(Protocol):
    """Emotion of consecutive frames."""

    def push(self, features: Float, loudness: Float, early: Float | None = None) -> tuple[Float, Float]:
        """Posterior (n, C) and intensity (n,) of the frames with features (n, ...) and loudness (n,) in dB.

        Args:
            early: (m, D), new early states, for a source that reads them. Then n is even, except at the end.
        """

    def start_sound(self, frame: int) -> None:
        """Go on with other sound, at the frame of this number."""


class TrackEmotion:
    """`EmotionSource` of a track over the model's labels, neutral after its end."""

    def __init__(self, track: EmotionTrack) -> None:
        self._count = frame_count(track.duration)
        posterior, intensity = track.at_rate(FRAME_RATE, self._count)
        neutral = np.eye(len(track.labels), dtype=np.float32)[None, track.labels.index("neutral")]
        self._posterior = np.concatenate([posterior, neutral])
        self._intensity = np.concatenate([intensity, np.zeros(1, np.float32)])
        self._start = 0  # number of the next frame

    def push(self, features: Float, loudness: Float, early: Float | None = None) -> tuple[Float, Float]:
        """As `EmotionSource`; only the number of the frames matters."""
        frames = np.arange(self._start, self._start + len(features)).clip(max=self._count)
        self._start += len(features)
        return self._posterior[frames], self._intensity[frames]

    def start_sound(self, frame: int) -> None:
        """As `EmotionSource`."""
        self._start = frame


class DiarizedEmotion:
    """`EmotionSource` of a voice that knows the past alone; it fades to neutral in long silence."""

    def __init__(
        self,
        diarizer: Diarizer | PackedDiarizer,
        labels: tuple[str, ...],
        voice: VoiceProfile | None = None,
        lead: int = 0,
    ) -> None:
        """`lead` is of `find_lead`."""
        self._causal, self._matrix = diarizer.config.causal, label_matrix(diarizer.config, labels)
        self._stream = diarizer.stream(voice, lead)
        self._neutral = np.eye(len(labels), dtype=np.float32)[labels.index("neutral")]
        self._waiting: Float | None = None  # features of frames that were not predicted yet
        self._last = self._neutral[None], np.zeros(1, np.float32)  # posterior and intensity of the last predicted frame
        self._quiet, self._silence = 0, 0.0

    def start_sound(self, frame: int) -> None:
        """As `EmotionSource`; what is known of the voice stays."""
        self._stream.drop_ahead()

    def push(self, features: Float, loudness: Float, early: Float | None = None) -> tuple[Float, Float]:
        """As `EmotionSource`, of the features of the diarizer's encoder."""
        posterior, intensity = self._predict(features, early)
        weights = [self._silence_weight(level) for level in loudness.tolist()]
        if not any(weights):
            return posterior, intensity
        silence = np.array(weights, np.float32)
        return posterior + silence[:, None] * (self._neutral - posterior), intensity * (1 - silence)

    def _predict(self, features: Float, early: Float | None) -> tuple[Float, Float]:
        """Posterior (n, C) and intensity (n,): of each frame, or the last ones known."""
        if self._causal:
            return self._push(features, early)
        waiting = features[:0] if self._waiting is None else self._waiting
        shown = (np.arange(len(features)) + len(waiting) + 1) // DIARIZER_FRAMES  # pieces that a frame knows
        frames, posteriors, intensities = np.concatenate([waiting, features]), [self._last[0]], [self._last[1]]
        for start in range(0, len(frames) - DIARIZER_FRAMES + 1, DIARIZER_FRAMES):
            posterior, intensity = self._push(frames[start : start + DIARIZER_FRAMES])
            posteriors.append(posterior[-1:])
            intensities.append(intensity[-1:])
        self._waiting = frames[len(frames) // DIARIZER_FRAMES * DIARIZER_FRAMES :]
        self._last = posteriors[-1], intensities[-1]
        return np.concatenate(posteriors)[shown], np.concatenate(intensities)[shown]

    def _push(self, features: Float, early: Float | None = None) -> tuple[Float, Float]:
        posterior, intensity, _ = self._stream.push(features, early)
        return np.asarray(posterior) @ self._matrix, np.asarray(intensity)

    def _silence_weight(self, level: float) -> float:
        self._quiet = self._quiet + 1 if level < SILENCE_LEVEL else 0
        goal = float(self._quiet > LONG_SILENCE * FRAME_RATE)
        self._silence += min(max(goal - self._silence, -1 / NEUTRAL_FRAMES), 1 / NEUTRAL_FRAMES)
        return self._silence


class MotionSteps(Protocol):
    """Coefficients of embedded speech that comes in chunks."""

    def push(self, speech: Float, posterior: Float, intensity: Float, mouth: Float | None = None) -> Float:
        """Coefficients (m, K) of the frames that become complete with n more; arguments as `MotionDecoder.push`."""

    def finish(self) -> Float:
        """Coefficients of the last frames, after the last chunk."""


class MotionNetwork(Protocol):
    """A talker's network, compiled or in torch."""

    @property
    def config(self) -> TalkerConfig: ...

    def embed(self, features: Float) -> Float:
        """The input (n, embedded_width) of the decoder, of features (n, L, D), in the mean style."""

    def recording_mouth(self, blocks: Iterable[Float]) -> Float | None:
        """Lip gap and added widening (T, 2) in mm of a whole recording, of blocks (n, embedded_width).

        None if no network predicts them.
        """

    def start_steps(self) -> MotionSteps:
        """The coefficients of a stream or recording, before its first frame."""


def motion_network(model: TalkerModel | PackedTalker) -> MotionNetwork:
    """The network of a talker's model for the decoder."""
    if isinstance(model, PackedTalker):
        return model
    from sedtalker.talker.model_steps import motion_of  # imports torch, as has the caller with such a model

    return motion_of(model)


class MotionDecoder:
    """Motion at 50 Hz of embedded speech, emotion and prosody that come in blocks."""

    def __init__(
        self,
        network: MotionNetwork,
        seed: int = 0,
        still: bool = False,
    ) -> None:
        """`seed` is of the idle motion; `still` disables it."""
        self._network, config = network, network.config
        self._rigged = config.head == "blendshapes"
        labels, coefficients = config.labels, config.coefficients
        ends = [0, *accumulate((coefficients, 3, 2, len(labels), 1))]
        self._parts = [slice(*part) for part in pairwise(ends)]  # columns of the rows; the last one is speech
        self._idle = IdleMotionGenerator(labels, seed, None if self._rigged and not still else STILL)
        self._steps: MotionSteps | None = None
        self._waiting = np.zeros((0, 9 + len(labels)), np.float32)  # of the frames whose coefficients are not known yet
        neutral = np.eye(len(labels), dtype=np.float32)[labels.index("neutral")]
        self._emotion: tuple[Float, Float] = neutral, np.float32(0)
        self._last = np.zeros(coefficients, np.float32)  # coefficients of the last frame
        self._held = self._last  # the same at the last interruption
        self.no_rows = np.zeros((0, ends[-1] + 1), np.float32)
        self._resumed = RESUME_FRAMES  # frames since an interruption

    def push(
        self, speech: Float, posterior: Float, intensity: Float, prosody: Float, mouth: Float | None = None
    ) -> Float:
        """Rows (n', columns) of the frames that become complete with n more; see `split`.

        Args:
            speech: (n, embedded_width) of `MotionNetwork.embed`.
            posterior: (n, C) over the model's labels.
            intensity: (n,).
            prosody: (n, 2), `LOOK_AHEAD` frames later.
            mouth: (n, 2) of `MotionNetwork.recording_mouth`, if the whole recording is known.
        """
        self._push_idle(prosody, posterior, intensity)
        self._steps = self._steps or self._network.start_steps()
        return self._combine(self._steps.push(speech, posterior, intensity, mouth))

    def finish(self) -> Float:
        """Rows of the frames after the last block."""
        if self._steps is None:
            return self._combine(np.zeros((0, len(self._last)), np.float32))
        rows = self._combine(self._steps.finish())
        self._clear_inputs()
        return rows

    def interrupt(self, frames: int) -> Float:
        """Rows of this number of frames, in which the lips come to rest, instead of those that wait."""
        posterior, intensity = self._emotion
        more = max(0, frames - len(self._waiting))
        self._push_idle(
            np.tile(np.array(SILENCE, np.float32), (more, 1)), np.tile(posterior, (more, 1)), np.full(more, intensity)
        )
        share = _ease(np.arange(1, frames + 1) / REST_FRAMES)[:, None]
        rows = self._combine(self._last * (1 - share * (_LOWER if self._rigged else 1)))
        self._clear_inputs()
        return rows

    def _clear_inputs(self) -> None:
        """Start the next sound from the last pose."""
        self._steps, self._waiting, self._held, self._resumed = None, self._waiting[:0], self._last, 0

    def start_from_rest(self) -> None:
        """Start the next sound as if it were the first, without a transition from the last pose."""
        self._resumed = RESUME_FRAMES

    def split(self, rows: Float, first: int, fps: float) -> Frames:
        """The frames of rows at `fps`, the first of which has number `first`."""
        times = (np.arange(first, first + len(rows)) + 0.5) / fps
        weights, head, gaze, posterior, intensity = (rows[:, part] for part in self._parts)
        return Frames(times, weights, head, gaze, posterior, intensity[:, 0], rows[:, -1])

    def _push_idle(self, prosody: Float, posterior: Float, intensity: Float) -> None:
        """Append the idle motion and the emotion of the next frames to those that wait."""
        idle = self._idle.push(prosody, posterior, intensity)
        new = np.empty((len(intensity), self._waiting.shape[1]), np.float32)
        new[:, 0], new[:, 1], new[:, 2:5], new[:, 5:7] = idle.brows, idle.lids, idle.head, idle.gaze
        new[:, 7:-2], new[:, -2], new[:, -1] = posterior, intensity, idle.speech
        self._waiting = np.concatenate([self._waiting, new])
        if len(intensity):
            self._emotion = posterior[-1], intensity[-1]

    def _combine(self, coefficients: Float) -> Float:
        """Rows of the next frames, with their coefficients (n, K)."""
        frames = len(coefficients)
        if frames and self._resumed < RESUME_FRAMES:
            share = _ease((self._resumed + np.arange(1, frames + 1)) / RESUME_FRAMES)[:, None]
            coefficients = (self._held + share * (coefficients - self._held)).astype(np.float32)
            self._resumed += frames
        if frames:
            self._last = coefficients[-1]
        extra, self._waiting = self._waiting[:frames], self._waiting[frames:]
        if self._rigged:
            coefficients = apply_idle_motion(coefficients, extra[:, 0], extra[:, 1], extra[:, 5:7])
        return np.concatenate([coefficients, extra[:, 2:]], axis=1)


class TalkerStream:
    """Frames of live speech.

    Chunks may have any size; at least `STEP` samples are computed at once, when the second of two frames is complete.
    All memory is that of a few seconds. A thread may interrupt it while another one pushes.
    """

    def __init__(
        self,
        encoder: WindowedEncoder | CompiledEncoder,
        emotion: Diarizer | PackedDiarizer | EmotionTrack,
        model: TalkerModel | PackedTalker,
        *,
        diarizer_encoder: WindowedEncoder | CompiledEncoder | None = None,
        voice: VoiceProfile | None = None,
        intensity_scale: float = 1.0,
        fps: float = 30.0,
        seed: int = 0,
        still: bool = False,
    ) -> None:
        """
        Args:
            encoder: of the features for the model.
            emotion: a diarizer, or a track; its labels are mapped to the model's.
            diarizer_encoder: of the features for the diarizer; None, or the same encoder: those for the model.
            voice: what is known of the speaker, for the diarizer.
            intensity_scale: multiplies the intensity.
            fps: frames a second.
            seed: of the idle motion.
            still: no idle motion.

        Raises:
            TrackError: the diarizer or the track has an emotion that the model does not know.
        """
        self.labels, self.fps = model.config.labels, fps
        self._lock = threading.RLock()
        self._finished, self._held = False, np.zeros(0, np.float32)  # samples that wait for a step
        self._passed = 0  # samples of the steps so far
        self._encoder = encoder
        shared = diarizer_encoder is None or diarizer_encoder is encoder or isinstance(emotion, EmotionTrack)
        self._diarizer_encoder = None if shared else diarizer_encoder
        self._given, self._voice, self._scale = emotion, voice, intensity_scale
        reads_own = isinstance(emotion, EmotionTrack) or self._diarizer_encoder is not None
        early_frames = encoder.early_frames if isinstance(encoder, LookAheadDial) and not reads_own else 0
        self._lead = 0 if isinstance(emotion, EmotionTrack) else find_lead(emotion.config, early_frames)
        self._hand: tuple[Float, float, float] | None = None
        self._network = motion_network(model)
        self._decoder = MotionDecoder(self._network, seed, still)
        self.latency = (encoder.delay + model.config.look_ahead) / FRAME_RATE + (STEP - FRAME_SAMPLES) / SAMPLE_RATE
        self._phase = round(encoder.delay * FRAME_SAMPLES) % STEP  # samples of a sound at which its first step ends
        self._start()

    def push(self, samples: Samples) -> Frames:
        """The frames that become complete with the next samples (N,), mono at 16 kHz.

        Raises:
            AudioError: not samples of this form.
        """
        new = to_samples(samples)
        with self._lock:
            if self._finished:
                raise SEDTalkerError("the stream is finished. Open another, or reset it")
            self._received += len(new)
            self._held = np.concatenate([self._held, new])
            rows = [self._no_rows]
            while step := self._find_step():
                step_samples, self._held = self._held[:step], self._held[step:]
                self._passed += step
                rows.append(self._advance(step_samples))
            return self._emit(np.concatenate(rows))

    def _find_step(self) -> int:
        """Samples of the next step, 0 if it is not complete."""
        end = (self._passed + len(self._held) - self._phase) // STEP * STEP + self._phase
        return min(max(0, end - self._passed), LONGEST_STEP)

    def finish(self) -> Frames:
        """The frames after the last samples."""
        with self._lock:
            if self._finished:
                return self._emit(self._no_rows)
            rows = np.concatenate([self._advance(self._held, last=True), self._decoder.finish()])
            self._finished = True
            return self._emit(rows, last=True)

    def interrupt(self) -> Frames:
        """Drop the sound that is not animated yet, and return frames for its time, the lips at rest within 100 ms.

        The clock, the idle motion and what is known of the voice go on.
        """
        with self._lock:
            frames = max(0, round(self._received / FRAME_SAMPLES) - self._rows)
            motion = self._emit(self._decoder.interrupt(frames))
            self._start_sound()
            self._emotion.start_sound(self._rows)
            return motion

    def reset(self, from_rest: bool = False) -> Frames:
        """As `interrupt`; then the stream is as before the first sample, except that the idle motion goes on.

        The next sound starts from the last pose, or `from_rest`, for callers that show a resting face meanwhile.
        """
        with self._lock:
            motion = self._emit(self._no_rows) if self._finished else self.interrupt()
            if from_rest:
                self._decoder.start_from_rest()
            self._start()
            return motion

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy, which cannot take the lock."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def set_emotion(self, emotion: str | None, intensity: float = 1.0, share: float = 1.0) -> None:
        """Set the emotion by hand from the next frames on: `share` of it, and the rest from the voice; None: the voice.

        Raises:
            TrackError: an unknown emotion, or a number outside 0..1.
        """
        if emotion is None:
            self._hand = None
            return
        label = canonical_label(emotion, self.labels)
        for name, value in (("intensity", intensity), ("share", share)):
            if not 0 <= as_number(value, name, TrackError) <= 1:
                raise TrackError(f"an emotion's {name} of {value}: give 0 to 1")
        self._hand = np.eye(len(self.labels), dtype=np.float32)[self.labels.index(label)], intensity, share

    def _start(self) -> None:
        """Return to the state before the first sample."""
        if isinstance(self._given, EmotionTrack):
            self._emotion: EmotionSource = TrackEmotion(self._given.with_labels(self.labels))
        else:
            self._emotion = DiarizedEmotion(self._given, self.labels, self._voice, self._lead)
        self._resampler = Resampler(FRAME_RATE, self.fps)
        self._received = self._rows = self._sent = 0  # samples, frames at 50 Hz, frames at `fps`
        self._finished = False
        self._start_sound()

    def _start_sound(self) -> None:
        """Forget the sound so far."""
        self._held, self._passed = np.zeros(0, np.float32), 0
        own = self._encoder if self._diarizer_encoder is None else self._diarizer_encoder
        encoders = [self._encoder] if own is self._encoder else [self._encoder, own]
        self._early: EarlyStream | None = None
        if self._lead and isinstance(own, LookAheadDial):
            self._early = own.early_stream()
        self._encoders = [encoder.stream() for encoder in encoders] if self._early is None else [self._early]
        self._features = [np.zeros((0, encoder.layers, encoder.width), np.float32) for encoder in encoders]
        self._tracker, self._prosody = ProsodyTracker(), np.zeros((0, 2), np.float32)

    def _advance(self, samples: Samples, last: bool = False) -> Float:
        """Rows of the frames that become complete with the next samples; `last`: no samples follow."""
        for number, encoder in enumerate(self._encoders):
            parts = [self._features[number], encoder.push(samples), *([encoder.finish()] if last else [])]
            self._features[number] = np.concatenate([np.asarray(part) for part in parts])
        prosody = [self._prosody, self._tracker.push(samples), *([self._tracker.finish()] if last else [])]
        self._prosody = np.concatenate(prosody)
        waiting = min(map(len, self._features))
        if last:
            self._prosody = extend(self._prosody, waiting + LOOK_AHEAD)
        ready = max(0, min(waiting, len(self._prosody) - LOOK_AHEAD))
        if not ready:
            return self._no_rows
        features = [part[:ready] for part in self._features]
        early = None if self._early is None else self._early.take_early()
        posterior, intensity = self._emotion.push(features[-1], self._prosody[:ready, 0], early)
        if (hand := self._hand) is not None:  # another thread may set it meanwhile
            emotion, strength, share = hand
            posterior, intensity = posterior + share * (emotion - posterior), intensity + share * (strength - intensity)
        intensity = (intensity * self._scale).clip(0, 1).astype(np.float32)
        prosody_ahead = self._prosody[LOOK_AHEAD : ready + LOOK_AHEAD]
        speech = self._network.embed(features[0])
        rows = self._decoder.push(speech, posterior.astype(np.float32), intensity, prosody_ahead)
        self._features, self._prosody = [part[ready:] for part in self._features], self._prosody[ready:]
        return rows

    def _emit(self, rows: Float, last: bool = False) -> Frames:
        """Frames of rows at 50 Hz. The motion ends with the audio, to half a frame."""
        self._rows += len(rows)
        frames = self._resampler.push(rows)
        if last:
            frames = np.concatenate([frames, self._resampler.finish()])
            frames = frames[: max(1, round(self._received / SAMPLE_RATE * self.fps)) - self._sent]
        first, self._sent = self._sent, self._sent + len(frames)
        return self._decoder.split(frames, first, self.fps)

    @property
    def _no_rows(self) -> Float:
        return self._decoder.no_rows


def extend(values: Float, count: int) -> Float:
    """Repeat the last row of values (n, K) up to `count` rows."""
    missing = max(0, count - len(values)) if len(values) else 0
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])


def _ease(share: NDArray[np.floating]) -> NDArray[np.floating]:
    """Smooth step from 0 to 1."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


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
