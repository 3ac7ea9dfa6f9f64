"""How loud the sound is, and when somebody speaks, at 50 Hz."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE

Float = NDArray[np.float32]

HOP = SAMPLE_RATE // 50  # samples, 20 ms
FLOOR = -100.0  # dB of full scale
SPEECH_RANGE = 25.0  # dB under the 95th percentile within which a frame counts as sounding
QUIETEST_SPEECH = -60.0  # dB of full scale, under which nothing does
LONGEST_GAP = 6  # frames, 120 ms: a pause no longer than a stop's closure belongs to the speech


def loudness(samples: Float) -> Float:
    """Root mean square (T,) of every 20 ms of 16 kHz samples (N,), dB of full scale; T = ceil(N / 320)."""
    frames = math.ceil(len(samples) / HOP)
    padded = np.pad(samples, (0, frames * HOP - len(samples))).reshape(frames, HOP)
    power = np.square(padded, dtype=np.float32).mean(axis=1)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR).astype(np.float32)


def speech_activity(decibels: Float) -> NDArray[np.bool_]:
    """Frames (T,) that sound, with the short gaps between them, of a loudness (T,) in dB."""
    threshold = max(float(np.percentile(decibels, 95)) - SPEECH_RANGE, QUIETEST_SPEECH)
    active = decibels > threshold
    edges = np.flatnonzero(np.diff(np.r_[0, ~active, 0]))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start <= LONGEST_GAP and start > 0 and end < len(active):
            active[start:end] = True
    return active


def smooth(curves: Float, frames: float) -> Float:
    """Curves (T,) or (T, K) under a Gaussian of this standard deviation in frames, the ends held."""
    reach = max(1, math.ceil(3 * frames))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / frames))
    kernel /= kernel.sum()
    padded = np.pad(curves, [(reach, reach)] + [(0, 0)] * (curves.ndim - 1), mode="edge")
    moved = [weight * padded[shift : shift + len(curves)] for shift, weight in enumerate(kernel)]
    return np.sum(moved, axis=0).astype(np.float32)
