"""Loudness and pitch of a voice, every 20 ms, from the past alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import LEVEL_FLOOR, SAMPLE_RATE, Samples, loudness
from sedtalker.speech import FRAME_SAMPLES

Float = NDArray[np.float32]

SILENCE = (LEVEL_FLOOR, 0.0)  # loudness in dB of full scale and pitch in Hz of a silent frame
WINDOW = 2 * FRAME_SAMPLES  # samples whose pitch a frame has; they end with the frame
DECIMATION = 4
LAGS = (10, 57)  # periods that are searched, in samples at 4 kHz: 400 to 70 Hz
VOICED = 0.6  # least correlation of a voiced frame with itself a period later
FIRST_PEAK = 0.9  # of the highest correlation: a shorter period above it is taken, as multiples correlate as well
AUDIBLE = -50.0  # dB of full scale, least loudness of a voiced frame


class ProsodyTracker:
    """Loudness and pitch of samples that come in chunks of any size."""

    def __init__(self) -> None:
        self._held = np.zeros(WINDOW - FRAME_SAMPLES, np.float32)  # samples from the start of the next window on

    def push(self, samples: Samples) -> Float:
        """Loudness in dB of full scale and pitch in Hz, 0 if unvoiced, (n, 2), of the frames that became complete."""
        held = np.concatenate([self._held, samples])
        frames = max(0, (len(held) - WINDOW) // FRAME_SAMPLES + 1)
        self._held = held[frames * FRAME_SAMPLES :]
        if not frames:
            return np.zeros((0, 2), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(held, WINDOW)[::FRAME_SAMPLES][:frames]
        levels = loudness(held[WINDOW - FRAME_SAMPLES :][: frames * FRAME_SAMPLES])
        return np.stack([levels, np.where(levels > AUDIBLE, estimate_pitch(windows), 0)], axis=1)

    def finish(self) -> Float:
        """The last frame, if it is incomplete, with silence after it."""
        missing = -(len(self._held) - WINDOW + FRAME_SAMPLES) % FRAME_SAMPLES
        return self.push(np.zeros(missing, np.float32))


def estimate_pitch(windows: Float) -> Float:
    """Pitch (n,) in Hz of windows (n, WINDOW), 0 if unvoiced: the first high peak of the normalised autocorrelation."""
    low, high = LAGS
    x = windows.reshape(len(windows), -1, DECIMATION).mean(axis=2)
    x = x - x.mean(axis=1, keepdims=True)
    length = x.shape[1]
    spectrum = np.fft.rfft(x, 2 * length)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, low - 1 : high + 2]
    energy = np.pad(np.cumsum(np.square(x, dtype=np.float64), axis=1), [(0, 0), (1, 0)])
    lags = np.arange(low - 1, high + 2)
    power = energy[:, length - lags] * (energy[:, -1:] - energy[:, lags])
    r = products / np.sqrt(np.maximum(power, 1e-20))
    before, middle, after = r[:, :-2], r[:, 1:-1], r[:, 2:]
    best = np.where((middle >= before) & (middle >= after), middle, 0)
    first = (best >= FIRST_PEAK * np.maximum(best.max(axis=1, keepdims=True), 1e-9)).argmax(axis=1)
    row = np.arange(len(r))
    a, b, c = before[row, first], middle[row, first], after[row, first]
    curvature = np.minimum(a - 2 * b + c, -1e-9)
    lag = low + first + np.clip(0.5 * (a - c) / curvature, -0.5, 0.5)  # vertex of the parabola through three points
    return np.where(best[row, first] > VOICED, SAMPLE_RATE / DECIMATION / lag, 0).astype(np.float32)
