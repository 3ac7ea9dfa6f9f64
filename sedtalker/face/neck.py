"""Skinning weights of the head joint: 1 above the chin, 0 below the shoulders, smooth on the neck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.rig import Face, Float

CHIN, SHOULDERS = 0.12, 0.20  # metres below the eyes
NECK = (0.0, -0.135, -0.098)  # metres from the middle of the eyes' outer corners to the top of the neck


def head_joint_weights(face: Face, points: Float) -> Float:
    """Weights (N,) in [0, 1] for points (N, 3) at rest in metres; all 1 for a face without eyes.

    A face with weights of its own has no attachments, and its points are its vertices.
    """
    if face.head_weights is not None:
        return face.head_weights
    if "eye_left" not in face.parts:
        return np.ones(len(points), np.float32)
    eyes = float(face.template[face.parts["eye_left"], 1].mean())
    height = np.clip((points[:, 1] - (eyes - SHOULDERS)) / (SHOULDERS - CHIN), 0, 1)
    return (height * height * (3 - 2 * height)).astype(np.float32)


def neck_pivot(face: Face) -> Float:
    """The point (3,) in metres about which the head rotates; the mean of a template without eye landmarks."""
    if face.neck is not None:
        return face.neck
    if not {"eye_left_outer", "eye_right_outer"} <= set(face.landmarks):
        return face.template.mean(axis=0)
    corners = [face.landmarks[name] for name in ("eye_left_outer", "eye_right_outer")]
    pivot: Float = (face.template[corners].mean(axis=0) + NECK).astype(np.float32)
    return pivot


def move_head(points: Float, head: NDArray[np.floating], weights: Float) -> Float:
    """Points (N, 3) after the rigid motion `head` (4, 4), with skinning weights (N,): linear blend skinning."""
    rotated = points @ head[:3, :3].T.astype(np.float32) + head[:3, 3].astype(np.float32)
    return points + weights[:, None] * (rotated - points)
