"""Motion by rules at 50 Hz from speech with known phones and an emotion track.

Phones become gestures towards their visemes, which blend by dominance (Cohen & Massaro 1993). Closures of /p b m/ and
contacts of /f v/ then limit the blend, because an average of neighbours never closes, and in silence the lips are
closed. The expression of the emotion track is the one that the default talker adds (`sedtalker.talker.expression`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from sedtalker.curves import smooth
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_FUNNEL, MOUTH_PUCKER, TONGUE_OUT, arkit_columns
from sedtalker.face.mouth_fit import fit_gap
from sedtalker.face.mouth_measures import GAP, default_measures
from sedtalker.face.visemes import (
    BILABIALS,
    LABIODENTALS,
    OPENERS,
    PHONES,
    PROTRUDED,
    SHAPE_CHANNELS,
    TONGUE_TIP,
    VISEMES,
    Viseme,
    shape_targets,
)
from sedtalker.labels import LABELS
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import LONG_PAUSE, SILENCE, Phone
from sedtalker.talker.expression import ExpressionRules, activate, repeat_first, sharpen

Float = NDArray[np.float32]

# Widths of the dominance functions: a share of the phone's duration, and a floor, the speed of the articulator. Those
# of the opening and its anticipation were fitted to GRID s1's tracked lip gap (`recipes fit_visemes`). The fitted lag
# is 0.036 s; with it the lips of other voices are between 1 ms ahead of the loudness and 10 ms behind it. Tracked
# mouths are 11 and 24 ms behind.
OPENING_SPREAD, OPENING_FLOOR = 0.16, 0.067  # seconds
OPENING_LAG = 0.054  # seconds by which a gesture's peak follows the middle of its phone
AMPLITUDE_CORRECTION = 1.12  # least squares shrinks predictions; this restores the tracked spread
ANTICIPATION = 0.35  # share by which a gesture's rise is longer and its fall shorter
SHAPE_SPREAD, SHAPE_FLOOR = 0.40, 0.060
SHAPE_LEAD = 0.010  # seconds by which rounding and spreading precede the sound
SHORT_PAUSE = 0.12  # seconds; a shorter pause does not change the shape of the lips

CLOSING, RELEASE = 0.065, 0.105  # seconds of a closure's ramps; lips close a third faster than they open
CLOSED_SHARE, CLOSED_LEAST, CLOSED_MOST = 0.70, 0.040, 0.075  # closed part of the phone, and its limits in seconds
CONTACT_SHARE = 0.8  # part of /f v/ in which lip and teeth touch
FULLY = 0.999  # closure from which the lips must meet
CONTACT_OPENING = 0.072  # opening of /f v/: the lower lip at the upper teeth, which stay visible
TONGUE_RAMP = 0.05  # seconds in which the tip of the tongue appears and disappears
TONGUE_OPENING = 0.18  # least opening at a visible tip of the tongue on the default head
TONGUE_HIDDEN, TONGUE_SHOWN = 0.38, 0.58  # tongueOut up to which the lips need not part, and at which they must
CONTACT_UNROUNDING = 0.8  # share of the rounding, which moves the lower lip forward, that /f v/ remove
LABIODENTAL = "f"  # the viseme of /f v/
QUIET_OPENING, QUIET_CLOSING = 0.09, 0.11  # seconds of the ramps before the first sound and after the last one
SHUT = 0.02  # share of the opening below which the lips count as closed in silence

EFFORT_PER_DB, EFFORT_RANGE = 0.018, (0.75, 1.30)  # opening grows with loudness over the clip's median

ONSET_FRAMES = 50  # frames over which an expression is averaged, as by the default talker


@dataclass(frozen=True)
class SpeakerStyle:
    """Factors of one speaker's motion; the mean speaker has 1."""

    jaw: float = 1.0
    rounding: float = 1.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> SpeakerStyle:
        """Draw a speaker."""
        jaw, rounding = np.clip(rng.normal(1.0, 0.08, 2), 0.8, 1.2).tolist()
        return cls(jaw, rounding)


@dataclass(frozen=True)
class Performance:
    """Motion made by rules at 50 Hz."""

    weights: Float  # (T, 52)
    expression: Float  # (T, 52): the part that the emotion adds; weights - expression is the neutral motion
    closed: Float  # (T,): 1 where /p b m/ must be closed
    quiet: Float  # (T,): 1 in silence with closed lips
    free: Float  # (T,): 1 where no closure, contact or silence decides how far the mouth is open
    protruded: Float  # (T,): 1 at /sh zh ch jh/, whose lips protrude although they are open


@dataclass(frozen=True)
class Gesture:
    """A movement towards a viseme."""

    viseme: Viseme
    centre: float  # seconds
    duration: float


def perform(
    phones: Sequence[Phone], decibels: Float, posterior: Float, intensity: Float, style: SpeakerStyle | None = None
) -> Performance:
    """Animate speech with known phones, loudness (T,) in dB, emotion posterior (T, 8) and intensity (T,)."""
    style = style or SpeakerStyle()
    times = ((np.arange(len(decibels)) + 0.5) / FRAME_RATE).astype(np.float32)
    constraints = LipConstraints(
        closure_curve(phones, times), contact_curve(phones, times), silence_curve(phones, times)
    )
    speaking = _speech_envelope(phones, times)
    lips = _articulate(phones, decibels, times, constraints, speaking, style)
    face = add_expression(lips, posterior, intensity)
    return Performance(
        weights=face,
        expression=face - lips,
        closed=full_closures(constraints.closure),
        quiet=(constraints.silence > 1 - SHUT).astype(np.float32),
        free=constraints.openable * (1 - constraints.contact),
        protruded=protrusion_curve(phones, times),
    )


@dataclass(frozen=True)
class LipConstraints:
    """Constraints that close the mouth, each (T,) from 0 (free) to 1."""

    closure: Float  # by /p b m/
    contact: Float  # of the lower lip and the teeth, by /f v/
    silence: Float

    @property
    def openable(self) -> Float:
        """Share (T,) of an opening that closure and silence leave."""
        return (1 - self.closure) * (1 - self.silence)


def closure_curve(phones: Sequence[Phone], times: Float) -> Float:
    """Closure (T,) of the lips by /p b m/: 0 free, 1 closed."""
    shut = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name in BILABIALS:
            hold = np.clip(CLOSED_SHARE * (phone.end - phone.start), CLOSED_LEAST, CLOSED_MOST)
            shut = np.maximum(shut, _plateau(times, phone.start, phone.start + hold, CLOSING, RELEASE))
    return shut


def full_closures(closure: Float) -> Float:
    """1 where a closure (T,) is full and the lips must meet, otherwise 0."""
    return (closure >= FULLY).astype(np.float32)


def contact_curve(phones: Sequence[Phone], times: Float) -> Float:
    """Contact (T,) of the lower lip with the upper teeth by /f v/: 0 free, 1 touching.

    It holds for `CONTACT_SHARE` of the phone: without contact there is no friction.
    """
    touch = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name in LABIODENTALS:
            middle, half = (phone.start + phone.end) / 2, max(CONTACT_SHARE / 2 * (phone.end - phone.start), 0.02)
            touch = np.maximum(touch, _plateau(times, middle - half, middle + half, CLOSING, RELEASE))
    return touch


def protrusion_curve(phones: Sequence[Phone], times: Float) -> Float:
    """Curve (T,) that is 1 at /sh zh ch jh/ and 0 elsewhere."""
    protruded = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name in PROTRUDED:
            protruded = np.maximum(protruded, _plateau(times, phone.start, phone.end, SHAPE_FLOOR, SHAPE_FLOOR))
    return protruded


def tongue_curve(phones: Sequence[Phone], times: Float) -> Float:
    """tongueOut (T,) of the phones with the tip of the tongue at the teeth."""
    out = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name in TONGUE_TIP:
            middle, half = (phone.start + phone.end) / 2, max(0.25 * (phone.end - phone.start), 0.02)
            plateau = _plateau(times, middle - half, middle + half, TONGUE_RAMP, TONGUE_RAMP)
            out = np.maximum(out, TONGUE_TIP[phone.name] * plateau)
    return out


def silence_curve(phones: Sequence[Phone], times: Float) -> Float:
    """Closure (T,) of the lips in silence: 0 free, 1 closed.

    The lips open shortly before a sound and close shortly after it. In a pause within speech that is shorter than
    `LONG_PAUSE` they stay parted, as those of most people do. A recording counts as silent beyond its ends.
    """
    shut = np.zeros(len(times), np.float32)
    last = phones[-1].end if phones else np.inf  # a recording may be longer than its phones
    pauses = [
        pause
        for pause in merge_silences(phones)
        if pause.end - pause.start >= (LONG_PAUSE if pause.start > 0 and pause.end < last else SHORT_PAUSE)
    ]
    for pause in pauses or ([Phone("", SILENCE, 0.0, np.inf)] if not phones else []):
        start = pause.start + QUIET_CLOSING if pause.start > 0 else -np.inf
        end = pause.end - QUIET_OPENING if pause.end < last else np.inf
        if end > start:
            shut = np.maximum(shut, _plateau(times, start, end, QUIET_CLOSING, QUIET_OPENING))
    return shut


def merge_silences(phones: Sequence[Phone]) -> list[Phone]:
    """Silences of a sequence of phones; adjacent ones are joined."""
    merged: list[Phone] = []
    for phone in phones:
        if phone.name == SILENCE:
            if merged and phone.start - merged[-1].end < 1e-6:
                merged[-1] = Phone("", SILENCE, merged[-1].start, phone.end)
            else:
                merged.append(phone)
    return merged


def _plateau(times: Float, start: float, end: float, rise: float, fall: float) -> Float:
    """Curve (T,) that is 1 from start to end, with raised cosines on both sides."""
    before = np.clip((start - times) / rise, 0, 1)
    after = np.clip((times - end) / fall, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * (before + after))).astype(np.float32)


def gestures(phones: Sequence[Phone]) -> Iterator[Gesture]:
    """Gestures of a sequence of phones, in order."""
    for phone in phones:
        length = phone.end - phone.start
        if phone.name == SILENCE and length < SHORT_PAUSE:
            continue
        visemes = PHONES[phone.name]
        for part, viseme in enumerate(visemes):
            yield Gesture(VISEMES[viseme], phone.start + length * (part + 0.5) / len(visemes), length / len(visemes))


def _articulate(
    phones: Sequence[Phone],
    decibels: Float,
    times: Float,
    constraints: LipConstraints,
    speaking: Float,
    style: SpeakerStyle,
) -> Float:
    parts = list(gestures(phones)) or [Gesture(VISEMES["silence"], times[-1] / 2, times[-1])]
    targets = np.array([part.viseme.opening for part in parts], np.float32)[:, None]
    holds = np.array([part.viseme.opening_dominance for part in parts], np.float32)
    opening = _blend(parts, targets, holds, times - OPENING_LAG, OPENING_SPREAD, OPENING_FLOOR)[:, 0]
    opening *= AMPLITUDE_CORRECTION * style.jaw * _effort(decibels, speaking)
    opening = constraints.openable * limit_to_contact(opening, constraints.contact)

    shapes = np.stack([shape_targets(part.viseme) for part in parts])
    holds = np.array([part.viseme.shape_dominance for part in parts], np.float32)
    shape = _blend(parts, shapes, holds, times + SHAPE_LEAD, SHAPE_SPREAD, SHAPE_FLOOR)
    lips = np.zeros((len(times), len(ARKIT_NAMES)), np.float32)
    for name, values in zip(SHAPE_CHANNELS, shape.T, strict=True):
        gain = style.rounding if name in ("mouthPucker", "mouthFunnel") else 1.0
        yields = constraints.openable if name in OPENERS else 1 - constraints.silence
        lips[:, arkit_columns(name)] = (values * gain * yields)[:, None]
    lips = tuck_lower_lip(lips, constraints.contact)
    lips[:, TONGUE_OUT] = constraints.openable * (1 - constraints.contact) * tongue_curve(phones, times)
    opening = np.maximum(opening, least_opening(lips[:, TONGUE_OUT]))
    measures = default_measures()
    return fit_gap(opening * measures.matrix[JAW_OPEN, GAP], lips, speaking, measures)


def tuck_lower_lip(lips: Float, contact: Float) -> Float:
    """Weights (T, 52) with the lower lip under the upper teeth by the contact (T,) in 0..1.

    A blend of neighbouring visemes would not tuck the lip in fast speech.
    """
    tucked = lips.copy()
    tucked[:, (MOUTH_PUCKER, MOUTH_FUNNEL)] *= (1 - CONTACT_UNROUNDING * contact)[:, None]
    for name, value in VISEMES[LABIODENTAL].shape.items():
        for column in arkit_columns(name):
            tucked[:, column] = np.maximum(tucked[:, column], value * contact)
    return tucked


def least_opening(tongue: Float) -> Float:
    """Least opening (T,) of the lips at which a tongueOut (T,) is visible."""
    return TONGUE_OPENING * np.clip((tongue - TONGUE_HIDDEN) / (TONGUE_SHOWN - TONGUE_HIDDEN), 0, 1)


def lip_motion(phones: Sequence[Phone], decibels: Float) -> Float:
    """ARKit weights (T, 52) of the lips in neutral speech with known phones and loudness (T,) in dB."""
    times = ((np.arange(len(decibels)) + 0.5) / FRAME_RATE).astype(np.float32)
    constraints = LipConstraints(
        closure_curve(phones, times), contact_curve(phones, times), silence_curve(phones, times)
    )
    return _articulate(phones, decibels, times, constraints, _speech_envelope(phones, times), SpeakerStyle())


def limit_to_contact(opening: Float, contact: Float, most: float = CONTACT_OPENING) -> Float:
    """Limit an opening (T,) to `most` by the contact (T,) of lip and teeth."""
    return opening + contact * np.minimum(most - opening, 0)


def _blend(parts: Sequence[Gesture], targets: Float, holds: Float, times: Float, spread: float, floor: float) -> Float:
    """Blend the targets (G, S) of gestures by their dominance at each time -> (T, S)."""
    centres = np.array([part.centre for part in parts])
    durations = np.array([part.duration for part in parts])
    # The dominance of a long phone falls from its edges, not from its middle.
    hold = np.maximum(durations / 2 - 0.08, 0)
    width = spread * np.minimum(durations, 0.16) + floor
    after = times[:, None] - centres
    width = width * np.where(after < 0, 1 + ANTICIPATION, 1 - ANTICIPATION)
    away = np.maximum(np.abs(after) - hold, 0) / width
    dominance = holds * np.exp(-np.square(away)) + 1e-9 * np.exp(-away)  # the floor decides far from every gesture
    return (dominance @ targets / dominance.sum(axis=1, keepdims=True)).astype(np.float32)


def _effort(decibels: Float, speaking: Float) -> Float:
    """Gain (T,) of the opening from the loudness (T,) in dB, relative to the median in speech."""
    spoken = decibels[speaking > 0.5]
    if not len(spoken):
        return np.ones_like(decibels)
    gain = 1 + EFFORT_PER_DB * (smooth(np.maximum(decibels, np.median(spoken) - 20), 4.0) - np.median(spoken))
    return np.clip(gain, *EFFORT_RANGE)


def _speech_envelope(phones: Sequence[Phone], times: Float) -> Float:
    speaking = np.zeros(len(times), np.float32)
    for phone in phones:
        if phone.name != SILENCE or phone.end - phone.start < SHORT_PAUSE:
            speaking[(times >= phone.start) & (times < phone.end)] = 1
    return smooth(speaking, 2.5)


def add_expression(lips: Float, posterior: Float, intensity: Float) -> Float:
    """ARKit weights (T, 52) of lips (T, 52) with the expression of an emotion track, as the default talker adds it."""
    rules = _expression_rules()
    activation = activate(sharpen(torch.from_numpy(posterior[None])), torch.from_numpy(intensity[None]))
    weights = rules(torch.from_numpy(lips[None]), rules.average(repeat_first(activation, ONSET_FRAMES - 1)))
    return weights[0].clamp(0, 1).numpy()


@lru_cache(maxsize=1)
def _expression_rules() -> ExpressionRules:
    return ExpressionRules(LABELS, ONSET_FRAMES)
