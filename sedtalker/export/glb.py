"""Binary glTF 2.0: the head with its blendshapes, materials, textures, weights and head motion in one file.

The face is one mesh, each attachment another; all have morph targets with the blendshapes' names. Frame i of the
animation is at i / fps seconds, so that it falls on frame i of a program set to that rate. Head motion animates the
node "head", a joint with full weight on the head, a share on the neck and none on the shoulders.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sedtalker.export.gltf_writer import COMPONENTS, AnimationCurves, Document, frame_times
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

_VERTICES, _TRIANGLES = 34962, 34963  # buffer targets

_ROUGHNESS = {
    "skin": 1.0, "eye": 0.3, "cornea": 0.04, "mouth": 0.45, "teeth": 0.3, "tongue": 0.4, "hair": 0.6, "card": 0.9,
    "cloth": 0.95, "plain": 0.6,
}  # fmt: skip
# specularFactor; that of others is 1. Light from behind would shine on the lining, as no head is in its way.
_SPECULAR = {"hair": 0.2, "card": 0.0, "cloth": 0.1, "mouth": 0.0, "teeth": 0.3, "tongue": 0.2}
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
    document = Document("nodes", "meshes", "materials", "accessors", "bufferViews")
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


class _Mesh(NamedTuple):
    """A node with a mesh, and the names of its morph targets."""

    node: int
    names: list[str]


def _add_mesh(
    document: Document, face: Face, attachment: str | None, parts: list[Part], curves: Curves, jointed: bool
) -> _Mesh:
    """A node with a mesh of one primitive per part; only the morph targets that move one of the parts are kept."""
    names = [name for name in curves.names if any(name in part.shapes for part in parts)]
    primitives = [_primitive(document, face, part, names, jointed) for part in parts]
    title = attachment or "face"
    mesh: dict[str, Any] = {"name": title, "primitives": primitives}
    if names:
        mesh |= {"weights": [0.0] * len(names), "extras": {"targetNames": names}}
    return _Mesh(document.add("nodes", {"name": title, "mesh": document.add("meshes", mesh)}), names)


def _primitive(document: Document, face: Face, part: Part, names: list[str], jointed: bool) -> dict[str, Any]:
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


def _target(document: Document, count: int, shape: Shape | None) -> dict[str, int]:
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


def _material(document: Document, face: Face, name: str, material: Material) -> dict[str, Any]:
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


def _animate(document: Document, animation: Animation, face: Face, curves: Curves, meshes: list[_Mesh]) -> None:
    motion = AnimationCurves(document.accessor(frame_times(len(animation), animation.fps), bounds=True))
    for mesh in meshes:
        if mesh.names:
            motion.drive(mesh.node, "weights", _weights(document, curves, mesh.names))
    if animation.head is not None:
        joint = _joints(document, face, meshes)
        pivot = neck_pivot(face)
        rotation = animation.head[:, :3, :3]
        motion.drive(joint, "rotation", document.accessor(to_quaternions(rotation)))
        motion.drive(
            joint, "translation", document.accessor((rotation @ pivot + animation.head[:, :3, 3]).astype(np.float32))
        )
    for entry in motion.entries():
        document.add("animations", entry)


def _weights(document: Document, curves: Curves, names: list[str]) -> int:
    columns, weights = [curves.names.index(name) for name in names], curves.weights
    unsigned = weights.min() >= 0 and weights.max() <= 1  # fits normalized uint16

    def blocks() -> Iterator[bytes]:
        for first in range(0, len(weights), _BLOCK_FRAMES):
            rows = weights[first : first + _BLOCK_FRAMES, columns]
            yield ((rows * 65535 + 0.5).astype(np.uint16) if unsigned else rows.astype(np.float32)).tobytes()

    count = len(weights) * len(names)
    entry: dict[str, Any] = {"componentType": COMPONENTS["uint16" if unsigned else "float32"], "count": count}
    entry |= {"type": "SCALAR", "bufferView": document.view_blocks(count * (2 if unsigned else 4), blocks())}
    if unsigned:
        entry["normalized"] = True
    return document.add("accessors", entry)


def _joints(document: Document, face: Face, meshes: list[_Mesh]) -> int:
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
