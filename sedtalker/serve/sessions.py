"""A session: one client's face. Audio and commands come in, events go out, through bounded queues.

utterance: audio ... end   -> frames on the clock of the utterance's audio, then its end
between utterances         -> frames on the session's clock, if the client asked for them
interruption               -> the queues are emptied, the lips go to rest, the utterance is over
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE
from sedtalker.errors import SEDTalkerError
from sedtalker.labels import canonical_label
from sedtalker.serve import reasons
from sedtalker.serve.config import Limits
from sedtalker.serve.engine import Description, FrameBlock, StreamOptions
from sedtalker.serve.listening import RestingFace, SentPoses
from sedtalker.serve.metrics import Metrics
from sedtalker.serve.pool import Worker, WorkerLost, WorkerPool

Float = NDArray[np.float32]

STEP = 0.2  # s of audio that the model takes at once at most, so that sessions alternate
REST_STEP = 0.1  # s of frames of the resting face at a time

logger = logging.getLogger("sedtalker.serve")


class SessionClosed(Exception):
    """The session ended; the message is the reason, for the client."""


class Refused(SEDTalkerError):
    """No further session is possible now."""


class Event(NamedTuple):
    """A message to the client."""

    kind: str  # frames, end, interrupted, listening, idle
    utterance: int
    block: FrameBlock | None = None
    state: str = "idle"  # speaking, listening, idle
    received: float = 0.0  # monotonic time at which the audio of the last frame arrived; 0: no audio


@dataclass(frozen=True)
class SessionOptions(StreamOptions):
    """Options of a session, as the client sends them."""

    protocol: str = ""


@dataclass
class _Audio:
    samples: Float
    received: float


class Session:
    """One client's face. `SessionManager.open` makes it."""

    def __init__(
        self, name: str, options: SessionOptions, worker: Worker, description: Description, limits: Limits,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self.name, self.options, self.labels = name, options, description.labels
        self.state = "idle"
        self.utterance = 0  # number of the current or last one
        self.closed: str | None = None  # the reason
        self.opened = time.monotonic()
        self._worker, self._limits, self._metrics = worker, limits, metrics
        self._inbox: deque[Any] = deque()
        self._waiting = 0.0  # s of audio in the inbox
        self._changed = asyncio.Condition()
        self._outbox: deque[Event] = deque()
        self._epoch = 0  # counts interruptions
        self._received = 0.0  # s of audio of the utterance
        self._animated = 0.0  # s of frames of the utterance
        self._started: float | None = None  # monotonic time of the utterance's first frames
        self._poses = SentPoses()
        self._resting = RestingFace(options.fps, self.labels, options.seed)
        self._rest_until = self.opened  # monotonic time up to which frames were sent
        self._listening = self._working = False
        self._ignoring = False  # audio that comes now is the client's own voice, which moves no lips
        self._latency: float | None = None  # s, known when the worker has opened the stream
        self.watch: Callable[[str, Event], None] | None = None  # called with each event that is queued
        self._pump = asyncio.create_task(self._run(), name=f"session {name}")

    # What a client sends.

    async def send_audio(self, samples: Float) -> None:
        """Audio (N,) at 16 kHz of the utterance; waits while the model is behind, which throttles the client.

        Raises:
            SessionClosed: the session ended, or the utterance is too long.
        """
        self._check_open()
        if not len(samples) or self._ignoring:
            return
        self._received += len(samples) / SAMPLE_RATE
        if self._received > self._limits.utterance:
            await self.close(reasons.UTTERANCE_TOO_LONG)
            self._check_open()
        now = time.monotonic()
        for start in range(0, len(samples), int(STEP * SAMPLE_RATE)):
            piece = samples[start : start + int(STEP * SAMPLE_RATE)]
            async with self._changed:
                await self._changed.wait_for(lambda: self.closed or self._waiting < self._limits.backlog)
                self._check_open()
                self._inbox.append(_Audio(piece, now))
                self._waiting += len(piece) / SAMPLE_RATE
                self._changed.notify_all()

    async def end(self) -> None:
        """The utterance is complete; the event `end` follows its last frames, also if it had no audio."""
        self._received = 0.0  # what comes now belongs to the next one
        await self._put("end")

    async def listen(self, on: bool) -> None:
        """The face listens, or does not; audio is not animated while it listens."""
        self._ignoring = on
        await self._put(("listen", on))

    async def set_emotion(self, emotion: str | None, intensity: float = 1.0, share: float = 1.0) -> None:
        """Mix an emotion into that of the voice from now on; None: the voice alone.

        Raises:
            TrackError: an unknown emotion.
        """
        emotion = None if emotion is None else canonical_label(emotion, self.labels)
        await self._put(("emotion", emotion, intensity, share))

    async def interrupt(self, at: float | None = None) -> None:
        """Stop the utterance; the lips go to rest.

        Args:
            at: s of the utterance's audio that the client shows now; None: as if it showed the frames when they came.
        """
        self._check_open()
        self._metrics.interruptions += 1
        async with self._changed:
            self._epoch += 1
            dropped = ("end", "interrupt")
            self._inbox = deque(item for item in self._inbox if not isinstance(item, _Audio) and item not in dropped)
            self._inbox.appendleft("interrupt")
            self._waiting = self._received = 0.0
            block = self._interrupt_poses(at)
            self._outbox.clear()
            event = Event("interrupted", self.utterance, block, "idle")
            self._outbox.append(event)
            if self.watch is not None:
                self.watch(self.name, event)
            self._rest(block)
            self.state = "listening" if self._listening else "idle"
            self._changed.notify_all()

    # What a client receives.

    async def latency(self) -> float:
        """Seconds by which frames follow their sound, without computing; waits until the worker has opened the stream.

        Raises:
            SessionClosed: it cannot be opened.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._latency is not None or self.closed)
        if self._latency is None:
            self._check_open()
        assert self._latency is not None
        return self._latency

    async def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event; None after `timeout` seconds without one. Raises SessionClosed after the last one."""
        async with self._changed:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._outbox or self.closed), timeout)
            if not self._outbox:
                self._check_open()
                return None
            event = self._outbox.popleft()
            self._changed.notify_all()
        if event.received:
            self._metrics.delay.add(time.monotonic() - event.received)
        if event.block is not None:
            self._metrics.frames += len(event.block.weights)
        return event

    async def close(self, reason: str) -> None:
        """End the session; events that wait are dropped."""
        await self._fail(reason)
        self._pump.cancel()

    @property
    def age(self) -> float:
        """Seconds since the session was opened."""
        return time.monotonic() - self.opened

    @property
    def speaking(self) -> bool:
        """Whether an utterance is not complete."""
        return self.state == "speaking" or self._waiting > 0 or bool(self._outbox)

    @property
    def has_work(self) -> bool:
        """Whether audio or commands of the client are not done yet."""
        return self._working or bool(self._inbox)

    def _check_open(self) -> None:
        if self.closed is not None:
            raise SessionClosed(self.closed)

    async def _put(self, item: Any) -> None:
        self._check_open()
        async with self._changed:
            if len(self._inbox) >= 16 * self._limits.events:  # commands are small, and still bounded
                self.closed = reasons.TOO_MANY_COMMANDS
                self._pump.cancel()
            self._check_open()
            self._inbox.append(item)
            self._changed.notify_all()

    # The pump.

    async def _run(self) -> None:
        try:
            latency = await self._worker.call_for(self.name, "open", self.options)
            async with self._changed:
                self._latency = latency
                self._changed.notify_all()
            while True:
                self._working = False
                item = await self._next_item()
                self._working = item is not None
                if item is None:
                    await self._send_rest()
                elif isinstance(item, _Audio):
                    await self._animate(item)
                else:
                    await self._obey(item)
        except (WorkerLost, SEDTalkerError) as error:
            await self._fail(str(error))
        except Exception:
            logger.exception("a session failed", extra={"event": "session_failed", "session": self.name})
            await self._fail(reasons.INTERNAL_ERROR)

    async def _fail(self, reason: str) -> None:
        self.closed = self.closed or reason
        async with self._changed:
            self._changed.notify_all()

    async def _next_item(self) -> Any:
        """The next item of the inbox, with the audio pieces after it up to STEP; None: frames of rest are due."""
        async with self._changed:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: bool(self._inbox)), self._until_rest())
            if not self._inbox:
                return None
            item = self._inbox.popleft()
            if isinstance(item, _Audio):
                item = self._join_audio(item)
                self._waiting = max(0.0, self._waiting - len(item.samples) / SAMPLE_RATE)
            self._changed.notify_all()
        return item

    def _join_audio(self, last: _Audio) -> _Audio:
        """A piece of audio with those after it in the inbox up to STEP, which are taken from it."""
        pieces, count = [last.samples], len(last.samples)
        while self._inbox and isinstance(self._inbox[0], _Audio):
            count += len(self._inbox[0].samples)
            if count > STEP * SAMPLE_RATE:
                break
            last = self._inbox.popleft()
            pieces.append(last.samples)
        return _Audio(np.concatenate(pieces), last.received)

    async def _animate(self, audio: _Audio) -> None:
        if self.state != "speaking":
            self.state, self.utterance = "speaking", self.utterance + 1
            self._started, self._animated = None, 0.0
            self._poses.clear()
        epoch = self._epoch
        block = await self._worker.call_for(self.name, "push", audio.samples)
        self._count(block, len(audio.samples) / SAMPLE_RATE)
        await self._emit_frames(block, epoch, audio.received)

    async def _obey(self, item: Any) -> None:
        epoch = self._epoch
        if item == "interrupt":
            await self._worker.call_for(self.name, "reset")
        elif item == "end":
            await self._end(epoch)
        elif item[0] == "listen":
            self._listening = item[1]
            if self.state != "speaking":
                self.state = "listening" if self._listening else "idle"
                await self._emit(Event(self.state, self.utterance, None, self.state), epoch)
        elif item[0] == "emotion":
            await self._worker.call_for(self.name, "set_emotion", *item[1:])

    async def _end(self, epoch: int) -> None:
        """The last frames of the utterance, and its event; the event alone if there was no audio."""
        state = "listening" if self._listening else "idle"
        if self.state != "speaking":
            await self._emit(Event("end", self.utterance, None, state), epoch)
            return
        block = await self._worker.call_for(self.name, "finish")
        self._count(block, 0.0)
        await self._emit_frames(block, epoch, 0.0)
        await self._emit(Event("end", self.utterance, None, state), epoch)
        if epoch != self._epoch:
            return
        self._rest(block if len(block.weights) else None)
        if self._started is not None:  # the client still plays what it has
            self._rest_until = max(time.monotonic(), self._started + self._animated)
        self.state = state

    def _count(self, block: FrameBlock, seconds: float) -> None:
        self._metrics.step.add(block.seconds)
        self._metrics.compute_seconds += block.seconds
        self._metrics.audio_seconds += seconds

    async def _emit_frames(self, block: FrameBlock, epoch: int, received: float) -> None:
        if not len(block.weights) or epoch != self._epoch:
            return
        if self._started is None:
            self._started = time.monotonic()
        self._animated = block.start + len(block.weights) / block.fps
        await self._emit(Event("frames", self.utterance, block, "speaking", received), epoch)

    async def _emit(self, event: Event, epoch: int) -> None:
        """Queue an event, waiting for the client while the queue is full; dropped after an interruption."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._outbox) < self._limits.events or epoch != self._epoch)
            if epoch != self._epoch:
                return
            self._outbox.append(event)
            if self.watch is not None:
                self.watch(self.name, event)
            if event.block is not None and event.state == "speaking":
                self._poses.add(event.block)
            self._changed.notify_all()

    # Between utterances.

    def _until_rest(self) -> float | None:
        """Seconds until frames of rest are due; None: never."""
        if not self.options.resting or self.state == "speaking":
            return None
        return max(0.0, self._rest_until - time.monotonic())

    async def _send_rest(self) -> None:
        now = time.monotonic()
        self._rest_until = max(self._rest_until, now - REST_STEP)
        frames = (self._rest_until - self.opened) * self.options.fps
        first = math.ceil(frames - 1e-3)  # the sum and difference of two times are not exact
        count = max(1, round(REST_STEP * self.options.fps))
        block = self._resting.frames(count, first / self.options.fps, self._listening)
        self._rest_until = self.opened + (first + count) / self.options.fps
        await self._emit(Event("frames", self.utterance, block, self.state), self._epoch)

    def _rest(self, block: FrameBlock | None) -> None:
        """The face rests from the end of a block on."""
        self._rest_until = time.monotonic()
        if block is not None:
            self._resting.start_from(block.weights[-1], block.head[-1], block.gaze[-1])
            self._rest_until += len(block.weights) / block.fps

    def _interrupt_poses(self, at: float | None) -> FrameBlock | None:
        """Frames from the pose at a time of the utterance to lips at rest; None if it was over, or had no frame."""
        if self._started is None:
            return None
        at = time.monotonic() - self._started if at is None or not math.isfinite(at) else at
        if at > self._animated + 1 and self.state != "speaking":
            return None
        block = self._poses.interrupt(at)
        if block is not None:
            self._animated = block.start + len(block.weights) / block.fps
        return block


class SessionManager:
    """Opens and closes sessions within the limits."""

    def __init__(self, pool: WorkerPool, limits: Limits) -> None:
        self.pool, self.limits = pool, limits
        self.metrics = Metrics()
        self.sessions: dict[str, Session] = {}
        self.description: Description | None = None
        self.watch: Callable[[str, Event], None] | None = None  # called with each event of each session
        self.draining = False
        self._freeing: set[asyncio.Task[None]] = set()
        self._deadline = 0.0  # monotonic time at which `drain` stops to wait

    async def start(self) -> None:
        """Wait for the workers."""
        self.description = await self.pool.describe()

    @property
    def ready(self) -> bool:
        """Whether sessions can be opened."""
        return self.description is not None and not self.draining

    def open(self, options: SessionOptions) -> Session:
        """A new session. Raises Refused while the server is full, starting or stopping."""
        if self.description is None or self.draining:
            self.metrics.rejected["stopping" if self.draining else "starting"] += 1
            raise Refused(f"{reasons.STOPPING}. Try again later" if self.draining else "the server is starting")
        if len(self.sessions) >= self.limits.sessions:
            self.metrics.rejected["full"] += 1
            raise Refused(f"{self.limits.sessions} sessions are open, which is the limit. Try again later")
        name = secrets.token_hex(8)
        worker = self.pool.choose(name)
        session = Session(name, options, worker, self.description, self.limits, self.metrics)
        session.watch = self.watch
        self.sessions[name] = session
        self.metrics.sessions = len(self.sessions)
        self.metrics.opened[options.protocol] += 1
        logger.info("opened", extra={"event": "opened", "session": name, "protocol": options.protocol})
        return session

    async def close(self, session: Session, reason: str) -> None:
        """Close a session, and free its place and its state in the worker."""
        await session.close(reason)
        if self.sessions.pop(session.name, None) is None:
            return
        self.metrics.sessions = len(self.sessions)
        ended = session.closed or reason
        self.metrics.closed[ended if ended in reasons.REASONS else "other"] += 1  # no text of the client in a metric
        logger.info(
            "closed",
            extra={
                "event": "closed", "session": session.name, "protocol": session.options.protocol,
                "reason": session.closed, "seconds": round(session.age, 1), "utterances": session.utterance,
            },
        )  # fmt: skip
        session._worker.sessions.discard(session.name)
        task = asyncio.create_task(self._free(session))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def _free(self, session: Session) -> None:
        with suppress(asyncio.CancelledError):
            await session._pump
        with suppress(WorkerLost, RuntimeError):  # RuntimeError: the executor was shut down
            await session._worker.call("close", session.name)

    def stop_waiting(self) -> None:
        """`drain` does not wait any longer."""
        self._deadline = 0.0

    async def drain(self, seconds: float) -> None:
        """Refuse new sessions, wait for the open ones to finish their utterances, then close all."""
        self.draining = True
        self._deadline = time.monotonic() + seconds
        while any(session.speaking for session in self.sessions.values()) and time.monotonic() < self._deadline:
            await asyncio.sleep(0.05)
        for session in list(self.sessions.values()):
            await session.close(reasons.STOPPING)
