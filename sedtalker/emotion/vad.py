"""Voice activity and silence from the loudness of a recording."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import AUDIBLE_LEVEL, LEVEL_FLOOR, SAMPLE_RATE, loudness
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES

FLOOR = LEVEL_FLOOR
SPEECH_RANGE = 30.0  # dB below the loud frames (95th percentile); louder frames are speech
SILENCE_RANGE = 45.0  # dB below the loud frames; quieter frames are silent
SILENCE_LEVEL = AUDIBLE_LEVEL  # dB of full scale; quieter frames are always silent
LONG_SILENCE = 0.6  # s; shorter ones are pauses within speech


def detect_speech(
    loudness_db: NDArray[np.float32], bridge: float = 0.0, *, reach: float = SPEECH_RANGE, without_clicks: bool = False
) -> NDArray[np.bool_]:
    """Mask (T,) of the frames with speech.

    Args:
        loudness_db: (T,) at 50 Hz, dB of full scale.
        bridge: seconds; shorter pauses count as speech.
        reach: dB below the loud frames (95th percentile); louder frames are speech.
        without_clicks: exclude frames if most of the seven around them are quieter than that.
    """
    speech = loudness_db > np.percentile(loudness_db, 95) - reach
    if without_clicks:
        speech &= np.convolve(speech, np.ones(7, int), mode="same") >= 4
    for before, after in pairwise(np.flatnonzero(speech)):
        if after - before <= bridge * FRAME_RATE:
            speech[before:after] = True
    return speech


def find_runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last + 1) of each run of true values in a mask (T,)."""
    edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def trim_silence(samples: NDArray[np.float32], edge: float) -> NDArray[np.float32]:
    """Samples from the first to the last frame of speech, with `edge` seconds on both sides."""
    speech = np.flatnonzero(detect_speech(loudness(samples)))
    reach = int(edge * SAMPLE_RATE)
    return samples[max(0, speech[0] * FRAME_SAMPLES - reach) : (speech[-1] + 1) * FRAME_SAMPLES + reach]


def silence_weight(loudness_db: NDArray[np.float32], fade: float = 0.2) -> NDArray[np.float32]:
    """Weight (T,) for a loudness (T,): 1 in long silence, 0 elsewhere, with ramps of `fade` seconds in the silence."""
    silent = loudness_db < max(SILENCE_LEVEL, np.percentile(loudness_db, 95) - SILENCE_RANGE)
    weight = np.zeros(len(loudness_db), np.float32)
    for first, last in find_runs(silent):
        if last - first < LONG_SILENCE * FRAME_RATE:
            continue
        inside = np.arange(last - first) + 0.5
        rise = inside if first > 0 else np.full(len(inside), np.inf)  # no ramp at the ends of the recording
        fall = inside[::-1] if last < len(loudness_db) else np.full(len(inside), np.inf)
        weight[first:last] = np.clip(np.minimum(rise, fall) / (fade * FRAME_RATE), 0, 1)
    return weight
