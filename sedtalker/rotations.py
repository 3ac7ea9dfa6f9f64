"""Rotations as matrices, quaternions and head angles, without scipy; the tests compare them with scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_BLOCK = 4096  # rotations converted at a time, to limit memory


def rotation_matrices(degrees: Float) -> Float:
    """Rotations (T, 3, 3) of pitch, yaw and roll (T, 3) in degrees: yaw about y, then pitch about x, then roll about z.

    As products: yaw @ pitch @ roll, y up and the face along +z.
    """
    (cp, cy, cr), (sp, sy, sr) = np.cos(np.radians(degrees)).T, np.sin(np.radians(degrees)).T
    matrices = np.empty((len(degrees), 3, 3), np.float32)
    matrices[:, 0] = np.stack([cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp], axis=1)
    matrices[:, 1] = np.stack([cp * sr, cp * cr, -sp], axis=1)
    matrices[:, 2] = np.stack([-sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp], axis=1)
    return matrices


def head_angles(matrix: NDArray[np.floating]) -> tuple[float, float, float]:
    """Yaw, pitch and roll in radians of a rotation (3, 3), the inverse of `rotation_matrices`."""
    yaw = math.atan2(matrix[0, 2], matrix[2, 2])
    pitch = math.asin(min(max(-float(matrix[1, 2]), -1.0), 1.0))
    roll = math.atan2(matrix[1, 0], matrix[1, 1])
    return yaw, pitch, roll


def nearest_rotations(motions: Float) -> Float:
    """Replace the upper left (3, 3) of each motion (T, 4, 4) by the nearest rotation, in place."""
    left, _, right = np.linalg.svd(motions[:, :3, :3])
    motions[:, :3, :3] = left @ right
    return motions


def to_quaternions(matrices: NDArray[np.floating]) -> Float:
    """Unit quaternions (T, 4) as x, y, z, w of rotations (T, 3, 3), with the sign nearest to the previous one."""
    blocks = [_quaternions(matrices[first : first + _BLOCK]) for first in range(0, len(matrices), _BLOCK)]
    result = np.concatenate(blocks or [np.zeros((0, 4), np.float32)])
    flips = np.cumprod(np.where((result[1:] * result[:-1]).sum(axis=1) < 0, -1, 1))
    result[1:] *= flips[:, None]
    return result


def _quaternions(matrices: NDArray[np.floating]) -> Float:
    t = np.asarray(matrices, np.float64)
    # Shepperd's method: dividing by the largest of the four squares is accurate.
    trace = t[:, 0, 0] + t[:, 1, 1] + t[:, 2, 2]
    squares = np.stack([2 * t[:, 0, 0] - trace, 2 * t[:, 1, 1] - trace, 2 * t[:, 2, 2] - trace, trace], axis=1) + 1
    x, y, z = t[:, 2, 1] - t[:, 1, 2], t[:, 0, 2] - t[:, 2, 0], t[:, 1, 0] - t[:, 0, 1]
    xy, xz, yz = t[:, 0, 1] + t[:, 1, 0], t[:, 0, 2] + t[:, 2, 0], t[:, 1, 2] + t[:, 2, 1]
    rows = np.stack(
        [
            np.stack([squares[:, 0], xy, xz, x], axis=1),
            np.stack([xy, squares[:, 1], yz, y], axis=1),
            np.stack([xz, yz, squares[:, 2], z], axis=1),
            np.stack([x, y, z, squares[:, 3]], axis=1),
        ],
        axis=1,
    )
    result = rows[np.arange(len(t)), squares.argmax(axis=1)]
    return (result / np.linalg.norm(result, axis=1, keepdims=True)).astype(np.float32)
