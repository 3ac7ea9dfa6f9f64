"""Settings of the server: addresses, access, limits. The defaults of the command line are these."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from sedtalker.errors import UsageError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
FRAME_RATES = (30, 60)


@dataclass(frozen=True)
class Limits:
    """Limits of one client."""

    sessions: int = 16  # at a time
    message_bytes: int = 1 << 20  # of a WebSocket or gRPC message; 10 s of 48 kHz PCM are 0.96 MB
    upload_bytes: int = 32 << 20  # of a posted file
    utterance: float = 300.0  # s of audio
    session: float = 3600.0  # s
    backlog: float = 60.0  # s of audio that wait for the model before the server reads no more; commands wait behind it
    idle: float = 30.0  # s without a message, while audio is expected
    send: float = 5.0  # s that a client may take to read a message
    events: int = 64  # messages that wait for the client
    takes: int = 16  # recorded takes in memory, the oldest is dropped
    take_seconds: float = 120.0  # of a posted file
    jobs: int = 4  # posted files that wait or run


@dataclass(frozen=True)
class ServeConfig:
    """Settings of a server.

    Raises:
        UsageError: a host other than loopback without a token, half of a TLS key pair, or a file that does not exist.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    a2f_port: int | None = 52000  # None: no gRPC service; 0: any free port
    livelink: tuple[str, int] | None = None
    vmc: tuple[str, int] | None = None
    fps: int = 30  # of Live Link and VMC, and the default of sessions
    face: str = "default"
    model: str = "default"
    diarizer: str = "default"
    look_ahead: int | None = None  # ms; None: the encoder's default
    voice_reference: Path | None = None  # recording or profile of the voice of all sessions and takes
    token: str | None = None
    origins: tuple[str, ...] = ()  # of pages on other hosts that may connect, and of a proxy before this server
    tls_cert: Path | None = None
    tls_key: Path | None = None
    workers: int = 2  # processes of the model
    drain: float = 10.0  # s for the sessions to end after SIGTERM
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            raise UsageError(
                f"--host {self.host} lets other machines connect. Give --token SECRET, which clients must send; or use "
                "the default host"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both --tls-cert and --tls-key. Give the other one, too")
        files = {"--tls-cert": self.tls_cert, "--tls-key": self.tls_key, "--voice-reference": self.voice_reference}
        for name, path in files.items():
            if path is not None and not path.is_file():
                raise UsageError(f"no such file: {name} {path}. Check the path")


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a server at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
