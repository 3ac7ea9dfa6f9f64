"""Cost of a talker on this machine: CPU time offline and live, time of a step, latency and memory; one thread."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, Samples
from sedtalker.pipeline import Talker

LIVE_CHUNKS = (0.08, 0.02)  # seconds
SOAK_CHUNK = 1.0  # seconds; cheaper than 80 ms, and the state is the same
SILENT_SHARE = 4  # every so many passes of the recording, one is silent


@dataclass(frozen=True)
class LiveCost:
    """Cost of a live stream in chunks of one size."""

    chunk: float  # seconds
    cpu: float  # CPU seconds a second of audio, vertices included
    steps: NDArray[np.float64]  # CPU seconds of each push that computed something
    latency: float  # s, longest delay of a frame after its sound, and the median step


@dataclass(frozen=True)
class Soak:
    """State of a long stream after each part of it."""

    minutes: list[float]  # of audio
    cpu: list[float]  # CPU seconds a second of audio, in each part
    megabytes: list[float]  # resident memory


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as compiled code does in any case."""
    torch = sys.modules.get("torch")  # imported for models without compiled code
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def offline_cost(talker: Talker, samples: Samples) -> tuple[float, float]:
    """CPU seconds a second of audio of weights (encoder, diarizer, talker), and of vertices from them."""
    deque(talker.animate((samples, SAMPLE_RATE)).frames(), maxlen=0)  # compiles and warms up
    start = time.process_time()
    animation = talker.animate((samples, SAMPLE_RATE))
    middle = time.process_time()
    deque(animation.frames(), maxlen=0)
    seconds = len(samples) / SAMPLE_RATE
    return (middle - start) / seconds, (time.process_time() - middle) / seconds


def live_cost(talker: Talker, samples: Samples, chunk: float, look_ahead: int | None = None) -> LiveCost:
    """Cost of a stream of samples in chunks."""
    stream = talker.open_stream(look_ahead=look_ahead)
    size, rig = round(chunk * SAMPLE_RATE), talker.load_rig()
    warm = stream.push(samples[:SAMPLE_RATE])  # compiles and warms up, as the next line does for few frames
    talker.pose(warm.weights[:2], rig)
    spent, steps = 0.0, []
    parts = range(SAMPLE_RATE, len(samples) - size, size)
    for first in parts:
        start = time.process_time()
        frames = stream.push(samples[first : first + size])
        if len(frames.time):
            talker.pose(frames.weights, rig)
        used = time.process_time() - start
        spent += used
        if len(frames.time):
            steps.append(used)
    times = np.array(steps)
    return LiveCost(chunk, spent / (len(parts) * chunk), times, stream.latency + float(np.median(times)))


def soak(talker: Talker, samples: Samples, minutes: float, report: Callable[[Soak], None] = lambda state: None) -> Soak:
    """Stream the recording over and over, with silent passes, in chunks of a second; weights only.

    `report` is called after each tenth of it.
    """
    stream, size = talker.open_stream(), round(SOAK_CHUNK * SAMPLE_RATE)
    loop = np.concatenate([*[samples] * (SILENT_SHARE - 1), np.zeros_like(samples)])
    chunks = cycle(np.resize(loop, (max(1, len(loop) // size), size)))
    state, total = Soak([], [], []), max(10, round(minutes * 60 * SAMPLE_RATE / size))
    for part in range(10):
        start, count = time.process_time(), total * (part + 1) // 10 - total * part // 10
        for chunk in islice(chunks, count):
            stream.push(chunk)
        state.minutes.append(minutes * (part + 1) / 10)
        state.cpu.append((time.process_time() - start) / (count * size / SAMPLE_RATE))
        state.megabytes.append(resident_megabytes())
        report(state)
    return state


def resident_megabytes(peak: bool = False) -> float:
    """Memory of this process; NaN where it is not known."""
    if sys.platform != "linux":
        return float("nan")
    name = "VmHWM:" if peak else "VmRSS:"
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
