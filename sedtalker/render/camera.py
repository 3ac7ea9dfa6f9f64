"""Perspective camera, and the cameras of a face's views."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sedtalker.errors import RenderError
from sedtalker.face.framing import FIELD_OF_VIEW, HALF_VIEW, between_eyes, frame_face, has_eyes
from sedtalker.face.rig import Face
from sedtalker.render.arrays import Float
from sedtalker.render.config import VIEWS, RenderConfig

TURN_SECONDS = 8.0  # of one revolution of the turntable

# Offset in metres from the middle of the eyes to the middle of a portrait with hair, neck and shoulders.
_PORTRAIT_OFFSET = np.array([0.0, -0.045, -0.06])
_PORTRAIT_DISTANCE = 1.0
_HEADROOM = 0.95  # share of the picture's upper half that hair may fill
_FILL = 0.86  # share of the picture that a bare mesh fills


@dataclass(frozen=True)
class Camera:
    """A perspective camera aimed at a point. World axes: y up, the face looks along +z, its left is +x."""

    target: tuple[float, float, float] = (0.0, 0.0, 0.0)  # metres
    distance: float = 1.0  # metres from the target
    yaw: float = 0.0  # degrees around the head, towards the person's left
    pitch: float = 0.0  # degrees above the horizon
    field_of_view: float = FIELD_OF_VIEW  # degrees across the shorter side of the picture

    def eye(self) -> Float:
        """Position (3,) in metres."""
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        away = (math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch))
        return (np.array(self.target) + self.distance * np.array(away)).astype(np.float32)

    def axes(self) -> Float:
        """(3, 3) rows: right, up and backward of the camera in the world."""
        backward = (self.eye() - np.array(self.target)) / self.distance
        right = np.cross((0.0, 1.0, 0.0), backward)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward]).astype(np.float32)

    def focal(self, width: int, height: int) -> float:
        """Focal length in pixels."""
        return 0.5 * min(width, height) / math.tan(math.radians(self.field_of_view) / 2)

    def project(self, points: Float, width: int, height: int) -> Float:
        """Project (N, 3) metres to (N, 3): x and y in pixels from the top left corner, and 1 / depth in 1 / metres."""
        local = (points - self.eye()) @ self.axes().T
        inverse = 1.0 / np.maximum(-local[:, 2], 1e-3)
        focal = self.focal(width, height)
        x, y = width / 2 + focal * local[:, 0] * inverse, height / 2 - focal * local[:, 1] * inverse
        return np.stack([x, y, inverse], 1).astype(np.float32)


def portrait_camera(face: Face) -> Camera:
    """The front camera of a face: a portrait with shoulders, or a bare mesh that fills the picture."""
    if has_eyes(face):
        x, y, z = (between_eyes(face) + _PORTRAIT_OFFSET).tolist()
        heights = [float(attachment.place(face.template)[:, 1].max()) for attachment in face.attachments.values()]
        top = max(float(face.template[:, 1].max()), *heights) if heights else float(face.template[:, 1].max())
        return Camera(target=(x, y, z), distance=max(_PORTRAIT_DISTANCE, (top - y) / (_HEADROOM * HALF_VIEW)))
    used = face.template[np.unique(face.faces)] if len(face.faces) else face.template
    low, high = used.min(0), used.max(0)
    x, y, z = ((low + high) / 2).tolist()
    half = max(float((high - low)[:2].max()) / 2, 1e-6)
    return Camera(target=(x, y, z), distance=half / (_FILL * HALF_VIEW) + float(high[2] - z))


def front_camera(face: Face, framing: str = RenderConfig.framing) -> Camera:
    """The front camera of a face: "face" fills two thirds of the picture's height with it, "portrait" shows shoulders.

    A bare mesh fills the picture in both.
    """
    framed = frame_face(face) if framing == "face" else None
    return portrait_camera(face) if framed is None else Camera(target=framed[0], distance=framed[1])


def view_camera(front: Camera, view: str, seconds: float = 0.0) -> Camera:
    """The camera of a named view; the turntable turns with time. Raises RenderError if the view is unknown."""
    if view not in VIEWS:
        raise RenderError(f"unknown view: {view}. Choose one of {', '.join(VIEWS)}")
    turn = 360.0 * seconds / TURN_SECONDS if view == "turntable" else 0.0
    return replace(front, yaw=front.yaw + VIEWS[view] + turn)
