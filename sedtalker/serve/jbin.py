"""OpenAvatarChat's WebSocket `/ws/lam_data_stream/NAME`: JBIN messages of 30 frames a second with their sound.

A client sends binary messages with 16-bit PCM at 24 kHz, and `{"header": {"name": "EndSpeech"}}` when it has played an
answer; the audio of an utterance ends with an empty binary message, or with half a second without audio. `%interrupt%`
stops it. Each message is "JBIN", the sizes of the header and of the data (uint32, little-endian), the header in JSON
and the data; the first one of a connection names the channels.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.serve import reasons
from sedtalker.serve.config import Limits
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.incoming import PcmReader
from sedtalker.serve.sessions import Refused, Session, SessionClosed, SessionManager, SessionOptions
from sedtalker.serve.websocket import CLOSE_TRY_LATER, SocketWriter, close_socket, run_conversation

AUDIO_RATE = 24_000  # Hz, of OpenAvatarChat's text to speech
FPS = 30
SILENCE = 0.5  # s without audio that end an utterance
INTERRUPT = "%interrupt%"


def pack(header: dict[str, Any], data: bytes) -> bytes:
    """A JBIN message."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"JBIN" + struct.pack("<II", len(text), len(data)) + text + data


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a JBIN message. Raises ValueError if it is none."""
    if len(message) < 12 or message[:4] != b"JBIN":
        raise ValueError("not JBIN")
    text_size, data_size = struct.unpack("<II", message[4:12])
    if len(message) != 12 + text_size + data_size:
        raise ValueError("sizes that do not fit the message")
    return json.loads(message[12 : 12 + text_size]), message[12 + text_size :]


def frames_message(
    name: str, batch: int, weights: NDArray[np.float32], sound: bytes, *, first: bool, start: bool, end: bool
) -> bytes:
    """Weights (n, 52) with their sound (int16); `first` of the connection names the channels."""
    rows = np.ascontiguousarray(weights, "<f4")
    face: dict[str, Any] = {
        "data_type": "float32", "data_offset": 0, "shape": list(rows.shape), "channel_names": [], "sample_rate": FPS,
        "data_id": 0, "timeline_axis": 0, "channel_axis": 1,
    }  # fmt: skip
    if first:
        face["channel_names"] = list(ARKIT_NAMES)
    audio = {
        "data_type": "int16", "data_offset": rows.nbytes, "shape": [1, len(sound) // 2], "channel_names": [],
        "sample_rate": AUDIO_RATE, "data_id": 1, "timeline_axis": 1, "channel_axis": 0,
    }  # fmt: skip
    header = {
        "data_records": {"arkit_face": face, "audio": audio},
        "metadata": {},
        "events": [],
        "batch_name": name,
        "batch_id": batch,
        "start_of_batch": start,
        "end_of_batch": end,
    }
    return pack(header, rows.tobytes() + sound)


async def serve_jbin(socket: WebSocket, manager: SessionManager) -> None:
    """Serve one accepted client until it leaves or must be closed."""
    try:
        session = manager.open(SessionOptions(FPS, protocol="jbin"))
    except Refused as error:
        await close_socket(socket, CLOSE_TRY_LATER, str(error))
        return
    writer = SocketWriter(socket, manager.limits)
    talk = _Talk(session, writer, manager.limits)
    await run_conversation(manager, session, socket, talk.receive(socket), talk.send_events())


class _Talk:
    def __init__(self, session: Session, writer: SocketWriter, limits: Limits) -> None:
        self.session, self.writer, self.limits = session, writer, limits
        self._reader = PcmReader(AUDIO_RATE)
        self._sound = bytearray()  # that was received and is not yet sent back; bounded by the session's backlog
        self._held: FrameBlock | None = None  # the last frames, which may be the end of the batch
        self._batch, self._frames_sent, self._first, self._start = 0, 0, True, True
        self._pose = np.zeros((1, len(ARKIT_NAMES)), np.float32)  # the last frame that was sent

    async def receive(self, socket: WebSocket) -> None:
        speaking = False
        while True:
            seconds = SILENCE if speaking else 4 * self.limits.idle
            try:
                message = await asyncio.wait_for(socket.receive(), seconds)
            except asyncio.TimeoutError:
                if not speaking:
                    raise SessionClosed(reasons.NO_MESSAGE) from None
                message = {"type": "websocket.receive", "bytes": b""}
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            data = message.get("bytes")
            if data:
                speaking = True
                self._sound += data
                await self.session.send_audio(self._reader.push(data))
            elif data is not None and speaking:
                speaking = False
                await self.session.send_audio(self._reader.finish())
                await self.session.end()
            elif message.get("text") == INTERRUPT:
                speaking = False
                self._reader = PcmReader(AUDIO_RATE)
                self._sound = bytearray()  # now: the sound of the next batch may come before `interrupted` is sent
                await self.session.interrupt()

    async def send_events(self) -> None:
        while True:
            event = await self.session.next_event()
            if event is None:
                continue
            if event.kind == "frames" and event.block is not None:
                await self._flush(end=False)
                self._held = event.block
            elif event.kind == "end":
                await self._flush(end=True)
            elif event.kind == "interrupted":
                self._held = event.block
                await self._flush(end=True, silent=True)

    async def _flush(self, *, end: bool, silent: bool = False) -> None:
        """Send the held frames with the sound of their time; the end takes all of the sound."""
        block, self._held = self._held, None
        if block is None and not end:
            return
        weights = np.zeros((0, len(ARKIT_NAMES)), np.float32) if block is None else block.weights
        if self._start:
            self._batch, self._frames_sent = self._batch + 1, 0
        before = round(self._frames_sent * AUDIO_RATE / FPS)
        self._frames_sent += len(weights)
        size = 2 * (round(self._frames_sent * AUDIO_RATE / FPS) - before)
        if silent:
            sound = bytes(size)
        else:
            size = len(self._sound) & ~1 if end else size
            sound = bytes(self._sound[:size])
            del self._sound[:size]
        if not sound:  # OpenAvatarChat's player fails on a message without sound
            weights, sound = weights[-1:] if len(weights) else self._pose, bytes(2 * AUDIO_RATE // FPS)
        self._pose = weights[-1:]
        message = frames_message(
            self.session.name, self._batch, weights, sound, first=self._first, start=self._start, end=end
        )
        self._first, self._start = False, end
        await self.writer.send(message)
