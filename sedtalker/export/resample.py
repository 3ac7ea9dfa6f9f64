"""An animation at another frame rate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.curves import read_between
from sedtalker.rotations import orthonormal

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def resample_animation(animation: Animation, fps: float) -> Animation:
    """The same motion at `fps` frames a second, read linearly between the middles of the frames."""
    if fps == animation.fps or not len(animation):
        return animation
    count = max(1, round(animation.duration * fps))
    places = (np.arange(count) + 0.5) / fps * animation.fps - 0.5
    head = animation.head
    return replace(
        animation,
        fps=fps,
        blendshapes=None if animation.blendshapes is None else read_between(animation.blendshapes, places),
        dense=None if animation.dense is None else read_between(animation.dense, places),
        head=None if head is None else orthonormal(read_between(head, places)),
    )
