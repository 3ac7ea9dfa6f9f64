"""The face between utterances: mouth shut, blinks and gaze, nods while listening; and how an interruption ends one.

This needs no model: it costs some microseconds a frame, and an interruption does not wait for a busy worker.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import Resampler
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.mel import FRAME_RATE
from sedtalker.serve.engine import FrameBlock
from sedtalker.talker.idle_motion import IdleMotionGenerator, apply_idle_motion
from sedtalker.talker.prosody import SILENCE

Float = NDArray[np.float32]

REST_SECONDS = 1 / 15  # s from an interruption to lips at rest: 2 frames at 30 fps, 4 at 60
RETURN_SECONDS = 0.35  # s, time constant with which the rest of the face returns
POSES = 600  # frames that an interruption can go back to
MOUTH = np.array([name.startswith(("jaw", "mouth", "tongue", "cheekPuff")) for name in ARKIT_NAMES])
EYES = np.array([name.startswith(("eyeLook", "eyeBlink")) for name in ARKIT_NAMES])

_STEP = 5  # frames of idle motion at a time, at 50 Hz
_PARTS = np.cumsum([1, 1, 2])  # columns of brows, lids, gaze, and then the head
_NOD_DEGREES, _NOD_SECONDS = 2.2, 0.16  # a small nod, and the standard deviation of its bump
_NOD_EVERY = (2.5, 6.0)  # s between nods


class RestingFace:
    """Frames of a face that does not speak, as an endless sequence."""

    def __init__(self, fps: float, labels: tuple[str, ...], seed: int = 0) -> None:
        self.fps, self.labels = fps, labels
        self._rng = np.random.default_rng([seed, 17])
        self._idle = IdleMotionGenerator(labels, seed)
        self._resampler = Resampler(FRAME_RATE, fps)
        self._neutral = np.eye(len(labels), dtype=np.float32)[labels.index("neutral")]
        self._waiting = np.zeros((0, _PARTS[-1] + 3), np.float32)  # idle motion at `fps`
        self._weights = np.zeros(len(ARKIT_NAMES), np.float32)  # what is left of the last expression
        self._left = np.zeros(5, np.float32)  # what is left of the last pose of gaze and head, beyond the idle motion
        self._time = self._next_nod = 0.0  # s
        self._nods: list[float] = []  # middles of nods, s

    def start_from(self, weights: Float, head: Float, gaze: Float) -> None:
        """Continue from a pose (52,), (3,) and (2,): the mouth is at rest at once, the rest of the face follows."""
        self._weights = np.where(MOUTH | EYES, 0, weights).astype(np.float32)
        self._left = np.concatenate([gaze, head]) - self._rows(0, 1)[0, _PARTS[1] :]

    def frames(self, count: int, start: float, listening: bool) -> FrameBlock:
        """The next frames; `start` is the time of the first. Nods only while `listening`."""
        rows = self._rows(count, count)
        decay = np.exp(-np.arange(1, count + 1) / (self.fps * RETURN_SECONDS)).astype(np.float32)[:, None]
        rows[:, _PARTS[1] :] += decay * self._left
        weights = decay * self._weights
        self._left, self._weights = decay[-1] * self._left, weights[-1]
        brows, lids, gaze, head = np.split(rows, _PARTS, axis=1)
        head[:, 0] += [self._nod(listening) for _ in range(count)]
        return FrameBlock(
            start,
            self.fps,
            apply_idle_motion(weights, brows[:, 0], lids[:, 0], gaze),
            head,
            gaze,
            np.tile(self._neutral, (count, 1)),
            np.zeros(count, np.float32),
        )

    def _rows(self, taken: int, needed: int) -> Float:
        """The next `needed` rows of idle motion, of which `taken` are removed."""
        while len(self._waiting) < needed:
            motion = self._idle.push(
                np.tile(np.array(SILENCE, np.float32), (_STEP, 1)),
                np.tile(self._neutral, (_STEP, 1)),
                np.zeros(_STEP, np.float32),
            )
            block = np.column_stack([motion.brows, motion.lids, motion.gaze, motion.head]).astype(np.float32)
            self._waiting = np.concatenate([self._waiting, self._resampler.push(block)])
        rows, self._waiting = self._waiting[:needed].copy(), self._waiting[taken:]
        return rows

    def _nod(self, listening: bool) -> float:
        """Degrees of pitch by nods in the next frame."""
        if listening and self._time >= self._next_nod:
            self._nods = [nod for nod in self._nods if nod > self._time - 1] + [self._time + 4 * _NOD_SECONDS]
            self._next_nod = self._time + float(self._rng.uniform(*_NOD_EVERY))
        self._time += 1 / self.fps
        return sum(_NOD_DEGREES * float(np.exp(-0.5 * ((self._time - nod) / _NOD_SECONDS) ** 2)) for nod in self._nods)


class SentPoses:
    """The last frames that were sent to a client, to continue from the one that it shows."""

    def __init__(self) -> None:
        self._rows: deque[tuple[FrameBlock, int]] = deque(maxlen=POSES)

    def add(self, block: FrameBlock) -> None:
        """The frames of a block were sent."""
        self._rows.extend((block, row) for row in range(len(block.weights)))

    def clear(self) -> None:
        """Forget all frames."""
        self._rows.clear()

    def start_utterance(self) -> None:
        """Keep the last frame alone, which is shown until the first one of the next utterance."""
        pose = self.find()
        self.clear()
        if pose is not None:
            self._rows.append(pose)

    def find(self, at: float = math.inf) -> tuple[FrameBlock, int] | None:
        """Block and row of the frame at a time in seconds, by default the last one; None without any frame."""
        for block, row in reversed(self._rows):
            if block.start + row / block.fps <= at:
                return block, row
        return self._rows[0] if self._rows else None

    def interrupt(self, at: float = math.inf) -> FrameBlock | None:
        """Frames from the pose at a time to lips at rest, which replace all later ones; None without any frame."""
        pose = self.find(at)
        if pose is None:
            return None
        block, row = pose
        fade = lips_to_rest(block, row, block.start + (row + 1) / block.fps)
        self.clear()
        self.add(fade)
        return fade


def lips_to_rest(pose: FrameBlock, row: int, start: float) -> FrameBlock:
    """Frames from a pose, the row of a block, to closed lips within REST_SECONDS; eyes and head keep their pose."""
    count = max(1, round(REST_SECONDS * pose.fps))
    left = 1 - (np.arange(count, dtype=np.float32) + 1) / count  # share of the mouth's weights
    weights = np.repeat(pose.weights[row : row + 1], count, axis=0)
    weights[:, MOUTH] *= left[:, None]

    def hold(values: Float) -> Float:
        return np.repeat(values[row : row + 1], count, axis=0)

    return FrameBlock(
        start,
        pose.fps,
        weights,
        hold(pose.head),
        hold(pose.gaze),
        hold(pose.posterior),
        (hold(pose.intensity) * left).astype(np.float32),
    )
