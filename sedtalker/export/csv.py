"""CSV with the columns of Epic's Live Link Face: timecode, count, 52 ARKit weights, head and eye angles."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import AnimationError
from sedtalker.export.motion import require_weights
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.files import atomic_write
from sedtalker.rotations import head_angles

if TYPE_CHECKING:
    from sedtalker.animation import Animation

# The app writes the names with a capital, and puts right before left for the jaw and the mouth as a whole.
_RIGHT_FIRST = {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
SHAPES = [_RIGHT_FIRST.get(name, name) for name in ARKIT_NAMES]
ANGLES = ["HeadYaw", "HeadPitch", "HeadRoll"] + [
    f"{side}Eye{turn}" for side in ("Left", "Right") for turn in ("Yaw", "Pitch", "Roll")
]
HEADER = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in SHAPES), *ANGLES]


def write(animation: Animation, path: Path) -> None:
    """Write one row per frame: timecode `hh:mm:ss:ff.fff`, weights, and the head's angles in radians.

    Raises:
        AnimationError: the animation has no blendshape weights, or none with an ARKit name.
    """
    weights = require_weights(animation, "csv")
    available = {name: column for column, name in enumerate(animation.blendshape_names)}
    if not available.keys() & set(SHAPES):
        raise AnimationError("no blendshape of this animation has an ARKit name, and csv holds no others. Export json")
    columns = [available.get(name) for name in SHAPES]  # None: a shape that the rig does not have
    identity = np.eye(4, dtype=np.float32)
    with atomic_write(path) as temp_path, temp_path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for index, row in enumerate(weights):
            head = identity if animation.head is None else animation.head[index]
            values = [0.0 if column is None else row[column] for column in columns] + angles(head[:3, :3])
            rows.writerow([_timecode(index, animation.fps), len(values), *(f"{value:.6f}" for value in values)])


def angles(rotation: NDArray[np.floating]) -> list[float]:
    """Yaw, pitch and roll in radians of the head's rotation (3, 3), about y, then x, then z; zeros for both eyes.

    The eyes move by their blendshapes, so that their angles are zero.
    """
    return [*head_angles(rotation), *[0.0] * (len(ANGLES) - 3)]


def _timecode(index: int, fps: float) -> str:
    """`hh:mm:ss:ff.fff` of a frame's start: whole seconds since the first frame, then frames since that second.

    The count of frames is fractional if the rate is not a whole number, so that the timecode does not drift.
    """
    rate = Fraction(fps).limit_denominator(1001)  # exact for 24000/1001 and 30000/1001
    seconds = int(index / rate)
    thousandths = round((index - seconds * rate) * 1000)
    frame, part = divmod(thousandths, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}.{part:03d}"
