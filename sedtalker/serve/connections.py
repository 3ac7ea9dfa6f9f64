"""Connections of HTTP and WebSockets: uvicorn's protocols, with limits of what one client can hold up or pile up."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CONNECTIONS = 256
REQUEST_SECONDS = 10.0  # s for the headers of a request, from the connection or the last response on
UNREAD_SECONDS = 10.0  # s in which a client must read LEAST_READ bytes while any wait for it
LEAST_READ = 10_000
FRAGMENTS = 1000  # of a WebSocket message
READ_BYTES = 1 << 14  # at once: more could hold so many small frames that other clients would wait for them

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _ReadByClient(asyncio.Protocol):
    """Aborts the connection of a client that does not read. Closing it would wait for the client to read the rest."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=1)  # `pause_writing` as soon as anything waits; TLS needs more than 0
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        super().pause_writing()
        self._check_reading(math.inf)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_check()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_check()
        super().connection_lost(exc)

    def _check_reading(self, before: float) -> None:
        """Abort unless LEAST_READ of the bytes that waited `before` have been read; check again later."""
        waiting = self.transport.get_write_buffer_size()
        if waiting > before - LEAST_READ:
            self.transport.abort()
        else:
            self._check = self.loop.call_later(UNREAD_SECONDS, self._check_reading, waiting)

    def _stop_check(self) -> None:
        if self._check is not None:
            self._check.cancel()


class HttpConnection(_ReadByClient, H11Protocol):
    """Closes connections that do not send a request, and those that dribble one, also after the first response."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_request()

    def _expect_request(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before or self.transport.is_closing():
            self._deadline.cancel()

    def on_response_complete(self) -> None:
        self._expect_request()
        super().on_response_complete()  # it can handle the next request, which has been received already

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._deadline.cancel()
        if len(self.connections) > CONNECTIONS:
            self.transport.write(_FULL)
            self.transport.close()
        else:
            super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)


class WebSocketConnection(_ReadByClient, WebSocketsSansIOProtocol):
    """Bounds what a client makes the server keep: answers to its pings, and fragments of a message."""

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # drops the pong

    def handle_cont(self, event: Any) -> None:
        if self.close_sent:
            return
        if len(self.frames) < FRAGMENTS:
            super().handle_cont(event)
        else:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()
