"""A talker for tests of the server: its mouth follows the loudness at once, its emotion is happy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import LABELS

JAW = ARKIT_NAMES.index("jawOpen")


class MadeFrames(NamedTuple):
    """The fields of the frames of `Talker.open_stream`."""

    time: np.ndarray
    weights: np.ndarray
    head: np.ndarray
    gaze: np.ndarray
    posterior: np.ndarray
    intensity: np.ndarray
    speech: np.ndarray


class MadeStream:
    """A stream with the methods of `Talker.open_stream`."""

    labels = LABELS
    latency = 0.0

    def __init__(self, fps: float = 30, fail_after: float = np.inf) -> None:
        self.fps, self.fail_after = fps, fail_after
        self.emotion: tuple[str, float, float] | None = None
        self.reset()

    def push(self, samples: np.ndarray) -> MadeFrames:
        self.samples = np.concatenate([self.samples, samples])
        self.seconds += len(samples) / 16_000
        if self.seconds > self.fail_after:
            raise RuntimeError("made to fail")
        return self._frames_until(int(self.seconds * self.fps + 1e-6))

    def finish(self) -> MadeFrames:
        return self._frames_until(max(1, round(self.seconds * self.fps)) if self.seconds else 0)

    def interrupt(self) -> MadeFrames:
        return self.reset()

    def reset(self, from_rest: bool = False) -> MadeFrames:
        self.samples = np.zeros(0, np.float32)
        self.done, self.seconds, self.first = 0, 0.0, 0  # first: number of samples[0]
        return self._frames_until(0)

    def set_emotion(self, emotion: str | None, intensity: float = 1.0, share: float = 1.0) -> None:
        self.emotion = None if emotion is None else (emotion, intensity, share)

    def _frames_until(self, end: int) -> MadeFrames:
        first, self.done = self.done, max(self.done, end)
        count = self.done - first
        weights = np.zeros((count, 52), np.float32)
        posterior = np.zeros((count, len(LABELS)), np.float32)
        intensity = np.full(count, 0.5, np.float32)
        posterior[:, LABELS.index("happy")] = 1
        if self.emotion is not None:
            label, level, share = self.emotion
            posterior *= 1 - share
            posterior[:, LABELS.index(label)] += share
            intensity = intensity * (1 - share) + np.float32(share * level)
        for row in range(count):
            start = int((first + row) / self.fps * 16_000) - self.first
            part = self.samples[start : start + int(16_000 / self.fps)]
            weights[row, JAW] = min(1.0, 2 * float(np.sqrt(np.mean(np.square(part))))) if len(part) else 0
        used = int(self.done / self.fps * 16_000) - self.first
        self.samples, self.first = self.samples[used:], self.first + used
        return MadeFrames(
            (np.arange(first, first + count) + 0.5) / self.fps,
            weights,
            np.zeros((count, 3), np.float32),
            np.zeros((count, 2), np.float32),
            posterior,
            intensity,
            np.ones(count, np.float32),
        )


def made_talker(fail_after: float = np.inf) -> Any:
    """A talker with `open_stream`."""

    def open_stream(**options: Any) -> MadeStream:
        return MadeStream(options.get("fps", 30), fail_after)

    return SimpleNamespace(open_stream=open_stream)


def voice(seconds: float, rate: int = 16_000) -> np.ndarray:
    """Int16 samples (N,) of a tone that is loud in the second half of every second."""
    times = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 220 * times) * (times % 1 >= 0.5) * 32767).astype("<i2")
