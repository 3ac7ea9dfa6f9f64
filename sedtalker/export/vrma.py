"""VRM Animation (.vrma): head, gaze and expressions for any VRM avatar.

A .vrma is a binary glTF with the extension VRMC_vrm_animation: nodes of a skeleton in T-pose whose rotations are
retargeted, a node for each expression whose weight is its x coordinate, and a node whose rotation is the gaze.
https://github.com/vrm-c/vrm-specification/tree/master/specification/VRMC_vrm_animation-1.0
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sedtalker.export.avatar import arkit_weights
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar import EYE_TURNS, expression_names, turn_matrix
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
    nodes: list[dict[str, Any]] = []
    bones = {}
    for name, parent, offset in _BONES:
        bones[name] = len(nodes)
        nodes.append({"name": name, "translation": list(offset)})
        if parent is not None:
            nodes[bones[parent]].setdefault("children", []).append(bones[name])
    roots = [bones["hips"]]
    data = bytearray()
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "sedtalker"},
        "extensionsUsed": ["VRMC_vrm_animation"],
        "nodes": nodes,
    }
    if not len(animation):
        curves, gaze = {}, False
    motion: dict[str, list[dict[str, Any]]] = {"samplers": [], "channels": []}

    def accessor(values: Float, kind: str, bounds: bool = False) -> int:
        view = {"buffer": 0, "byteOffset": len(data), "byteLength": values.nbytes}
        data.extend(np.ascontiguousarray(values, np.float32).tobytes())
        tree.setdefault("bufferViews", []).append(view)
        entry: dict[str, Any] = {"bufferView": len(tree["bufferViews"]) - 1, "componentType": 5126}
        entry |= {"count": len(values), "type": kind}
        if bounds:
            entry |= {"min": [float(values.min())], "max": [float(values.max())]}
        tree.setdefault("accessors", []).append(entry)
        return len(tree["accessors"]) - 1

    def drive(node: int, path: str, values: Float, kind: str) -> None:
        motion["samplers"].append({"input": 0, "output": accessor(values, kind), "interpolation": "LINEAR"})
        channel = {"sampler": len(motion["samplers"]) - 1, "target": {"node": node, "path": path}}
        motion["channels"].append(channel)

    if len(animation):
        accessor((np.arange(len(animation)) / animation.fps).astype(np.float32), "SCALAR", bounds=True)
    if animation.head is not None and len(animation):
        drive(bones["head"], "rotation", to_quaternions(animation.head[:, :3, :3]), "VEC4")
    expressions: dict[str, dict[str, Any]] = {}
    for name, curve in curves.items():
        node = len(nodes)
        nodes.append({"name": name})
        roots.append(node)
        places = np.zeros((len(curve), 3), np.float32)
        places[:, 0] = np.clip(curve, 0, 1)
        drive(node, "translation", places, "VEC3")
        expressions.setdefault("preset" if name in PRESETS else "custom", {})[name] = {"node": node}
    extension: dict[str, Any] = {
        "specVersion": "1.0",
        "humanoid": {"humanBones": {name: {"node": node} for name, node in bones.items()}},
    }
    if expressions:
        extension["expressions"] = expressions
    if gaze:
        node = len(nodes)
        nodes.append({"name": "lookAt"})
        roots.append(node)
        turns = np.stack([turn_matrix(pitch, yaw) for pitch, yaw in _gaze_angles(weights)])
        drive(node, "rotation", to_quaternions(turns), "VEC4")
        extension["lookAt"] = {"node": node, "offsetFromHeadBone": list(_EYES)}
    tree |= {"scene": 0, "scenes": [{"nodes": roots}], "extensions": {"VRMC_vrm_animation": extension}}
    if motion["channels"]:
        tree["animations"] = [{"name": "speech", **motion}]
    if data:
        tree["buffers"] = [{"byteLength": len(data)}]
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + (8 + len(data) if data else 0)
    head = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON") + text
    return head + (struct.pack("<I4s", len(data), b"BIN\0") + bytes(data) if data else b"")


def _gaze_angles(weights: Float) -> Float:
    """Pitch down and yaw to the person's left (T, 2) in degrees, the mean of both eyes."""
    angles = np.zeros((len(weights), 2), np.float32)
    for base, (pitch, yaw) in EYE_TURNS.items():
        for side, sign in (("Left", 1.0), ("Right", -1.0)):
            angles += weights[:, [ARKIT_NAMES.index(base + side)]] * np.array([pitch, sign * yaw], np.float32) / 2
    return angles
