"""The WebSocket `/ws`: audio and commands in, frames out.

A client sends `{"type": "start", ...}` first, then binary messages with audio, and commands as JSON:

    start      sampleRate (Hz), encoding (pcm16, webm, ogg), format (json, binary, talkinghead), fps (30, 60),
               resting (frames between utterances, too), lookAhead (ms), seed, still
    end        the utterance is complete
    interrupt  at: s of the utterance's audio that is played now
    listen     on: the face listens; audio is not animated meanwhile
    emotion    emotion, intensity (0..1), share (0..1, of the hand over the voice); emotion null: the voice alone
    ping       id: answered by a pong with the same id

It receives `ready`, then `frames`, `end`, `interrupted`, `listening`, `idle`, `pong`, and `error` before the server
closes. README.md beside this file describes the fields.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from sedtalker.errors import SEDTalkerError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.serve import reasons
from sedtalker.serve.cancellation import cancel_tasks
from sedtalker.serve.config import FRAME_RATES, Limits
from sedtalker.serve.incoming import (
    ENCODINGS,
    ContainerReader,
    PcmReader,
    check_rate,
    finish_audio,
    push_audio,
)
from sedtalker.serve.sessions import Event, Refused, Session, SessionClosed, SessionManager, SessionOptions
from sedtalker.serve.wire import FORMATS, columns, frames_binary, frames_json, talkinghead

logger = logging.getLogger("sedtalker.serve")

CLOSE_BAD_DATA, CLOSE_POLICY, CLOSE_ERROR, CLOSE_TRY_LATER, CLOSE_GOING = 1007, 1008, 1011, 1013, 1001
_CODES = {
    reasons.STOPPING: CLOSE_GOING,
    reasons.INTERNAL_ERROR: CLOSE_ERROR,
    reasons.WORKER_LOST: CLOSE_ERROR,
    reasons.BAD_MESSAGE: CLOSE_BAD_DATA,
}  # of a reason; others: CLOSE_POLICY


class BadMessage(SEDTalkerError):
    """A message that the protocol does not have."""


@dataclass(frozen=True)
class Start:
    """The first message."""

    sample_rate: int
    encoding: str
    format: str
    options: SessionOptions


def read_start(text: str) -> Start:
    """The first message. Raises BadMessage or AudioError."""
    message = _read_json(text)
    if message.get("type") != "start":
        raise BadMessage("the first message must be of the type start")
    encoding = _choice(message, "encoding", ENCODINGS)
    look_ahead = message.get("lookAhead")
    if look_ahead is not None and (isinstance(look_ahead, bool) or not isinstance(look_ahead, int)):
        raise BadMessage("lookAhead must be a whole number of ms")
    return Start(
        check_rate(message.get("sampleRate", 16_000)),
        encoding,
        _choice(message, "format", FORMATS),
        SessionOptions(
            protocol="websocket",
            fps=_choice(message, "fps", FRAME_RATES),
            look_ahead=look_ahead,
            seed=int(number(message, "seed", 0, 0, 2**31)),
            still=message.get("still") is True,
            resting=message.get("resting") is True,
        ),
    )


def _read_json(text: str | None) -> dict[str, Any]:
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        raise BadMessage("not JSON") from None
    if not isinstance(message, dict):
        raise BadMessage("a message must be a JSON object")
    return message


def _choice(message: dict[str, Any], key: str, known: tuple[Any, ...]) -> Any:
    value = message.get(key, known[0])
    if value not in known:
        raise BadMessage(f"{key} must be one of {', '.join(map(str, known))}")
    return value


def number(message: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
    """A number of a message. Raises BadMessage if it is none, or outside low..high."""
    value = message.get(key, default)
    try:
        real = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:  # an integer beyond the range of float
        real = math.nan
    if not low <= real <= high:
        raise BadMessage(f"{key} must be a number from {low:g} to {high:g}")
    return real


async def serve_websocket(socket: WebSocket, manager: SessionManager) -> None:
    """Serve one accepted client until it leaves or must be closed."""
    limits = manager.limits
    try:
        message = await asyncio.wait_for(socket.receive(), limits.idle)
        if message["type"] == "websocket.disconnect":
            return
        start = read_start(message.get("text") or "")
        session = manager.open(start.options)
    except asyncio.TimeoutError:
        await close_socket(socket, CLOSE_POLICY, reasons.NO_MESSAGE)
        return
    except Refused as error:
        await close_socket(socket, CLOSE_TRY_LATER, str(error))
        return
    except SEDTalkerError as error:
        await close_socket(socket, CLOSE_BAD_DATA, str(error))
        return
    writer = SocketWriter(socket, limits)
    conversation = _Conversation(session, writer, start, limits)
    try:
        await run_conversation(manager, session, socket, conversation.receive(socket), conversation.send_events())
    finally:
        conversation.reader.close()


async def run_conversation(
    manager: SessionManager, session: Session, socket: WebSocket, receiving: Awaitable[None], sending: Awaitable[None]
) -> None:
    """Run both directions until one ends, then close the session and the socket with the reason."""
    tasks = [asyncio.ensure_future(receiving), asyncio.ensure_future(sending)]
    reason, message = reasons.DISCONNECTED, None
    try:
        remaining = manager.limits.session - session.age
        done, _ = await asyncio.wait(tasks, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            reason = message = reasons.SESSION_TOO_LONG
        for task in done:
            task.result()
    except SessionClosed as error:
        reason = message = str(error)
    except (WebSocketDisconnect, RuntimeError, OSError, asyncio.TimeoutError):  # RuntimeError: of a closed socket
        pass
    except SlowReader:
        reason = message = reasons.SLOW_READER
    except SEDTalkerError as error:
        reason, message = reasons.BAD_MESSAGE, str(error)
    except Exception:
        logger.exception("a conversation failed", extra={"event": "session_failed", "session": session.name})
        reason = message = reasons.INTERNAL_ERROR
    finally:
        await cancel_tasks(tasks)
        await manager.close(session, reason)
    if message is not None:
        await close_socket(socket, _CODES.get(reason, CLOSE_POLICY), message, tell=reason != reasons.SLOW_READER)


async def close_socket(socket: WebSocket, code: int, message: str, tell: bool = True) -> None:
    """Send an error message, and close with the same reason."""
    with suppress(Exception):
        if tell:
            await asyncio.wait_for(socket.send_text(json.dumps({"type": "error", "message": message})), 1)
        await asyncio.wait_for(socket.close(code, message.encode()[:120].decode(errors="ignore")), 1)


class SlowReader(Exception):
    """A client does not read what it receives."""


class SocketWriter:
    """Sends messages, and gives up on a client that does not read them."""

    def __init__(self, socket: WebSocket, limits: Limits) -> None:
        self._socket, self._limits = socket, limits
        self._lock = asyncio.Lock()

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises SlowReader after `Limits.send` seconds."""
        socket = self._socket
        async with self._lock:
            sending = socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message)
            try:
                await asyncio.wait_for(sending, self._limits.send)
            except asyncio.TimeoutError:
                raise SlowReader from None


async def receive_message(socket: WebSocket, session: Session, limits: Limits) -> dict[str, Any]:
    """The next message. Raises SessionClosed if none comes while it is the client's turn, and WebSocketDisconnect."""
    receiving = asyncio.ensure_future(socket.receive())
    try:
        while not receiving.done():
            seconds = limits.idle if session.state == "speaking" else 4 * limits.idle
            await asyncio.wait([receiving], timeout=seconds)
            if not receiving.done() and not session.has_work:
                raise SessionClosed(reasons.NO_MESSAGE)
        message = receiving.result()
    finally:
        receiving.cancel()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return dict(message)


class _Conversation:
    def __init__(self, session: Session, writer: SocketWriter, start: Start, limits: Limits) -> None:
        self.session, self.writer, self.start, self.limits = session, writer, start, limits
        self.reader = self._open_reader()

    def _open_reader(self) -> PcmReader | ContainerReader:
        if self.start.encoding == "pcm16":
            return PcmReader(self.start.sample_rate)
        return ContainerReader(self.start.encoding, self.limits)

    async def _ready(self) -> str:
        latency = await self.session.latency()
        return json.dumps(
            {
                "type": "ready",
                "protocol": 1,
                "session": self.session.name,
                "labels": self.session.labels,
                "blendshapes": ARKIT_NAMES,
                "columns": columns(self.session.labels),
                "fps": self.session.options.fps,
                "latency": latency,
            }
        )

    async def receive(self, socket: WebSocket) -> None:
        while True:
            message = await receive_message(socket, self.session, self.limits)
            data = message.get("bytes")
            if data is not None:
                await self.session.send_audio(await push_audio(self.reader, data))
            else:
                await self._command(_read_json(message.get("text")))

    async def _command(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "end":
            await self.session.send_audio(await finish_audio(self.reader))
            await self.session.end()
            self._restart_reader()
        elif kind == "interrupt":
            self._restart_reader()
            at = message.get("at")
            await self.session.interrupt(None if at is None else number(message, "at", 0, -math.inf, math.inf))
        elif kind == "listen":
            await self.session.listen(message.get("on") is not False)
        elif kind == "emotion":
            emotion = message.get("emotion")
            if emotion is not None and not isinstance(emotion, str):
                raise BadMessage("emotion must be a name or null")
            share, intensity = (number(message, key, 1, 0, 1) for key in ("share", "intensity"))
            await self.session.set_emotion(emotion, intensity, share)
        elif kind == "ping":
            await self.writer.send(json.dumps({"type": "pong", "id": number(message, "id", 0, -1e15, 1e15)}))
        elif kind == "start":
            raise BadMessage("start is sent once: the next utterance begins with its audio")
        else:
            raise BadMessage(f"no such message: {str(kind)[:30]!r}")

    def _restart_reader(self) -> None:
        """A new reader: the next utterance begins with a new container, or with an empty resampler."""
        self.reader.close()
        self.reader = self._open_reader()

    async def send_events(self) -> None:
        await self.writer.send(await self._ready())
        while True:
            event = await self.session.next_event()
            if event is not None:
                await self.writer.send(self._encode(event))

    def _encode(self, event: Event) -> str | bytes:
        values = {"utterance": event.utterance, "state": event.state}
        if event.block is None:
            return json.dumps({"type": event.kind, **values})
        if self.start.format == "talkinghead" and event.kind == "frames":
            return talkinghead(event.block, **values)
        encode = frames_binary if self.start.format == "binary" else frames_json
        return encode(event.kind, event.block, **values)
