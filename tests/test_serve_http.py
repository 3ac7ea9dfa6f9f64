"""Posted files, takes, the page's parts, and OpenAvatarChat's WebSocket; and `sedtalker.live`."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import wave
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import numpy as np
import pytest

for module in ("starlette", "uvicorn"):
    pytest.importorskip(module)
httpx = pytest.importorskip("httpx")
client = pytest.importorskip("websockets.sync.client")

from made_server import MadeServer, made_server
from made_talker import JAW, made_talker, voice
from starlette.websockets import WebSocketDisconnect

from sedtalker.animation import Animation
from sedtalker.audio import load_audio, to_int16
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import SEDTalkerError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.files import sha256
from sedtalker.resources import asset
from sedtalker.serve.config import Limits
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.jbin import _Talk, unpack
from sedtalker.serve.listening import MOUTH
from sedtalker.serve.sessions import Event


def animating_talker() -> Any:
    """A made talker that also animates files: the jaw follows the loudness, the emotion is happy."""
    face = load_face("default")
    stream = made_talker().open_stream

    def animate(path: Any, *, fps: float, face: Any = face, emotion: Any = "auto", voice: Any = None) -> Animation:
        samples = load_audio(path)
        motion = stream(fps=fps)
        weights = np.concatenate([motion.push(samples).weights, motion.finish().weights])
        duration = len(samples) / 16_000
        track = EmotionTrack.neutral(duration) if isinstance(emotion, str) else emotion
        if isinstance(emotion, str):
            track.set("happy", 0.5)
            track.explicit_segments = None
        rig = load_face("default")
        head = np.tile(np.eye(4, dtype=np.float32), (len(weights), 1, 1))
        meta = {"audio": str(path), "audio_sha256": sha256(path), "face": "default"}
        return Animation(
            rig.template, rig.faces, fps, track, weights, rig.blendshape_names, head=head, meta=meta, rig=rig
        )

    return SimpleNamespace(open_stream=stream, animate=animate)


def wav(seconds: float = 2.0) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(voice(seconds).tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[MadeServer]:
    with made_server(animating_talker()) as running:
        yield running


def test_neurosync_gets_rows_in_live_links_order(server: MadeServer) -> None:
    answer = httpx.post(f"{server.url}/audio_to_blendshapes", content=wav(), timeout=60)
    rows = [[float(value) for value in frame] for frame in answer.json()["blendshapes"]]  # as NeuroSync's player does
    values = np.array(rows)
    assert values.shape == (120, 68)
    assert values[34:58, JAW].min() > 0.3 and values[3:28, JAW].max() < 0.05
    assert values[:, 61:].sum(1) == pytest.approx(1, abs=0.01) and values[60, 64] == pytest.approx(0.5, abs=0.01)


def test_azures_events_have_55_columns_at_60_fps(server: MadeServer) -> None:
    events = httpx.post(f"{server.url}/azure/visemes", content=wav(), timeout=60).json()["events"]
    frames = 0
    for event in events:
        animation = json.loads(event["animation"])  # as handlers of the SDK's event do
        assert animation["FrameIndex"] == frames
        assert event["audioOffset"] == round(frames / 60 * 1e7) and 0 <= event["visemeId"] <= 21
        assert {len(row) for row in animation["BlendShapes"]} == {55}
        frames += len(animation["BlendShapes"])
    assert frames == 120


def test_audio2faces_file(server: MadeServer) -> None:
    answer = httpx.post(f"{server.url}/a2f.json", content=wav(), timeout=60).json()
    assert answer["numFrames"] == len(answer["weightMat"]) == 120 and answer["numPoses"] == 52
    assert answer["facsNames"] == list(ARKIT_NAMES) and answer["exportFps"] == 60


@pytest.mark.parametrize("data", [b"", b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\n", b"\0" * 5000])
def test_what_is_no_recording_is_refused(server: MadeServer, data: bytes) -> None:
    answer = httpx.post(f"{server.url}/takes", content=data)
    assert answer.status_code == 400 and "not a sound" in answer.json()["error"]


def test_a_damaged_recording_names_no_path_of_the_server(server: MadeServer) -> None:
    answer = httpx.post(f"{server.url}/takes", content=b"RIFF" + bytes(100))
    assert answer.status_code == 400 and "/" not in answer.json()["error"].replace("s/", "")


def test_a_take_is_edited_and_saved(server: MadeServer) -> None:
    take = httpx.post(f"{server.url}/takes", content=wav(), timeout=60).json()
    intensity = np.frombuffer(b64decode(take["intensity"]), "<f4")
    weights = np.frombuffer(b64decode(take["weights"]), "<f4").reshape(-1, 52)
    assert len(weights) == 60 and take["segments"][0]["emotion"] == "happy" and intensity[10] == pytest.approx(0.5)
    segments = [
        {"start": 0, "end": 1, "emotion": "happy", "intensity": 0.5},
        {"start": 1, "end": 2, "emotion": "sad", "intensity": 0.9},
    ]

    def edited(share: float) -> np.ndarray:
        body = json.dumps({"segments": segments, "share": share})
        answer = httpx.post(f"{server.url}/takes/{take['id']}", content=body, timeout=60).json()
        return np.frombuffer(b64decode(answer["posterior"]), "<f4").reshape(-1, 8)[75]

    assert edited(1.0)[2] == pytest.approx(1) and edited(0.5)[[1, 2]] == pytest.approx(0.5, abs=0.01)
    saved = {
        form: httpx.get(f"{server.url}/takes/{take['id']}/take.{form}", timeout=60)
        for form in ("json", "glb", "csv", "wav")
    }
    assert {answer.status_code for answer in saved.values()} == {200}
    assert saved["json"].json()["audio"] == "take.wav" and saved["glb"].content[:4] == b"glTF"
    assert saved["json"].headers["content-disposition"] == 'attachment; filename="take.json"'
    for path in ("takes/none/take.json", f"takes/{take['id']}/take.exe"):
        assert httpx.get(f"{server.url}/{path}").status_code == 404
    for body in (b"{", b"[]", b'{"segments": 1}', b'{"segments": [], "share": 7}', b'{"segments": [{"start": "x"}]}'):
        assert httpx.post(f"{server.url}/takes/{take['id']}", content=body).status_code == 400, body


def test_the_page_and_its_parts(server: MadeServer) -> None:
    page = httpx.get(server.url)
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("three.min.js", "viewer.js", "drawing.js", "live.js", "viewer.css", "live.css", "capture.js"):
        answer = httpx.get(f"{server.url}/page/{part}")
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org", "") or part == "three.min.js"
    for path in ("page/../app.py", "page/%2e%2e%2fapp.py", "face/99.glb", "face/-1.glb", "?face=<script>"):
        assert httpx.get(f"{server.url}/{path}").status_code == 404, path
    assert httpx.get(f"{server.url}/face/0.glb", timeout=60).content[:4] == b"glTF"


def test_openavatarchats_messages(server: MadeServer) -> None:
    url = server.url.replace("http", "ws") + "/ws/lam_data_stream/abc"
    sound = voice(2, 24_000).tobytes()
    with client.connect(url, proxy=None) as socket:
        batches = []
        for _ in range(2):
            for start in range(0, len(sound), 9600):
                socket.send(sound[start : start + 9600])
            socket.send(b"")
            messages = []
            while not messages or not messages[-1][0]["end_of_batch"]:
                messages.append(unpack(socket.recv(30)))
            batches.append(messages)
        socket.send('{"header": {"name": "EndSpeech"}, "payload": {}}')
        socket.send(sound)
        unpack(socket.recv(30))
        socket.send("%interrupt%")
        while not (last := unpack(socket.recv(30)))[0]["end_of_batch"]:
            pass
    names = [m[0]["data_records"]["arkit_face"]["channel_names"] for batch in batches for m in batch]
    assert names[0] == list(ARKIT_NAMES) and not any(names[1:])
    assert batches[0][0][0]["batch_id"] != batches[1][0][0]["batch_id"] and batches[0][0][0]["start_of_batch"]
    for messages in batches:
        faces, sounds = [], b""
        for header, data in messages:
            face, audio = header["data_records"]["arkit_face"], header["data_records"]["audio"]
            size = 4 * int(np.prod(face["shape"]))
            faces.append(
                np.frombuffer(data[face["data_offset"] : face["data_offset"] + size], "<f4").reshape(face["shape"])
            )
            sounds += data[audio["data_offset"] : audio["data_offset"] + 2 * int(np.prod(audio["shape"]))]
        weights = np.concatenate(faces)
        assert weights.shape == (60, 52) and weights[20:28, JAW].min() > 0.3 and sounds == sound
    header, data = last
    face = header["data_records"]["arkit_face"]
    assert header["data_records"]["audio"]["shape"][1] > 0  # the client's player fails without sound
    rest = np.frombuffer(data[: 4 * int(np.prod(face["shape"]))], "<f4").reshape(face["shape"])
    assert rest[-1, JAW] == 0


def test_the_sound_after_an_interruption_of_openavatarchat_is_whole() -> None:
    sound = voice(1, 24_000).tobytes()

    async def converse() -> list[bytes]:
        """The client's next sound arrives before the answer to its interruption is sent."""
        received: list[dict[str, Any]] = [
            {"type": "websocket.receive", "bytes": sound[:9600]},
            {"type": "websocket.receive", "text": "%interrupt%"},
            {"type": "websocket.receive", "bytes": sound},
            {"type": "websocket.receive", "bytes": b""},
            {"type": "websocket.disconnect"},
        ]
        none = np.zeros((30, 0), np.float32)
        block = FrameBlock(0.0, 30, np.zeros((30, 52), np.float32), none, none, none, none)
        events = [Event("interrupted", 1), Event("frames", 2, block, "speaking"), Event("end", 2)]
        sent: list[bytes] = []
        session = MagicMock(send_audio=AsyncMock(), end=AsyncMock(), interrupt=AsyncMock())
        session.name, session.next_event = "a", AsyncMock(side_effect=events)
        talk = _Talk(session, MagicMock(send=AsyncMock(side_effect=sent.append)), Limits())
        with pytest.raises(WebSocketDisconnect):
            await talk.receive(MagicMock(receive=AsyncMock(side_effect=received)))
        with pytest.raises(StopAsyncIteration):
            await talk.send_events()
        return sent

    answers = [unpack(message) for message in asyncio.run(converse())]
    assert b"".join(data[4 * 52 * 30 :] for _, data in answers[1:]) == sound


def test_live_face_gives_the_frames_of_a_stream_and_can_be_interrupted() -> None:
    from sedtalker.live import LiveFace

    sound = voice(2).astype(np.float32) / 32768

    async def chunks() -> AsyncIterator[np.ndarray]:
        for start in range(0, len(sound), 1000):
            yield sound[start : start + 1000]

    async def waiting() -> AsyncIterator[np.ndarray]:
        yield sound
        await asyncio.sleep(3600)

    async def converse() -> None:
        face = LiveFace(made_talker(), fps=30)
        parts = [frames async for frames in face.frames(chunks())]
        jaw = np.concatenate([part.weights[:, JAW] for part in parts])
        stream = made_talker().open_stream(fps=30)
        expected = np.concatenate([stream.push(sound).weights, stream.finish().weights])[:, JAW]
        np.testing.assert_allclose(jaw, expected, atol=1e-6)
        async for frames in face.frames(waiting()):  # ends although no more audio comes
            if frames.weights[-1, JAW] > 0.3:
                asyncio.get_running_loop().call_later(0.05, face.interrupt)
        count = 0
        async for frames in face.frames(chunks()):
            count += len(frames.time)
            if frames.weights[-1, JAW] > 0.3:
                rest = face.interrupt()
                assert rest.weights[-1, JAW] == 0 and len(rest.time) <= 3
        assert count < 25
        assert face.rest(1.0).weights[:, JAW].max() == 0
        face.close()

    asyncio.run(converse())


def test_an_interruption_of_a_live_face_continues_from_the_frame_that_is_shown() -> None:
    from sedtalker.live import LiveFace

    sound = voice(2).astype(np.float32) / 32768

    async def converse() -> None:
        async def chunks() -> AsyncIterator[np.ndarray]:
            yield sound

        parts = [frames async for frames in face.frames(chunks())]
        jaw = np.concatenate([part.weights[:, JAW] for part in parts])
        for wrong in ("1", float("nan")):
            with pytest.raises(SEDTalkerError, match="interruption"):
                face.interrupt(cast(float, wrong))
        shown = 20  # the number of the frame
        fade = face.interrupt(at=(shown + 0.5) / 30)
        assert jaw[shown] > 0.3 and fade.time[0] == pytest.approx((shown + 1.5) / 30)
        np.testing.assert_allclose(fade.weights[:, JAW], jaw[shown] * np.array([0.5, 0]), atol=1e-6)

    face = LiveFace(made_talker(), fps=30)
    asyncio.run(converse())
    face.close()


def test_an_utterance_of_a_live_face_ends_when_the_next_one_starts() -> None:
    from sedtalker.live import LiveFace

    sound = voice(1).astype(np.float32) / 32768

    async def chunks(pause: float) -> AsyncIterator[np.ndarray]:
        for start in range(0, len(sound), 400):
            await asyncio.sleep(pause)
            yield sound[start : start + 400]

    async def speak(pause: float) -> np.ndarray:
        parts = [frames.time async for frames in face.frames(chunks(pause))]
        return np.concatenate(parts) if parts else np.zeros(0)

    async def converse() -> None:
        first = asyncio.create_task(speak(0.02))
        await asyncio.sleep(0.3)
        second = await speak(0)
        assert len(second) == 30
        assert (np.diff(await asyncio.wait_for(first, 10)) > 0).all()

    face = LiveFace(made_talker(), fps=30)
    asyncio.run(converse())
    face.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_live_face_works_in_a_forked_process() -> None:
    from sedtalker.live import LiveFace

    async def speak() -> int:
        async def chunks() -> AsyncIterator[np.ndarray]:
            yield np.zeros(8000, np.float32)

        return sum([len(frames.time) async for frames in face.frames(chunks())])

    face = LiveFace(made_talker(), fps=30)
    assert asyncio.run(speak()) == 15
    child = os.fork()
    if child == 0:
        frames = 0
        try:
            frames = asyncio.run(asyncio.wait_for(speak(), 20))
        finally:
            os._exit(frames)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 15
    face.close()


def test_a_live_face_rests_for_a_number_of_seconds() -> None:
    from sedtalker.live import LONGEST_REST, LiveFace

    face = LiveFace(made_talker(), fps=30)
    for wrong in (-1, LONGEST_REST + 1, float("nan"), "1", None):
        with pytest.raises(SEDTalkerError, match=r"seconds|a rest of"):
            face.rest(cast(float, wrong))
    face.close()


def test_the_readmes_example_of_live_speaks_and_is_interrupted() -> None:
    """As it stands in the server's README, with the packaged models, and objects like those of LiveKit."""
    text = (Path(__file__).parents[1] / "sedtalker" / "serve" / "README.md").read_text(encoding="utf-8")
    example, rest = text.split("## In Python")[1].split("```python\n")[1].split("```", 1)
    assert example.count("\n") < 40
    names: dict[str, Any] = {}
    exec(compile(example, "serve/README.md", "exec"), names)
    sound = to_int16(load_audio(asset("demo.wav"))[: 2 * 16_000])
    published: list[dict[str, Any]] = []

    async def track() -> AsyncIterator[Any]:
        for start in range(0, len(sound), 160):
            yield SimpleNamespace(frame=SimpleNamespace(data=sound[start : start + 160].tobytes()))
        while open_track:
            await asyncio.sleep(0.01)

    async def publish(message: dict[str, Any]) -> None:
        published.append(json.loads(json.dumps(message)))

    open_track = False

    async def converse() -> None:
        nonlocal open_track
        await names["speak"](track(), publish)
        assert sum(len(message["time"]) for message in published) == 60
        assert {len(row) for message in published for row in message["weights"]} == {52}
        assert max(row[JAW] for message in published for row in message["weights"]) > 0.1
        open_track = True  # it goes on without sound
        speaking = asyncio.create_task(names["speak"](track(), publish))
        while sum(len(message["time"]) for message in published) < 100:
            await asyncio.sleep(0.01)
        await names["on_user_started_speaking"](publish)
        await asyncio.wait_for(speaking, 10)

    asyncio.run(converse())
    lips = np.array(published[-1]["weights"])[-1, MOUTH]
    assert published[-1]["interrupt"] and lips.max() == 0
    for call in re.findall(r"`(face\.[^`]+)`", rest.split("##")[0]):  # the calls that the text names
        exec(call, names)
