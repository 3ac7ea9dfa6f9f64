"""A live face for programs that embed it: audio in, frames out, as an async iterator.

The model runs in a thread, so that the event loop goes on. One `LiveFace` is one conversation; several can share a
talker.

Example:
    face = LiveFace(sedtalker.load(), fps=30)
    async for frames in face.frames(chunks):  # chunks: an async iterator of samples at 16 kHz
        send(frames.weights, frames.head, frames.posterior, frames.intensity)
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from sedtalker.audio import Samples
from sedtalker.errors import SEDTalkerError, as_number
from sedtalker.pipeline import Talker
from sedtalker.serve.cancellation import cancel_tasks
from sedtalker.serve.engine import FrameBlock, to_block
from sedtalker.serve.listening import RestingFace, SentPoses
from sedtalker.talker.streaming import Frames

LONGEST_REST = 600.0  # seconds of one `LiveFace.rest`

_END: Any = object()  # in place of a chunk


class LiveFace:
    """One conversation with a face that moves an ARKit rig."""

    def __init__(self, talker: Talker, *, fps: float = 30.0, seed: int = 0, **options: Any) -> None:
        """`options` are those of `Talker.open_stream`. Raises SEDTalkerError as it does."""
        self._stream = talker.open_stream(fps=fps, seed=seed, **options)
        self._fps, self.labels, self.latency = fps, self._stream.labels, self._stream.latency
        self._resting = RestingFace(fps, self.labels, seed)
        self._executor, self._process = ThreadPoolExecutor(1, "live-face"), os.getpid()
        self._poses = SentPoses()
        self._stop = asyncio.Event()  # of the current utterance
        self._closed = False

    async def frames(self, chunks: AsyncIterable[Samples]) -> AsyncIterator[Frames]:
        """Frames of one utterance, each as soon as it can be computed.

        It ends early at an interruption, when the next utterance starts, and when the face is closed.

        Args:
            chunks: samples (N,) at 16 kHz, mono, of any size.

        Raises:
            AudioError: not samples of this form.
            SEDTalkerError: the face is closed.
        """
        if self._closed:
            raise SEDTalkerError("the live face is closed. Open another")
        self._stop.set()
        stop = self._stop = asyncio.Event()
        self._poses.start_utterance()
        await self._call("reset")
        source = aiter(chunks)
        ended = False
        while not ended and not stop.is_set():
            chunk = await _next_chunk(source, stop)
            if stop.is_set():
                return
            ended = chunk is _END
            frames = await (self._call("finish") if ended else self._call("push", chunk))
            if not stop.is_set() and len(frames.time):
                self._poses.add(to_block(frames, self._fps))
                yield frames

    def interrupt(self, at: float | None = None) -> Frames:
        """Stop the utterance. The frames replace all later ones, and bring the lips to rest within 100 ms.

        Call it in the thread of the event loop. `frames` ends, also while it waits for a chunk.

        Args:
            at: s of the utterance's audio that is shown now; None: the last frames are shown already.

        Raises:
            SEDTalkerError: `at` is not a number.
        """
        at = math.inf if at is None else as_number(at, "an interruption's time")
        self._stop.set()
        block = self._poses.interrupt(at)
        return self.rest(0.1) if block is None else _to_frames(block)

    def rest(self, seconds: float, listening: bool = True) -> Frames:
        """Frames of a face that does not speak: mouth shut, blinks and gaze, and nods while it listens.

        Raises:
            SEDTalkerError: not a number of seconds up to LONGEST_REST.
        """
        if not 0 <= as_number(seconds, "a rest's seconds") <= LONGEST_REST:
            raise SEDTalkerError(f"a rest of {seconds} s: give 0 to {LONGEST_REST:.0f}")
        if (pose := self._poses.find()) is not None:
            block, row = pose
            self._resting.start_from(block.weights[row], block.head[row], block.gaze[row])
            self._poses.clear()
        return _to_frames(self._resting.frames(max(1, round(seconds * self._fps)), 0.0, listening))

    def set_emotion(self, emotion: str | None, intensity: float = 1.0, share: float = 1.0) -> None:
        """Mix an emotion into that of the voice; None: the voice alone. Raises TrackError: unknown emotion."""
        self._stream.set_emotion(emotion, intensity, share)

    def close(self) -> None:
        """End the utterance and the thread. Call it in the thread of the event loop."""
        self._closed = True
        self._stop.set()
        self._executor.shutdown(wait=False)

    async def _call(self, method: str, *arguments: Any) -> Frames:
        if self._process != os.getpid():  # the thread did not survive a fork
            self._executor, self._process = ThreadPoolExecutor(1, "live-face"), os.getpid()
        function = getattr(self._stream, method)
        frames: Frames = await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        return frames


async def _next_chunk(source: AsyncIterator[Samples], stop: asyncio.Event) -> Samples:
    """The next chunk; _END at the end, or when the utterance stops."""
    chunk = asyncio.ensure_future(anext(source, _END))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([chunk, stopped], return_when=asyncio.FIRST_COMPLETED)
        return cast(Samples, _END if stop.is_set() else chunk.result())
    finally:
        await cancel_tasks([chunk, stopped])


def _to_frames(block: FrameBlock) -> Frames:
    count = len(block.weights)
    times = block.start + (np.arange(count) + 0.5) / block.fps
    silent = np.zeros(count, np.float32)
    return Frames(times, block.weights, block.head, block.gaze, block.posterior, block.intensity, silent)
