"""Confidence intervals by the bootstrap over groups of items that belong together, such as the clips of a speaker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95

Figure = dict[str, float | None]
"""A value with the limits of its interval: `value`, `low` and `high`, None where it is not defined."""


def draw_counts(groups: Sequence[str], seed: int | Sequence[int] = 0) -> NDArray[np.float64]:
    """Counts (1 + RESAMPLES, N) of N items: once each in the first row, in the others those of a resample.

    Args:
        groups: (N,) name of each item's group; groups are drawn with all of their items.
    """
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    return np.vstack([np.ones(len(member)), counts[:, member]])


def interval(values: NDArray[np.float64]) -> Figure:
    """The first value, with the limits between which the middle `CONFIDENCE` of the others, the resampled ones, is."""
    resampled = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(resampled):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def mean_interval(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Figure:
    """Mean of values (N,) with its interval over their groups (N,); NaN are left out."""
    known = np.array(values, float)
    weights = draw_counts(groups, seed) * np.isfinite(known)
    with np.errstate(invalid="ignore"):
        return interval(weights @ np.nan_to_num(known) / weights.sum(axis=1))


def show(figure: Figure, digits: int = 3) -> str:
    """A figure as text with its interval: `0.745 [0.702, 0.791]`."""
    if figure["value"] is None or figure["low"] is None or figure["high"] is None:
        return "-"
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
