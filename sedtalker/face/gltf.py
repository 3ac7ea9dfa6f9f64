"""Read glTF 2.0 files (.glb, .gltf, .vrm): the JSON tree, arrays, pictures and the rest pose of the nodes.

Files come from anywhere: every index, size and path is checked before memory is allocated, nothing outside of the
file's folder is read, and nothing is fetched. pygltflib has no decoding of arrays and loses unknown fields when it
writes, and trimesh reads no morph targets and no skins; both follow external paths.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sedtalker.errors import FaceError, require
from sedtalker.face.rig import Float, Index

SUFFIXES = (".glb", ".gltf", ".vrm")

_COMPONENTS: dict[int, type] = {
    5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32,
}  # fmt: skip
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_KNOWN = frozenset(
    (*_MESHOPT, "KHR_mesh_quantization", "KHR_texture_transform", "KHR_texture_basisu", "EXT_texture_webp",
     "KHR_materials_unlit",
     "KHR_materials_specular", "KHR_materials_ior", "KHR_materials_clearcoat", "KHR_materials_sheen",
     "KHR_materials_transmission", "KHR_materials_volume", "KHR_materials_emissive_strength",
     "KHR_materials_iridescence", "KHR_materials_anisotropy", "KHR_materials_pbrSpecularGlossiness",
     "KHR_lights_punctual", "KHR_animation_pointer", "KHR_node_visibility", "KHR_xmp_json_ld", "VRM", "VRMC_vrm",
     "VRMC_materials_mtoon", "VRMC_springBone", "VRMC_node_constraint", "VRMC_materials_hdr_emissiveMultiplier")
)  # fmt: skip
"""Extensions without which a file that requires them can be read, or which are read."""

_MAX_FILE = 1 << 30  # bytes
_MAX_ARRAY = 1 << 28  # bytes of one array
_MAX_TOTAL = 1 << 31  # bytes of all arrays of a file
MAX_PIXELS = 1 << 26  # of one picture
_MAX_NODES = 100_000

# What malformed trees and arrays raise in the code that reads them.
MALFORMED = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, MemoryError,
    struct.error, binascii.Error,
)  # fmt: skip


class Gltf:
    """A glTF file: `tree` is its JSON as read, `nodes` the parts of it that are checked here.

    Raises:
        FaceError: (also from every method) the file is missing, damaged, too large, or uses what is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.resolve().parent
        if not path.is_file():
            raise FaceError(f"no such avatar: {path}. Give a .glb, .gltf or .vrm file")
        data = _read_bytes(path)
        try:
            text, self.chunk = _split_container(data)
            tree = json.loads(text, parse_float=_finite, parse_constant=_finite)
            if not isinstance(tree, dict) or str(tree["asset"]["version"]).split(".")[0] != "2":
                raise ValueError("it is not glTF 2.0")
            self.tree: dict[str, Any] = tree
            unknown = sorted({*tree.get("extensionsRequired", [])} - _KNOWN)
            if unknown:
                raise ValueError(f"it requires {unknown[0]}, which is not supported")
            self.parents = _find_parents(tree)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise self.damaged("it contains no JSON, as .glb, .gltf and .vrm do") from error
        except MALFORMED as error:
            raise self.damaged(error) from error
        self._buffers: dict[int, bytes] = {}
        self._views: dict[int, bytes] = {}
        self._total = 0

    def damaged(self, error: Exception | str) -> FaceError:
        """The error that this file cannot be used."""
        reason = f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, IndexError)) else str(error)
        reason = " ".join(reason.split())[:120] or type(error).__name__
        return FaceError(f"the glTF file cannot be used: {self.path} ({reason}). Export it again")

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry of a list of the tree. Raises ValueError if there is none."""
        entries = self.tree.get(kind, [])
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(entries):
            raise ValueError(f"{kind}[{index}] does not exist")
        entry = entries[index]
        if not isinstance(entry, dict):
            raise ValueError(f"{kind}[{index}] is not an object")
        return entry

    def array(self, index: Any) -> NDArray[Any]:
        """Values (N,) or (N, C) of an accessor; normalised integers become float32."""
        try:
            return self._array(index)
        except MALFORMED as error:
            raise self.damaged(error) from error

    def picture(self, index: Any) -> NDArray[np.uint8]:
        """Pixels (H, W, 4) of an image, sRGB and opacity."""
        try:
            entry = self.item("images", index)
            data = self.uri(entry["uri"]) if "uri" in entry else self._view(entry["bufferView"])[0]
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"a picture of {image.width} x {image.height} pixels")
                return np.asarray(image.convert("RGBA"))
        except UnidentifiedImageError as error:
            raise self.damaged(f"image {index} is not a PNG, JPEG or WebP file") from error
        except (*MALFORMED, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise self.damaged(f"image {index}: {error}") from error

    def matrices(self) -> NDArray[np.float64]:
        """World matrices (N, 4, 4) of the nodes at rest."""
        nodes = self.tree.get("nodes", [])
        world = np.tile(np.eye(4), (len(nodes), 1, 1))
        try:
            for index in self.ordered_nodes():
                local = local_matrix(nodes[index])
                parent = self.parents[index]
                world[index] = local if parent < 0 else world[parent] @ local
        except MALFORMED as error:
            raise self.damaged(error) from error
        if not np.isfinite(world).all():
            raise self.damaged("a node's position is not a number")
        return world

    def ordered_nodes(self) -> list[int]:
        """Indices of the nodes, parents before children."""
        children: list[list[int]] = [[] for _ in self.parents]
        for index, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(index)
        order = [index for index, parent in enumerate(self.parents) if parent < 0]
        for index in order:  # grows while it is read
            order.extend(children[index])
        return order

    def descendants(self, node: int) -> set[int]:
        """A node and all nodes below it."""
        found = {node}
        for index in self.ordered_nodes():
            if self.parents[index] in found:
                found.add(index)
        return found

    def drawn_nodes(self) -> list[int]:
        """Nodes with a mesh in the default scene, in the order of the file."""
        scenes = self.tree.get("scenes")
        if not scenes:
            inside = {*range(len(self.parents))}
        else:
            scene = self.item("scenes", self.tree.get("scene", 0))
            inside = {index for index in scene.get("nodes", []) if isinstance(index, int)}
            for index in self.ordered_nodes():
                if self.parents[index] in inside:
                    inside.add(index)
        return [index for index, node in enumerate(self.tree.get("nodes", [])) if "mesh" in node and index in inside]

    def triangles(self, primitive: dict[str, Any], count: int) -> Index:
        """Triangles (F, 3) of a primitive with `count` vertices; (0, 3) for points and lines."""
        mode = primitive.get("mode", 4)
        corners = self.array(primitive["indices"]) if "indices" in primitive else np.arange(count, dtype=np.uint32)
        if corners.dtype.kind != "u" or corners.ndim != 1:
            raise self.damaged("indices that are not whole numbers")
        if len(corners) and int(corners.max()) >= count:
            raise self.damaged(f"an index of {int(corners.max())} for {count} vertices")
        corners = np.asarray(corners, np.int32)
        if mode == 4:
            return corners[: len(corners) // 3 * 3].reshape(-1, 3).astype(np.int32)
        if mode == 5 and len(corners) >= 3:
            strip = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
            strip[1::2] = strip[1::2, [1, 0, 2]]
            return strip.astype(np.int32)
        if mode == 6 and len(corners) >= 3:
            first = np.full(len(corners) - 2, corners[0], np.int32)
            return np.stack([first, corners[1:-1], corners[2:]], axis=1).astype(np.int32)
        return np.zeros((0, 3), np.int32)

    def _array(self, index: Any) -> NDArray[Any]:
        accessor = self.item("accessors", index)
        dtype: np.dtype[Any] = np.dtype(_COMPONENTS[accessor["componentType"]])
        width = _WIDTHS[accessor["type"]]
        count = _natural(accessor["count"])
        size = dtype.itemsize * width
        self._reserve(count * size)
        if "bufferView" in accessor:
            values = self._strided(accessor["bufferView"], accessor.get("byteOffset", 0), count, dtype, width).copy()
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            changed = _natural(sparse["count"])
            if changed > count:
                raise ValueError("a sparse array is longer than the array")
            ids, stored = sparse["indices"], sparse["values"]
            kind = np.dtype(_COMPONENTS[ids["componentType"]])
            if kind.kind != "u":
                raise ValueError("the indices of a sparse array are not whole numbers from 0")
            rows = self._strided(ids["bufferView"], ids.get("byteOffset", 0), changed, kind, 1)[:, 0]
            if len(rows) and int(rows.max()) >= count:
                raise ValueError("a sparse array changes an element that does not exist")
            values[rows] = self._strided(stored["bufferView"], stored.get("byteOffset", 0), changed, dtype, width)
        if accessor.get("normalized") and dtype.kind in "iu":
            values = np.maximum(values.astype(np.float32) / np.float32(np.iinfo(dtype).max), -1)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"accessor {index} contains NaN or infinity")
        return values[:, 0] if width == 1 else values

    def _strided(self, view: Any, offset: Any, count: int, dtype: np.dtype[Any], width: int) -> NDArray[Any]:
        data, stride = self._view(view)
        offset, size = _natural(offset), dtype.itemsize * width
        step = stride or size
        if step < size or (count and offset + (count - 1) * step + size > len(data)):
            raise ValueError(f"an array of {count} elements exceeds its bufferView of {len(data)} bytes")
        return np.ndarray((count, width), dtype, data, offset, (step, dtype.itemsize))

    def _view(self, index: Any) -> tuple[bytes, int]:
        """Bytes of a buffer view, and its stride or 0."""
        view = self.item("bufferViews", index)
        stride = _natural(view.get("byteStride", 0))
        if index not in self._views:
            packed = next((view["extensions"][name] for name in _MESHOPT if name in view.get("extensions", {})), None)
            self._views[index] = self._slice(view) if packed is None else self._decompress(packed)
        if any(name in view.get("extensions", {}) for name in _MESHOPT):
            stride = next(_natural(view["extensions"][n]["byteStride"]) for n in _MESHOPT if n in view["extensions"])
        return self._views[index], stride

    def _slice(self, view: dict[str, Any]) -> bytes:
        start, length = _natural(view.get("byteOffset", 0)), _natural(view["byteLength"])
        buffer = self.buffer(view["buffer"])
        if start + length > len(buffer):
            raise ValueError(f"a bufferView ends at byte {start + length} of a buffer of {len(buffer)}")
        return buffer[start : start + length]

    def buffer(self, index: Any) -> bytes:
        """Bytes of a buffer. Raises ValueError, as `uri`, if they are not there."""
        buffer = self.item("buffers", index)
        if index not in self._buffers:
            data = self.uri(buffer["uri"]) if "uri" in buffer else self.chunk
            if _natural(buffer["byteLength"]) > len(data):
                raise ValueError(f"buffer {index} has {len(data)} of its {buffer['byteLength']} bytes")
            self._buffers[index] = data
        return self._buffers[index]

    def uri(self, uri: Any) -> bytes:
        """Bytes of a data URI, or of a file in the folder of this one."""
        if not isinstance(uri, str):
            raise ValueError("a URI is not a text")
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2], validate=True)
        name = unquote(uri)
        try:
            path = (self._folder / name).resolve()
            if "://" in uri or ":" in name or "\0" in name or not path.is_relative_to(self._folder):
                raise ValueError(f"it refers to {uri[:60]}, which is not in its folder")
            if not path.is_file():
                raise ValueError(f"{name[:60]} is missing")
        except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is a RuntimeError
            raise ValueError(f"{name[:60]} cannot be found") from error
        return _read_bytes(path)

    def _decompress(self, packed: dict[str, Any]) -> bytes:
        """A buffer view compressed by meshoptimizer (EXT_meshopt_compression)."""
        meshopt = require("meshoptimizer", "avatar")
        data = self._slice(packed)
        count, stride, mode = _natural(packed["count"]), _natural(packed["byteStride"]), packed["mode"]
        self._reserve(count * stride)
        if not 0 < stride <= 256 or not count:
            raise ValueError(f"a compressed array of {count} elements of {stride} bytes")
        try:
            if mode == "ATTRIBUTES":
                raw = meshopt.decode_vertex_buffer(count, stride, data, np.dtype((np.void, stride))).view(np.uint8)
            elif mode in ("TRIANGLES", "INDICES"):
                if stride not in (2, 4):
                    raise ValueError(f"indices of {stride} bytes")
                decode = meshopt.decode_index_buffer if mode == "TRIANGLES" else meshopt.decode_index_sequence
                # The package allocates four bytes for each index, and lets the decoder write `stride` of them.
                raw = decode(count, 4, data).astype(np.uint32 if stride == 4 else np.uint16).view(np.uint8)
            else:
                raise ValueError(f"unknown compression {mode!r:.20}")
            kind = packed.get("filter", "NONE")
            if kind not in ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL"):
                raise ValueError(f"unknown filter {kind!r:.20}")
            if kind != "NONE":
                names = {"OCTAHEDRAL": "oct", "QUATERNION": "quat", "EXPONENTIAL": "exp"}
                raw = getattr(meshopt, f"decode_filter_{names[kind]}")(raw, count, stride)
        except RuntimeError as error:
            raise ValueError(f"a compressed array is damaged ({error})") from error
        return bytes(raw.tobytes())

    def _reserve(self, size: int) -> None:
        """Check the memory for an array before it is allocated."""
        self._total += size
        if size > _MAX_ARRAY or self._total > _MAX_TOTAL:
            raise ValueError(f"it claims arrays of {max(size, self._total) / 1e9:.1f} GB")


def local_matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    """The matrix (4, 4) of a node in its parent."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64).reshape(4)
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not norm > 0:
        raise ValueError("a node's rotation is zero")
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return matrix


def read_gltf_mesh(path: Path) -> tuple[Float, Index]:
    """Vertices (V, 3) and triangles (F, 3) of all drawn meshes of a glTF file, in its units and axes."""
    gltf = Gltf(path)
    world = gltf.matrices()
    points: list[Float] = [np.zeros((0, 3), np.float32)]
    triangles: list[Index] = [np.zeros((0, 3), np.int32)]
    count = 0
    for node, primitive in gltf_primitives(gltf):
        try:
            positions = gltf.array(primitive["attributes"]["POSITION"]).astype(np.float32).reshape(-1, 3)
        except MALFORMED as error:
            raise gltf.damaged(error) from error
        matrix = np.eye(4) if "skin" in gltf.tree["nodes"][node] else world[node]  # a skinned mesh ignores its node
        points.append((positions @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32))
        triangles.append(gltf.triangles(primitive, len(positions)) + count)
        count += len(positions)
    return np.concatenate(points), np.concatenate(triangles).astype(np.int32)


def gltf_primitives(gltf: Gltf) -> Iterator[tuple[int, dict[str, Any]]]:
    """Drawn nodes with each primitive of their meshes."""
    try:
        for node in gltf.drawn_nodes():
            mesh = gltf.item("meshes", gltf.item("nodes", node)["mesh"])
            for primitive in mesh["primitives"]:
                if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                    raise gltf.damaged("it is compressed with Draco, which is not supported")
                yield node, primitive
    except MALFORMED as error:
        raise gltf.damaged(error) from error


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise FaceError(f"a file of more than {_MAX_FILE >> 20} MB: {path}. Reduce its textures and meshes")
        return path.read_bytes()
    except OSError as error:
        raise FaceError(f"the file cannot be read: {path} ({error.strerror}). Check its permissions") from error


def _split_container(data: bytes) -> tuple[bytes, bytes]:
    """JSON and binary chunk of a .glb; the whole of a .gltf and nothing."""
    if not data.startswith(b"glTF"):
        return data.removeprefix(b"\xef\xbb\xbf"), b""
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise ValueError(f"it is glTF {version}, not 2")
    if length > len(data):
        raise ValueError(f"it is truncated: {len(data)} of {length} bytes")
    text = chunk = b""
    start = 12
    while start + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, start)
        if start + 8 + size > length:
            raise ValueError("it is truncated: a chunk exceeds it")
        if kind == b"JSON" and not text:
            text = data[start + 8 : start + 8 + size]
        elif kind == b"BIN\0" and not chunk:
            chunk = data[start + 8 : start + 8 + size]
        start += 8 + size + -size % 4
    return text, chunk


def _find_parents(tree: dict[str, Any]) -> list[int]:
    """The parent of each node, or -1. Raises ValueError for a cycle or a node with two parents."""
    nodes = tree.get("nodes", [])
    if not isinstance(nodes, list) or len(nodes) > _MAX_NODES:
        raise ValueError("it has too many nodes")
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", []):
            if isinstance(child, bool) or not isinstance(child, int) or not 0 <= child < len(nodes):
                raise ValueError(f"nodes[{child}] does not exist")
            if parents[child] >= 0:
                raise ValueError(f"node {child} has two parents")
            parents[child] = index
    checked: set[int] = set()
    for first in range(len(nodes)):
        path: list[int] = []
        seen: set[int] = set()
        index = first
        while index >= 0 and index not in checked:
            if index in seen:
                raise ValueError(f"node {index} is its own ancestor")
            seen.add(index)
            path.append(index)
            index = parents[index]
        checked.update(path)
    return parents


def _finite(text: str) -> float:
    """A number of the tree. Raises ValueError for NaN, infinity and numbers that are too large, which JSON forbids."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is not a number")
    return value


def _natural(value: Any) -> int:
    """A non-negative integer of the tree. Raises ValueError if it is not one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r:.20} is not a count")
    return value
