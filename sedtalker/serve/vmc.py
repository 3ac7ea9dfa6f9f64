"""VMC, the protocol of virtual motion capture: OSC over UDP, read by VSeeFace, Warudo, Unity and Blender.

Each frame is one bundle: the state, the time, the bones of neck, head and eyes, the VRM expressions that every receiver
knows, and the ARKit names of models with "perfect sync".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.rotations import rotation_matrices, to_quaternions
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.visemes import vowel_weights

EXPRESSIONS = {
    "Joy": ("happy",), "Angry": ("angry", "upset", "disgust"), "Sorrow": ("sad", "fear"), "Surprised": ("surprise",),
}  # fmt: skip
"""VRM's expression -> our labels, whose shares are added. VRM has none for fear and disgust, and no fixed surprise."""

_BLINKS = {"Blink_L": "eyeBlinkLeft", "Blink_R": "eyeBlinkRight"}
_NECK_SHARE = 0.4  # of the head's rotation, for the neck


class VmcPerformer:
    """Bundles of a face."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels

    def encode(self, block: FrameBlock, row: int, seconds: float) -> bytes:
        """A frame of a block at a time in seconds since the start."""
        bundle = OscBundleBuilder(IMMEDIATELY)

        def add(address: str, *values: Any) -> None:
            message = OscMessageBuilder(address)
            for value in values:
                message.add_arg(value)
            bundle.add_content(message.build())

        add("/VMC/Ext/OK", 1)
        add("/VMC/Ext/T", float(seconds))
        add("/VMC/Ext/Root/Pos", "root", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        head, gaze = block.head[row], block.gaze[row]
        eyes = np.array([-gaze[1], gaze[0], 0.0], np.float32)
        bones = {"Neck": _NECK_SHARE * head, "Head": (1 - _NECK_SHARE) * head, "LeftEye": eyes, "RightEye": eyes}
        for name, degrees in bones.items():
            add("/VMC/Ext/Bone/Pos", name, 0.0, 0.0, 0.0, *unity_quaternion(degrees))
        for name, value in self._blendshapes(block, row).items():
            add("/VMC/Ext/Blend/Val", name, float(value))
        add("/VMC/Ext/Blend/Apply")
        return bundle.build().dgram

    def _blendshapes(self, block: FrameBlock, row: int) -> dict[str, float]:
        weights = block.weights[row]
        values = dict(zip(ARKIT_NAMES, weights.tolist(), strict=True))
        values |= vowel_weights(weights)
        values |= {name: values[shape] for name, shape in _BLINKS.items()}
        intensity = float(block.intensity[row])
        for name, labels in EXPRESSIONS.items():
            columns = [self._labels.index(label) for label in labels if label in self._labels]
            values[name] = intensity * float(block.posterior[row, columns].sum())
        return values


def unity_quaternion(degrees: np.ndarray) -> list[float]:
    """Quaternion x, y, z, w of pitch, yaw and roll in degrees, in Unity's left-handed axes (x is mirrored).

    A face looks along +z in both. Mirroring x negates the rotations about y and z.
    """
    x, y, z, w = to_quaternions(rotation_matrices(np.asarray(degrees, np.float32)[None]))[0].tolist()
    return [x, -y, -z, w]
