"""Perceptually motivated metrics of lip motion, most of which need no true motion.

The lip gap (T,) is the distance between the middles of the inner lips in metres. Frame i is at (i + 0.5) / fps
seconds. "p95" is the 95th percentile of the gap in a clip, which makes faces and trackers comparable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.emotion.vad import detect_speech, find_runs
from sedtalker.errors import DataError
from sedtalker.face.arkit import JAW_OPEN, MOUTH_CLOSE, MOUTH_FUNNEL, MOUTH_PUCKER, arkit_columns
from sedtalker.face.mouth_measures import middle_lip_pairs
from sedtalker.face.rig import Face
from sedtalker.face.visemes import BILABIALS, LABIODENTALS, NARROW, OPEN_VOWELS, ROUNDED
from sedtalker.phones import LONG_PAUSE, SILENCE, Phone

Array = NDArray[np.floating]

CLOSED = 0.15  # of p95, below which lips count as closed
CONTACT = 0.30  # of p95, below which the lower lip can touch the upper teeth
MOVING_WEIGHT = 0.03  # change of a weight above which a mouth counts as moving
PAUSE, BRIDGE = 0.3, 0.13  # seconds: shortest silence that is a pause, longest silence inside a sound
BELOW_LOUD, OVER_NOISE = 20.0, 10.0  # dB below loud and above quiet frames; a frame beyond both is speech
REACH = 0.5  # seconds after the start of a sound in which a first movement is assigned to it
WINDOW = 0.060  # seconds on either side of a phone's start
NEIGHBOURHOOD = 0.20  # seconds around a phone that must be free of labials
SEARCH = 0.30  # largest lag in seconds between audio and lips
UNRELATED = -1.0  # correlation with a constant curve
SPEAKING = ("mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper", "mouthLowerDown")
"""Blendshapes, without their side, that move in speech and hardly for an emotion."""

VOWELS = {
    "open": ("AA", "AE", "AY", "AW"),
    "middle": ("AH", "EH", "EY", "AO", "OW", "OY", "ER"),
    "close": ("IY", "IH", "UW", "UH"),
}
"""Classes of vowels by mouth opening."""

Phones = Mapping[str, Sequence[Phone]]  # by sequence

BCS_SHARE = 0.7  # share of the true bilabial frames below the threshold
BCS = "bilabial_closure_score"

DEFINITIONS = {
    "closure_recall": f"share of /p b m/ with a gap under {CLOSED:g} of p95 within {1000 * WINDOW:.0f} ms of the start",
    "false_contact": f"the same share of phones without labials, rounding or pauses within {NEIGHBOURHOOD:g} s",
    "labiodental_contact": f"share of /f v/ with a gap under {CONTACT:g} of p95",
    "closure_seconds": "median time that closed /p b m/ stay closed, s",
    "apex_error_seconds": "median | time of the smallest gap - middle of the phone |, s",
    "apex_error_seconds_p95": "95th percentile of it, s",
    "open_vowel_over_closure": "mean widest gap of open vowels over mean smallest gap of /p b m/",
    "bilabials": "/p b m/ counted",
    "others": "other phones counted",
    BCS: f"share of the frames of /p b m/ below the gap that {BCS_SHARE:.0%} of the truth's stay below",
}
"""The gap is | upper - lower middle of the lips | minus that of the template; p95 is its 95th percentile."""


@dataclass(frozen=True)
class ClosureFigures:
    """Counts in one clip; `pool` adds clips."""

    bilabials: int  # /p b m/ within speech
    closed_bilabials: int  # closed within 60 ms of their start
    others: int  # phones far from labial and rounded ones
    closed_others: int
    labiodentals: int
    touching_labiodentals: int
    durations: tuple[float, ...]  # seconds that each closed bilabial stays closed
    apex_errors: tuple[float, ...]  # seconds from the middle of the phone to the smallest gap, signed
    open_vowels: tuple[float, ...]  # widest gap in each open vowel, over p95
    bilabial_minima: tuple[float, ...]  # smallest gap at each bilabial, over p95

    @classmethod
    def empty(cls) -> ClosureFigures:
        """Counts of no clip."""
        return cls(0, 0, 0, 0, 0, 0, (), (), (), ())

    def summary(self) -> dict[str, float]:
        """Shares and medians by name; NaN without phones."""
        return {
            "closure_recall": _share(self.closed_bilabials, self.bilabials),
            "false_contact": _share(self.closed_others, self.others),
            "labiodental_contact": _share(self.touching_labiodentals, self.labiodentals),
            "closure_seconds": _median(self.durations),
            "apex_error_seconds": _median(np.abs(self.apex_errors)),
            "apex_error_seconds_p95": _percentile(np.abs(self.apex_errors), 95),
            "open_vowel_over_closure": _share(_mean(self.open_vowels), max(_mean(self.bilabial_minima), 1e-6)),
            "bilabials": self.bilabials,
            "others": self.others,
        }


def lip_gap(vertices: Array, face: Face) -> Array:
    """Lip gap (T,) in metres of vertices (T, V, 3) in metres; 0 where the lips intersect.

    It is the height of the upper over the lower lip, along the vertical axis of the face.
    """
    if face.lip_pairs is None:
        raise ValueError(f"face {face.name!r} has no lip pairs")
    upper, lower = middle_lip_pairs(face).T
    return np.maximum((vertices[:, upper, 1] - vertices[:, lower, 1]).mean(axis=1), 0.0)


def lip_gap_of_weights(weights: Array, face: Face) -> Array:
    """Lip gap (T,) in metres of ARKit weights (T, 52); only the lip vertices are posed."""
    if face.lip_pairs is None or face.blendshapes is None:
        raise ValueError(f"face {face.name!r} has no lip pairs or no blendshapes")
    upper, lower = middle_lip_pairs(face).T
    rest = (face.template[upper, 1] - face.template[lower, 1]).mean()
    moved = (face.blendshapes[:, upper, 1] - face.blendshapes[:, lower, 1]).mean(axis=1)
    return np.maximum(rest + weights @ moved, 0.0)


def over_p95(curve: Array) -> Array:
    """A gap or an area (T,) over its 95th percentile."""
    return curve / max(float(np.percentile(curve, 95)), 1e-9)


def closure_metrics(gap: Array, phones: Sequence[Phone], fps: float) -> ClosureFigures:
    """Count closures of a lip gap (T,) at `fps` by the phones of its clip."""
    times = (np.arange(len(gap)) + 0.5) / fps
    relative = over_p95(gap)
    spoken = [phone for phone in phones if phone.name != SILENCE]
    bilabials = _inner_bilabials(phones)
    minima = [_minimum_near(relative, times, p.start) for p in bilabials]
    closed = [p for p, least in zip(bilabials, minima, strict=True) if least < CLOSED]
    free = [_minimum_near(relative, times, p.start) for p in spoken if _is_far_from_labials(p, phones)]
    labiodentals = [_minimum_within(relative, times, p) for p in spoken if p.name in LABIODENTALS]
    vowels = [_maximum_within(relative, times, p) for p in spoken if p.name in OPEN_VOWELS]
    return ClosureFigures(
        len(bilabials), len(closed), len(free), int(np.sum(np.array(free) < CLOSED)),
        len(labiodentals), int(np.sum(np.array(labiodentals) < CONTACT)),
        tuple(_closed_seconds(relative, times, p.start) for p in closed),
        tuple(_apex(gap, times, p) - (p.start + p.end) / 2 for p in closed),
        tuple(vowels), tuple(minima),
    )  # fmt: skip


def pool(figures: Sequence[ClosureFigures]) -> ClosureFigures:
    """Add the counts and lists of several clips."""
    names = ClosureFigures.__dataclass_fields__
    return ClosureFigures(
        *(sum((getattr(item, name) for item in figures[1:]), getattr(figures[0], name)) for name in names)
    )


def audio_lip_offset(gap: Array, decibels: Array, fps: float) -> float:
    """Lag in seconds of gap (T,) behind loudness (T,) with the highest correlation; negative if the lips lead.

    A parabola through the best lag and its neighbours interpolates between frames. NaN if a curve is constant.
    """
    reach = round(SEARCH * fps)
    lags = range(-reach, reach + 1)
    scores = np.array([_correlation_at(gap, decibels, lag) for lag in lags])
    best = int(scores.argmax())
    if scores[best] <= UNRELATED:
        return float("nan")
    if 0 < best < len(lags) - 1:
        before, at, after = scores[best - 1 : best + 2]
        shift = 0.5 * (before - after) / min(before - 2 * at + after, -1e-12)
    else:
        shift = 0.0
    return float((lags[best] + shift) / fps)


def spectral_edge(gaps: Sequence[Array], fps: float, share: float = 0.95) -> float:
    """Frequency in Hz below which the gaps have this share of their variance (Hann window, pooled over gaps)."""
    size = 1 << int(np.ceil(np.log2(max(len(gap) for gap in gaps))))
    power = np.zeros(size // 2 + 1)
    for gap in gaps:
        power += np.abs(np.fft.rfft((gap - gap.mean()) * np.hanning(len(gap)), size)) ** 2
    cumulative = np.cumsum(power) / max(power.sum(), 1e-30)
    return float(np.searchsorted(cumulative, share) * fps / size)


def opening_and_closing_speed(gap: Array, fps: float) -> tuple[float, float]:
    """95th percentiles of opening and of closing speed of a gap (T,), in p95 per second."""
    change = np.diff(over_p95(gap)) * fps
    return _percentile(change[change > 0], 95), _percentile(-change[change < 0], 95)


def jitter(vertices: Array, fps: float) -> float:
    """Mean norm of the third derivative of lip vertices (T, L, 3), in m/s^3."""
    return float(np.linalg.norm(np.diff(vertices, n=3, axis=0), axis=-1).mean() * fps**3)


def silence_opening(
    gap: Array, phones: Sequence[Phone], decibels: Array, fps: float, settling_time: float = 0.125
) -> float:
    """Largest gap in metres in silences, from `settling_time` s after a sound to 0.1 s before the next; NaN if none.

    A pause within speech counts from `LONG_PAUSE` on: in a shorter one people's lips stay parted.
    Frames that are loud by their loudness (T,) in dB do not count as silence, as aligners make errors.
    """
    times = (np.arange(len(gap)) + 0.5) / fps
    within = np.zeros(len(gap), bool)
    last = phones[-1].end if phones else 0.0
    for phone in phones:
        inner = phone.start > 0 and phone.end < last
        if phone.name == SILENCE and (not inner or phone.end - phone.start >= LONG_PAUSE):
            start = phone.start + (settling_time if phone.start > 0 else 0.0)
            within |= (times > start) & (times < phone.end - 0.1)
    quietest, loudest = np.percentile(decibels, (5, 95))
    for start, end in find_runs(decibels[: len(gap)] > max(loudest - BELOW_LOUD, quietest + OVER_NOISE)):
        within &= (times < start / fps - 0.1) | (times > end / fps + settling_time)
    return float(gap[within].max()) if within.any() else float("nan")


def rounding(weights: Array, phones: Sequence[Phone], fps: float) -> float:
    """Ratio of mean rounding (pucker + funnel) of ARKit weights (T, 52) at /u w o/ to that at open vowels."""
    times = (np.arange(len(weights)) + 0.5) / fps
    rounded = weights[:, MOUTH_PUCKER] + weights[:, MOUTH_FUNNEL]
    inside = [_maximum_within(rounded, times, p) for p in phones if p.name in ROUNDED]
    outside = [_maximum_within(rounded, times, p) for p in phones if p.name in OPEN_VOWELS]
    return _share(_mean(inside), max(_mean(outside), 1e-6))


def speeds_at_closures(gap: Array, phones: Sequence[Phone], fps: float) -> tuple[list[float], list[float]]:
    """Highest closing speed in the 0.2 s before each /p b m/ and opening speed in the 0.2 s after, in p95/s."""
    times = np.arange(1, len(gap)) / fps  # between the frames
    change = np.diff(over_p95(gap)) * fps
    closing, opening = [], []
    for phone in _inner_bilabials(phones):
        before = (times > phone.start - 0.2) & (times < phone.end)
        after = (times > phone.start) & (times < phone.end + 0.2)
        if before.any() and after.any():
            closing.append(float(-change[before].min()))
            opening.append(float(change[after].max()))
    return closing, opening


def vowel_openings(gap: Array, phones: Sequence[Phone], fps: float) -> dict[str, list[float]]:
    """Widest gap in each vowel, relative to p95, by class of vowels."""
    times = (np.arange(len(gap)) + 0.5) / fps
    relative = over_p95(gap)
    return {
        kind: [_maximum_within(relative, times, phone) for phone in phones if phone.name in names]
        for kind, names in VOWELS.items()
    }


def movement_around_sound(weights: Array, decibels: Array, fps: float) -> tuple[list[float], list[float]]:
    """Lead of the mouth before each sound after a pause, and time to rest after each sound before a pause, in seconds.

    ARKit weights (T, 52) and loudness (T,) in dB. A mouth moves while its opening, or a weight of `SPEAKING`, is more
    than `MOVING_WEIGHT` above its minimum in the pause. Without rest in a pause, the time to rest is the length of the
    pause, and there is no lead.
    """
    lips = [column for name in SPEAKING for column in arkit_columns(name)]
    mouth = np.concatenate([weights[:, lips], (weights[:, JAW_OPEN] - weights[:, MOUTH_CLOSE])[:, None]], axis=1)
    leads, rests = [], []
    sounds = find_runs(detect_speech(decibels[: len(weights)].astype(np.float32), bridge=BRIDGE))
    for pause, start in pairwise([0, *(frame for sound in sounds for frame in sound), len(weights)]):
        if (pause, start) in sounds or start - pause < PAUSE * fps:
            continue
        moving = (np.abs(mouth - mouth[pause:start].min(axis=0)) > MOVING_WEIGHT).any(axis=1)
        still = np.flatnonzero(~moving[pause:start]) + pause
        if moving[:pause].any():  # otherwise no movement ends here
            rests.append(_frames_until_rest(moving, still, pause, start) / fps)
        if start < len(weights) and len(still):
            moved = int(still[-1]) + np.flatnonzero(moving[still[-1] :])
            if len(moved) and moved[0] - start < REACH * fps:
                leads.append((start - int(moved[0])) / fps)
    return leads, rests


def _frames_until_rest(moving: NDArray[np.bool_], still: NDArray[np.intp], pause: int, end: int) -> int:
    """Frames from the start of a pause until the mouth is still; negative if it is still before."""
    if not len(still):
        return end - pause
    if still[0] > pause:
        return int(still[0]) - pause
    return int(np.flatnonzero(moving[:pause])[-1]) + 1 - pause


def speech_frames(phones: Sequence[Phone], frames: int, fps: float) -> NDArray[np.bool_]:
    """Mask (T,) of the frames with a phone other than silence."""
    times = (np.arange(frames) + 0.5) / fps
    spoken = np.zeros(frames, bool)
    for phone in phones:
        if phone.name != SILENCE:
            spoken |= (times >= phone.start) & (times < phone.end)
    return spoken


def speech_span(phones: Sequence[Phone], frames: int, fps: float, margin: float = 0.2) -> slice:
    """Frames from `margin` seconds before the first phone to as long after the last; all frames without phones."""
    spoken = np.flatnonzero(speech_frames(phones, frames, fps))
    if not len(spoken):
        return slice(0, frames)
    around = round(margin * fps)
    return slice(max(0, int(spoken[0]) - around), int(spoken[-1]) + around + 1)


def deviation(vertices: Array) -> float:
    """Mean over vertices (T, V, 3) of the root mean square distance to their mean position, in metres."""
    return float(np.sqrt(vertices.var(axis=0).sum(axis=-1)).mean())


def _inner_bilabials(phones: Sequence[Phone]) -> list[Phone]:
    """/p b m/ that are neither the first nor the last phone of the speech."""
    spoken = [phone for phone in phones if phone.name != SILENCE]
    if not spoken:
        return []
    first, last = spoken[0].start, spoken[-1].end
    return [p for p in spoken if p.name in BILABIALS and first + 0.05 < p.start and p.end < last]


def _is_far_from_labials(phone: Phone, phones: Sequence[Phone]) -> bool:
    """Whether a phone has no labial, rounded phone or pause within `NEIGHBOURHOOD`."""
    labial = BILABIALS | LABIODENTALS | NARROW | {SILENCE}
    return not any(
        other.name in labial and other.start < phone.start + NEIGHBOURHOOD and other.end > phone.start - NEIGHBOURHOOD
        for other in phones
    )


def _minimum_near(values: Array, times: Array, centre: float) -> float:
    near = np.abs(times - centre) <= max(WINDOW, 0.5 * (times[1] - times[0]) if len(times) > 1 else WINDOW)
    return float(values[near].min()) if near.any() else float("nan")


def frames_of_phone(times: Array, phone: Phone) -> NDArray[np.bool_]:
    """Mask (T,) of the frames, at times (T,) in seconds, within a phone; the nearest frame if none is."""
    inside = (times >= phone.start) & (times < phone.end)
    if not inside.any() and len(times):
        inside[np.abs(times - (phone.start + phone.end) / 2).argmin()] = True
    return inside


def _minimum_within(values: Array, times: Array, phone: Phone) -> float:
    return float(values[frames_of_phone(times, phone)].min())


def _maximum_within(values: Array, times: Array, phone: Phone) -> float:
    return float(values[frames_of_phone(times, phone)].max())


def _apex(gap: Array, times: Array, phone: Phone) -> float:
    """Time of the smallest gap near a phone; the middle of several equal frames."""
    near = np.flatnonzero((times > phone.start - WINDOW) & (times < phone.end + WINDOW))
    lowest = gap[near] <= gap[near].min() + 1e-6
    return float(times[near[lowest]].mean())


def _closed_seconds(relative: Array, times: Array, start: float) -> float:
    """Seconds that the gap is below CLOSED around its minimum, with linear interpolation at the edges."""
    near = np.flatnonzero(np.abs(times - start) <= WINDOW)
    lowest = int(near[relative[near].argmin()])
    return _crossing(relative, times, lowest, 1) - _crossing(relative, times, lowest, -1)


def _crossing(relative: Array, times: Array, frame: int, step: int) -> float:
    while 0 <= frame + step < len(relative) and relative[frame + step] < CLOSED:
        frame += step
    outside = frame + step
    if not 0 <= outside < len(relative):
        return float(times[frame])
    share = (CLOSED - relative[frame]) / (relative[outside] - relative[frame])
    return float(times[frame] + share * (times[outside] - times[frame]))


def _correlation_at(gap: Array, decibels: Array, lag: int) -> float:
    """Correlation of gap(t + lag) with loudness(t)."""
    count = min(len(gap), len(decibels)) - abs(lag)
    if count < 3:
        return UNRELATED
    moved, fixed = gap[max(lag, 0) :][:count], decibels[max(-lag, 0) :][:count]
    if moved.std() < 1e-12 or fixed.std() < 1e-12:
        return UNRELATED
    return float(np.corrcoef(moved, fixed)[0, 1])


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: Sequence[float] | Array) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _percentile(values: Sequence[float] | Array, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def measure_closures(
    gaps: Mapping[str, Mapping[str, Array]], phones: Phones, fps: float
) -> dict[str, dict[str, float | None]]:
    """Closure metrics by system and name; None where a metric is not defined.

    Args:
        gaps: system -> sequence -> gap (T,) in metres. A system named "truth" sets the threshold of the score.
        phones: phones by sequence; sequences without phones are skipped.

    Raises:
        DataError: no sequence has phones.
    """
    known = [name for name in next(iter(gaps.values())) if name in phones]
    if not known:
        raise DataError(
            "none of the sequences is among the phones. Their ids are SUBJECT_sentenceNN, or the file's name"
        )
    limit = None
    if "truth" in gaps:
        limit = np.quantile(bilabial_frames(gaps["truth"], phones, known, fps), BCS_SHARE)
    found = {}
    for system, curves in gaps.items():
        figures = pool([closure_metrics(curves[name], phones[name], fps) for name in known]).summary()
        if limit is not None:
            figures[BCS] = float((bilabial_frames(curves, phones, known, fps) <= limit).mean())
        found[system] = {name: None if math.isnan(value) else float(value) for name, value in figures.items()}
    return found


def bilabial_frames(curves: Mapping[str, Array], phones: Phones, names: Sequence[str], fps: float) -> Array:
    """Gaps in all frames of /p b m/ of the named sequences."""
    frames: list[Array] = [np.zeros(0)]
    for name in names:
        times = (np.arange(len(curves[name])) + 0.5) / fps
        for phone in phones[name]:
            if phone.name in BILABIALS:
                frames.append(curves[name][(times >= phone.start) & (times < phone.end)])
    stacked = np.concatenate(frames)
    if not len(stacked):
        raise DataError("no /p b m/ among the phones of these sequences. Give the phones of longer ones")
    return stacked
