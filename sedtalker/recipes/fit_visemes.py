"""How far each viseme opens and how firmly, from tracked lips: `python -m sedtalker.recipes fit_visemes GRID PHONES`.

Fits the openings and holds of `face.visemes` and the widths and the lag of `corpora.synthesize` to GRID's lip gap by
least squares over all sentences but every tenth, and prints them with the correlation on those. PHONES is a table of
`sedtalker.data.alignment` over GRID (`sedtalker data synthesize --to store --grid GRID` writes one).
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
from sedtalker.phones import Phone, read_phones
from sedtalker.speech import FRAME_RATE
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

FRAMES = 150  # of a sentence, 3 s
EDGE = 10  # frames at both ends that do not count: the mouth waits there
MOST_GESTURES = 40
HELD_OUT = 10  # every so many sentences judge
NAMES = tuple(VISEMES)


@dataclass(frozen=True)
class Sentences:
    """Tracked sentences, N of G gestures and T frames."""

    centre: Tensor  # (N, G) seconds
    duration: Tensor  # (N, G)
    viseme: Tensor  # (N, G), position in NAMES
    there: Tensor  # (N, G), 1 for a gesture, 0 for what fills up
    closed: Tensor  # (N, T), by /p b m/
    touching: Tensor  # (N, T), by /f v/
    opening: Tensor  # (N, T), tracked

    def of(self, chosen: Tensor) -> Sentences:
        """Some of the sentences."""
        return Sentences(*(values[chosen] for values in vars(self).values()))


class Dominance(torch.nn.Module):
    """The blend of `synthesize`, with its constants as parameters."""

    def __init__(self) -> None:
        super().__init__()
        openings = torch.tensor([VISEMES[name].opening for name in NAMES])
        holds = torch.tensor([VISEMES[name].opening_dominance for name in NAMES]).clamp(0.05, 0.95)
        self.openings, self.holds = torch.nn.Parameter(openings), torch.nn.Parameter(holds.logit())
        self.times = torch.nn.Parameter(torch.tensor([OPENING_SPREAD, OPENING_FLOOR, OPENING_LAG, ANTICIPATION]))

    def forward(self, said: Sentences) -> Tensor:
        """Openings (N, T)."""
        spread, floor, lag, anticipation = self.times
        frames = (torch.arange(FRAMES) + 0.5) / FRAME_RATE
        after = frames[None, :, None] - lag - said.centre[:, None]
        held = (said.duration / 2 - 0.08).clamp(min=0)[:, None]
        width = (spread * said.duration.clamp(max=0.16) + floor)[:, None]
        width = width * torch.where(after < 0, 1 + anticipation, 1 - anticipation)
        away = (after.abs() - held).clamp(min=0) / width
        dominance = (self.holds.sigmoid()[said.viseme] * said.there)[:, None] * torch.exp(-away.square())
        dominance = dominance + 1e-9 * said.there[:, None] * torch.exp(-away)
        opening = (dominance * self.openings[said.viseme][:, None]).sum(-1) / dominance.sum(-1)
        limit_to_contact = opening + said.touching * (CONTACT_OPENING - opening).clamp(max=0)
        return limit_to_contact * (1 - said.closed)


def fitted(said: Sentences, steps: int = 500, seed: int = 0) -> Dominance:
    """The model after so many steps of Adam on batches of 64 sentences."""
    torch.manual_seed(seed)
    model = Dominance()
    rates = [(model.openings, 0.01), (model.holds, 0.05), (model.times, 0.002)]
    optimiser = torch.optim.Adam([{"params": [values], "lr": rate} for values, rate in rates])
    for _ in range(steps):
        batch = said.of(torch.randint(len(said.centre), (64,)))
        error = (model(batch) - batch.opening)[:, EDGE:-EDGE]
        loss = error.square().mean() + 1e-3 * (model.holds.sigmoid() - 0.6).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@torch.no_grad()
def correlation(model: Dominance, said: Sentences) -> float:
    """Median correlation of a sentence's opening with the tracked one."""
    made, real = (values[:, EDGE:-EDGE].numpy() for values in (model(said), said.opening))
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(made, real, strict=True)]))


def tracked_sentence(path: Path, phones: Sequence[Phone]) -> tuple[np.ndarray, ...]:
    """One row of `Sentences`."""
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
    """Declare the recipe's arguments."""
    parser.add_argument("grid", type=Path)
    parser.add_argument("phones", type=Path)
    parser.add_argument("--steps", type=int, default=500)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    table = {name: phones for name, phones in read_phones(arguments.phones).items() if name.startswith("grid/")}
    rows = [tracked_sentence(arguments.grid / "s1" / f"{name[5:]}.npz", phones) for name, phones in table.items()]
    columns = [torch.from_numpy(np.stack(column)).float() for column in zip(*rows, strict=True)]
    said = Sentences(columns[0], columns[1], columns[2].long(), *columns[3:])
    judged = torch.arange(len(rows)) % HELD_OUT == 0
    before = correlation(Dominance(), said.of(judged))
    model = fitted(said.of(~judged), arguments.steps)
    print(f"correlation on held-out sentences {before:.3f} -> {correlation(model, said.of(judged)):.3f}")
    spread, floor, lag, anticipation = model.times.tolist()
    print(f"spread {spread:.3f}, floor {floor:.3f} s, lag {lag:.3f} s, anticipation {anticipation:.2f}")
    for name, opening, dominance in zip(NAMES, model.openings.tolist(), model.holds.sigmoid().tolist(), strict=True):
        print(f"{name:8} opening {opening:.3f}, dominance {dominance:.2f}")
