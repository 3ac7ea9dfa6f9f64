"""The association of action units and expressions, measured on real faces, in both directions.

`assets/face/association.json` is fitted by `python -m sedtalker.recipes fit_association RAVDESS` to the action units
that OpenFace measured on RAVDESS' actors, minus each actor's own neutral face, under two labelling schemes:

    clip    the mean of a clip, with the clip's emotion and intensity (20 actors)
    frame   single frames, with an intensity that rises and falls with the speech (5 actors)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.action_units import ACTION_UNITS, estimate_action_units
from sedtalker.labels import LABELS
from sedtalker.resources import asset

Float = NDArray[np.float64]

SCHEMES = ("clip", "frame")
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
"""Action units with an intensity in OpenFace, the columns of its measurements."""

REGIONS: dict[str, tuple[int, ...]] = {
    "brows": (1, 2, 4),
    "eyes": (5, 6, 7, 45),
    "nose": (9,),
    "mouth": (10, 12, 14, 15, 17, 20, 23, 25, 26),
}
UNIT_NAMES: dict[int, str] = {
    1: "inner brow raised", 2: "outer brow raised", 4: "brow lowered", 5: "upper lid raised", 6: "cheek raised",
    7: "lids tightened", 9: "nose wrinkled", 10: "upper lip raised", 12: "lip corners pulled up", 14: "dimples",
    15: "lip corners pulled down", 17: "chin raised", 20: "lips stretched", 23: "lips tightened", 25: "lips parted",
    26: "jaw dropped", 45: "eyes closed",
}  # fmt: skip
PROTOTYPES: dict[str, tuple[int, ...]] = {
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
    "fear": (1, 2, 4, 5, 20, 26),
    "surprise": (1, 2, 5, 26),
}
"""Published prototypes (EMFACS, Friesen & Ekman 1983); OpenFace does not measure unit 16."""

SPEECH_UNITS = (23, 25, 26, 45)  # that speech and blinks move, left out of readings
RESTING = 0.15  # norm of the units, 1 being full intensity, at which a reading is as weak as rest
FULL = 5.0  # OpenFace's largest intensity


@dataclass(frozen=True)
class Association:
    """Both directions of one labelling scheme; columns of units are those of UNITS."""

    scheme: str
    labels: tuple[str, ...]
    to_units: Float  # (C, U) excess over neutral at full intensity, OpenFace's 0..5
    to_units_error: Float  # (C, U) standard error over actors
    to_emotions: Float  # (U, C) weights of the direction of the units
    bias: Float  # (C,)

    def scores(self, units: NDArray[np.floating]) -> Float:
        """Scores (..., C) of action units (..., U), any scale: only their direction counts."""
        return _direction(units) @ self.to_emotions + self.bias

    def probabilities(self, units: NDArray[np.floating]) -> Float:
        """Probabilities (..., C): the softmax of the scores, mixed with neutral for faces near rest.

        Args:
            units: (..., U) in 0..1, 1 at full intensity.
        """
        scores = np.exp(self.scores(units))
        norms = np.linalg.norm(_expressive(units), axis=-1, keepdims=True)
        strength = norms**2 / (norms**2 + RESTING**2)
        read: Float = strength * scores / scores.sum(axis=-1, keepdims=True)
        read[..., self.labels.index("neutral")] += 1 - strength[..., 0]
        return read

    def contributions(self, units: NDArray[np.floating], emotion: str) -> Float:
        """What each unit (..., U) adds to the score of an emotion."""
        added: Float = _direction(units) * self.to_emotions[:, self.labels.index(emotion)]
        return added


def _expressive(units: NDArray[np.floating]) -> Float:
    kept = np.array([unit not in SPEECH_UNITS for unit in UNITS], np.float64)
    return np.asarray(units, np.float64) * kept


def _direction(units: NDArray[np.floating]) -> Float:
    """Units (..., U) without those of speech, at norm 1."""
    expressive = _expressive(units)
    direction: Float = expressive / np.maximum(np.linalg.norm(expressive, axis=-1, keepdims=True), 1e-6)
    return direction


@cache
def load_association(scheme: str = "clip") -> Association:
    """The packaged association of one of SCHEMES."""
    stored = json.loads(asset("face", "association.json").read_text(encoding="utf-8"))["schemes"][scheme]
    arrays = {name: np.array(stored[name]) for name in ("to_units", "to_units_error", "to_emotions", "bias")}
    return Association(scheme, tuple(stored["labels"]), **arrays)


def measured_units(weights: NDArray[np.floating]) -> Float:
    """ARKit weights (..., 52) as action units (..., U) of UNITS, 1 at full intensity; parted lips count as unit 26."""
    estimated = estimate_action_units(np.asarray(weights, np.float32))
    order = list(ACTION_UNITS)
    same = {25: 26, 45: 43}
    return np.stack([estimated[..., order.index(same.get(unit, unit))] for unit in UNITS], axis=-1).astype(np.float64)


def fit_association(
    scheme: str, units: Float, emotions: Sequence[str], intensities: Float, groups: Sequence[str], ridge: float = 0.002
) -> Association:
    """Fit both directions to measured units.

    `to_units` is the least-squares slope of each unit over the intensity, with its standard error by the jackknife over
    groups. `to_emotions` and `bias` are a ridge regression of one-hot emotions (scaled to logits) on the directions.

    Args:
        units: (N, U) excess over the same person's neutral face, OpenFace's 0..5.
        emotions: (N,) labels.
        intensities: (N,) 0..1.
        groups: (N,) actors.
        ridge: relative to the number of rows.
    """
    labels = tuple(label for label in LABELS if label in set(emotions))
    names, actors = np.array(emotions), np.array(groups)
    slopes = _slopes(units, names, intensities, labels)
    parts = [
        _slopes(units[actors != actor], names[actors != actor], intensities[actors != actor], labels)
        for actor in np.unique(actors)
    ]
    spread = np.stack(parts)
    error = np.sqrt((len(parts) - 1) * spread.var(axis=0))
    weights, bias = _fit_reading(units, names, labels, ridge)
    return Association(scheme, labels, slopes, error, weights, bias)


def _slopes(units: Float, names: NDArray[np.str_], intensities: Float, labels: tuple[str, ...]) -> Float:
    rows = []
    for label in labels:
        chosen = names == label
        amount = intensities[chosen]
        rows.append(amount @ units[chosen] / max(float(amount @ amount), 1e-9))
    return np.stack(rows)


def _fit_reading(units: Float, names: NDArray[np.str_], labels: tuple[str, ...], ridge: float) -> tuple[Float, Float]:
    y = np.array([[name == label for label in labels] for name in names], np.float64)
    return fit_logistic(_direction(units), y, ridge)


def fit_logistic(x: Float, y: Float, ridge: float, weight: Float | None = None) -> tuple[Float, Float]:
    """Weights (K, C) and bias (C,) of a multinomial logistic regression, by steps of a fixed bound (Bohning 1992).

    Args:
        x: (N, K).
        y: (N, C) one-hot.
        ridge: penalty of the weights, relative to N / C.
        weight: (N,) of the rows; None: every class counts the same.
    """
    x = np.hstack([x, np.ones((len(x), 1))])
    if weight is None:
        weight = (1 / np.maximum(y.sum(0), 1))[y.argmax(1)]
    weight = weight * len(x) / weight.sum()
    penalty = ridge * len(x) * np.diag([*np.ones(x.shape[1] - 1), 0.0]) / y.shape[1]
    bound = np.linalg.inv(0.5 * (x * weight[:, None]).T @ x + penalty + 1e-6 * np.eye(x.shape[1]))
    beta = np.zeros((x.shape[1], y.shape[1]))
    for _ in range(300):
        logits = x @ beta
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        beta += bound @ (x.T @ (weight[:, None] * (y - p)) - penalty @ beta)
    return beta[:-1], beta[-1]


def cross_validate(
    units: Float, emotions: Sequence[str], groups: Sequence[str], ridge: float = 0.002
) -> NDArray[np.str_]:
    """The emotion (N,) that each row is read as by an association fitted without the row's group."""
    names, actors = np.array(emotions), np.array(groups)
    labels = tuple(label for label in LABELS if label in set(emotions))
    read = np.empty(len(names), dtype=f"<U{max(map(len, labels))}")
    for actor in np.unique(actors):
        test = actors == actor
        weights, bias = _fit_reading(units[~test], names[~test], labels, ridge)
        read[test] = np.array(labels)[(_direction(units[test]) @ weights + bias).argmax(1)]
    return read


def compare_with_prototypes(association: Association) -> dict[str, dict[str, float]]:
    """How well the measured units of each emotion agree with its published prototype.

    Returns:
        emotion -> `auc`: probability that a unit of the prototype is stronger than another (0.5: no agreement);
        `cosine` with the prototype's units, all 1; `found`: share of the prototype's units that rise by more than two
        standard errors.
    """
    result = {}
    for label, prototype in PROTOTYPES.items():
        if label not in association.labels:
            continue
        row = association.labels.index(label)
        values = association.to_units[row]
        inside = np.array([unit in prototype for unit in UNITS])
        pairs = values[inside][:, None] - values[~inside][None]
        result[label] = {
            "auc": float((pairs > 0).mean() + 0.5 * (pairs == 0).mean()),
            "cosine": float(values @ inside / max(float(np.linalg.norm(values)) * np.sqrt(inside.sum()), 1e-9)),
            "found": float((values > 2 * association.to_units_error[row])[inside].mean()),
        }
    return result
