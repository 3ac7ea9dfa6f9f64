"""Where a recording holds speech and where it is silent, told by its loudness."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import AUDIBLE_LEVEL, LEVEL_FLOOR, SAMPLE_RATE, loudness
from sedtalker.speech import FRAME_RATE, FRAME_SAMPLES

FLOOR = LEVEL_FLOOR
SPEECH_RANGE = 30.0  # dB below the loud frames (their 95th percentile) that still count as speech
SILENCE_RANGE = 45.0  # dB below the loud frames, from where nothing is heard
SILENCE_LEVEL = AUDIBLE_LEVEL  # dB of full scale; below it there is silence, whatever the rest
LONG_SILENCE = 0.6  # s; a shorter one is a pause within speech


def detect_speech(
    levels: NDArray[np.float32], bridge: float = 0.0, *, reach: float = SPEECH_RANGE, without_clicks: bool = False
) -> NDArray[np.bool_]:
    """Which frames (T,) of a loudness (T,) hold speech.

    Args:
        bridge: pauses of up to so many seconds belong to the speech.
        reach: dB below the loud frames that still count.
        without_clicks: leave out frames of which most of the seven around are not as loud.
    """
    speech = levels > np.percentile(levels, 95) - reach
    if without_clicks:
        speech &= np.convolve(speech, np.ones(7, int), mode="same") >= 4
    for before, after in pairwise(np.flatnonzero(speech)):
        if after - before <= bridge * FRAME_RATE:
            speech[before:after] = True
    return speech


def find_runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame and the one after the last of each stretch of true ones in (T,)."""
    edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def trim_silence(samples: NDArray[np.float32], edge: float) -> NDArray[np.float32]:
    """Samples from the first to the last frame of speech, with `edge` seconds around."""
    voiced = np.flatnonzero(detect_speech(loudness(samples)))
    reach = int(edge * SAMPLE_RATE)
    return samples[max(0, voiced[0] * FRAME_SAMPLES - reach) : (voiced[-1] + 1) * FRAME_SAMPLES + reach]


def silence_weight(levels: NDArray[np.float32], fade: float = 0.2) -> NDArray[np.float32]:
    """1 in long silence, 0 elsewhere (T,) of a loudness (T,), with ramps of `fade` seconds inside the silence."""
    silent = levels < max(SILENCE_LEVEL, np.percentile(levels, 95) - SILENCE_RANGE)
    weight = np.zeros(len(levels), np.float32)
    for first, last in find_runs(silent):
        if last - first < LONG_SILENCE * FRAME_RATE:
            continue
        inside = np.arange(last - first) + 0.5
        rise = inside if first > 0 else np.full(len(inside), np.inf)  # the recording's ends need no ramp
        fall = inside[::-1] if last < len(levels) else np.full(len(inside), np.inf)
        weight[first:last] = np.clip(np.minimum(rise, fall) / (fade * FRAME_RATE), 0, 1)
    return weight
