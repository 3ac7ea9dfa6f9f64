"""Measure the timing of expressions on tracked faces: `python -m sedtalker.recipes fit_expression_timing RAVDESS`.

Reads action units of RAVDESS tracked by OpenFace (`action_units/frames/*/*.npz`: au (T, U), names, fps) and the audio,
and prints when the units of each emotion's prototype rise and fall. These are references for the onsets, offsets
and leads of `sedtalker.synthesis.coarticulation` and for the brows of `sedtalker.talker.idle_motion`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from sedtalker.audio import load_audio
from sedtalker.curves import resample
from sedtalker.data.speech_corpora.readers import read_named
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.face.action_units import EMOTIONS
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.mel import FRAME_RATE

Float = NDArray[np.floating]

BEFORE, AROUND = 0.5, 0.8  # seconds before the voice: rest ends, changes may begin
RISEN = 0.3  # smallest change, in OpenFace's 0..5 summed over the units
SETTLED = 5  # frames of the running median; jumps of the tracker are shorter
BROWS = ("AU01", "AU02")


@dataclass(frozen=True)
class ExpressionTiming:
    """Timing of one performance's action units relative to the voice; NaN without change."""

    pre_speech_share: float  # share of the apex before the voice starts
    rise: tuple[float, float, float]  # seconds from the voice's start to 10, 50 and 90 % of the apex
    fall: tuple[float, float, float]  # seconds from the voice's end to 90, 50 and 10 %
    brow_accent: float  # correlation of the brows with the loudness while speaking


def measure_timing(units: Float, brows: Float, decibels: Float) -> ExpressionTiming:
    """Measure the timing from summed units of the emotion and of the brows, and loudness in dB, (T,) each at 50 Hz."""
    speaking = np.flatnonzero(detect_speech(decibels.astype(np.float32)))
    units = median_filter(units.astype(np.float64), SETTLED, mode="nearest")
    first, last = int(speaking[0]), int(speaking[-1]) + 1
    apex = float(np.percentile(units[first:last], 90))
    wait, around = round(BEFORE * FRAME_RATE), round(AROUND * FRAME_RATE)
    lead, tail = units[: max(1, first - wait)], units[min(len(units) - 1, last + wait) :]
    start = max(0, first - around)
    rise = _crossings(units[start : first + around], float(np.median(lead)), apex)
    fall = _crossings(units[max(0, last - around) : last + around][::-1], float(np.median(tail)), apex)
    end = min(len(units), last + around)
    sound, raised = decibels[first:last], brows[first:last]
    return ExpressionTiming(
        float(np.median(lead)) / max(apex, 1e-6),
        tuple((start + at - first) / FRAME_RATE for at in rise),  # type: ignore[arg-type]
        tuple((end - 1 - at - last) / FRAME_RATE for at in fall[::-1]),  # type: ignore[arg-type]
        float(np.corrcoef(raised, sound)[0, 1]) if np.ptp(raised) * np.ptp(sound) > 0 else float("nan"),
    )


def _crossings(curve: Float, low: float, high: float) -> tuple[float, float, float]:
    """First frames at which a curve (T,) passes 10, 50 and 90 % from low to high; NaN if it never does."""
    if high - low < RISEN:
        return (float("nan"),) * 3
    passed = [np.flatnonzero(curve >= low + share * (high - low)) for share in (0.1, 0.5, 0.9)]
    return tuple(float(at[0]) if at.size else float("nan") for at in passed)  # type: ignore[return-value]


def measure_performances(folder: Path) -> Iterator[tuple[str, ExpressionTiming]]:
    """Measure all tracked performances of RAVDESS; yields emotion and timing.

    Raises:
        DataError: there are no tracked performances.
    """
    tracked = {path.stem: path for path in (folder / "action_units" / "frames").glob("*/*.npz")}
    if not tracked:
        raise DataError(f"no tracked action units: {folder / 'action_units' / 'frames'}. Put OpenFace's *.npz there")
    manifest = read_named("ravdess", folder)
    for item in manifest:
        path = tracked.get(Path(item.path).stem)
        if path is None or item.emotion == LABELS[NEUTRAL]:
            continue
        with np.load(path, allow_pickle=False) as arrays:
            names, values = [str(name)[:4] for name in arrays["names"]], arrays["au"].astype(np.float32)
            curves = resample(values, float(arrays["fps"]), FRAME_RATE)
        decibels = loudness(load_audio(manifest.audio(item)))
        frames = min(len(curves), len(decibels))
        chosen = [names.index(f"AU{unit:02d}") for unit in EMOTIONS[item.emotion] if f"AU{unit:02d}" in names]
        brows = curves[:frames, [names.index(name) for name in BROWS]].sum(axis=1)
        yield item.emotion, measure_timing(curves[:frames, chosen].sum(axis=1), brows, decibels[:frames])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ravdess", type=Path, help="folder of RAVDESS")


def run(arguments: argparse.Namespace) -> None:
    found: dict[str, list[ExpressionTiming]] = defaultdict(list)
    for emotion, one in measure_performances(arguments.ravdess):
        found[emotion].append(one)
    for emotion, several in found.items():
        rises = np.array([one.rise for one in several])
        falls = np.array([one.fall for one in several])
        print(
            f"{emotion:9} {len(several)}, before speaking {np.median([c.pre_speech_share for c in several]):.0%}; "
            f"rise 10, 50, 90 % at {_format_medians(rises)} s from voice onset ({np.isfinite(rises[:, 1]).sum()}); "
            f"fall 90, 50, 10 % at {_format_medians(falls)} s from its end ({np.isfinite(falls[:, 1]).sum()}); "
            f"brows with loudness {np.nanmedian([c.brow_accent for c in several]):+.2f}"
        )


def _format_medians(times: Float) -> str:
    return " ".join(f"{value:+.2f}" for value in np.nanmedian(times, axis=0))
