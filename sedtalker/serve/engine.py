"""The model in a worker: one talker, and the streams of the sessions that belong to this worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.serve.config import ServeConfig

if TYPE_CHECKING:
    from sedtalker.emotion.voice import VoiceProfile
    from sedtalker.pipeline import Talker
    from sedtalker.talker.streaming import Frames, TalkerStream

Float = NDArray[np.float32]

_WARM_UP = 10  # steps of 80 ms


class FrameBlock(NamedTuple):
    """Consecutive frames of a face."""

    start: float  # s, of the first frame's start on the audio's clock
    fps: float
    weights: Float  # (n, 52) in the order of ARKIT_NAMES
    head: Float  # (n, 3) pitch (down is positive), yaw and roll, degrees
    gaze: Float  # (n, 2) degrees to the person's left and up, contained in the weights
    posterior: Float  # (n, C)
    intensity: Float  # (n,)
    seconds: float = 0.0  # of computing


@dataclass(frozen=True)
class StreamOptions:
    """Options of a session's stream."""

    fps: int = 30
    look_ahead: int | None = None  # ms
    seed: int = 0
    still: bool = False  # no blinks, gaze and head motion
    intensity_scale: float = 1.0
    resting: bool = False  # the client gets and shows frames of a resting face between utterances


class Description(NamedTuple):
    """Facts about a talker that the front needs."""

    labels: tuple[str, ...]
    look_aheads: tuple[int, ...] = ()  # ms that a session can choose from; none: the encoder has no such dial


class _Stream(NamedTuple):
    """The stream of a session."""

    stream: TalkerStream
    options: StreamOptions


class Engine:
    """A talker and its streams by session."""

    def __init__(self, talker: Talker, look_ahead: int | None = None, voice: VoiceProfile | None = None) -> None:
        """`voice` is the VoiceProfile of all sessions' speaker."""
        self.talker, self.look_ahead, self._voice = talker, look_ahead, voice
        self._streams: dict[str, _Stream] = {}

    def describe(self) -> Description:
        """Labels and look-aheads of the talker; compiles what the first client would wait for."""
        stream = self.talker.open_stream(look_ahead=self.look_ahead, voice=self._voice)
        for _ in range(_WARM_UP):
            stream.push(np.zeros(1280, np.float32))
        return Description(tuple(stream.labels), _look_aheads(self.talker))

    def open(self, session: str, options: StreamOptions) -> float:
        """Open a stream; returns its latency in seconds, without computing.

        Raises:
            SEDTalkerError: an unknown look-ahead.
        """
        stream = self.talker.open_stream(
            look_ahead=self.look_ahead if options.look_ahead is None else options.look_ahead,
            fps=options.fps,
            seed=options.seed,
            still=options.still,
            intensity_scale=options.intensity_scale,
            voice=self._voice,
        )
        self._streams[session] = _Stream(stream, options)
        return float(stream.latency)

    def push(self, session: str, samples: Float) -> FrameBlock:
        """Frames that became complete with the next samples (N,) at 16 kHz."""
        start = time.perf_counter()
        stream, options = self._streams[session]
        frames = stream.push(samples)
        return to_block(frames, options.fps, time.perf_counter() - start)

    def finish(self, session: str) -> FrameBlock:
        """The remaining frames of the utterance; the next samples begin a new one."""
        start = time.perf_counter()
        stream, options = self._streams[session]
        frames = stream.finish()
        block = to_block(frames, options.fps, time.perf_counter() - start)
        self.reset(session)
        return block

    def reset(self, session: str) -> None:
        """Drop the utterance."""
        stream, options = self._streams[session]
        stream.reset(from_rest=options.resting)

    def set_emotion(self, session: str, emotion: str | None, intensity: float, share: float) -> None:
        """Mix an emotion chosen by hand into that of the voice; None: the voice alone."""
        stream, _ = self._streams[session]
        if emotion is None:
            stream.set_emotion(None)
        else:
            stream.set_emotion(emotion, intensity, share=share)

    def sessions(self) -> list[str]:
        """Names of the sessions that have a stream."""
        return list(self._streams)

    def close(self, session: str) -> None:
        """Forget a session."""
        self._streams.pop(session, None)


def _look_aheads(talker: Talker) -> tuple[int, ...]:
    from sedtalker.encoder_config import LOOK_AHEAD, LookAheadDial

    return tuple(LOOK_AHEAD) if isinstance(getattr(talker, "encoder", None), LookAheadDial) else ()


def to_block(frames: Frames, fps: float, seconds: float = 0.0) -> FrameBlock:
    """Frames of a stream as a block; `seconds` is the time of computing them."""
    first = float(frames.time[0]) - 0.5 / fps if len(frames.time) else 0.0
    return FrameBlock(
        first,
        fps,
        frames.weights,
        frames.head,
        frames.gaze,
        frames.posterior,
        frames.intensity,
        seconds,
    )


_engine: Engine | None = None  # of this worker process
_load: Callable[[], Engine] | None = None


def prepare_worker() -> None:
    """Settings of a worker process: it ends with its parent, leaves signals to it, and uses one thread."""
    from sedtalker.workers import watch_parent

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=watch_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported, for models without compiled code
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def load_talker(config: ServeConfig) -> tuple[Talker, VoiceProfile | None]:
    """The talker of a server, and the profile of its voice reference. Raises SEDTalkerError if one cannot be used."""
    import sedtalker
    from sedtalker.tasks import read_reference

    talker = sedtalker.load(config.model, diarizer=config.diarizer, device="cpu")
    return talker, read_reference(talker, config.voice_reference)


def start_engine(config: ServeConfig) -> None:
    """Prepare a worker process; `call_engine` loads the talker, so that its caller gets the error if it cannot."""
    global _load
    prepare_worker()

    def load() -> Engine:
        talker, voice = load_talker(config)
        return Engine(talker, config.look_ahead, voice)

    _load = load


def call_engine(method: str, *arguments: Any) -> Any:
    """Call a method of the engine of this process."""
    global _engine
    if _engine is None:
        assert _load is not None
        _engine = _load()
    return getattr(_engine, method)(*arguments)
