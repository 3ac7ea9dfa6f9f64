"""Live streams on the streaming encoder: equal to `animate`, encoded once, interruptible, of constant size."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sedtalker
from sedtalker.audio import load_audio
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import AudioError, CheckpointError, SEDTalkerError, TrackError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import LABELS
from sedtalker.live import LiveFace
from sedtalker.speech import StreamingEncoder
from sedtalker.streaming_encoder import LOOK_AHEAD, StreamingConfig, StreamingNetwork
from sedtalker.streaming_encoder_cpu import PackedStream
from sedtalker.talker.model import LOWER_FACE, TalkerConfig, TalkerModel
from sedtalker.talker.streaming import Frames, TalkerStream

NAME = "whisper-tiny.en-streaming"
SIZES = {"layers": 4, "feature_width": 32}
LIPS = [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(LOWER_FACE)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_talker(look_ahead: int = 0) -> sedtalker.Talker:
    """Random weights of the shipped kind: talker and diarizer name the streaming encoder."""
    torch.manual_seed(0)
    network = StreamingNetwork(StreamingConfig(width=32, heads=2, feedforward=32, left=30))
    model = TalkerModel(
        TalkerConfig(NAME, **SIZES, width=32, expert_hidden=32, heads=2, kv_heads=1, window=10, look_ahead=look_ahead)
    )
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    diarizer = Diarizer(DiarizerConfig(encoder=NAME, **SIZES, width=16, hidden=8))
    for part in (model, diarizer):
        part.eval().requires_grad_(False)
    return sedtalker.Talker(StreamingEncoder(NAME, network, "cpu"), diarizer, model, "made")


@pytest.fixture(scope="module")
def talker() -> sedtalker.Talker:
    return made_talker()


@pytest.fixture(scope="module")
def sound(speech_file) -> np.ndarray:
    return load_audio(speech_file)


@pytest.fixture(scope="module")
def track(sound: np.ndarray) -> EmotionTrack:
    track = EmotionTrack.neutral(len(sound) / 16_000)
    track.set("happy", 0.8, start=0.5, end=1.2)
    return track


def push_all(stream: TalkerStream, samples: np.ndarray, size: int) -> Frames:
    parts = [stream.push(samples[first : first + size]) for first in range(0, len(samples), size)]
    return join([*parts, stream.finish()])


def join(parts: list[Frames]) -> Frames:
    return Frames(*map(np.concatenate, zip(*parts, strict=True)))


@pytest.mark.parametrize("look_ahead", LOOK_AHEAD)
def test_live_equals_offline_frame_by_frame(talker, sound, track, look_ahead: int) -> None:
    """Weights and head, idle motion included, with the same seed and look-ahead, for any chunks."""
    whole = talker.animate((sound, 16_000), emotion=track, seed=5, look_ahead=look_ahead)
    for size in (320, 1280, len(sound)) if look_ahead == 120 else (1000,):
        live = push_all(talker.open_stream(emotion=track, seed=5, look_ahead=look_ahead), sound, size)
        np.testing.assert_allclose(live.weights, whole.blendshapes, atol=2e-4)
        motion = sedtalker.talker.idle_motion.head_transforms(live.head, np.zeros(3, np.float32))
        np.testing.assert_allclose(motion[:, :3, :3], whole.head[:, :3, :3], atol=1e-5)
        np.testing.assert_allclose(live.time, (np.arange(len(whole)) + 0.5) / 30)


def test_the_look_ahead_changes_the_features_and_has_defaults(talker, sound, track) -> None:
    def animate(**options: Any) -> np.ndarray:
        return talker.animate((sound, 16_000), emotion=track, still=True, **options).blendshapes

    def live(**options: Any) -> np.ndarray:
        return push_all(talker.open_stream(emotion=track, still=True, **options), sound, 1280).weights

    np.testing.assert_allclose(animate(), animate(look_ahead=400), atol=1e-5)
    np.testing.assert_allclose(live(), live(look_ahead=120), atol=1e-5)
    assert np.abs(animate(look_ahead=80) - animate()).max() > 1e-3
    for wrong in (100, 0, -80, "fast", True):
        with pytest.raises(SEDTalkerError):
            talker.animate((sound, 16_000), look_ahead=wrong)
        with pytest.raises(SEDTalkerError):
            talker.open_stream(look_ahead=wrong)


def test_talker_and_diarizer_share_one_encoding(talker, sound, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = 0
    talker.open_stream()  # the first one runs for half a second

    push = PackedStream.push

    def push_and_count(stream: PackedStream, samples: np.ndarray) -> np.ndarray:
        nonlocal encoded
        encoded += len(samples)
        return push(stream, samples)

    monkeypatch.setattr(PackedStream, "push", push_and_count)
    talker.animate((sound, 16_000))
    assert encoded == len(sound)
    push_all(talker.open_stream(), sound, 1280)
    assert encoded == 2 * len(sound)


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("look_ahead", LOOK_AHEAD)
def test_no_frame_waits_longer_than_the_latency(look_ahead: int, own: int, sound) -> None:
    talker = made_talker(own)
    stream = talker.open_stream(look_ahead=look_ahead, fps=50)
    waits, given = [], 0
    for first in range(0, len(sound), 40):
        part = sound[first : first + 40]
        given += len(part)
        waits += [given / 16_000 - time - 0.01 for time in stream.push(part).time]
    assert max(waits) == pytest.approx(stream.latency, abs=1e-6)
    assert talker.latency(look_ahead) == stream.latency
    assert stream.latency <= look_ahead / 1000 + 0.02 * own + 0.02


def test_a_voice_moves_the_emotion_and_silence_ends_it(talker, sound) -> None:
    silence = np.zeros(3 * 16_000, np.float32)
    frames = push_all(talker.open_stream(fps=50), np.concatenate([sound, silence]), 1280)
    np.testing.assert_allclose(frames.posterior.sum(axis=1), 1, atol=1e-4)
    assert frames.intensity[30:90].max() > 0.05
    assert frames.intensity[-50:].max() == 0 and frames.posterior[-50:, LABELS.index("neutral")].min() > 0.999
    assert frames.speech[30:80].mean() > 0.8 and frames.speech[-100:].max() == 0


def test_an_emotion_set_by_hand(talker, sound) -> None:
    stream = talker.open_stream(fps=50)
    stream.set_emotion("happy", 0.8)
    frames = join([stream.push(sound[:16_000]), stream.push(np.zeros(0, np.float32))])
    happy = LABELS.index("happy")
    np.testing.assert_allclose(frames.posterior[:, happy], 1)
    np.testing.assert_allclose(frames.intensity, 0.8, atol=1e-6)
    stream.set_emotion("Joy", 0.8, share=0.5)  # an alias
    assert 0.5 <= stream.push(sound[16_000:20_000]).posterior[-1, happy] < 1
    stream.set_emotion(None)
    assert stream.push(sound[20_000:]).posterior[-1, happy] < 0.5
    for wrong in (("grumpy",), (3,), ("happy", 2.0), ("happy", 1.0, -1.0), ("happy", float("nan"))):
        with pytest.raises(TrackError):
            stream.set_emotion(*wrong)


@pytest.mark.parametrize("fps", [30, 50, 60])
@pytest.mark.parametrize("action", ["interrupt", "reset"])
@pytest.mark.parametrize("seconds", [0.2, 0.61, 1.0])
def test_an_interruption_brings_the_lips_to_rest(talker, sound, action: str, fps: float, seconds: float) -> None:
    stream = talker.open_stream(fps=fps, seed=1)
    stream.set_emotion("happy", 0.5)
    before = [stream.push(part) for part in np.array_split(sound[: round(seconds * 16_000)], 9)]
    pending = getattr(stream, action)()
    after = push_all(stream, sound[:16_000], 640)
    frames = join([*before, pending])
    shown = len(frames.time) - len(pending.time)
    at_rest = frames.time >= frames.time[shown - 1] + 0.1 - 1e-6
    if at_rest.any():
        assert np.abs(frames.weights[at_rest][:, LIPS]).max() < 0.05
    assert frames.time[-1] == pytest.approx(seconds, abs=0.02 + 1 / fps)  # the clock is that of the sound
    start = 0 if action == "reset" else seconds
    assert after.time[0] == pytest.approx(start, abs=0.02 + 1 / fps)
    np.testing.assert_allclose(np.diff(after.time), 1 / fps)
    # No jump: lips and head move no faster than while speaking.
    moves = join([*before, pending, after])
    for values, fastest in ((moves.weights[:, LIPS], 25), (moves.head, 60)):
        speeds = np.abs(np.diff(values, axis=0)).max(axis=1) * fps
        around = slice(shown - 1, shown + len(pending.time) + 1)
        assert speeds[around].max() < fastest, (speeds[around], speeds.max())


def test_a_thousand_interruptions_leave_the_next_sound_right(talker, sound, track) -> None:
    wanted = push_all(talker.open_stream(emotion=track, still=True), sound, 1280)
    stream = talker.open_stream(emotion=track, still=True)
    rng = np.random.default_rng(0)
    for _ in range(100):
        stream.push(sound[: rng.integers(0, 4000)])
        stream.interrupt()
    stream.reset()
    got = push_all(stream, sound, 1280)
    np.testing.assert_allclose(got.weights[8:], wanted.weights[8:], atol=1e-3)
    np.testing.assert_allclose(got.time, wanted.time)
    stream.reset(from_rest=True)
    np.testing.assert_allclose(push_all(stream, sound, 1280).weights, wanted.weights, atol=1e-5)


def test_the_clock_does_not_drift_with_interruptions(talker, sound) -> None:
    stream, times, given = talker.open_stream(fps=50, still=True), [], 0
    for size in (3001, 5003, 2999, 7001, 100, 0, 6007) * 3:
        given += size
        times += [*stream.push(sound[:size]).time, *stream.interrupt().time]
        assert abs(len(times) * 320 - given) <= 320
    np.testing.assert_allclose(np.diff(times), 0.02)


@pytest.mark.parametrize("action", ["interrupt", "reset"])
def test_a_stream_is_interrupted_by_another_thread_while_it_gets_sound(talker, sound, action: str) -> None:
    stream, ended = talker.open_stream(), threading.Event()

    def interrupt() -> None:
        while not ended.is_set():
            getattr(stream, action)()
            time.sleep(0.001)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(5):
            for first in range(0, 16_000, 640):
                frames = stream.push(sound[first : first + 640])
                assert {len(column) for column in frames} == {len(frames.time)}
    finally:
        ended.set()
        thread.join()


def test_a_live_face_takes_none_for_no_chunk_and_not_for_the_end(talker, sound) -> None:
    async def chunks() -> AsyncIterator[Any]:
        yield sound[:8000]
        yield None

    async def speak() -> None:
        async for _ in face.frames(chunks()):
            pass

    face = LiveFace(talker)
    with pytest.raises(AudioError, match="chunk"):
        asyncio.run(speak())
    face.close()


def test_closing_a_live_face_ends_its_utterance(talker, sound) -> None:
    async def chunks() -> AsyncIterator[np.ndarray]:
        yield sound[:16_000]
        await asyncio.sleep(600)

    async def speak() -> int:
        face = LiveFace(talker)
        count = 0
        async for frames in face.frames(chunks()):
            count += len(frames.time)
            asyncio.get_running_loop().call_later(0.05, face.close)
        with pytest.raises(SEDTalkerError, match=r"the live face is closed\. Open another"):
            async for _frames in face.frames(chunks()):
                pass
        return count

    assert asyncio.run(asyncio.wait_for(speak(), 120)) > 0


def test_a_stream_can_be_copied(talker, sound) -> None:
    stream = talker.open_stream()
    stream.push(sound[:20_000])
    copies = [pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)]
    wanted = stream.push(sound[20_000:])
    for copied in copies:
        np.testing.assert_allclose(copied.push(sound[20_000:]).weights, wanted.weights, atol=1e-5)


def test_a_finished_stream_takes_no_sound_until_it_is_reset(talker, sound) -> None:
    stream = talker.open_stream()
    first = push_all(stream, sound, 4000)
    assert len(first.time) == round(len(sound) / 16_000 * 30)
    with pytest.raises(SEDTalkerError, match="finished"):
        stream.push(sound)
    assert len(stream.finish().time) == 0
    stream.reset()
    assert len(push_all(stream, sound, 4000).time) == len(first.time)


def test_a_stream_without_sound_has_no_frames(talker) -> None:
    stream = talker.open_stream()
    assert len(stream.push(np.zeros(0, np.float32)).time) == 0
    assert stream.interrupt().weights.shape == (0, 52)
    assert stream.reset().head.shape == (0, 3)
    assert stream.finish().gaze.shape == (0, 2)


def state_size(thing: object, seen: set[int]) -> int:
    """Bytes of all arrays and tensors that an object reaches, weights of networks excluded."""
    if id(thing) in seen or isinstance(thing, nn.Module):
        return 0
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        return thing.numel() * thing.element_size()
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, dict):
        return sum(state_size(value, seen) for value in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(state_size(value, seen) for value in thing) + 8 * len(thing)
    return state_size(vars(thing), seen) if hasattr(thing, "__dict__") else 0


def test_the_state_of_a_stream_does_not_grow(talker, sound) -> None:
    stream, sizes = talker.open_stream(), []
    loop = np.tile(sound, 6)[: 10 * 16_000]
    for _ in range(4):
        for first in range(0, len(loop), 4000):
            stream.push(loop[first : first + 4000])
        sizes.append(state_size(stream, set()))
    assert max(sizes) < 1.1 * sizes[0] and sizes[-1] < 4e6


def test_an_encoder_without_a_dial_refuses_a_look_ahead() -> None:
    encoder = sedtalker.speech.load_encoder("whisper-tiny.en")
    with pytest.raises(CheckpointError, match="120 ms"):
        encoder.with_look_ahead(120)
