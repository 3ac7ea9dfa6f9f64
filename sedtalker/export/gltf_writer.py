"""Writing glTF 2.0: a document with its binary buffer, the curves of an animation, and the chunks of a .glb file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPONENTS = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Document:
    """The JSON tree of a glTF file and its binary buffer; lists that stay empty are not written."""

    def __init__(self, *lists: str) -> None:
        """`lists` are the first lists of the tree, in the order of the file."""
        self.tree: dict[str, Any] = {"asset": {"version": "2.0", "generator": "sedtalker"}}
        self.tree |= {name: [] for name in lists}
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
        entry = {"bufferView": self.view(np.ascontiguousarray(values).tobytes(), target), **describe_values(values)}
        if normalized:
            entry["normalized"] = True
        if bounds:
            entry |= value_bounds(values.reshape(len(values), -1))
        return self.add("accessors", entry)

    def sparse(self, count: int, vertices: NDArray[np.int32], values: NDArray[np.float32], bounds: bool) -> int:
        """An accessor of `count` vectors that are zero except `values` (M, 3) at `vertices` (M,)."""
        entry: dict[str, Any] = {"componentType": 5126, "count": count, "type": "VEC3"}
        if bounds:
            zero = np.zeros((0 if len(values) == count else 1, 3), np.float32)
            entry |= value_bounds(np.concatenate([zero, values]))
        if len(vertices):
            numbers = vertices.astype(np.uint16 if count <= 65536 else np.uint32)
            entry["sparse"] = {
                "count": len(vertices),
                "indices": {
                    "bufferView": self.view(numbers.tobytes()),
                    "componentType": COMPONENTS[numbers.dtype.name],
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
        if self._length:
            tree["buffers"] = [{"byteLength": self._length}]
        yield glb_head(tree, self._length)
        yield from chain.from_iterable(self._pieces)


class AnimationCurves:
    """The samplers and channels of an animation, which share their times."""

    def __init__(self, times: int) -> None:
        """`times` is the accessor of the seconds of the frames."""
        self._times = times
        self._samplers: list[dict[str, Any]] = []
        self._channels: list[dict[str, Any]] = []

    def drive(self, node: int, path: str, values: int) -> None:
        """Animate a property of a node (`weights`, `rotation` or `translation`) with the values of an accessor."""
        self._samplers.append({"input": self._times, "output": values, "interpolation": "LINEAR"})
        self._channels.append({"sampler": len(self._samplers) - 1, "target": {"node": node, "path": path}})

    def entries(self) -> list[dict[str, Any]]:
        """The animation as an entry of the tree's `animations`; none without channels."""
        if not self._channels:
            return []
        return [{"name": "speech", "samplers": self._samplers, "channels": self._channels}]


def frame_times(count: int, fps: float) -> NDArray[np.float32]:
    """Seconds (T,) of the frames."""
    return (np.arange(count) / fps).astype(np.float32)


def glb_head(tree: dict[str, Any], length: int) -> bytes:
    """The header and the JSON chunk of a .glb file, and the header of its binary chunk of `length` bytes, if any."""
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + (8 + length if length else 0)
    head = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON") + text
    return head + (struct.pack("<I4s", length, b"BIN\0") if length else b"")


def describe_values(values: NDArray[Any]) -> dict[str, Any]:
    """The entries of an accessor that tell type and number of its values (N,) or (N, C)."""
    width = 1 if values.ndim == 1 else int(np.prod(values.shape[1:]))
    return {"componentType": COMPONENTS[values.dtype.name], "count": len(values), "type": _TYPES[width]}


def value_bounds(values: NDArray[np.floating]) -> dict[str, list[float]]:
    """The entries of an accessor that tell the range of its values (N, C) by component."""
    return {"min": values.min(0).astype(float).tolist(), "max": values.max(0).astype(float).tolist()}
