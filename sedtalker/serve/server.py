"""Starts and stops the server: workers, HTTP, gRPC, and the datagrams of Live Link and VMC."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from sedtalker.errors import SEDTalkerError, reason_of, require
from sedtalker.face.assets import load_face
from sedtalker.serve.app import make_app
from sedtalker.serve.config import ServeConfig
from sedtalker.serve.connections import CONNECTIONS, HttpConnection, WebSocketConnection
from sedtalker.serve.pool import WorkerPool
from sedtalker.serve.sessions import SessionManager
from sedtalker.serve.stage import send_datagrams
from sedtalker.serve.studio import StudioClient

logger = logging.getLogger("sedtalker.serve")

_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # s, s, probes; as far as the system has them


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class RunningServer:
    """A server that runs, and its ports."""

    config: ServeConfig
    manager: SessionManager
    studio: StudioClient
    port: int
    a2f_port: int | None


@asynccontextmanager
async def start_server(config: ServeConfig, pool: WorkerPool, studio: StudioClient) -> AsyncIterator[RunningServer]:
    """Run a server until the block ends; then its sessions are drained, and the pool and the studio are closed.

    Raises:
        SEDTalkerError: a port is in use, a certificate cannot be used, or the talker cannot be loaded.
    """
    with closing(pool), closing(studio):
        load_face(config.face)  # raises before the models are loaded
        manager = SessionManager(pool, config.limits)
        async with _serve_http(config, manager, studio) as port:
            await manager.start()
            running = RunningServer(config, manager, studio, port, None)
            async with _other_protocols(running):
                yield running
                await manager.drain(config.drain)
                await asyncio.sleep(0.1)  # the sessions send their reasons


@asynccontextmanager
async def _serve_http(config: ServeConfig, manager: SessionManager, studio: StudioClient) -> AsyncIterator[int]:
    """Answer HTTP and WebSockets until the block ends; yields the port."""
    settings = uvicorn.Config(
        make_app(config, manager, studio),
        http=HttpConnection,
        ws=WebSocketConnection,
        ws_max_size=config.limits.message_bytes,
        ws_ping_interval=None,  # a pong waits behind the audio of a client that is throttled: see `_keep_alive`
        ws_per_message_deflate=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=None if config.tls_cert is None else str(config.tls_cert),
        ssl_keyfile=None if config.tls_key is None else str(config.tls_key),
    )
    try:
        settings.load()  # otherwise it is loaded in the task below, whose errors are seen when the server ends
    except OSError as error:  # ssl.SSLError is one
        raise SEDTalkerError(
            f"cannot use --tls-cert {config.tls_cert} with --tls-key {config.tls_key} ({reason_of(error)}). "
            "Give a certificate and its key as PEM files"
        ) from error
    listener = _bind(config.host, config.port)
    http = _Uvicorn(settings)
    manager.metrics.connections = http.server_state.connections
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        http.should_exit = True
        with suppress(asyncio.CancelledError):
            await serving


@asynccontextmanager
async def _other_protocols(running: RunningServer) -> AsyncIterator[None]:
    """gRPC, Live Link and VMC, as far as they are configured."""
    config = running.config
    async with AsyncExitStack() as stack:
        if config.a2f_port is not None:
            require("grpc", "serve")
            require("grpc_health.v1.health", "serve")
            from sedtalker.serve.a2f import serve_a2f

            running.a2f_port = await stack.enter_async_context(serve_a2f(config, running.manager))
        if config.livelink is not None or config.vmc is not None:
            require("pythonosc", "serve")
            await stack.enter_async_context(send_datagrams(config, running.manager))
        yield


def _bind(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address. Raises SEDTalkerError if the host or the port cannot be used."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _keep_alive(listener)
        listener.bind((host, port))
    except (OSError, TypeError, ValueError) as error:  # the last two for an invalid host name
        listener.close()
        is_port = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
        remedy = "Choose another port with --port" if is_port else "Check --host"
        raise SEDTalkerError(f"cannot listen on {host}:{port} ({reason_of(error)}). {remedy}") from error
    return listener


def _keep_alive(listener: socket.socket) -> None:
    """The system finds connections whose client has gone without a word; accepted sockets inherit this."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def run_server(config: ServeConfig, announce: Callable[[RunningServer], None] = lambda running: None) -> None:
    """Run a server with worker processes until SIGTERM or SIGINT; a second signal does not wait for the sessions.

    Raises:
        SEDTalkerError: as `start_server`.
    """
    asyncio.run(_run(config, announce))


async def _run(config: ServeConfig, announce: Callable[[RunningServer], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    pool = WorkerPool.of_processes(config)
    studio = StudioClient.of_process(config)
    running: RunningServer | None = None

    def end() -> None:
        if stop.is_set() and running is not None:
            running.manager.stop_waiting()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        async with start_server(config, pool, studio) as running:
            announce(running)
            await stop.wait()
            logger.info("stopping", extra={"event": "stopping", "sessions": len(running.manager.sessions)})
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
