"""CSV in the column order of Epic's Live Link Face: timecode, count, 52 ARKit weights, head and eye angles."""

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

# The app names Apple's shapes with a capital, and right before left for the jaw and the mouth as a whole.
_RIGHT_FIRST = {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
SHAPES = [_RIGHT_FIRST.get(name, name) for name in ARKIT_NAMES]
ANGLES = ["HeadYaw", "HeadPitch", "HeadRoll"] + [
    f"{side}Eye{turn}" for side in ("Left", "Right") for turn in ("Yaw", "Pitch", "Roll")
]
HEADER = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in SHAPES), *ANGLES]


def write(animation: Animation, path: Path) -> None:
    """Write the weights and the head's angles (radians), one row a frame, timecode `hh:mm:ss:ff.fff`.

    Raises:
        AnimationError: the animation has no blendshape weights.
    """
    weights = require_weights(animation, "csv")
    known = {name: column for column, name in enumerate(animation.blendshape_names)}
    if not known.keys() & set(SHAPES):
        raise AnimationError("no blendshape of this animation has an ARKit name: csv carries no other. Export json")
    columns = [known.get(name) for name in SHAPES]  # None: a shape that the rig does not have
    still = np.eye(4, dtype=np.float32)
    with atomic_write(path) as temp_path, temp_path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for index, row in enumerate(weights):
            head = still if animation.head is None else animation.head[index]
            values = [0.0 if column is None else row[column] for column in columns] + angles(head[:3, :3])
            rows.writerow([_timecode(index, animation.fps), len(values), *(f"{value:.6f}" for value in values)])


def angles(turn: NDArray[np.floating]) -> list[float]:
    """Yaw, pitch and roll in radians of the head's rotation (3, 3): about y, then x, then z.

    Then those of both eyes, zero: the eyes move by their blendshapes.
    """
    return [*head_angles(turn), *[0.0] * (len(ANGLES) - 3)]


def _timecode(index: int, fps: float) -> str:
    """`hh:mm:ss:ff.fff` of a frame's start: whole seconds since the first frame, then frames since that second.

    At a rate that is not a whole number the frames of a second are a fraction, so that the code follows time.
    """
    rate = Fraction(fps).limit_denominator(1001)  # exact for 24000/1001 and 30000/1001
    seconds = int(index / rate)
    thousandths = round((index - seconds * rate) * 1000)
    frame, part = divmod(thousandths, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}.{part:03d}"
