"""The server: its WebSocket, its limits, access, and its behaviour when clients misbehave."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

for module in ("starlette", "uvicorn"):
    pytest.importorskip(module)
client = pytest.importorskip("websockets.sync.client")
httpx = pytest.importorskip("httpx")

from made_server import MadeServer, made_server, wait_for
from made_talker import JAW, made_talker, voice
from raw_client import BINARY, TEXT, RawClient, frame
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sedtalker.errors import SEDTalkerError, UsageError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.serve.config import Limits, ServeConfig
from sedtalker.serve.pool import Worker, WorkerLost
from sedtalker.serve.studio import StudioClient
from sedtalker.serve.visemes import OCULUS
from sedtalker.serve.websocket import SlowReader, SocketWriter


@pytest.fixture(scope="module")
def server() -> Iterator[MadeServer]:
    with made_server() as running:
        yield running


def open_session(server: MadeServer, **options: Any) -> Any:
    socket = client.connect(server.socket_url, proxy=None)
    socket.send(json.dumps({"type": "start", **options}))
    ready = json.loads(socket.recv(30))
    assert ready["type"] == "ready", ready
    return socket


def receive_until(socket: Any, kind: str, seconds: float = 30) -> list[dict[str, Any]]:
    """Messages up to the first of a kind."""
    messages = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        messages.append(json.loads(socket.recv(max(0.01, end - time.monotonic()))))
        if messages[-1]["type"] == kind:
            return messages
    raise AssertionError(f"no {kind} within {seconds} s")


def receive_reason(socket: Any) -> str:
    """The reason with which the server closes."""
    with pytest.raises(ConnectionClosed) as closed:
        receive_until(socket, "nothing")
    reason: str = closed.value.rcvd.reason
    return reason


def frames_of(messages: list[dict[str, Any]], state: str = "speaking") -> list[dict[str, Any]]:
    return [message for message in messages if message["type"] == "frames" and message["state"] == state]


def test_an_utterance_gives_a_frame_for_each_time_of_its_audio(server: MadeServer) -> None:
    with open_session(server, fps=60) as socket:
        sound = voice(2)
        for start in range(0, len(sound), 333):
            socket.send(sound[start : start + 333].tobytes())
        socket.send(json.dumps({"type": "end"}))
        blocks = frames_of(receive_until(socket, "end"))
    starts = [block["start"] for block in blocks]
    counts = np.cumsum([0] + [len(block["weights"]) for block in blocks])
    assert starts == pytest.approx((counts[:-1] / 60).tolist(), abs=1e-3) and counts[-1] == 120
    jaw = np.concatenate([np.array(block["weights"])[:, JAW] for block in blocks])
    assert jaw[:28].max() == 0 and jaw[32:58].min() > 0.3  # the sound begins half a second late
    assert np.array(blocks[0]["posterior"]).sum(1) == pytest.approx(1, abs=1e-3)
    assert len(blocks[0]["head"][0]) == 3 and len(blocks[0]["gaze"][0]) == 2 and len(blocks[0]["intensity"]) > 0


def test_binary_frames_and_another_rate(server: MadeServer) -> None:
    with open_session(server, format="binary", sampleRate=44_100) as socket:
        socket.send(voice(1, 44_100).tobytes())
        socket.send(json.dumps({"type": "end"}))
        rows = []
        while isinstance(message := socket.recv(30), bytes):
            assert message[:4] == b"SEDF"
            size = struct.unpack("<I", message[4:8])[0]
            header = json.loads(message[8 : 8 + size])
            rows.append(np.frombuffer(message[8 + size :], "<f4").reshape(header["shape"]))
        assert json.loads(message)["type"] == "end"
    values = np.concatenate(rows)
    assert values.shape == (30, 52 + 5 + 8 + 1) and values[20:28, JAW].min() > 0.3


def test_talkinghead_gets_arguments_of_stream_audio(server: MadeServer) -> None:
    with open_session(server, format="talkinghead") as socket:
        socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "end"}))
        messages = [message for message in receive_until(socket, "end") if message["type"] == "streamAudio"]
    anims = [anim for message in messages for anim in message["r"]["anims"]]
    frames = 0
    for anim in anims:  # as TalkingHead's animFactory reads it
        assert anim["delay"] == pytest.approx(frames * 1000 / 30, abs=0.1)
        assert set(anim["vs"]) == set(ARKIT_NAMES) and {len(anim["dt"])} == {len(v) for v in anim["vs"].values()}
        frames += len(anim["dt"])
    assert frames == 30
    visemes = {viseme for message in messages for viseme in message["r"]["visemes"]}
    assert visemes and visemes <= OCULUS.keys()
    times = [time for message in messages for time in message["r"]["vtimes"]]
    assert min(times) >= 450 and times == sorted(times)


@pytest.mark.parametrize(("encoding", "form"), [("webm", "webm"), ("ogg", "ogg")])
def test_audio_of_a_media_recorder(server: MadeServer, encoding: str, form: str, tmp_path: Any) -> None:
    from media import write_media

    path = tmp_path / "a"
    write_media(path, voice(2, 48_000).astype(np.float32) / 32768, 48_000, "libopus", form)
    data = path.read_bytes()
    with open_session(server, encoding=encoding) as socket:
        for _ in range(2):  # each utterance is a recording of its own
            for start in range(0, len(data), 700):
                socket.send(data[start : start + 700])
            socket.send(json.dumps({"type": "end"}))
            blocks = frames_of(receive_until(socket, "end"))
            jaw = np.concatenate([np.array(block["weights"])[:, JAW] for block in blocks])
            assert abs(len(jaw) - 60) <= 2 and jaw[18:27].min() > 0.3 and jaw[3:12].max() < 0.05


def test_an_interruption_brings_the_lips_to_rest_at_once(server: MadeServer) -> None:
    replies = []
    with open_session(server) as socket:
        for _ in range(5):  # the quickest counts: other processes can delay any of them
            socket.send(np.tile(voice(1)[8000:], 4).tobytes())  # two seconds, all loud
            receive_until(socket, "frames")
            time.sleep(0.1)
            sent = time.monotonic()
            socket.send(json.dumps({"type": "interrupt", "at": 0.5}))
            fade = receive_until(socket, "interrupted")[-1]
            reply = time.monotonic() - sent
            jaw = np.array(fade["weights"])[:, JAW]
            assert 0 < jaw[0] < 0.6 and jaw[-1] == 0
            assert fade["start"] == pytest.approx(0.5, abs=0.04)
            assert (len(jaw) - 1) / 30 < 0.1
            replies.append(reply)
        assert min(replies) < 0.3  # the quickest counts: other processes can delay any of them
        socket.send(voice(1).tobytes())  # the next utterance is as if nothing had happened
        socket.send(json.dumps({"type": "end"}))
        messages = receive_until(socket, "end")
        blocks = frames_of(messages)
    assert blocks[0]["start"] == 0 and sum(len(block["weights"]) for block in blocks) == 30
    assert messages[-1]["utterance"] == 6


def test_a_second_interruption_does_not_open_the_lips_again(server: MadeServer) -> None:
    with open_session(server) as socket:
        socket.send(np.tile(voice(1)[8000:], 4).tobytes())  # two seconds, all loud
        receive_until(socket, "frames")
        time.sleep(0.1)
        fades = []
        for _ in range(2):
            socket.send(json.dumps({"type": "interrupt", "at": 0.5}))
            fades.append(receive_until(socket, "interrupted")[-1])
    first, second = ([row[JAW] for row in fade["weights"]] for fade in fades)
    assert first[0] > second[0] and second[-1] == 0


def test_a_resting_face_keeps_its_mouth_shut_and_moves(server: MadeServer) -> None:
    with open_session(server, resting=True, seed=3) as socket:
        socket.send(json.dumps({"type": "listen", "on": True}))
        socket.send(voice(2).tobytes())  # the client's own voice
        rows, heads, starts = [], [], []
        start = time.monotonic()
        while len(rows) < 120:
            message = json.loads(socket.recv(30))
            if message["type"] == "frames":
                assert message["state"] in ("listening", "idle")
                rows += message["weights"]
                heads += message["head"]
                starts.append(message["start"])
        assert time.monotonic() - start > 3  # 4 s in real time; a busy machine takes longer
    weights, head = np.array(rows), np.array(heads)
    assert np.median(np.diff(starts)) * 30 == pytest.approx(3, abs=0.01)  # no frame is left out
    mouth = [name.startswith(("jaw", "mouth", "tongue")) for name in ARKIT_NAMES]
    assert weights[:, mouth].max() == 0
    assert weights[:, ARKIT_NAMES.index("eyeBlinkLeft")].max() > 0.5  # a blink
    assert np.ptp(weights[:, [name.startswith("eyeLook") for name in ARKIT_NAMES]], axis=0).max() > 0.02
    assert np.ptp(head[:, 0]) > 1.5  # a nod
    assert np.abs(np.diff(head, axis=0)).max() < 1.5  # degrees a frame


def test_an_emotion_by_hand_mixes_with_the_voice(server: MadeServer) -> None:
    with open_session(server) as socket:
        socket.send(json.dumps({"type": "emotion", "emotion": "anger", "intensity": 0.9, "share": 0.75}))
        socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "end"}))
        block = frames_of(receive_until(socket, "end"))[-1]
        labels = ("neutral", "happy", "sad", "angry", "upset", "disgust", "fear", "surprise")
        shares = dict(zip(labels, block["posterior"][0], strict=True))
        assert shares["angry"] == pytest.approx(0.75) and shares["happy"] == pytest.approx(0.25)
        assert block["intensity"][0] == pytest.approx(0.75 * 0.9 + 0.25 * 0.5)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("no json", "not JSON"),
        ("[1]", "JSON object"),
        ('{"type": "end"}', "must be of the type start"),
        ('{"type": "start", "sampleRate": 1e9}', "sample rate"),
        ('{"type": "start", "sampleRate": true}', "sample rate"),
        ('{"type": "start", "encoding": "mp3"}', "encoding"),
        ('{"type": "start", "fps": 25}', "fps"),
        ('{"type": "start", "seed": -1}', "seed"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_start_is_refused_with_a_reason(server: MadeServer, message: str, words: str) -> None:
    with client.connect(server.socket_url, proxy=None) as socket:
        socket.send(message)
        answer = json.loads(socket.recv(30))
        assert answer["type"] == "error" and words in answer["message"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd.code == 1007 and words in closed.value.rcvd.reason
    wait_for(lambda: server.running.manager.metrics.sessions == 0)


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "dance"}', '{"type": "interrupt", "at": "now"}', '{"type": "emotion", "emotion": "hungry"}',
        '{"type": "emotion", "emotion": "happy", "share": 2}',
        '{"type": "emotion", "emotion": "happy", "intensity": NaN}',
        '{"type": "ping", "id": {}}', "nonsense", '{"type": "interrupt", "at": 1' + "0" * 400 + "}",
    ],
)  # fmt: skip
def test_a_wrong_command_closes_with_a_reason(server: MadeServer, message: str) -> None:
    with open_session(server) as socket:
        socket.send(message)
        receive_until(socket, "error")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd.code == 1007 and closed.value.rcvd.reason


def test_a_message_over_the_limit_is_refused() -> None:
    with made_server(limits=replace(Limits(), message_bytes=10_000)) as server, open_session(server) as socket:
        socket.send(bytes(10_001))
        with pytest.raises(ConnectionClosed) as closed:
            receive_until(socket, "end")
        assert closed.value.rcvd.code == 1009


def test_limits_of_sessions_utterances_and_silence() -> None:
    limits = replace(Limits(), sessions=1, utterance=3.0, idle=0.4)
    with made_server(limits=limits) as server:
        with open_session(server) as socket:
            with client.connect(server.socket_url, proxy=None) as other:
                other.send('{"type": "start"}')
                with pytest.raises(ConnectionClosed) as closed:
                    receive_until(other, "ready")
                assert closed.value.rcvd.code == 1013 and "limit" in closed.value.rcvd.reason
            with pytest.raises(ConnectionClosed) as closed:
                for _ in range(10):
                    socket.send(voice(1).tobytes())
                receive_until(socket, "end")
            assert closed.value.rcvd.reason == "utterance too long"
        wait_for(lambda: server.running.manager.metrics.sessions == 0)
        with open_session(server) as socket:  # stops in the middle of an utterance
            socket.send(voice(1).tobytes())
            with pytest.raises(ConnectionClosed) as closed:
                receive_until(socket, "end")
            assert closed.value.rcvd.reason == "no message"
        closed_by = server.running.manager.metrics.closed
        wait_for(lambda: closed_by["no message"] == 1)
        assert closed_by["utterance too long"] == 1


def streams_of(server: MadeServer) -> list[str]:
    """Sessions whose streams the workers hold."""
    workers = server.running.manager.pool.workers
    return [name for worker in workers for name in server.call(worker.call("sessions"))]


def test_a_session_that_was_ended_leaves_nothing_in_the_worker() -> None:
    with made_server(limits=replace(Limits(), utterance=1.0)) as server:
        manager = server.running.manager
        for resting in (True, False):
            with open_session(server, resting=resting) as socket:
                socket.send(voice(2).tobytes())
                assert receive_reason(socket) == "utterance too long"
        wait_for(lambda: not manager.sessions and not manager._freeing)
        assert streams_of(server) == [] and not any(worker.sessions for worker in manager.pool.workers)


def test_a_client_that_leaves_before_ready_frees_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(self: Any, message: str | bytes) -> None:
        raise SlowReader

    with made_server() as server:
        monkeypatch.setattr(SocketWriter, "send", send)
        with client.connect(server.socket_url, proxy=None) as socket:
            socket.send('{"type": "start"}')
            assert receive_reason(socket) == "slow reader"
        wait_for(lambda: not server.running.manager.sessions and not streams_of(server))


def test_a_failing_conversation_is_closed_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def push(*_: Any) -> None:
        raise KeyError("made to fail")

    with made_server() as server:
        monkeypatch.setattr("sedtalker.serve.websocket.push_audio", push)
        with open_session(server) as socket:
            socket.send(voice(1).tobytes())
            assert receive_reason(socket) == "internal error"
        wait_for(lambda: server.running.manager.metrics.closed["internal error"] == 1)


def test_interruptions_in_a_row_do_not_queue_up(server: MadeServer) -> None:
    with open_session(server) as socket:
        receive_session = next(iter(server.running.manager.sessions.values()))

        async def interrupt() -> int:
            await receive_session.set_emotion("happy")
            for _ in range(1000):
                await receive_session.interrupt()
            return len(receive_session._inbox)

        assert server.call(interrupt()) <= 2
        socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "end"}))
        block = frames_of(receive_until(socket, "end"))[0]
        assert block["start"] == 0 and block["posterior"][0][1] == 1  # the emotion by hand was kept


def test_an_utterance_without_audio_ends_too(server: MadeServer) -> None:
    with open_session(server) as socket:
        socket.send(json.dumps({"type": "end"}))
        assert receive_until(socket, "end")[-1]["state"] == "idle"
        socket.send(json.dumps({"type": "listen", "on": True}))
        socket.send(json.dumps({"type": "end"}))
        assert receive_until(socket, "end")[-1]["state"] == "listening"


def test_the_limit_of_an_utterance_is_for_each_and_excludes_audio_while_listening() -> None:
    with made_server(limits=replace(Limits(), utterance=1.5)) as server, open_session(server) as socket:
        for _ in range(4):  # sent at once: the model is behind
            socket.send(voice(1).tobytes())
            socket.send(json.dumps({"type": "end"}))
        for _ in range(4):
            assert sum(len(block["weights"]) for block in frames_of(receive_until(socket, "end"))) == 30
        socket.send(json.dumps({"type": "listen", "on": True}))
        for _ in range(4):
            socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "listen", "on": False}))
        receive_until(socket, "idle")
        socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "end"}))
        assert sum(len(block["weights"]) for block in frames_of(receive_until(socket, "end"))) == 30


def test_ready_has_the_latency_of_the_sessions_own_look_ahead() -> None:
    def open_stream(look_ahead: int | None = None, **options: Any) -> Any:
        if look_ahead == 7:
            raise UsageError("a look-ahead of 7 ms: give 80 or 120")
        stream = made_talker().open_stream(**options)
        stream.latency = (look_ahead or 120) / 1000
        return stream

    with made_server(SimpleNamespace(open_stream=open_stream)) as server:
        for options, latency in (({}, 0.12), ({"lookAhead": 80}, 0.08)):
            with client.connect(server.socket_url, proxy=None) as socket:
                socket.send(json.dumps({"type": "start", **options}))
                assert json.loads(socket.recv(30))["latency"] == latency
        with client.connect(server.socket_url, proxy=None) as socket:
            socket.send(json.dumps({"type": "start", "lookAhead": 7}))
            assert json.loads(socket.recv(30)) == {"type": "error", "message": "a look-ahead of 7 ms: give 80 or 120"}


def test_a_container_is_decoded_up_to_the_limit_of_an_utterance(tmp_path: Path) -> None:
    from media import write_media

    from sedtalker.errors import AudioError
    from sedtalker.serve import incoming

    path = tmp_path / "a"
    write_media(path, np.zeros(4 * 48_000, np.float32), 48_000, "libopus", "webm")
    reader = incoming.ContainerReader("webm", Limits(utterance=2.0))
    reader.push(path.read_bytes())
    with pytest.raises(AudioError, match="more than 2 s"):
        reader.finish()
    reader._thread.join(5)
    assert not reader._thread.is_alive()


def test_a_client_that_does_not_read_is_closed_and_others_go_on() -> None:
    limits = replace(Limits(), send=0.5, utterance=1e5, events=4, backlog=1.0)
    with made_server(limits=limits) as server, RawClient(server, 4096) as deaf:
        deaf.open_websocket()
        deaf.send_frame(TEXT, json.dumps({"type": "start", "fps": 60}).encode())
        closed = server.running.manager.metrics.closed
        sound = frame(BINARY, voice(5).tobytes())
        with open_session(server) as quick:
            threading.Thread(target=deaf.send_all, args=(sound, 10**6), daemon=True).start()
            wait_for(lambda: closed["slow reader"] == 1, 30)
            quick.send(voice(1).tobytes())
            quick.send(json.dumps({"type": "end"}))
            assert sum(len(block["weights"]) for block in frames_of(receive_until(quick, "end"))) == 30


def test_all_sessions_of_a_lost_worker_end_with_that_reason() -> None:
    """Also those that were idle when the process ended, of which the next one knows nothing."""
    lost, name = Event(), "an engine"

    def start() -> tuple[Executor, Callable[..., Any]]:
        def call(method: str, session: str) -> str:
            if not lost.is_set():
                lost.set()
                raise BrokenExecutor
            return name

        return ThreadPoolExecutor(1), call

    async def lose() -> None:
        worker = Worker(start)
        worker.sessions |= {"first", "idle"}
        for session in ("first", "idle"):
            with pytest.raises(WorkerLost):
                await worker.call_for(session, "push")
        worker.sessions.add("next")
        assert await worker.call_for("next", "push") == name

    asyncio.run(lose())


def test_calls_of_a_lost_studio_do_not_drop_the_next_one() -> None:
    starts: list[Path] = []
    slow = Event()

    def start(folder: Path) -> tuple[Executor, Callable[..., Any]]:
        def call(method: str) -> str:
            if method == "slow":
                slow.wait(10)
            if method != "works":
                raise BrokenExecutor
            return method

        starts.append(folder)
        return ThreadPoolExecutor(2), call

    async def lose() -> None:
        waiting = asyncio.create_task(studio.call("slow"))
        await asyncio.sleep(0)
        with pytest.raises(SEDTalkerError, match="Post the file again"):
            await studio.call("quick")
        assert await studio.call("works") == "works"
        slow.set()
        with pytest.raises(SEDTalkerError, match="Post the file again"):
            await waiting
        assert await studio.call("works") == "works" and len(starts) == 2

    studio = StudioClient(start, Limits())
    asyncio.run(lose())
    studio.close()


def test_a_failing_model_ends_its_session_alone() -> None:
    with made_server(made_talker(fail_after=1.5)) as server:
        with open_session(server) as socket:
            socket.send(voice(2).tobytes())
            with pytest.raises(ConnectionClosed) as closed:
                receive_until(socket, "end")
            assert closed.value.rcvd.reason == "internal error" and closed.value.rcvd.code == 1011
        with open_session(server) as socket:
            socket.send(voice(1).tobytes())
            socket.send(json.dumps({"type": "end"}))
            receive_until(socket, "end")


def test_a_token_is_checked_everywhere() -> None:
    with made_server(token="s3cret") as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        for path in ("/", "/metrics", "/page/live.js", "/face/0.glb", "/takes/x/take.mp4"):
            assert httpx.get(server.url + path).status_code == 401, path
            assert httpx.get(server.url + path, headers={"Authorization": "Bearer wrong"}).status_code == 401, path
        assert httpx.post(f"{server.url}/takes", content=b"x").status_code == 401
        assert httpx.get(f"{server.url}/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        with pytest.raises(InvalidStatus):
            client.connect(server.socket_url, proxy=None)
        client.connect(f"{server.socket_url}?token=s3cret", proxy=None).close()
        entered = httpx.get(f"{server.url}/?token=s3cret")
        assert entered.status_code == 303 and entered.headers["location"] == "/"
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert httpx.get(server.url, headers={"Cookie": cookie.split(";")[0]}).status_code == 200


def test_pages_of_other_sites_are_refused(server: MadeServer) -> None:
    for origin, allowed in (("http://evil.example", False), ("null", False), (server.url, True)):
        status = httpx.get(f"{server.url}/metrics", headers={"Origin": origin}).status_code
        assert (status == 200) == allowed, origin
        if not allowed:
            with pytest.raises(InvalidStatus):
                client.connect(server.socket_url, origin=origin, proxy=None)
    for headers in ({"Origin": "http://[::1"}, {"Host": "[::1"}):  # no addresses
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code in (403, 421), headers
    rebound = {"Host": f"evil.example:{server.running.port}", "Origin": f"http://evil.example:{server.running.port}"}
    assert httpx.get(f"{server.url}/metrics", headers=rebound).status_code == 421
    with made_server(origins=("https://app.example",)) as other:
        client.connect(other.socket_url, origin="https://app.example", proxy=None).close()
        proxied = {"Host": "app.example", "Origin": "https://app.example"}
        assert httpx.get(f"{other.url}/metrics", headers=proxied).status_code == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "münchen..example", "a" * 100])
def test_a_host_that_is_not_of_this_machine_is_named(host: str) -> None:
    with (
        pytest.raises(SEDTalkerError, match=rf"cannot listen on {host}:0 \(.*\)\. Check --host"),
        made_server(host=host, token="x"),
    ):
        pass


def test_a_port_in_use_is_named(server: MadeServer) -> None:
    port = server.running.port
    with (
        pytest.raises(SEDTalkerError, match=rf":{port} \(.*\)\. Choose another port with --port"),
        made_server(port=port),
    ):
        pass


def test_an_open_host_needs_a_token_and_tls_a_pair() -> None:
    with pytest.raises(UsageError, match="--token"):
        ServeConfig(host="0.0.0.0")
    ServeConfig(host="0.0.0.0", token="x")
    with pytest.raises(UsageError, match="--tls-key"):
        ServeConfig(tls_cert=__file__)


def test_the_voice_reference_is_that_of_all_sessions() -> None:
    from sedtalker.serve.engine import Engine, StreamOptions

    given: list[Any] = []

    def open_stream(**options: Any) -> Any:
        given.append(options["voice"])
        return made_talker().open_stream()

    profile: Any = object()
    engine = Engine(SimpleNamespace(open_stream=open_stream), voice=profile)
    engine.describe()
    engine.open("a", StreamOptions())
    assert given == [profile, profile]
    with pytest.raises(UsageError, match=r"--voice-reference none\.wav"):
        ServeConfig(voice_reference=Path("none.wav"))


@pytest.mark.slow
def test_a_worker_that_cannot_load_its_talker_gives_the_reason() -> None:
    import asyncio

    from sedtalker.errors import CheckpointError
    from sedtalker.serve.pool import WorkerPool

    pool = WorkerPool.of_processes(ServeConfig(model="no-such-talker", workers=1))
    with pytest.raises(CheckpointError, match="no-such-talker"):
        asyncio.run(pool.describe())
    pool.close()


def test_health_and_metrics(server: MadeServer) -> None:
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/v1/health/ready").status_code == 200
    with open_session(server) as socket:
        socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "end"}))
        receive_until(socket, "end")
        text = httpx.get(f"{server.url}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["sedtalker_sessions"]) == 1
    assert float(values['sedtalker_sessions_opened_total{protocol="websocket"}']) >= 1
    assert 0 < float(values['sedtalker_delay_seconds{quantile="0.99"}']) < 5
    assert 0 <= float(values["sedtalker_real_time_factor"]) < 1


def test_draining_lets_an_utterance_finish_and_refuses_the_next_client() -> None:
    with made_server(drain=5.0) as server:
        socket = open_session(server)
        idle = open_session(server)
        socket.send(voice(1).tobytes())
        wait_for(lambda: any(s.state == "speaking" for s in server.running.manager.sessions.values()))
        import asyncio

        drain = asyncio.run_coroutine_threadsafe(server.running.manager.drain(5.0), server.loop)
        wait_for(lambda: server.running.manager.draining)
        assert httpx.get(f"{server.url}/healthz").status_code == 503
        late = client.connect(server.socket_url, proxy=None)
        late.send('{"type": "start"}')
        assert "stopping" in json.loads(late.recv(30))["message"]
        socket.send(voice(1).tobytes())
        socket.send(json.dumps({"type": "end"}))
        messages = receive_until(socket, "end")
        assert sum(len(block["weights"]) for block in frames_of(messages)) == 60
        drain.result(10)
        for open_socket in (socket, idle):
            with pytest.raises(ConnectionClosed) as closed:
                receive_until(open_socket, "never")
            assert closed.value.rcvd.code == 1001 and "stopping" in closed.value.rcvd.reason


def test_tls(tmp_path: Any) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=str(certificate))
    with made_server(tls_cert=certificate, tls_key=key, a2f_port=0) as server:
        port = server.running.port
        assert httpx.get(f"https://127.0.0.1:{port}/healthz", verify=trust).status_code == 200
        with client.connect(f"wss://127.0.0.1:{port}/ws", ssl=trust, proxy=None) as socket:
            socket.send('{"type": "start"}')
            assert json.loads(socket.recv(30))["type"] == "ready"
        grpc = pytest.importorskip("grpc")
        health = pytest.importorskip("grpc_health.v1.health_pb2")
        stubs = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{server.running.a2f_port}", credentials) as channel:
            check = stubs.HealthStub(channel).Check(health.HealthCheckRequest(), timeout=30)
        assert check.status == health.HealthCheckResponse.SERVING


def test_a_certificate_that_cannot_be_used_is_named_before_the_models_are_loaded(tmp_path: Path) -> None:
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path in paths:
        path.write_text("no certificate")
    with (
        pytest.raises(SEDTalkerError, match=r"cannot use --tls-cert .*cert\.pem with --tls-key .*key\.pem"),
        made_server(tls_cert=paths[0], tls_key=paths[1]),
    ):
        pass


def test_the_workers_of_a_server_that_does_not_start_are_ended(server: MadeServer) -> None:
    import asyncio

    from sedtalker.serve.pool import WorkerPool
    from sedtalker.serve.server import start_server
    from sedtalker.serve.studio import StudioClient

    config = ServeConfig(port=server.running.port, a2f_port=None)
    pool = WorkerPool.of_threads(made_talker())

    async def start() -> None:
        async with start_server(config, pool, StudioClient.of_thread(made_talker(), config.limits)):
            pass

    with pytest.raises(SEDTalkerError, match="--port"):
        asyncio.run(start())
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.workers[0].executor.submit(print)


def test_frames_are_those_of_the_talkers_stream() -> None:
    import torch

    from sedtalker.emotion.track import EmotionTrack
    from sedtalker.speech import WhisperConfig, WhisperEncoder, WindowedEncoder, Windowing
    from sedtalker.talker.model import TalkerConfig, TalkerModel
    from sedtalker.talker.streaming import TalkerStream

    torch.manual_seed(0)
    network = WhisperEncoder(WhisperConfig(width=24, heads=2, feedforward=32, layers=2))
    encoder = WindowedEncoder("tiny", network, 3, 24, "cpu", Windowing(left=20, hop=8, right=4))
    config = TalkerConfig(layers=3, feature_width=24, width=32, expert_hidden=32, heads=2, kv_heads=1, window=10)
    model = TalkerModel(config).eval().requires_grad_(False)

    def open_stream(look_ahead: int | None = None, **options: Any) -> TalkerStream:
        return TalkerStream(encoder, EmotionTrack.neutral(1.0), model, **options)

    sound = np.random.default_rng(0).integers(-8000, 8000, 20_000).astype("<i2")
    stream = open_stream(fps=30, seed=5)
    expected = np.concatenate([stream.push(sound.astype(np.float32) / 32768).weights, stream.finish().weights])
    with made_server(SimpleNamespace(open_stream=open_stream)) as server, open_session(server, seed=5) as socket:
        for start in range(0, len(sound), 640):
            socket.send(sound[start : start + 640].tobytes())
        socket.send(json.dumps({"type": "end"}))
        blocks = frames_of(receive_until(socket, "end", 60))
    weights = np.concatenate([np.array(block["weights"]) for block in blocks])
    assert weights.shape == expected.shape and np.abs(weights - expected).max() < 1e-3  # JSON has four decimals


def test_delays_of_onsets_have_recall_and_intervals() -> None:
    from sedtalker.serve.load_test import Onset, find_speech, summarize_delays

    summary = summarize_delays(np.array([0.2, 0.6, 1.4, np.nan]))
    assert (summary["named"], summary["within 1 s"], summary["median"]) == (3, 2, 0.6)
    assert [summary[key][0] for key in ("recall", "within 1 s of all", "within 1 s of those named")] == [
        0.75,
        0.5,
        0.67,
    ]
    assert summary["recall"] == [0.75, 0.3, 0.95]
    assert summarize_delays(np.array([np.nan]))["named"] == 0
    begins_silent = Onset("a", "happy", 1.0, 2.9)
    assert find_speech(begins_silent, voice(3)) == pytest.approx(1.5, abs=0.021)
