"""A server in a thread of the test process, with its own event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from made_talker import made_talker

from sedtalker.serve.config import ServeConfig
from sedtalker.serve.pool import WorkerPool
from sedtalker.serve.server import RunningServer, start_server
from sedtalker.serve.studio import StudioClient


@dataclass
class MadeServer:
    """A server that runs in a thread."""

    running: RunningServer
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.running.port}"

    @property
    def socket_url(self) -> str:
        """Address of the WebSocket."""
        return f"ws://127.0.0.1:{self.running.port}/ws"

    def call(self, coroutine: Coroutine[Any, Any, Any], timeout: float = 60) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until a condition holds; fails after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


@contextmanager
def made_server(talker: Any = None, **settings: Any) -> Iterator[MadeServer]:
    """A server on free ports; a made talker by default."""
    config = ServeConfig(**{"port": 0, "a2f_port": None, "drain": 1.0, **settings})
    talker = talker or made_talker()
    started: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def serve() -> None:
        box["stop"], box["loop"] = asyncio.Event(), asyncio.get_running_loop()
        pool = WorkerPool.of_threads(talker, config.look_ahead)
        async with start_server(config, pool, StudioClient.of_thread(talker, config.limits)) as running:
            box["running"] = running
            started.set()
            await box["stop"].wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            box["error"] = error
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(60), "the server did not start"
    if "error" in box:
        raise box["error"]
    try:
        yield MadeServer(box["running"], box["loop"])
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(30)
        if "error" in box:
            raise box["error"]
