"""Train a teacher of lip gap and mouth width on tracked lips, and label the clips that are animated by rules.

    python -m sedtalker.recipes lip_teacher STORE

The rules of synthetic motion determine when lips close, but hardly how far they open in between, or how wide the mouth
is. The teacher, a small recurrent network (`sedtalker.talker.lip_opening`), learns both from GRID's tracked sentences
in the store and predicts them for all other voices, from the features of the longest look-ahead. It does not learn
FACEGOOD: with FACEGOOD it is worse on other people (correlation of the gap on natural speech .27 instead of .53).

The teacher is saved as `STORE/opening-network`, from which a talker takes over its lip gap (`opening` of the training
settings). The predictions are saved as `STORE/openings/ID.npy` (T, 2) float16, lip gap and widening in mm, and applied
to the clips (`clips/ID.npz`), which training and validation read. The array `opening` marks a labelled clip, and
`openings` in the manifest a completely labelled store. A stopped run resumes. Make the store again to restore the
openings of the rules.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sedtalker.data.rig_store import (
    OPENINGS,
    RigClip,
    feature_folders,
    mark_openings_applied,
    read_arrays,
    read_features,
    read_rig_manifest,
    require_features,
    write_arrays,
)
from sedtalker.errors import DataError
from sedtalker.face.arkit import JAW_OPEN
from sedtalker.face.mouth_measures import GAP, WIDTH
from sedtalker.files import atomic_write
from sedtalker.synthesis.coarticulation import default_measures
from sedtalker.synthesis.rig_clips import replace_opening
from sedtalker.synthesis.tracked_faces import read_grid
from sedtalker.talker.lip_opening import LipOpening, load_lip_opening, save_lip_opening

MEASURED_SOURCES = ("grid", "facegood", "foreign")  # sources (by prefix) whose openings are measured
TEACHING_SOURCES = ("grid", "grid-voices")
SILENT_LOSS_WEIGHT = 1.0  # of the opening in silence that was added to a tracked clip; a tracked opening has more
NETWORK = "opening-network"  # folder of the teacher in the store
WINDOW, BATCH = 140, 12  # frames, windows
GAINS = (1.2, 2.1)  # of gap and widening: predictions for other voices vary less than those people's mouths


@dataclass(frozen=True)
class TeacherTraining:
    """Settings of the teacher."""

    steps: int = 400
    width: int = 64
    dropout: float = 0.3
    lr: float = 2e-3
    seed: int = 0


def label_with_teacher(root: Path, training: TeacherTraining | None = None) -> list[RigClip]:
    """Train the teacher on a store and label the clips animated by rules; returns the labelled clips.

    Raises:
        DataError: the store cannot be read, its features are missing, or it has no tracked training clips.
    """
    clips = read_rig_manifest(root).clips
    taught = [clip for clip in clips if clip.source in TEACHING_SOURCES and clip.split == "train"]
    if not taught:
        raise DataError(f"no training clips of {TEACHING_SOURCES[0]}: {root}. Make the store with --grid")
    require_features(root, [clip.id for clip in taught])

    @cache
    def teacher() -> LipOpening:
        if not (root / NETWORK / "config.json").is_file():  # written last
            save_lip_opening(train_teacher(root, taught, training or TeacherTraining()), root / NETWORK)
        return load_lip_opening(root / NETWORK)

    teacher()
    return label_openings(root, lambda features: predict_openings(teacher(), features))


def label_openings(root: Path, predict: Callable[[Tensor], NDArray[np.float32]]) -> list[RigClip]:
    """Apply openings (T, 2) that a teacher predicts from features to the clips animated by rules of a store.

    Clips of the test split keep the openings of the rules, and existing predictions are kept. Returns the labelled
    clips.

    Raises:
        DataError: the store cannot be read, or its features are missing.
    """
    made = [clip for clip in read_rig_manifest(root).clips if _is_made(clip)]
    require_features(root, [clip.id for clip in made])
    for clip in tqdm(made, desc=f"openings -> {root / OPENINGS}", unit="clip"):
        path = _opening_path(root, clip)
        if not path.exists():
            with atomic_write(path) as temp_path:
                np.save(temp_path, predict(read_features(root, clip.id)).astype(np.float16))
        arrays = read_arrays(root, clip.id)
        if arrays.opening is None:
            write_arrays(root, clip.id, replace_opening(arrays, np.load(path, allow_pickle=False)))
    mark_openings_applied(root)
    return made


def _is_made(clip: RigClip) -> bool:
    return clip.split != "test" and not clip.source.startswith(MEASURED_SOURCES)


def _opening_path(root: Path, clip: RigClip) -> Path:
    return root / OPENINGS / f"{clip.id}.npy"


def train_teacher(root: Path, clips: list[RigClip], training: TeacherTraining) -> LipOpening:
    """Train a teacher on windows of tracked clips, by the squared error over their standard deviation.

    Long clips are drawn more often. The teacher learns the features of all look-aheads, and to predict from the past
    alone as well as from the whole clip.
    """
    targets, known = zip(*(tracked_lips(root, clip) for clip in clips), strict=True)
    folders = feature_folders(root)
    layers, width = read_features(root, clips[0].id, 0, 1).shape[1:]
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    teacher = LipOpening(layers, width, training.width, training.dropout)
    frames = torch.cat([target[mask] for target, mask in zip(targets, known, strict=True)])
    teacher.mean.copy_(frames.mean(0))
    teacher.scale.copy_(frames.std(0))
    share = np.array([int(mask.sum()) for mask in known], float)
    optimizer = torch.optim.AdamW(teacher.parameters(), training.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, training.steps)
    for _ in tqdm(range(training.steps), desc="teacher", unit="step"):
        features = torch.zeros(BATCH, WINDOW, layers, width)
        target, weight = torch.zeros(BATCH, WINDOW, 2), torch.zeros(BATCH, WINDOW)
        for row, number in enumerate(rng.choice(len(clips), BATCH, p=share / share.sum())):
            start = int(rng.integers(max(1, len(targets[number]) - WINDOW + 1)))
            part, folder = slice(start, start + WINDOW), folders[rng.integers(len(folders))]
            frames = read_features(root, clips[number].id, part.start, part.stop, folder).float()
            features[row, : len(frames)] = frames
            target[row, : len(frames)], weight[row, : len(frames)] = targets[number][part], known[number][part].float()
        errors = [((lips - target) / teacher.scale).square().mean(-1) for lips in teacher(features)]
        loss = (weight * torch.stack(errors).sum(0)).sum() / weight.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return teacher.eval().requires_grad_(False)


def tracked_lips(root: Path, clip: RigClip) -> tuple[Tensor, Tensor]:
    """Lip gap and widening (T, 2) in mm of a tracked clip, and where they are known (T,).

    They are those of the tracked file next to the recording, without the contacts that the store adds. A converted
    voice has no such file, and its frames in added silence are unknown.
    """
    arrays, tracked = read_arrays(root, clip.id), Path(clip.audio).with_suffix(".npz")
    weights, loss_weight = arrays.weights.astype(np.float32), arrays.loss_weight[:, JAW_OPEN]
    known = loss_weight > (SILENT_LOSS_WEIGHT if loss_weight.max() > SILENT_LOSS_WEIGHT else 0)
    if tracked.is_file():
        found = read_grid(tracked).weights[: len(weights)]
        known = np.arange(len(weights)) < len(found)
        weights = np.pad(found, [(0, len(weights) - len(found)), (0, 0)])
    measured = weights @ default_measures().matrix[:, (GAP, WIDTH)]
    lips = np.stack([np.maximum(measured[:, 0], 0), measured[:, 1] - np.median(measured[known, 1])], axis=1)
    return torch.from_numpy(lips), torch.from_numpy(known)


@torch.inference_mode()
def predict_openings(teacher: LipOpening, features: Tensor) -> NDArray[np.float32]:
    """Lip gap and widening (T, 2) in mm for features (T, L, D), times GAINS; the widening has a median of 0."""
    lips = teacher(features.float()[None])[1][0].numpy()
    lips[:, 1] -= np.median(lips[:, 1])
    return np.maximum(lips, (0, -np.inf)) * np.array(GAINS, np.float32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("store", type=Path, help="store of rig clips, which is changed")
    parser.add_argument("--steps", type=int, default=TeacherTraining.steps, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=TeacherTraining.seed, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    labelled = label_with_teacher(arguments.store, TeacherTraining(steps=arguments.steps, seed=arguments.seed))
    print(f"{arguments.store / OPENINGS}: {len(labelled)} clips")
