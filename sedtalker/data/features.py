"""Speech features computed once and cached: `python -m sedtalker.recipes cache_features MANIFEST -o CACHE [--steps]`.

A cache holds for each recording `ID.npy` (T, layers, width) float16 and `ID.loudness.npy` (T,) float16 in dB of full
scale. Files that exist are not computed again, so a run that was stopped continues. There are three kinds of features:

    hidden states of the encoder at 50 Hz     for talkers, also in a store of vertices (`cache_store_features`)
    `diarizer_features`, 25 per second        for a diarizer on a frozen encoder (`--steps`)
    `frozen_features`, 25 per second          for a diarizer that tunes the encoder's upper blocks (`--below K`)
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
from sedtalker.data.rig_store import FEATURES, features_folder, read_rig_manifest
from sedtalker.data.vertex_store import Store
from sedtalker.emotion.diarizer import STRIDE, pool_frames
from sedtalker.emotion.vad import loudness
from sedtalker.errors import AudioError, DataError
from sedtalker.files import atomic_write, read_text, remove_temporary
from sedtalker.mel import FRAME_SAMPLES
from sedtalker.speech import DEFAULT_ENCODER, MEL_HOP, StreamingEncoder, WindowedEncoder, load_encoder, log_mel
from sedtalker.streaming_encoder import LOOK_AHEAD
from sedtalker.talker.model import TalkerConfig

MEL_STRIDE = STRIDE * FRAME_SAMPLES // MEL_HOP  # log-mel frames of 10 ms in one step of the diarizer

Augmentation = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]
Features = Callable[[NDArray[np.float32]], Tensor]  # samples (N,) -> features (T, ...)
RECORD = "encoder.json"  # name of the encoder, in the folder of a store's features


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
    return path.name == "manifest.json" and isinstance(document, dict) and "clips" in document


def diarizer_features(encoder: WindowedEncoder, first_layer: int = 0) -> Features:
    """Features (S, layers, width) for a diarizer: normalised steps of the hidden states from `first_layer` on."""
    return lambda samples: pool_frames(encoder.encode(samples)[None, :, first_layer:])[0]


def frozen_features(encoder: WindowedEncoder, frozen_layers: int) -> Features:
    """Input of the blocks that are tuned with a diarizer: states (S, 2, width) after the first `frozen_layers` blocks.

    With no frozen block they are log-mels (S, 4, mels).
    """
    if frozen_layers:
        return lambda samples: pair_frames(encoder.encode(samples)[:, frozen_layers])
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
    """Write the features of every recording (id, path) that is not in the cache.

    The augmentation is seeded by the recording's id, so the result does not depend on the order.

    Raises:
        DataError: recordings cannot be read; the features of all others are written before it is raised.
    """
    unreadable = []
    for clip_id, path in tqdm(clips, desc=f"features -> {cache}", unit="clip"):
        target = cache / f"{clip_id}.npy"
        if target.exists():
            continue
        try:
            samples = load_audio(path)
        except AudioError as error:
            tqdm.write(str(error))
            unreadable.append(clip_id)
            continue
        if augmentation is not None:
            samples = augmentation(samples, np.random.default_rng([seed, zlib.crc32(clip_id.encode())]))
        with atomic_write(cache / f"{clip_id}.loudness.npy") as temp_path:
            np.save(temp_path, loudness(samples).astype(np.float16))
        with atomic_write(target) as temp_path:
            np.save(temp_path, features(samples).half().numpy())
    if unreadable:
        raise DataError(
            f"no features of {unreadable[0]} and {len(unreadable) - 1} more: {cache}. Correct or remove them"
        )


def cache_look_aheads(clips: list[tuple[str, Path]], root: Path, encoder: str) -> None:
    """Write the features of every recording (id, path) of a rig store, in one folder for each look-ahead.

    Raises:
        DataError: the store has features of another encoder, or recordings cannot be read.
        CheckpointError: the encoder does not exist.
    """
    network = load_encoder(encoder)  # before its name is recorded: a wrong one must not stay there
    _record_encoder(root / FEATURES, encoder)
    if not isinstance(network, StreamingEncoder):
        cache_features(clips, root / FEATURES, network.encode)
        return
    longest = max(LOOK_AHEAD)
    for look_ahead in LOOK_AHEAD:
        folder = root / features_folder(None if look_ahead == longest else look_ahead)
        cache_features(clips, folder, network.with_look_ahead(look_ahead).encode)


def _record_encoder(folder: Path, encoder: str) -> None:
    """Write the encoder's name to a folder of features. Raises DataError if it has another one."""
    record = folder / RECORD
    if record.is_file() and (earlier := json.loads(record.read_text(encoding="utf-8"))["encoder"]) != encoder:
        raise DataError(
            f"the folder has features of {earlier}, not of {encoder}: {folder}. Delete it, or use --encoder {earlier}"
        )
    with atomic_write(record) as temp_path:
        temp_path.write_text(json.dumps({"encoder": encoder}) + "\n", encoding="utf-8")


def cache_store_features(store: Store, encoder: str = DEFAULT_ENCODER) -> int:
    """Write `features/KEY.npy` (T, L, D) at 50 Hz for every recording of a store of vertices; returns their number.

    Variants of a sentence share one recording.

    Raises:
        DataError: the folder holds features of another encoder, or a recording cannot be read.
        CheckpointError: the encoder does not exist.
    """
    folder = store.root / FEATURES
    remove_temporary(folder)
    network = load_encoder(encoder)
    _record_encoder(folder, encoder)
    sounds = {clip.audio: store.sound(clip) for clip in store}
    cache_features(sorted(sounds.items()), folder, network.encode)
    return len(sounds)


def check_features(model: TalkerConfig, store: Path, layers: int, width: int) -> None:
    """Check that a store's features, `layers` hidden states of `width`, are those that a talker reads.

    Raises:
        DataError: they are of another encoder, or have other sizes.
    """
    record = store / FEATURES / RECORD
    encoder = json.loads(record.read_text(encoding="utf-8"))["encoder"] if record.is_file() else model.encoder
    if (encoder, layers, width) != (model.encoder, model.layers, model.feature_width):
        raise DataError(
            f"features of {encoder} ({layers} layers of {width}) for a talker that reads {model.encoder} "
            f"({model.layers} of {model.feature_width}): {store}. Prepare with --encoder {model.encoder} or train with "
            f"model.encoder={encoder} model.layers={layers} model.feature_width={width}"
        )
