"""Write an animation into a copy of an avatar's file (.glb, .gltf, .vrm).

Only an animation, its accessors and its data are added: weights for the morph targets, rotations for the nodes of head,
eyes and jaw. Everything else is copied as it is, except that a node which starts to move and has a matrix gets the same
position as translation, rotation and scale, as glTF requires.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import SEDTalkerError
from sedtalker.export.gltf_writer import AnimationCurves, describe_values, frame_times, glb_head, value_bounds
from sedtalker.export.motion import require_weights
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar import Avatar, load_avatar
from sedtalker.face.avatar_bones import turn_matrix
from sedtalker.face.gltf import MALFORMED, Gltf, local_matrix
from sedtalker.face.neck import neck_pivot
from sedtalker.face.rig import Float
from sedtalker.files import atomic_write
from sedtalker.rotations import to_quaternions

if TYPE_CHECKING:
    from sedtalker.animation import Animation

_FALLBACKS = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_STILL = 1e-6  # metres; smaller translations of the head are left out


def write_into(animation: Animation, avatar: Path, path: Path) -> None:
    """Write a copy of the file `avatar` with the animation added, as a `.glb` (or `.vrm`).

    Raises:
        SEDTalkerError: the avatar cannot be read or is the output itself, or the animation has no ARKit weights.
    """
    if path.exists() and avatar.exists() and path.samefile(avatar):
        raise SEDTalkerError(f"the result would replace the avatar: {path}. Name another file with -o")
    weights = arkit_weights(animation)
    loaded = load_avatar(avatar)
    try:
        document = _Copy(loaded.gltf)
        if len(animation):
            _animate(document, loaded, animation, weights)
        encoded = document.encode()
    except MALFORMED as error:
        raise loaded.gltf.damaged(error) from error
    with atomic_write(path) as temp_path:
        temp_path.write_bytes(encoded)


def arkit_weights(animation: Animation) -> Float:
    """Weights (T, 52) in ARKit's order, 0 for the shapes that the animation does not have."""
    weights = require_weights(animation, "an avatar's animation")
    result = np.zeros((len(weights), len(ARKIT_NAMES)), np.float32)
    for column, name in enumerate(animation.blendshape_names):
        if name in ARKIT_NAMES:
            result[:, ARKIT_NAMES.index(name)] = weights[:, column]
    return result


class _Copy:
    """The tree of a file, and its first buffer, to which data can be added."""

    def __init__(self, gltf: Gltf) -> None:
        self.tree: dict[str, Any] = copy.deepcopy(gltf.tree)
        buffers = self.tree.setdefault("buffers", [])
        self._views: list[dict[str, Any]] = self.tree.setdefault("bufferViews", [])
        self._accessors: list[dict[str, Any]] = self.tree.setdefault("accessors", [])
        if buffers and "uri" not in buffers[0] and gltf.chunk:
            self._data = bytearray(gltf.chunk[: buffers[0]["byteLength"]])
        else:
            self._data = bytearray()
            self._embed(gltf)

    def accessor(self, values: NDArray[np.float32], bounds: bool = False) -> int:
        """A new accessor of float32 values (N,), (N, 3) or (N, 4)."""
        stored = np.ascontiguousarray(values, np.float32)
        entry = {"bufferView": self._view(stored.tobytes()), **describe_values(stored)}
        if bounds:
            entry |= value_bounds(stored.reshape(len(stored), -1))
        self._accessors.append(entry)
        return len(self._accessors) - 1

    def _view(self, data: bytes) -> int:
        """A new buffer view of these bytes."""
        self._data += bytes(-len(self._data) % 4)
        self._views.append({"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)})
        self._data += data
        return len(self._views) - 1

    def decompose(self, node: int) -> None:
        """Replace the matrix of a node by translation, rotation and scale."""
        entry = self.tree["nodes"][node]
        if "matrix" not in entry:
            return
        matrix = local_matrix(entry)
        del entry["matrix"]
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        if np.linalg.det(matrix[:3, :3]) < 0:
            scale[0] = -scale[0]
        rotation = to_quaternions((matrix[:3, :3] / scale)[None])[0]
        entry |= {"translation": matrix[:3, 3].tolist(), "rotation": rotation.tolist(), "scale": scale.tolist()}

    def encode(self) -> bytes:
        """The file as binary glTF."""
        self._data += bytes(-len(self._data) % 4)
        self.tree["buffers"][0]["byteLength"] = len(self._data)
        return glb_head(self.tree, len(self._data)) + bytes(self._data)

    def _embed(self, gltf: Gltf) -> None:
        """Join the buffers of a .gltf to one, and add the pictures of other files to it."""
        places: dict[int, tuple[int, int]] = {}
        kept: list[dict[str, Any]] = [{"byteLength": 0}]
        for index, buffer in enumerate(self.tree["buffers"]):
            if "uri" not in buffer and any(name in buffer.get("extensions", {}) for name in _FALLBACKS):
                places[index] = len(kept), 0
                kept.append(buffer)
                continue
            self._data += bytes(-len(self._data) % 16)
            places[index] = 0, len(self._data)
            self._data += gltf.buffer(index)[: buffer["byteLength"]]
        self.tree["buffers"] = kept
        for view in self._views:
            packed = [view["extensions"][name] for name in _FALLBACKS if name in view.get("extensions", {})]
            for entry in (view, *packed):
                number, start = places[entry["buffer"]]
                entry["buffer"] = number
                entry["byteOffset"] = entry.get("byteOffset", 0) + start
        for entry in self.tree.get("images", []):
            if "uri" in entry and not entry["uri"].startswith("data:"):
                data = gltf.uri(entry.pop("uri"))
                entry["bufferView"] = self._view(data)
                entry.setdefault("mimeType", _media_type(data))


def _media_type(data: bytes) -> str:
    if data.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if data[8:12] == b"WEBP" else "image/jpeg"


def _animate(document: _Copy, avatar: Avatar, animation: Animation, weights: Float) -> None:
    motion = AnimationCurves(document.accessor(frame_times(len(animation), animation.fps), bounds=True))
    for node, output in _weight_accessors(document, avatar, weights).items():
        motion.drive(node, "weights", output)
    world = avatar.gltf.matrices()
    rotations = _node_rotations(avatar, animation, weights, world)
    for node, (rotation, translation) in rotations.items():
        document.decompose(node)
        motion.drive(node, "rotation", document.accessor(to_quaternions(rotation)))
        if translation is not None:
            motion.drive(node, "translation", document.accessor(translation))
    if entries := motion.entries():
        document.tree.setdefault("animations", []).extend(entries)


def _weight_accessors(document: _Copy, avatar: Avatar, weights: Float) -> dict[int, int]:
    """Accessors of the morph weights by node. Meshes with the same weights share one."""
    driven = avatar.rig.target_weights(weights)
    meshes = {mesh for mesh, _ in driven}
    stored: dict[bytes, int] = {}
    result = {}
    for node, entry in enumerate(document.tree.get("nodes", [])):
        number = entry.get("mesh")
        if number not in meshes:
            continue
        mesh = document.tree["meshes"][number]
        count = len(mesh["primitives"][0]["targets"])
        rest = np.zeros(count, np.float32)
        given = entry.get("weights") or mesh.get("weights") or []
        rest[: len(given)] = given[:count]
        values = np.tile(rest, (len(weights), 1))
        for (own, index), curve in driven.items():
            if own == number:
                values[:, index] = rest[index] + curve
        key = values.tobytes()
        if key not in stored:
            stored[key] = document.accessor(values.ravel())
        result[node] = stored[key]
    return result


_Motion = tuple[NDArray[np.float64], "Float | None"]


def _node_rotations(
    avatar: Avatar, animation: Animation, weights: Float, world: NDArray[np.float64]
) -> dict[int, _Motion]:
    """Local rotations (T, 3, 3) of the moving nodes, and translations (T, 3) where they change."""
    rig, gltf = avatar.rig, avatar.gltf
    nodes = gltf.tree["nodes"]
    result: dict[int, _Motion] = {}

    def local(node: int, turn: NDArray[np.float64]) -> NDArray[np.float64]:
        """The node's rotations for turns (T, 3, 3) in the axes of the face."""
        parent = _rotation_of(world[gltf.parents[node]]) if gltf.parents[node] >= 0 else np.eye(3)
        to_parent = parent.T @ rig.rotation.T  # from the axes of the face to those of the node's parent
        return to_parent @ turn @ to_parent.T @ _rotation_of(local_matrix(nodes[node]))

    if animation.head is not None:
        turn = animation.head[:, :3, :3].astype(np.float64)
        pivot = neck_pivot(animation.face)
        shift = turn @ pivot + animation.head[:, :3, 3] - pivot
        if rig.head is not None:
            translation = None
            if np.abs(shift).max(initial=0) > _STILL:
                parent = world[gltf.parents[rig.head]] if gltf.parents[rig.head] >= 0 else np.eye(4)
                moved = shift / rig.metres @ rig.rotation @ np.linalg.inv(parent[:3, :3]).T
                translation = (local_matrix(nodes[rig.head])[:3, 3] + moved).astype(np.float32)
            result[rig.head] = local(rig.head, turn), translation
        else:
            centre = rig.pivot @ rig.rotation / rig.metres
            in_file = rig.rotation.T @ turn @ rig.rotation
            for node in _roots(gltf):
                rest = local_matrix(nodes[node])
                places = (rest[:3, 3] - centre) @ in_file.transpose(0, 2, 1) + centre
                places = places + shift / rig.metres @ rig.rotation
                result[node] = in_file @ _rotation_of(rest), places.reshape(len(turn), 3).astype(np.float32)
    turns: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros((len(weights), 2)))
    for item in rig.turns:
        turns[item.node] += weights[:, [ARKIT_NAMES.index(item.shape)]] * np.array([item.pitch, item.yaw])
    for node, angles in turns.items():
        result[node] = local(node, np.stack([turn_matrix(pitch, yaw) for pitch, yaw in angles])), None
    return result


def _roots(gltf: Gltf) -> list[int]:
    """The topmost nodes of the drawn scene that contain a mesh or a joint."""
    wanted = {*gltf.drawn_nodes(), *(joint for skin in gltf.tree.get("skins", []) for joint in skin["joints"])}
    roots = set()
    for node in wanted:
        while gltf.parents[node] >= 0:
            node = gltf.parents[node]
        roots.add(node)
    return sorted(roots)


def _rotation_of(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation (3, 3) of a matrix without shear."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rotation: NDArray[np.float64] = left @ right
    if np.linalg.det(rotation) < 0:
        rotation = left @ np.diag([1.0, 1.0, -1.0]) @ right
    return rotation
