"""The face between utterances: mouth shut, blinks and gaze, nods while listening; and the way of the lips to rest.

This needs no model: it costs some microseconds a frame, and an interruption does not wait for a busy worker.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import interpolate_frames
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import FLOOR
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.serve.engine import FrameBlock
from sedtalker.speech import FRAME_RATE
from sedtalker.talker.idle_motion import IdleMotion, generate_idle_motion

Float = NDArray[np.float32]

REST_SECONDS = 1 / 15  # s from an interruption to lips at rest: 2 frames at 30 fps, 4 at 60
EXPRESSION_SECONDS = 0.35  # s, time constant with which the rest of the face returns
MOUTH = np.array([name.startswith(("jaw", "mouth", "tongue", "cheekPuff")) for name in ARKIT_NAMES])
EYES = np.array([name.startswith(("eyeLook", "eyeBlink")) for name in ARKIT_NAMES])

_BLOCK = 60.0  # s of idle motion made at a time
_NOD_DEGREES, _NOD_SECONDS = 2.2, 0.16  # a small nod, and the standard deviation of its bump
_NOD_EVERY = (2.5, 6.0)  # s between nods


class RestingFace:
    """Frames of a face that does not speak, as an endless sequence."""

    def __init__(self, fps: float, labels: tuple[str, ...], seed: int = 0) -> None:
        self.fps, self.labels, self._seed = fps, labels, seed
        self._rng = np.random.default_rng([seed, 17])
        self._number = 0  # of the block of idle motion
        self._place = 0  # frame in it
        self._motion = self._make_motion()
        self._weights = np.zeros(len(ARKIT_NAMES), np.float32)  # what is left of the last expression
        self._head = np.zeros(3, np.float32)
        self._gaze = np.zeros(2, np.float32)
        self._next_nod = 0.0  # s
        self._nods: list[float] = []  # middles of nods, s
        self._time = 0.0

    def start_from(self, weights: Float, head: Float, gaze: Float) -> None:
        """Continue from a pose (52,), (3,) and (2,): the mouth is at rest at once, the rest of the face follows."""
        motion, place = self._motion, self._place
        still = np.where(MOUTH | EYES, 0, weights)
        self._weights = still.astype(np.float32)
        self._head = (head - motion.head[place]).astype(np.float32)
        self._gaze = (gaze - motion.gaze[place]).astype(np.float32)

    def frames(self, count: int, start: float, listening: bool) -> FrameBlock:
        """The next frames; `start` is the time of the first. Nods only while `listening`."""
        weights, head, gaze = [], [], []
        for _ in range(count):
            decay = np.float32(np.exp(-1 / (self.fps * EXPRESSION_SECONDS)))
            self._weights, self._head, self._gaze = self._weights * decay, self._head * decay, self._gaze * decay
            part, place = self._motion, self._place
            moved = IdleMotion(
                part.brows[:0], part.gaze[place : place + 1] + self._gaze, part.lids[place : place + 1], part.head[:0]
            )
            row = _apply(moved, self._weights[None])
            weights.append(row[0])
            head.append(part.head[place] + self._head + np.array([self._nod(listening), 0, 0], np.float32))
            gaze.append(moved.gaze[0])
            self._time += 1 / self.fps
            self._place += 1
            if self._place >= len(part.lids):
                last = part.head[-1], part.gaze[-1]
                self._motion, self._place = self._make_motion(), 0
                self._head = self._head + last[0] - self._motion.head[0]
                self._gaze = self._gaze + last[1] - self._motion.gaze[0]
        posterior = np.zeros((count, len(self.labels)), np.float32)
        posterior[:, self.labels.index("neutral")] = 1
        return FrameBlock(
            start,
            self.fps,
            np.array(weights, np.float32).reshape(count, len(ARKIT_NAMES)),
            np.array(head, np.float32).reshape(count, 3),
            np.array(gaze, np.float32).reshape(count, 2),
            posterior,
            np.zeros(count, np.float32),
        )

    def _nod(self, listening: bool) -> float:
        """Degrees of pitch by nods now."""
        if listening and self._time >= self._next_nod:
            self._nods = [nod for nod in self._nods if nod > self._time - 1] + [self._time + 4 * _NOD_SECONDS]
            self._next_nod = self._time + float(self._rng.uniform(*_NOD_EVERY))
        return sum(_NOD_DEGREES * float(np.exp(-0.5 * ((self._time - nod) / _NOD_SECONDS) ** 2)) for nod in self._nods)

    def _make_motion(self) -> IdleMotion:
        """Idle motion of a silent face at `fps`."""
        track = EmotionTrack.neutral(_BLOCK, labels=self.labels)
        silence = np.full(len(track), FLOOR, np.float32)
        motion = generate_idle_motion(track, silence, len(track), seed=self._seed + self._number)
        self._number += 1
        places = (np.arange(int(_BLOCK * self.fps)) + 0.5) * FRAME_RATE / self.fps - 0.5
        return IdleMotion(
            *(interpolate_frames(curve, places) for curve in (motion.brows, motion.gaze, motion.lids, motion.head))
        )


def _apply(motion: IdleMotion, weights: Float) -> Float:
    """Weights (n, 52) with the gaze and the blinks of a motion."""
    still = IdleMotion(np.zeros(len(weights), np.float32), motion.gaze, motion.lids, motion.head)
    return still.apply(weights)


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
        hold(pose.intensity) * left,
    )
