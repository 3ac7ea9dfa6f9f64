"""Faces by name or from a mesh file of the user's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sedtalker import resources
from sedtalker.errors import FaceError
from sedtalker.face.files import face_names, read_face
from sedtalker.face.mesh import read_mesh
from sedtalker.face.rig import Face, Float

DEFAULT = "default"

# A head measures 0.2 to 0.3 m; with neck and shoulders about 0.6. What lies far outside is in another unit.
_LEAST_SIZE, _MOST_SIZE = 0.08, 2.5  # metres, the longest side of the box around a mesh


def identities() -> tuple[str, ...]:
    """Names of the heads that come with the package."""
    return face_names(resources.asset("face"))


def load_face(name_or_path: str | Path = DEFAULT) -> Face:
    """A head that comes with the package, or a mesh.

    A mesh (.obj, .ply) is in metres, y up, facing +z. With the default head's topology it gets the default head's rig,
    surfaces, textures and landmarks; any other mesh has its template and triangles alone.

    Raises:
        FaceError: there is no such head or file, it cannot be read, or it is in another unit or vertex order.
    """
    name = str(name_or_path)
    if name in identities():
        return read_face(resources.asset("face"), name)
    path = Path(name_or_path)
    if not path.suffix:
        raise FaceError(f"no head has this name: {name}. Choose one of {', '.join(identities())}, or give a mesh file")
    return _from_mesh(path)


def with_skin(face: Face, picture: Path | str) -> Face:
    """The face with another skin: a picture laid out as the head's own (`assets/face/default_skin.webp`).

    The skin's gloss stays the head's own.

    Raises:
        FaceError: the face has no skin to exchange, or the picture cannot be read.
    """
    skins = [surface.material.texture for surface in face.surfaces if surface.material.kind == "skin"]
    if not skins or skins[0] is None:
        raise FaceError(f"face {face.name} has no texture coordinates for a skin: {picture}. Choose one of the heads")
    try:
        with Image.open(picture) as opened:
            color = opened.convert("RGB")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FaceError(f"no picture for a skin: {picture} ({reason}). Give a PNG, JPEG or WebP") from error
    gloss = Image.fromarray(np.ascontiguousarray(face.textures[skins[0]][..., 3])).resize(color.size)
    color.putalpha(gloss)
    return replace(face, textures={**face.textures, skins[0]: np.asarray(color)})


def _from_mesh(path: Path) -> Face:
    vertices, triangles = read_mesh(path)
    size = float(np.ptp(vertices, axis=0).max())
    if not _LEAST_SIZE <= size <= _MOST_SIZE:
        raise FaceError(f"the mesh is {size:.3g} m large: {path}. Scale it to metres (a head is about 0.25)")
    default = read_face(resources.asset("face"), DEFAULT)
    if len(vertices) != len(default.template):
        return Face(path.stem, vertices, triangles)
    if not np.array_equal(triangles, default.faces):
        raise FaceError(
            f"the mesh has as many vertices as the default head, but other triangles: {path}. "
            "Keep the order of vertices and triangles when exporting it"
        )
    _check_order(vertices, default, path)
    return replace(default, name=path.stem, template=vertices)


def _check_order(vertices: Float, default: Face, path: Path) -> None:
    """Refuse a head whose parts do not lie where those of a head lie."""
    height = {name: vertices[ids, 1].mean() for name, ids in default.parts.items()}
    depth = {name: vertices[ids, 2].mean() for name, ids in default.parts.items()}
    eyes_above_lips = min(height["eye_left"], height["eye_right"]) > height["lips"]
    lips_before_tongue = depth["lips"] > depth["tongue"]
    left_is_left = vertices[default.parts["eye_left"], 0].mean() > vertices[default.parts["eye_right"], 0].mean()
    if not (eyes_above_lips and lips_before_tongue and left_is_left):
        raise FaceError(
            f"the mesh's vertices are in another order, or it faces another way: {path}. "
            "Keep the order of vertices; y is up, the face looks to +z"
        )
