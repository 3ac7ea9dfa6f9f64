"""Figures of a talker's mouth by group of voices: pitch, language and speaker, with the largest gap first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import Samples
from sedtalker.evaluation.bootstrap import draw_counts
from sedtalker.evaluation.lips import ClosureFigures
from sedtalker.evaluation.mouth_shape import Interval
from sedtalker.talker.prosody import ProsodyTracker

PITCHES = (155.0, 200.0)  # Hz, between the bands of the median pitch
SMALLEST_GROUP = 3  # clips
LESS_IS_BETTER = ("false_contact", "apex_error_seconds")


@dataclass(frozen=True)
class VoiceClip:
    """One clip of a voice with the closures of the talker's lips."""

    speaker: str
    language: str
    pitch: float  # Hz, median of the voiced frames; NaN without any
    closures: ClosureFigures

    def groups(self) -> dict[str, str]:
        """Names of the groups of this clip, by what they are compared with."""
        band = "" if np.isnan(self.pitch) else pitch_band(self.pitch)
        named = {"pitch": band, "language": self.language, "speaker": self.speaker}
        return {kind: name for kind, name in named.items() if name}

    def parts(self) -> dict[str, tuple[float, float]]:
        """Numerator and denominator of each figure."""
        one, apex = self.closures, np.abs(self.closures.apex_errors)
        return {
            "closure_recall": (one.closed_bilabials, one.bilabials),
            "false_contact": (one.closed_others, one.others),
            "labiodental_contact": (one.touching_labiodentals, one.labiodentals),
            "apex_error_seconds": (float(apex.sum()), len(apex)),
        }


def median_pitch(samples: Samples) -> float:
    """Median pitch in Hz of the voiced frames of samples (N,) at 16 kHz; NaN without any."""
    pitch = ProsodyTracker().push(samples)[:, 1]
    return float(np.median(pitch[pitch > 0])) if (pitch > 0).any() else float("nan")


def pitch_band(pitch: float) -> str:
    """The band of a pitch in Hz: "under 155 Hz" ..."""
    low, high = PITCHES
    return (
        f"under {low:g} Hz" if pitch < low else f"{low:g} to {high:g} Hz" if pitch < high else f"{high:g} Hz and over"
    )


def voice_figures(clips: Sequence[VoiceClip], seed: int = 0) -> dict[str, Interval]:
    """Gaps between the worst and best group of each kind, the largest relative to its figure first, then all figures.

    Intervals are over speakers, or over clips in a group of one speaker.
    """
    members: dict[str, dict[str, list[VoiceClip]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        for kind, name in clip.groups().items():
            members[kind][name].append(clip)
    gaps: list[tuple[float, str, Interval]] = []
    figures: dict[str, Interval] = {}
    for number, (kind, groups) in enumerate(sorted(members.items())):
        drawn: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
        for place, (name, group) in enumerate(sorted(groups.items())):
            if len(group) < SMALLEST_GROUP:
                continue
            for figure, values in _resample(group, (seed, number, place)).items():
                drawn[figure][name] = values
                if kind != "speaker":
                    figures[f"{figure}, {kind} {name}"] = _interval(values)
        for figure, by_group in drawn.items():
            known = {name: values for name, values in by_group.items() if np.isfinite(values[0])}
            if len(known) < 2:
                continue
            ordered = sorted(known, key=lambda name: known[name][0], reverse=figure in LESS_IS_BETTER)
            worst, best = known[ordered[0]], known[ordered[-1]]
            largest = max(abs(worst[0]), abs(best[0]), 1e-9)
            title = f"gap of {figure}, {kind} {ordered[0]} against {ordered[-1]}"
            gaps.append((abs(worst[0] - best[0]) / largest, title, _interval(np.abs(worst - best))))
    return {title: gap for _, title, gap in sorted(gaps, key=lambda gap: -gap[0])} | figures


def _resample(group: Sequence[VoiceClip], seed: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
    """Figures of a group as they are, and of its resamples, (1 + R,) each."""
    speakers = [clip.speaker for clip in group]
    draws = draw_counts(speakers if len({*speakers}) > 1 else [str(k) for k in range(len(group))], seed)
    resampled = {}
    for figure in group[0].parts():
        above, below = (draws @ np.array([clip.parts()[figure] for clip in group])).T
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled[figure] = above / below
    return resampled


def _interval(values: NDArray[np.float64]) -> Interval:
    known = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(known):
        return (float("nan"),) * 3
    return (float(values[0]), *np.percentile(known, (2.5, 97.5)).tolist())
