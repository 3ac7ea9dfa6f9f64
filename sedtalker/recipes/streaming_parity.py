"""Streaming parity of the mouth opening, and emotion-invariant lip timing.

    python -m sedtalker.recipes streaming_parity AUDIO... [--model default]

Parity compares the lip gap with a neutral track, streamed in chunks of 80 ms, with that of the whole file. Timing is
the lag of highest correlation between the gaps of two animations, with the neutral and with another emotion.
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
from sedtalker.mel import FRAME_RATE
from sedtalker.pipeline import Talker, load

Array = NDArray[np.floating]

CHUNK = 0.08  # seconds


@dataclass(frozen=True)
class Opening:
    """Statistics of the streamed lip gap relative to that of the whole file."""

    mean: float  # ratio of the mean gaps
    wide: float  # ratio of the 95th percentiles
    spread: float  # ratio of the standard deviations
    correlation: float  # of the two gaps


def live_opening(talker: Talker, sounds: Sequence[Samples], look_ahead: int | None = None) -> Opening:
    """Compare streamed and whole-file lip gaps over all sounds together."""
    live, whole = [], []
    for samples in sounds:
        track = EmotionTrack.neutral(len(samples) / SAMPLE_RATE)
        size = round(CHUNK * SAMPLE_RATE)
        live_stream = talker.open_stream(emotion=track, fps=FRAME_RATE, still=True, look_ahead=look_ahead)
        parts = [live_stream.push(samples[start : start + size]) for start in range(0, len(samples), size)]
        whole.append(animation_gap(talker, samples, track))
        live.append(_gap(np.concatenate([frames.weights for frames in (*parts, live_stream.finish())])))
    first, second = np.concatenate(live), np.concatenate(whole)
    return Opening(
        float(first.mean() / second.mean()),
        float(np.percentile(first, 95) / np.percentile(second, 95)),
        float(first.std() / second.std()),
        float(np.corrcoef(first, second)[0, 1]),
    )


def timing_shift(talker: Talker, samples: Samples, emotion: str) -> float:
    """Lag in seconds of the lips with an emotion at full intensity against neutral; positive is later."""
    duration = len(samples) / SAMPLE_RATE
    neutral = EmotionTrack.neutral(duration, labels=talker.model.config.labels)
    emotional = neutral.copy()
    emotional.set(emotion, 1.0)
    return audio_lip_offset(
        animation_gap(talker, samples, emotional), animation_gap(talker, samples, neutral), FRAME_RATE
    )


def animation_gap(talker: Talker, samples: Samples, track: EmotionTrack, look_ahead: int | None = None) -> Array:
    """Lip gap (T,) in metres at 50 Hz of an animation of a whole recording."""
    animation = talker.animate((samples, SAMPLE_RATE), emotion=track, fps=FRAME_RATE, still=True, look_ahead=look_ahead)
    assert animation.blendshapes is not None
    return _gap(animation.blendshapes)


def _gap(weights: Array) -> Array:
    return lip_gap_of_weights(weights, load_face())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audio", nargs="+", help="recordings")
    parser.add_argument("--model", default="default", help="name or folder of a talker (default: default)")


def run(arguments: argparse.Namespace) -> None:
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
