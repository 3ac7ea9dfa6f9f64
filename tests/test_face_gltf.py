"""Damaged and hostile glTF files: one line each, and nothing read outside of the file's folder."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_animation import made_animation
from made_avatar import head_glb, join_glb, split_glb

from sedtalker.errors import FaceError
from sedtalker.export.avatar import write_into
from sedtalker.export.vrma import write_for
from sedtalker.face.assets import load_face
from sedtalker.face.gltf import Gltf, read_gltf_mesh

TRIANGLE = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], np.float32)


def tree() -> dict[str, Any]:
    """A triangle with the morph target jawOpen."""
    accessor = {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}
    target = [{"POSITION": 0}]
    primitive = {"attributes": {"POSITION": 0}, "targets": target}
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "a"}, {"name": "b"}],
        "meshes": [{"primitives": [primitive], "extras": {"targetNames": ["jawOpen"]}}],
        "accessors": [accessor],
        "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36}],
    }


def write(path: Path, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> Path:
    content = tree()
    change(content)
    path.write_bytes(join_glb(content, TRIANGLE.tobytes()))
    return path


def refused(path: Path) -> str:
    with pytest.raises(FaceError) as error:
        load_face(path)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_a_triangle_is_read(tmp_path: Path) -> None:
    vertices, triangles = read_gltf_mesh(write(tmp_path / "a.glb"))
    np.testing.assert_array_equal(vertices, TRIANGLE)
    assert triangles.tolist() == [[0, 1, 2]]


def update(*keys: Any, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys:
            content = content[key]
        content.update(values)

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a node is its own child": update("nodes", 0, children=[0]),
    "two nodes are each other's children": lambda t: (
        t["nodes"][0].update(children=[1]), t["nodes"][1].update(children=[0])
    ),
    "two parents": lambda t: t["nodes"].extend([{"children": [1]}, {"children": [1]}]),
    "a child that does not exist": update("nodes", 0, children=[9]),
    "a negative child": update("nodes", 0, children=[-1]),
    "a mesh that does not exist": update("nodes", 0, mesh=7),
    "a negative mesh": update("nodes", 0, mesh=-1),
    "an accessor that does not exist": update("meshes", 0, "primitives", 0, attributes={"POSITION": 5}),
    "no positions": update("meshes", 0, "primitives", 0, attributes={}),
    "a count beyond its view": update("accessors", 0, count=4),
    "2 GB claimed": update("accessors", 0, count=180_000_000),
    "2 GB of zeros claimed": lambda t: (
        t["accessors"][0].pop("bufferView"), t["accessors"][0].update(count=180_000_000)
    ),
    "a negative count": update("accessors", 0, count=-1),
    "a fractional count": update("accessors", 0, count=2.5),
    "a text as count": update("accessors", 0, count="3"),
    "an offset beyond its view": update("accessors", 0, byteOffset=4),
    "a negative offset": update("accessors", 0, byteOffset=-36),
    "an unknown component type": update("accessors", 0, componentType=5130),
    "an unknown type": update("accessors", 0, type="VEC9"),
    "a view beyond its buffer": update("bufferViews", 0, byteLength=400),
    "a negative view": update("bufferViews", 0, byteOffset=-4),
    "a stride of 1": update("bufferViews", 0, byteStride=1),
    "a buffer larger than the file": update("buffers", 0, byteLength=4_000_000_000),
    "indices that are positions": update("meshes", 0, "primitives", 0, indices=0),
    "indices out of range": lambda t: (
        t["accessors"].append({"bufferView": 0, "byteOffset": 10, "componentType": 5123, "count": 3, "type": "SCALAR"}),
        t["meshes"][0]["primitives"][0].update(indices=1),
    ),
    "a sparse index out of range": update(
        "accessors", 0, sparse={"count": 1, "indices": {"bufferView": 0, "byteOffset": 12, "componentType": 5125},
                                "values": {"bufferView": 0}}),
    "a negative sparse index": update(
        "accessors", 0, sparse={"count": 1, "indices": {"bufferView": 0, "byteOffset": 14, "componentType": 5120},
                                "values": {"bufferView": 0}}),
    "signed joints": lambda t: (
        t.update(skins=[{"joints": [1]}]), t["nodes"][0].update(skin=0),
        t["accessors"].extend({"bufferView": 0, "componentType": k, "count": 3, "type": "VEC4"} for k in (5120, 5121)),
        t["accessors"][2].update(normalized=True),
        t["meshes"][0]["primitives"][0]["attributes"].update(JOINTS_0=1, WEIGHTS_0=2)
    ),
    "weights that are not numbers": update("meshes", 0, weights=[float("nan")]),
    "an infinite opacity": lambda t: t.update(materials=[{"alphaCutoff": float("inf")}]),
    "a vertex far away": update("nodes", 0, scale=[1e30, 1e30, 1e30]),
    "a mesh without size": update("nodes", 0, scale=[0, 0, 1]),
    "a target of another length": lambda t: (
        t["accessors"].append({**t["accessors"][0], "count": 2}),
        t["meshes"][0]["primitives"][0].update(targets=[{"POSITION": 1}]),
    ),
    "an unsupported requirement": lambda t: t.update(extensionsRequired=["XX_unknown"]),
    "Draco": update("meshes", 0, "primitives", 0, extensions={"KHR_draco_mesh_compression": {}}),
    "glTF 1": update("asset", version="1.0"),
    "nodes as an object": lambda t: t.update(nodes={"a": 1}),
    "a rotation of zero": update("nodes", 0, rotation=[0, 0, 0, 0]),
    "a short matrix": update("nodes", 0, matrix=[1, 2]),
    "an infinite position": update("nodes", 0, translation=[1e999, 0, 0]),
    "a skin without joints": lambda t: (
        t.update(skins=[{"joints": []}]), t["nodes"][0].update(skin=0),
        t["meshes"][0]["primitives"][0]["attributes"].update(JOINTS_0=0, WEIGHTS_0=0),
    ),
    "an unknown skin": lambda t: (
        t["nodes"][0].update(skin=3), t["meshes"][0]["primitives"][0]["attributes"].update(JOINTS_0=0, WEIGHTS_0=0)
    ),
    "compressed data that is not": lambda t: t["bufferViews"][0].update(
        extensions={"EXT_meshopt_compression": {"buffer": 0, "byteLength": 36, "byteStride": 12, "count": 3,
                                                "mode": "ATTRIBUTES"}}),
    "4 GB compressed": lambda t: t["bufferViews"][0].update(
        extensions={"EXT_meshopt_compression": {"buffer": 0, "byteLength": 36, "byteStride": 12, "count": 1 << 29,
                                                "mode": "ATTRIBUTES"}}),
    "an expression of an unknown target": lambda t: t.update(extensions={"VRM": {"blendShapeMaster": {
        "blendShapeGroups": [{"name": "A", "presetName": "a", "binds": [{"mesh": 0, "index": 44, "weight": 1}]}]}}}),
    "no geometry": lambda t: t.update(scenes=[{"nodes": []}]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_trees(tmp_path: Path, name: str) -> None:
    if "compressed" in name:
        pytest.importorskip("meshoptimizer")
    refused(write(tmp_path / "a.glb", CHANGES[name]))


@pytest.mark.parametrize("size", [0, 4, 11, 12, 19, 30, 200])
def test_truncated_files(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes()[:size])
    refused(path)


def test_a_chunk_longer_than_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.glb")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 12, 0xFFFFFFF0)
    path.write_bytes(data)
    assert "truncated" in refused(path)


def test_deeply_nested_json(tmp_path: Path) -> None:
    (tmp_path / "a.gltf").write_text("[" * 200_000)
    refused(tmp_path / "a.gltf")


@pytest.mark.parametrize(
    "uri",
    ["../secret.bin", "/etc/passwd", "folder/../../secret.bin", "%2e%2e/secret.bin", "file:///etc/passwd", "link.bin",
     "http://localhost:9/a.bin", "https://example.org/a.bin", "//example.org/a.bin", "C:\\secret.bin", "missing.bin",
     "data:application/octet-stream;base64,!!!", "", "pipe", "loop", "folder/" + "a" * 3000, "..%2fsecret.bin"],
)  # fmt: skip
def test_nothing_is_read_outside_of_the_folder(tmp_path: Path, uri: str) -> None:
    (tmp_path / "secret.bin").write_bytes(TRIANGLE.tobytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    content = tree()
    content["buffers"][0]["uri"] = uri
    (folder / "a.gltf").write_text(json.dumps(content))
    refused(folder / "a.gltf")
    content["buffers"][0]["uri"] = "data:application/octet-stream;base64," + "A" * 48
    content["meshes"][0]["primitives"][0]["material"] = 0
    content["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    content["textures"], content["images"] = [{"source": 0}], [{"uri": uri}]
    (folder / "a.gltf").write_text(json.dumps(content))
    refused(folder / "a.gltf")


def test_a_picture_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"<svg/>")
    gltf = Gltf(write(tmp_path / "a.glb", lambda content: content.update(images=[{"uri": "a.png"}])))
    with pytest.raises(FaceError, match="image 0 is not a PNG, JPEG or WebP file"):
        gltf.picture(0)


@pytest.mark.parametrize(
    "change", [lambda t: t.update(animations="none"), lambda t: t["nodes"][1].update(extras="\ud800")]
)
def test_files_into_which_no_animation_can_be_written(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    content, data = split_glb(head_glb())
    change(content)
    (tmp_path / "a.glb").write_bytes(join_glb(content, data))
    with pytest.raises(FaceError, match="cannot be used"):
        write_into(made_animation(tmp_path, seconds=0.1), tmp_path / "a.glb", tmp_path / "into.glb")
    assert not (tmp_path / "into.glb").exists()


def test_expressions_that_do_not_exist(tmp_path: Path) -> None:
    expressions = {"preset": {"aa": {"morphTargetBinds": [{"node": 7, "index": 0}]}}}
    path = write(tmp_path / "a.vrm", lambda t: t.update(extensions={"VRMC_vrm": {"expressions": expressions}}))
    with pytest.raises(FaceError, match="cannot be used"):
        write_for(made_animation(tmp_path, seconds=0.1), tmp_path / "a.vrma", path)


def test_a_picture_that_claims_gigapixels(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    from zlib import crc32

    picture = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", crc32(header))
    (tmp_path / "a.png").write_bytes(picture)

    def change(content: dict[str, Any]) -> None:
        content["images"] = [{"uri": "a.png"}]

    gltf = Gltf(write(tmp_path / "a.glb", change))
    with pytest.raises(FaceError, match="image 0"):
        gltf.picture(0)


def test_random_damage_never_ends_otherwise(tmp_path: Path) -> None:
    original = write(tmp_path / "a.glb").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "b.glb"
    for _ in range(150):
        data = bytearray(original)
        for place in random.integers(0, len(data), random.integers(1, 5)):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            read_gltf_mesh(path)
            load_face(path)
        except FaceError as error:
            assert "\n" not in str(error)
    assert split_glb(original)


@pytest.mark.parametrize("data", [b"RIFF\xdc\x00\x00\x00WAVE", b"{", b""])
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(FaceError, match="it contains no JSON"):
        load_face(tmp_path / "a.glb")
