"""What a talker must beat: a still face, the mean motion, a linear regression from the speech features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.data.vertex_store import Clip, Store
from sedtalker.errors import DataError
from sedtalker.evaluation.talker import Item, StoreTruth, Truth
from sedtalker.speech import FRAME_RATE

Float = NDArray[np.floating]
Predict = Callable[[Item], Float]

RIDGE = 1e-3  # of the regression, relative to the mean power of the inputs


def still_face(truth: Truth) -> Predict:
    """The template, for as long as the truth lasts."""

    def predict(item: Item) -> Float:
        template = truth.template(item)
        if template is None:
            raise DataError("no template, so no still face to compare with. Name it with --templates")
        return np.broadcast_to(template, truth.motion(item).shape)

    return predict


def mean_motion(truth: StoreTruth) -> Predict:
    """The template moved by the mean displacement of the training frames: the best face that never moves."""
    store, total, frames = truth.store, None, 0
    for clip in tqdm(_training(store), desc="mean motion", unit="clip"):
        moved = store.displacements(clip).sum(axis=0, dtype=np.float64)
        total, frames = moved if total is None else total + moved, frames + clip.frames
    assert total is not None
    mean = (total / frames).astype(np.float32)

    def predict(item: Item) -> Float:
        clip = truth.clips[item.id]
        posture = store.templates[clip.subject] + mean
        return np.broadcast_to(posture, (clip.frames, *mean.shape))

    return predict


def linear_regression(truth: StoreTruth) -> Predict:
    """Ridge regression from a frame's speech features (last layer), emotion and intensity to its displacements.

    Fitted on the training split through its normal equations, so that memory does not grow with the corpus.
    """
    store = truth.store
    gram: Float | None = None
    for clip in tqdm(_training(store), desc="linear regression", unit="clip"):
        inputs = _inputs(store, clip)
        outputs = store.displacements(clip).reshape(clip.frames, -1)
        if gram is None:
            gram = np.zeros((inputs.shape[1], inputs.shape[1]))
            cross = np.zeros((inputs.shape[1], outputs.shape[1]))
        gram += inputs.T @ inputs
        cross += inputs.T @ outputs
    assert gram is not None
    ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram + ridge, cross).astype(np.float32)

    def predict(item: Item) -> Float:
        clip = truth.clips[item.id]
        moved = _inputs(store, clip).astype(np.float32) @ weights
        return moved.reshape(clip.frames, -1, 3) + store.templates[clip.subject]

    return predict


def load_features(store: Store, clip: Clip) -> NDArray[np.float16]:
    """The cached speech features (T, L, D) of a clip's sound, 50 a second.

    Raises:
        DataError: they are not cached.
    """
    path = store.features(clip)
    if not path.is_file():
        raise DataError(f"no speech features: {path}. Run sedtalker data prepare again, without --encoder none")
    return np.load(path, allow_pickle=False)


def _inputs(store: Store, clip: Clip) -> NDArray[np.float64]:
    """(T, D + C + 1): the features, the intensity under the emotion's column, and a one."""
    last_layer = load_features(store, clip)[:, -1].astype(np.float64)
    nearest = ((np.arange(clip.frames) + 0.5) / store.fps * FRAME_RATE).astype(int)
    features = last_layer[np.minimum(nearest, len(last_layer) - 1)]
    emotion = np.zeros((clip.frames, len(store.labels)))
    emotion[:, store.labels.index(clip.emotion)] = clip.intensity
    return np.concatenate([features, emotion, np.ones((clip.frames, 1))], axis=1)


def _training(store: Store) -> list[Clip]:
    clips = store.select("train")
    if not clips:
        raise DataError(f"no training clips: {store.root}. Its baselines cannot be fitted; say --baselines still")
    return clips
