"""The gRPC service, with NVIDIA's published client package."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
grpc = pytest.importorskip("grpc")
pytest.importorskip("grpc_health.v1.health")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # their generated code is older than the runtime
    messages = pytest.importorskip("nvidia_audio2face_3d.messages_pb2")
    audio2face = pytest.importorskip("nvidia_audio2face_3d.audio2face_pb2_grpc")
    audio_pb2 = pytest.importorskip("nvidia_ace.audio_pb2")

from grpc_health.v1 import health_pb2, health_pb2_grpc
from made_server import MadeServer, made_server
from made_talker import voice

from sedtalker.labels import LABELS
from sedtalker.serve.a2f import EMOTIONS, message_class
from sedtalker.serve.a2f import LABELS as A2F_LABELS


@pytest.fixture(scope="module")
def server() -> Iterator[MadeServer]:
    with made_server(a2f_port=0) as running:
        yield running


def call(server: MadeServer, requests: list[Any], metadata: Any = None) -> list[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{server.running.a2f_port}") as channel:
        stub = audio2face.A2FControllerServiceStub(channel)
        return list(stub.ProcessAudioStream(iter(requests), timeout=30, metadata=metadata))


def header(rate: int = 16_000, bits: int = 16, **parts: Any) -> Any:
    pcm = audio_pb2.AudioHeader.AUDIO_FORMAT_PCM
    audio = audio_pb2.AudioHeader(
        audio_format=pcm, channel_count=1, samples_per_second=rate, bits_per_sample=bits
    )  # fmt: skip
    return messages.AudioWithEmotionStream(
        audio_stream_header=messages.AudioWithEmotionStreamHeader(audio_header=audio, **parts)
    )


def audio(data: bytes, emotions: list[Any] | None = None) -> Any:
    part = messages.AudioWithEmotion(audio_buffer=data, emotions=emotions or [])
    return messages.AudioWithEmotionStream(audio_with_emotion=part)


END = messages.AudioWithEmotionStream(end_of_audio=messages.AudioWithEmotionStream.EndOfAudio())


def aggregate_of(answer: Any) -> Any:
    """The emotions; NVIDIA's package has the message under another name than the service's published files."""
    metadata = answer.animation_data.metadata["emotion_aggregate"]
    assert metadata.type_url == "type.googleapis.com/nvidia_ace.emotion_aggregate.v1.EmotionAggregate"
    return messages.EmotionAggregate.FromString(metadata.value)


def test_a_stream_without_audio_ends_with_its_status(server: MadeServer) -> None:
    answers = call(server, [header(), END])
    assert answers[-1].status.message == "Audio processing completed successfully!"


def test_a_clip_returns_its_frames_with_its_sound(server: MadeServer) -> None:
    sound = voice(2.5, 22_050).tobytes()
    pieces = [sound[start : start + 30_000] for start in range(0, len(sound), 30_000)]
    answers = call(server, [header(22_050), *map(audio, pieces), END])
    first, *rest = answers
    names = list(first.animation_data_stream_header.skel_animation_header.blend_shapes)
    assert names[0] == "EyeBlinkLeft" and names[17] == "JawOpen" and names[-1] == "TongueOut" and len(names) == 52
    assert first.animation_data_stream_header.audio_header.samples_per_second == 22_050
    frames = [answer for answer in rest if answer.animation_data.skel_animation.blend_shape_weights]
    times = [frame.animation_data.skel_animation.blend_shape_weights[0].time_code for frame in frames]
    assert times == pytest.approx([i / 30 for i in range(75)])
    assert b"".join(answer.animation_data.audio.audio_buffer for answer in rest) == sound
    for frame in frames[:-1]:  # the sound of a frame comes with it
        data = frame.animation_data
        assert data.audio.time_code == pytest.approx(data.skel_animation.blend_shape_weights[0].time_code, abs=1e-4)
    jaw = [frame.animation_data.skel_animation.blend_shape_weights[0].values[17] for frame in frames]
    assert max(jaw[2:13]) < 0.01 and min(jaw[18:28]) > 0.3
    assert [answer.WhichOneof("stream_part") for answer in answers[-2:]] == ["event", "status"]
    assert answers[-1].status.code == 0 and answers[-1].status.message


def test_emotions_and_parameters_of_the_client(server: MadeServer) -> None:
    emotions = [
        messages.EmotionWithTimeCode(time_code=0.0, emotion={"joy": 0.2, "fear": 1.0}),
        messages.EmotionWithTimeCode(time_code=1.0, emotion={"amazement": 0.5}),
    ]
    post = messages.EmotionPostProcessingParameters(enable_preferred_emotion=True, preferred_emotion_strength=1.0)
    shapes = messages.BlendShapeParameters(
        bs_weight_multipliers={"JawOpen": 3.0}, bs_weight_offsets={"JawOpen": -0.1, "EyeBlinkLeft": 0.25},
        enable_clamping_bs_weight=True,
    )  # fmt: skip
    request = header(emotion_post_processing_params=post, blendshape_params=shapes)
    answers = call(server, [request, audio(voice(2).tobytes(), emotions), END])
    frames = [answer for answer in answers if answer.animation_data.skel_animation.blend_shape_weights]
    strengths = [dict(aggregate_of(frame).a2f_smoothed_output[0].emotion) for frame in frames]
    assert strengths[10]["fear"] == pytest.approx(1) and strengths[10]["joy"] == 0
    assert strengths[50]["amazement"] == pytest.approx(0.5) and strengths[50]["fear"] == 0
    given = [entry for frame in frames for entry in aggregate_of(frame).input_emotions]
    assert [(entry.time_code, dict(entry.emotion)) for entry in given] == [(0, {"fear": 1}), (1, {"amazement": 0.5})]
    assert not any(aggregate_of(frame).a2e_output for frame in frames)  # the sample client would fail
    values = np.array([frame.animation_data.skel_animation.blend_shape_weights[0].values for frame in frames])
    assert values[:, 0] == pytest.approx(0.25) and values[2:13, 17].max() == 0 and values[20:28, 17].min() > 0.9


def test_every_emotion_has_a_name_on_both_sides() -> None:
    assert set(EMOTIONS) | {"neutral"} == set(LABELS)
    names = ["amazement", "anger", "cheekiness", "disgust", "fear", "grief", "joy", "outofbreath", "pain", "sadness"]
    assert set(A2F_LABELS) == set(names)


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([END], "audio_stream_header"),
        ([audio(b"")], "audio_stream_header"),
        ([header(bits=32), END], "16 bits"),
        ([header(5)], "sample rate"),
        ([header(), header()], "second header"),
        ([header(), audio(b"abc")], "whole samples"),
        ([header(), audio(bytes(330_000))], "10 s"),
        ([header(), audio(b"", [messages.EmotionWithTimeCode(emotion={"hunger": 1})])], "emotions must"),
        ([header(), audio(b"", [messages.EmotionWithTimeCode(emotion={"joy": 2})])], "emotions must"),
        ([header(), audio(b"", [messages.EmotionWithTimeCode(time_code=float("nan"))])], "emotions must"),
    ],
)
def test_a_wrong_stream_ends_with_a_reason(server: MadeServer, requests: list[Any], words: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call(server, requests)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and words in error.value.details()


def test_a_megabyte_of_metadata_and_a_crowd_of_calls_leave_the_next_client_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr("sedtalker.serve.a2f.CONNECTIONS", 3)
    with made_server(a2f_port=0) as server, grpc.insecure_channel(
        f"127.0.0.1:{server.running.a2f_port}", [("grpc.max_metadata_size", 2 << 20)]
    ) as channel:  # fmt: skip
        process = audio2face.A2FControllerServiceStub(channel).ProcessAudioStream
        with pytest.raises(grpc.RpcError):
            list(process(iter([header(), END]), timeout=30, metadata=[("x", "y" * (1 << 20))]))
        leave = threading.Event()
        waiting = [process(silent_client(leave), timeout=30) for _ in range(3)]  # they send no message
        end = time.monotonic() + 20
        with pytest.raises(grpc.RpcError) as refused:
            while time.monotonic() < end:
                call(server, [header(), END])
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        leave.set()
        for answers in waiting:
            answers.cancel()
        assert call_again(server)[-1].status.code == 0


def silent_client(leave: threading.Event) -> Iterator[Any]:
    leave.wait(30)
    yield from ()


def call_again(server: MadeServer) -> list[Any]:
    """A call of a client that tries again while the server is full."""
    for _ in range(100):
        with suppress(grpc.RpcError):
            return call(server, [header(), audio(voice(1).tobytes()), END])
        time.sleep(0.1)
    raise AssertionError("the server stays full")


def test_health_and_token() -> None:
    with made_server(a2f_port=0, token="s3cret") as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.running.a2f_port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        clip = [header(), audio(voice(1).tobytes()), END]
        with pytest.raises(grpc.RpcError) as error:
            call(server, clip)
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert call(server, clip, metadata=[("authorization", "Bearer s3cret")])[-1].status.code == 0


def test_our_copy_of_the_interface_is_nvidias() -> None:
    ours = message_class("controller.v1.AudioStream").DESCRIPTOR
    theirs = messages.AudioWithEmotionStream.DESCRIPTOR

    def fields(message: Any) -> list[tuple[str, int, int]]:
        return [(field.name, field.number, field.type) for field in message.fields]

    assert fields(ours) == fields(theirs)
    header = ours.fields_by_name["audio_stream_header"].message_type
    assert fields(header) == fields(theirs.fields_by_name["audio_stream_header"].message_type)
