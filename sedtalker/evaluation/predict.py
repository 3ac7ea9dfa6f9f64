"""A trained talker's motion for the clips of a store, given their sound and their true emotion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sedtalker.curves import resample
from sedtalker.data.store_features import check_features
from sedtalker.errors import DataError
from sedtalker.evaluation.baselines import load_features
from sedtalker.evaluation.talker import Item, StoreTruth
from sedtalker.face.assets import load_face
from sedtalker.speech import FRAME_RATE
from sedtalker.talker.model import TalkerModel, load_talker_model

Float = NDArray[np.floating]


def talker_predictions(folder: Path | str, truth: StoreTruth, device: str = "cpu") -> Callable[[Item], Float]:
    """A reader of positions (T, V, 3) at the store's rate, made by the talker of a folder with its mean style.

    Raises:
        CheckpointError: there is no such talker.
        DataError: it was trained for another topology or other emotions, or reads other features than the store's.
    """
    model = load_talker_model(folder).to(device)
    store = truth.store
    unknown = [label for label in {clip.emotion for clip in truth.clips.values()} if label not in model.config.labels]
    if unknown:
        raise DataError(f"the talker knows no {unknown[0]!r}: {folder}. It was trained for {model.config.labels}")
    displacements = _mover(model, store.vertices)

    @torch.inference_mode()
    def predict(item: Item) -> Float:
        clip = truth.clips[item.id]
        features = torch.from_numpy(load_features(store, clip).astype(np.float32))[None].to(device)
        check_features(model.config, store.root, *features.shape[2:])
        frames = features.shape[1]
        posterior = torch.zeros(1, frames, len(model.config.labels), device=device)
        posterior[..., model.config.labels.index(clip.emotion)] = 1
        intensity = torch.full((1, frames), clip.intensity, device=device)
        coefficients = model(features, posterior, intensity)[0].float().cpu().numpy()
        moved = displacements(resample(coefficients, FRAME_RATE, store.fps, clip.frames))
        return moved + store.templates[clip.subject]

    return predict


def _mover(model: TalkerModel, vertices: int) -> Callable[[Float], Float]:
    """How coefficients (T, K) become displacements (T, V, 3)."""
    if model.config.head == "blendshapes":
        face = load_face()
        if len(face.template) != vertices:
            raise DataError(
                f"the talker moves {len(face.template)} vertices, the store has {vertices}. Train one on it"
            )
        return lambda weights: face.pose(weights) - face.template
    if model.config.vertices != vertices:
        raise DataError(f"the talker moves {model.config.vertices} vertices, the store has {vertices}. Train one on it")
    return model.predict_displacements
