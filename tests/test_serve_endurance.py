"""A server of the command line with the packaged models: a short soak, hostile clients, interruptions, and its end.

`python -m sedtalker.serve.load_test` makes the same measurements for an hour.
"""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

for module in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(module)

from sedtalker.audio import load_audio, to_int16
from sedtalker.resources import asset
from sedtalker.serve.load_test import (
    Onset,
    measure_hostility,
    measure_interruptions,
    measure_onset,
    measure_soak,
)

pytestmark = pytest.mark.slow

ANGRY = 5.3  # s, start of the angry sentence of the demo
STOP_SECONDS = 5.0  # on a busy machine; less than one second on a quiet one


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sedtalker", "serve", "--port", "0", "--a2f-port", "0", "--workers", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    return address.replace("http", "ws") + "ws"


def test_memory_is_flat(server: subprocess.Popen[str], url: str, capsys: Any) -> None:
    result = asyncio.run(measure_soak(url, None, 3, 36, server.pid, reconnect=12))
    assert result["errors"] == [] and result["wrong utterances"] == 0 and result["utterances"] >= 3
    assert result["flat"], result
    assert capsys.readouterr().err.count('"MB"') >= 8  # the memory over time


def test_the_session_after_interruptions_and_hostile_clients_is_right(url: str) -> None:
    interrupted = asyncio.run(measure_interruptions(url, None, 20))
    assert interrupted["mouths left open"] == 0
    assert interrupted["next utterance differs by"] <= 1e-3 and interrupted["next session differs by"] <= 1e-3
    attacked = asyncio.run(measure_hostility(url, None, 18))
    assert attacked["next session differs by"] <= 1e-3 and attacked["jaw opens"] > 0.1


def test_an_emotion_is_in_the_stream_within_a_second_of_its_onset(url: str) -> None:
    sound = to_int16(load_audio(asset("demo.wav")))
    onset = Onset("demo", "angry", ANGRY, ANGRY + 2.0)
    delays = [asyncio.run(measure_onset(url, None, onset, sound)) for _ in range(2)]
    assert min(np.nan_to_num(delay.arrival, nan=np.inf) for delay in delays) <= 1.0, delays


def test_a_signal_ends_an_idle_server_at_once(server: subprocess.Popen[str], url: str) -> None:
    start = time.monotonic()
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    assert time.monotonic() - start < STOP_SECONDS
