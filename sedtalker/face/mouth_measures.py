"""Mouth opening, width and protrusion of a rigged face as linear functions of its ARKit weights.

`Face.pose` is linear, so every measure is `rest + weights @ matrix`. Units are millimetres.

    gap               height of the upper lip's rim over the lower one's, three middle lip pairs; negative: overlap
    width             distance of the mouth corners along x
    upper_protrusion  forward motion of the upper lip's middle from rest
    lower_protrusion  the same of the lower lip
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face

Float = NDArray[np.float32]

MEASURES = ("gap", "width", "upper_protrusion", "lower_protrusion")
GAP, WIDTH, UPPER, LOWER = range(4)

MILLIMETRES = 1000.0
MIDDLE = 0.004  # metres from the middle of the face in which lip vertices are used for protrusion


@dataclass(frozen=True)
class MouthMeasures:
    """The measures of one face; columns are in the order of MEASURES."""

    rest: Float  # (4,) mm at weights of 0; protrusion is 0 there
    matrix: Float  # (52, 4) mm for a weight of 1
    lower_rise: Float  # (52,) mm that the lower lip's rim rises in the middle for a weight of 1

    def of_weights(self, weights: NDArray[np.floating]) -> Float:
        """Measures (..., 4) in mm of ARKit weights (..., 52)."""
        return (self.rest + np.asarray(weights, np.float32) @ self.matrix).astype(np.float32)

    def protrusion(self, weights: NDArray[np.floating]) -> Float:
        """Mean protrusion (...,) in mm of both lips for ARKit weights (..., 52)."""
        return self.of_weights(weights)[..., (UPPER, LOWER)].mean(axis=-1)


def mouth_measures(face: Face) -> MouthMeasures:
    """The measures of a rigged face.

    Raises:
        ValueError: the face has no blendshapes, lip pairs or mouth corners.
    """
    if face.blendshapes is None or face.lip_pairs is None or "mouth_left" not in face.landmarks:
        raise ValueError(f"face {face.name!r} has no blendshapes, lip pairs or mouth corners")
    shapes, template = face.blendshapes, face.template
    upper, lower = middle_lip_pairs(face).T
    left, right = face.landmarks["mouth_left"], face.landmarks["mouth_right"]
    upper_lip, lower_lip = lip_vertices(face)
    rest = (
        (template[upper, 1] - template[lower, 1]).mean(),
        template[left, 0] - template[right, 0],
        0.0,
        0.0,
    )
    matrix = (
        (shapes[:, upper, 1] - shapes[:, lower, 1]).mean(axis=1),
        shapes[:, left, 0] - shapes[:, right, 0],
        shapes[:, upper_lip, 2].mean(axis=1),
        shapes[:, lower_lip, 2].mean(axis=1),
    )
    return MouthMeasures(
        np.array(rest, np.float32) * MILLIMETRES,
        np.stack(matrix, axis=1).astype(np.float32) * MILLIMETRES,
        (shapes[:, lower, 1].mean(axis=1) * MILLIMETRES).astype(np.float32),
    )


@lru_cache(maxsize=1)
def default_measures() -> MouthMeasures:
    """Mouth measures of the default head."""
    return mouth_measures(load_face())


def middle_lip_pairs(face: Face) -> NDArray[np.integer]:
    """The three lip pairs (3, 2) in the middle of the mouth, upper and lower vertex."""
    assert face.lip_pairs is not None
    middle = len(face.lip_pairs) // 2
    return np.asarray(face.lip_pairs[middle - 1 : middle + 2])


def lip_vertices(face: Face) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The vertices of the upper and of the lower lip in the middle of the face, inner rim excluded."""
    assert face.lip_pairs is not None
    lips = np.asarray(face.masks["lips"])
    lips = lips[np.abs(face.template[lips, 0]) < MIDDLE]
    upper, lower = face.lip_pairs[len(face.lip_pairs) // 2]
    line = face.template[[upper, lower], 1].mean()
    height = face.template[lips, 1]
    return lips[height > line + 0.001], lips[height < line - 0.001]
