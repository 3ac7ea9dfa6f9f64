"""Live Link Face and VMC, read by packages of others."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import itertools
import json
import socket
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
client = pytest.importorskip("websockets.sync.client")

from made_server import MadeServer, made_server
from made_talker import voice

from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.labels import LABELS
from sedtalker.serve import stage
from sedtalker.serve.config import Limits
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.sessions import Event


def listen() -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(30)
    return receiver


def speak(server: MadeServer, seconds: float = 2) -> None:
    """Send a whole utterance at once."""
    with client.connect(server.socket_url, proxy=None) as session:
        session.send(json.dumps({"type": "start"}))
        session.send(voice(seconds).tobytes())
        session.send(json.dumps({"type": "end"}))
        while json.loads(session.recv(30))["type"] != "end":
            pass
        time.sleep(seconds + 0.3)


def received_during(receiver: socket.socket, action: Any) -> list[tuple[float, bytes]]:
    """Packets with the times of their arrival."""
    import threading

    packets: list[tuple[float, bytes]] = []
    thread = threading.Thread(target=action)
    thread.start()
    while thread.is_alive():
        packets.append((time.monotonic(), receiver.recv(65_536)))
    thread.join()
    return packets


def test_a_long_utterance_that_comes_at_once_is_shown_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(stage.time, "monotonic", lambda: now)
    manager = SimpleNamespace(
        description=SimpleNamespace(labels=LABELS), sessions={"one": None}, limits=Limits(), watch=None
    )
    shown = stage.Stage(manager, 30)  # type: ignore[arg-type]
    count = 120 * 60
    columns = {"weights": 52, "head": 3, "gaze": 2, "posterior": len(LABELS)}
    parts = {name: np.zeros((count, width), np.float32) for name, width in columns.items()}
    block = FrameBlock(0.0, 60.0, **parts, intensity=np.zeros(count, np.float32))
    shown.receive("one", Event("frames", 1, block, "speaking"))
    for seconds in (0.0, 1.0, 119.0):
        now = 100.0 + seconds
        assert shown.next_frame() == (block, round(60 * seconds))


class Clock:
    """A stage whose time is set by the test, and blocks that show in the jaw who speaks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sessions: str) -> None:
        self.now = 0.0
        monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.manager: Any = SimpleNamespace(
            description=SimpleNamespace(labels=LABELS), sessions=dict.fromkeys(sessions), limits=Limits(), watch=None
        )
        self.stage = stage.Stage(self.manager, 30)

    def send(self, session: str, utterance: int, seconds: float, jaw: float, state: str = "speaking") -> None:
        rows = np.zeros((round(30 * seconds), len(ARKIT_NAMES)), np.float32)
        rows[:, JAW_OPEN] = jaw
        block = FrameBlock(0.0, 30, rows, rows[:, :3], rows[:, :2], rows[:, : len(LABELS)], rows[:, 0])
        self.stage.receive(session, Event("frames", utterance, block, state))

    def jaws_until(self, end: float) -> list[float]:
        jaws = []
        while self.now < end:
            block, row = self.stage.next_frame()
            jaws.append(round(float(block.weights[row, JAW_OPEN]), 3))
            self.now += 1 / 30
        return jaws


def test_utterances_that_come_at_once_are_shown_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, "a")
    clock.send("a", 1, 2, 0.1)
    clock.send("a", 2, 2, 0.2)
    jaws = clock.jaws_until(4.0)
    assert jaws[:59] == [0.1] * 59 and jaws[61:119] == [0.2] * 58
    clock.now = 10.0  # the next one comes later: at once
    clock.send("a", 3, 1, 0.3)
    clock.send("a", 4, 1, 0.4)
    assert clock.jaws_until(10.5)[:14] == [0.3] * 14
    clock.stage.receive("a", Event("interrupted", 4))
    assert 0.4 not in clock.jaws_until(13.0)


def test_an_idle_session_does_not_keep_another_one_from_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, "page", "program")
    clock.send("page", 0, 1, 0.9, "idle")  # its resting face
    clock.send("program", 1, 1, 0.1)
    assert set(clock.jaws_until(0.5)[1:]) == {0.1}
    clock.send("page", 1, 1, 0.9)
    clock.stage.receive("program", Event("end", 1))
    assert 0.9 not in clock.jaws_until(1.1)  # what waits is shown first
    clock.send("page", 2, 1, 0.8)
    assert clock.jaws_until(1.5)[-1] == 0.8
    del clock.manager.sessions["page"]  # without an end
    clock.now = 3.0
    clock.stage.next_frame()
    clock.send("program", 2, 1, 0.2)
    assert clock.jaws_until(3.5)[-1] == 0.2


def test_live_link_is_read_by_pylivelinkface() -> None:
    pylivelinkface = pytest.importorskip("pylivelinkface")
    receiver = listen()
    with made_server(livelink=receiver.getsockname()) as server:
        packets = received_during(receiver, lambda: speak(server))
    faces = [pylivelinkface.PyLiveLinkFace.decode(data) for _, data in packets]
    assert all(success for success, _ in faces)
    names = {face.name for _, face in faces}
    assert names == {"SEDTalker"} and faces[0][1].fps == 30 and faces[0][1]._denominator == 1
    shape = pylivelinkface.FaceBlendShape
    assert [shape(i).name[0].lower() + shape(i).name[1:] for i in range(52)] == list(ARKIT_NAMES)
    jaw = np.array([face.get_blendshape(shape.JawOpen) for _, face in faces])
    times = np.array([moment for moment, _ in packets])
    loud = times[jaw > 0.3]
    assert len(packets) >= 10 * (times[-1] - times[0])  # 30 a second on a quiet machine
    assert 0.3 < len(loud) / 30 < 1.2  # a second of the two is loud, sent at the pace of the sound
    assert 0.8 < loud[-1] - loud[0] < 4.0  # 1.5 on a quiet machine
    frames = [face._frames for _, face in faces]
    assert all(after >= before for before, after in itertools.pairwise(frames))


def test_an_interruption_empties_the_stage_also_without_a_pose() -> None:
    from sedtalker.serve.config import Limits
    from sedtalker.serve.engine import FrameBlock
    from sedtalker.serve.sessions import Event
    from sedtalker.serve.stage import Stage

    description = SimpleNamespace(labels=LABELS)
    manager: Any = SimpleNamespace(sessions={"a": None}, description=description, limits=Limits())
    stage = Stage(manager, 30)
    wide = np.ones((60, 52), np.float32)
    none = np.zeros((60, 0), np.float32)
    manager.watch("a", Event("frames", 1, FrameBlock(0.0, 30, wide, none[:, :3], none, none, none), "speaking"))
    assert stage.next_frame()[0].weights is wide
    manager.watch("a", Event("interrupted", 1))
    assert not stage._queue


def test_vmc_is_read_by_python_osc() -> None:
    osc_bundle = pytest.importorskip("pythonosc.osc_bundle")
    receiver = listen()
    with made_server(vmc=receiver.getsockname()) as server:
        packets = received_during(receiver, lambda: speak(server))
    vowels = []
    for _, data in packets:
        contents = list(osc_bundle.OscBundle(data))
        addresses = [message.address for message in contents]
        assert addresses[:3] == ["/VMC/Ext/OK", "/VMC/Ext/T", "/VMC/Ext/Root/Pos"]
        assert addresses[-1] == "/VMC/Ext/Blend/Apply"
        values = {m.params[0]: m.params[1] for m in contents if m.address == "/VMC/Ext/Blend/Val"}
        assert {*"AIUEO", "Joy", "Angry", "Sorrow", "Blink_L", "Blink_R", *ARKIT_NAMES} <= set(values)
        bones = {m.params[0]: m.params[1:] for m in contents if m.address == "/VMC/Ext/Bone/Pos"}
        assert {"Head", "Neck", "LeftEye", "RightEye"} == set(bones)
        assert all(np.linalg.norm(bone[3:]) == pytest.approx(1, abs=1e-4) for bone in bones.values())
        vowels.append(max(values[name] for name in "AIUEO"))
    assert max(vowels) > 0.5 and min(vowels) == 0


def test_unitys_quaternions_mirror_x() -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    from sedtalker.rotations import rotation_matrices
    from sedtalker.serve.vmc import unity_quaternion

    degrees = np.array([10, 20, -5], np.float32)
    mirror = np.diag([-1, 1, 1])
    expected = mirror @ rotation_matrices(degrees[None])[0] @ mirror
    assert rotation.from_quat(unity_quaternion(degrees)).as_matrix() == pytest.approx(expected, abs=1e-5)
