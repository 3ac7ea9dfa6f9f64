"""Retarget an animation to named blendshapes, for the formats that hold weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sedtalker.face.assets import load_face
from sedtalker.face.blendshape_solver import Solution, face_basis, read_basis, solve

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def retarget(animation: Animation, shapes: str | Path) -> tuple[Animation, Solution]:
    """The animation as weights of other blendshapes, and the solution with its residual.

    Args:
        animation: with vertices in metres.
        shapes: the name of a head, or a folder with `neutral.obj` and one `NAME.obj` per blendshape.

    Raises:
        FaceError: the head or folder is missing, or its shapes have another topology or unit.
    """
    if Path(shapes).is_dir():
        basis, face = read_basis(Path(shapes)), animation.face
    else:
        face = load_face(shapes)
        basis = face_basis(face)
    solution = solve(animation.frames(), basis, template=animation.template)
    rig = replace(face, template=animation.template, blendshapes=basis.shapes, blendshape_names=basis.names)
    result = replace(animation, blendshapes=solution.weights, blendshape_names=basis.names, dense=None, rig=rig)
    return result, solution
