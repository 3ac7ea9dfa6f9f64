"""Videos of the worst, median and best clip of an evaluation: prediction, truth and error side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError
from sedtalker.evaluation.talker import Result
from sedtalker.evaluation.truth import FolderTruth, Item, Predict, StoreTruth, Truth
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.render.animation_video import render_comparison
from sedtalker.render.video import Audio

RANKED_BY = ("lve_l2", "mve")  # measures that clips are ranked by; the first available one is used


def render_extremes(result: Result, predict: Predict, truth: Truth, folder: Path, face: Face) -> list[Path]:
    """Render the worst, median and best clip to `worst_ID.mp4` and so on; returns the paths.

    Clips are ranked by the error of the lips, without masks by that of all vertices. Videos of a store have audio.
    """
    items = {item.id: item for item in truth.items}
    paths = []
    for rank, name in select_extremes(result).items():
        item = items[name]
        predicted, true = predict(item), truth.motion(item)
        count = min(len(predicted), len(true))
        path = folder / f"{rank}_{name}.mp4"
        render_comparison(
            _make_animation(predicted[:count], face, truth.fps),
            _make_animation(true[:count], face, truth.fps),
            path,
            face=face,
            audio=_load_sound(truth, item, count / truth.fps),
        )
        paths.append(path)
    return paths


def select_extremes(result: Result) -> dict[str, str]:
    """Select the worst, the median and the best clip; a clip is selected once."""
    first = next(iter(result.figures.values()))
    by = next(name for name in RANKED_BY if name in first)
    ranked = sorted(result.figures, key=lambda name: (result.figures[name][by], name))
    places = {"worst": -1, "median": (len(ranked) - 1) // 2, "best": 0}
    selected: dict[str, str] = {}
    for rank, rank_index in places.items():
        if ranked[rank_index] not in selected.values():
            selected[rank] = ranked[rank_index]
    return selected


def choose_face(truth: Truth, named: str | None = None) -> Face:
    """Choose a face to draw motion on: the named one, the default head if it fits, or the triangles of the truth.

    Raises:
        DataError: none of them has the number of vertices.
    """
    motion = truth.motion(truth.items[0])
    face = load_face(named or "default")
    if face.template.shape == motion.shape[1:]:
        return face
    triangles = None if named else _triangles(truth)
    if triangles is None:
        problem = f"{named} has {len(face.template)} vertices" if named else "no triangles are known"
        raise DataError(f"{problem}, the motion has {motion.shape[1]}: {truth.items[0].id}. Name its mesh with --face")
    template = truth.template(truth.items[0])
    return Face("truth", np.asarray(motion[0] if template is None else template, np.float32), triangles)


def _triangles(truth: Truth) -> NDArray[np.int32] | None:
    if isinstance(truth, StoreTruth):
        return truth.store.faces
    if isinstance(truth, FolderTruth):
        from sedtalker.animation import load_animation

        animations = [path for path in truth.paths.values() if path.suffix == ".npz"]
        return load_animation(animations[0]).faces if animations else None
    return None


def _make_animation(motion: NDArray[np.floating], face: Face, fps: float) -> Animation:
    dense = np.ascontiguousarray(motion, np.float32)
    track = EmotionTrack.neutral(len(dense) / fps)
    return Animation(face.template, face.faces, fps, track, dense=dense, rig=face)


def _load_sound(truth: Truth, item: Item, seconds: float) -> Audio | None:
    """Audio of a store's clip, cut or padded to the length of the video; None without a store."""
    if not isinstance(truth, StoreTruth):
        return None
    samples = load_audio(truth.store.sound(truth.clips[item.id]))
    count = round(seconds * SAMPLE_RATE)
    return np.pad(samples[:count], (0, max(0, count - len(samples)))), SAMPLE_RATE
