"""Load faces: the packaged heads by name, or a mesh file."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sedtalker import resources
from sedtalker.errors import FaceError, FaceWarning, as_path, reason_of
from sedtalker.face.asset_io import MATERIALS, face_names, read_face, read_template
from sedtalker.face.avatar import is_rigged, load_avatar
from sedtalker.face.gltf import SUFFIXES
from sedtalker.face.identity import HEADS, is_person, parse_person, vary_face
from sedtalker.face.mesh import has_comment, read_mesh
from sedtalker.face.orientation import (
    HEAD_DISTANCE,
    STATEMENT,
    UPRIGHT,
    AlignmentError,
    Pose,
    align_vertices,
    is_mesh_size,
    longest_side,
    match_surface,
)
from sedtalker.face.rig import Face, Float, Index

DEFAULT = "default"

_LISTED = 6  # names of missing shapes in a message


def identities() -> tuple[str, ...]:
    """Names of the packaged heads."""
    return face_names(resources.asset("face"))


def load_face(name_or_path: str | Path = DEFAULT) -> Face:
    """Load a packaged head by name, a rigged avatar (.glb, .gltf, .vrm), or a mesh from a file (.obj, .ply).

    An avatar keeps its own meshes, materials and blendshapes; see `avatar`. Unit and axes of a mesh are determined
    from its shape, and it is converted to metres, y up, facing +z. A mesh with the default head's topology gets the
    default head's rig, surfaces, textures and landmarks; any other has only its template and triangles.

    Raises:
        FaceError: the head or file does not exist or cannot be read, the mesh is mirrored or has another vertex order,
            or its unit and axes are uncertain.

    Warns:
        FaceWarning: the mesh was rotated or scaled; the message states its unit and axes in the file. Or an avatar
            lacks shapes or lips; the message names them.
    """
    path = as_path(name_or_path, "a face", FaceError)
    name = str(name_or_path)
    if name in identities():
        return read_face(resources.asset("face"), name)
    if is_person(name):
        base, person = parse_person(name)
        return replace(vary_face(read_face(resources.asset("face"), base), HEADS[base], person), name=name, source=name)
    if (path / MATERIALS).is_file():
        return replace(read_face(path, face_names(path)[0]), name=path.name, source=str(path))
    if not path.suffix:
        raise FaceError(f"no head has this name: {name}. Choose one of {', '.join(identities())}, or give a mesh file")
    if path.suffix.lower() in SUFFIXES and is_rigged(path):
        face = load_avatar(path).face
        _warn_of_missing_shapes(face, path)
        if face.lip_pairs is None:
            warnings.warn(
                f"jawOpen parts no lips of this avatar: {path}. Its mouth may stay closed",
                FaceWarning,
                stacklevel=2,
            )
        return face
    return _from_mesh(path)


def _warn_of_missing_shapes(face: Face, path: Path) -> None:
    """Warn if ARKit shapes of an avatar move nothing."""
    assert face.blendshapes is not None
    still = [name for name, shape in zip(face.blendshape_names, face.blendshapes, strict=True) if not shape.any()]
    names = dict.fromkeys(name.removesuffix("Left").removesuffix("Right") for name in still)
    if names:
        listed = ", ".join([*names][:_LISTED]) + (" and others" if len(names) > _LISTED else "")
        total = len(face.blendshape_names)
        warnings.warn(
            f"{len(still)} of ARKit's {total} shapes move nothing on this avatar: {path} ({listed})",
            FaceWarning,
            stacklevel=3,
        )


def replace_skin(face: Face, picture: Path | str) -> Face:
    """The face with another skin: a picture with the layout of `assets/face/default_skin.webp`.

    The gloss of the skin is kept.

    Raises:
        FaceError: the face has no skin, or the picture cannot be read.
    """
    skins = [surface.material.texture for surface in face.surfaces if surface.material.kind == "skin"]
    if not skins or skins[0] is None:
        raise FaceError(f"face {face.name} has no texture coordinates for a skin: {picture}. Choose one of the heads")
    try:
        with Image.open(picture) as image:
            color = image.convert("RGB")
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise FaceError(f"no picture for a skin: {picture} ({reason}). Give a PNG, JPEG or WebP") from error
    gloss = Image.fromarray(np.ascontiguousarray(face.textures[skins[0]][..., 3])).resize(color.size)
    color.putalpha(gloss)
    return replace(face, textures={**face.textures, skins[0]: np.asarray(color)})


def _from_mesh(path: Path) -> Face:
    vertices, triangles = read_mesh(path)
    default = read_face(resources.asset("face"), DEFAULT)
    pose = find_pose(path, vertices, triangles)
    if pose is None and is_flame(vertices, triangles):
        warnings.warn(f"FLAME's topology is taken to be in {STATEMENT}: {path}", FaceWarning, stacklevel=3)
        pose = UPRIGHT
    if pose is None:
        raise FaceError(
            f"unit and axes of this mesh are not known: {path}. If it is in metres, y up and facing +z, add a comment "
            f'line to the file: "{"comment" if path.suffix.lower() == ".ply" else "#"} {STATEMENT}"'
        )
    if not pose.is_identity:
        warnings.warn(
            f"the mesh is {pose.describe()}: {path}. It was converted to {STATEMENT}", FaceWarning, stacklevel=3
        )
    vertices = pose.apply(vertices)
    if _has_default_topology(vertices, triangles, default):
        return replace(default, name=path.stem, template=vertices)
    return Face(path.stem, vertices, triangles)


def find_pose(path: Path, vertices: Float, triangles: Index, limit: float = HEAD_DISTANCE) -> Pose | None:
    """Unit and orientation of a mesh; None if its shape leaves them uncertain.

    Args:
        path: the mesh file, which may have a comment with the words of `STATEMENT`.
        vertices, triangles: (V, 3) and (F, 3) of the mesh, as in the file.
        limit: largest distance to the default head in metres, see `match_surface`.

    Raises:
        FaceError: the mesh is mirrored, in an unknown unit, or has the default head's number of vertices in another
            order.
    """
    default = read_face(resources.asset("face"), DEFAULT)
    if len(vertices) == len(default.template):
        if not _has_default_topology(vertices, triangles, default):
            raise FaceError(
                f"the mesh has as many vertices as the default head, but other triangles: {path}. "
                "Keep the order of vertices and triangles when exporting it"
            )
        templates = [read_template(resources.asset("face"), name) for name in identities()]
        try:
            return align_vertices(vertices, triangles, templates)
        except AlignmentError as error:
            reason, _, advice = str(error).partition(". ")
            raise FaceError(f"{reason}: {path}. {advice}") from error
    if has_comment(path, STATEMENT):
        size = longest_side(vertices)
        if not is_mesh_size(size):
            raise FaceError(f"the mesh is {size:.3g} m large: {path}. Scale it to metres (a head is about 0.25)")
        return UPRIGHT
    return match_surface(vertices, triangles, default.template, default.surfaces[0].triangles, limit)


def is_flame(vertices: Float, triangles: Index) -> bool:
    """Whether a mesh has FLAME's numbers of vertices and triangles, and the size of a head in metres."""
    from sedtalker.face.vertex_masks import FLAME_FACES, FLAME_VERTICES  # which imports this module

    return (len(vertices), len(triangles)) == (FLAME_VERTICES, FLAME_FACES) and is_mesh_size(longest_side(vertices))


def _has_default_topology(vertices: Float, triangles: Index, default: Face) -> bool:
    return len(vertices) == len(default.template) and np.array_equal(triangles, default.faces)
