"""Pseudo-label the jaw opening of synthetic motion.

    python -m sedtalker.recipes pseudo_label_jaw STORE --teacher TALKER

The rules of synthetic motion determine when lips close, but hardly how far they open in between, or how wide the mouth
is. A teacher, trained only on measured faces and non-speech sounds (`configs/talker/default-teacher.yaml`), predicts
both for other voices. It may have a longer look-ahead than the talker. Its lip gaps and widenings without emotion are
saved as `STORE/openings/ID.npy` (T, 2) float16 and applied to the clips of synthetic motion (`clips/ID.npz`), which
training and validation read. The array `opening` marks a labelled clip, and `openings` in the manifest a completely
labelled store. A stopped run resumes. Make the store again to restore the openings of the rules.
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
from sedtalker.face.mouth_measures import GAP, WIDTH
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.synthesis.coarticulation import default_measures
from sedtalker.synthesis.rig_clips import replace_opening
from sedtalker.talker.model import TalkerModel, load_talker_model

WIDENING_GAIN = 1.7  # a teacher of one tracked man widens other voices' mouths by 1.1 mm (SD), and his own by 1.6
MEASURED_SOURCES = ("grid", "facegood", "foreign")  # sources (by prefix) whose openings are measured


def pseudo_label_jaw_opening(root: Path, teacher: TalkerModel) -> list[RigClip]:
    """Apply a teacher's openings to the clips of synthetic motion of a store, except those of the test split.

    Existing openings are kept. Returns the labelled clips.

    Raises:
        DataError: the store cannot be read, or its features are missing.
    """
    clips = read_rig_manifest(root).clips
    labelled = [clip for clip in clips if clip.split != "test" and not clip.source.startswith(MEASURED_SOURCES)]
    require_features(root, [clip.id for clip in labelled])
    for clip in tqdm(labelled, desc=f"openings -> {root / OPENINGS}", unit="clip"):
        path = root / OPENINGS / f"{clip.id}.npy"
        if not path.exists():
            with atomic_write(path) as temp_path:
                np.save(
                    temp_path,
                    predict_gap_and_widening(teacher, read_features(root, clip.id).float()).astype(np.float16),
                )
        arrays = read_arrays(root, clip.id)
        if arrays.opening is None:
            write_arrays(root, clip.id, replace_opening(arrays, np.load(path, allow_pickle=False)))
    mark_openings_applied(root)
    return labelled


@torch.inference_mode()
def predict_gap_and_widening(teacher: TalkerModel, features: torch.Tensor) -> NDArray[np.float32]:
    """Predict lip gap and widening (T, 2) in mm for features (T, L, D) with the neutral emotion.

    The widening is the mouth width minus its median over the clip, times WIDENING_GAIN.
    """
    posterior, intensity = map(torch.from_numpy, constant_track(LABELS[NEUTRAL], 0.0, len(features)))
    weights = teacher(features[None], posterior[None], intensity[None])[0].clamp(0, 1)
    measured = default_measures().of_weights(weights.numpy())
    width = measured[:, WIDTH]
    return np.stack([np.maximum(measured[:, GAP], 0), WIDENING_GAIN * (width - np.median(width))], axis=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="store of rig clips, which is changed")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a trained talker")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    labelled = pseudo_label_jaw_opening(arguments.store, load_talker_model(arguments.teacher))
    print(f"{arguments.store / 'openings'}: {len(labelled)} clips")
