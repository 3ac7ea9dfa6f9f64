"""Constants of the expression that an emotion adds to speaking lips, without torch (`sedtalker.talker.expression`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.action_units import EMOTIONS, MOUTH_SHARE, emotion_weights
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, arkit_columns
from sedtalker.face.mouth_measures import GAP, WIDTH, default_measures
from sedtalker.face.visemes import OPENERS
from sedtalker.mel import FRAME_RATE

if TYPE_CHECKING:
    from torch import Tensor

ONSET = 0.11  # seconds, time constant of each of two poles: 10 to 90 % in 0.37 s (RAVDESS' actors: 0.4 to 0.8 s)
GROWTH = 0.64
"""An intensity i shows i (1 + GROWTH (1 - i)) of the full expression: .37, .66, .81 and 1 at .25, .5, .67 and 1.
RAVDESS' actors show .66 of a strong performance's action units in a normal one, whose intensity is .5 in training
(mean over the emotions; OpenFace's units, projected on those of the strong performances)."""
CLOSED_GAP = 0.8  # mm between the lips up to which the expression does not part them
FREE_GAP = 3.0  # mm more between the lips from which the expression may part them as far as it likes
FULL_ROUNDING = 0.6  # weight of full rounding
ROUNDING_DAMPING = 0.3  # share of a smile or stretch that full rounding removes
FULL_CONTACT = 0.6  # mouthRollLower of /f v/, where the lower lip touches the teeth
CONTACT_DAMPING = 0.6  # share of the expression's opening that this contact removes
HELD_GAP = 1.0  # mm more than CLOSED_GAP from which the lower lip stays on the teeth at this contact, in a smile too
EFFORT_OF_EMOTION = {"angry": 0.15, "surprise": 0.50, "happy": 0.10, "fear": 0.12, "upset": -0.08, "sad": -0.12}
"""Relative change of the mouth's opening at full intensity. By RAVDESS' action units 25 and 26 the mouth opens wider in
angry, surprised, happy and fearful speech, and less in sad speech."""

LEAST_SQUARE = 1e-9  # of a posterior whose labels are all absent

Float = NDArray[np.float32]
Values = TypeVar("Values", "Tensor", NDArray[np.float32])

WIDENERS = tuple(i for name in ("mouthSmile", "mouthStretch", "mouthDimple", "mouthFrown") for i in arkit_columns(name))
OPENING_CHANNELS = (JAW_OPEN, *(i for name in OPENERS for i in arkit_columns(name)))


def has_rules(labels: Sequence[str]) -> bool:
    """Whether the table has an expression for each of these emotions."""
    return set(labels) <= set(EMOTIONS)


def onset_kernel(frames: int) -> Float:
    """Weights (H,) of the last H frames, the current one last, that sum to 1."""
    age = np.arange(frames, dtype=np.float32)[::-1] / np.float32(FRAME_RATE)
    kernel = (age + np.float32(0.5 / FRAME_RATE)) * np.exp(-age / np.float32(ONSET))
    return kernel / kernel.sum()


def sharpen(posterior: Values) -> Values:
    """Squared and normalised posterior (..., C), a tensor or an array: what a face shows of it.

    A diarizer that reads half anger, a third fear and some sadness is uncertain of one emotion. The sum of the three
    expressions is not that of anger, and no observer reads it.
    """
    squared = posterior * posterior
    sharp: Values = squared / (squared.sum(-1) + LEAST_SQUARE)[..., None]
    return sharp


def rule_arrays(labels: Sequence[str], frames: int) -> dict[str, Float]:
    """The constants of `ExpressionRules` by name; `frames` is the length of the history."""
    widen, part = (np.zeros(len(ARKIT_NAMES), np.float32) for _ in range(2))
    widen[list(WIDENERS)], part[list(OPENING_CHANNELS)] = 1.0, 1.0
    return {
        "kernel": onset_kernel(frames),
        "table": emotion_weights(labels),
        "effort": np.array([EFFORT_OF_EMOTION.get(label, 0.0) for label in labels], np.float32),
        "emotional": np.array([any(EMOTIONS[label]) for label in labels], np.float32),
        "share": np.array([MOUTH_SHARE.get(_plain(name), 1.0) for name in ARKIT_NAMES], np.float32),
        "gap": np.ascontiguousarray(default_measures().matrix[:, GAP]),
        "width": np.ascontiguousarray(default_measures().matrix[:, WIDTH]),
        "rise": default_measures().lower_rise,
        "jaw": np.eye(len(ARKIT_NAMES), dtype=np.float32)[JAW_OPEN],
        "widen": widen,
        "part": part,
    }


def _plain(name: str) -> str:
    """A blendshape's name without its side."""
    return name.removesuffix("Left").removesuffix("Right")
