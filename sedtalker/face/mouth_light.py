"""Light that reaches the teeth between the mouth corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEAREST = 0.001  # metres between a tooth and the lips in front of it, at least

Float = NDArray[np.floating]


def light_between_corners(teeth: Float, corners: Float) -> Float:
    """Share (N,) of the light between the mouth corners that reaches points of the teeth (N, 3), in metres.

    A surface that faces a vertical gap sees the cosine-weighted share (sin right + sin left) / 2 of the sky, with the
    angles from the normal to both edges. It is squared here, because molars face the cheeks.

    Args:
        corners: (2, 3) positions of the right and the left mouth corner.
    """
    depth = np.maximum(corners[:, 2].mean() - teeth[:, 2], NEAREST)
    right, left = teeth[:, 0] - corners[0, 0], corners[1, 0] - teeth[:, 0]
    share = (right / np.hypot(right, depth) + left / np.hypot(left, depth)) / 2
    return np.square(np.maximum(share, 0))
