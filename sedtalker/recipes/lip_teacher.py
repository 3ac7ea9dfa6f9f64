"""Train the network of lip gap and mouth width on tracked lips, and label the clips that are animated by rules.

    python -m sedtalker.recipes lip_teacher STORE

The rules of synthetic motion determine when lips close, but hardly how far they open in between, or how wide the mouth
is. A small recurrent network (`sedtalker.talker.lip_opening`) learns both from GRID's tracked sentences in the store
and predicts them for all other voices. It does not learn FACEGOOD: with FACEGOOD it is worse on other people
(correlation of the gap on natural speech .27 instead of .53).

GRID has one tracked voice. So several teachers of different sizes and seeds learn it first, from features whose mean
and deviation over a clip are moved towards those of other voices (`mix_style`). The network then learns GRID's lips and
the mean of the teachers' predictions for the clips that are animated by rules: what a single network gets wrong on an
unfamiliar voice differs between seeds.

The network is saved as `STORE/opening-network`, from which a talker takes over its lip gap (`opening` of the training
settings). Its predictions, from the features of the longest look-ahead, are saved as `STORE/openings/ID.npy` (T, 2)
float16, lip gap and widening in mm, and applied to the clips (`clips/ID.npz`), which training and validation read. The
array `opening` marks a labelled clip, and `openings` in the manifest a completely labelled store. A stopped run
resumes. Make the store again to restore the openings of the rules.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sedtalker.data.rig_store import (
    FEATURES,
    OPENINGS,
    RigClip,
    features_folder,
    features_path,
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
WINDOW, BATCH = 140, 14  # frames, windows
GAINS = (1.2, 2.1)  # of gap and widening: predictions for other voices vary less than those people's mouths
LIVE_LOOK_AHEAD, LIVE_SHARE = 120, 0.7  # ms, and share of the windows whose past is read from these features
LEAST_DEVIATION = 0.1  # mm: lips that never move give no scale
LEAST_MIXING = 0.2  # of another voice's mean and deviation, where they are mixed at all


@dataclass(frozen=True)
class TeacherTraining:
    """Settings of the network, or of one of its teachers."""

    steps: int = 900
    width: int = 64
    dropout: float = 0.2
    lr: float = 2e-3
    mixing: float = 0.5  # share of the windows whose mean and deviation are mixed with another voice's
    sources: tuple[str, ...] = TEACHING_SOURCES
    seed: int = 0


TEACHERS = (
    TeacherTraining(steps=400, width=64, dropout=0.3, mixing=0.0, seed=0),
    TeacherTraining(steps=400, width=64, dropout=0.3, mixing=0.7, seed=0),
    TeacherTraining(steps=700, width=64, dropout=0.3, mixing=0.5, seed=3),
    TeacherTraining(steps=500, width=128, dropout=0.3, mixing=0.7, seed=1),
    TeacherTraining(steps=600, width=128, dropout=0.3, mixing=0.7, seed=5),
    TeacherTraining(steps=500, width=128, dropout=0.3, mixing=0.7, sources=("grid",), seed=6),
)


def settings(steps: int | None = None, seed: int = 0) -> tuple[TeacherTraining, tuple[TeacherTraining, ...]]:
    """Settings of the network and of its teachers, with another number of steps for all of them if it is given."""
    training = TeacherTraining(seed=seed)
    if steps is None:
        return training, TEACHERS
    return replace(training, steps=steps), tuple(replace(one, steps=steps) for one in TEACHERS)


def label_with_teacher(
    root: Path, training: TeacherTraining | None = None, teachers: Sequence[TeacherTraining] = TEACHERS
) -> list[RigClip]:
    """Train the network on a store and label the clips animated by rules; returns the labelled clips.

    Raises:
        DataError: the store cannot be read, its features are missing, or it has no tracked training clips.
    """
    clips = [clip for clip in read_rig_manifest(root).clips if clip.split == "train"]
    taught, made = [clip for clip in clips if clip.source in TEACHING_SOURCES], list(filter(_is_made, clips))
    if not taught:
        raise DataError(f"no training clips of {TEACHING_SOURCES[0]}: {root}. Make the store with --grid")
    require_features(root, [clip.id for clip in (*taught, *made)])

    @cache
    def network() -> LipOpening:
        if not (root / NETWORK / "config.json").is_file():  # written last
            voices = [clip.id for clip in (*taught, *made)]
            networks = [train_network(root, taught, one, voices) for one in teachers]
            means = {clip.id: predict_mean(networks, read_features(root, clip.id)) for clip in made if networks}
            save_lip_opening(train_network(root, taught, training or TeacherTraining(), voices, means), root / NETWORK)
        return load_lip_opening(root / NETWORK)

    network()
    return label_openings(root, lambda features: predict_openings(network(), features))


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


def train_network(
    root: Path,
    clips: Sequence[RigClip],
    training: TeacherTraining,
    voices: Sequence[str],
    predicted: Mapping[str, Tensor] | None = None,
) -> LipOpening:
    """Train a network on windows of tracked clips, by the squared error over their standard deviation.

    Long clips are drawn more often. The direction from the past learns mostly the features of `LIVE_LOOK_AHEAD`, both
    directions those of the longest look-ahead.

    Args:
        clips: tracked clips, of which those of the training's sources are used.
        voices: names of the clips whose mean and deviation are mixed in.
        predicted: gap and widening (T, 2) in mm of other clips by their names, half of the windows if there are any.
    """
    tracked = [(clip.id, *tracked_lips(root, clip)) for clip in clips if clip.source in training.sources]
    groups = [tracked]
    if predicted:
        groups.append([(name, lips, torch.ones(len(lips), dtype=torch.bool)) for name, lips in predicted.items()])
    layers, width = read_features(root, tracked[0][0], 0, 1).shape[1:]
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    network = LipOpening(layers, width, training.width, training.dropout)
    frames = torch.cat([lips[known] for _, lips, known in tracked])
    network.mean.copy_(frames.mean(0))
    network.scale.copy_(frames.std(0).clamp(min=LEAST_DEVIATION))
    shares = [np.array([int(known.sum()) for _, _, known in group], float) for group in groups]
    optimizer = torch.optim.AdamW(network.parameters(), training.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, training.steps)
    for _ in tqdm(range(training.steps), desc="lip gap", unit="step"):
        features = torch.zeros(2, BATCH, WINDOW, layers, width)
        target, weight = torch.zeros(BATCH, WINDOW, 2), torch.zeros(BATCH, WINDOW)
        for row in range(BATCH):
            group, share = groups[row % len(groups)], shares[row % len(groups)]
            name, lips, known = group[rng.choice(len(group), p=share / share.sum())]
            start = int(rng.integers(max(1, len(lips) - WINDOW + 1)))
            part = slice(start, start + WINDOW)
            live = features_folder(LIVE_LOOK_AHEAD) if rng.random() < LIVE_SHARE else FEATURES
            live = live if features_path(root, name, live).is_file() else FEATURES
            parts = [read_features(root, name, part.start, part.stop, folder) for folder in (FEATURES, live)]
            if rng.random() < training.mixing:
                other, share_of_other = voices[int(rng.integers(len(voices)))], rng.uniform(LEAST_MIXING, 1)
                parts = [mix_style(one, read_features(root, other), share_of_other) for one in parts]
            for version, one in enumerate(parts):
                features[version, row, : len(one)] = one
            target[row, : len(lips[part])], weight[row, : len(lips[part])] = lips[part], known[part].float()
        both = network.run_both(network.embed(features[0]))
        past, _ = network.run_past(network.embed(features[1]))
        error = sum(((lips - target) / network.scale).square().mean(-1) for lips in (both, past))
        loss = (weight * error).sum() / weight.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def mix_style(features: Tensor, other: Tensor, share: float) -> Tensor:
    """Normalised features (T, L, D) whose mean and deviation over time are mixed with another clip's (T', L, D).

    A share of 1 replaces them (Zhou et al. 2021, "Domain generalization with MixStyle").
    """
    features, other = (F.layer_norm(one.float(), one.shape[-1:]) for one in (features, other))
    (deviation, mean), (new_deviation, new_mean) = (
        torch.std_mean(one, dim=0, correction=0) for one in (features, other)
    )
    standard = (features - mean) / (deviation + 1e-3)
    return standard * torch.lerp(deviation, new_deviation, share) + torch.lerp(mean, new_mean, share)


@torch.inference_mode()
def predict_mean(networks: Sequence[LipOpening], features: Tensor) -> Tensor:
    """Mean gap and widening (T, 2) in mm that networks predict for the features (T, L, D) of a whole recording."""
    batch = features.float()[None]
    return torch.stack([network.run_both(network.embed(batch))[0] for network in networks]).mean(0).clone()


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
def predict_openings(network: LipOpening, features: Tensor) -> NDArray[np.float32]:
    """Lip gap and widening (T, 2) in mm for features (T, L, D), times GAINS; the widening has a median of 0."""
    lips = predict_mean([network], features).numpy()
    lips[:, 1] -= np.median(lips[:, 1])
    return np.maximum(lips, (0, -np.inf)) * np.array(GAINS, np.float32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("store", type=Path, help="store of rig clips, which is changed")
    parser.add_argument("--steps", type=int, help="of the network and of each teacher (default: their own)")
    parser.add_argument("--seed", type=int, default=TeacherTraining.seed, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    labelled = label_with_teacher(arguments.store, *settings(arguments.steps, arguments.seed))
    print(f"{arguments.store / OPENINGS}: {len(labelled)} clips")
