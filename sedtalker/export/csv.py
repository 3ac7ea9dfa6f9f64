"""CSV in the column order of Epic's Live Link Face: timecode, count, 52 ARKit weights, head and eye angles."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.errors import AnimationError
from sedtalker.files import written_whole

if TYPE_CHECKING:
    from sedtalker.animation import Animation

HEADER = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,"
    "EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,"
    "MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,"
    "BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,"
    "HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
).split(",")  # the header of the app's own recordings, which name right before left for jaw and mouth
WEIGHTS = HEADER[2:54]
ANGLES = HEADER[54:]


def write(animation: Animation, path: Path) -> None:
    """Write the weights and the head's angles (radians), one row a frame, timecode `hh:mm:ss:ff.fff`.

    Raises:
        AnimationError: the animation has no blendshape weights.
    """
    if animation.blendshapes is None:
        raise AnimationError(
            "no blendshape weights in this animation: csv carries nothing else. Export npy or obj instead"
        )
    order = [animation.blendshape_names.index(name[0].lower() + name[1:]) for name in WEIGHTS]
    angles = head_angles(animation)
    with written_whole(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for index, (weights, turned) in enumerate(zip(animation.blendshapes[:, order], angles, strict=True)):
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
