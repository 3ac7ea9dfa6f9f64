"""Idle motion of a face: blinks, gaze, movements of the head, and brows and lids that are never still.

A causal, seeded layer over the talker's coefficients, driven by loudness and pitch of the voice and by the emotion. It
changes the weights of eyes and brows and the rigid motion of the head, never the mouth. Rates and durations are
published or measured:

- blinks: 26 a minute in conversation and 17 at rest, log-normal intervals, half of them partial, closing faster than
  opening (Bentivoglio et al. 1997; Doughty 2001); 100 to 150 ms at half height and fewer in fear and surprise (RAVDESS,
  AU45 of OpenFace); moved towards pauses.
- gaze: fixations of about a second, saccades of a few degrees in 40 to 60 ms; the eyes make up for the head's turns.
- head: it rises and falls with the pitch of the voice (Yehia et al. 2002; Munhall et al. 2004), below 1 Hz, and nods at
  stressed syllables; standard deviations of a seated speaker (GRID s1: pitch .57, yaw .36, roll .21 degrees in three
  seconds), twice as large for a speaker who does not read.
- brows: raised a little at every other stressed syllable, as in Cassell et al. 1994.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.emotion.vad import SILENCE_LEVEL, SPEECH_RANGE
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.kernels import compiler
from sedtalker.mel import FRAME_RATE
from sedtalker.rotations import rotation_matrices

Float = NDArray[np.float32]
Double = NDArray[np.float64]

LOOK_AHEAD = 3  # frames of prosody after a frame; every encoder that streams waits longer than that


class EmotionEffect(NamedTuple):
    """Effect of an emotion at full intensity on the idle motion."""

    blinks: float = 1.0  # rate of the blinks over that of neutral
    gaze_down: float = 0.0  # degrees
    wander: float = 1.0  # size of the gaze's excursions over that of neutral
    head_down: float = 0.0  # degrees


EMOTION_EFFECTS = {
    "happy": EmotionEffect(0.9),
    "sad": EmotionEffect(1.0, gaze_down=7.0, head_down=3.0),
    "angry": EmotionEffect(0.85, wander=0.5, head_down=1.0),
    "upset": EmotionEffect(0.9, gaze_down=2.0),
    "disgust": EmotionEffect(0.95, wander=1.4, head_down=-1.0),
    "fear": EmotionEffect(0.45, wander=1.3, head_down=-0.5),
    "surprise": EmotionEffect(0.55, wander=0.5, head_down=-1.0),
}
"""Rates of blinks as in RAVDESS; directions of the gaze as in Adams & Kleck 2005 (sadness averts it downwards)."""

SPEECH_DECAY, NOISE_RISE = 1.0, 2.0  # dB a second: of the level of loud speech, and of that of the background
OVER_NOISE = 6.0  # dB over the background from which a frame is speech
PAUSE = 6  # frames, the shortest pause; stop consonants have shorter gaps

BLINK_INTERVAL, REST_INTERVAL = 60 / 26, 60 / 17  # seconds, the mean in conversation and at rest
BLINK_SPREAD = 0.5  # of the intervals' logarithm
BLINK_LEAST = 0.8  # seconds between two blinks
PARTIAL_BLINKS = 0.5  # share of the blinks that do not close the eye fully
PARTIAL_DEPTH, FULL_DEPTH = (0.55, 0.8), (0.92, 1.0)  # ranges of closure, 1 is closed
CLOSING, SHUT, OPENING = 0.08, 0.02, 0.14  # seconds
PAUSE_SHARE = 0.8  # of an interval, after which a pause of the voice brings the blink

FIXATION, SHORTEST_FIXATION = 1.1, 0.35  # seconds
GAZE_DEGREES = (2.6, 1.4)  # standard deviation of the target to the side, and up or down
CONTACT = 0.4  # share of the fixations that are on the listener
SACCADE = 3  # frames
EYE_DEGREES = {"In": 15.0, "Out": 15.0, "Up": 9.8, "Down": 11.4}  # turned by a weight of 1 of eyeLook...
LID_FOLLOWS = 0.015  # closure of the lids a degree of gaze down

HEAD_DEGREES = (0.8, 0.9, 0.5)  # standard deviation of pitch, yaw and roll while speaking, besides the voice's part
HEAD_AT_REST = 0.5  # share of it in silence
HEAD_SECONDS = 0.16  # time constant, twice, of the head's following
SEMITONE_DEGREES, SEMITONES = 0.45, 6.0  # the head rises by this a semitone, up to so many
ACTIVITY_SECONDS, PITCH_SECONDS, HOLD_SECONDS = 0.3, 4.0, 0.5  # of speech, of the mean pitch, of unvoiced sounds
EMOTION_SECONDS = 0.7
FAST_SECONDS, SLOW_SECONDS = 0.05, 0.6  # of the loudness whose difference shows stress
ACCENT_DB, ACCENT_FULL_DB = 3.0, 9.0  # stress from which a syllable counts, and counts fully; a semitone counts as 1 dB
ACCENT_FALL = 0.5  # dB after the peak at which it is known to be one
ACCENT_APART = 20  # frames
NOD_DEGREES, NOD_SECONDS = 1.55, 0.2  # at full stress, and the time from its start to its peak
BROW_SECONDS = 0.12
BROW_RAISE = {"browInnerUp": 0.16, "browOuterUpLeft": 0.20, "browOuterUpRight": 0.20}
BROW_LOWER = {"browDownLeft": 0.10, "browDownRight": 0.10}
BROW_DRIFT, LID_DRIFT = 0.4, 0.05  # standard deviation of the brows' drift; mean closure of the lids' drift

HEAD_BAND, FACE_BAND = (0.08, 0.5), (0.25, 0.9)  # Hz, of the drifts of the head, and of brows and lids
WAVES = 8  # sinusoids of a drift

compiled = compiler(nogil=True, error_model="numpy")


@dataclass(frozen=True)
class IdleMotionConfig:
    """Strength of each part; 0 disables it."""

    blinks: float = 1.0
    gaze: float = 1.0
    head: float = 1.0
    brows: float = 1.0


STILL = IdleMotionConfig(0, 0, 0, 0)


class IdleMotion(NamedTuple):
    """Idle motion of n frames of 20 ms."""

    brows: Float  # (n,) raised, or lowered below 0
    lids: Float  # (n,) closed, 0..1
    gaze: Float  # (n, 2) degrees to the person's left and up
    head: Float  # (n, 3) pitch (positive is down), yaw and roll, degrees
    speech: Float  # (n,) 1 while the voice speaks, else 0

    def apply(self, weights: Float) -> Float:
        """A copy of the weights (n, 52) with this motion."""
        return apply_idle_motion(weights, self.brows, self.lids, self.gaze)


def apply_idle_motion(weights: Float, brows: Float, lids: Float, gaze: Float) -> Float:
    """A copy of the weights (n, 52), clipped to 0..1, with the parts of `IdleMotion`."""
    result = np.array(weights, np.float32, order="C")
    _apply(result, *(np.ascontiguousarray(part, np.float32) for part in (brows, lids, gaze)))
    return result


@compiled
def _apply(weights: Float, brows: Float, lids: Float, gaze: Float) -> None:
    """Change weights (n, 52) as `apply_idle_motion`."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for t in range(weights.shape[0]):
        row, closed = weights[t], lids[t]
        up, down = min(max(brows[t], zero), one), min(max(-brows[t], zero), one)
        for i, share in zip(_BROW_RAISE, _RAISE_SHARES):  # noqa: B905 - numba does not know `strict`
            row[i] += share * up * (one - row[i])
        for i, share in zip(_BROW_LOWER, _LOWER_SHARES):  # noqa: B905
            row[i] += share * down * (one - row[i])
            row[i] *= one - share * up  # raising relaxes brows that are down
        for n in range(_EYES.shape[0]):
            angle = _EYE_SIGNS[n, 0] * gaze[t, 0] + _EYE_SIGNS[n, 1] * gaze[t, 1]
            row[_EYES[n]] += max(angle, zero) / _EYE_DEGREES[n]
        for side in range(2):  # wide and narrowed eyes relax, or the lids would intersect
            row[_BLINK[side]] += closed * (one - row[_BLINK[side]])  # closes the open part
            row[_WIDE[side]] *= one - closed
            row[_SQUINT[side]] *= one - np.float32(0.7) * closed
        for i in range(row.shape[0]):
            row[i] = min(max(row[i], zero), one)


@compiled
def _add_waves(first: int, rates: Double, phases: Double, y: Double) -> None:
    """y (n, channels) = sums of sinusoids with rates (channels, WAVES) a frame and phases, from frame `first` on."""
    for t in range(y.shape[0]):
        for channel in range(y.shape[1]):
            total = 0.0
            for wave in range(rates.shape[1]):
                total += math.sin((first + t) * rates[channel, wave] + phases[channel, wave])
            y[t, channel] = total * math.sqrt(2 / WAVES)


@compiled
def _combine(rows: Double, turns: Double, face: Double, strengths: Double, motion: Float) -> None:
    """Fill the columns of `IdleMotion` in motion (n, 8).

    Args:
        rows: (n, 7) of `IdleMotionGenerator._step`.
        turns: (n, 3), drift of the head.
        face: (n, 2), drift of brows and lids.
        strengths: (4,) of `IdleMotionConfig`.
    """
    blinking, looking, turning, moving = strengths
    for t in range(rows.shape[0]):
        brows, lids, left, up, nod, activity, speech = rows[t]
        pitch = turning * (turns[t, 0] * HEAD_DEGREES[0] * activity + nod)
        yaw = turning * (turns[t, 1] * HEAD_DEGREES[1] * activity)
        roll = turning * (turns[t, 2] * HEAD_DEGREES[2] * activity)
        left, up = left - yaw, up + pitch
        drift = min(max(LID_DRIFT * (1 + 0.5 * face[t, 1]), 0.0), 1.0) + LID_FOLLOWS * max(0.0, -up)
        own = motion[t]
        own[0] = moving * (brows + BROW_DRIFT * face[t, 0])
        own[1] = 1 - (1 - blinking * lids) * (1 - looking * drift)
        own[2], own[3] = looking * left, looking * up
        own[4], own[5], own[6] = pitch, yaw, roll
        own[7] = speech


class Drift:
    """Smooth noise of a standard deviation of 1: sinusoids with random frequencies and phases."""

    def __init__(self, rng: np.random.Generator, band: tuple[float, float], channels: int) -> None:
        low, high = np.log(band)
        edges = np.linspace(low, high, WAVES + 1)
        self._rates = 2 * np.pi * np.exp(rng.uniform(edges[:-1], edges[1:], (channels, WAVES))) / FRAME_RATE
        self._phases = rng.uniform(0, 2 * np.pi, (channels, WAVES))

    def __call__(self, first: int, frames: int) -> NDArray[np.float64]:
        """(frames, channels) from frame `first` on."""
        waves = np.empty((frames, len(self._rates)))
        _add_waves(first, self._rates, self._phases, waves)
        return waves


class _Voice:
    """Speech, stress and intonation of a frame, from loudness and pitch."""

    def __init__(self) -> None:
        self.speaking, self.accent, self.intonation = False, 0.0, 0.0  # accent: 0..1; intonation: semitones
        self.pause_starts = False
        self._loud, self._noise, self._quiet = -30.0, SILENCE_LEVEL, PAUSE
        self._fast = self._slow = SILENCE_LEVEL
        self._pitch, self._voiced = 0.0, 0  # mean of log2 of the pitch, and number of voiced frames
        self._peak, self._since = 0.0, ACCENT_APART

    def step(self, loudness: float, pitch: float) -> None:
        self._loud = max(loudness, self._loud - SPEECH_DECAY / FRAME_RATE)
        self._noise = max(SILENCE_LEVEL - OVER_NOISE, min(loudness, self._noise + NOISE_RISE / FRAME_RATE))
        active = loudness > max(self._loud - SPEECH_RANGE, self._noise + OVER_NOISE)
        self._quiet = 0 if active else min(PAUSE, self._quiet + 1)
        self.pause_starts = self.speaking and self._quiet == PAUSE
        self.speaking = self._quiet < PAUSE
        if pitch:
            self._voiced += 1
            octave = math.log2(pitch)
            self._pitch += (octave - self._pitch) * max(1 / self._voiced, _share(PITCH_SECONDS))
            self.intonation = min(max(12 * (octave - self._pitch), -SEMITONES), SEMITONES)
        else:
            self.intonation -= self.intonation * _share(HOLD_SECONDS)
        self._find_accent(max(loudness, self._loud - SPEECH_RANGE))

    def _find_accent(self, loudness: float) -> None:
        """Set `accent` in the frame after a peak of stress."""
        self._fast += (loudness - self._fast) * _share(FAST_SECONDS)
        self._slow += (loudness - self._slow) * _share(SLOW_SECONDS)
        stress = self._fast - self._slow + self.intonation if self.speaking else 0.0
        self._peak, self._since, self.accent = max(self._peak, stress), self._since + 1, 0.0
        if stress < self._peak - ACCENT_FALL:
            if self._peak > ACCENT_DB and self._since >= ACCENT_APART:
                self.accent, self._since = min(1.0, self._peak / ACCENT_FULL_DB), 0
            self._peak = stress


class _Bump:
    """Sum of bumps that rise smoothly from 0 to 1 in `seconds` and fall in two to three times that."""

    def __init__(self, seconds: float) -> None:
        times = np.arange(1, 6 * seconds * FRAME_RATE) / (seconds * FRAME_RATE)
        self._curve = (times**2 * np.exp(2 - 2 * times)).tolist()  # its slope is 0 at the start, 1.7 / seconds at most
        self._bumps: list[tuple[int, float]] = []  # age in frames, and height

    def step(self, height: float = 0.0) -> float:
        """The next value; `height` starts a bump."""
        if height:
            self._bumps.append((0, height))
        value = sum(size * self._curve[age] for age, size in self._bumps)
        self._bumps = [(age + 1, size) for age, size in self._bumps if age + 1 < len(self._curve)]
        return float(value)


class _Blinks:
    """Closure of the lids."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._at = rng, 0
        self._curve: Float = np.zeros(0, np.float32)
        self._mean = -(BLINK_SPREAD**2) / 2
        self._elapsed, self._due = rng.uniform(0, 0.8), 1.0  # mean intervals since the last blink, and until the next
        self._since = BLINK_LEAST  # seconds

    def step(self, rate: float, pause_starts: bool) -> float:
        """Closure, 0..1, at a rate in blinks a second.

        A blink that a pause brings forward delays the next one, so that the mean rate does not change.
        """
        self._elapsed += rate / FRAME_RATE
        self._since += 1 / FRAME_RATE
        if self._since >= BLINK_LEAST and self._elapsed >= self._due * (PAUSE_SHARE if pause_starts else 1):
            self._elapsed, self._since, self._at = self._elapsed - self._due, 0.0, 0
            self._due = float(self._rng.lognormal(self._mean, BLINK_SPREAD))
            depth = self._rng.uniform(*(PARTIAL_DEPTH if self._rng.uniform() < PARTIAL_BLINKS else FULL_DEPTH))
            self._curve = np.float32(depth) * _lid_curve(float(self._rng.uniform(0.9, 1.15)))
        self._at += 1
        return float(self._curve[self._at - 1]) if self._at <= len(self._curve) else 0.0


class _Gaze:
    """Fixations and saccades."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._at, self._end = rng, 0, 0
        self._before = self._aim = (0.0, 0.0)

    def step(self, wander: float, down: float) -> tuple[float, float]:
        """Degrees to the person's left and up; a new target takes the emotion's direction."""
        if self._at >= self._end:
            self._end = round(max(SHORTEST_FIXATION, float(self._rng.exponential(FIXATION))) * FRAME_RATE)
            excursion, contact = self._rng.normal(0, GAZE_DEGREES).tolist(), self._rng.uniform() < CONTACT
            self._before, self._at = self._aim, 0
            if contact:
                self._aim = 0.0, -down * CONTACT
            else:
                self._aim = wander * excursion[0], wander * excursion[1] - down
        self._at += 1
        share = min(1.0, self._at / SACCADE)
        eased = share * share * (3 - 2 * share)
        left, up = (before + (aim - before) * eased for before, aim in zip(self._before, self._aim, strict=True))
        return left, up


class IdleMotionGenerator:
    """Idle motion frame by frame; it does not depend on the sizes of the chunks."""

    def __init__(self, labels: tuple[str, ...], seed: int = 0, strengths: IdleMotionConfig | None = None) -> None:
        """The same seed gives the same motion; `strengths` are of each part."""
        self._strengths = np.array(astuple(strengths or IdleMotionConfig()), np.float64)
        self._neutral = np.array(EmotionEffect())
        self._effects = np.array([EMOTION_EFFECTS.get(label, EmotionEffect()) for label in labels]) - self._neutral
        blink, gaze, head, brow, drift = (np.random.default_rng([seed, part]) for part in range(5))
        self._blinks, self._gaze, self._rng = _Blinks(blink), _Gaze(gaze), brow
        self._head_drift, self._face_drift = Drift(head, HEAD_BAND, 3), Drift(drift, FACE_BAND, 2)
        self._voice, self._nod, self._brow = _Voice(), _Bump(NOD_SECONDS), _Bump(BROW_SECONDS)
        self._activity = self._head_down = 0.0
        self._rise = [0.0, 0.0]
        self._frames = 0

    def push(self, prosody: Float, posterior: Float, intensity: Float) -> IdleMotion:
        """Motion of the next n frames.

        Args:
            prosody: (n, 2) of `ProsodyTracker`, `LOOK_AHEAD` frames later than the others.
            posterior: (n, C) over the labels.
            intensity: (n,).
        """
        effects = (self._neutral + intensity[:, None] * (posterior @ self._effects)).tolist()
        rows = [self._step(*values, *effect) for values, effect in zip(prosody.tolist(), effects, strict=True)]
        frames, motion = len(rows), np.empty((len(rows), 8), np.float32)
        drifts = self._head_drift(self._frames, frames), self._face_drift(self._frames, frames)
        _combine(np.array(rows, np.float64).reshape(-1, 7), *drifts, self._strengths, motion)
        self._frames += frames
        return IdleMotion(motion[:, 0], motion[:, 1], motion[:, 2:4], motion[:, 4:7], motion[:, 7])

    def _step(
        self, loudness: float, pitch: float, blinks: float, down: float, wander: float, head_down: float
    ) -> tuple[float, ...]:
        """Brows, lids, gaze (2), pitch of the head and activity, besides the drifts, and speech of a frame."""
        voice = self._voice
        voice.step(loudness, pitch)
        self._activity += (voice.speaking - self._activity) * _share(ACTIVITY_SECONDS)
        self._head_down += (head_down - self._head_down) * _share(EMOTION_SECONDS)
        rise = voice.intonation if voice.speaking else 0.0
        for number in range(2):
            self._rise[number] += (rise - self._rise[number]) * _share(HEAD_SECONDS)
            rise = self._rise[number]
        nod = brow = 0.0
        if voice.accent:
            nod, raised, size = self._rng.uniform((0.3, 0, 0.5), 1.0)
            brow = size * voice.accent * (raised < 0.5)
        pitch_down = NOD_DEGREES * self._nod.step(nod * voice.accent) - SEMITONE_DEGREES * rise + self._head_down
        interval = BLINK_INTERVAL if self._activity > 0.1 else REST_INTERVAL
        return (
            self._brow.step(brow),
            self._blinks.step(max(0.2, blinks) / interval, voice.pause_starts),
            *self._gaze.step(wander, down),
            pitch_down,
            HEAD_AT_REST + (1 - HEAD_AT_REST) * self._activity,
            voice.speaking,
        )


@lru_cache(maxsize=32)
def _share(seconds: float) -> float:
    """Share of the difference that a low pass of this time constant takes in one frame."""
    return 1 - math.exp(-1 / (seconds * FRAME_RATE))


def head_transforms(degrees: Float, pivot: Float) -> Float:
    """Rigid motions (T, 4, 4): rotations by pitch, yaw and roll (T, 3) in degrees about a point (3,) in metres."""
    motion = np.tile(np.eye(4, dtype=np.float32), (len(degrees), 1, 1))
    motion[:, :3, :3] = rotation_matrices(degrees)
    motion[:, :3, 3] = pivot - motion[:, :3, :3] @ pivot
    return motion


def _lid_curve(pace: float) -> Float:
    """Closure (n,) of the lids during a blink of `pace` times the mean duration."""
    times = np.arange(0.5, (CLOSING + SHUT + OPENING) * pace * FRAME_RATE + 1) / FRAME_RATE
    closing = np.clip(times / (CLOSING * pace), 0, 1)
    opening = np.clip((times - (CLOSING + SHUT) * pace) / (OPENING * pace), 0, 1)
    return (np.sin(0.5 * np.pi * closing) ** 2 * np.cos(0.5 * np.pi * opening) ** 2).astype(np.float32)


def _columns(names: Iterable[str]) -> NDArray[np.int64]:
    return np.array([ARKIT_NAMES.index(name) for name in names])


_BROW_RAISE, _BROW_LOWER = _columns(BROW_RAISE), _columns(BROW_LOWER)
_RAISE_SHARES, _LOWER_SHARES = (np.array(list(table.values()), np.float32) for table in (BROW_RAISE, BROW_LOWER))
_EYE_DIRECTIONS = ("OutLeft", "InRight", "InLeft", "OutRight", "UpLeft", "UpRight", "DownLeft", "DownRight")
_EYES = _columns(f"eyeLook{name}" for name in _EYE_DIRECTIONS)
_EYE_SIGNS = np.array([[1, 0]] * 2 + [[-1, 0]] * 2 + [[0, 1]] * 2 + [[0, -1]] * 2, np.float32)  # of left and up
_EYE_DEGREES = np.array(
    [EYE_DEGREES[name.removesuffix("Left").removesuffix("Right")] for name in _EYE_DIRECTIONS], np.float32
)
_BLINK, _WIDE, _SQUINT = (
    _columns(f"eye{name}{side}" for side in ("Left", "Right")) for name in ("Blink", "Wide", "Squint")
)
