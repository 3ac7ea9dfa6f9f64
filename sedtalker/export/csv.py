"""CSV in the column order of Epic's Live Link Face: timecode, count, 52 ARKit weights, head and eye angles."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.errors import AnimationError
from sedtalker.face.rig import ARKIT_NAMES
from sedtalker.files import written_whole

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
    if animation.blendshapes is None:
        raise AnimationError(
            "no blendshape weights in this animation: csv carries nothing else. Export npy or obj instead"
        )
    known = {name: column for column, name in enumerate(animation.blendshape_names)}
    if not known.keys() & set(SHAPES):
        raise AnimationError("no blendshape of this animation has an ARKit name: csv carries no other. Export json")
    still = np.zeros(len(animation), np.float32)  # a shape that the rig does not have
    columns = [animation.blendshapes[:, known[name]] if name in known else still for name in SHAPES]
    angles = head_angles(animation)
    with written_whole(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for index, (weights, turned) in enumerate(zip(np.stack(columns, axis=1), angles, strict=True)):
            rows.writerow(
                [
                    _timecode(index, animation.fps),
                    len(HEADER) - 2,
                    *(f"{w:.6f}" for w in (*weights, *turned)),
                ]
            )


def head_angles(animation: Animation) -> np.ndarray:
    """Yaw, pitch, roll of the head and then of both eyes (zero: the eyes move by their blendshapes), (T, 9) radians."""
    angles = np.zeros((len(animation), len(ANGLES)))
    if animation.head is not None:
        turn = animation.head[:, :3, :3]  # yaw about y, then pitch about x, then roll about z
        angles[:, 0] = np.arctan2(turn[:, 0, 2], turn[:, 2, 2])
        angles[:, 1] = np.arcsin(np.clip(-turn[:, 1, 2], -1, 1))
        angles[:, 2] = np.arctan2(turn[:, 1, 0], turn[:, 1, 1])
    return angles


def _timecode(index: int, fps: float) -> str:
    seconds, frame = divmod(index, round(fps))
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}.000"
