"""Retarget an animation to named blendshapes, or to the vertices of a fitted mesh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.errors import FaceError
from sedtalker.face.asset_io import MATERIALS
from sedtalker.face.assets import load_face
from sedtalker.face.blendshape_solver import Solution, face_basis, read_basis, solve
from sedtalker.face.rig import MESH, Face

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def retarget(animation: Animation, shapes: str | Path) -> tuple[Animation, Solution]:
    """The animation as weights of other blendshapes, and the solution with its residual.

    Vertices of the mesh that a head was fitted to become weights of the whole fitted head. Weights of another head
    become vertices of that mesh, and the residual is that of solving them again.

    Args:
        animation: with vertices in metres, or ARKit weights for a fitted head.
        shapes: the name of a head, a folder of `sedtalker face fit`, or a folder with `neutral.obj` and one `NAME.obj`
            per blendshape.

    Raises:
        FaceError: the head or folder is missing, or its shapes have another topology or unit.
    """
    if Path(shapes).is_dir() and not (Path(shapes) / MATERIALS).is_file():
        basis, face = read_basis(Path(shapes)), animation.face
    else:
        face = load_face(shapes)
        if MESH in face.parts and len(animation.template) != len(face.template):
            return _retarget_fitted(animation, face)
        basis = face_basis(face)
    solution = solve(animation.frames(), basis, template=animation.template)
    rig = replace(face, template=animation.template, blendshapes=basis.shapes, blendshape_names=basis.names)
    result = replace(animation, blendshapes=solution.weights, blendshape_names=basis.names, dense=None, rig=rig)
    return result, solution


def mesh_of(face: Face) -> Face:
    """The user's mesh of a fitted head, with its blendshapes, and without the eyes, teeth and tongue that were added.

    Raises:
        FaceError: the head was not fitted to a mesh.
    """
    if MESH not in face.parts or face.blendshapes is None:
        raise FaceError(f"not a fitted head: {face.name}. Make one with: sedtalker face fit")
    count = len(face.parts[MESH])
    triangles = face.faces[(face.faces < count).all(axis=1)]
    return Face(
        face.name, face.template[:count], triangles, blendshapes=face.blendshapes[:, :count],
        blendshape_names=face.blendshape_names,
    )  # fmt: skip


def _retarget_fitted(animation: Animation, face: Face) -> tuple[Animation, Solution]:
    mesh = mesh_of(face)
    meta = {**animation.meta, "face": face.name, "face_source": face.source}
    if len(animation.template) == len(mesh.template):
        solution = solve(animation.frames(), face_basis(mesh), template=animation.template)
        moved = replace(
            animation, template=face.template, faces=face.faces, blendshapes=solution.weights,
            blendshape_names=solution.names, dense=None, rig=face, meta=meta,
        )  # fmt: skip
        return moved, solution
    if animation.blendshapes is None or animation.blendshape_names != face.blendshape_names:
        raise FaceError(
            f"the topologies differ: the animation has {len(animation.template)} vertices, the mesh of {face.name} "
            f"{len(mesh.template)}, and the animation has no ARKit weights. Fit a mesh of its topology"
        )
    dense = mesh.pose(animation.blendshapes).astype(np.float32)
    solution = solve(dense, face_basis(mesh), template=mesh.template)
    vertices = replace(
        animation, template=mesh.template, faces=mesh.faces, blendshapes=None, blendshape_names=(), dense=dense,
        rig=replace(mesh, blendshapes=None, blendshape_names=()), meta={**animation.meta, "face": face.name},
    )  # fmt: skip
    return vertices, solution
