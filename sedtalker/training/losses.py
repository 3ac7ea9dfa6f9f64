"""What a talker is trained for: every term with its reason, weighted in the configuration.

Values are blendshape weights (B, T, 52), or displacements (B, T, 3 V) in millimetres where the topology has no rig.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sedtalker.face.rig import Face

MILLIMETRES = 1000.0  # a metre
CLOSED_SLACK = 0.4  # mm beyond the distance at rest that still looks closed


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms; 0 leaves a term out."""

    values: float = 1.0  # squared error: the pose of every frame
    velocity: float = 5.0  # of frame differences: timing, and no trembling that the pose alone would forgive
    acceleration: float = 5.0  # of second differences: onsets as quick as they are, without jerks
    lips: float = 1e-3  # mm^2 at the lips' vertices: what a value does to the mouth, not its number, is what is seen
    closure: float = 1e-3  # mm^2 of gap at /p b m/, which listeners notice first, and while nobody speaks
    amplitude: float = 0.0  # mm^2 of the gap's standard deviation: a mean of likely mouths opens less than any of them
    neutral: float = 0.5  # squared error at intensity 0: content and emotion stay apart, tracks can be swapped
    emotion: float = 0.5  # squared error of what the track adds: a feeling looks the same whatever is said
    sparsity: float = 1e-4  # mean weight: a rig has many ways to one pose, the one with fewest actions edits best
    balance: float = 1e-2  # of the experts' load: else one takes all and the others never learn


class Target(NamedTuple):
    """The truth of a batch."""

    values: Tensor  # (B, T, K)
    trust: Tensor  # (B, T, K), weight of each error; 0 where the truth is unknown
    neutral: Tensor | None  # (B, T, K), the same without the emotion's part, where that is known
    closed: Tensor  # (B, T), how much it counts that the lips meet: 1 at /p b m/, less in silence


class Lips(nn.Module):
    """The lips of a topology, whose values are coefficients of a basis (K, 3 V) in metres, or millimetres (3 V)."""

    def __init__(self, index: np.ndarray, basis: np.ndarray | None) -> None:
        super().__init__()
        self.metric: Tensor | None
        self.coordinates: Tensor
        coordinates = (3 * np.asarray(index)[:, None] + np.arange(3)).reshape(-1)
        moved = None if basis is None else basis[:, coordinates] * MILLIMETRES
        # d metric d is the mean over lip vertices of the squared distance, for a difference of values d
        self.register_buffer("metric", None if moved is None else _float(moved @ moved.T / len(index)))
        self.register_buffer("coordinates", torch.from_numpy(coordinates), persistent=False)

    def squared_distance(self, difference: Tensor) -> Tensor:
        """Mean squared distance (B, T) of the lip vertices in mm^2, for differences of values (B, T, K)."""
        if self.metric is not None:
            return ((difference @ self.metric) * difference).sum(-1)
        return 3 * difference[..., self.coordinates].square().mean(-1)


class Mouth(Lips):
    """What blendshape weights do to a mouth, as matrices: lip vertices, and the gap between facing ones."""

    def __init__(self, face: Face) -> None:
        if face.blendshapes is None or face.lip_pairs is None:
            raise ValueError(f"face {face.name!r} has no rig or no lip pairs")
        super().__init__(face.masks["lips"], face.blendshapes.reshape(len(face.blendshapes), -1))
        moved = face.blendshapes * MILLIMETRES  # (52, V, 3)
        upper, lower = _middle(face.lip_pairs).T
        gap = (face.template[upper] - face.template[lower]) * MILLIMETRES  # (N, 3)
        self.gap: Tensor
        self.gap_moved: Tensor
        self.register_buffer("gap", _float(gap))
        self.register_buffer("gap_moved", _float(moved[:, upper] - moved[:, lower]))  # (52, N, 3)

    def gaps(self, weights: Tensor) -> Tensor:
        """Distances (B, T, N) in mm between facing vertices in the middle of the mouth."""
        between = self.gap + torch.einsum("btk,knc->btnc", weights, self.gap_moved)
        return (between.square().sum(-1) + 1e-6).sqrt()

    def beyond_closed(self, weights: Tensor) -> Tensor:
        """How many mm (B, T, N) the lips are further apart than closed lips are."""
        rest = self.gap.square().sum(-1).sqrt()
        return torch.relu(self.gaps(weights) - rest - CLOSED_SLACK)


def talker_losses(
    values: Tensor, lips: Tensor, balance: Tensor, target: Target, mouth: Lips | None, rig: bool
) -> dict[str, Tensor]:
    """The terms, unweighted, by their names in `LossWeights`.

    Args:
        values: (B, T, K) predicted.
        lips: (B, T, K) predicted at intensity 0.
        balance: () load-balancing loss of the experts.
        mouth: of the rig's face, or the lips of another topology, where they are known.
        rig: whether the values are blendshape weights.
    """
    difference = values - target.values
    error = difference * target.trust.sqrt()
    # A difference of frames counts as its least trusted frame: where trust jumps, a constant error is no motion.
    pairs = torch.minimum(target.trust[:, 1:], target.trust[:, :-1])
    triples = torch.minimum(pairs[:, 1:], pairs[:, :-1])
    terms = {
        "values": error.square().mean(),
        "velocity": (pairs * difference.diff(dim=1).square()).mean(),
        "acceleration": (triples * difference.diff(n=2, dim=1).square()).mean(),
        "balance": balance,
    }
    if target.neutral is not None:
        terms["neutral"] = (target.trust * (lips - target.neutral).square()).mean()
        added, felt = values - lips, target.values - target.neutral
        terms["emotion"] = (target.trust * (added - felt).square()).mean()
    if rig:
        terms["sparsity"] = values.abs().mean()
    if mouth is not None:
        terms["lips"] = mouth.squared_distance(error).mean()
    if isinstance(mouth, Mouth):
        beyond = mouth.beyond_closed(values).square().mean(-1)
        terms["closure"] = (target.closed * beyond).sum() / target.closed.sum().clamp(min=1)
        terms["amplitude"] = amplitude_error(values, target, mouth)
    return terms


def amplitude_error(values: Tensor, target: Target, mouth: Mouth) -> Tensor:
    """Squared difference () in mm^2 of how far the lip gap strays, over time, in the prediction and in the truth.

    Of both only what the truth knows moves the lips; frames of which it knows nothing do not count.
    """
    known = (target.trust > 0).to(values)
    counted = known.amax(dim=-1)  # (B, T)
    predicted, true = (_deviation(mouth.gaps(poses * known).mean(-1), counted) for poses in (values, target.values))
    return (predicted - true).square().mean()


def _deviation(curves: Tensor, counted: Tensor) -> Tensor:
    """Standard deviation (B,) over the counted frames (B, T) of curves (B, T)."""
    number = counted.sum(1).clamp(min=1)
    mean = (counted * curves).sum(1) / number
    variance = (counted * (curves - mean[:, None]).square()).sum(1) / number
    return (variance + 1e-6).sqrt()


def total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum ()."""
    factors = asdict(weights)
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()


def motion_spread(values: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Variance over time, () each, of the prediction and of the truth where that is known, summed over channels."""
    trusted = target.trust > 0
    spread, true_spread = ((x * trusted).var(dim=1).sum() for x in (values, target.values))
    return spread, true_spread


def _middle(pairs: np.ndarray) -> np.ndarray:
    """The middle half of the lip pairs: the corners of the mouth touch in any case."""
    quarter = len(pairs) // 4
    return pairs[quarter : len(pairs) - quarter]


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
