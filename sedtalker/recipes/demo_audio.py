"""Make the demo's audio from clips of one CREMA-D actor: neutral, happy, angry and neutral again.

`python -m sedtalker.recipes demo_audio CREMA-D -o assets/demo.wav`. The actor is in the validation split, so that no
weights were trained on her voice. Listeners of CREMA-D recognised the emotion of each clip from its audio alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import LEVEL_WINDOW, SAMPLE_RATE, load_audio, loudness, write_wav
from sedtalker.data.manifest import audio_files
from sedtalker.emotion.vad import detect_speech
from sedtalker.errors import DataError

CLIPS = ("1028_WSI_NEU_XX", "1028_ITS_HAP_XX", "1028_IOM_ANG_XX", "1028_TAI_NEU_XX")
LEVEL = -23.0  # dB of full scale, root mean square of the speech
PEAK = 0.9
PAUSE = 0.35  # seconds between the sentences
EDGE = 0.25  # seconds of faded silence around the speech
REACH = 22.0  # dB below the loud frames down to which frames are speech
WINDOW = 512  # samples, of the noise reduction
RESIDUE = 0.3  # lowest gain; some room tone remains, as digital silence between words is audible


def demo_samples(folder: Path) -> NDArray[np.float32]:
    """Samples (N,) of the demo's sentences at one level with pauses between them.

    Raises:
        DataError: the folder lacks one of the clips.
    """
    by_name = {path.stem: path for path in audio_files(folder)}
    missing = [name for name in CLIPS if name not in by_name]
    if missing:
        raise DataError(f"no clip {missing[0]}: {folder}. Give the CREMA-D folder with its AudioWAV")
    pause = np.zeros(int(PAUSE * SAMPLE_RATE), np.float32)
    pieces = [pause]
    for name in CLIPS:
        pieces += [normalize_level(trim_to_speech(denoise(load_audio(by_name[name])))), pause]
    return np.concatenate(pieces)


def trim_to_speech(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Trim a clip to its speech and `EDGE` seconds around it, faded in and out."""
    voiced = np.flatnonzero(_speech_frames(samples))
    edge = int(EDGE * SAMPLE_RATE)
    first = max(0, voiced[0] * LEVEL_WINDOW - edge)
    last = min(len(samples), (voiced[-1] + 1) * LEVEL_WINDOW + edge)
    piece = samples[first:last].copy()
    fade = np.linspace(0, 1, edge // 2, dtype=np.float32)
    piece[: len(fade)] *= fade
    piece[-len(fade) :] *= fade[::-1]
    return piece


def denoise(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce stationary noise by a smoothed Wiener gain of at least `RESIDUE`."""
    window = np.sqrt(np.hanning(WINDOW + 1)[:-1])
    padded = np.pad(samples, WINDOW)
    starts = range(0, len(padded) - WINDOW, WINDOW // 4)
    spectra = np.stack([np.fft.rfft(window * padded[start : start + WINDOW]) for start in starts])  # (frames, bins)
    power = _smooth(np.square(np.abs(spectra)))
    loud = power.sum(axis=1) > 0
    noise = np.percentile(power[loud], 10, axis=0)
    gain = np.maximum(1 - 2 * noise / np.maximum(power, 1e-12), RESIDUE)
    clean = np.zeros(len(padded))
    for start, spectrum in zip(starts, spectra * _smooth(gain), strict=True):
        clean[start : start + WINDOW] += window * np.fft.irfft(spectrum) / 2  # the squared windows sum to 2
    return clean[WINDOW : WINDOW + len(samples)].astype(np.float32)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average (frames, bins) over three frames and three bins."""
    for axis in (0, 1):
        values = (np.roll(values, 1, axis) + values + np.roll(values, -1, axis)) / 3
    return values


def normalize_level(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale samples so that their speech is at `LEVEL`, limited by `PEAK`."""
    power = np.mean(10 ** (loudness(_whole_frames(samples))[_speech_frames(samples)].astype(np.float64) / 10))
    gain = 10 ** (LEVEL / 20) / float(np.sqrt(power))
    return samples * min(gain, PEAK / float(np.abs(samples).max()))


def _speech_frames(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the 20 ms frames with speech: within `REACH` of the loud frames, without short clicks."""
    return detect_speech(loudness(_whole_frames(samples)), reach=REACH, without_clicks=True)


def _whole_frames(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return samples[: len(samples) // LEVEL_WINDOW * LEVEL_WINDOW]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of CREMA-D")
    parser.add_argument("-o", "--output", type=Path, required=True, help="WAV file to write")


def run(arguments: argparse.Namespace) -> None:
    write_wav(arguments.output, [demo_samples(arguments.folder)])
