"""VRM Animation (.vrma): head, gaze and expressions for any VRM avatar.

A .vrma is a binary glTF with the extension VRMC_vrm_animation: nodes of a skeleton in T-pose whose rotations are
retargeted, a node for each expression whose weight is its x coordinate, and a node whose rotation is the gaze.
https://github.com/vrm-c/vrm-specification/tree/master/specification/VRMC_vrm_animation-1.0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.export.avatar import arkit_weights
from sedtalker.export.gltf_writer import AnimationCurves, Document, frame_times
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar_bones import EYE_TURNS, turn_matrix
from sedtalker.face.avatar_targets import expression_names
from sedtalker.face.gltf import Gltf
from sedtalker.face.rig import Float
from sedtalker.face.shape_names import arkit_shares, control_weights
from sedtalker.files import atomic_write
from sedtalker.rotations import to_quaternions

if TYPE_CHECKING:
    from sedtalker.animation import Animation

_BONES: tuple[tuple[str, str | None, tuple[float, float, float]], ...] = (
    ("hips", None, (0.0, 0.95, 0.0)),
    ("spine", "hips", (0.0, 0.1, 0.0)),
    ("neck", "spine", (0.0, 0.38, 0.0)),
    ("head", "neck", (0.0, 0.09, 0.01)),
    ("leftUpperArm", "spine", (0.15, 0.32, 0.0)), ("rightUpperArm", "spine", (-0.15, 0.32, 0.0)),
    ("leftLowerArm", "leftUpperArm", (0.26, 0.0, 0.0)), ("rightLowerArm", "rightUpperArm", (-0.26, 0.0, 0.0)),
    ("leftHand", "leftLowerArm", (0.24, 0.0, 0.0)), ("rightHand", "rightLowerArm", (-0.24, 0.0, 0.0)),
    ("leftUpperLeg", "hips", (0.09, -0.05, 0.0)), ("rightUpperLeg", "hips", (-0.09, -0.05, 0.0)),
    ("leftLowerLeg", "leftUpperLeg", (0.0, -0.4, 0.0)), ("rightLowerLeg", "rightUpperLeg", (0.0, -0.4, 0.0)),
    ("leftFoot", "leftLowerLeg", (0.0, -0.42, 0.0)), ("rightFoot", "rightLowerLeg", (0.0, -0.42, 0.0)),
)  # fmt: skip
"""The bones that VRM 1.0 requires, and the neck: name, parent, and metres from the parent."""

_EYES = (0.0, 0.06, 0.09)  # metres from the head bone to the middle of the eyes
PRESETS = ("aa", "ih", "ou", "ee", "oh", "blinkLeft", "blinkRight", "happy", "angry", "sad", "relaxed", "surprised")
_SPOKEN = ("aa", "ih", "ou", "oh", "blinkLeft", "blinkRight", "happy", "angry", "sad", "surprised")


def write(animation: Animation, path: Path) -> None:
    """Write the `.vrma` with the expressions that every VRM has."""
    write_for(animation, path, None)


def write_for(animation: Animation, path: Path, avatar: Path | None) -> None:
    """Write the `.vrma` with the expressions of an avatar: ARKit's by name where it has them ("perfect sync").

    Raises:
        SEDTalkerError: the animation has no ARKit weights, or the avatar cannot be read.
    """
    weights = arkit_weights(animation)
    names = {name.lower(): name for name in _SPOKEN} if avatar is None else expression_names(Gltf(avatar))
    curves = control_weights(arkit_shares(names), weights)
    gaze = not any(name.startswith("eyelook") for name in curves)
    with atomic_write(path) as temp_path:
        temp_path.write_bytes(_encode(animation, {names[key]: curve for key, curve in curves.items()}, weights, gaze))


def _encode(animation: Animation, curves: dict[str, Float], weights: Float, gaze: bool) -> bytes:
    document = Document("extensionsUsed", "nodes")
    document.tree["extensionsUsed"] = ["VRMC_vrm_animation"]
    bones = _add_bones(document)
    extension: dict[str, Any] = {
        "specVersion": "1.0",
        "humanoid": {"humanBones": {name: {"node": node} for name, node in bones.items()}},
    }
    roots, animations = [bones["hips"]], []
    if len(animation):
        motion = AnimationCurves(document.accessor(frame_times(len(animation), animation.fps), bounds=True))
        if animation.head is not None:
            _turn(document, motion, bones["head"], animation.head[:, :3, :3])
        expressions = {name: _add_expression(document, motion, name, curve) for name, curve in curves.items()}
        for name, node in expressions.items():
            group = "preset" if name in PRESETS else "custom"
            extension.setdefault("expressions", {}).setdefault(group, {})[name] = {"node": node}
        roots += expressions.values()
        if gaze:
            node = document.add("nodes", {"name": "lookAt"})
            roots.append(node)
            turns = np.stack([turn_matrix(pitch, yaw) for pitch, yaw in _gaze_angles(weights)])
            _turn(document, motion, node, turns)
            extension["lookAt"] = {"node": node, "offsetFromHeadBone": list(_EYES)}
        animations = motion.entries()
    document.tree |= {"scene": 0, "scenes": [{"nodes": roots}], "extensions": {"VRMC_vrm_animation": extension}}
    document.tree["animations"] = animations
    return b"".join(document.encode())


def _add_bones(document: Document) -> dict[str, int]:
    """Add the skeleton; returns the node of each bone."""
    bones: dict[str, int] = {}
    for name, parent, offset in _BONES:
        bones[name] = document.add("nodes", {"name": name, "translation": list(offset)})
        if parent is not None:
            document.tree["nodes"][bones[parent]].setdefault("children", []).append(bones[name])
    return bones


def _add_expression(document: Document, motion: AnimationCurves, name: str, curve: Float) -> int:
    """Add a node whose x coordinate is the weight of an expression; returns it."""
    node = document.add("nodes", {"name": name})
    places = np.zeros((len(curve), 3), np.float32)
    places[:, 0] = np.clip(curve, 0, 1)
    motion.drive(node, "translation", document.accessor(places))
    return node


def _turn(document: Document, motion: AnimationCurves, node: int, rotations: NDArray[np.floating]) -> None:
    """Animate a node with rotations (T, 3, 3)."""
    motion.drive(node, "rotation", document.accessor(to_quaternions(rotations)))


def _gaze_angles(weights: Float) -> Float:
    """Pitch down and yaw to the person's left (T, 2) in degrees, the mean of both eyes."""
    angles = np.zeros((len(weights), 2), np.float32)
    for base, (pitch, yaw) in EYE_TURNS.items():
        for side, sign in (("Left", 1.0), ("Right", -1.0)):
            angles += weights[:, [ARKIT_NAMES.index(base + side)]] * np.array([pitch, sign * yaw], np.float32) / 2
    return angles
