"""Idle motion of a face: blinks, gaze, small movements of the head, and brows that follow accents of the voice.

A seeded layer over the talker's coefficients. It changes the weights of eyes and brows and the rigid motion of the
head, never the mouth. Rates and durations are published or measured:

- blinks: 26 a minute in conversation, log-normal intervals, half of them partial, closing faster than opening
  (Bentivoglio et al. 1997; Doughty 2001); 100 to 150 ms at half height and fewer in fear and surprise (RAVDESS, AU45 of
  OpenFace); moved towards pauses.
- gaze: fixations of about a second, saccades of a few degrees in 40 to 60 ms.
- head: standard deviations of a seated speaker (GRID s1: pitch .57, yaw .36, roll .21 degrees in three seconds), twice
  as large for a speaker who does not read; nods at the accents of the voice.
- brows: raised a little at every other accent, as in Cassell et al. 1994.
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
PARTIAL_BLINKS = 0.5  # share of the blinks that do not close the eye fully
PARTIAL_DEPTH, FULL_DEPTH = (0.55, 0.8), (0.92, 1.0)  # ranges of closure, 1 is closed
BLINK_RATES = {"sad": 1.0, "disgust": 0.95, "happy": 0.9, "angry": 0.85, "surprise": 0.55, "fear": 0.45}  # of neutral's
CLOSING, SHUT, OPENING = 0.08, 0.02, 0.14  # seconds
PAUSE = 0.12  # seconds, the shortest pause; stop consonants have shorter gaps
PAUSE_DISTANCE = 0.5  # seconds; a blink moves to the start of a pause within this distance

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
    """Strength of each part; 0 disables it."""

    blinks: float = 1.0
    gaze: float = 1.0
    head: float = 1.0
    brows: float = 1.0


@dataclass(frozen=True)
class IdleMotion:
    """Idle motion at 50 Hz."""

    brows: Float  # (T,) raised, 0..1
    gaze: Float  # (T, 2) degrees to the person's left and up
    lids: Float  # (T,) closed, 0..1
    head: Float  # (T, 3) pitch, yaw and roll, degrees

    def apply(self, weights: Float, start: int = 0) -> Float:
        """A copy of the weights (n, 52) of the frames from `start` on, with idle motion."""
        part, result = slice(start, start + len(weights)), weights.astype(np.float32)
        _raise_brows(result, self.brows[part])
        _turn_eyes(result, self.gaze[part])
        _close_lids(result, self.lids[part])
        return np.clip(result, 0, 1)


def generate_idle_motion(
    track: EmotionTrack, loudness_db: Float, frames: int, seed: int = 0, strengths: IdleMotionConfig | None = None
) -> IdleMotion:
    """Idle motion for `frames` frames of 20 ms.

    Args:
        track: the emotion, which changes the rate of the blinks.
        loudness_db: (T,) of the speech at 50 Hz, dB of full scale.
        seed: the same seed gives the same motion.
        strengths: of each part.
    """
    strengths = strengths or IdleMotionConfig()
    decibels = _pad_silence(loudness_db, frames)
    speaking = detect_speech(decibels, bridge=PAUSE)
    peaks = find_accents(decibels, speaking)
    blink_rng, gaze_rng, head_rng, brow_rng = (np.random.default_rng([seed, part]) for part in range(4))
    return IdleMotion(
        strengths.brows * _brow_curve(peaks, frames, brow_rng),
        strengths.gaze * _gaze(frames, gaze_rng),
        strengths.blinks * generate_blinks(_blink_rate(track, frames), speaking, blink_rng),
        strengths.head * _head_angles(speaking, peaks, head_rng),
    )


def generate_blinks(rate: Float, speaking: NDArray[np.bool_], rng: np.random.Generator) -> Float:
    """Closure (T,) of the lids, 0 open to 1 closed, at a rate (T,) relative to that of a calm speaker.

    A blink that moves to a pause does not move the next ones, so that the mean rate does not change.
    """
    frames = len(rate)
    lids = np.zeros(frames, np.float32)
    pauses = np.flatnonzero(speaking[:-1] & ~speaking[1:]) / FRAME_RATE
    mean = np.log(BLINK_INTERVAL) - BLINK_SPREAD**2 / 2
    time = float(rng.uniform(0.3, BLINK_INTERVAL))
    last = -BLINK_LEAST
    while time < frames / FRAME_RATE:
        near = pauses[np.abs(pauses - time) < PAUSE_DISTANCE]
        near = near[near - last > BLINK_LEAST]
        start = float(near[0]) if len(near) else max(time, last + BLINK_LEAST)
        if start >= frames / FRAME_RATE:
            break
        depth = rng.uniform(*(PARTIAL_DEPTH if rng.uniform() < PARTIAL_BLINKS else FULL_DEPTH))
        first = int(start * FRAME_RATE)
        curve = np.float32(depth) * _lid_curve(float(rng.uniform(0.9, 1.15)))[: frames - first]
        lids[first : first + len(curve)] = np.maximum(lids[first : first + len(curve)], curve)
        last = start
        pace = max(0.2, float(rate[int(time * FRAME_RATE)]))
        time += max(BLINK_LEAST, float(rng.lognormal(mean, BLINK_SPREAD)) / pace)
    return lids


def find_accents(decibels: Float, speaking: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """Frames and strengths (0..1) of the accents of the voice: peaks of loudness over their neighbourhood."""
    audible = np.maximum(decibels, np.percentile(decibels, 95) - 30)
    prominence = np.where(speaking, smooth(audible, 0.06 * FRAME_RATE) - smooth(audible, 0.5 * FRAME_RATE), 0)
    peaks: list[tuple[int, float]] = []
    taken = np.zeros(len(prominence), bool)
    reach = int(ACCENT_APART * FRAME_RATE)
    candidates = np.flatnonzero(prominence > ACCENT_DB)
    for frame in candidates[np.argsort(-prominence[candidates])]:
        if not taken[frame]:
            peaks.append((int(frame), float(min(1.0, prominence[frame] / ACCENT_FULL_DB))))
            taken[max(0, frame - reach) : frame + reach] = True
    return sorted(peaks)


def head_transforms(degrees: Float, pivot: Float) -> Float:
    """Rigid motions (T, 4, 4): rotations by pitch, yaw and roll (T, 3) in degrees about a point (3,) in metres."""
    motion = np.tile(np.eye(4, dtype=np.float32), (len(degrees), 1, 1))
    motion[:, :3, :3] = rotation_matrices(degrees)
    motion[:, :3, 3] = pivot - motion[:, :3, :3] @ pivot
    return motion


def _pad_silence(decibels: Float, frames: int) -> Float:
    """Cut a loudness (T,) to `frames`, or continue it with silence."""
    return np.pad(decibels[:frames], (0, max(0, frames - len(decibels))), constant_values=FLOOR)


def _blink_rate(track: EmotionTrack, frames: int) -> Float:
    posterior, intensity = track.at_rate(FRAME_RATE, frames)
    rates = np.array([BLINK_RATES.get(label, 1.0) for label in track.labels], np.float32)
    return 1 + intensity * (posterior @ rates - 1)


def _lid_curve(pace: float) -> Float:
    """Closure (n,) of the lids during a blink of `pace` times the mean duration."""
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
        target = rng.normal(0, GAZE_DEGREES) * (rng.uniform() < 0.6)  # 40 % of the fixations are on the listener
        aim[int(time * FRAME_RATE) : int((time + length) * FRAME_RATE)] = target
        time += length
    return smooth(aim, SACCADE * FRAME_RATE / 2.5)


def _head_angles(speaking: NDArray[np.bool_], peaks: list[tuple[int, float]], rng: np.random.Generator) -> Float:
    """Pitch, yaw and roll (T, 3) in degrees; pitch down is positive."""
    frames = len(speaking)
    width = HEAD_SMOOTHING * FRAME_RATE
    noise = smooth(rng.normal(size=(frames, 3)).astype(np.float32), width)
    noise *= np.sqrt(2 * width * np.sqrt(np.pi))  # smoothing reduces the standard deviation by this factor
    activity = HEAD_AT_REST + (1 - HEAD_AT_REST) * smooth(speaking.astype(np.float32), 0.3 * FRAME_RATE)
    degrees = noise * np.array(HEAD_DEGREES, np.float32) * activity[:, None]
    for frame, strength in peaks:
        _add_bump(degrees[:, 0], frame, NOD_DEGREES * strength * rng.uniform(0.3, 1.0), NOD_SECONDS)
    return degrees


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
    """Rotate both eyes by degrees (T, 2) to the person's left and up."""
    left, up = degrees.T
    angles = {
        "LookOutLeft": left, "LookInRight": left, "LookInLeft": -left, "LookOutRight": -left,
        "LookUpLeft": up, "LookUpRight": up, "LookDownLeft": -up, "LookDownRight": -up,
    }  # fmt: skip
    for name, angle in angles.items():
        side = name.removeprefix("Look").removesuffix("Left").removesuffix("Right")
        weights[:, ARKIT_NAMES.index(f"eye{name}")] += np.maximum(angle, 0) / EYE_DEGREES[side]


def _close_lids(weights: Float, closed: Float) -> None:
    """Close the open part of the lids by `closed` (T,); wide and narrowed eyes relax, or the lids would intersect."""
    for side in ("Left", "Right"):
        blink, wide, squint = (ARKIT_NAMES.index(f"eye{name}{side}") for name in ("Blink", "Wide", "Squint"))
        weights[:, blink] += closed * (1 - weights[:, blink])
        weights[:, wide] *= 1 - closed
        weights[:, squint] *= 1 - 0.7 * closed
