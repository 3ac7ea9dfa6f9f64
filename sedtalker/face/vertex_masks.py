"""Regions of the face: vertex indices by name, for metrics, losses and pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Index

FACE_DEPTH = 0.11  # metres behind the nose's tip: ears, neck and the back of the head lie farther
LID_TRAVEL = 0.001  # metres that a vertex must move in a blink to belong to the eyes
EMOTION_TRAVEL = 0.002  # metres that an expression must move a vertex for it to show emotion

_LIDS = ("eyeBlink", "eyeWide", "eyeSquint")
_EMOTIONS = ("brow", "cheekSquint", "eyeSquint", "eyeWide", "noseSneer", "mouthSmile", "mouthFrown", "mouthStretch",
             "mouthUpperUp", "mouthDimple", "mouthPress")  # fmt: skip


def regions(
    template: NDArray[np.floating], actions: NDArray[np.floating], parts: Mapping[str, Index]
) -> dict[str, Index]:
    """Masks of a rigged head.

    lips: both lips, red and rim. eyes: the lids. upper_face and lower_face: skin of the front, parted at the middle
    between eyes and mouth. emotion: skin and lips that brows, cheeks, lids, nose and corners of the mouth move.

    Args:
        template: (V, 3) metres.
        actions: (52, V, 3) in ARKit's order.
        parts: vertices of skin, lips, eye_left and eye_right.
    """
    lips = parts["lips"]
    skin = np.concatenate([parts["skin"], lips])
    front = skin[template[skin, 2] > template[skin, 2].max() - FACE_DEPTH]
    front = front[template[front, 1] > template[lips, 1].mean() - 0.065]
    eyes = np.concatenate([parts["eye_left"], parts["eye_right"]])
    middle = (template[eyes, 1].mean() + template[lips, 1].mean()) / 2
    upper = template[front, 1] > middle
    return {
        "lips": np.sort(lips),
        "eyes": _moved(front, actions, _LIDS, LID_TRAVEL),
        "upper_face": np.sort(front[upper]),
        "lower_face": np.sort(front[~upper]),
        "emotion": _moved(front, actions, _EMOTIONS, EMOTION_TRAVEL),
    }


def _moved(vertices: Index, actions: NDArray[np.floating], prefixes: tuple[str, ...], travel: float) -> Index:
    """Those vertices that an action of these kinds moves farther than `travel` metres."""
    kinds = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith(prefixes)]
    reach = np.linalg.norm(actions[kinds][:, vertices], axis=2).max(0)
    moved: Index = np.sort(vertices[reach > travel]).astype(np.int32)
    return moved
