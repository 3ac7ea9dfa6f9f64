"""Compare a generative emotion classifier with a discriminative one: clean, noise, rooms, codec and attacked features.

`python -m sedtalker.recipes generative_classifier RAVDESS -o DIR`. Both read the same features of a clip: mean and
deviation of the speech encoder's states over the speech, whitened principal components of the training actors' clips.
The generative classifier is a denoiser of these features that is conditioned on the emotion (a diffusion model with
predicted noise, Ho et al. 2020); it answers with the emotion of the smallest error (Li et al. 2023, "Your diffusion
model is secretly a zero-shot classifier"). It is trained in three ways:

    plain            the denoising error of the true emotion
    fixed margin     also: the error of another emotion must be larger by `MARGIN`
    adaptive margin  also: by `MARGIN` times the ratio of the clip's present error to the mean, so that hard
                     clips need more

The discriminative classifier is a network of the same width with cross-entropy, as the diarizer's head. All actors are
tested, by cross-validation over groups of actors; training sees clean clips only. The attack changes the features by at
most `ATTACKS` of a component's standard deviation, by projected gradients of the attacked model itself (Madry et al.
2018); for the denoiser the gradient is that of its mean error over fixed noises.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.data.augmentation import add_noise, reverberate, simulate_telephone
from sedtalker.data.speech_corpora.readers import read_named
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation.bootstrap import Figure, mean_interval, show
from sedtalker.evaluation.report import markdown_table
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS
from sedtalker.pca import principal_components
from sedtalker.speech import load_encoder

Samples = NDArray[np.float32]
Float = NDArray[np.float32]

ENCODER = "whisper-tiny.en-streaming"
COMPONENTS = 64  # of the features
WIDTH, STEPS, BATCH, RATE = 128, 600, 128, 2e-3  # of the networks and their training
LEVELS = 100  # of noise
DRAWS, ATTACK_DRAWS = 8, 4  # noises with which the denoiser classifies and is attacked, the same for every emotion
MARGIN, MARGIN_WEIGHT = 0.2, 1.0
ATTACKS = (0.1, 0.2)
ATTACK_STEPS = 4
ATTACKED = 80  # clips of each group of actors that are attacked
CONDITIONS: dict[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "clean": lambda samples, _: samples,
    "noise, 5 dB": lambda samples, rng: add_noise(samples, 5.0, 1.0, rng),
    "room, 0.5 s": lambda samples, rng: reverberate(samples, 0.5, (0.6, 1.0), rng),
    "telephone": lambda samples, _: simulate_telephone(samples),
}
SYSTEMS = ("discriminative", "plain", "fixed margin", "adaptive margin")


@dataclass(frozen=True)
class ClipFeatures:
    """Features of every clip by condition, with the emotions and speakers."""

    values: dict[str, Float]  # condition -> (N, D)
    emotions: NDArray[np.int64]  # (N,) indices of LABELS
    speakers: NDArray[np.str_]  # (N,)


def read_features(ravdess: Path, folder: Path) -> ClipFeatures:
    """Encode all clips of RAVDESS in every condition; a cache in `folder` continues a run that was stopped."""
    manifest = read_named("ravdess", ravdess)
    if not len(manifest):
        raise DataError(f"no clips of RAVDESS: {ravdess}. Name the folder with Actor_01")
    encoder = load_encoder(ENCODER)
    values = {}
    for number, (name, change) in enumerate(CONDITIONS.items()):
        path = folder / f"features_{number}.npy"
        if not path.exists():
            rows = []
            for index, item in enumerate(tqdm(manifest, desc=name, disable=None)):
                samples = change(load_audio(manifest.audio(item)), np.random.default_rng([number, index]))
                rows.append(pool_speech(encoder.encode(samples).numpy(), samples))
            with atomic_write(path) as temp_path:
                np.save(temp_path, np.stack(rows))
        values[name] = np.load(path)
    return ClipFeatures(
        values,
        np.array([LABELS.index(item.emotion) for item in manifest]),
        np.array([item.speaker for item in manifest]),
    )


def pool_speech(states: Float, samples: Samples) -> Float:
    """Mean and deviation (2 * L * D,) of encoder states (T, L, D) over the frames with speech."""
    decibels = loudness(samples)[: len(states)]
    speech = detect_speech(decibels)
    chosen = states[: len(speech)][speech] if speech.any() else states
    return np.concatenate([chosen.mean(0).ravel(), chosen.std(0).ravel()]).astype(np.float32)


class Denoiser(nn.Module):
    """Predicts the noise in features (B, K) at a level (B,), given an emotion (B,)."""

    def __init__(self, components: int = COMPONENTS) -> None:
        super().__init__()
        angles = torch.cumprod(1 - torch.linspace(1e-3, 0.12, LEVELS), 0)
        self.kept: Tensor
        self.register_buffer("kept", angles)  # share of the signal's power that a level keeps
        self.enter = nn.Linear(components, WIDTH)
        self.level, self.emotion = nn.Embedding(LEVELS, WIDTH), nn.Embedding(len(LABELS), WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.scales = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(3))
        self.leave = nn.Linear(WIDTH, components)

    def forward(self, noisy: Tensor, level: Tensor, emotion: Tensor) -> Tensor:
        condition = F.silu(self.level(level) + self.emotion(emotion))
        x = self.enter(noisy)
        for block, scale in zip(self.blocks, self.scales, strict=True):
            gain, shift = scale(condition).chunk(2, dim=-1)
            x = x + F.silu(block(F.layer_norm(x, x.shape[-1:])) * (1 + gain) + shift)
        return self.leave(x)

    def errors(self, clean: Tensor, level: Tensor, noise: Tensor, emotion: Tensor) -> Tensor:
        """Mean squared errors (B,) of the predicted noise."""
        kept = self.kept[level][:, None]
        predicted = self(kept.sqrt() * clean + (1 - kept).sqrt() * noise, level, emotion)
        return (predicted - noise).square().mean(dim=-1)

    def scores(self, clean: Tensor, draws: int = DRAWS) -> Tensor:
        """Negative mean error (B, C) of each emotion, by the same noises."""
        generator = torch.Generator().manual_seed(0)
        levels = torch.linspace(5, LEVELS - 30, draws).long()
        noises = torch.randn(draws, clean.shape[1], generator=generator)
        count, emotions = len(clean), len(LABELS)
        x = clean.repeat_interleave(draws * emotions, 0)
        level = levels.repeat_interleave(emotions).repeat(count)
        noise = noises.repeat_interleave(emotions, 0).repeat(count, 1)
        emotion = torch.arange(emotions).repeat(draws * count)
        return -self.errors(x, level, noise, emotion).view(count, draws, emotions).mean(1)


class Discriminator(nn.Module):
    """Scores (B, C) of features (B, K), a network of the denoiser's width."""

    def __init__(self, components: int = COMPONENTS) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(components, WIDTH), nn.GELU(), nn.Dropout(0.3), nn.Linear(WIDTH, len(LABELS))
        )

    def scores(self, clean: Tensor) -> Tensor:
        return self.layers(clean)


Classifier = Denoiser | Discriminator


def train(system: str, x: Tensor, y: Tensor, seed: int = 0, steps: int = STEPS) -> Classifier:
    """Train one of `SYSTEMS` on features (N, K) and emotions (N,)."""
    torch.manual_seed(seed)
    model: Classifier = Discriminator(x.shape[1]) if system == "discriminative" else Denoiser(x.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    present = torch.unique(y)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,))
        loss = _loss(system, model, x[rows], y[rows], present)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _loss(system: str, model: Classifier, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
    if isinstance(model, Discriminator):
        return F.cross_entropy(model.scores(x), y, label_smoothing=0.1)
    level, noise = torch.randint(LEVELS, (len(x),)), torch.randn_like(x)
    true = model.errors(x, level, noise, y)
    if system == "plain":
        return true.mean()
    others = present[torch.randint(len(present) - 1, (len(x),))]
    others = torch.where(others == y, present[-1], others)  # uniform over the other emotions
    wrong = model.errors(x, level, noise, others)
    margin = torch.full_like(true, MARGIN)
    if system == "adaptive margin":
        margin = MARGIN * (true / true.mean().clamp_min(1e-6)).detach().clamp(0.25, 4.0)
    relative = (wrong - true) / true.detach().clamp_min(1e-3)  # errors differ by orders of magnitude between levels
    different = others != y
    return true.mean() + MARGIN_WEIGHT * (F.relu(margin - relative) * different).mean()


def attack(model: Classifier, x: Tensor, y: Tensor, size: float, steps: int = ATTACK_STEPS) -> Tensor:
    """Features (N, K), each changed by at most `size`, that lower the score of the true emotion."""
    changed = x.clone()
    for _ in range(steps):
        changed.requires_grad_(True)
        if isinstance(model, Discriminator):
            scores = model.scores(changed)
        else:
            scores = 100 * model.scores(changed, ATTACK_DRAWS)  # errors differ by about 0.01
        (gradient,) = torch.autograd.grad(F.cross_entropy(scores, y), changed)
        with torch.no_grad():
            changed = x + (changed + 2.5 * size / steps * gradient.sign() - x).clamp(-size, size)
    return changed.detach()


def compare(features: ClipFeatures, folds: int, steps: int = STEPS) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Whether each clip is recognised: system -> condition -> (N,) 0, 1 or, if it was not attacked, NaN."""
    count = len(features.emotions)
    actors = np.unique(features.speakers)
    right: dict[str, dict[str, NDArray[np.float64]]] = {system: {} for system in SYSTEMS}
    torch.set_num_threads(1)
    for fold in range(folds):
        test = np.isin(features.speakers, actors[fold::folds])
        clean = features.values["clean"]
        mean, deviation = clean[~test].mean(0), clean[~test].std(0) + 1e-6
        axes = principal_components((clean[~test] - mean) / deviation, COMPONENTS)
        spread = (((clean[~test] - mean) / deviation) @ axes.T).std(0)

        def project(values: Float, mean=mean, deviation=deviation, axes=axes, spread=spread) -> Tensor:  # type: ignore[no-untyped-def]
            return torch.from_numpy(((values - mean) / deviation @ axes.T / spread).astype(np.float32))

        x, y = project(clean[~test]), torch.from_numpy(features.emotions[~test])
        members = np.flatnonzero(test)
        attacked = np.random.default_rng(fold).permutation(members)[:ATTACKED]
        for system in SYSTEMS:
            model = train(system, x, y, fold, steps)
            inputs = {name: (members, project(values[members])) for name, values in features.values.items()}
            for size in ATTACKS:
                start = project(clean[attacked])
                changed = attack(model, start, torch.from_numpy(features.emotions[attacked]), size)
                inputs[f"attack, {size:g}"] = (attacked, changed)
            for name, (rows, values) in inputs.items():
                with torch.no_grad():
                    answers = torch.cat([model.scores(part).argmax(1) for part in values.split(64)]).numpy()
                known = right[system].setdefault(name, np.full(count, np.nan))
                known[rows] = answers == features.emotions[rows]
            print(f"fold {fold + 1}, {system}: clean {right[system]['clean'][test].mean():.3f}", flush=True)
    return right


def summarise(
    right: dict[str, dict[str, NDArray[np.float64]]], speakers: NDArray[np.str_]
) -> dict[str, dict[str, Figure]]:
    """Accuracy with intervals over the actors: condition -> system -> figure, and the difference from the first."""
    first = right[SYSTEMS[0]]
    table: dict[str, dict[str, Figure]] = {}
    groups = [str(name) for name in speakers]
    for condition in first:
        row = {system: mean_interval(list(right[system][condition]), groups) for system in SYSTEMS}
        for system in SYSTEMS[1:]:
            difference = right[system][condition] - first[condition]
            row[f"{system}, difference"] = mean_interval(list(difference), groups)
        table[condition] = row
    return table


def format_table(table: dict[str, dict[str, Figure]]) -> str:
    """The table as Markdown."""
    names = list(next(iter(table.values())))
    rows = [["condition", *names]]
    rows += [[condition, *(show(row[name]) for name in names)] for condition, row in table.items()]
    return markdown_table(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ravdess", type=Path, help="folder of RAVDESS")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the features and the table")
    parser.add_argument(
        "--folds", type=int, default=3, help="groups of actors (default: 3; not 2, which are men and women)"
    )


def run(arguments: argparse.Namespace) -> None:
    arguments.output.mkdir(parents=True, exist_ok=True)
    features = read_features(arguments.ravdess, arguments.output)
    table = summarise(compare(features, arguments.folds), features.speakers)
    with atomic_write(arguments.output / "table.json") as temp_path:
        temp_path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(format_table(table))
