"""Datagrams in real time: the face of one session at a time, the resting face while no one speaks.

The session that speaks or listens is on the stage, until it is idle and all of its frames have been sent; others that
speak meanwhile are not shown. Its frames are sent when their sound is played: the first one at once, the others on the
clock of its audio. An utterance that comes before the last one has been shown, as the sentences of a voice that is
synthesized faster than real time do, waits for its end.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import datetime

from sedtalker.errors import SEDTalkerError
from sedtalker.serve.cancellation import cancel_tasks
from sedtalker.serve.config import FRAME_RATES, ServeConfig
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.listening import RestingFace
from sedtalker.serve.sessions import Event, SessionManager

Encoder = Callable[[FrameBlock, int, float], bytes]  # of a frame at a time in seconds since the start


class Stage:
    """Frames to send: those of the session on the stage, at their time, or of the resting face."""

    def __init__(self, manager: SessionManager, fps: int) -> None:
        assert manager.description is not None
        self._manager, self._fps = manager, fps
        self._resting = RestingFace(fps, manager.description.labels)
        self._most = int(manager.limits.utterance * max(FRAME_RATES))  # frames that wait, as of a longest utterance
        self._queue: deque[tuple[float, FrameBlock, int]] = deque()  # due, block, row
        self._session: str | None = None
        self._utterance = 0
        self._origin = 0.0  # monotonic time at which the utterance's audio starts
        self._last: tuple[FrameBlock, int] | None = None
        self._state = "idle"  # of the session on the stage
        manager.watch = self.receive

    def receive(self, session: str, event: Event) -> None:
        """An event of a session was queued for its client."""
        if session != self._session:
            if event.state == "idle" or not self._is_free():
                return
            self._session, self._utterance = session, 0
        self._state = event.state
        if event.kind == "interrupted":
            self._queue.clear()
        if event.block is None:
            return
        now = time.monotonic()
        if event.kind == "interrupted":
            self._origin = now - event.block.start
        elif event.state != "speaking":
            return  # this stage has a resting face of its own
        elif event.utterance != self._utterance:
            self._utterance = event.utterance
            shown = self._queue[-1][0] + 1 / event.block.fps if self._queue else now
            self._origin = max(now, shown) - event.block.start
        for row in range(min(len(event.block.weights), self._most - len(self._queue))):
            due = self._origin + event.block.start + row / event.block.fps
            self._queue.append((due, event.block, row))

    def _is_free(self) -> bool:
        """Whether another session may come on the stage."""
        return not self._queue and (self._state == "idle" or self._session not in self._manager.sessions)

    def next_frame(self) -> tuple[FrameBlock, int]:
        """Block and row of the frame that is due now."""
        now, due = time.monotonic(), None
        while self._queue and self._queue[0][0] <= now:
            due = self._queue.popleft()[1:]
        if due is None and self._queue and self._last is not None and self._queue[0][0] - now < 0.2:
            due = self._last  # the next one is late, or of a lower rate
        if due is not None:
            self._last = due
            return due
        if self._last is not None:
            block, row = self._last
            self._resting.start_from(block.weights[row], block.head[row], block.gaze[row])
            self._last = None
        return self._resting.frames(1, 0.0, self._state == "listening"), 0


@asynccontextmanager
async def send_datagrams(config: ServeConfig, manager: SessionManager) -> AsyncIterator[None]:
    """Send Live Link and VMC, as configured. Raises SEDTalkerError for an unknown host."""
    assert manager.description is not None
    targets: list[tuple[tuple[str, int], Encoder]] = []
    if config.livelink is not None:
        from sedtalker.serve.livelink import LiveLinkFace

        face = LiveLinkFace(config.fps)
        targets.append((config.livelink, lambda block, row, seconds: face.encode(block, row, datetime.now())))
    if config.vmc is not None:
        from sedtalker.serve.vmc import VmcPerformer

        targets.append((config.vmc, VmcPerformer(manager.description.labels).encode))
    with ExitStack() as stack:
        outputs = [(stack.enter_context(_connect(address)), encode) for address, encode in targets]
        task = asyncio.create_task(_send(Stage(manager, config.fps), outputs, config.fps))
        try:
            yield
        finally:
            await cancel_tasks([task])


def _connect(address: tuple[str, int]) -> socket.socket:
    """A UDP socket that sends to a host and port."""
    host, port = address
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise SEDTalkerError(f"no such host: {host}:{port} ({error.strerror}). Check the address") from error
    output = socket.socket(family, kind, protocol)
    output.setblocking(False)
    output.connect(target)
    return output


async def _send(stage: Stage, outputs: list[tuple[socket.socket, Encoder]], fps: int) -> None:
    start = time.monotonic()
    number = 0
    while True:
        block, row = stage.next_frame()
        for output, encode in outputs:
            with suppress(OSError):  # nobody listens there now, or the buffer is full
                output.send(encode(block, row, number / fps))
        number = max(number + 1, int((time.monotonic() - start) * fps) - 1)  # after a stall, frames are left out
        await asyncio.sleep(max(0.0, start + number / fps - time.monotonic()))
