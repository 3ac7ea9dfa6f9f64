"""EmoBox's protocol on RAVDESS (Ma et al. 2024): eight classes, six folds of four unseen actors.

It evaluates the frozen encoder. Each fold trains a new head: a multinomial regression on mean and standard deviation of
the cached steps over a clip's speech. The packaged diarizers are not used, as they were trained on these actors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sedtalker.data.emotion_mixtures import CachedClip
from sedtalker.data.manifest import Manifest
from sedtalker.errors import DataError
from sedtalker.evaluation.diarization import require_metrics, unweighted_average_recall
from sedtalker.evaluation.report import markdown_table, write_report

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08 in a file name
FOLDS: tuple[tuple[int, ...], ...] = (
    (1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22),
)  # fmt: skip
"""Actors of each test fold, from the lists of emo-box/EmoBox."""

SHRINKAGE = 2e-3  # L2 penalty of the weights
SMOOTHING = 0.05  # label smoothing


@dataclass(frozen=True)
class Summaries:
    """One row for each clip and cache that has it."""

    values: Tensor  # (N, D)
    labels: Tensor  # (N,) indices of CLASSES
    actors: Tensor  # (N,)
    clean: Tensor  # (N,) bool: from the first cache


def evaluate_emobox(manifest: Manifest, caches: Sequence[Path]) -> dict[str, Any]:
    """Unweighted average recall of each fold, and the mean over folds.

    Missing actors are ignored; a fold without actors is skipped.

    Args:
        caches: folders of cached steps, the clean one first; the others are used for training only.

    Raises:
        DataError: no RAVDESS in the manifest, or its features are not cached.
        MissingExtraError: the extra `train` is not installed.
    """
    require_metrics()
    rows = summaries(manifest, caches)
    folds: list[dict[str, Any]] = []
    for fold in FOLDS:
        held_out = torch.isin(rows.actors, torch.tensor(fold))
        test = held_out & rows.clean
        if not test.any():
            continue
        predicted = predict_labels(rows.values[~held_out], rows.labels[~held_out], rows.values[test])
        actors = sorted(set(rows.actors[test].tolist()))
        folds.append(
            {"actors": actors, "clips": int(test.sum()), "uar": unweighted_average_recall(rows.labels[test], predicted)}
        )
    return {
        "protocol": "emobox",
        "actors": sum(len(fold["actors"]) for fold in folds),
        "folds": folds,
        "uar": sum(fold["uar"] for fold in folds) / len(folds),
    }


def summaries(manifest: Manifest, caches: Sequence[Path]) -> Summaries:
    """Mean and standard deviation of the steps of speech of RAVDESS' clips, all layers."""
    clips = [CachedClip(item, caches) for item in manifest if item.corpus == "ravdess" and not item.segments]
    if not clips:
        raise DataError("no RAVDESS in the manifest, whose folds the protocol names. Add it: sedtalker data prepare")
    values, labels, actors, clean = [], [], [], []
    for clip in tqdm(clips, desc="emobox", unit="clip"):
        fields = Path(clip.utterance.path).stem.split("-")
        for number in range(len(clip.variants)):
            steps = clip.steps(number).float()
            spoken = steps[torch.from_numpy(clip.speech_of(len(steps)))]
            values.append(torch.cat([spoken.mean(0), spoken.std(0)], dim=-1).flatten())
            labels.append(int(fields[2]) - 1)
            actors.append(int(fields[6]))
            clean.append(number == 0)
    return Summaries(torch.stack(values), torch.tensor(labels), torch.tensor(actors), torch.tensor(clean))


def predict_labels(values: Tensor, labels: Tensor, unseen: Tensor) -> Tensor:
    """Labels (M,) of unseen rows (M, D) by a class-balanced regression on rows (N, D) with labels (N,)."""
    mean, spread = values.mean(0), values.std(0) + 1e-3
    rows = (values - mean) / spread
    counts = torch.bincount(labels, minlength=len(CLASSES)).clamp(min=1)
    weights = torch.zeros(values.shape[1], len(CLASSES), requires_grad=True)
    bias = torch.zeros(len(CLASSES), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = rows @ weights + bias
        value = F.cross_entropy(logits, labels, counts.float().mean() / counts, label_smoothing=SMOOTHING)
        value = value + SHRINKAGE * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return (((unseen - mean) / spread) @ weights + bias).argmax(1).detach()


def format_emobox(report: Mapping[str, Any]) -> str:
    """Format the folds as Markdown."""
    rows = [["actors", "clips", "UAR"]]
    for fold in report["folds"]:
        rows.append([" ".join(f"{actor:02d}" for actor in fold["actors"]), str(fold["clips"]), f"{fold['uar']:.3f}"])
    rows.append(["mean", "", f"{report['uar']:.3f}"])
    title = (
        f"EmoBox's folds of RAVDESS, {len(CLASSES)} classes: {len(report['folds'])} of {len(FOLDS)} folds, "
        f"{report['actors']} of {sum(map(len, FOLDS))} actors"
    )
    return f"{title}\n\n{markdown_table(rows)}\n"


def write_emobox_report(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `emobox.json` and `emobox.md`; returns their paths."""
    paths = [folder / "emobox.json", folder / "emobox.md"]
    for path in paths:
        write_report(report, path, {".md": format_emobox})
    return paths
