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
from torch import Tensor
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.emotion.diarizer import pool_frames
from sedtalker.emotion.vad import loudness
from sedtalker.errors import AudioError, DataError
from sedtalker.files import atomic_write, read_text
from sedtalker.speech import WindowedEncoder, load_encoder
from sedtalker.synthesis.rig_clips import Clip, Sources, build_store
from sedtalker.training.encoder_tuning import mel_steps, paired

Augmentation = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]
Features = Callable[[NDArray[np.float32]], Tensor]  # of samples (N,): what is cached, its first axis time


def listed_clips(manifest: Path) -> list[tuple[str, Path]]:
    """(id, audio) of every clip of a manifest of either kind.

    Raises:
        DataError: the file lists neither utterances nor clips.
    """
    try:
        document = json.loads(read_text(manifest))
        if "clips" in document:
            return [(clip["id"], manifest.parent / clip["audio"]) for clip in document["clips"]]
        return [(item["id"], Path(document["root"], item["path"])) for item in document["utterances"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a manifest: {manifest} ({error}). Write one with: sedtalker data prepare") from error


def steps_from(encoder: WindowedEncoder, first_layer: int = 0) -> Features:
    """What a diarizer reads: (S, layers, width) of the hidden states from `first_layer` on."""
    return lambda samples: pool_frames(encoder.encode(samples)[None, :, first_layer:])[0]


def read_above(encoder: WindowedEncoder, below: int) -> Features:
    """What a diarizer reads that is trained along with the blocks above the first `below`."""
    if below:
        return lambda samples: paired(encoder.encode(samples)[:, below])
    return lambda samples: mel_steps(torch.from_numpy(samples))


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
        raise DataError(f"no features of {unreadable[0]} and {len(unreadable) - 1} more: {cache}. Mend those sounds")


def make_store(folder: Path, sources: Sources, most: int | None = None) -> list[Clip]:
    """Write a talker's store (`sedtalker.synthesis.rig_clips`) with its features; features that are there stay."""
    clips = build_store(folder, sources, most)
    cache_features(listed_clips(folder / "manifest.json"), folder / "features", load_encoder().encode)
    return clips
