"""Load, interruptions, hostile clients and endurance of a running server.

    python -m sedtalker.serve.load_test URL --sessions 8 --seconds 60       real-time clients: latency, errors
    python -m sedtalker.serve.load_test URL --interruptions 1000            in a row: time to closed lips
    python -m sedtalker.serve.load_test URL --hostile 200                   dropped and hostile clients
    python -m sedtalker.serve.load_test URL --onsets BENCHMARK/audio         time from an emotion to its frames
    python -m sedtalker.serve.load_test URL --soak 3600 --sessions 4 --pid PID   the server's memory over an hour

Prints JSON; a soak also prints a line a minute to stderr. Clients are in one process, which takes a part of the
machine: give it a core of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from sedtalker.audio import SAMPLE_RATE, load_audio, loudness, to_int16, to_samples
from sedtalker.data.frame_benchmark import read_pieces, segments_of
from sedtalker.emotion.vad import detect_speech
from sedtalker.evaluation.mouth_shape import share_interval
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.mel import FRAME_RATE
from sedtalker.resources import asset

CHUNK = 0.04  # s of audio a message
MOUTH = [name.startswith(("jaw", "mouth", "tongue")) for name in ARKIT_NAMES]
RECONNECT = 600.0  # s after which a client of a soak opens a new session; a server ends those of an hour
SHORTEST_ONSET = 1.0  # s of the emotions whose onsets are measured
SHOWN = 0.1  # intensity above which a frame shows its emotion
ONSET_CLIENTS = 3  # at a time
QUANTILES = {"median": 0.5, "p90": 0.9}
FLAT, FLAT_MB = 0.03, 10  # by which the memory may grow from the second quarter of a soak to the last one: share, MB
KINDS = ("drop", "half-open", "slow", "random", "oversized", "order", "refused", "dribble", "flood")
_TINY_FRAMES = (b"\x89\x80" + bytes(4)) * 5000 + (b"\x01\x80" + bytes(4)) + (b"\x00\x80" + bytes(4)) * 2000
"""Pings, and a message of empty fragments, of a WebSocket's client."""


def demo_speech() -> np.ndarray:
    """Int16 samples (N,) of the packaged recording."""
    return to_int16(load_audio(asset("demo.wav")))


async def open_session(url: str, token: str | None, **options: Any) -> ClientConnection:
    """A session that has received `ready`."""
    return (await start_session(url, token, **options))[0]


async def start_session(url: str, token: str | None, **options: Any) -> tuple[ClientConnection, dict[str, Any]]:
    """A session, and its message `ready`."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    socket = await connect(url, additional_headers=headers, proxy=None, max_size=None)
    await socket.send(json.dumps({"type": "start", **options}))
    ready = json.loads(await socket.recv())
    if ready["type"] != "ready":
        raise ConnectionError(ready)
    return socket, ready


async def speak(socket: ClientConnection, sound: np.ndarray) -> None:
    """Send int16 samples (N,) as a microphone would, and the end of the utterance."""
    size, start = int(CHUNK * SAMPLE_RATE), time.monotonic()
    for number, first in enumerate(range(0, len(sound), size)):
        await asyncio.sleep(max(0.0, start + (number + 1) * CHUNK - time.monotonic()))
        await socket.send(sound[first : first + size].tobytes())
    await socket.send('{"type":"end"}')


class Client:
    """A real-time client: speaks for some seconds, rests, and speaks again."""

    def __init__(self, url: str, token: str | None, speech: np.ndarray, number: int, pause: float = 1.0) -> None:
        self._url, self._token, self._speech, self._number, self._pause = url, token, speech, number, pause
        self.delays: list[float] = []  # s from the end of a frame's sound to its arrival
        self.first: list[float] = []  # s from the first sound to the first frame
        self.utterances = self.frames = self.wrong = 0
        self.errors: list[str] = []
        self._start = 0.0
        self._lost: ConnectionClosed | None = None  # the session ended while it spoke

    async def run(self, seconds: float, session: float = np.inf) -> None:
        """Speak for this time, in sessions of `session` seconds; after an error, in a new session."""
        await asyncio.sleep(random.uniform(0, 1.5))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await self._converse(min(end, time.monotonic() + session))
            except (ConnectionClosed, ConnectionError, OSError, TimeoutError) as error:
                self.errors.append(str(error) or type(error).__name__)
                await asyncio.sleep(1)

    async def _converse(self, end: float) -> None:
        """One session, until a monotonic time."""
        socket = await open_session(self._url, self._token, seed=self._number)
        reading = asyncio.create_task(self._read(socket))
        try:
            while time.monotonic() < end:
                await self._speak(socket)
                await asyncio.sleep(self._pause)
        finally:
            await socket.close()
            await reading

    async def _speak(self, socket: ClientConnection) -> None:
        self._ended, self._count, self._lost = asyncio.Event(), 0, None
        self._start = time.monotonic()
        await speak(socket, self._speech)
        await asyncio.wait_for(self._ended.wait(), 300)  # an overloaded server throttles
        if self._lost is not None:
            raise self._lost
        self.utterances += 1
        self.wrong += self._count != round(len(self._speech) / SAMPLE_RATE * 30)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            await self._read_frames(socket)
        except ConnectionClosed as error:
            self._lost = error
            self._ended.set()

    async def _read_frames(self, socket: ClientConnection) -> None:
        async for text in socket:
            now = time.monotonic()
            message = json.loads(text)
            if message["type"] == "frames":
                count = len(message["weights"])
                if not self._count:
                    self.first.append(now - self._start)
                self._count += count
                self.frames += count
                sound_end = self._start + message["start"] + count / message["fps"]
                self.delays.append(now - sound_end)
            elif message["type"] == "end":
                self._ended.set()


async def measure_load(url: str, token: str | None, sessions: int, seconds: float) -> dict[str, Any]:
    """Real-time clients in parallel."""
    clients = make_clients(url, token, sessions)
    await asyncio.gather(*(client.run(seconds) for client in clients))
    return {"sessions": sessions, "seconds": seconds, **summarize(clients)}


def make_clients(url: str, token: str | None, sessions: int) -> list[Client]:
    """Clients, each of which begins at another second of the recording."""
    speech = demo_speech()
    return [Client(url, token, np.roll(speech, number * SAMPLE_RATE), number) for number in range(sessions)]


def summarize(clients: list[Client]) -> dict[str, Any]:
    """Counts, errors and delays of clients that ran."""
    delays = np.array([delay for client in clients for delay in client.delays] or [np.nan])
    first = np.array([delay for client in clients for delay in client.first] or [np.nan])
    return {
        "utterances": sum(client.utterances for client in clients),
        "frames": sum(client.frames for client in clients),
        "wrong utterances": sum(client.wrong for client in clients),
        "errors": [error for client in clients for error in client.errors],
        "delay ms": _percentiles(delays),
        "first frame ms": _percentiles(first),
        "in real time": bool(np.nanquantile(delays, 0.99) < 0.5),
    }


async def measure_soak(
    url: str, token: str | None, sessions: int, seconds: float, pid: int, reconnect: float = RECONNECT
) -> dict[str, Any]:
    """Real-time clients that open a new session every `reconnect` seconds, and the memory of the server's processes.

    The memory is flat if the median of the last quarter of the time is above that of the second quarter by FLAT of it
    and FLAT_MB at most; the first quarter fills caches.
    """
    clients = make_clients(url, token, sessions)
    running = asyncio.gather(*(client.run(seconds, reconnect) for client in clients))
    start, step = time.monotonic(), min(60.0, seconds / 24)
    samples: list[tuple[float, float]] = []  # seconds, MB
    while not running.done():
        samples.append((time.monotonic() - start, memory_of(pid)))
        utterances, wrong = (sum(getattr(client, key) for client in clients) for key in ("utterances", "wrong"))
        line = {"seconds": round(samples[-1][0]), "MB": round(samples[-1][1], 1), "utterances": utterances}
        print(json.dumps({**line, "wrong": wrong}), file=sys.stderr, flush=True)
        await asyncio.wait([running], timeout=step)
    await running
    values = np.array([memory for _, memory in samples])
    if len(values) < 8 or not values.all():
        raise SystemExit(
            f"error: the memory of process {pid} could not be read to the end. Check --pid, or soak longer"
        )
    quarter = len(values) // 4
    second, last = np.median(values[quarter : 2 * quarter]), np.median(values[-quarter:])
    slope = np.polyfit([moment / 3600 for moment, _ in samples[quarter:]], values[quarter:], 1)[0]
    return {
        "sessions": sessions,
        "seconds": seconds,
        **summarize(clients),
        "memory MB": {
            "start": round(values[0]), "second quarter": round(second), "last quarter": round(last),
            "most": round(values.max()), "trend an hour": round(slope, 1),
        },
        "flat": bool(last - second <= FLAT * second + FLAT_MB),
    }  # fmt: skip


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{share}": round(1000 * float(np.nanpercentile(seconds, share)), 1) for share in (50, 95, 99)}


def memory_of(pid: int) -> float:
    """Memory in MB of a process and its children, without pages of files, which the system can drop; Linux only."""
    total = 0.0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon", "RssShmem", "VmSwap")):
                total += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                total += memory_of(int(child))
    return total


class Onset(NamedTuple):
    """A change to an emotion in a recording."""

    recording: str
    emotion: str
    start: float  # s
    end: float  # s


class OnsetDelay(NamedTuple):
    """Seconds from the onset of an emotion to the first frame that shows it; NaN: none shows it in time."""

    arrival: float  # as it arrives in real time
    clock: float  # on the audio's clock, with the stream's latency: the arrival if computing took no time
    posterior: float  # arrival of the first frame in which it has the largest share, at any intensity
    audio: float  # on the audio's clock, without latency: what the diarizer needs


def benchmark_onsets(shortest: float = SHORTEST_ONSET) -> list[Onset]:
    """The changes from neutral to an emotion, of this length at least, in the packaged frame-level benchmark."""
    onsets = []
    for name, pieces in read_pieces().items():
        segments = segments_of(pieces)
        onsets += [
            Onset(name, segment.emotion, segment.start, segment.end)
            for before, segment in pairwise(segments)
            if before.emotion == "neutral" != segment.emotion and segment.end - segment.start >= shortest
        ]
    return onsets


def find_speech(onset: Onset, sound: np.ndarray) -> float:
    """Seconds of the first frame with speech in the emotion's segment of int16 samples (N,)."""
    speech = detect_speech(loudness(to_samples(sound)))
    frames = np.flatnonzero(speech[round(onset.start * FRAME_RATE) : round(onset.end * FRAME_RATE)])
    return onset.start + (frames[0] / FRAME_RATE if len(frames) else 0.0)


async def measure_onsets(
    url: str, token: str | None, onsets: list[Onset], folder: Path, **options: Any
) -> dict[str, Any]:
    """Delays of emotions in recordings.

    The onset of an emotion is that of speech in it: the first frame of its segment with speech, not the start of the
    segment or of the recording. A frame shows an emotion that has the largest share, at an intensity above SHOWN. An
    emotion that is not shown within a second after its end is missed, and so is one that frames in the half second
    before its segment show already. A frame that comes after the start of the segment counts as one in it, since its
    emotion follows from the sound of the latency, too. Shares have intervals of 95 % (Wilson), of all onsets and of
    those that are named.

    Args:
        folder: holds `RECORDING.wav` for each of the onsets.
        options: of the sessions.
    """
    free = asyncio.Semaphore(ONSET_CLIENTS)
    sounds = [to_int16(load_audio(folder / f"{onset.recording}.wav")) for onset in onsets]  # now: it takes long

    async def measure(onset: Onset, sound: np.ndarray) -> OnsetDelay:
        async with free:
            return await measure_onset(url, token, onset, sound, **options)

    delays = np.array(await asyncio.gather(*map(measure, onsets, sounds)))
    return {"onsets": len(onsets)} | {
        name: summarize_delays(values) for name, values in zip(OnsetDelay._fields, delays.T, strict=True)
    }


def summarize_delays(delays: np.ndarray) -> dict[str, Any]:
    """Recall, shares within a second with their intervals, and quantiles of delays (N,); NaN: missed."""
    named = delays[np.isfinite(delays)]
    soon = int(np.sum(named <= 1))

    def share(hits: int, tries: int) -> list[float]:
        return [round(value, 2) for value in share_interval(hits, tries)]

    return {
        "named": len(named),
        "within 1 s": soon,
        "recall": share(len(named), len(delays)),
        "within 1 s of all": share(soon, len(delays)),
        "within 1 s of those named": share(soon, len(named)),
    } | {key: round(float(np.quantile(named, level)), 2) for key, level in QUANTILES.items() if len(named)}


async def measure_onset(url: str, token: str | None, onset: Onset, sound: np.ndarray, **options: Any) -> OnsetDelay:
    """The delay of an emotion; all NaN if frames before its segment show it."""
    socket, ready = await start_session(url, token, **options)
    column = ready["labels"].index(onset.emotion)
    sending = asyncio.create_task(speak(socket, sound))
    start, shown_before = time.monotonic(), False
    shown_first: tuple[float, float] | None = None  # arrival, middle of the frame
    named_first = np.nan
    async for text in socket:
        message, now = json.loads(text), time.monotonic() - start
        if message["type"] == "end":
            break
        if message["type"] != "frames":
            continue
        shares, intensity = np.array(message["posterior"]), np.array(message["intensity"])
        times = message["start"] + (np.arange(len(shares)) + 0.5) / message["fps"]
        named = shares.argmax(axis=1) == column
        shown = named & (intensity > SHOWN)
        known = times + ready["latency"] >= onset.start
        shown_before |= bool(np.any(shown & (times > onset.start - 0.5) & ~known))
        during = known & (times < onset.end + 1)
        if np.isnan(named_first) and np.any(named & during):
            named_first = now
        if shown_first is None and np.any(shown & during):
            shown_first = now, float(times[shown & during][0])
    await sending
    await socket.close()
    if shown_before:
        return OnsetDelay(*[np.nan] * len(OnsetDelay._fields))
    arrival, middle = shown_first or (np.nan, np.nan)
    moments = np.array([arrival, middle + ready["latency"], named_first, middle])
    return OnsetDelay(*(moments - find_speech(onset, sound)).tolist())


async def measure_interruptions(url: str, token: str | None, count: int) -> dict[str, Any]:
    """Interruptions in a row, each in the middle of speech; then an utterance that must be as in a new session."""
    speech = demo_speech()
    delays, open_mouths = [], 0
    options = {"still": True, "resting": True}  # with rest between, an utterance does not start from the last pose
    reference = await _utterance(await open_session(url, token, **options), speech[: 2 * SAMPLE_RATE])
    socket = await open_session(url, token, **options)
    for number in range(count):
        start = (number * 977) % (len(speech) - SAMPLE_RATE)
        await socket.send(speech[start : start + SAMPLE_RATE].tobytes())
        with suppress(asyncio.TimeoutError):  # silence gives frames, too; a busy server may be late
            await asyncio.wait_for(_next(socket, "frames", "speaking"), 2)
        sent = time.monotonic()
        await socket.send('{"type":"interrupt"}')
        message = await asyncio.wait_for(_next(socket, "interrupted"), 10)
        rest = 0.0
        if "weights" in message:
            rest = (len(message["weights"]) - 1) / message["fps"]
            open_mouths += bool(np.array(message["weights"])[-1, MOUTH].max() > 1e-3)
        delays.append(time.monotonic() - sent + rest)
    last = await _utterance(socket, speech[: 2 * SAMPLE_RATE])
    session = await _utterance(await open_session(url, token, **options), speech[: 2 * SAMPLE_RATE])
    return {
        "interruptions": count,
        "lips at rest ms": _percentiles(np.array(delays)),
        "within 100 ms": int(np.sum(np.array(delays) <= 0.1)),
        "mouths left open": open_mouths,
        "next utterance differs by": round(float(np.abs(last - reference).max()), 4),
        "next session differs by": round(float(np.abs(session - reference).max()), 4),
    }


async def _next(socket: ClientConnection, kind: str, state: str = "idle") -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(await socket.recv())
        if message["type"] == kind and message["state"] == state:
            return message


async def _utterance(socket: ClientConnection, speech: np.ndarray) -> np.ndarray:
    """Weights (T, 52) of a whole utterance; closes the session."""
    rows: list[Any] = []
    for first in range(0, len(speech), SAMPLE_RATE // 5):
        await socket.send(speech[first : first + SAMPLE_RATE // 5].tobytes())
    await socket.send('{"type":"end"}')
    while (message := json.loads(await asyncio.wait_for(socket.recv(), 60)))["type"] != "end":
        if message["type"] == "frames" and message["state"] == "speaking":
            rows += message["weights"]
    await socket.close()
    return np.array(rows)


async def measure_hostility(url: str, token: str | None, count: int) -> dict[str, Any]:
    """Clients that drop, stay half-open, do not read, and send random bytes, too much, in the wrong order or slowly."""
    speech = demo_speech()[: 2 * SAMPLE_RATE]
    reference = await _utterance(await open_session(url, token, still=True), speech)
    rng = random.Random(0)
    held: list[Any] = []
    outcomes: dict[str, int] = {}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        try:
            outcome = await asyncio.wait_for(_attack(url, token, kind, rng, held, speech), 20)
        except InvalidHandshake:
            outcome = "refused"
        except asyncio.TimeoutError:
            outcome = "timeout"
        except (ConnectionClosed, OSError, EOFError):
            outcome = "closed"
        key = f"{kind}: {outcome}"
        outcomes[key] = outcomes.get(key, 0) + 1
    for writer in held:
        writer.close()
    for _ in range(100):  # the places of the dropped clients become free
        with suppress(ConnectionError, ConnectionClosed):
            last = await _utterance(await open_session(url, token, still=True), speech)
            break
        await asyncio.sleep(0.2)
    else:
        raise SystemExit("error: the server takes no session after the hostile clients. See its log")
    return {
        "clients": count,
        "outcomes": outcomes,
        "next session differs by": round(float(np.abs(last - reference).max()), 4),
        "jaw opens": round(float(last[:, JAW_OPEN].max()), 3),
    }


async def _attack(
    url: str, token: str | None, kind: str, rng: random.Random, held: list[Any], speech: np.ndarray
) -> str:
    address = urlsplit(url)
    if kind in ("half-open", "random", "dribble"):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        if kind == "dribble":  # a request, and the start of the next one
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n")
        if kind != "random":
            writer.write(b"GET /ws HTTP/1.1\r\nHost: ")
            held.append(writer)
            return "held open"
        writer.write(rng.randbytes(3000))
        await reader.read(2000)
        writer.close()
        return "answered"
    if kind == "order":
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            first: list[str | bytes] = [b"\0" * 640, '{"type":"end"}', '{"type":"interrupt"}', "{}", '"start"']
            await socket.send(rng.choice(first))
            answer = json.loads(await socket.recv())
            return str(answer["type"])
    if kind == "refused":
        async with connect(url, origin="http://evil.example", proxy=None):  # type: ignore[arg-type]
            return "accepted"
    socket = await open_session(url, token)
    if kind == "drop":
        await socket.send(speech.tobytes())
        socket.transport.abort()
        return "dropped"
    if kind == "slow":  # reads nothing, and leaves without a word
        socket.transport.pause_reading()
        await socket.send(speech.tobytes())
        await asyncio.sleep(0.05)
        socket.transport.abort()
        return "dropped"
    if kind == "flood":
        socket.transport.write(_TINY_FRAMES)
    else:
        await socket.send(bytes(2 << 20))  # oversized
    while True:
        await socket.recv()


def main() -> int:
    """Run the measurements of the command line."""
    parser = argparse.ArgumentParser(prog="python -m sedtalker.serve.load_test", description=__doc__)
    parser.add_argument("url", help="such as ws://127.0.0.1:8000/ws")
    parser.add_argument("--token", default=os.environ.get("SEDTALKER_TOKEN"))
    parser.add_argument("--sessions", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--interruptions", type=int, default=0)
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--onsets", type=Path, metavar="DIR", help="recordings of the recipe frame_benchmark")
    parser.add_argument("--most", type=int, help="onsets to measure at most")
    parser.add_argument("--look-ahead", type=int, metavar="MS", help="of the sessions of --onsets")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="with --sessions and --pid")
    parser.add_argument("--pid", type=int, help="of the server, for its memory")
    arguments = parser.parse_args()
    if not (arguments.sessions or arguments.interruptions or arguments.hostile or arguments.onsets):
        parser.error("give --sessions, --interruptions, --hostile or --onsets")
    if arguments.soak and not (arguments.sessions and arguments.pid):
        parser.error("--soak needs --sessions and --pid")
    before = None if arguments.pid is None else memory_of(arguments.pid)
    server = arguments.url, arguments.token
    results: list[dict[str, Any]] = []
    if arguments.soak:
        results.append(asyncio.run(measure_soak(*server, arguments.sessions, arguments.soak, arguments.pid)))
    elif arguments.sessions:
        results.append(asyncio.run(measure_load(*server, arguments.sessions, arguments.seconds)))
    if arguments.interruptions:
        results.append(asyncio.run(measure_interruptions(*server, arguments.interruptions)))
    if arguments.hostile:
        results.append(asyncio.run(measure_hostility(*server, arguments.hostile)))
    if arguments.onsets:
        onsets = benchmark_onsets()[: arguments.most]
        options = {} if arguments.look_ahead is None else {"lookAhead": arguments.look_ahead}
        results.append(asyncio.run(measure_onsets(*server, onsets, arguments.onsets, **options)))
    for result in results:
        if before is not None and arguments.pid is not None:
            result["memory MB before and after"] = [round(before), round(memory_of(arguments.pid))]
        print(json.dumps(result, indent=2))
    failed = any(
        result.get("errors") or result.get("wrong utterances") or not result.get("flat", True) for result in results
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
