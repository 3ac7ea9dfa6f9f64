"""Where a camera stands so that a face fills the picture, shared by the renderer and the page."""

from __future__ import annotations

import math

import numpy as np

from sedtalker.face.rig import MESH, Face, Float

FIELD_OF_VIEW = 20.0  # degrees across the shorter side of the picture
HALF_VIEW = math.tan(math.radians(FIELD_OF_VIEW) / 2)

_OFFSET = np.array([0.0, -0.006, -0.06])  # metres from the middle of the eyes to the middle of the face
_SHARE = 2 / 3  # of the picture's height from the chin to the hairline
_HEIGHT = 1.72  # of the face to the hairline, in distances from the chin to the eyes


def has_eyes(face: Face) -> bool:
    """Whether a face has eyes, and hair or a neck."""
    complete = bool(face.attachments) or face.head_weights is not None or MESH in face.parts
    return "eye_left" in face.parts and "eye_right" in face.parts and complete


def between_eyes(face: Face) -> Float:
    """The middle (3,) of the eyes in metres."""
    left, right = (face.template[face.parts[name]].mean(0) for name in ("eye_left", "eye_right"))
    return ((left + right) / 2).astype(np.float32)


def frame_face(face: Face) -> tuple[tuple[float, float, float], float] | None:
    """Target and distance, in metres, of a front camera in whose picture the face is two thirds of the height.

    None for a face without eyes or chin.
    """
    if "chin" not in face.landmarks or not has_eyes(face):
        return None
    eyes, chin = between_eyes(face), face.template[face.landmarks["chin"]]
    x, y, z = (eyes + _OFFSET).tolist()
    half = _HEIGHT * float(eyes[1] - chin[1]) / _SHARE / 2
    return (x, y, z), half / HALF_VIEW + float(chin[2]) - z
