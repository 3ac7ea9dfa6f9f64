"""Speech features computed once: `python -m sedtalker.recipes cache_features MANIFEST -o CACHE [--steps]`.

Reads a corpus manifest (`sedtalker.data.manifest`) or a talker's training store (its `manifest.json`), and writes
for each clip `CACHE/ID.npy` (T, layers, width) float16 and `CACHE/ID.loudness.npy` (T,) float16, dB of full scale. A
clip that is there already is not computed again, so a run that was stopped goes on. With `--steps` the features are
those that a diarizer is trained on: 25 a second, normalised (`sedtalker.emotion.diarizer.pool_frames`), from
`--first-layer` on where the diarizer reads only those. With `--below K` they are what a diarizer is trained on along
with the encoder's blocks above the first K (`sedtalker.training.encoder_tuning`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.data.manifest import load_manifest
from sedtalker.data.rig_store import read_rig_manifest
from sedtalker.emotion.diarizer import STRIDE, pool_frames
from sedtalker.emotion.vad import loudness
from sedtalker.errors import AudioError, DataError
from sedtalker.files import atomic_write, read_text
from sedtalker.speech import FRAME_SAMPLES, MEL_HOP, WindowedEncoder, log_mel

MEL_STRIDE = STRIDE * FRAME_SAMPLES // MEL_HOP  # log-mel frames of 10 ms in one step of the diarizer

Augmentation = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]
Features = Callable[[NDArray[np.float32]], Tensor]  # of samples (N,): what is cached, its first axis time


def read_recordings(manifest: Path) -> list[tuple[str, Path]]:
    """(id, path) of every recording of a corpus manifest, or of a rig store's `manifest.json`.

    Raises:
        DataError: the file is neither of the two.
    """
    if _is_rig_manifest(manifest):
        return [(clip.id, Path(clip.audio)) for clip in read_rig_manifest(manifest.parent).clips]
    corpus = load_manifest(manifest)
    return [(item.id, corpus.audio(item)) for item in corpus]


def _is_rig_manifest(path: Path) -> bool:
    try:
        document = json.loads(read_text(path))
    except (OSError, ValueError):
        return False  # `load_manifest` reports it
    return isinstance(document, dict) and "clips" in document


def steps_from(encoder: WindowedEncoder, first_layer: int = 0) -> Features:
    """What a diarizer reads: (S, layers, width) of the hidden states from `first_layer` on."""
    return lambda samples: pool_frames(encoder.encode(samples)[None, :, first_layer:])[0]


def read_above(encoder: WindowedEncoder, below: int) -> Features:
    """What a diarizer reads that is trained along with the blocks above the first `below`."""
    if below:
        return lambda samples: pair_frames(encoder.encode(samples)[:, below])
    return lambda samples: mel_steps(torch.from_numpy(samples))


def pair_frames(states: Tensor) -> Tensor:
    """States (T, D) of 50 Hz -> (ceil(T / 2), 2, D), the two frames of each step; an odd last frame counts twice."""
    whole = torch.cat([states, states[-1:]]) if len(states) % STRIDE else states
    return whole.unflatten(0, (-1, STRIDE))


def mel_steps(samples: Tensor) -> Tensor:
    """Log-mels (ceil(N / 640), 4, mels) of samples (N,), the four frames of each step, padded with silence."""
    whole = MEL_STRIDE * MEL_HOP
    return log_mel(nn.functional.pad(samples, (0, -len(samples) % whole))).T.unflatten(0, (-1, MEL_STRIDE))


def cache_features(
    clips: list[tuple[str, Path]],
    cache: Path,
    features: Features,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> None:
    """Write the features of every clip that the cache lacks.

    An augmentation is seeded by the clip's id, so that the result does not depend on the order.

    Raises:
        DataError: sounds cannot be read; the features of all others are written by then.
    """
    unreadable = []
    for identity, audio in tqdm(clips, desc=f"features -> {cache}", unit="clip"):
        target = cache / f"{identity}.npy"
        if target.exists():
            continue
        try:
            samples = load_audio(audio)
        except AudioError as error:
            tqdm.write(str(error))
            unreadable.append(identity)
            continue
        if augmentation is not None:
            samples = augmentation(samples, np.random.default_rng([seed, zlib.crc32(identity.encode())]))
        with atomic_write(cache / f"{identity}.loudness.npy") as temp_path:
            np.save(temp_path, loudness(samples).astype(np.float16))
        with atomic_write(target) as temp_path:
            np.save(temp_path, features(samples).half().numpy())
    if unreadable:
        raise DataError(
            f"no features of {unreadable[0]} and {len(unreadable) - 1} more: {cache}. Correct or remove them"
        )
