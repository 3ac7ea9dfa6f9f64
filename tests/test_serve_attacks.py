"""Clients that hold up connections, flood the server, or send sound that is made to harm it."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for module in ("starlette", "uvicorn"):
    pytest.importorskip(module)
client = pytest.importorskip("websockets.sync.client")
httpx = pytest.importorskip("httpx")

from made_server import MadeServer, made_server, wait_for
from made_talker import voice
from media import write_media
from raw_client import BINARY, CONTINUATION, PING, TEXT, RawClient, frame
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sedtalker.errors import AudioError
from sedtalker.serve import connections, incoming
from sedtalker.serve.config import Limits
from sedtalker.serve.jbin import unpack

START = json.dumps({"type": "start"}).encode()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeServer]:
    """A server that waits half a second for requests and for clients that do not read."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    limits = replace(Limits(), send=0.3, utterance=1e5, events=4, backlog=1.0)
    with made_server(limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[MadeServer]:
    with made_server() as running:
        yield running


def open_connections(server: MadeServer) -> int:
    return len(server.running.manager.metrics.connections)


def check_session(server: MadeServer) -> None:
    """A client that behaves gets its frames."""
    with client.connect(server.socket_url, proxy=None) as socket:
        socket.send(START.decode())
        assert json.loads(socket.recv(30))["type"] == "ready"
        finish_utterance(socket)


def finish_utterance(socket: Any) -> None:
    """One second of speech gives its frames."""
    socket.send(voice(1).tobytes())
    socket.send(json.dumps({"type": "end"}))
    count = 0
    while (message := json.loads(socket.recv(20)))["type"] != "end":
        count += len(message.get("weights", ()))
    assert count == 30


def test_a_request_that_comes_a_byte_at_a_time_is_cut_off_also_after_another_one(hasty: MadeServer) -> None:
    for first, headers in ((False, ""), (True, ""), (True, "Content-Length: 1000\r\n")):
        with RawClient(hasty) as slow:
            if first:
                slow.request("/healthz", headers)
                assert b"200 OK" in slow.socket.recv(2000)
            for byte in b"GET /healthz HTTP/1.1\r\nX: y":
                slow.send_all(bytes([byte]), 1)
                time.sleep(0.05)
            assert slow.closed(0.1), headers
    check_session(hasty)


def test_a_client_that_reads_nothing_loses_its_connection(hasty: MadeServer) -> None:
    with RawClient(hasty, 4096) as deaf:
        for _ in range(10):  # of a megabyte in all, more than the system holds
            deaf.request("/page/three.min.js")
        wait_for(lambda: open_connections(hasty) == 1)
        wait_for(lambda: open_connections(hasty) == 0)
    with RawClient(hasty, 4096) as deaf:
        deaf.open_websocket()
        deaf.send_frame(TEXT, json.dumps({"type": "start", "fps": 60}).encode())
        data = frame(BINARY, voice(5).tobytes())
        threading.Thread(target=deaf.send_all, args=(data, 10**6), daemon=True).start()
        wait_for(lambda: hasty.running.manager.metrics.closed["slow reader"] == 1, 30)
        wait_for(lambda: open_connections(hasty) == 0)
    check_session(hasty)


def test_a_slow_download_is_not_cut_off(hasty: MadeServer) -> None:
    with RawClient(hasty, 4096) as slow:
        slow.request("/page/three.min.js", "Connection: close\r\n")
        size = 0
        while part := slow.socket.recv(30_000):
            size += len(part)
            time.sleep(0.02)
    assert size > 500_000


def test_pongs_do_not_pile_up(hasty: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 60.0)
    with RawClient(hasty, 4096) as deaf:
        deaf.open_websocket()
        flood = frame(PING, bytes(125)) * 500
        threading.Thread(target=deaf.send_all, args=(flood, 400), daemon=True).start()
        wait_for(lambda: open_connections(hasty) == 1)
        (connection,) = hasty.running.manager.metrics.connections
        wait_for(lambda: connection.transport.get_write_buffer_size() > 0, 30)
        most = 0
        for _ in range(20):
            most = max(most, connection.transport.get_write_buffer_size())
            time.sleep(0.02)
        assert most < 1e6 and connection.transport.max_size == connections.READ_BYTES
        check_session(hasty)


def test_a_message_has_a_limited_number_of_fragments(server: MadeServer) -> None:
    with RawClient(server) as raw:
        raw.open_websocket()
        raw.send_frame(TEXT, b"", final=False)
        raw.send_all(frame(CONTINUATION, final=False) * 1000, 20)
        assert raw.closed(10)
    with client.connect(server.socket_url, proxy=None) as socket:  # as many as a correct client needs
        socket.send(iter([START.decode()[:9], *START.decode()[9:]]))
        assert json.loads(socket.recv(30))["type"] == "ready"


def test_more_connections_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(connections, "CONNECTIONS", 20)
    monkeypatch.setattr("sedtalker.serve.server.CONNECTIONS", 20)
    with made_server() as server, client.connect(server.socket_url, proxy=None) as present:
        present.send(START.decode())
        assert json.loads(present.recv(30))["type"] == "ready"
        crowd = [RawClient(server) for _ in range(40)]
        wait_for(lambda: open_connections(server) > 20)
        assert httpx.get(f"{server.url}/healthz").status_code == 503
        with pytest.raises(InvalidStatus, match="503"):
            client.connect(server.socket_url, proxy=None)
        finish_utterance(present)
        wait_for(lambda: open_connections(server) == 1)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        for raw in crowd:
            raw.socket.close()


def test_files_that_are_posted_at_the_same_time_are_bounded() -> None:
    with made_server(limits=replace(Limits(), upload_bytes=1 << 20, jobs=1)) as server:
        with RawClient(server) as first:
            first.socket.sendall(
                f"POST /a2f.json HTTP/1.1\r\nHost: {first.host}\r\nContent-Length: 1000000\r\n\r\n".encode()
                + bytes(900_000)
            )
            wait_for(lambda: open_connections(server) == 1)
            time.sleep(0.2)
            answer = httpx.post(f"{server.url}/a2f.json", content=bytes(900_000))
            assert answer.status_code == 503 and "Try again" in answer.json()["error"]
        wait_for(lambda: open_connections(server) == 0)
        assert httpx.post(f"{server.url}/a2f.json", content=bytes(900_000)).status_code == 400


@pytest.mark.parametrize("rate", [100, 352_800])
def test_a_container_with_a_rate_that_is_none_is_refused(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_media(path, np.zeros(4000, np.float32), rate, "pcm_s16le", "matroska")
    with pytest.raises(AudioError, match="sample rate"):
        read_container([path.read_bytes()])


def read_container(pieces: list[bytes], encoding: str = "webm", limits: Limits | None = None) -> np.ndarray:
    reader = incoming.ContainerReader(encoding, limits or Limits())
    try:
        return np.concatenate([*map(reader.push, pieces), reader.finish()])
    finally:
        reader.close()


def test_the_bytes_of_a_container_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_media(path, np.zeros(16_000, np.float32), 16_000, "libopus", "webm")
    void = b"\xec\x01" + (1 << 30).to_bytes(7, "big")  # an element of a gigabyte that is to be skipped
    with pytest.raises(AudioError, match="more than"):
        read_container([path.read_bytes(), void, *[bytes(10_000)] * 20], limits=Limits(upload_bytes=100_000))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_floats_that_are_no_sound_end_their_session(server: MadeServer, value: float, tmp_path: Path) -> None:
    path, samples = tmp_path / "a", np.zeros(16_000, np.float32)
    samples[8000:] = value
    write_media(path, samples, 16_000, "pcm_f32le", "matroska")
    with client.connect(server.socket_url, proxy=None) as socket:
        socket.send(json.dumps({"type": "start", "encoding": "webm"}))
        socket.send(path.read_bytes())
        socket.send(json.dumps({"type": "end"}))
        with pytest.raises(ConnectionClosed, match="samples"):
            while True:
                socket.recv(20)
    check_session(server)


def test_a_rate_that_changes_within_an_utterance_is_no_crash(server: MadeServer, tmp_path: Path) -> None:
    pieces = []
    for rate in (48_000, 16_000, 24_000):
        path = tmp_path / str(rate)
        write_media(path, voice(1, rate) / np.float32(32768), rate, "flac", "ogg")
        pieces.append(path.read_bytes())
    with suppress(AudioError):  # a chain of streams need not be readable
        assert len(read_container(pieces, "ogg")) <= 3.2 * 16_000
    with client.connect(server.socket_url, proxy=None) as socket:
        socket.send(START.decode())
        socket.send(json.dumps({"type": "start", "sampleRate": 8000}))
        with pytest.raises(ConnectionClosed, match="start is sent once"):
            while True:
                socket.recv(20)


def test_names_that_leave_their_folder_find_nothing(server: MadeServer) -> None:
    names = ["../pyproject.toml", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "live.js%00.css", "/etc/passwd"]
    for name in names:
        for place in (f"/page/{name}", f"/face/{name}.glb", f"/takes/{name}/take.wav"):
            assert httpx.get(f"{server.url}{place}").status_code in (400, 404), place
        for query in ("/", "/takes"):
            method = httpx.get if query == "/" else httpx.post
            assert method(f"{server.url}{query}", params={"face": name}).status_code == 404
    for number in ("-1", "99", "1e3", "²", "٣٣", "0" * 9):
        assert httpx.get(f"{server.url}/face/{number}.glb").status_code == 404, number


def test_two_clients_of_one_name_have_a_session_each(server: MadeServer) -> None:
    address = server.socket_url + "/lam_data_stream/same"
    with client.connect(address, proxy=None) as one, client.connect(address, proxy=None) as two:
        one.send(voice(1, 24_000).tobytes())
        one.send(b"")
        header, _ = unpack(one.recv(30))
        two.send(voice(1, 24_000).tobytes())
        two.send(b"")
        other, _ = unpack(two.recv(30))
        assert header["batch_name"] != other["batch_name"] and other["start_of_batch"]


def test_the_wall_clock_may_jump(server: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with client.connect(server.socket_url, proxy=None) as socket:
        socket.send(json.dumps({"type": "start", "resting": True}))
        assert json.loads(socket.recv(30))["type"] == "ready"
        for jump in (-86_400.0, 1e7):
            monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
            socket.send(voice(1).tobytes())
            socket.send(json.dumps({"type": "end"}))
            speaking = 0
            while (message := json.loads(socket.recv(20)))["type"] != "end":
                speaking += len(message.get("weights", ())) * (message["state"] == "speaking")
            assert speaking == 30


@pytest.mark.parametrize("look_ahead", [True, 80.5, "80", [80], {}])
def test_a_look_ahead_that_is_no_whole_number_is_refused(server: MadeServer, look_ahead: Any) -> None:
    with client.connect(server.socket_url, proxy=None) as socket:
        socket.send(json.dumps({"type": "start", "lookAhead": look_ahead}))
        assert json.loads(socket.recv(30))["type"] == "error"


def test_random_frames_raise_nothing(server: MadeServer, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(1)
    for logger in ("sedtalker.serve", "uvicorn.error"):
        logging.getLogger(logger).propagate = True
    texts = [START, b'{"type":"end"}', b'{"type":"interrupt","at":-1e308}', b'{"type":"listen"}', b"\xff\xfe", b"[]"]
    for _ in range(60):
        with RawClient(server) as raw:
            raw.open_websocket()
            if rng.random() < 0.7:
                raw.send_frame(TEXT, START)
            for _ in range(rng.randrange(12)):
                kind = rng.randrange(4)
                if kind == 0:
                    raw.send_all(rng.randbytes(rng.randrange(1, 60)), 1)
                elif kind == 1:
                    raw.send_all(frame(TEXT, rng.choice(texts)), 1)
                elif kind == 2:
                    raw.send_all(frame(BINARY, rng.randbytes(rng.randrange(3000))), 1)
                else:
                    raw.send_all(frame(rng.randrange(16), rng.randbytes(rng.randrange(140)), rng.random() < 0.7), 1)
    wait_for(lambda: not server.running.manager.sessions, 30)
    wait_for(lambda: open_connections(server) == 0, 30)
    failed = [r.getMessage() for r in caplog.records if r.exc_info and r.exc_info[0] is not UnicodeDecodeError]
    assert not failed
    check_session(server)
