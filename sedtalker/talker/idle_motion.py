"""What a living face does besides speaking: blinks, gaze, small movements of the head, brows that follow accents.

A seeded layer over the talker's coefficients. It touches the weights of eyes and brows and the head's rigid motion,
never the mouth. Rates and times are published or measured ones:

- blinks: 26 a minute in conversation, log-normal intervals, half of them partial, closing faster than opening
  (Bentivoglio et al. 1997; Doughty 2001); 100 to 150 ms at half height and fewer in fear and surprise (RAVDESS'
  performances, OpenFace's AU45); drawn towards pauses.
- gaze: fixations of about a second, saccades of a few degrees in 40 to 60 ms.
- head: standard deviations of a seated speaker (GRID s1: pitch .57, yaw .36, roll .21 degrees in three seconds),
  twice as large for one who does not read; nods with the voice's accents.
- brows: raised a little with every other accent, as in Cassell et al. 1994.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import smooth
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import FLOOR, detect_speech
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.rotations import rotation_matrices
from sedtalker.speech import FRAME_RATE

Float = NDArray[np.float32]

BLINK_INTERVAL = 60 / 26  # seconds, the mean in conversation (Bentivoglio et al. 1997); emotions change it
BLINK_SPREAD = 0.5  # of the intervals' logarithm
BLINK_LEAST = 0.8  # seconds between two blinks
PARTIAL_BLINKS = 0.5  # share of the blinks that do not close the eye
PARTIAL_DEPTH, FULL_DEPTH = (0.55, 0.8), (0.92, 1.0)  # ranges of closure, 1 is shut
BLINK_RATES = {"sad": 1.0, "disgust": 0.95, "happy": 0.9, "angry": 0.85, "surprise": 0.55, "fear": 0.45}  # of neutral's
CLOSING, SHUT, OPENING = 0.08, 0.02, 0.14  # seconds
PAUSE = 0.12  # seconds; a shorter gap, as of a stop consonant, is no pause
PAUSE_PULL = 0.5  # seconds within which a blink moves to a pause's beginning

FIXATION, SHORTEST_FIXATION = 1.1, 0.35  # seconds
GAZE_DEGREES = (2.6, 1.4)  # standard deviation of the target to the side, and up or down
SACCADE = 0.05  # seconds
EYE_DEGREES = {"In": 15.0, "Out": 15.0, "Up": 9.8, "Down": 11.4}  # turned by a weight of 1 of eyeLook...

HEAD_DEGREES = (1.1, 0.9, 0.5)  # standard deviation of pitch, yaw and roll while speaking
HEAD_AT_REST = 0.5  # share of it in silence
HEAD_SMOOTHING = 0.45  # seconds: slow enough for 95 % of the speeds to stay under 6 degrees/s
NOD_DEGREES, NOD_SECONDS = 1.4, 0.11  # at a full accent, and the bump's standard deviation
ACCENT_DB, ACCENT_FULL_DB = 3.0, 9.0  # dB over the neighbourhood from which an accent counts, and counts fully
ACCENT_APART = 0.4  # seconds
BROW_SECONDS = 0.14
BROW_RAISE = {"browInnerUp": 0.16, "browOuterUpLeft": 0.20, "browOuterUpRight": 0.20}


@dataclass(frozen=True)
class IdleMotionConfig:
    """How strong each part is; 0 leaves it out."""

    blinks: float = 1.0
    gaze: float = 1.0
    head: float = 1.0
    brows: float = 1.0


@dataclass(frozen=True)
class IdleMotion:
    """What a face does on its own, by frame at 50 Hz."""

    raised: Float  # (T,) of the brows, 0..1
    gaze: Float  # (T, 2) degrees to the person's left and up
    closed: Float  # (T,) of the lids, 0..1
    turns: Float  # (T, 3) pitch, yaw and roll of the head, degrees

    def apply(self, weights: Float, start: int = 0) -> Float:
        """Weights (n, 52) of the frames from `start` on with brows, eyes and lids moved."""
        part, alive = slice(start, start + len(weights)), weights.astype(np.float32)
        _raise_brows(alive, self.raised[part])
        _turn_eyes(alive, self.gaze[part])
        _close_lids(alive, self.closed[part])
        return np.clip(alive, 0, 1)


def generate_idle_motion(
    track: EmotionTrack, levels: Float, frames: int, seed: int = 0, strengths: IdleMotionConfig | None = None
) -> IdleMotion:
    """Life for `frames` frames of 20 ms.

    Args:
        track: the emotion; it sets how often the eyes blink.
        levels: (T,) loudness of the speech at 50 Hz.
        seed: the same seed gives the same life.
        strengths: of each part.
    """
    strengths = strengths or IdleMotionConfig()
    decibels = _fitted(levels, frames)
    speaking = detect_speech(decibels, bridge=PAUSE)
    peaks = accents(decibels, speaking)
    blink_rng, gaze_rng, head_rng, brow_rng = (np.random.default_rng([seed, part]) for part in range(4))
    return IdleMotion(
        strengths.brows * _brow_curve(peaks, frames, brow_rng),
        strengths.gaze * _gaze(frames, gaze_rng),
        strengths.blinks * blinks(_blink_rate(track, frames), speaking, blink_rng),
        strengths.head * _head_turns(speaking, peaks, head_rng),
    )


def blinks(rate: Float, speaking: NDArray[np.bool_], rng: np.random.Generator) -> Float:
    """Closure (T,) of the lids, 0 open to 1 shut, at a rate (T,) relative to a calm speaker's.

    A blink that moves to a pause leaves the times of the next ones as they are, so that the mean rate stays.
    """
    frames = len(rate)
    closed = np.zeros(frames, np.float32)
    pauses = np.flatnonzero(speaking[:-1] & ~speaking[1:]) / FRAME_RATE
    mean = np.log(BLINK_INTERVAL) - BLINK_SPREAD**2 / 2
    time = float(rng.uniform(0.3, BLINK_INTERVAL))
    last = -BLINK_LEAST
    while time < frames / FRAME_RATE:
        near = pauses[np.abs(pauses - time) < PAUSE_PULL]
        near = near[near - last > BLINK_LEAST]
        start = float(near[0]) if len(near) else max(time, last + BLINK_LEAST)
        if start >= frames / FRAME_RATE:
            break
        depth = rng.uniform(*(PARTIAL_DEPTH if rng.uniform() < PARTIAL_BLINKS else FULL_DEPTH))
        first = int(start * FRAME_RATE)
        curve = np.float32(depth) * _lid_curve(float(rng.uniform(0.9, 1.15)))[: frames - first]
        closed[first : first + len(curve)] = np.maximum(closed[first : first + len(curve)], curve)
        last = start
        pace = max(0.2, float(rate[int(time * FRAME_RATE)]))
        time += max(BLINK_LEAST, float(rng.lognormal(mean, BLINK_SPREAD)) / pace)
    return closed


def accents(decibels: Float, speaking: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """Frames of the voice's accents with their strength in 0..1: peaks of loudness over their neighbourhood."""
    heard = np.maximum(decibels, np.percentile(decibels, 95) - 30)
    prominence = np.where(speaking, smooth(heard, 0.06 * FRAME_RATE) - smooth(heard, 0.5 * FRAME_RATE), 0)
    found: list[tuple[int, float]] = []
    taken = np.zeros(len(prominence), bool)
    reach = int(ACCENT_APART * FRAME_RATE)
    candidates = np.flatnonzero(prominence > ACCENT_DB)
    for frame in candidates[np.argsort(-prominence[candidates])]:
        if not taken[frame]:
            found.append((int(frame), float(min(1.0, prominence[frame] / ACCENT_FULL_DB))))
            taken[max(0, frame - reach) : frame + reach] = True
    return sorted(found)


def head_transforms(turns: Float, neck: Float) -> Float:
    """Rigid motions (T, 4, 4) that turn by pitch, yaw and roll (T, 3) in degrees about a point (3,) in metres."""
    motion = np.tile(np.eye(4, dtype=np.float32), (len(turns), 1, 1))
    motion[:, :3, :3] = rotation_matrices(turns)
    motion[:, :3, 3] = neck - motion[:, :3, :3] @ neck
    return motion


def _fitted(decibels: Float, frames: int) -> Float:
    return np.pad(decibels[:frames], (0, max(0, frames - len(decibels))), constant_values=FLOOR)


def _blink_rate(track: EmotionTrack, frames: int) -> Float:
    posterior, intensity = track.at_rate(FRAME_RATE, frames)
    rates = np.array([BLINK_RATES.get(label, 1.0) for label in track.labels], np.float32)
    return 1 + intensity * (posterior @ rates - 1)


def _lid_curve(pace: float) -> Float:
    """Closure of the lids from the start of a blink on, a `pace` of 1 being the mean duration."""
    times = np.arange(0.5, (CLOSING + SHUT + OPENING) * pace * FRAME_RATE + 1) / FRAME_RATE
    closing = np.clip(times / (CLOSING * pace), 0, 1)
    opening = np.clip((times - (CLOSING + SHUT) * pace) / (OPENING * pace), 0, 1)
    return (np.sin(0.5 * np.pi * closing) ** 2 * np.cos(0.5 * np.pi * opening) ** 2).astype(np.float32)


def _gaze(frames: int, rng: np.random.Generator) -> Float:
    """Degrees (T, 2) to the person's left and up."""
    aim = np.zeros((frames, 2), np.float32)
    time = 0.0
    while time < frames / FRAME_RATE:
        length = max(SHORTEST_FIXATION, float(rng.exponential(FIXATION)))
        target = rng.normal(0, GAZE_DEGREES) * (rng.uniform() < 0.6)  # the rest of the time at the listener
        aim[int(time * FRAME_RATE) : int((time + length) * FRAME_RATE)] = target
        time += length
    return smooth(aim, SACCADE * FRAME_RATE / 2.5)


def _head_turns(speaking: NDArray[np.bool_], peaks: list[tuple[int, float]], rng: np.random.Generator) -> Float:
    """Pitch, yaw and roll (T, 3) in degrees; pitch down is positive."""
    frames = len(speaking)
    width = HEAD_SMOOTHING * FRAME_RATE
    noise = smooth(rng.normal(size=(frames, 3)).astype(np.float32), width)
    noise *= np.sqrt(2 * width * np.sqrt(np.pi))  # the smoothing's loss of deviation
    activity = HEAD_AT_REST + (1 - HEAD_AT_REST) * smooth(speaking.astype(np.float32), 0.3 * FRAME_RATE)
    turns = noise * np.array(HEAD_DEGREES, np.float32) * activity[:, None]
    for frame, strength in peaks:
        _add_bump(turns[:, 0], frame, NOD_DEGREES * strength * rng.uniform(0.3, 1.0), NOD_SECONDS)
    return turns


def _brow_curve(peaks: list[tuple[int, float]], frames: int, rng: np.random.Generator) -> Float:
    raised = np.zeros(frames, np.float32)
    for frame, strength in peaks:
        if rng.uniform() < 0.5:
            _add_bump(raised, frame, strength * rng.uniform(0.5, 1.0), BROW_SECONDS)
    return np.minimum(raised, 1)


def _add_bump(curve: Float, frame: int, height: float, seconds: float) -> None:
    """Add a Gaussian bump of a standard deviation in seconds around a frame of a curve (T,)."""
    width = seconds * FRAME_RATE
    frames = np.arange(max(0, frame - round(4 * width)), min(len(curve), frame + round(4 * width)))
    curve[frames] += height * np.exp(-0.5 * np.square((frames - frame) / width))


def _raise_brows(weights: Float, raised: Float) -> None:
    for name, share in BROW_RAISE.items():
        column = ARKIT_NAMES.index(name)
        weights[:, column] += share * raised * (1 - weights[:, column])


def _turn_eyes(weights: Float, degrees: Float) -> None:
    """Turn both eyes by degrees (T, 2) to the person's left and up."""
    left, up = degrees.T
    turns = {
        "LookOutLeft": left, "LookInRight": left, "LookInLeft": -left, "LookOutRight": -left,
        "LookUpLeft": up, "LookUpRight": up, "LookDownLeft": -up, "LookDownRight": -up,
    }  # fmt: skip
    for name, turn in turns.items():
        side = name.removeprefix("Look").removesuffix("Left").removesuffix("Right")
        weights[:, ARKIT_NAMES.index(f"eye{name}")] += np.maximum(turn, 0) / EYE_DEGREES[side]


def _close_lids(weights: Float, closed: Float) -> None:
    """Close the lids by `closed` (T,) of what is still open; wide or narrowed eyes give way, or lids would collide."""
    for side in ("Left", "Right"):
        blink, wide, squint = (ARKIT_NAMES.index(f"eye{name}{side}") for name in ("Blink", "Wide", "Squint"))
        weights[:, blink] += closed * (1 - weights[:, blink])
        weights[:, wide] *= 1 - closed
        weights[:, squint] *= 1 - 0.7 * closed
