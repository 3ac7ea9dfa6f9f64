"""Loss terms of the talker; the configuration holds their weights.

Values are blendshape weights (B, T, 52), or displacements (B, T, 3 V) in millimetres where the topology has no rig.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, ROLL_LOWER, STRETCH_LEFT
from sedtalker.face.mouth_measures import GAP, WIDTH, mouth_measures
from sedtalker.face.rig import Face

MILLIMETRES = 1000.0  # per metre
SHAPES = tuple(
    ARKIT_NAMES.index(name)
    for name in ("mouthFunnel", "mouthPucker", "mouthLowerDownLeft", "mouthUpperUpLeft", "mouthRollLower")
)
USUAL = (4.4, 1.5, 0.15, 0.15, 0.07, 0.04, 0.06)  # standard deviations of gap and width in mm, and of SHAPES' weights
SPEED_SHARE = 0.25  # of USUAL: standard deviations of the differences of neighbouring frames
TARGET_CONTACT, LEAST_CONTACT = 0.9, 0.35  # mouthRollLower of targets in full contact at /f v/; share that counts
CLOSURE_RAMPS = (0.01, 0.14, 0.39, 0.68, 0.91, 1.0, 0.78, 0.32, 0.01)
"""Shares of a closure in the frames from 5 after it to 3 before it, raised cosines."""
RELEASE_FRAMES = 5  # frames of CLOSURE_RAMPS after a closure
SHUT_LOSS_WEIGHT = 2.0  # of `share` where the lips must be closed, relative to elsewhere
CLOSED_SLACK = 0.4  # mm over the distance at rest up to which lips look closed


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; 0 disables a term."""

    values: float = 1.0  # squared error of the pose of every frame
    velocity: float = 5.0  # squared error of first differences: timing, and jitter, which hardly changes the pose
    acceleration: float = 5.0  # squared error of second differences: speed of onsets, and jerks
    lips: float = 1e-3  # mm^2 at the lip vertices: the visible effect of the values on the mouth
    closure: float = 1e-3  # mm^2 of lip gap at /p b m/, the most noticeable error, and in silence
    amplitude: float = 0.0  # mm^2 of the standard deviation of the gap: regression to the mean opens too little
    contour: float = 0.0  # lip gap and mouth width over USUAL: the visible result, whatever weights produce it
    share: float = 0.0  # cross entropy of the share of the predicted lip gap: 0 where phones or silence close the lips
    shape_amplitude: float = 0.0  # spread and speed of gap, width and lip shapes: regression to the mean moves less
    neutral: float = 0.5  # squared error at intensity 0: separates content from emotion, so that tracks can be swapped
    emotion: float = 0.5  # squared error of the emotion's contribution: an expression does not depend on the words
    sparsity: float = 1e-4  # mean weight: of all weights that give a pose, few large ones are the easiest to edit
    balance: float = 1e-2  # load balancing of the experts: otherwise one expert receives all tokens


class Target(NamedTuple):
    """True values of a batch."""

    values: Tensor  # (B, T, K)
    loss_weight: Tensor  # (B, T, K), or (B, T, 1) for all values of a frame; 0 where the true value is unknown
    neutral: Tensor | None  # (B, T, K), values without the emotion's contribution, if known
    closed: Tensor  # (B, T), weight of closed lips: 1 at /p b m/, another in silence


class Lips(nn.Module):
    """Lip vertices of a topology with values in a basis (K, 3 V) in metres, or as displacements (3 V) in mm."""

    def __init__(self, index: np.ndarray, basis: np.ndarray | None) -> None:
        super().__init__()
        self.metric: Tensor | None
        self.coordinates: Tensor
        coordinates = (3 * np.asarray(index)[:, None] + np.arange(3)).reshape(-1)
        moved = None if basis is None else basis[:, coordinates] * MILLIMETRES
        # d' metric d is the mean squared distance of the lip vertices for a difference of values d
        self.register_buffer("metric", None if moved is None else _float(moved @ moved.T / len(index)))
        self.register_buffer("coordinates", torch.from_numpy(coordinates), persistent=False)

    def squared_distance(self, difference: Tensor) -> Tensor:
        """Mean squared distance (B, T) of the lip vertices in mm^2, for differences of values (B, T, K)."""
        if self.metric is not None:
            return ((difference @ self.metric) * difference).sum(-1)
        return 3 * difference[..., self.coordinates].square().mean(-1)


class Mouth(Lips):
    """Linear maps from blendshape weights to lip vertices and to the gap between facing lip vertices."""

    def __init__(self, face: Face) -> None:
        if face.blendshapes is None or face.lip_pairs is None:
            raise ValueError(f"face {face.name!r} has no rig or no lip pairs")
        super().__init__(face.masks["lips"], face.blendshapes.reshape(len(face.blendshapes), -1))
        moved = face.blendshapes * MILLIMETRES  # (52, V, 3)
        quarter = len(face.lip_pairs) // 4  # without the corners of the mouth, whose pairs always touch
        upper, lower = face.lip_pairs[quarter : len(face.lip_pairs) - quarter].T
        gap = (face.template[upper] - face.template[lower]) * MILLIMETRES  # (N, 3)
        self.gap: Tensor
        self.gap_moved: Tensor
        self.register_buffer("gap", _float(gap))
        self.register_buffer("gap_moved", _float(moved[:, upper] - moved[:, lower]))  # (52, N, 3)

        self.measures: Tensor
        self.register_buffer("measures", _float(mouth_measures(face).matrix))  # (52, 4)

    def gap_and_width(self, weights: Tensor) -> Tensor:
        """Lip gap and mouth width (B, T, 2) in mm, minus those at rest, for weights (B, T, 52)."""
        return (weights @ self.measures)[..., (GAP, WIDTH)]

    def gaps(self, weights: Tensor) -> Tensor:
        """Distances (B, T, N) in mm between facing vertices in the middle of the mouth."""
        between = self.gap + torch.einsum("btk,knc->btnc", weights, self.gap_moved)
        return (between.square().sum(-1) + 1e-6).sqrt()

    def beyond_closed(self, weights: Tensor) -> Tensor:
        """Distance (B, T, N) in mm by which the lips are further apart than closed lips."""
        rest = self.gap.square().sum(-1).sqrt()
        return torch.relu(self.gaps(weights) - rest - CLOSED_SLACK)


def talker_losses(
    values: Tensor,
    lips: Tensor,
    balance: Tensor,
    target: Target,
    mouth: Lips | None,
    rig: bool,
    share: Tensor | None = None,
) -> dict[str, Tensor]:
    """Unweighted loss terms () by their names in `LossWeights`.

    Args:
        values: (B, T, K) predicted.
        lips: (B, T, K) predicted at intensity 0.
        balance: () load-balancing loss of the experts.
        mouth: of the rig's face, or the lips of another topology; None if unknown.
        rig: whether the values are blendshape weights.
        share: (B, T) logit of the share of the predicted lip gap, if there is one.
    """
    difference = values - target.values
    error = difference * target.loss_weight.sqrt()
    # Minimum of the weights: where the weight changes, a constant error has no velocity.
    pairs = torch.minimum(target.loss_weight[:, 1:], target.loss_weight[:, :-1])
    triples = torch.minimum(pairs[:, 1:], pairs[:, :-1])
    terms = {
        "values": error.square().mean(),
        "velocity": (pairs * difference.diff(dim=1).square()).mean(),
        "acceleration": (triples * difference.diff(n=2, dim=1).square()).mean(),
        "balance": balance,
    }
    if target.neutral is not None:
        terms["neutral"] = (target.loss_weight * (lips - target.neutral).square()).mean()
        predicted_offset, true_offset = values - lips, target.values - target.neutral
        terms["emotion"] = (target.loss_weight * (predicted_offset - true_offset).square()).mean()
    if rig:
        terms["sparsity"] = values.abs().mean()
    if share is not None:
        terms["share"] = share_error(share, target)
    if mouth is not None:
        terms["lips"] = mouth.squared_distance(error).mean()
    if isinstance(mouth, Mouth):
        beyond = mouth.beyond_closed(values).square().mean(-1)
        total, devices = sum_over_devices(target.closed.sum())  # their losses are averaged
        terms["closure"] = devices * (target.closed * beyond).sum() / total.clamp(min=1)
        terms["amplitude"] = amplitude_error(values, target, mouth)
        terms["contour"] = contour_error(values, target, mouth)
        terms["shape_amplitude"] = shape_amplitude_error(values, target, mouth)
    return terms


def sum_over_devices(value: Tensor) -> tuple[Tensor, int]:
    """Sum () of a value () over the devices that share a batch, and their number."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value, 1
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total, distributed.get_world_size()


def amplitude_error(values: Tensor, target: Target, mouth: Mouth) -> Tensor:
    """Squared difference () in mm^2 between the standard deviations over time of predicted and true lip gaps.

    Only channels and frames with a known true value are used.
    """
    known = (target.loss_weight > 0).to(values)
    counted = known.amax(dim=-1)  # (B, T)
    predicted, true = (
        _standard_deviation(mouth.gaps(poses * known).mean(-1), counted) for poses in (values, target.values)
    )
    return (predicted - true).square().mean()


def share_error(share: Tensor, target: Target) -> Tensor:
    """Cross entropy () of logits (B, T) of the share of the predicted lip gap.

    The share is 1 where nothing determines the gap, 0 at /p b m/ and in silence, with the ramps of a closure before and
    after them, and 1 minus the contact of the lower lip and the teeth at /f v/.
    """
    shut = (target.closed > 0).to(share)
    ramps = share.new_tensor(CLOSURE_RAMPS)
    near = F.pad(shut, (RELEASE_FRAMES, len(CLOSURE_RAMPS) - 1 - RELEASE_FRAMES))
    closure = (near.unfold(1, len(ramps), 1) * ramps).amax(-1)
    contact = (target.values[..., ROLL_LOWER] / TARGET_CONTACT).clamp(0, 1)
    open_share = 1 - torch.maximum(closure, torch.where(contact > LEAST_CONTACT, contact, 0))
    known = ((target.loss_weight[..., JAW_OPEN] > 0) | (target.closed > 0)).to(share)
    weight = known * (1 + (SHUT_LOSS_WEIGHT - 1) * (1 - open_share))
    error = F.binary_cross_entropy_with_logits(share, open_share, weight, reduction="sum")
    return error / known.sum().clamp(min=1)


def contour_error(values: Tensor, target: Target, mouth: Mouth) -> Tensor:
    """Squared error () of the lip gap and the mouth width, each over its usual standard deviation (USUAL).

    The gap counts with the loss weight of jawOpen, the width with that of mouthStretch.
    """
    error = mouth.gap_and_width(values - target.values) / values.new_tensor(USUAL[:2])
    return (target.loss_weight[..., (JAW_OPEN, STRETCH_LEFT)] * error.square()).mean()


def shape_amplitude_error(values: Tensor, target: Target, mouth: Mouth) -> Tensor:
    """Squared difference () of the standard deviations over time of gap, width and lip shapes, and of their speeds.

    Each is over the usual deviation of its curve (USUAL). Frames in which a curve is unknown do not count; a window in
    which it is never known adds nothing.
    """
    known = (target.loss_weight[..., (JAW_OPEN, STRETCH_LEFT, *SHAPES)] > 0).to(values)  # (B, T, 2 + S)
    usual = values.new_tensor(USUAL)
    terms = []
    for order, scale in ((0, usual), (1, SPEED_SHARE * usual)):
        counted = known if order == 0 else known[:, 1:] * known[:, :-1]
        predicted, true = (
            _spread_of(
                torch.cat([mouth.gap_and_width(poses), poses[..., SHAPES]], dim=-1).diff(n=order, dim=1), counted, scale
            )
            for poses in (values, target.values)
        )
        terms.append((predicted - true).square().mean())
    return torch.stack(terms).mean()


def _spread_of(curves: Tensor, counted: Tensor, scale: Tensor) -> Tensor:
    """Standard deviations (B, S) over the counted frames of curves (B, T, S), over their scales (S,)."""
    number = counted.sum(1).clamp(min=1)
    mean = (counted * curves).sum(1) / number
    variance = (counted * (curves - mean[:, None]).square()).sum(1) / number
    return (variance + 1e-2 * scale.square()).sqrt() / scale


def _standard_deviation(curves: Tensor, counted: Tensor) -> Tensor:
    """Standard deviation (B,) of curves (B, T) over the frames that `counted` (B, T) selects."""
    number = counted.sum(1).clamp(min=1)
    mean = (counted * curves).sum(1) / number
    variance = (counted * (curves - mean[:, None]).square()).sum(1) / number
    return (variance + 1e-6).sqrt()


def weighted_sum(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Sum () of the terms, each times its weight."""
    factors = asdict(weights)
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()


def motion_spread(values: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Variance over time of predicted and of true values, () each, summed over channels; unknown values count as 0."""
    known = target.loss_weight > 0
    spread, true_spread = ((x * known).var(dim=1).sum() for x in (values, target.values))
    return spread, true_spread


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
