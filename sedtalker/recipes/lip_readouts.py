"""Refit how a talker reads rare mouth shapes from its stack, so that doubtful phones show them and not their mean.

    python -m sedtalker.recipes lip_readouts STORE TALKER -o OUTPUT

A squared error predicts a shape as large as it is probable, so that the tip of the tongue and the protrusion of /sh u o
w/ hardly show where the stack is not sure of the phone. Here their linear readouts of the trained stack's output are
fitted with margins: the error is how far a shape is below what can be seen at its phones, or above what can be seen at
other phones. Rounding is added without narrowing the mouth. The share of the predicted lip gap, which reads the tongue
too, is then fitted to its former values.

STORE has features, and phones.tsv with the phones of its training clips of GRID, CREMA-D and synthetic voices; sounds
without speech show none of the shapes. There is nothing random in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sedtalker.data.rig_store import (
    FEATURES,
    features_folder,
    features_path,
    read_features,
    read_rig_manifest,
    require_features,
)
from sedtalker.errors import DataError
from sedtalker.face.arkit import MOUTH_FUNNEL, MOUTH_PUCKER, STRETCH_LEFT, STRETCH_RIGHT, TONGUE_OUT
from sedtalker.face.mouth_measures import default_measures
from sedtalker.face.visemes import LABIODENTALS, PROTRUDED, ROUNDED
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import Phone, read_phones
from sedtalker.recipes.lip_teacher import LIVE_LOOK_AHEAD
from sedtalker.talker.model import TalkerModel, load_talker_model, save_talker_model

WITH_PHONES, WITHOUT_SPEECH = ("grid", "crema-d", "tts"), "foreign"  # sources of a store
SOURCES = (*WITH_PHONES, WITHOUT_SPEECH)
EVERY = 2  # every second clip of them
STEPS = 60  # of L-BFGS

BETWEEN_TEETH, BEHIND_TEETH = frozenset({"TH", "DH"}), frozenset({"L", "N", "T", "D"})
TONGUE_SOURCES = (1.0, 0.5, 3.0, 1.0)  # weights of SOURCES: few sentences repeat in CREMA-D
TONGUE_BETWEEN, TONGUE_BEHIND, TONGUE_AWAY = 0.62, (0.36, 0.40), 0.05  # tongueOut
TONGUE_AWAY_WEIGHT, TONGUE_BETWEEN_WEIGHT, TONGUE_DROPOUT = 4.0, 4.0, 0.3
PROTRUDED_MM, ROUNDED_MM, AWAY_WEIGHT = 5.2, 6.8, 8.0  # mm by mouthFunnel and mouthPucker
PROTRUSION = (2, 3)  # columns of the mouth's measures: upper and lower lip
DAMPING = 5e-3  # weight of the squared difference from the former readout

Readout = tuple[Tensor, Tensor]
"""Weights (W,) of the stack's output, and the offset ()."""


@dataclass(frozen=True)
class SpokenFrames:
    """Frames of training clips."""

    hidden: Tensor  # (N, W), output of the stack
    source: Tensor  # (N,), index in SOURCES
    clips: Sequence[tuple[slice, Sequence[Phone]]]  # frames and phones of each clip

    def find(self, members: Collection[str], margin: float, part: float) -> Tensor:
        """Where phones are spoken (N,): 1 in their middle, -1 in the rest and `margin` s around, 0 elsewhere.

        `part` is the share of half a phone that counts as its middle, 20 ms or a frame at least.
        """
        found = np.zeros(len(self.hidden), np.int64)
        for frames, phones in self.clips:
            times = (np.arange(frames.stop - frames.start) + 0.5) / FRAME_RATE
            near, inside = np.zeros(len(times), bool), np.zeros(len(times), bool)
            for phone in (phone for phone in phones if phone.name in members):
                near |= (times >= phone.start - margin) & (times < phone.end + margin)
                middle = (phone.start + phone.end) / 2
                within = np.abs(times - middle) <= max(part / 2 * (phone.end - phone.start), 0.02)
                within[np.abs(times - middle).argmin()] = True
                inside |= within
            found[frames] = np.where(inside, 1, np.where(near, -1, 0))
        return torch.from_numpy(found)


@torch.no_grad()
def read_frames(root: Path, model: TalkerModel) -> SpokenFrames:
    """The stack's output in training clips of a store.

    Raises:
        DataError: the store cannot be read, or has no features or no training clips with phones.
    """
    phones = {name.replace("/", "_"): found for name, found in read_phones(root / "phones.tsv").items()}
    trained = [clip for clip in read_rig_manifest(root).clips if clip.split == "train"]
    chosen = [clip for name in WITH_PHONES for clip in trained if clip.source == name and clip.id in phones][::EVERY]
    if not chosen:
        raise DataError(f"no training clips with phones: {root}. Use a store with phones.tsv")
    chosen += [clip for clip in trained if clip.source == WITHOUT_SPEECH][::EVERY]
    require_features(root, [clip.id for clip in chosen])
    hidden, sources, clips, start = [], [], [], 0
    for number, clip in enumerate(tqdm(chosen, desc="stack", unit="clip")):
        folder = FEATURES if number % 2 else features_folder(LIVE_LOOK_AHEAD)
        if not features_path(root, clip.id, folder).is_file():
            folder = FEATURES
        output = model.read_stack(read_features(root, clip.id, folder=folder)[None])[0]
        hidden.append(output)
        sources.append(torch.full((len(output),), SOURCES.index(clip.source)))
        clips.append((slice(start, start + len(output)), phones.get(clip.id, ())))
        start += len(output)
    return SpokenFrames(torch.cat(hidden), torch.cat(sources), clips)


def fit_tongue(model: TalkerModel, frames: SpokenFrames) -> Readout:
    """tongueOut: the tip shows between the teeth at /th/, behind them at /l n t d/, and nowhere else.

    The error is the expected one under dropout of the stack's output, which keeps the readout from a few sentences.
    """
    between, behind = (frames.find(names, margin=0.03, part=0.5) for names in (BETWEEN_TEETH, BEHIND_TEETH))
    at = (between == 1, (behind == 1) & (between != 1), (between == 0) & (behind == 0))
    hidden, weights = [frames.hidden[one] for one in at], torch.tensor(TONGUE_SOURCES)[frames.source]
    shares = [weights[one] / weights[one].sum() for one in at]
    squares = torch.cat(hidden).square().mean(0)
    former = model.lips.weight[TONGUE_OUT].clone()

    def error(weight: Tensor, offset: Tensor) -> Tensor:
        deviation = (TONGUE_DROPOUT * weight.square() @ squares).clamp(min=1e-12).sqrt()
        shown, seen, away = (one @ weight + offset for one in hidden)

        def mean(excess: Tensor, share: Tensor) -> Tensor:
            return (share * _expected_square(excess, deviation)).sum()

        return (
            TONGUE_BETWEEN_WEIGHT * mean(TONGUE_BETWEEN - shown, shares[0])
            + mean(TONGUE_BEHIND[0] - seen, shares[1])
            + mean(seen - TONGUE_BEHIND[1], shares[1])
            + TONGUE_AWAY_WEIGHT * mean(away - TONGUE_AWAY, shares[2])
            + DAMPING * (weight - former).square().mean()
        )

    return _minimise(error, (former, model.lips.bias[TONGUE_OUT].clone()))


def fit_rounding(model: TalkerModel, frames: SpokenFrames) -> Readout:
    """mouthPucker to add, so that the lips protrude at /sh u o w/; little elsewhere, and at /f v/ near them."""
    protruded, rounded = (frames.find(names, margin=0.04, part=0.6) for names in (PROTRUDED, ROUNDED))
    at = (protruded == 1, (rounded == 1) & (protruded != 1), (protruded == 0) & (rounded == 0))
    tucked = frames.find(LABIODENTALS, margin=0.0, part=1.0) == 1
    by_funnel, by_pucker = default_measures().matrix[[MOUTH_FUNNEL, MOUTH_PUCKER]][:, PROTRUSION].mean(1).tolist()
    shares = [_balance(frames.source[one]) for one in at[:2]]
    lips = model.lips(frames.hidden)
    funnel, pucker = lips[:, MOUTH_FUNNEL].clamp(0, 1), lips[:, MOUTH_PUCKER]

    def error(weight: Tensor, offset: Tensor) -> Tensor:
        new = pucker + frames.hidden @ weight + offset
        lengths = by_funnel * funnel + by_pucker * new.clamp(-0.05, 1)
        added = new.clamp(min=-0.02) - pucker.clamp(min=-0.02)  # not puckered anyway: no matter how much
        loss = AWAY_WEIGHT * (added[at[2]].square().mean() + added[tucked].square().mean())
        loss = loss + 0.4 * DAMPING * weight.square().mean()
        for one, share, wanted in zip(at, shares, (PROTRUDED_MM, ROUNDED_MM), strict=False):
            loss = loss + (share * _square((wanted - lengths[one]) / by_pucker)).sum()
        return loss

    return _minimise(error, (torch.zeros(frames.hidden.shape[1]), torch.zeros(())))


def refit_share(model: TalkerModel, frames: SpokenFrames, former: Tensor) -> None:
    """Fit the share of the predicted gap to its former logits (N,), most where it is neither 0 nor 1."""
    assert model.opening_share is not None
    cues = model.share_cues(model.lips(frames.hidden).clamp(0, 1), frames.hidden)
    inputs = torch.cat([cues, torch.ones(len(cues), 1)], dim=1)
    weight = ((former.clamp(-12, 12) / 5).square().neg().exp() + 0.02)[:, None]
    gram = (weight * inputs).T @ inputs + 0.1 * torch.eye(inputs.shape[1])
    solution = torch.linalg.solve(gram, (weight * inputs).T @ former.clamp(-15, 15))
    model.opening_share.weight[0], model.opening_share.bias[0] = solution[:-1], solution[-1]


def refit_talker(root: Path, talker: Path, output: Path) -> None:
    """Write a trained talker with other readouts.

    Raises:
        DataError: the talker has no network of the lip gap, or the store cannot be read.
        CheckpointError: the folder holds no talker.
    """
    model = load_talker_model(talker)
    if model.opening is None:
        raise DataError(f"no network of the lip gap: {talker}. Give a talker with opening_width")
    refit_readouts(model, read_frames(root, model))
    save_talker_model(model, output)


@torch.no_grad()
def refit_readouts(model: TalkerModel, frames: SpokenFrames) -> None:
    """Replace the readouts of a talker with a network of the lip gap."""
    width = default_measures().matrix[:, 1]
    share = model.share_of_gap(model.lips(frames.hidden).clamp(0, 1), frames.hidden)
    with torch.enable_grad():
        tongue, rounding = fit_tongue(model, frames), fit_rounding(model, frames)
    model.lips.weight[TONGUE_OUT], model.lips.bias[TONGUE_OUT] = tongue
    widening = float(-width[MOUTH_PUCKER] / (width[STRETCH_LEFT] + width[STRETCH_RIGHT]))  # to keep the width
    for column, part in ((MOUTH_PUCKER, 1.0), (STRETCH_LEFT, widening), (STRETCH_RIGHT, widening)):
        model.lips.weight[column] += part * rounding[0]
        model.lips.bias[column] += part * rounding[1]
    refit_share(model, frames, share)


def _minimise(error: Callable[[Tensor, Tensor], Tensor], start: Readout) -> Readout:
    """The readout of the least error, by L-BFGS."""
    weight, offset = (part.detach().clone().requires_grad_() for part in start)
    optimizer = torch.optim.LBFGS([weight, offset], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = error(weight, offset)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), offset.detach()


def _square(excess: Tensor) -> Tensor:
    return excess.clamp(min=0).square()


def _expected_square(excess: Tensor, deviation: Tensor) -> Tensor:
    """Expected `_square` of a normal distribution around the excess."""
    standard = excess / deviation
    normal = torch.distributions.Normal(0.0, 1.0)
    density = normal.log_prob(standard).exp()
    return deviation.square() * ((standard.square() + 1) * normal.cdf(standard) + standard * density)


def _balance(source: Tensor) -> Tensor:
    """Weights (N,) with which all sources (N,) that occur count alike; their sum is 1."""
    count = torch.bincount(source)
    return 1 / (count[source] * (count > 0).sum())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("store", type=Path, help="rig store with features and phones.tsv")
    parser.add_argument("talker", type=Path, help="folder of a trained talker with a network of the lip gap")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new talker")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    refit_talker(arguments.store, arguments.talker, arguments.output)
    print(arguments.output)
