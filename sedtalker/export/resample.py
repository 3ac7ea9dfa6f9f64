"""Change the frame rate of an animation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.curves import interpolate_frames
from sedtalker.rotations import nearest_rotations

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def resample_animation(animation: Animation, fps: float) -> Animation:
    """The animation at `fps` frames per second, interpolated linearly between the middles of its frames."""
    if fps == animation.fps or not len(animation):
        return animation
    count = max(1, round(animation.duration * fps))
    places = (np.arange(count) + 0.5) / fps * animation.fps - 0.5
    head = animation.head
    return replace(
        animation,
        fps=fps,
        blendshapes=None if animation.blendshapes is None else interpolate_frames(animation.blendshapes, places),
        dense=None if animation.dense is None else interpolate_frames(animation.dense, places),
        head=None if head is None else nearest_rotations(interpolate_frames(head, places)),
    )
