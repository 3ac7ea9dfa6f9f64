"""How far mouths open that were never measured: `python -m sedtalker.recipes pseudo_label_jaw STORE --teacher TALKER`.

Rules say when lips close and touch, and little about how far they part in between; a talker that saw speech of
measured faces alone (and sounds at which nobody speaks) knows that, and what it knows carries over to other voices.
Its openings, without emotion, are kept as `STORE/openings/ID.npy` (T,) float16, and written into the clips of made
motion (`clips/ID.npz`) where nothing else holds the opening: training and validation read them from there. A clip's own
array `opening` says that this was done; the manifest's `openings` says it of all clips. A run that was stopped goes on.
To have the rules' openings again, make the store again.

A teacher may look further ahead than the talker: `configs/talker/default-teacher.yaml`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.data.rig_store import (
    OPENINGS,
    RigClip,
    mark_openings_applied,
    read_arrays,
    read_features,
    read_rig_manifest,
    require_features,
    write_arrays,
)
from sedtalker.emotion.track import constant_track
from sedtalker.face.arkit import JAW_OPEN, MOUTH_CLOSE
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.synthesis.rig_clips import replace_opening
from sedtalker.talker.model import TalkerModel, load_talker_model

KNOWN = ("grid", "facegood", "foreign")  # sources, and those that begin like them, whose openings need no teacher


def pseudo_label_jaw_opening(root: Path, teacher: TalkerModel) -> list[RigClip]:
    """Write a teacher's openings into a store's clips of made motion, but for those of the test split.

    Openings that are there already stay.

    Raises:
        DataError: no such store, or its features are missing.
    """
    clips = read_rig_manifest(root).clips
    made = [clip for clip in clips if clip.split != "test" and not clip.source.startswith(KNOWN)]
    require_features(root, [clip.id for clip in made])
    for clip in tqdm(made, desc=f"openings -> {root / OPENINGS}", unit="clip"):
        path = root / OPENINGS / f"{clip.id}.npy"
        if not path.exists():
            with atomic_write(path) as temp_path:
                np.save(temp_path, opening(teacher, read_features(root, clip.id).float()).astype(np.float16))
        arrays = read_arrays(root, clip.id)
        if arrays.opening is None:
            write_arrays(root, clip.id, replace_opening(arrays, np.load(path, allow_pickle=False)))
    mark_openings_applied(root)
    return made


@torch.inference_mode()
def opening(teacher: TalkerModel, features: torch.Tensor) -> NDArray[np.float32]:
    """How far the lips part (T,) in speech with features (T, L, D), said without emotion; in units of jawOpen."""
    posterior, intensity = map(torch.from_numpy, constant_track(LABELS[NEUTRAL], 0.0, len(features)))
    weights = teacher(features[None], posterior[None], intensity[None])[0].clamp(0, 1)
    return (weights[:, JAW_OPEN] - weights[:, MOUTH_CLOSE]).clamp(min=0).numpy()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("store", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a trained talker")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    made = pseudo_label_jaw_opening(arguments.store, load_talker_model(arguments.teacher))
    print(f"{arguments.store / 'openings'}: {len(made)} clips")
