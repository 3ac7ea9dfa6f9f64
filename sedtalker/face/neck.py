"""How much of the head's rigid motion each point takes: all of it from the chin up, none from the shoulders down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.rig import Face, Float

CHIN, SHOULDERS = 0.12, 0.20  # metres below the eyes
NECK = (0.0, -0.135, -0.098)  # metres from the middle of the eyes' outer corners to the top of the neck


def head_joint_weights(face: Face, points: Float) -> Float:
    """Share 0..1 (N,) for points (N, 3) at rest; a face whose eyes are not known moves as a whole."""
    if "eye_left" not in face.parts:
        return np.ones(len(points), np.float32)
    eyes = float(face.template[face.parts["eye_left"], 1].mean())
    height = np.clip((points[:, 1] - (eyes - SHOULDERS)) / (SHOULDERS - CHIN), 0, 1)
    return (height * height * (3 - 2 * height)).astype(np.float32)


def neck_pivot(face: Face) -> Float:
    """(3,) metres, the point about which a head turns; the middle of a face without landmarks at the eyes."""
    if not {"eye_left_outer", "eye_right_outer"} <= set(face.landmarks):
        return face.template.mean(axis=0)
    corners = [face.landmarks[name] for name in ("eye_left_outer", "eye_right_outer")]
    pivot: Float = (face.template[corners].mean(axis=0) + NECK).astype(np.float32)
    return pivot


def move_head(points: Float, head: NDArray[np.floating], share: Float) -> Float:
    """Points (N, 3) with the rigid motion `head` (4, 4), each to its share (N,)."""
    moved = points @ head[:3, :3].T.astype(np.float32) + head[:3, 3].astype(np.float32)
    return points + share[:, None] * (moved - points)
