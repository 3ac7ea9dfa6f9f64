"""The gRPC service of NVIDIA's Audio2Face-3D: `A2FControllerService.ProcessAudioStream`, and gRPC's health service.

A client streams a header, audio with emotions, and the end of the audio; it receives a header, a message for each frame
with its sound and emotions, and a status. Weights are 52 with ARKit's names in PascalCase.

What differs from NVIDIA's service: `face_params`, `live_transition_time`, `live_blend_coef`, `emotion_contrast`,
`max_emotions` and `beginning_emotion` are read and have no effect. `emotion_strength` scales the intensity, and 0.6,
its default, changes nothing. Emotions of the client count while `enable_preferred_emotion` is set, with
`preferred_emotion_strength` as their share; the strongest of them is used.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE
from sedtalker.errors import SEDTalkerError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.serve import reasons
from sedtalker.serve.cancellation import cancel_tasks
from sedtalker.serve.config import Limits, ServeConfig
from sedtalker.serve.connections import CONNECTIONS
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.incoming import PcmReader
from sedtalker.serve.security import matches
from sedtalker.serve.sessions import Refused, Session, SessionClosed, SessionManager, SessionOptions

logger = logging.getLogger("sedtalker.serve")

SERVICE = "nvidia_ace.services.a2f_controller.v1.A2FControllerService"
NAMES = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
FPS = 30
BUFFER_SECONDS = 10.0  # of one message

EMOTIONS = {
    "happy": "joy", "sad": "sadness", "angry": "anger", "upset": "pain", "disgust": "disgust", "fear": "fear",
    "surprise": "amazement",
}  # fmt: skip
"""Our label -> NVIDIA's name, for the emotions that are sent."""

LABELS = {name: label for label, name in EMOTIONS.items()} | {
    "cheekiness": "happy",
    "grief": "sad",
    "outofbreath": None,
}
"""NVIDIA's name -> our label, for the emotions that are received; being out of breath is none of ours."""

_DEFAULT_STRENGTH, _DEFAULT_SHARE = 0.6, 0.5  # of NVIDIA's service
_SUCCESS, _END_OF_AUDIO_PROCESSING = 0, 0


@cache
def message_class(name: str) -> Any:
    """A message of NVIDIA's interface by its full name.

    They are kept apart from the process-wide pool, so that NVIDIA's own packages can be imported as well.
    """
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"nvidia_ace.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    data = files("sedtalker.serve").joinpath("a2f_protos/descriptors.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


class _Invalid(SEDTalkerError):
    """A request that the interface does not allow."""


@dataclass
class _Request:
    """Header of a stream."""

    audio: Any
    reader: PcmReader
    factor: NDArray[np.float32]  # (52,) of the weights
    offset: NDArray[np.float32]  # (52,)
    clamp: bool
    strength: float
    share: float  # of the client's emotions
    emotions: list[tuple[float, str | None, float]] = field(default_factory=list)  # time, label, intensity; to come
    given: list[tuple[float, str | None, float]] = field(default_factory=list)  # the same, set and not yet reported


class Controller:
    """The service."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager

    async def process(self, requests: Any, context: Any) -> None:
        """`ProcessAudioStream`."""
        session = None
        reason = reasons.DISCONNECTED
        try:
            header = await _next(context, self._manager.limits)
            if header is None or header.WhichOneof("stream_part") != "audio_stream_header":
                raise _Invalid("the first message must be an audio_stream_header")
            request = read_header(header.audio_stream_header)
            session = self._manager.open(
                SessionOptions(FPS, protocol="a2f", intensity_scale=request.strength / _DEFAULT_STRENGTH)
            )
            conversation = self._converse(session, request, context)
            reason = await asyncio.wait_for(conversation, self._manager.limits.session)
        except Refused as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except asyncio.TimeoutError:
            reason = reasons.NO_MESSAGE
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, "no message came, none was read, or it took too long"
            )
        except SessionClosed as error:
            reason = str(error)
            code = grpc.StatusCode.UNAVAILABLE if reason == reasons.STOPPING else grpc.StatusCode.FAILED_PRECONDITION
            await context.abort(code, reason)
        except SEDTalkerError as error:
            reason = reasons.BAD_MESSAGE
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            if session is not None:
                await self._manager.close(session, reason)

    async def _converse(self, session: Session, request: _Request, context: Any) -> str:
        answer = _Answer(session, request, context, self._manager.limits)
        tasks = [
            asyncio.create_task(_receive(session, request, answer, context, self._manager.limits)),
            asyncio.create_task(answer.send_events()),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_tasks(tasks)
            await answer.finish_writing()
        return reasons.DONE


async def _next(context: Any, limits: Limits) -> Any:
    message = await asyncio.wait_for(context.read(), limits.idle)
    return None if message is grpc.aio.EOF else message


def read_header(header: Any) -> _Request:
    """Settings of an AudioStreamHeader. Raises SEDTalkerError for audio that is not 16-bit mono PCM."""
    audio = header.audio_header
    if audio.audio_format != 0 or audio.channel_count != 1 or audio.bits_per_sample != 16:
        raise _Invalid("the audio must be PCM of one channel and 16 bits per sample")
    shapes, post = header.blendshape_params, header.emotion_post_processing_params
    strength = post.emotion_strength if post.HasField("emotion_strength") else _DEFAULT_STRENGTH
    share = post.preferred_emotion_strength if post.HasField("preferred_emotion_strength") else _DEFAULT_SHARE
    if not (0 <= strength <= 1 and 0 <= share <= 1):
        raise _Invalid("emotion_strength and preferred_emotion_strength must be 0 to 1")
    return _Request(
        audio,
        PcmReader(audio.samples_per_second),
        _by_name(shapes.bs_weight_multipliers, 1.0),
        _by_name(shapes.bs_weight_offsets, 0.0),
        shapes.enable_clamping_bs_weight,
        strength,
        share if post.enable_preferred_emotion else 0.0,
    )


def _by_name(values: Mapping[str, float], default: float) -> NDArray[np.float32]:
    row = np.array([values.get(name, default) for name in NAMES], np.float32)
    if not np.isfinite(row).all():
        raise _Invalid("a blendshape parameter that is not finite")
    return row


def read_emotions(entries: Any, first: float) -> list[tuple[float, str | None, float]]:
    """Time, label and intensity of a message's emotions; `first` is the earliest time at which one can begin."""
    result: list[tuple[float, str | None, float]] = []
    for entry in entries:
        unknown = set(entry.emotion) - set(LABELS)
        if unknown or not all(0 <= value <= 1 for value in entry.emotion.values()) or not entry.time_code >= 0:
            raise _Invalid(f"emotions must have a time_code from 0 on, and values of 0 to 1 for {', '.join(LABELS)}")
        name, value = max(entry.emotion.items(), key=lambda item: item[1], default=("outofbreath", 0.0))
        result.append((max(first, entry.time_code), LABELS[name] or "neutral" if value else "neutral", value))
    return result


async def _receive(session: Session, request: _Request, answer: _Answer, context: Any, limits: Limits) -> None:
    seconds = 0.0
    while True:
        message = await _next(context, limits)
        kind = None if message is None else message.WhichOneof("stream_part")
        if kind == "audio_with_emotion":
            data = message.audio_with_emotion.audio_buffer
            if len(data) % 2 or len(data) / 2 > BUFFER_SECONDS * request.audio.samples_per_second:
                raise _Invalid(f"an audio_buffer must hold whole samples, at most {BUFFER_SECONDS:g} s")
            request.emotions += read_emotions(message.audio_with_emotion.emotions, seconds)
            if len(request.emotions) > 1000:
                raise _Invalid("more than 1000 emotions")
            request.emotions.sort()
            answer.sound += data
            seconds = await _send_audio(session, request, request.reader.push(data), seconds)
        elif kind in ("end_of_audio", None):  # None: the client closed its side
            await session.send_audio(request.reader.finish())
            await session.end()
            return
        else:
            raise _Invalid("a second header, or an empty message")


async def _send_audio(session: Session, request: _Request, samples: NDArray[np.float32], seconds: float) -> float:
    """Send samples, and set each of the client's emotions at its time; returns the time of their end."""
    start = 0
    while request.emotions and request.emotions[0][0] < seconds + len(samples) / SAMPLE_RATE:
        moment, label, intensity = request.emotions.pop(0)
        place = max(start, round((moment - seconds) * SAMPLE_RATE))
        await session.send_audio(samples[start:place])
        start = place
        if request.share:
            await session.set_emotion(label, intensity, request.share)
        request.given.append((moment, label, intensity))
    await session.send_audio(samples[start:])
    return seconds + len(samples) / SAMPLE_RATE


class _Answer:
    """The messages to a client."""

    def __init__(self, session: Session, request: _Request, context: Any, limits: Limits) -> None:
        self._session, self._request, self._context, self._limits = session, request, context, limits
        self.sound = bytearray()  # that is not yet sent back
        self._sent = 0  # samples of it that were sent
        self._writing: asyncio.Future[None] | None = None

    async def finish_writing(self) -> None:
        """Wait for a message that is being written: gRPC cannot end a call whose write was cancelled."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing}, timeout=self._limits.send)

    async def send_events(self) -> None:
        await self._write(animation_data_stream_header=self._header())
        while True:
            event = await self._session.next_event()
            if event is None or event.kind not in ("frames", "end"):
                continue
            if event.block is not None:
                for row in range(len(event.block.weights)):
                    await self._write(animation_data=self._frame(event.block, row))
            if event.kind == "end":
                if self.sound:
                    await self._write(animation_data={"audio": self._take_sound(math.inf)})
                await self._write(event={"event_type": _END_OF_AUDIO_PROCESSING})
                await self._write(status={"code": _SUCCESS, "message": "Audio processing completed successfully!"})
                return

    async def _write(self, **part: Any) -> None:
        message = message_class("controller.v1.AnimationDataStream")(**part)
        self._writing = asyncio.ensure_future(self._context.write(message))
        await asyncio.wait_for(asyncio.shield(self._writing), self._limits.send)

    def _header(self) -> dict[str, Any]:
        audio = self._request.audio
        return {
            "audio_header": {
                "audio_format": audio.audio_format,
                "channel_count": audio.channel_count,
                "samples_per_second": audio.samples_per_second,
                "bits_per_sample": audio.bits_per_sample,
            },
            "skel_animation_header": {"blend_shapes": NAMES, "joints": []},
            "start_time_code_since_epoch": time.time(),
        }

    def _frame(self, block: FrameBlock, row: int) -> dict[str, Any]:
        moment = block.start + row / block.fps
        weights = block.weights[row] * self._request.factor + self._request.offset
        if self._request.clamp:
            weights = weights.clip(0, 1)
        return {
            "skel_animation": {"blend_shape_weights": [{"time_code": moment, "values": weights.tolist()}]},
            "audio": self._take_sound(moment + 1 / block.fps),
            "metadata": {"emotion_aggregate": self._aggregate(block, row, moment)},
        }

    def _take_sound(self, end: float) -> dict[str, Any]:
        """The sound up to a time in seconds."""
        rate = self._request.audio.samples_per_second
        due = len(self.sound) if math.isinf(end) else 2 * max(0, round(end * rate) - self._sent)
        part = bytes(self.sound[:due])
        del self.sound[:due]
        start = self._sent / rate
        self._sent += len(part) // 2
        return {"time_code": start, "audio_buffer": part}

    def _aggregate(self, block: FrameBlock, row: int, moment: float) -> Any:
        """EmotionAggregate: the emotions of the frame as smoothed output, and those of the client once, as input.

        NVIDIA's sample client has no place for `a2e_output`, and ends with an error if there is any.
        """
        labels, intensity = self._session.labels, float(block.intensity[row])
        strengths = {
            EMOTIONS[label]: intensity * float(share)
            for label, share in zip(labels, block.posterior[row], strict=True)
            if label in EMOTIONS
        }
        given, self._request.given = self._request.given, []
        aggregate = message_class("emotion_aggregate.v1.EmotionAggregate")(
            a2f_smoothed_output=[{"time_code": moment, "emotion": strengths}],
            input_emotions=[
                {"time_code": at, "emotion": {EMOTIONS[label]: value} if label in EMOTIONS else {}}
                for at, label, value in given
            ],
        )
        any_class = message_factory.GetMessageClass(_pool().FindMessageTypeByName("google.protobuf.Any"))
        return any_class(
            type_url=f"type.googleapis.com/{aggregate.DESCRIPTOR.full_name}", value=aggregate.SerializeToString()
        )


class _TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses calls without the token, except of the health service."""

    def __init__(self, token: str, manager: SessionManager) -> None:
        self._token, self._manager = token, manager

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        given = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if details.method.startswith(f"/{health.SERVICE_NAME}/") or matches(self._token, given):
            return await continuation(details)
        self._manager.metrics.rejected["token"] += 1

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is needed: authorization: Bearer TOKEN")

        handler = await continuation(details)
        if handler is not None and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


@asynccontextmanager
async def serve_a2f(config: ServeConfig, manager: SessionManager) -> AsyncIterator[int]:
    """Run the service; yields its port. Raises SEDTalkerError if the port is in use."""
    interceptors = [] if config.token is None else [_TokenCheck(config.token, manager)]
    server = grpc.aio.server(
        interceptors=interceptors,
        maximum_concurrent_rpcs=CONNECTIONS,
        options=[
            ("grpc.max_receive_message_length", 2 * config.limits.message_bytes + (1 << 16)),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.max_concurrent_streams", 4 * config.limits.sessions),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 60_000),
        ],
    )
    handler = grpc.stream_stream_rpc_method_handler(
        Controller(manager).process,
        request_deserializer=message_class("controller.v1.AudioStream").FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ProcessAudioStream": handler}),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = _listen(server, config)
    for service in ("", SERVICE):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    try:
        yield port
    finally:
        await servicer.enter_graceful_shutdown()
        await server.stop(grace=1.0)


def _listen(server: Any, config: ServeConfig) -> int:
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"{host}:{config.a2f_port}"
    try:
        if config.tls_cert is None or config.tls_key is None:
            return int(server.add_insecure_port(address))
        pair = config.tls_key.read_bytes(), config.tls_cert.read_bytes()
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))
    except RuntimeError as error:
        raise SEDTalkerError(
            f"cannot listen on {address} (in use?). Choose another port with --a2f-port, or 0 for none"
        ) from error
