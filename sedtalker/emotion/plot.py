"""Plots of an emotion track (waveform, segments, posterior, intensity) and of a confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import require
from sedtalker.labels import COLORS

OTHER = "#444444"  # colour of labels that are not in COLORS
UNCERTAIN = "#00000088"  # hatching of frames whose emotion is not certain
INCHES_A_SECOND = 0.9
WIDTHS = (9.0, 40.0)  # inches, minimum and maximum
COLUMNS = 4000  # of the waveform's outline


def plot_track(track: EmotionTrack, path: str | os.PathLike[str], samples: NDArray[np.float32] | None = None) -> None:
    """Plot a track to a picture file, with the waveform of samples (N,) at 16 kHz.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = float(np.clip(INCHES_A_SECOND * track.duration + 2, *WIDTHS))
    heights = [1.2, 0.55, 1.6, 0.9] if samples is not None else [0.55, 1.6, 0.9]
    figure = Figure(figsize=(width, 1.35 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    if samples is not None:
        _waveform(axes.pop(0), track, samples)
    _segments(axes[0], track)
    _posterior(axes[1], track)
    _intensity(axes[2], track)
    axes[2].set_xlim(0, track.duration)
    axes[2].set_xlabel("time, s")
    _legend(figure, track)
    figure.savefig(path, dpi=120)


def plot_confusion(counts: NDArray[np.integer], labels: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Plot a confusion matrix (C, C) with true classes in rows, normalised by row, without absent classes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = np.flatnonzero(counts.sum(1)).tolist()
    columns = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    shares = counts[np.ix_(rows, columns)] / counts[rows].sum(1, keepdims=True)
    figure = Figure(figsize=(1.6 + 0.7 * len(columns), 1.2 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shares.shape):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axis.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(columns)), [labels[column] for column in columns])
    axis.set_yticks(range(len(rows)), [labels[row] for row in rows])
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    figure.savefig(path, dpi=120)


def _waveform(axis: Any, track: EmotionTrack, samples: NDArray[np.float32]) -> None:
    size = max(1, len(samples) // COLUMNS)
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    times = (np.arange(len(blocks)) + 0.5) * size / SAMPLE_RATE
    for segment in track.segments:
        inside = (times >= segment.start) & (times < segment.end)
        colour = COLORS.get(segment.emotion, OTHER)
        axis.fill_between(times[inside], blocks.min(1)[inside], blocks.max(1)[inside], color=colour, linewidth=0)
    reach = float(np.abs(samples).max(initial=1e-3)) * 1.05
    axis.set_ylim(-reach, reach)
    axis.set_yticks([])
    axis.set_ylabel("waveform")


def _segments(axis: Any, track: EmotionTrack) -> None:
    for segment in track.segments:
        colour = COLORS.get(segment.emotion, OTHER)
        axis.axvspan(segment.start, segment.end, color=colour, alpha=0.35 + 0.65 * segment.confidence, linewidth=0)
        if segment.duration > 0.02 * track.duration:
            text = segment.emotion if segment.emotion == "neutral" else f"{segment.emotion} {segment.intensity:.2f}"
            middle = (segment.start + segment.end) / 2
            axis.text(middle, 0.5, text, ha="center", va="center", fontsize=8, clip_on=True)
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel("segments", rotation=0, ha="right", va="center")


def _posterior(axis: Any, track: EmotionTrack) -> None:
    colours = [COLORS.get(label, OTHER) for label in track.labels]
    axis.stackplot(track.times, track.posterior.T, colors=colours, linewidth=0)
    for start, end in track.abstained_spans:
        axis.axvspan(start, end, facecolor="none", edgecolor=UNCERTAIN, hatch="///", linewidth=0)
    axis.set_ylim(0, 1)
    axis.set_ylabel("posterior")


def _intensity(axis: Any, track: EmotionTrack) -> None:
    axis.plot(track.times, track.intensity, color="black", linewidth=1.2)
    axis.fill_between(track.times, track.intensity, color="black", alpha=0.12, linewidth=0)
    axis.set_ylim(0, 1)
    axis.set_ylabel("intensity")


def _legend(figure: Any, track: EmotionTrack) -> None:
    from matplotlib.patches import Patch

    labels = [label for label, share in zip(track.labels, track.posterior.max(axis=0), strict=True) if share > 0.01]
    patches = [Patch(color=COLORS.get(label, OTHER), label=label) for label in labels]
    if track.abstained.any():
        patches.append(Patch(facecolor="none", edgecolor=UNCERTAIN, hatch="///", label="not certain"))
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False, fontsize=8)
