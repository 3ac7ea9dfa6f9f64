"""Materials and texture coordinates of a mesh file: an OBJ with its MTL, or glTF."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.errors import FaceWarning
from sedtalker.face.avatar_materials import LOOKS, Look, Pictures, classify, fit_picture, tile_picture, wrap_coordinates
from sedtalker.face.gltf import MALFORMED, MAX_PIXELS, SUFFIXES, Gltf, gltf_primitives
from sedtalker.face.mesh import ObjCorners, read_obj_corners
from sedtalker.face.rig import Index

_REPEAT = (10497, 10497)  # glTF's number of a texture that is repeated along both axes, as OBJ's are
_TEXTURE = "own_texture_"  # names of textures in a face's folder
_GREY = 0.05  # largest difference between the channels of a grey


@dataclass(frozen=True)
class Part:
    """Triangles of a mesh with one material."""

    triangles: Index  # (K,) rows of the mesh's triangles
    look: Look  # of these triangles
    kind: str  # of the material by its names, see `classify`

    @property
    def has_color(self) -> bool:
        """Whether the material has a texture or a colour: white and grey are what programs write without one."""
        material = self.look.material
        return material.texture is not None or max(material.tint) - min(material.tint) > _GREY


@dataclass(frozen=True)
class MeshLooks:
    """The parts of a mesh that have texture coordinates or a material, and their textures by name."""

    parts: tuple[Part, ...] = ()
    textures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    def flip(self) -> MeshLooks:
        """The looks of the mesh whose triangles (a, b, c) became (a, c, b)."""
        parts = [
            replace(part, look=part.look._replace(uv_triangles=part.look.uv_triangles[:, [0, 2, 1]]))
            for part in self.parts
        ]
        return replace(self, parts=tuple(parts))


def read_looks(path: Path) -> MeshLooks:
    """Materials and texture coordinates of a mesh file; none for formats and meshes without them.

    Raises:
        FaceError: the file is missing or damaged.

    Warns:
        FaceWarning: a picture or a material library is missing, or is outside of the mesh's folder.
    """
    suffix = path.suffix.lower()
    if suffix == ".obj":
        return _obj_looks(path)
    return _gltf_looks(path) if suffix in SUFFIXES else MeshLooks()


def _gltf_looks(path: Path) -> MeshLooks:
    gltf = Gltf(path)
    pictures = Pictures(gltf)
    parts = []
    first = 0
    for node, primitive in gltf_primitives(gltf):
        try:
            count = int(gltf.item("accessors", primitive["attributes"]["POSITION"])["count"])
            triangles = gltf.triangles(primitive, count)
            rows = np.arange(first, first + len(triangles), dtype=np.int32)
            first += len(triangles)
            if not len(triangles) or "material" not in primitive:
                continue
            entries = (gltf.item("materials", primitive["material"]), gltf.item("nodes", node))
            kind = classify(" ".join(str(entry.get("name", "")) for entry in entries), False)
            sets = {
                number: gltf.array(primitive["attributes"][f"TEXCOORD_{number}"]).astype(np.float32)
                for number in range(4)
                if f"TEXCOORD_{number}" in primitive["attributes"]
            }
            if any(len(values) != count for values in sets.values()):
                raise ValueError("the attributes of a mesh differ in number")
            look = pictures.look(primitive, kind, sets, triangles)
        except MALFORMED as error:
            raise gltf.damaged(error) from error
        # The height of a bump map is in texels here; skin without it is drawn well.
        look = look._replace(material=replace(look.material, bump=None, bump_height=0.0))
        parts.append(Part(rows, look, kind))
    names = {
        name: f"{_TEXTURE}{k}" for k, name in enumerate(dict.fromkeys(p.look.material.texture for p in parts)) if name
    }
    return MeshLooks(
        tuple(_rename_texture(part, names) for part in parts),
        {new: pictures.textures[name] for name, new in names.items()},
    )


def _rename_texture(part: Part, names: Mapping[str, str]) -> Part:
    texture = part.look.material.texture
    material = replace(part.look.material, texture=None if texture is None else names[texture])
    return replace(part, look=part.look._replace(material=material))


def _obj_looks(path: Path) -> MeshLooks:
    corners = read_obj_corners(path)
    if not len(corners.uv) and not corners.libraries:
        return MeshLooks()
    library: dict[str, dict[str, str]] = {}
    for name in corners.libraries:
        library |= _read_library(path, name)
    textures: dict[str, NDArray[np.uint8]] = {}
    parts = []
    for number, name in enumerate(corners.materials):
        rows = np.flatnonzero(corners.material == number).astype(np.int32)
        if len(rows):
            parts.append(_obj_part(path, corners, rows, name, library.get(name, {}), textures))
    return MeshLooks(tuple(parts), textures)


def _obj_part(
    path: Path, corners: ObjCorners, rows: Index, name: str, entry: dict[str, str],
    textures: dict[str, NDArray[np.uint8]],
) -> Part:  # fmt: skip
    kind = classify(name, False)
    pixels = _read_picture(path, entry["map_kd"]) if "map_kd" in entry else None
    uv_triangles = corners.uv_triangles[rows]
    textured = bool(len(corners.uv)) and bool((uv_triangles >= 0).all())
    material = replace(LOOKS[kind], tint=_linear_colour(entry.get("kd", "")) if pixels is None else (1.0, 1.0, 1.0))
    opacity = _opacity(entry)
    if not textured:
        uv, uv_triangles = np.zeros((1, 2), np.float32), np.zeros_like(uv_triangles)
        pixels = None
    else:
        v_down = corners.uv.astype(np.float64) * (1, -1) + (0, 1)
        wrapped, tiles = wrap_coordinates(v_down, uv_triangles, _REPEAT)
        uv = (wrapped.uv * (1, -1) + (0, 1)).astype(np.float32)
        uv_triangles = wrapped.triangles
        pixels = None if pixels is None else tile_picture(pixels, tiles)
    clear = opacity < 1 or (pixels is not None and kind != "skin" and int(pixels[..., 3].min()) < 250)
    if clear and kind != "skin":
        pixels = np.full((1, 1, 4), 255, np.uint8) if pixels is None else pixels.copy()
        pixels[..., 3] = (pixels[..., 3] * opacity + 0.5).astype(np.uint8)
        material = replace(material, mode="hair" if kind == "hair" else "blend")
    if pixels is not None:
        title = f"{_TEXTURE}{len(textures)}"
        textures[title] = pixels
        material = replace(material, texture=title)
    return Part(rows, Look(material, uv, uv_triangles), kind)


def _read_library(path: Path, name: str) -> dict[str, dict[str, str]]:
    """Statements of an MTL file by material, with names in lower case."""
    file = _in_folder(path, name)
    try:
        text = "" if file is None else file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    if not text:
        _warn(path, name)
    materials: dict[str, dict[str, str]] = {}
    own: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key.lower() == "newmtl":
            own = materials.setdefault(value.strip(), {})
        elif key and not key.startswith("#"):
            own[key.lower()] = value.strip()
    return materials


def _read_picture(path: Path, statement: str) -> NDArray[np.uint8] | None:
    """Pixels (H, W, 4) of a texture map of an MTL file; None, with a warning, if it cannot be read."""
    name = _file_name(statement)
    file = _in_folder(path, name)
    try:
        if file is None:
            raise OSError("missing")
        with Image.open(file, formats=("PNG", "JPEG", "WEBP", "BMP", "TIFF")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError("too large")
            return fit_picture(np.asarray(image.convert("RGBA")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        _warn(path, name)
        return None


def _file_name(statement: str) -> str:
    """The file of a texture statement, after its options: `-s 1 1 1 skin 1.png`."""
    if not statement.startswith("-"):
        return statement
    try:
        words = shlex.split(statement, posix=False)
    except ValueError:
        words = statement.split()
    while words and words[0].startswith("-"):
        words.pop(0)
        while len(words) > 1 and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|on|off", words[0], re.IGNORECASE):
            words.pop(0)
    return " ".join(words)


def _in_folder(path: Path, name: str) -> Path | None:
    """A file that a mesh refers to, in the mesh's folder; of a path elsewhere, the file with its name there."""
    folder = path.resolve().parent
    for candidate in (name.replace("\\", "/"), PureWindowsPath(name).name):
        if candidate and "\0" not in candidate:
            file = (folder / candidate).resolve()
            if file.is_relative_to(folder) and file.is_file():
                return file
    return None


def _warn(path: Path, name: str) -> None:
    warnings.warn(
        f"no {name[:60]} in the folder of {path}: a part of the mesh has no texture", FaceWarning, stacklevel=2
    )


def _opacity(entry: Mapping[str, str]) -> float:
    for key, invert in (("d", False), ("tr", True)):
        try:
            value = float(entry.get(key, "").split()[-1])
        except (ValueError, IndexError):
            continue
        return float(np.clip(1 - value if invert else value, 0, 1))
    return 1.0


def _linear_colour(text: str) -> tuple[float, float, float]:
    """Linear RGB of a statement such as `Kd 0.8 0.6 0.5`, in sRGB as most programs write it; light grey without one."""
    try:
        values = np.clip(np.array([float(word) for word in text.split()[:3]]).reshape(3), 0, 1)
    except ValueError:
        values = np.full(3, 0.8)
    red, green, blue = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).tolist()
    return red, green, blue
