"""A small reader of triangle meshes: Wavefront OBJ and PLY, and through trimesh what else it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sedtalker.errors import FaceError, require
from sedtalker.face.rig import Float, Index


def read_mesh(path: Path) -> tuple[Float, Index]:
    """Vertices (V, 3) and triangles (F, 3) of a mesh file, in the file's order; polygons become fans.

    Raises:
        FaceError: the file is missing, broken, or holds no triangles.
    """
    if not path.is_file():
        raise FaceError(f"no such mesh: {path}. Give an .obj or .ply file")
    try:
        vertices, triangles = _read_obj(path) if path.suffix.lower() == ".obj" else _read_other(path)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise FaceError(f"the mesh cannot be read: {path} ({error}). Export it again as .obj or .ply") from error
    if len(vertices) == 0 or len(triangles) == 0:
        raise FaceError(f"the mesh holds no triangles: {path}. Export faces, not points")
    if not np.isfinite(vertices).all():
        raise FaceError(f"the mesh has vertices that are no numbers: {path}. Export it again")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise FaceError(f"a triangle names a vertex that is not there: {path}. Export it again")
    return vertices, triangles


def _read_obj(path: Path) -> tuple[Float, Index]:
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    for line in path.read_text().splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "f":
            corners = [int(corner.split("/")[0]) for corner in rest.split()]
            # OBJ counts from 1, and negative numbers count back from the last vertex read
            ids = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
            triangles.extend((ids[0], ids[k], ids[k + 1]) for k in range(1, len(ids) - 1))
    return np.array(vertices, np.float32).reshape(-1, 3), np.array(triangles, np.int32).reshape(-1, 3)


def _read_other(path: Path) -> tuple[Float, Index]:
    trimesh = require("trimesh", "mesh")
    try:
        mesh = trimesh.load(path, process=False, force="mesh")
    except Exception as error:  # each of its readers has errors of its own
        raise FaceError(f"not a mesh: {path} ({type(error).__name__}). Export it as .obj or .ply") from error
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
