"""Data of a fit: the default head as its source, the user's mesh, and the shapes that were transferred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker import resources
from sedtalker.face.asset_io import read_face
from sedtalker.face.assets import DEFAULT
from sedtalker.face.mesh_looks import MeshLooks
from sedtalker.face.registration import Match
from sedtalker.face.rig import Face, Float, Index


@dataclass(frozen=True)
class SourceHead:
    """The skin and the inside of the mouth of the default head."""

    face: Face
    used: NDArray[np.int64]  # (N,) vertices of the default head
    triangles: Index  # (F, 3) into `used`
    skin: NDArray[np.bool_]  # (N,) on the skin, not in the mouth
    front: NDArray[np.bool_]  # (N,) of the face: no neck, ears or back

    @property
    def points(self) -> Float:
        return self.face.template[self.used]

    def find(self, vertices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Rows of vertices of the default head."""
        return np.searchsorted(self.used, vertices)


@dataclass(frozen=True)
class UserMesh:
    """The user's mesh in metres, y up, facing +z."""

    path: Path
    points: Float  # (N, 3) vertices of the file
    triangles: Index  # (F, 3) of the file
    looks: MeshLooks  # materials and textures of the file
    whole: Float  # (M, 3) distinct positions
    unique: Index  # (N,) position of each vertex
    main: Index  # (G, 3) triangles between positions of the component with the face
    others: list[NDArray[np.int64]]  # positions of each other component


@dataclass(frozen=True)
class ShapeFit:
    """The registered head, and the shapes of the mesh's component with the face."""

    source: SourceHead
    mesh: UserMesh
    fitted: NDArray[np.float64]  # (N,) positions of the source on the mesh
    scale: float  # of the displacements
    used: NDArray[np.int64]  # (U,) positions of the component
    match: Match  # of the component on the registered head
    moved: Float  # (52, U, 3) displacements
    nearest: NDArray[np.int64]  # (N,) row of the component for each vertex of the source
    upper: NDArray[np.int64]  # rows of the lip pairs
    lower: NDArray[np.int64]
    blink: tuple[float, float]  # factors that close the lids
    close: float  # factor that closes the lips
    distances: NDArray[np.float64]  # (N,) metres from the source to the mesh

    @property
    def surface(self) -> Float:
        """Positions (U, 3) of the component."""
        return self.mesh.whole[self.used]


def read_source() -> SourceHead:
    """The packaged default head as the source of a fit."""
    face = read_face(resources.asset("face"), DEFAULT)
    skin, mouth = (surface.triangles for surface in face.surfaces[:2])
    used, inverse = np.unique(np.concatenate([skin, mouth]).ravel(), return_inverse=True)
    on_skin = np.isin(used, skin)
    front = np.isin(used, np.concatenate([face.masks["upper_face"], face.masks["lower_face"]]))
    return SourceHead(face, used, inverse.reshape(-1, 3).astype(np.int32), on_skin, front & on_skin)
