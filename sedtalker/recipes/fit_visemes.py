"""Fit the opening and dominance of visemes to tracked lips: `python -m sedtalker.recipes fit_visemes GRID PHONES`.

Fits the constants of `sedtalker.face.visemes` and the widths and lag of `sedtalker.synthesis.coarticulation` to GRID's
lip gap by least squares, and prints them with the correlation on every tenth sentence, which is held out. PHONES is
a table of aligned phones of GRID (`sedtalker data synthesize --to store --grid GRID` writes one).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sedtalker.face.arkit import JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.visemes import VISEMES
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import Phone, read_phones
from sedtalker.synthesis.coarticulation import (
    ANTICIPATION,
    CONTACT_OPENING,
    OPENING_FLOOR,
    OPENING_LAG,
    OPENING_SPREAD,
    closure_curve,
    contact_curve,
    gestures,
)
from sedtalker.synthesis.tracked_faces import read_grid

FRAMES = 150  # per sentence, 3 s
EDGE = 10  # frames at both ends without speech, which are ignored
MOST_GESTURES = 40
HELD_OUT = 10  # every tenth sentence is held out
NAMES = tuple(VISEMES)


@dataclass(frozen=True)
class Sentences:
    """N tracked sentences of G gestures and T frames."""

    centre: Tensor  # (N, G) seconds
    duration: Tensor  # (N, G)
    viseme: Tensor  # (N, G), position in NAMES
    present: Tensor  # (N, G), 1 for a gesture, 0 for padding
    closed: Tensor  # (N, T), closure by /p b m/
    touching: Tensor  # (N, T), contact by /f v/
    opening: Tensor  # (N, T), tracked opening

    def of(self, selection: Tensor) -> Sentences:
        """Select sentences by index or mask (N,)."""
        return Sentences(*(values[selection] for values in vars(self).values()))


class Dominance(torch.nn.Module):
    """The coarticulation model of `sedtalker.synthesis`, with its constants as parameters."""

    def __init__(self) -> None:
        super().__init__()
        opening_values = torch.tensor([VISEMES[name].opening for name in NAMES])
        holds = torch.tensor([VISEMES[name].opening_dominance for name in NAMES]).clamp(0.05, 0.95)
        self.opening_values, self.holds = torch.nn.Parameter(opening_values), torch.nn.Parameter(holds.logit())
        self.times = torch.nn.Parameter(torch.tensor([OPENING_SPREAD, OPENING_FLOOR, OPENING_LAG, ANTICIPATION]))

    def forward(self, sentences: Sentences) -> Tensor:
        """Predict openings (N, T)."""
        spread, floor, lag, anticipation = self.times
        frames = (torch.arange(FRAMES) + 0.5) / FRAME_RATE
        after = frames[None, :, None] - lag - sentences.centre[:, None]
        plateau = (sentences.duration / 2 - 0.08).clamp(min=0)[:, None]
        width = (spread * sentences.duration.clamp(max=0.16) + floor)[:, None]
        width = width * torch.where(after < 0, 1 + anticipation, 1 - anticipation)
        away = (after.abs() - plateau).clamp(min=0) / width
        dominance = (self.holds.sigmoid()[sentences.viseme] * sentences.present)[:, None] * torch.exp(-away.square())
        dominance = dominance + 1e-9 * sentences.present[:, None] * torch.exp(-away)
        opening = (dominance * self.opening_values[sentences.viseme][:, None]).sum(-1) / dominance.sum(-1)
        limit_to_contact = opening + sentences.touching * (CONTACT_OPENING - opening).clamp(max=0)
        return limit_to_contact * (1 - sentences.closed)


def fit(sentences: Sentences, steps: int = 500, seed: int = 0) -> Dominance:
    """Fit the model by Adam on batches of 64 sentences."""
    torch.manual_seed(seed)
    model = Dominance()
    rates = [(model.opening_values, 0.01), (model.holds, 0.05), (model.times, 0.002)]
    optimizer = torch.optim.Adam([{"params": [values], "lr": rate} for values, rate in rates])
    for _ in range(steps):
        minibatch = sentences.of(torch.randint(len(sentences.centre), (64,)))
        error = (model(minibatch) - minibatch.opening)[:, EDGE:-EDGE]
        loss = error.square().mean() + 1e-3 * (model.holds.sigmoid() - 0.6).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def correlation(model: Dominance, sentences: Sentences) -> float:
    """Median over sentences of the correlation between predicted and tracked opening."""
    predicted, true = (values[:, EDGE:-EDGE].numpy() for values in (model(sentences), sentences.opening))
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted, true, strict=True)]))


def read_sentence(path: Path, phones: Sequence[Phone]) -> tuple[np.ndarray, ...]:
    """Read the row of a sentence for `Sentences`."""
    weights = read_grid(path).weights[:FRAMES]
    opening = np.pad(weights[:, JAW_OPEN] - weights[:, MOUTH_CLOSE], (0, FRAMES - len(weights)), mode="edge")
    parts = list(gestures(phones))[:MOST_GESTURES]
    rows = np.zeros((4, MOST_GESTURES), np.float32)
    rows[1] = 1
    places = {id(viseme): place for place, viseme in enumerate(VISEMES.values())}
    for column, part in enumerate(parts):
        rows[:, column] = part.centre, part.duration, places[id(part.viseme)], 1
    frames = ((np.arange(FRAMES) + 0.5) / FRAME_RATE).astype(np.float32)
    return *rows, closure_curve(phones, frames), contact_curve(phones, frames), opening


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", type=Path, help="folder of GRID with tracked lips")
    parser.add_argument("phones", type=Path, help="table of aligned phones")
    parser.add_argument("--steps", type=int, default=500, help="optimizer steps (default: 500)")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    table = {name: phones for name, phones in read_phones(arguments.phones).items() if name.startswith("grid/")}
    rows = [read_sentence(arguments.grid / "s1" / f"{name[5:]}.npz", phones) for name, phones in table.items()]
    columns = [torch.from_numpy(np.stack(column)).float() for column in zip(*rows, strict=True)]
    sentences = Sentences(columns[0], columns[1], columns[2].long(), *columns[3:])
    held_out = torch.arange(len(rows)) % HELD_OUT == 0
    before = correlation(Dominance(), sentences.of(held_out))
    model = fit(sentences.of(~held_out), arguments.steps)
    print(f"correlation on held-out sentences {before:.3f} -> {correlation(model, sentences.of(held_out)):.3f}")
    spread, floor, lag, anticipation = model.times.tolist()
    print(f"spread {spread:.3f}, floor {floor:.3f} s, lag {lag:.3f} s, anticipation {anticipation:.2f}")
    for name, opening, dominance in zip(
        NAMES, model.opening_values.tolist(), model.holds.sigmoid().tolist(), strict=True
    ):
        print(f"{name:8} opening {opening:.3f}, dominance {dominance:.2f}")
