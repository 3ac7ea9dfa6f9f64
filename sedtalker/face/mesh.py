"""Triangle meshes in files. OBJ is read and written here; trimesh reads PLY, STL and others."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError, reason_of, require
from sedtalker.face.gltf import SUFFIXES, read_gltf_mesh
from sedtalker.face.rig import Float, Index

_HEADER_BYTES = 65536  # searched for a comment or a PLY header


def read_mesh(path: Path) -> tuple[Float, Index]:
    """Read vertices (V, 3) and triangles (F, 3) of a mesh file, in the file's order; polygons become triangle fans.

    Raises:
        FaceError: the file is missing or damaged, or has no triangles.
    """
    if not path.is_file():
        raise FaceError(f"no such mesh: {path}. Give an .obj or .ply file")
    suffix = path.suffix.lower()
    read = _read_obj if suffix == ".obj" else read_gltf_mesh if suffix in SUFFIXES else _read_other
    try:
        vertices, triangles = read(path)
    except (ValueError, IndexError, OverflowError, OSError) as error:
        reason = reason_of(error)
        raise FaceError(f"the mesh cannot be read: {path} ({reason}). Export it again as .obj or .ply") from error
    if len(vertices) == 0 or len(triangles) == 0:
        raise FaceError(f"the mesh has no triangles: {path}. Export faces, not points")
    if not np.isfinite(vertices).all():
        raise FaceError(f"the mesh has vertices with NaN or infinite coordinates: {path}. Export it again")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise FaceError(f"a triangle refers to a vertex that does not exist: {path}. Export it again")
    return vertices, triangles


def format_obj(vertices: NDArray[np.floating], triangles: NDArray[np.integer], comment: str = "") -> bytes:
    """A Wavefront OBJ file of vertices (V, 3) and triangles (F, 3)."""
    head = f"# {comment}\n" if comment else ""
    return head.encode() + obj_vertices(vertices) + obj_triangles(triangles)


def obj_vertices(vertices: NDArray[np.floating]) -> bytes:
    """The lines of an OBJ file for vertices (V, 3), with six decimals."""
    return ("v %.6f %.6f %.6f\n" * len(vertices) % tuple(vertices.ravel().tolist())).encode()


def obj_triangles(triangles: NDArray[np.integer]) -> bytes:
    """The lines of an OBJ file for triangles (F, 3)."""
    return "".join(f"f {a} {b} {c}\n" for a, b, c in (triangles + 1).tolist()).encode()


def vertex_normals(vertices: NDArray[np.floating], triangles: Index) -> Float:
    """Unit normals (V, 3): the area-weighted mean over adjacent triangles; +z for vertices without triangles."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack(
        [np.bincount(triangles.ravel(), np.repeat(normal[:, axis], 3), minlength=len(vertices)) for axis in range(3)],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 0.0, 1.0]).astype(np.float32)


def has_comment(path: Path, words: str) -> bool:
    """Whether a comment near the start of an OBJ or PLY file contains these words."""
    if path.suffix.lower() not in (".obj", ".ply"):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES).decode("latin-1")
    except OSError:
        return False
    marks = ("comment",) if path.suffix.lower() == ".ply" else ("#",)
    return any(words in " ".join(line.split()) for line in head.splitlines() if line.startswith(marks))


class ObjCorners(NamedTuple):
    """Triangles of an OBJ file with their texture coordinates and materials."""

    vertices: Float  # (V, 3)
    triangles: Index  # (F, 3)
    uv: Float  # (U, 2), v up
    uv_triangles: Index  # (F, 3) into `uv`; -1 for corners without
    material: Index  # (F,) into `materials`
    materials: tuple[str, ...]
    libraries: tuple[str, ...]  # files of materials


def read_obj_corners(path: Path) -> ObjCorners:
    """Read an OBJ file; polygons become triangle fans. Raises ValueError or IndexError if it is damaged."""
    vertices: list[list[float]] = []
    coordinates: list[list[float]] = []
    corners: list[tuple[tuple[int, int], ...]] = []
    of_triangle: list[int] = []
    materials: dict[str, int] = {}
    libraries: list[str] = []
    material = ""
    for line in re.split(r"[\r\n]+", _decode(path.read_bytes())):  # splitlines splits at other bytes too
        kind, _, rest = line.strip().replace("\t", " ").partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            coordinates.append(_texture_coordinates(rest))
        elif kind == "usemtl":
            material = rest.strip()
        elif kind == "mtllib":
            libraries.append(rest.strip())
        elif kind == "f":
            places = [_corner(word, len(vertices), len(coordinates)) for word in rest.split()]
            for k in range(1, len(places) - 1):
                corners.append((places[0], places[k], places[k + 1]))
                of_triangle.append(materials.setdefault(material, len(materials)))
    ids = np.array(corners, np.int32).reshape(-1, 3, 2)
    with np.errstate(over="ignore"):  # a coordinate too large for float32 becomes infinite, which is refused
        points, uv = np.array(vertices, np.float32).reshape(-1, 3), np.array(coordinates, np.float32).reshape(-1, 2)
    places_of_uv = np.where(ids[..., 1] < len(uv), ids[..., 1], -1)
    if not np.isfinite(uv).all():
        places_of_uv[:], uv = -1, np.zeros((0, 2), np.float32)
    numbers = np.array(of_triangle, np.int32)
    return ObjCorners(points, ids[..., 0], uv, places_of_uv, numbers, tuple(materials), tuple(libraries))


def _texture_coordinates(text: str) -> list[float]:
    """u and v; NaN if they are not numbers."""
    try:
        u, v = (float(x) for x in (*text.split()[:2], "0")[:2])
    except ValueError:
        return [float("nan")] * 2
    return [u, v]


def _corner(word: str, vertices: int, coordinates: int) -> tuple[int, int]:
    """Vertex and texture coordinates of a word such as `3/4/5`; -1 for no texture coordinates, or wrong ones.

    OBJ counts from 1, and negative numbers count back from the last one read.
    """
    first, _, rest = word.partition("/")
    vertex = int(first)
    vertex = vertex - 1 if vertex > 0 else vertices + vertex
    text = rest.partition("/")[0]
    try:
        place = int(text) if text else 0
    except ValueError:
        place = 0
    if place < 0:
        place += coordinates + 1
    return vertex, max(place, 0) - 1


def _read_obj(path: Path) -> tuple[Float, Index]:
    corners = read_obj_corners(path)
    return corners.vertices, corners.triangles


def _decode(data: bytes) -> str:
    """Text of an OBJ file. Its data is ASCII; names and comments may be in any encoding."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("latin-1")


def _read_other(path: Path) -> tuple[Float, Index]:
    _check_ply_counts(path)
    trimesh = require("trimesh", "mesh")
    try:
        if path.suffix.lower() == ".ply":
            mesh = trimesh.load_mesh(_ascii_header(path), file_type="ply", process=False, maintain_order=True)
        else:
            mesh = trimesh.load_mesh(path, process=False, maintain_order=True)
        with np.errstate(over="ignore"):
            return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    except NotImplementedError as error:
        raise FaceError(f"not a kind of mesh that can be read: {path}. Export it as .obj or .ply") from error
    except Exception as error:  # its readers raise errors of many types
        raise FaceError(f"not a mesh: {path} ({type(error).__name__}). Export it as .obj or .ply") from error


def _ascii_header(path: Path) -> io.BytesIO:
    """A PLY file with an ASCII header: trimesh refuses comments in other encodings than UTF-8."""
    header, end, body = path.read_bytes().partition(b"end_header")
    return io.BytesIO(re.sub(rb"[\x80-\xff]", b"?", header) + end + body)


def _check_ply_counts(path: Path) -> None:
    """Check the counts in the header of a PLY file before memory is allocated for them."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if not head.startswith(b"ply"):
        return
    size = path.stat().st_size
    for line in head.partition(b"end_header")[0].splitlines():
        words = line.split()
        if words[:1] == [b"element"] and not (len(words) == 3 and words[2].isdigit() and int(words[2]) <= size):
            raise ValueError(f"a count in its header exceeds its {size} bytes")
