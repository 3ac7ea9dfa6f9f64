"""Avatars made of the default head, for the tests: other names, VRM, quantised, compressed, in several files."""

from __future__ import annotations

import copy
import io
import json
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.export.glb import encode_glb
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face

Tree = dict[str, Any]


@cache
def small_head() -> Face:
    """The default head with small textures and without hair and cloth."""
    face = load_face("default")
    textures = {name: np.asarray(face.textures[name])[::16, ::16] for name in face.textures}
    attachments = {name: face.attachments[name] for name in ("brows", "lashes")}
    return replace(face, attachments=attachments, textures=textures)


def made_glb(face: Face) -> bytes:
    """The head as a binary glTF with the joints body and head, and without an animation."""
    head = np.tile(np.eye(4, dtype=np.float32), (1, 1, 1))
    still = Animation(
        face.template, face.faces, 30.0, EmotionTrack.neutral(1 / 30), np.zeros((1, 52), np.float32),
        face.blendshape_names, head=head, rig=face,
    )  # fmt: skip
    tree, data = split_glb(b"".join(encode_glb(still)))
    del tree["animations"]
    return join_glb(tree, data)


@cache
def head_glb() -> bytes:
    """The avatar of the small head; made once, as it takes seconds."""
    return made_glb(small_head())


def split_glb(glb: bytes) -> tuple[Tree, bytes]:
    """The tree and the binary chunk of a .glb."""
    size = struct.unpack_from("<I", glb, 12)[0]
    return json.loads(glb[20 : 20 + size]), glb[28 + size :]


def join_glb(tree: Tree, data: bytes) -> bytes:
    """A .glb of a tree and a binary chunk."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    data += bytes(-len(data) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(data)) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(data), b"BIN\0") + data


def rename(glb: bytes, new_name: Callable[[str], str]) -> bytes:
    """The avatar with other names of its morph targets."""
    tree, data = split_glb(glb)
    for mesh in tree["meshes"]:
        if "extras" in mesh:
            mesh["extras"]["targetNames"] = [new_name(name) for name in mesh["extras"]["targetNames"]]
    return join_glb(tree, data)


def snake(name: str) -> str:
    """EyeBlinkLeft -> EYE_BLINK_L."""
    spaced = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
    return spaced.upper().replace("_LEFT", "_L").replace("_RIGHT", "_R")


VISEMES = {
    "aa": {"jawOpen": 0.6}, "ou": {"mouthPucker": 0.9}, "oh": {"mouthFunnel": 0.5},
    "ih": {"mouthStretchLeft": 0.5, "mouthStretchRight": 0.5},
    "blinkLeft": {"eyeBlinkLeft": 1.0}, "blinkRight": {"eyeBlinkRight": 1.0},
}  # fmt: skip


def as_vrm(glb: bytes, version: int) -> bytes:
    """A VRM whose morph targets have meaningless names; VRM 0.x faces -z."""
    tree, data = split_glb(rename(glb, lambda name: f"shape{ARKIT_NAMES.index(name):02d}"))
    nodes = tree["nodes"]
    head = next(index for index, node in enumerate(nodes) if node["name"] == "head")
    face = next(index for index, node in enumerate(nodes) if node.get("name") == "face")
    lashes = next(index for index, node in enumerate(nodes) if node.get("name") == "lashes")
    nodes[head]["name"] = "J_Bip_C_Kopf"
    binds: dict[str, list[tuple[int, int, float]]] = {}
    for expression, shapes in VISEMES.items():
        for node in (face, lashes):
            names = tree["meshes"][nodes[node]["mesh"]]["extras"]["targetNames"]
            for name, weight in shapes.items():
                title = f"shape{ARKIT_NAMES.index(name):02d}"
                if title in names:
                    binds.setdefault(expression, []).append((node, names.index(title), weight))
    if version == 1:
        preset = {
            name: {"morphTargetBinds": [{"node": node, "index": index, "weight": w} for node, index, w in bound]}
            for name, bound in binds.items()
        }
        tree["extensions"] = {
            "VRMC_vrm": {
                "specVersion": "1.0",
                "humanoid": {"humanBones": {"head": {"node": head}}},
                "expressions": {"preset": preset},
            }
        }
        tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "VRMC_vrm"]
        return join_glb(tree, data)
    presets = {"aa": "a", "ou": "u", "oh": "o", "ih": "i", "blinkLeft": "blink_l", "blinkRight": "blink_r"}
    groups = [
        {
            "name": name.upper(),
            "presetName": presets[name],
            "binds": [{"mesh": nodes[node]["mesh"], "index": index, "weight": 100 * w} for node, index, w in bound],
        }
        for name, bound in binds.items()
    ]
    tree["extensions"] = {
        "VRM": {
            "humanoid": {"humanBones": [{"bone": "head", "node": head}]},
            "blendShapeMaster": {"blendShapeGroups": groups},
        }
    }
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "VRM"]
    scene = tree["scenes"][0]["nodes"]
    nodes.append({"name": "Armature", "rotation": [0.0, 1.0, 0.0, 0.0], "children": scene})
    tree["scenes"][0]["nodes"] = [len(nodes) - 1]
    return join_glb(tree, data)


_BONES = ("hips", "spine", *(f"{side}{bone}" for side in ("left", "right") for bone in (
    "UpperLeg", "LowerLeg", "Foot", "UpperArm", "LowerArm", "Hand")))  # fmt: skip


def for_players(vrm: bytes) -> bytes:
    """The VRM 1.0 of `as_vrm` with the bones and the licence that players require, and without pictures."""
    tree, data = split_glb(vrm)
    for kind in ("images", "textures", "samplers"):
        tree.pop(kind, None)
    tree["materials"] = [{"name": material["name"]} for material in tree["materials"]]
    extension = tree["extensions"]["VRMC_vrm"]
    extension["meta"] = {"name": "made", "authors": ["tests"], "licenseUrl": "https://vrm.dev/licenses/1.0/"}
    for bone in _BONES:
        extension["humanoid"]["humanBones"][bone] = {"node": len(tree["nodes"])}
        tree["scenes"][0]["nodes"].append(len(tree["nodes"]))
        tree["nodes"].append({"name": bone})
    return join_glb(tree, data)


_MPFB = {
    "skin": "Human.body", "lips": "Human.body", "eyes": "Human.high-poly", "teeth": "Human.teeth_base",
    "tongue": "Human.tongue01", "brows": "Human.eyebrow001", "lashes": "Human.eyelashes02",
}  # fmt: skip


def as_mpfb(glb: bytes) -> bytes:
    """The avatar with the skeleton and the names that MPFB (MakeHuman for Blender) exports.

    Its bones point along y of their own axes, so that the rest pose has rotations, and the meshes are bound to them.
    """
    tree, data = split_glb(glb)
    nodes, skin = tree["nodes"], tree["skins"][0]
    head = next(index for index, node in enumerate(nodes) if node["name"] == "head")
    body = next(index for index, node in enumerate(nodes) if node["name"] == "body")
    places = [np.zeros(3), np.array(nodes[head].get("translation", (0, 0, 0)), float)]
    angle = 0.35  # of the neck, forwards
    turn = [np.sin(angle / 2), 0.0, 0.0, np.cos(angle / 2)]
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    for node in nodes:
        node.pop("children", None)
    nodes[body] = {"name": "spine01", "children": [len(nodes)]}
    neck = places[1] / 2
    nodes.append({"name": "neck01", "translation": neck.tolist(), "rotation": turn, "children": [head]})
    nodes[head] = {"name": "head", "translation": (rotation.T @ (places[1] - neck)).tolist()}
    nodes.append({"name": "Human.rig", "children": [body, *(n for n, node in enumerate(nodes) if "mesh" in node)]})
    tree["scenes"][0]["nodes"] = [len(nodes) - 1]
    bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = rotation, places[1]
    bind[skin["joints"].index(head)] = np.linalg.inv(world).T
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(data), "byteLength": bind.nbytes})
    data += bind.tobytes()
    tree["buffers"][0]["byteLength"] = len(data)
    tree["accessors"][skin["inverseBindMatrices"]]["bufferView"] = len(tree["bufferViews"]) - 1
    for material in tree["materials"]:
        material["name"] = _MPFB.get(material["name"], material["name"])
        material["alphaMode"] = "BLEND" if material["name"] == "Human.body" else material.get("alphaMode", "OPAQUE")
    return join_glb(tree, data)


def quantised(glb: bytes, compress: bool) -> bytes:
    """The avatar with 16-bit positions (KHR_mesh_quantization), optionally compressed by meshoptimizer."""
    tree, data = split_glb(glb)
    blob = bytearray()
    views: list[Tree] = []
    sources = copy.deepcopy(tree["bufferViews"])

    def stored(index: int) -> bytes:
        view = sources[index]
        return data[view.get("byteOffset", 0) :][: view["byteLength"]]

    def add(raw: bytes, extension: Tree | None = None) -> int:
        blob.extend(bytes(-len(blob) % 4))
        place = {"buffer": 0, "byteOffset": len(blob), "byteLength": len(raw)}
        if extension is None:
            views.append(place)
        else:
            length = extension["count"] * extension["byteStride"]
            packed = {**place, **extension}
            views.append({"buffer": 1, "byteLength": length, "extensions": {"EXT_meshopt_compression": packed}})
            if extension["mode"] == "ATTRIBUTES":
                views[-1]["byteStride"] = extension["byteStride"]
        blob.extend(raw)
        return len(views) - 1

    scale = 1 / 32000.0
    positions = {p["attributes"]["POSITION"] for mesh in tree["meshes"] for p in mesh["primitives"]}
    moves = {t["POSITION"] for mesh in tree["meshes"] for p in mesh["primitives"] for t in p.get("targets", [])}
    indices = {p["indices"] for mesh in tree["meshes"] for p in mesh["primitives"]}
    for number, accessor in enumerate(tree["accessors"]):
        if number in positions or number in moves:
            values = np.zeros((accessor["count"], 4), np.int16)
            if "bufferView" in accessor:
                read = np.frombuffer(stored(accessor.pop("bufferView")), np.float32).reshape(-1, 3)
                values[:, :3] = np.round(read / scale)
            if "sparse" in accessor:
                sparse = accessor.pop("sparse")
                kind = {5123: np.uint16, 5125: np.uint32}[sparse["indices"]["componentType"]]
                rows = np.frombuffer(stored(sparse["indices"]["bufferView"]), kind)
                read = np.frombuffer(stored(sparse["values"]["bufferView"]), np.float32).reshape(-1, 3)
                values[rows, :3] = np.round(read / scale)
            accessor["componentType"] = 5122
            accessor["min"], accessor["max"] = values[:, :3].min(0).tolist(), values[:, :3].max(0).tolist()
            accessor["bufferView"] = _pack(values.tobytes(), len(values), 8, "ATTRIBUTES", add, compress)
            if not compress:
                views[-1]["byteStride"] = 8
        elif "bufferView" in accessor:
            raw = stored(accessor["bufferView"])
            size = {5123: 2, 5125: 4}.get(accessor["componentType"], 0)
            packed = compress and number in indices and size > 0
            accessor["bufferView"] = _pack(raw, accessor["count"], size, "TRIANGLES", add, packed)
        elif "sparse" in accessor:
            for part in (accessor["sparse"]["indices"], accessor["sparse"]["values"]):
                part["bufferView"] = add(stored(part["bufferView"]))
    for image in tree.get("images", []):
        image["bufferView"] = add(stored(image["bufferView"]))
    for skin in tree["skins"]:  # the joints undo the scale of the positions
        accessor = tree["accessors"][skin["inverseBindMatrices"]]
        view = views[accessor["bufferView"]]
        matrices = np.frombuffer(bytes(blob[view["byteOffset"] :][: view["byteLength"]]), np.float32).reshape(-1, 4, 4)
        scaled = (np.diag([scale, scale, scale, 1]).astype(np.float32) @ matrices).astype(np.float32)
        blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] = scaled.tobytes()
    tree["bufferViews"] = views
    tree["buffers"] = [{"byteLength": len(blob)}]
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_mesh_quantization"]
    tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    if compress:
        length = sum(view["byteLength"] for view in views if view["buffer"] == 1)
        tree["buffers"].append({"byteLength": length, "extensions": {"EXT_meshopt_compression": {"fallback": True}}})
        start = 0
        for view in views:
            if view["buffer"] == 1:
                view["byteOffset"] = start
                start += view["byteLength"]
        tree["extensionsUsed"].append("EXT_meshopt_compression")
        tree["extensionsRequired"].append("EXT_meshopt_compression")
    return join_glb(tree, bytes(blob))


def _pack(raw: bytes, count: int, stride: int, mode: str, add: Callable[..., int], compress: bool) -> int:
    if not compress:
        return add(raw)
    import meshoptimizer

    if mode == "ATTRIBUTES":
        array = np.frombuffer(raw, np.uint8).reshape(count, stride)
        packed = meshoptimizer.encode_vertex_buffer(array, count, stride)
    else:
        array = np.frombuffer(raw, np.uint16 if stride == 2 else np.uint32).astype(np.uint32)
        packed = meshoptimizer.encode_index_buffer(array, count, int(array.max()) + 1)
    return add(bytes(packed), {"count": count, "byteStride": stride, "mode": mode})


def write_gltf(glb: bytes, folder: Path) -> Path:
    """The avatar as a .gltf with one file of data, and its first picture as a WebP file."""
    tree, data = split_glb(glb)
    folder.mkdir(parents=True, exist_ok=True)
    view = tree["bufferViews"][tree["images"][0]["bufferView"]]
    picture = io.BytesIO()
    with Image.open(io.BytesIO(data[view["byteOffset"] :][: view["byteLength"]])) as image:
        image.save(picture, "WEBP", quality=95)
    (folder / "skin 1.webp").write_bytes(picture.getvalue())
    tree["images"][0] = {"uri": "skin%201.webp"}
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "EXT_texture_webp"]
    for texture in tree["textures"]:
        if texture["source"] == 0:
            texture["extensions"] = {"EXT_texture_webp": {"source": texture.pop("source")}}
    (folder / "data.bin").write_bytes(data)
    tree["buffers"][0]["uri"] = "data.bin"
    path = folder / "avatar.gltf"
    path.write_text(json.dumps(tree))
    return path


def write_all(folder: Path) -> list[Path]:
    """Files of the avatars that the tests make: MPFB's form, and VRM 0.x and 1.0 with visemes alone."""
    glb = head_glb()
    made = {"mpfb.glb": as_mpfb(glb), "visemes0.vrm": as_vrm(glb, 0), "visemes1.vrm": as_vrm(glb, 1)}
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in made]


if __name__ == "__main__":  # python tests/made_avatar.py DIR
    print(*write_all(Path(sys.argv[1])), sep="\n")
