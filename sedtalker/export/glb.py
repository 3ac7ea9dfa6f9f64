"""Binary glTF 2.0: the head with its blendshapes, materials, textures, weights and head motion in one file.

The face is one mesh, each attachment another; all have morph targets with the blendshapes' names. Frame i of the
animation is at i / fps seconds, so that it falls on frame i of a program set to that rate. Head motion animates the
node "head", a joint with full weight on the head, a share on the neck and none on the shoulders.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.export.motion import Curves, motion_curves
from sedtalker.export.parts import Part, Shape, split_face, tangents
from sedtalker.export.textures import encode_color, encode_normals, encode_roughness
from sedtalker.face.asset_io import quantize
from sedtalker.face.neck import neck_pivot
from sedtalker.face.rig import Face, Material
from sedtalker.files import atomic_write
from sedtalker.rotations import to_quaternions

if TYPE_CHECKING:
    from sedtalker.animation import Animation

_COMPONENTS = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_VERTICES, _TRIANGLES = 34962, 34963  # buffer targets

_ROUGHNESS = {
    "skin": 1.0, "eye": 0.3, "cornea": 0.04, "mouth": 0.45, "teeth": 0.3, "tongue": 0.4, "hair": 0.6, "card": 0.9,
    "cloth": 0.95, "plain": 0.6,
}  # fmt: skip
_SPECULAR = {"hair": 0.2, "card": 0.0, "cloth": 0.1}  # specularFactor; all others have 1
_TWO_SIDED = ("hair", "card", "cloth", "plain")
_BLOCK_FRAMES = 4096  # frames of weights in memory at a time
_CORNEA_OPACITY = 0.08  # glTF has no additive mode: a nearly transparent film shows the highlight


def write(animation: Animation, path: Path) -> None:
    """Write the `.glb`; a mesh without a rig gets the principal components of its motion as morph targets."""
    with atomic_write(path) as temp_path, temp_path.open("wb") as file:
        file.writelines(encode_glb(animation))


def encode_glb(animation: Animation) -> Iterator[bytes]:
    """The file in blocks, so that a file of an hour is never in memory as a whole. A frame takes 0.4 KB."""
    face, curves = motion_curves(animation)
    document = _Document()
    jointed = animation.head is not None and len(animation) > 0
    meshes = [
        _add_mesh(document, face, key, list(parts), curves, jointed)
        for key, parts in groupby(split_face(face), key=lambda part: part.attachment)
    ]
    document.tree["scenes"] = [{"nodes": [mesh.node for mesh in meshes]}]
    document.tree["scene"] = 0
    if len(animation):
        _animate(document, animation, face, curves, meshes)
    if animation.emotion.audio:
        document.tree["asset"]["extras"] = {"recording": Path(animation.emotion.audio).name}
    return document.encode()


class _Document:
    """The JSON tree of a glTF file and its binary buffer."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "sedtalker"},
            "nodes": [],
            "meshes": [],
            "materials": [],
            "accessors": [],
            "bufferViews": [],
        }
        self._pieces: list[Iterable[bytes]] = []
        self._length = 0

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        """Append to a list of the tree; returns the index."""
        entries = self.tree.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def view(self, data: bytes, target: int | None = None) -> int:
        """A buffer view of these bytes."""
        return self.view_blocks(len(data), (data,), target)

    def view_blocks(self, length: int, blocks: Iterable[bytes], target: int | None = None) -> int:
        """A buffer view of `length` bytes that `blocks` generates when the file is written."""
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": self._length, "byteLength": length}
        if target is not None:
            entry["target"] = target
        padding = -length % 4
        self._pieces += [blocks, (bytes(padding),)]
        self._length += length + padding
        return self.add("bufferViews", entry)

    def accessor(
        self, values: NDArray[Any], target: int | None = None, *, bounds: bool = False, normalized: bool = False
    ) -> int:
        """An accessor of values (N,) or (N, C); `bounds` adds min and max (required for positions and times)."""
        entry = {"bufferView": self.view(np.ascontiguousarray(values).tobytes(), target), **_describe(values)}
        if normalized:
            entry["normalized"] = True
        if bounds:
            entry |= _bounds(values.reshape(len(values), -1))
        return self.add("accessors", entry)

    def sparse(self, count: int, vertices: NDArray[np.int32], values: NDArray[np.float32], bounds: bool) -> int:
        """An accessor of `count` vectors that are zero except `values` (M, 3) at `vertices` (M,)."""
        entry: dict[str, Any] = {"componentType": 5126, "count": count, "type": "VEC3"}
        if bounds:
            zero = np.zeros((0 if len(values) == count else 1, 3), np.float32)
            entry |= _bounds(np.concatenate([zero, values]))
        if len(vertices):
            numbers = vertices.astype(np.uint16 if count <= 65536 else np.uint32)
            entry["sparse"] = {
                "count": len(vertices),
                "indices": {
                    "bufferView": self.view(numbers.tobytes()),
                    "componentType": _COMPONENTS[numbers.dtype.name],
                },
                "values": {"bufferView": self.view(values.astype(np.float32).tobytes())},
            }
        return self.add("accessors", entry)

    def texture(self, data: bytes, media: str, name: str) -> dict[str, int]:
        """A reference to a new texture with this encoded picture."""
        image = self.add("images", {"bufferView": self.view(data), "mimeType": media, "name": name})
        if "samplers" not in self.tree:
            self.tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        return {"index": self.add("textures", {"source": image, "sampler": 0})}

    def encode(self) -> Iterator[bytes]:
        """Header, JSON chunk and binary chunk."""
        tree = {key: value for key, value in self.tree.items() if value != []}
        tree["buffers"] = [{"byteLength": self._length}]
        text = json.dumps(tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self._length
        yield struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON") + text
        yield struct.pack("<I4s", self._length, b"BIN\0")
        yield from chain.from_iterable(self._pieces)


class _Mesh(NamedTuple):
    """A node with a mesh, and the names of its morph targets."""

    node: int
    names: list[str]


def _describe(values: NDArray[Any]) -> dict[str, Any]:
    width = 1 if values.ndim == 1 else int(np.prod(values.shape[1:]))
    return {"componentType": _COMPONENTS[values.dtype.name], "count": len(values), "type": _TYPES[width]}


def _bounds(values: NDArray[np.floating]) -> dict[str, list[float]]:
    return {"min": values.min(0).astype(float).tolist(), "max": values.max(0).astype(float).tolist()}


def _add_mesh(
    document: _Document, face: Face, attachment: str | None, parts: list[Part], curves: Curves, jointed: bool
) -> _Mesh:
    """A node with a mesh of one primitive per part; only the morph targets that move one of the parts are kept."""
    names = [name for name in curves.names if any(name in part.shapes for part in parts)]
    primitives = [_primitive(document, face, part, names, jointed) for part in parts]
    title = attachment or "face"
    mesh: dict[str, Any] = {"name": title, "primitives": primitives}
    if names:
        mesh |= {"weights": [0.0] * len(names), "extras": {"targetNames": names}}
    return _Mesh(document.add("nodes", {"name": title, "mesh": document.add("meshes", mesh)}), names)


def _primitive(document: _Document, face: Face, part: Part, names: list[str], jointed: bool) -> dict[str, Any]:
    count = len(part.positions)
    colors = np.concatenate([part.colors, np.ones((count, 1), np.float32)], axis=1)
    attributes = {
        "POSITION": document.accessor(part.positions, _VERTICES, bounds=True),
        "NORMAL": document.accessor(part.normals, _VERTICES),
        "COLOR_0": document.accessor(quantize(colors), _VERTICES, normalized=True),
    }
    if part.material.texture is not None:
        uv = part.uv * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)  # v runs down in glTF
        attributes["TEXCOORD_0"] = document.accessor(uv.astype(np.float32), _VERTICES)
    if part.material.bump is not None:
        attributes["TANGENT"] = document.accessor(tangents(part), _VERTICES)
    if jointed:
        full = np.uint16(65535)
        share = (part.head_weights * full + 0.5).astype(np.uint16)
        joints = np.zeros((count, 4), np.uint8)  # 0 body, 1 head; glTF requires joint 0 where the weight is 0
        joints[:, 0] = share == full
        joints[:, 1] = (share > 0) & (share < full)
        weights = np.zeros((count, 4), np.uint16)
        weights[:, 0] = np.where(share == full, full, full - share)
        weights[:, 1] = np.where(share == full, 0, share)
        attributes["JOINTS_0"] = document.accessor(joints, _VERTICES)
        attributes["WEIGHTS_0"] = document.accessor(weights, _VERTICES, normalized=True)
    corners = part.triangles.astype(np.uint16 if count < 65536 else np.uint32).ravel()
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": document.accessor(corners, _TRIANGLES),
        "material": document.add("materials", _material(document, face, part.name, part.material)),
    }
    if names:
        primitive["targets"] = [_target(document, count, part.shapes.get(name)) for name in names]
    return primitive


def _target(document: _Document, count: int, shape: Shape | None) -> dict[str, int]:
    empty = np.zeros(0, np.int32), np.zeros((0, 3), np.float32)
    positions = normals = empty
    if shape is not None:
        moving, turning = shape.displacements.any(axis=1), shape.normal_changes.any(axis=1)
        positions = shape.vertices[moving], shape.displacements[moving]
        normals = shape.vertices[turning], shape.normal_changes[turning]
    return {
        "POSITION": document.sparse(count, *positions, bounds=True),
        "NORMAL": document.sparse(count, *normals, bounds=False),
    }


def _material(document: _Document, face: Face, name: str, material: Material) -> dict[str, Any]:
    surface: dict[str, Any] = {
        "baseColorFactor": [*np.clip(material.tint, 0, 1).astype(float).tolist(), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": _ROUGHNESS.get(material.kind, 0.6),
    }
    entry: dict[str, Any] = {"name": name, "pbrMetallicRoughness": surface}
    color = encode_color(face, material)
    if color is not None:
        surface["baseColorTexture"] = document.texture(*color, name)
    gloss = encode_roughness(face, material)
    if gloss is not None:
        surface["metallicRoughnessTexture"] = document.texture(gloss, "image/jpeg", f"{name}_roughness")
    elif material.kind == "skin":
        surface["roughnessFactor"] = 0.55
    normals = encode_normals(face, material)
    if normals is not None:
        entry["normalTexture"] = document.texture(normals, "image/jpeg", f"{name}_normal")
    if material.mode == "hair":
        entry |= {"alphaMode": "MASK", "alphaCutoff": 0.5}
    elif material.mode == "blend":
        entry["alphaMode"] = "BLEND"
    elif material.mode == "add":
        entry["alphaMode"] = "BLEND"
        surface["baseColorFactor"] = [0.0, 0.0, 0.0, _CORNEA_OPACITY]
    if material.kind in _SPECULAR:
        entry["extensions"] = {"KHR_materials_specular": {"specularFactor": _SPECULAR[material.kind]}}
        document.tree["extensionsUsed"] = ["KHR_materials_specular"]
    if material.kind in _TWO_SIDED:
        entry["doubleSided"] = True
    return entry


def _animate(document: _Document, animation: Animation, face: Face, curves: Curves, meshes: list[_Mesh]) -> None:
    times = document.accessor((np.arange(len(animation)) / animation.fps).astype(np.float32), bounds=True)
    motion: dict[str, list[dict[str, Any]]] = {"samplers": [], "channels": []}

    def drive(node: int, path: str, values: int) -> None:
        motion["samplers"].append({"input": times, "output": values, "interpolation": "LINEAR"})
        channel = {"sampler": len(motion["samplers"]) - 1, "target": {"node": node, "path": path}}
        motion["channels"].append(channel)

    for mesh in meshes:
        if mesh.names:
            drive(mesh.node, "weights", _weights(document, curves, mesh.names))
    if animation.head is not None:
        joint = _joints(document, face, meshes)
        pivot = neck_pivot(face)
        rotation = animation.head[:, :3, :3]
        drive(joint, "rotation", document.accessor(to_quaternions(rotation)))
        drive(joint, "translation", document.accessor((rotation @ pivot + animation.head[:, :3, 3]).astype(np.float32)))
    if motion["channels"]:
        document.add("animations", {"name": "speech", **motion})


def _weights(document: _Document, curves: Curves, names: list[str]) -> int:
    columns, weights = [curves.names.index(name) for name in names], curves.weights
    unsigned = weights.min() >= 0 and weights.max() <= 1  # fits normalized uint16

    def blocks() -> Iterator[bytes]:
        for first in range(0, len(weights), _BLOCK_FRAMES):
            rows = weights[first : first + _BLOCK_FRAMES, columns]
            yield ((rows * 65535 + 0.5).astype(np.uint16) if unsigned else rows.astype(np.float32)).tobytes()

    count = len(weights) * len(names)
    entry: dict[str, Any] = {"componentType": _COMPONENTS["uint16" if unsigned else "float32"], "count": count}
    entry |= {"type": "SCALAR", "bufferView": document.view_blocks(count * (2 if unsigned else 4), blocks())}
    if unsigned:
        entry["normalized"] = True
    return document.add("accessors", entry)


def _joints(document: _Document, face: Face, meshes: list[_Mesh]) -> int:
    """Add two joints, the body and its child the head; returns the head's node."""
    pivot = neck_pivot(face)
    nodes = document.tree["nodes"]
    head = document.add("nodes", {"name": "head", "translation": pivot.astype(float).tolist()})
    body = document.add("nodes", {"name": "body", "children": [head]})
    bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    bind[1, 3, :3] = -pivot  # matrices are stored by columns: the last row holds the translation
    skin = document.add(
        "skins",
        {"joints": [body, head], "skeleton": body, "inverseBindMatrices": document.accessor(bind.reshape(2, 16))},
    )
    for mesh in meshes:
        nodes[mesh.node]["skin"] = skin
    document.tree["scenes"][0]["nodes"].append(body)
    return head
