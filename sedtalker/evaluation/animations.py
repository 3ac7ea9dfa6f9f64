"""How finished animations move, without a recorded truth: `sedtalker evaluate motion FILE.npz...`.

The measures are those of `sedtalker.evaluation.motion`, over the weights of rigged animations and their sound. What is
known of the words decides how much can be told: times of the phones, the text (aligned by `sedtalker.data.alignment`),
or nothing but where there is sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.animation import Animation, load_animation
from sedtalker.audio import load_audio
from sedtalker.curves import resample
from sedtalker.data.alignment import Aligner
from sedtalker.emotion.vad import SILENCE_LEVEL, detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation import lips
from sedtalker.evaluation.lips import ClosureFigures
from sedtalker.evaluation.motion import FELT, ClipMotion, mouth_figures, surface_figures
from sedtalker.face.action_units import classify_emotion
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.phones import SILENCE, Phone
from sedtalker.speech import FRAME_RATE

Float = NDArray[np.float32]

UNKNOWN = "?"  # a sound of which only the time is known
PAUSE = 0.2  # seconds; shorter gaps in the sound may be stops
SHORTEST = 25  # frames


def animation_figures(path: Path, phones: Sequence[Phone] = ()) -> dict[str, Any]:
    """Figures of one animation, those of phones only where they are known.

    Args:
        path: an animation's .npz.
        phones: what is said, in seconds of the sound that the animation names.

    Raises:
        DataError: no blendshape weights in ARKit's order, no face that they move, no sound, or hardly a frame.
    """
    animation, audio = _judged(path)
    return _figures(animation, path, load_audio(audio), phones)


def evaluate_animations(
    paths: Sequence[Path], known: Mapping[str, Sequence[Phone]] | None = None, text: str | None = None
) -> dict[str, dict[str, Any]]:
    """Figures by file; `known` holds phones by the name of a file or of its sound, `text` is said in all of them."""
    aligner = Aligner() if text else None
    report = {}
    for path in paths:
        animation, audio = _judged(path)
        samples = load_audio(audio)
        phones: Sequence[Phone] = ()
        if aligner and text:
            phones = _found(aligner.align(samples, text), audio)
        elif known:
            phones = _listed(known, path, audio)
        report[str(path)] = _figures(animation, path, samples, phones)
    return report


def _judged(path: Path) -> tuple[Animation, Path]:
    """An animation whose lips can be judged, and its sound."""
    animation = load_animation(path)
    if animation.blendshapes is None or animation.blendshape_names != ARKIT_NAMES:
        raise DataError(f"no ARKit weights to judge: {path}. A mesh beside its truth: sedtalker evaluate talker")
    face = animation.face
    if face.blendshapes is None or face.lip_pairs is None:
        raise DataError(f"no lips to judge on the face {face.name}: {path}. Animate a face of the default topology")
    return animation, _sound_of(animation, path)


def _figures(animation: Animation, path: Path, samples: Float, phones: Sequence[Phone]) -> dict[str, Any]:
    """`animation_figures` of what was read already: the animation of `path`, and its sound (N,) at 16 kHz."""
    assert animation.blendshapes is not None  # or it would not be judged
    face = animation.face
    decibels = loudness(samples)
    weights = resample(animation.blendshapes, animation.fps, FRAME_RATE)
    frames = min(len(weights), len(decibels))
    if frames < SHORTEST:
        raise DataError(f"too short to judge: {path}. Animate a longer sound")
    weights, decibels = weights[:frames], decibels[:frames]
    gap = lips.lip_gap_of_weights(weights, face).astype(np.float32)
    said = ClipMotion(weights, gap, tuple(phones) or _sounding(decibels), decibels)
    figures = mouth_figures([said]) | surface_figures([said], face)
    figures["emotion_agreement"] = _agreement(animation.blendshapes, animation)
    phone_metrics = () if phones else ClosureFigures.nothing().summary()
    return {name: value for name, value in figures.items() if name not in phone_metrics and np.isfinite(value)}


def _found(phones: tuple[Phone, ...] | None, audio: Path) -> tuple[Phone, ...]:
    if phones is None:
        raise DataError(f"the text is not found in {audio}. Give the words that are said, or leave --text out")
    return phones


def _listed(known: Mapping[str, Sequence[Phone]], path: Path, audio: Path) -> Sequence[Phone]:
    for name in (path.stem, audio.stem):
        if name in known:
            return known[name]
    raise DataError(f"no phones of {path.stem} or {audio.stem} in the table. Name its rows by the file, or use --text")


def _sound_of(animation: Animation, path: Path) -> Path:
    sound = animation.meta.get("audio")
    if sound is None or not Path(sound).is_file():
        raise DataError(f"the sound of {path} is not to be found: {sound}. Animate it again where its sound lies")
    return Path(sound)


def _sounding(decibels: Float) -> tuple[Phone, ...]:
    """Sounds and silences, where that is all that is known."""
    phones, frame = [], 0
    for sounds, run in groupby(detect_speech(decibels, bridge=PAUSE) & (decibels.max() > SILENCE_LEVEL)):
        start, frame = frame, frame + len(list(run))
        phones.append(Phone("", UNKNOWN if sounds else SILENCE, start / FRAME_RATE, frame / FRAME_RATE))
    return tuple(phones)


def _agreement(weights: Float, animation: Animation) -> float:
    """Share of the felt frames whose face shows what the track says; nan where nothing is felt."""
    posterior, intensity = animation.emotion.with_labels(LABELS).at_rate(animation.fps, len(weights))
    heard = posterior.argmax(axis=1)
    felt = (intensity > FELT) & (heard != NEUTRAL)
    return float((classify_emotion(weights[felt]) == heard[felt]).mean()) if felt.any() else float("nan")
