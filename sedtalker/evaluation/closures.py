"""Closures on a vertex corpus whose phone times are known: what viewers notice first.

`DEFINITIONS` says what each figure is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError
from sedtalker.evaluation.lips import CLOSED, CONTACT, NEIGHBOURHOOD, WINDOW, closure_figures, pooled
from sedtalker.face.visemes import BILABIALS
from sedtalker.phones import Phone

Array = NDArray[np.floating]
Phones = Mapping[str, Sequence[Phone]]  # by sequence

BCS_SHARE = 0.7  # of the true bilabial frames that pass the threshold
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
"""The gap is | upper - lower middle of the lips |, less the template's; p95 its 95th percentile in the sequence."""


def closures(gaps: Mapping[str, Mapping[str, Array]], phones: Phones, fps: float) -> dict[str, dict[str, float | None]]:
    """Shares, medians and counts by system; None where one is not defined.

    Args:
        gaps: system -> sequence -> gap (T,) in metres. A system named "truth" sets the threshold of the score.
        phones: of the sequences; those that have none are left out.

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
        figures = pooled([closure_figures(curves[name], phones[name], fps) for name in known]).summary()
        if limit is not None:
            figures[BCS] = float((bilabial_frames(curves, phones, known, fps) <= limit).mean())
        found[system] = {name: None if math.isnan(value) else float(value) for name, value in figures.items()}
    return found


def bilabial_frames(curves: Mapping[str, Array], phones: Phones, names: Sequence[str], fps: float) -> Array:
    """The gap in every frame of /p b m/ of the named sequences."""
    frames: list[Array] = [np.zeros(0)]
    for name in names:
        times = (np.arange(len(curves[name])) + 0.5) / fps
        for phone in phones[name]:
            if phone.name in BILABIALS:
                frames.append(curves[name][(times >= phone.start) & (times < phone.end)])
    joined = np.concatenate(frames)
    if not len(joined):
        raise DataError("no /p b m/ among the phones of these sequences. Give the phones of longer ones")
    return joined
