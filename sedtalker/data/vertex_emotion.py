"""Emotion of the sounds of a vertex store by a diarizer, frame by frame: the condition that SEDTalker's authors use.

STORE/emotion/KEY.npz   posterior (T, C) and intensity (T,) at 50 Hz, C the labels of the model; diarizer.json names it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.data.vertex_store import Store
from sedtalker.errors import DataError, reason_of
from sedtalker.files import atomic_write, remove_temporary
from sedtalker.labels import LABELS
from sedtalker.pipeline import load

LABELLED, DIARIZER = "labels", "diarizer"
EMOTION_SOURCES = (LABELLED, DIARIZER)
"""Where the emotion that conditions a talker comes from."""

_FOLDER, _RECORD = "emotion", "diarizer.json"


class Emotion(NamedTuple):
    """Emotion of a sound by frames of 20 ms."""

    posterior: NDArray[np.float32]  # (T, C) over LABELS
    intensity: NDArray[np.float32]  # (T,)


def cache_store_emotions(store: Store, diarizer: str = "default") -> int:
    """Run a diarizer on every sound of a store that has no track yet; returns the number of sounds.

    Raises:
        DataError: the store has tracks of another diarizer.
        CheckpointError: the diarizer does not exist.
    """
    folder = store.root / _FOLDER
    record = folder / _RECORD
    if record.is_file() and (earlier := json.loads(record.read_text(encoding="utf-8"))["diarizer"]) != diarizer:
        raise DataError(f"the store has tracks of diarizer {earlier}, not of {diarizer}: {folder}. Delete the folder")
    talker = load(diarizer=diarizer)  # before its name is recorded: a wrong one must not stay there
    with atomic_write(record) as temp_path:
        temp_path.write_text(json.dumps({"diarizer": diarizer}) + "\n", encoding="utf-8")
    remove_temporary(folder)
    sounds = {clip.audio: store.sound(clip) for clip in store}
    for key, path in tqdm(sorted(sounds.items()), desc=f"diarizer {diarizer} -> {folder}", unit="sound"):
        target = _path(store, key)
        if target.is_file():
            continue
        track = talker.diarize(path).with_labels(LABELS)
        with atomic_write(target) as temp_path:
            np.savez(
                temp_path, posterior=track.posterior.astype(np.float16), intensity=track.intensity.astype(np.float16)
            )
    return len(sounds)


def read_emotions(store: Store) -> dict[str, Emotion]:
    """Track of each sound of a store by its key. Raises DataError if one is missing or damaged."""
    return {key: read_emotion(store, key) for key in sorted({clip.audio for clip in store})}


def read_emotion(store: Store, key: str) -> Emotion:
    """Track of one sound. Raises DataError if it is missing or damaged."""
    path = _path(store, key)
    try:
        with np.load(path, allow_pickle=False) as stored:
            posterior, intensity = (stored[name].astype(np.float32) for name in ("posterior", "intensity"))
    except FileNotFoundError as error:
        raise DataError(
            f"no emotion track: {path}. Run sedtalker data prepare again with --diarizer default"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"not an emotion track: {path} ({reason_of(error)}). Delete it and prepare again") from error
    return Emotion(posterior, intensity)


def _path(store: Store, key: str) -> Path:
    return store.root / _FOLDER / f"{key}.npz"
