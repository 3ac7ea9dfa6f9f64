"""A client of the server that writes bytes as it likes."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from made_server import MadeServer

PING, CONTINUATION, TEXT, BINARY = 9, 0, 1, 2
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


class RawClient:
    """A connection; `receive_bytes` bounds what the system receives for a client that does not read."""

    def __init__(self, server: MadeServer, receive_bytes: int | None = None) -> None:
        self.host = f"127.0.0.1:{server.running.port}"
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", server.running.port))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, path: str, headers: str = "") -> None:
        """Send the headers of a GET request."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n{headers}\r\n".encode())

    def open_websocket(self, path: str = "/ws") -> None:
        """Send the handshake, and read its answer."""
        self.request(path, UPGRADE)
        assert b"101" in self.socket.recv(300)

    def send_frame(self, opcode: int, data: bytes = b"", final: bool = True) -> None:
        """Send a frame of a WebSocket, masked with zeros."""
        self.socket.sendall(frame(opcode, data, final))

    def send_all(self, data: bytes, times: int) -> bool:
        """Send data again and again; whether the server took all of it."""
        with suppress(OSError):
            for _ in range(times):
                self.socket.sendall(data)
            return True
        return False

    def closed(self, seconds: float) -> bool:
        """Whether the server closes the connection within a time; what it sends is dropped."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


def frame(opcode: int, data: bytes = b"", final: bool = True) -> bytes:
    """A frame of a WebSocket, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + struct.pack(">Q", size)
    return bytes([0x80 * final | opcode]) + length + bytes(4) + data
