"""Loudness and pitch of a voice, every 20 ms, from the past alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import LEVEL_FLOOR, SAMPLE_RATE, Samples, loudness
from sedtalker.kernels import compiler
from sedtalker.mel import FRAME_SAMPLES

Float = NDArray[np.float32]

SILENCE = (LEVEL_FLOOR, 0.0)  # loudness in dB of full scale and pitch in Hz of a silent frame
WINDOW = 2 * FRAME_SAMPLES  # samples whose pitch a frame has; they end with the frame
DECIMATION = 4
LAGS = (10, 57)  # periods that are searched, in samples at 4 kHz: 400 to 70 Hz
VOICED = 0.6  # least correlation of a voiced frame with itself a period later
FIRST_PEAK = 0.9  # of the highest correlation: a shorter period above it is taken, as multiples correlate as well
AUDIBLE = -50.0  # dB of full scale, least loudness of a voiced frame

compiled = compiler(nogil=True, error_model="numpy", fastmath=True)


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
        levels = loudness(held[WINDOW - FRAME_SAMPLES :][: frames * FRAME_SAMPLES])
        prosody = np.zeros((frames, 2), np.float32)
        prosody[:, 0] = levels
        _find_pitch(np.ascontiguousarray(held), FRAME_SAMPLES, levels > AUDIBLE, prosody)
        return prosody

    def finish(self) -> Float:
        """The last frame, if it is incomplete, with silence after it."""
        missing = -(len(self._held) - WINDOW + FRAME_SAMPLES) % FRAME_SAMPLES
        return self.push(np.zeros(missing, np.float32))


@compiled
def _find_pitch(samples: Float, hop: int, audible: NDArray[np.bool_], prosody: Float) -> None:
    """Fill the second column of prosody (n, 2), pitch in Hz of the audible windows (WINDOW samples, `hop` apart).

    It is the first high peak of the normalised autocorrelation. Unvoiced windows keep their value.
    """
    length, low, count = WINDOW // DECIMATION, LAGS[0] - 1, LAGS[1] - LAGS[0] + 3
    x = np.empty(length, np.float32)
    energy = np.empty(length + 1, np.float64)
    r = np.empty(count, np.float64)
    for window in range(prosody.shape[0]):
        if not audible[window]:
            continue
        mean = np.float32(0.0)
        for i in range(length):
            total, at = np.float32(0.0), window * hop + i * DECIMATION
            for k in range(DECIMATION):
                total += samples[at + k]
            x[i] = total / np.float32(DECIMATION)
            mean += x[i]
        mean /= np.float32(length)
        energy[0] = 0.0
        for i in range(length):
            x[i] -= mean
            energy[i + 1] = energy[i] + np.float64(x[i]) * np.float64(x[i])
        for number in range(count):
            lag = low + number
            product = np.float32(0.0)
            for i in range(length - lag):
                product += x[i] * x[i + lag]
            power = energy[length - lag] * (energy[length] - energy[lag])
            r[number] = product / np.sqrt(max(power, 1e-20))
        highest = 1e-9
        for number in range(1, count - 1):
            if r[number] >= r[number - 1] and r[number] >= r[number + 1]:
                highest = max(highest, r[number])
        for number in range(1, count - 1):
            a, b, c = r[number - 1], r[number], r[number + 1]
            if b >= a and b >= c and b >= FIRST_PEAK * highest:
                if b > VOICED:
                    curvature = min(a - 2 * b + c, -1e-9)
                    shift = min(max(0.5 * (a - c) / curvature, -0.5), 0.5)  # vertex of the parabola through the three
                    prosody[window, 1] = SAMPLE_RATE / DECIMATION / (low + number + shift)
                break
