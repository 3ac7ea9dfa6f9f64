"""An animation at another frame rate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import orthonormal

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def resampled(animation: Animation, fps: float) -> Animation:
    """The same motion at `fps` frames a second, read linearly between the middles of the frames."""
    if fps == animation.fps or not len(animation):
        return animation
    count = max(1, round(animation.duration * fps))
    places = np.clip((np.arange(count) + 0.5) / fps * animation.fps - 0.5, 0, len(animation) - 1)
    head = animation.head
    return replace(
        animation,
        fps=fps,
        blendshapes=None if animation.blendshapes is None else _between(animation.blendshapes, places),
        dense=None if animation.dense is None else _between(animation.dense, places),
        head=None if head is None else orthonormal(_between(head, places)),
    )


def _between(values: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    before = np.floor(places).astype(int)
    part = (places - before).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - part) + values[np.minimum(before + 1, len(values) - 1)] * part
