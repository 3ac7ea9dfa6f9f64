"""What must stay: the mouth's opening when sound comes in 80 ms pieces, the lips' timing when the emotion is another.

    python -m sedtalker.recipes streaming_parity AUDIO... [--model default]

The opening is the lip gap of a neutral track, live (`talker.stream`'s windows) over the whole file's. The timing is the
lag at which the gaps of two animations of the same sound, neutral and at full intensity, correlate best.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, Samples, load_audio
from sedtalker.emotion.track import EmotionTrack
from sedtalker.evaluation.lips import audio_lip_offset, lip_gap_of_weights
from sedtalker.face.assets import load_face
from sedtalker.pipeline import Talker, load
from sedtalker.speech import FRAME_RATE, Windowing
from sedtalker.talker.streaming import LIVE, stream

Array = NDArray[np.floating]

CHUNK = 0.08  # seconds


@dataclass(frozen=True)
class Opening:
    """How far a mouth opens live, over how far it opens in the whole file."""

    mean: float  # of the mean gap
    wide: float  # of the gap's 95th percentile
    spread: float  # of its standard deviation
    correlation: float  # of the two gaps


def live_opening(talker: Talker, sounds: Sequence[Samples], windows: Windowing = LIVE) -> Opening:
    """The opening over all the sounds together."""
    live, whole = [], []
    for samples in sounds:
        track = EmotionTrack.neutral(len(samples) / SAMPLE_RATE)
        size = round(CHUNK * SAMPLE_RATE)
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        encoder = talker.encoder.with_windows(windows)
        whole.append(gap(talker, samples, track))
        streamed = _gap(torch.cat(list(stream(encoder, track, talker.model, chunks))).numpy())
        live.append(streamed[: len(whole[-1])])  # of a last frame that is partly sound
    first, second = np.concatenate(live), np.concatenate(whole)
    return Opening(
        float(first.mean() / second.mean()),
        float(np.percentile(first, 95) / np.percentile(second, 95)),
        float(first.std() / second.std()),
        float(np.corrcoef(first, second)[0, 1]),
    )


def timing_shift(talker: Talker, samples: Samples, emotion: str) -> float:
    """Seconds by which an emotion at full intensity moves the lips' timing; positive is later."""
    duration = len(samples) / SAMPLE_RATE
    neutral = EmotionTrack.neutral(duration, labels=talker.model.config.labels)
    moved = neutral.copy()
    moved.set(emotion, 1.0)
    return audio_lip_offset(gap(talker, samples, moved), gap(talker, samples, neutral), FRAME_RATE)


def gap(talker: Talker, samples: Samples, track: EmotionTrack) -> Array:
    """Lip gap (T,) in metres at 50 Hz of a whole animation."""
    animation = talker.animate((samples, SAMPLE_RATE), emotion=track, fps=FRAME_RATE, still=True)
    assert animation.blendshapes is not None
    return _gap(animation.blendshapes)


def _gap(weights: Array) -> Array:
    return lip_gap_of_weights(weights, load_face())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("audio", nargs="+")
    parser.add_argument("--model", default="default")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    talker = load(arguments.model, device="cpu")
    sounds = [load_audio(path) for path in arguments.audio]
    opening = live_opening(talker, sounds)
    print(
        f"live in pieces of {1000 * CHUNK:.0f} ms (a frame waits {1000 * talker.latency():.0f} ms at most), over the "
        f"whole files: mean gap {opening.mean:.3f}, 95th percentile {opening.wide:.3f}, spread {opening.spread:.3f}; "
        f"correlation {opening.correlation:.3f}"
    )
    for emotion in talker.model.config.labels:
        if emotion != "neutral":
            shifts = 1000 * np.array([timing_shift(talker, samples, emotion) for samples in sounds])
            print(
                f"{emotion}: lips shifted by {np.median(shifts):+.1f} ms (median), {np.abs(shifts).max():.1f} at most"
            )
