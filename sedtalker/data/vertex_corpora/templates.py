"""Templates and triangles that vertex corpora ship with their sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.data.safe_files import load_array_dict
from sedtalker.data.vertex_corpora.sequences import Template
from sedtalker.errors import DataError, FaceError
from sedtalker.face.mesh import read_mesh


def read_templates(root: Path, named: Path | str | None = None) -> dict[str, Template]:
    """Subject -> (V, 3) of `templates.pkl`: the one named, or in the folder or the one above it.

    Raises:
        DataError: there is none, or it holds something else.
    """
    candidates = [Path(named)] if named else [root / "templates.pkl", root.parent / "templates.pkl"]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise DataError(f"no templates.pkl: {named or root}. Copy it from the corpus, or name it with --templates")
    return {name: template.astype(np.float32) for name, template in load_array_dict(path).items()}


def read_triangles(root: Path) -> NDArray[np.int32] | None:
    """Triangles (F, 3) of the mesh that a corpus ships: `FLAME_sample.ply`, or `sample.obj` of a synthetic corpus.

    Raises:
        DataError: the file is there and cannot be read.
    """
    for folder in (root / "templates", root, root.parent):
        for name in ("FLAME_sample.ply", "sample.obj"):
            if (folder / name).is_file():
                return read_template_mesh(folder / name)[1]
    return None


def read_template_mesh(path: Path) -> tuple[Template, NDArray[np.int32]]:
    """Vertices (V, 3) and triangles (F, 3) of a mesh file. Raises DataError if it cannot be read."""
    try:
        return read_mesh(path)
    except FaceError as error:
        raise DataError(str(error)) from error
