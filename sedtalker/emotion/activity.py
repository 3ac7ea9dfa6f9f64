"""Where a recording holds speech and where it is silent, told by its loudness."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE
from sedtalker.speech import FRAME_RATE, FRAME_SAMPLES

FLOOR = -100.0  # dB of full scale
SPEECH_RANGE = 30.0  # dB below the loud frames (their 95th percentile) that still count as speech
SILENCE_RANGE = 45.0  # dB below the loud frames, from where nothing is heard
SILENCE_LEVEL = -60.0  # dB of full scale below which there is silence, whatever the rest
LONG_SILENCE = 0.6  # s; a shorter one is a pause within speech


def loudness(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square (T,) of every 20 ms of samples (N,), dB of full scale."""
    whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
    frames = samples[:whole].reshape(-1, FRAME_SAMPLES)
    power = np.einsum("tn,tn->t", frames, frames) / FRAME_SAMPLES  # an hour's squares are not worth the memory
    if whole < len(samples):
        power = np.append(power, np.square(samples[whole:]).sum() / FRAME_SAMPLES)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR).astype(np.float32)


def speech_frames(levels: NDArray[np.float32], bridge: float = 0.0) -> NDArray[np.bool_]:
    """Which frames (T,) of a loudness (T,) hold speech; pauses of up to `bridge` seconds belong to it."""
    speech = levels > np.percentile(levels, 95) - SPEECH_RANGE
    for before, after in pairwise(np.flatnonzero(speech)):
        if after - before <= bridge * FRAME_RATE:
            speech[before:after] = True
    return speech


def stretches(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame and the one after the last of each stretch of true ones in (T,)."""
    edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def trimmed(samples: NDArray[np.float32], edge: float) -> NDArray[np.float32]:
    """Samples from the first to the last frame of speech, with `edge` seconds around."""
    voiced = np.flatnonzero(speech_frames(loudness(samples)))
    reach = int(edge * SAMPLE_RATE)
    return samples[max(0, voiced[0] * FRAME_SAMPLES - reach) : (voiced[-1] + 1) * FRAME_SAMPLES + reach]


def silence_weight(levels: NDArray[np.float32], fade: float = 0.2) -> NDArray[np.float32]:
    """1 in long silence, 0 elsewhere (T,) of a loudness (T,), with ramps of `fade` seconds inside the silence."""
    silent = levels < max(SILENCE_LEVEL, np.percentile(levels, 95) - SILENCE_RANGE)
    weight = np.zeros(len(levels), np.float32)
    for first, last in stretches(silent):
        if last - first < LONG_SILENCE * FRAME_RATE:
            continue
        inside = np.arange(last - first) + 0.5
        rise = inside if first > 0 else np.full(len(inside), np.inf)  # the recording's ends need no ramp
        fall = inside[::-1] if last < len(levels) else np.full(len(inside), np.inf)
        weight[first:last] = np.clip(np.minimum(rise, fall) / (fade * FRAME_RATE), 0, 1)
    return weight
