"""The worst, the median and the best clip of a talker as videos: prediction, truth and their distance side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError
from sedtalker.evaluation.talker import FolderTruth, Item, Result, StoreTruth, Truth
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.render import render_comparison
from sedtalker.render.video import Audio

RANKED_BY = ("lve_l2", "mve")  # of `vertices.MEASURES`, the first that is known


def render_extremes(
    result: Result, predict: Callable[[Item], NDArray[np.floating]], truth: Truth, folder: Path, face: Face
) -> list[Path]:
    """Write `worst_ID.mp4`, `median_ID.mp4` and `best_ID.mp4` to a folder, by the error of the lips; returns the paths.

    Where there are no masks, clips are ranked by the error of all vertices. The sound is laid under a store's clips.
    """
    items = {item.id: item for item in truth.items}
    written = []
    for rank, name in extremes(result).items():
        item = items[name]
        predicted, true = predict(item), truth.motion(item)
        count = min(len(predicted), len(true))
        path = folder / f"{rank}_{name}.mp4"
        render_comparison(
            _animation(predicted[:count], face, truth.fps),
            _animation(true[:count], face, truth.fps),
            path,
            face=face,
            audio=_sound(truth, item, count / truth.fps),
        )
        written.append(path)
    return written


def extremes(result: Result) -> dict[str, str]:
    """Which clip is the worst, the median and the best; the same clip is named once."""
    first = next(iter(result.figures.values()))
    by = next(name for name in RANKED_BY if name in first)
    ranked = sorted(result.figures, key=lambda name: (result.figures[name][by], name))
    places = {"worst": -1, "median": (len(ranked) - 1) // 2, "best": 0}
    chosen: dict[str, str] = {}
    for rank, place in places.items():
        if ranked[place] not in chosen.values():
            chosen[rank] = ranked[place]
    return chosen


def face_of(truth: Truth, named: str | None = None) -> Face:
    """What motion is drawn on: the face named, the default head where it fits, or the triangles that came with it.

    Raises:
        DataError: no triangles are known for so many vertices.
    """
    motion = truth.motion(truth.items[0])
    face = load_face(named or "default")
    if face.template.shape == motion.shape[1:]:
        return face
    triangles = None if named else _triangles(truth)
    if triangles is None:
        wanted = f"{named} has {len(face.template)} vertices" if named else "no triangles are known"
        raise DataError(f"{wanted}, the motion has {motion.shape[1]}: {truth.items[0].id}. Name its mesh with --face")
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


def _animation(motion: NDArray[np.floating], face: Face, fps: float) -> Animation:
    dense = np.ascontiguousarray(motion, np.float32)
    track = EmotionTrack.neutral(len(dense) / fps)
    return Animation(face.template, face.faces, fps, track, dense=dense, rig=face)


def _sound(truth: Truth, item: Item, seconds: float) -> Audio | None:
    """A store's recording of a clip, as long as its pictures."""
    if not isinstance(truth, StoreTruth):
        return None
    samples = load_audio(truth.store.sound(truth.clips[item.id]))
    count = round(seconds * SAMPLE_RATE)
    return np.pad(samples[:count], (0, max(0, count - len(samples)))), SAMPLE_RATE
