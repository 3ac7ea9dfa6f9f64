"""The demo's audio: one CREMA-D actor, neutral, happy, angry and calm again. `python -m sedtalker.recipes demo_audio
CREMA-D -o assets/demo.wav`.

The actor is on the validation side of the split, so that no weights were trained on her voice, and the clips are
ones whose emotion the listeners of CREMA-D recognised from the sound alone.
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
PAUSE = 0.35  # s between the sentences
EDGE = 0.25  # s of silence kept around the speech, faded
REACH = 22.0  # dB below the loud frames that still count as speech
WINDOW = 512  # samples, of the noise reduction
RESIDUE = 0.3  # least gain; some room tone stays, silence would sound cut out


def demo_samples(folder: Path) -> NDArray[np.float32]:
    """Samples (N,) of the demo's sentences at one level, with pauses between.

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
        pieces += [levelled(trimmed(denoised(load_audio(by_name[name])))), pause]
    return np.concatenate(pieces)


def trimmed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The speech of a clip with `EDGE` seconds around it, faded in and out."""
    voiced = np.flatnonzero(_speech(samples))
    edge = int(EDGE * SAMPLE_RATE)
    first = max(0, voiced[0] * LEVEL_WINDOW - edge)
    last = min(len(samples), (voiced[-1] + 1) * LEVEL_WINDOW + edge)
    piece = samples[first:last].copy()
    fade = np.linspace(0, 1, edge // 2, dtype=np.float32)
    piece[: len(fade)] *= fade
    piece[-len(fade) :] *= fade[::-1]
    return piece


def denoised(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples with the room's steady noise taken down to `RESIDUE`, by a smoothed Wiener gain."""
    window = np.sqrt(np.hanning(WINDOW + 1)[:-1])
    padded = np.pad(samples, WINDOW)
    starts = range(0, len(padded) - WINDOW, WINDOW // 4)
    spectra = np.stack([np.fft.rfft(window * padded[start : start + WINDOW]) for start in starts])  # (frames, bins)
    power = _smoothed(np.square(np.abs(spectra)))
    loud = power.sum(axis=1) > 0
    noise = np.percentile(power[loud], 10, axis=0)
    gain = np.maximum(1 - 2 * noise / np.maximum(power, 1e-12), RESIDUE)
    clean = np.zeros(len(padded))
    for start, spectrum in zip(starts, spectra * _smoothed(gain), strict=True):
        clean[start : start + WINDOW] += window * np.fft.irfft(spectrum) / 2  # the squared windows sum to 2
    return clean[WINDOW : WINDOW + len(samples)].astype(np.float32)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over three frames and three bins around each of (frames, bins)."""
    for axis in (0, 1):
        values = (np.roll(values, 1, axis) + values + np.roll(values, -1, axis)) / 3
    return values


def levelled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples with their speech at `LEVEL`, as far as the peak allows."""
    power = np.mean(10 ** (loudness(_whole_frames(samples))[_speech(samples)].astype(np.float64) / 10))
    gain = 10 ** (LEVEL / 20) / float(np.sqrt(power))
    return samples * min(gain, PEAK / float(np.abs(samples).max()))


def _speech(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which whole 20 ms frames lie within `REACH` of the loud ones; clicks of a frame or two are none."""
    return detect_speech(loudness(_whole_frames(samples)), reach=REACH, without_clicks=True)


def _whole_frames(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return samples[: len(samples) // LEVEL_WINDOW * LEVEL_WINDOW]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    write_wav(arguments.output, [demo_samples(arguments.folder)])
