"""Train a teacher of lip gap and mouth width on tracked lips, and label the clips that are animated by rules.

    python -m sedtalker.recipes lip_teacher STORE

The rules of synthetic motion determine when lips close, but hardly how far they open in between, or how wide the mouth
is. The teacher, a bidirectional GRU that hears the whole clip, learns both from GRID's tracked sentences in the store
and predicts them for all other voices, from the features of the longest look-ahead. It does not learn FACEGOOD: with
FACEGOOD it is worse on other people (correlation of the gap on natural speech .27 instead of .53).

The predictions are saved as `STORE/openings/ID.npy` (T, 2) float16, lip gap and widening in mm, and applied to the
clips (`clips/ID.npz`), which training and validation read. The array `opening` marks a labelled clip, and `openings` in
the manifest a completely labelled store. A stopped run resumes. Make the store again to restore the openings of the
rules.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
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
from sedtalker.errors import DataError
from sedtalker.face.arkit import JAW_OPEN
from sedtalker.face.mouth_measures import GAP, WIDTH
from sedtalker.files import atomic_write
from sedtalker.synthesis.coarticulation import default_measures
from sedtalker.synthesis.rig_clips import replace_opening

MEASURED_SOURCES = ("grid", "facegood", "foreign")  # sources (by prefix) whose openings are measured
TEACHING_SOURCE = "grid"
WINDOW, BATCH = 140, 12  # frames, windows
GAINS = (1.2, 2.1)  # of gap and widening: predictions for other voices vary less than those people's mouths


@dataclass(frozen=True)
class TeacherTraining:
    """Settings of the teacher."""

    steps: int = 300
    width: int = 128
    dropout: float = 0.3
    lr: float = 2e-3
    seed: int = 0


class LipTeacher(nn.Module):
    """Speech features (B, T, L, D) -> lip gap and widening (B, T, 2) in mm."""

    mean: Tensor
    scale: Tensor

    def __init__(self, layers: int, feature_width: int, training: TeacherTraining) -> None:
        super().__init__()
        width = training.width
        self.layers = nn.Parameter(torch.zeros(layers))
        self.inner = nn.Linear(feature_width, width)
        self.dropout = nn.Dropout(training.dropout)
        self.gru = nn.GRU(width, width, 2, batch_first=True, bidirectional=True, dropout=training.dropout)
        self.out = nn.Linear(2 * width, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("scale", torch.ones(2))

    def forward(self, features: Tensor) -> Tensor:
        """Gap and widening of whole clips."""
        x = F.layer_norm(features, features.shape[-1:])
        x = torch.einsum("btld,l->btd", x, self.layers.softmax(0))
        x = self.dropout(F.gelu(self.inner(F.layer_norm(x, x.shape[-1:]))))
        return self.out(self.dropout(self.gru(x)[0])) * self.scale + self.mean


def label_with_teacher(root: Path, training: TeacherTraining | None = None) -> list[RigClip]:
    """Train the teacher on a store and label the clips animated by rules; returns the labelled clips.

    Raises:
        DataError: the store cannot be read, its features are missing, or it has no tracked training clips.
    """
    clips = read_rig_manifest(root).clips
    taught = [clip for clip in clips if (clip.source, clip.split) == (TEACHING_SOURCE, "train")]
    if not taught:
        raise DataError(f"no training clips of {TEACHING_SOURCE}: {root}. Make the store with --grid")
    require_features(root, [clip.id for clip in taught])

    @cache
    def teacher() -> LipTeacher:  # trained only if a clip has no opening yet
        return train_teacher(root, taught, training or TeacherTraining())

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


def train_teacher(root: Path, clips: list[RigClip], training: TeacherTraining) -> LipTeacher:
    """Train a teacher on windows of tracked clips, by the squared error over their standard deviation."""
    targets, known = zip(*(tracked_lips(root, clip.id) for clip in clips), strict=True)
    layers, width = read_features(root, clips[0].id, 0, 1).shape[1:]
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    teacher = LipTeacher(layers, width, training)
    frames = torch.cat([target[mask] for target, mask in zip(targets, known, strict=True)])
    teacher.mean.copy_(frames.mean(0))
    teacher.scale.copy_(frames.std(0))
    optimizer = torch.optim.AdamW(teacher.parameters(), training.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, training.steps)
    for _ in tqdm(range(training.steps), desc="teacher", unit="step"):
        features = torch.zeros(BATCH, WINDOW, layers, width)
        target, weight = torch.zeros(BATCH, WINDOW, 2), torch.zeros(BATCH, WINDOW)
        for row, number in enumerate(rng.integers(len(clips), size=BATCH)):
            start = int(rng.integers(max(1, len(targets[number]) - WINDOW + 1)))
            part = slice(start, start + WINDOW)
            frames = read_features(root, clips[number].id, part.start, part.stop).float()
            features[row, : len(frames)] = frames
            target[row, : len(frames)], weight[row, : len(frames)] = targets[number][part], known[number][part].float()
        error = ((teacher(features) - target) / teacher.scale).square().mean(-1)
        loss = (weight * error).sum() / weight.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return teacher.eval().requires_grad_(False)


def tracked_lips(root: Path, clip_id: str) -> tuple[Tensor, Tensor]:
    """Lip gap and widening (T, 2) in mm of a tracked clip, and where they are known (T,)."""
    arrays = read_arrays(root, clip_id)
    known = arrays.loss_weight[:, JAW_OPEN] > 0
    measured = default_measures().of_weights(arrays.weights.astype(np.float32))
    widening = measured[:, WIDTH] - np.median(measured[known, WIDTH])
    lips = np.stack([np.maximum(measured[:, GAP], 0), widening], axis=1)
    return torch.from_numpy(lips), torch.from_numpy(known)


@torch.inference_mode()
def predict_openings(teacher: LipTeacher, features: Tensor) -> NDArray[np.float32]:
    """Lip gap and widening (T, 2) in mm for features (T, L, D), times GAINS; the widening has a median of 0."""
    lips = teacher(features.float()[None])[0].numpy()
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
