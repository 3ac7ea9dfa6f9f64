"""Fit ARKit weights to a lip gap and a mouth width on the default head, near a prior shape.

A frontal tracker measures two things of a mouth well: the lip gap and the distance of the corners (94 % of the variance
of GRID s1's lip contour; its depth is a function of the gap). Protrusion and rolled lips come from the prior, the
viseme's shape. The width is matched with mouthPucker, mouthStretch and mouthSmile, then the gap with jawOpen and
mouthClose, which also compensate the opening by the shape (mouthFunnel at 1 parts the lips by 11 mm).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import JAW_OPEN, MOUTH_CLOSE, MOUTH_FUNNEL, MOUTH_PUCKER, TONGUE_OUT, arkit_columns
from sedtalker.face.mouth_measures import GAP, WIDTH, MouthMeasures
from sedtalker.face.visemes import JAW_REST_IN_SPEECH

Float = NDArray[np.float32]

STRETCH, SMILE = (list(arkit_columns(name)) for name in ("mouthStretch", "mouthSmile"))

JAW_FOR_TONGUE = 0.5  # jawOpen for tongueOut 1: room for the tongue between the teeth when the lips are near
KEPT_ROUNDING = 0.9  # least share of the prior's rounding: a frontal tracker does not see protrusion
MOST_STRETCH, MOST_SMILE, MOST_PUCKER = 0.6, 0.3, 1.0
SMILE_SHARE = 0.3  # share of mouthSmile in widening; mouthStretch has the rest


def fit_mouth(gap: Float, widening: Float, prior: Float, speaking: Float, measures: MouthMeasures) -> Float:
    """ARKit weights (T, 52) with a lip gap (T,) in mm and a width (T,) in mm, near a prior (T, 52).

    Args:
        gap: lip gap in mm, 0 at closed lips.
        widening: width in mm minus its median over the clip; NaN where it is unknown: the prior's width stays.
        prior: shape of the lips by the visemes; its jawOpen and mouthClose are replaced.
        speaking: (T,) in 0..1; the jaw stays lowered a little under closed lips while speaking.
        measures: of the face.
    """
    weights = fit_gap(gap, prior, speaking, measures)
    known = np.isfinite(widening)
    if known.any():
        width = measures.of_weights(weights)[:, WIDTH]
        change = np.where(known, widening - (width - np.median(width[known])), 0.0)
        weights = _fit_width(change, weights, measures)
    return fit_gap(gap, weights, speaking, measures)


def fit_gap(gap: Float, weights: Float, speaking: Float, measures: MouthMeasures) -> Float:
    """The weights (T, 52) with the jawOpen and mouthClose that part the lips by a gap (T,) in mm."""
    fitted = np.asarray(weights, np.float32).copy()
    fitted[:, (JAW_OPEN, MOUTH_CLOSE)] = 0.0
    shape_gap = fitted @ measures.matrix[:, GAP]  # an overlap at rest closes the lips as 0 does
    opening = (np.maximum(gap, 0.0) - shape_gap) / measures.matrix[JAW_OPEN, GAP]
    lowered = np.maximum(JAW_REST_IN_SPEECH * speaking, JAW_FOR_TONGUE * fitted[:, TONGUE_OUT])
    jaw = np.sqrt(np.square(np.maximum(opening, 0.0)) + np.square(lowered))
    fitted[:, JAW_OPEN], fitted[:, MOUTH_CLOSE] = jaw, jaw - opening
    return np.clip(fitted, 0.0, 1.0).astype(np.float32)


def _fit_width(change: Float, weights: Float, measures: MouthMeasures) -> Float:
    """The weights (T, 52) with the width changed by `change` (T,) mm within the shapes' limits."""
    per_weight = measures.matrix[:, WIDTH]
    stretch, smile = per_weight[STRETCH].sum(), per_weight[SMILE].sum()
    pucker, funnel = -per_weight[MOUTH_PUCKER], -per_weight[MOUTH_FUNNEL]
    fitted = weights.copy()

    wider = np.maximum(change, 0.0)
    rounded = fitted[:, MOUTH_PUCKER] * pucker + fitted[:, MOUTH_FUNNEL] * funnel
    unrounding = np.minimum(wider, (1 - KEPT_ROUNDING) * rounded)
    fitted[:, (MOUTH_PUCKER, MOUTH_FUNNEL)] *= (1 - unrounding / np.maximum(rounded, 1e-6))[:, None]
    rest = wider - unrounding
    fitted[:, STRETCH] += (rest * (1 - SMILE_SHARE) / stretch)[:, None]
    fitted[:, SMILE] += (rest * SMILE_SHARE / smile)[:, None]
    fitted[:, STRETCH] = np.minimum(fitted[:, STRETCH], MOST_STRETCH)
    fitted[:, SMILE] = np.minimum(fitted[:, SMILE], MOST_SMILE)

    narrower = np.maximum(-change, 0.0)
    spread = fitted[:, STRETCH].mean(axis=1) * stretch + fitted[:, SMILE].mean(axis=1) * smile
    unspreading = np.minimum(narrower, spread)
    fitted[:, [*STRETCH, *SMILE]] *= (1 - unspreading / np.maximum(spread, 1e-6))[:, None]
    fitted[:, MOUTH_PUCKER] = np.minimum(fitted[:, MOUTH_PUCKER] + (narrower - unspreading) / pucker, MOST_PUCKER)
    return fitted
