"""Speech with known phones -> the motion of a face that says it with feeling, at 50 Hz.

Phones become gestures towards their visemes; neighbouring gestures blend by dominance (Cohen & Massaro 1993);
closures of /p b m/ and contacts of /f v/ are then laid over the blend, because a mean of neighbours never closes, and
in silence the lips are shut. The expression of the emotion track comes on and goes off slowly, gives way in the lower
face while speaking, and never opens a closure or a silent mouth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import smooth
from sedtalker.face import action_units as actions
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE, MOUTH_FUNNEL, MOUTH_PUCKER, arkit_columns
from sedtalker.face.visemes import (
    BILABIALS,
    LABIODENTALS,
    OPENERS,
    PHONES,
    SHAPE_CHANNELS,
    VISEMES,
    Viseme,
    shape_targets,
    split_opening,
)
from sedtalker.labels import LABELS
from sedtalker.phones import SILENCE, Phone
from sedtalker.speech import FRAME_RATE

Float = NDArray[np.float32]

# Widths of the dominance functions: a share of the phone's duration, and a floor, the speed of the articulator. Those
# of the opening and its anticipation were fitted to GRID s1's tracked lip gap. His lag fits at 0.036, with which other
# voices' lips run 1 ms ahead of the loudness to 10 ms after it; measured mouths follow by 11 and 24 ms.
OPENING_SPREAD, OPENING_FLOOR = 0.16, 0.067  # seconds
OPENING_LAG = 0.054  # seconds by which a gesture's peak follows the middle of its phone
AMPLITUDE_CORRECTION = 1.12  # least squares shrinks what it predicts; this gives back the tracked spread
ANTICIPATION = 0.35  # a gesture grows over a time this much longer, and fades over one this much shorter
SHAPE_SPREAD, SHAPE_FLOOR = 0.40, 0.060
SHAPE_LEAD = 0.010  # seconds by which rounding and spreading run ahead of the sound
SHORT_PAUSE = 0.12  # seconds; a mouth does not shut in a shorter one

CLOSING, RELEASE = 0.065, 0.105  # seconds of the closure's ramps; the lips shut a third faster than they part
CLOSED_SHARE, CLOSED_LEAST, CLOSED_MOST = 0.70, 0.040, 0.075  # of the phone, and seconds, that they stay shut
FULLY = 0.999  # of a closure, from which the lips must meet
CONTACT_OPENING = 0.025  # opening at which the lower lip touches the upper teeth
QUIET_OPENING, QUIET_CLOSING = 0.09, 0.11  # seconds of the ramps before the first sound and after the last one
SHUT = 0.02  # of the opening, under which the lips count as shut in silence

EFFORT_PER_DB, EFFORT_RANGE = 0.018, (0.75, 1.30)  # opening grows with loudness over the clip's median

# Time constants in seconds: 10 to 90 % in 0.35 and 0.66 s. RAVDESS' actors take .4 to .8 and .4 to 1.0 s, and all
# but the sad are half way .04 to .10 s before the voice sets in (`corpora.fit_expression`, the tracker's smoothing
# included).
ONSET, RELEASE_OF_EMOTION = 0.16, 0.30
EMOTION_LEAD = 0.10  # seconds by which a face runs ahead of the emotion in the voice
SPEECH_DAMPING = 0.25  # share of the lower face's expression that speaking takes
CONTACT_DAMPING = 0.6  # share of what parts the lips that a contact of lip and teeth takes
ROUNDING_DAMPING, FULL_ROUNDING = 0.85, 0.6  # share of a smile or a stretch that rounding takes, and when it is full
EFFORT_OF_EMOTION = {"angry": 0.15, "surprise": 0.12, "happy": 0.10, "fear": 0.08, "upset": -0.08, "sad": -0.12}
"""How much wider than in neutral speech the mouth opens at full intensity; in RAVDESS' action units 25 and 26 angry,
surprised, happy and fearful speech opens wider, and sad speech less."""
LOWER_FACE = tuple(i for i, name in enumerate(ARKIT_NAMES) if name.startswith(("mouth", "jaw")))
WIDENERS = tuple(i for name in ("mouthSmile", "mouthStretch", "mouthDimple", "mouthFrown") for i in arkit_columns(name))
OPENING_CHANNELS = tuple(i for name in OPENERS for i in arkit_columns(name))


@dataclass(frozen=True)
class SpeakerStyle:
    """How one speaker moves, about the mean of 1."""

    jaw: float = 1.0
    rounding: float = 1.0
    expressiveness: float = 1.0
    asymmetry: float = 0.0  # of expressions: left over right, -0.1..0.1

    @classmethod
    def random(cls, rng: np.random.Generator) -> SpeakerStyle:
        """A speaker at random."""
        jaw, rounding, expressiveness = np.clip(rng.normal(1.0, 0.08, 3), 0.8, 1.2).tolist()
        return cls(jaw, rounding, expressiveness, float(np.clip(rng.normal(0, 0.04), -0.1, 0.1)))


@dataclass(frozen=True)
class Performance:
    """A made performance at 50 Hz."""

    weights: Float  # (T, 52)
    expression: Float  # (T, 52): what the emotion adds; weights - expression is the neutral performance
    closed: Float  # (T,): 1 where /p b m/ must be closed
    quiet: Float  # (T,): 1 where nobody speaks and the lips are shut
    free: Float  # (T,): 1 where no closure, contact or silence decides how far the mouth is open


@dataclass(frozen=True)
class Gesture:
    """A movement towards a viseme."""

    viseme: Viseme
    centre: float  # seconds
    duration: float


def perform(
    phones: Sequence[Phone], decibels: Float, posterior: Float, intensity: Float, voice: SpeakerStyle | None = None
) -> Performance:
    """The motion (T, 52) of speech with these phones, loudness (T,) in dB, posterior (T, 8) and intensity (T,)."""
    voice = voice or SpeakerStyle()
    times = ((np.arange(len(decibels)) + 0.5) / FRAME_RATE).astype(np.float32)
    shut = LipConstraints(closure_curve(phones, times), contact_curve(phones, times), silence_curve(phones, times))
    speaking = _speaking(phones, times)
    lips = _lips(phones, decibels, times, shut, speaking, voice)
    felt = expression_curves(posterior, intensity, voice)
    felt[:, JAW_OPEN] += emotional_effort(posterior, intensity) * (lips[:, JAW_OPEN] - lips[:, MOUTH_CLOSE])
    face = _with_expression(lips, felt, shut, speaking)
    return Performance(
        weights=face,
        expression=face - lips,
        closed=full_closures(shut.closure),
        quiet=(shut.silence > 1 - SHUT).astype(np.float32),
        free=shut.parted * (1 - shut.contact),
    )


@dataclass(frozen=True)
class LipConstraints:
    """What shuts a mouth, each (T,) in 0 (free) to 1."""

    closure: Float  # by /p b m/
    contact: Float  # of the lower lip and the teeth, by /f v/
    silence: Float

    @property
    def parted(self) -> Float:
        """Share (T,) of an opening that is left."""
        return (1 - self.closure) * (1 - self.silence)


def closure_curve(phones: Sequence[Phone], times: Float) -> Float:
    """How far the lips are shut (T,) by /p b m/: 0 free, 1 shut."""
    shut = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name in BILABIALS:
            opening_dominance = np.clip(CLOSED_SHARE * (phone.end - phone.start), CLOSED_LEAST, CLOSED_MOST)
            shut = np.maximum(shut, _plateau(times, phone.start, phone.start + opening_dominance, CLOSING, RELEASE))
    return shut


def full_closures(closure: Float) -> Float:
    """(T,) 1 where a closure (T,) is such that the lips must meet."""
    return (closure >= FULLY).astype(np.float32)


def contact_curve(phones: Sequence[Phone], times: Float) -> Float:
    """How far the lower lip is at the upper teeth (T,) by /f v/: 0 free, 1 touching."""
    touch = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name in LABIODENTALS:
            middle, half = (phone.start + phone.end) / 2, max(0.25 * (phone.end - phone.start), 0.02)
            touch = np.maximum(touch, _plateau(times, middle - half, middle + half, CLOSING, RELEASE))
    return touch


def silence_curve(phones: Sequence[Phone], times: Float) -> Float:
    """How far the lips are shut (T,) because nobody speaks: 0 free, 1 shut.

    They part shortly before a sound and shut shortly after it; at the ends of a recording there is silence beyond.
    """
    shut = np.zeros(len(times), np.float32)
    pauses = [p for p in merge_silences(phones) if p.end - p.start >= SHORT_PAUSE]
    last = phones[-1].end if phones else np.inf  # a recording may be longer than its phones
    for pause in pauses or ([Phone("", SILENCE, 0.0, np.inf)] if not phones else []):
        start = pause.start + QUIET_CLOSING if pause.start > 0 else -np.inf
        end = pause.end - QUIET_OPENING if pause.end < last else np.inf
        if end > start:
            shut = np.maximum(shut, _plateau(times, start, end, QUIET_CLOSING, QUIET_OPENING))
    return shut


def merge_silences(phones: Sequence[Phone]) -> list[Phone]:
    """Silences, those that touch one another as one."""
    merged: list[Phone] = []
    for phone in phones:
        if phone.name == SILENCE:
            if merged and phone.start - merged[-1].end < 1e-6:
                merged[-1] = Phone("", SILENCE, merged[-1].start, phone.end)
            else:
                merged.append(phone)
    return merged


def _plateau(times: Float, start: float, end: float, rise: float, fall: float) -> Float:
    """1 from start to end, with raised cosines on both sides (T,)."""
    before = np.clip((start - times) / rise, 0, 1)
    after = np.clip((times - end) / fall, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * (before + after))).astype(np.float32)


def gestures(phones: Sequence[Phone]) -> Iterator[Gesture]:
    """The gestures of a sequence of phones, in order."""
    for phone in phones:
        length = phone.end - phone.start
        if phone.name == SILENCE and length < SHORT_PAUSE:
            continue
        visemes = PHONES[phone.name]
        for part, viseme in enumerate(visemes):
            yield Gesture(VISEMES[viseme], phone.start + length * (part + 0.5) / len(visemes), length / len(visemes))


def _lips(
    phones: Sequence[Phone], decibels: Float, times: Float, shut: LipConstraints, speaking: Float, voice: SpeakerStyle
) -> Float:
    parts = list(gestures(phones)) or [Gesture(VISEMES["silence"], times[-1] / 2, times[-1])]
    targets = np.array([part.viseme.opening for part in parts], np.float32)[:, None]
    holds = np.array([part.viseme.opening_dominance for part in parts], np.float32)
    opening = _blend(parts, targets, holds, times - OPENING_LAG, OPENING_SPREAD, OPENING_FLOOR)[:, 0]
    opening *= AMPLITUDE_CORRECTION * voice.jaw * _effort(decibels, speaking)
    opening = shut.parted * limit_to_contact(opening, shut.contact)

    shapes = np.stack([shape_targets(part.viseme) for part in parts])
    holds = np.array([part.viseme.shape_dominance for part in parts], np.float32)
    shape = _blend(parts, shapes, holds, times + SHAPE_LEAD, SHAPE_SPREAD, SHAPE_FLOOR)
    lips = np.zeros((len(times), len(ARKIT_NAMES)), np.float32)
    for name, values in zip(SHAPE_CHANNELS, shape.T, strict=True):
        gain = voice.rounding if name in ("mouthPucker", "mouthFunnel") else 1.0
        yields = shut.parted if name in OPENERS else 1 - shut.silence
        lips[:, arkit_columns(name)] = (values * gain * yields)[:, None]
    lips[:, JAW_OPEN], lips[:, MOUTH_CLOSE] = split_opening(opening, speaking)
    return np.clip(lips, 0, 1)


def limit_to_contact(opening: Float, contact: Float, most: float = CONTACT_OPENING) -> Float:
    """An opening (T,) that is at most `most` where a contact (T,) of lip and teeth is full."""
    return opening + contact * np.minimum(most - opening, 0)


def emotional_effort(posterior: Float, intensity: Float) -> Float:
    """Share (T,) by which a track widens the mouth's opening in speech."""
    return intensity * (posterior @ np.array([EFFORT_OF_EMOTION.get(label, 0.0) for label in LABELS], np.float32))


def _blend(parts: Sequence[Gesture], targets: Float, holds: Float, times: Float, spread: float, floor: float) -> Float:
    """Targets (G, S) of gestures, blended by their dominance at each time -> (T, S)."""
    centres = np.array([part.centre for part in parts])
    durations = np.array([part.duration for part in parts])
    # A long phone is held: its dominance falls off from its edges rather than from its middle.
    held = np.maximum(durations / 2 - 0.08, 0)
    width = spread * np.minimum(durations, 0.16) + floor
    after = times[:, None] - centres
    width = width * np.where(after < 0, 1 + ANTICIPATION, 1 - ANTICIPATION)
    away = np.maximum(np.abs(after) - held, 0) / width
    dominance = holds * np.exp(-np.square(away)) + 1e-9 * np.exp(-away)  # the floor decides where no gesture reaches
    return (dominance @ targets / dominance.sum(axis=1, keepdims=True)).astype(np.float32)


def _effort(decibels: Float, speaking: Float) -> Float:
    """Gain (T,) of the opening by loudness."""
    heard = decibels[speaking > 0.5]
    if not len(heard):
        return np.ones_like(decibels)
    gain = 1 + EFFORT_PER_DB * (smooth(np.maximum(decibels, np.median(heard) - 20), 4.0) - np.median(heard))
    return np.clip(gain, *EFFORT_RANGE)


def _speaking(phones: Sequence[Phone], times: Float) -> Float:
    speaking = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name != SILENCE or phone.end - phone.start < SHORT_PAUSE:
            speaking[(times >= phone.start) & (times < phone.end)] = 1
    return smooth(speaking, 2.5)


def expression_curves(posterior: Float, intensity: Float, voice: SpeakerStyle | None = None) -> Float:
    """ARKit weights (T, 52) of a track's expression, with onset and offset, for one speaker."""
    voice = voice or SpeakerStyle()
    aimed = actions.expression_weights(posterior, intensity) * voice.expressiveness
    lead = round(EMOTION_LEAD * FRAME_RATE)
    aimed = np.concatenate([aimed[lead:], np.repeat(aimed[-1:], lead, axis=0)])[: len(aimed)]
    moved = np.empty_like(aimed)
    now = aimed[0]
    rise, fall = (1 - np.exp(-1 / (FRAME_RATE * seconds)) for seconds in (ONSET, RELEASE_OF_EMOTION))
    for frame, target in enumerate(aimed):
        now = now + np.where(target > now, rise, fall) * (target - now)
        moved[frame] = now
    for column, name in enumerate(ARKIT_NAMES):
        side = 1 if name.endswith("Left") else -1 if name.endswith("Right") else 0
        moved[:, column] *= 1 + side * voice.asymmetry
    return smooth(moved, 2.0)


def _with_expression(lips: Float, felt: Float, shut: LipConstraints, speaking: Float) -> Float:
    """Lips (T, 52) and expression (T, 52) on one face."""
    felt = felt.copy()
    felt[:, LOWER_FACE] *= (1 - SPEECH_DAMPING * speaking)[:, None]
    rounded = np.minimum((lips[:, MOUTH_PUCKER] + lips[:, MOUTH_FUNNEL]) / FULL_ROUNDING, 1)
    felt[:, WIDENERS] *= (1 - ROUNDING_DAMPING * rounded)[:, None]
    felt[:, (JAW_OPEN, *OPENING_CHANNELS)] *= (shut.parted * (1 - CONTACT_DAMPING * shut.contact))[:, None]
    return np.clip(lips + felt, 0, 1)
