"""Slaney's mel bands and the frames of Whisper's log-mels, which all encoders read."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE

MEL_HOP = 160  # samples, 10 ms a mel frame
MEL_WINDOW = 400  # samples, 25 ms
FRAME_SAMPLES = 2 * MEL_HOP  # 20 ms a feature frame: the encoders' second convolution strides by two
FRAME_RATE = SAMPLE_RATE // FRAME_SAMPLES  # 50 Hz


def mel_edges(mels: int) -> NDArray[np.float64]:
    """Edges (mels + 2,) in Hz of Slaney's mel bands: band k is from edge k to k + 2 with its middle at k + 1.

    Linear below 1 kHz, logarithmic above, from 0 to 8 kHz.
    """
    step, break_hz, log_step = 200.0 / 3, 1000.0, math.log(6.4) / 27.0

    def to_mel(hz: float) -> float:
        return hz / step if hz < break_hz else break_hz / step + math.log(hz / break_hz) / log_step

    mel = np.linspace(0.0, to_mel(SAMPLE_RATE / 2), mels + 2)
    return np.where(mel < break_hz / step, mel * step, break_hz * np.exp(log_step * (mel - break_hz / step)))


@lru_cache(maxsize=2)
def mel_filters(mels: int) -> NDArray[np.float32]:
    """Slaney's mel filter bank (mels, 201), area-normalised."""
    hz = mel_edges(mels)
    bins = np.linspace(0.0, SAMPLE_RATE / 2, MEL_WINDOW // 2 + 1)
    rising = (bins[None] - hz[:-2, None]) / (hz[1:-1] - hz[:-2])[:, None]
    falling = (hz[2:, None] - bins[None]) / (hz[2:] - hz[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (hz[2:] - hz[:-2]))[:, None]
    return triangles.astype(np.float32)


def mel_window() -> NDArray[np.float32]:
    """Periodic Hann window (400,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW)).astype(np.float32)
