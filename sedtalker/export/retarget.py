"""An animation moved over to named shapes, so that formats which carry weights can carry it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sedtalker.face.assets import load_face
from sedtalker.face.blendshape_solver import Solution, face_basis, read_basis, solve

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def retarget(animation: Animation, shapes: str | Path) -> tuple[Animation, Solution]:
    """The motion as weights of a head's shapes (by its name), or of a folder with neutral.obj and NAME.obj files.

    Raises:
        FaceError: no such head or folder, or shapes of another topology or unit.
    """
    if Path(shapes).is_dir():
        basis, face = read_basis(Path(shapes)), animation.face
    else:
        face = load_face(shapes)
        basis = face_basis(face)
    solution = solve(animation.frames(), basis, template=animation.template)
    rig = replace(face, template=animation.template, blendshapes=basis.shapes, blendshape_names=basis.names)
    moved = replace(animation, blendshapes=solution.weights, blendshape_names=basis.names, dense=None, rig=rig)
    return moved, solution
