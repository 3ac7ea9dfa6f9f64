"""Systems that an evaluation compares: a trained talker, a still face, the mean motion and a linear regression."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sedtalker.curves import resample
from sedtalker.data.features import check_features
from sedtalker.data.vertex_emotion import LABELLED, read_emotion
from sedtalker.data.vertex_store import Store, VertexClip
from sedtalker.errors import DataError
from sedtalker.evaluation.truth import Item, Predict, StoreTruth, Truth, read_predictions
from sedtalker.face.assets import load_face
from sedtalker.mel import FRAME_RATE
from sedtalker.talker.model import TalkerModel, load_talker_model

Float = NDArray[np.floating]

RIDGE = 1e-3  # penalty of the linear baseline, relative to the mean power of its inputs
REGRESSION_FRAMES = 1000  # frames of a product of the linear baseline; 60 MB for FLAME
BASELINES = ("still", "mean", "linear")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _StillFace:
    truth: Truth

    def __call__(self, item: Item) -> Float:
        template = self.truth.template(item)
        if template is None:
            raise DataError("the baseline still needs a template. Name it with --templates")
        return np.broadcast_to(template, self.truth.motion(item).shape)


def still_face(truth: Truth) -> Predict:
    """Baseline: the template, as long as the truth."""
    return _StillFace(truth)


@dataclass(frozen=True)
class _MeanMotion:
    truth: StoreTruth
    mean: Float  # (V, 3) displacement in metres

    def __call__(self, item: Item) -> Float:
        clip = self.truth.clips[item.id]
        posture = self.truth.store.templates[clip.subject] + self.mean
        return np.broadcast_to(posture, (clip.frames, *self.mean.shape))


def mean_motion(truth: StoreTruth) -> Predict:
    """Baseline: the template plus the mean displacement of the training frames, the best constant prediction."""
    store, total, frames = truth.store, None, 0
    for clip in tqdm(_training_clips(store), desc="mean motion", unit="clip"):
        moved = store.displacements(clip).sum(axis=0).astype(np.float64)
        total, frames = moved if total is None else total + moved, frames + clip.frames
    assert total is not None
    return _MeanMotion(truth, (total / frames).astype(np.float32))


@dataclass(frozen=True)
class _LinearRegression:
    truth: StoreTruth
    weights: Float  # (D, 3 V)

    def __call__(self, item: Item) -> Float:
        store, clip = self.truth.store, self.truth.clips[item.id]
        moved = _regression_inputs(store, clip) @ self.weights
        return moved.reshape(clip.frames, -1, 3) + store.templates[clip.subject]


def linear_regression(truth: StoreTruth) -> Predict:
    """Baseline: ridge regression from speech features (last layer), emotion and intensity of a frame to displacements.

    It is fitted to the training split by its normal equations, whose memory does not grow with the corpus.
    """
    store = truth.store
    gram, cross = np.zeros(()), np.zeros(())
    inputs: list[Float] = []
    outputs: list[Float] = []
    clips = _training_clips(store)
    for number, clip in enumerate(tqdm(clips, desc="linear regression", unit="clip"), start=1):
        inputs.append(_regression_inputs(store, clip))
        outputs.append(store.displacements(clip).reshape(clip.frames, -1))
        if sum(map(len, inputs)) >= REGRESSION_FRAMES or number == len(clips):  # larger products are faster
            x, y = np.concatenate(inputs), np.concatenate(outputs)
            gram, cross = gram + np.float64(x.T) @ x, cross + x.T @ y
            inputs, outputs = [], []
    return _LinearRegression(truth, solve_ridge(gram, cross, RIDGE).astype(np.float32))


def solve_ridge(gram: Float, cross: Float, penalty: float) -> Float:
    """Weights (D, K) of a ridge regression from its normal equations, x'x (D, D) and x'y (D, K).

    `penalty` is relative to the mean power of the inputs, trace(x'x) / D.
    """
    return np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), cross)


def make_systems(
    predicted: Path, truth: Truth, names: Sequence[str] | None = None, emotion: str = LABELLED
) -> dict[str, Predict]:
    """Systems by name: the talker first, then the baselines, then the truth.

    Args:
        predicted: folder of a trained talker, or of its predicted sequences.
        truth: true sequences; a talker's folder and the fitted baselines need a store.
        names: baselines out of `BASELINES`; None: all that the truth allows.
        emotion: of a talker, see `predict_with_talker`.

    Raises:
        DataError: the talker or a named baseline does not work with this truth.
    """
    systems: dict[str, Predict] = {}
    if (predicted / "config.json").is_file():
        if not isinstance(truth, StoreTruth):
            raise DataError(f"a talker's folder needs a store as the truth: {predicted}. Run sedtalker data prepare")
        systems["talker"] = predict_with_talker(predicted, truth, emotion=emotion)
    elif (predicted / "model" / "config.json").is_file():
        raise DataError(f"the folder of a training run: {predicted}. Name the talker in it, {predicted / 'model'}")
    else:
        systems["talker"] = read_predictions(predicted, truth.fps)
    selected = BASELINES if names is None else names
    if "still" in selected and truth.template(truth.items[0]) is not None:
        systems["still face"] = still_face(truth)
    fitted = {"mean": ("mean motion", mean_motion), "linear": ("linear", linear_regression)}
    for key, (name, fit) in fitted.items():
        if key not in selected:
            continue
        try:
            if not isinstance(truth, StoreTruth):
                raise DataError(f"baseline {key!r} needs the training split of a store. Run sedtalker data prepare")
            systems[name] = fit(truth)
        except DataError as error:
            if names is not None:
                raise
            logger.warning("without the baseline %r: %s", name, error)
    systems["truth"] = truth.motion  # for its lip intensity and its correlation with the audio
    return systems


def load_features(store: Store, clip: VertexClip) -> NDArray[np.float16]:
    """Read the cached speech features (T, L, D) of a clip at 50 Hz. Raises DataError if they are missing."""
    path = store.features(clip)
    if not path.is_file():
        raise DataError(f"no speech features: {path}. Run sedtalker data prepare again, without --encoder none")
    return np.load(path, allow_pickle=False)


def _regression_inputs(store: Store, clip: VertexClip) -> Float:
    """Inputs (T, D + C + 1): features, intensity in the column of the emotion, and 1."""
    last_layer = load_features(store, clip)[:, -1].astype(np.float32)
    nearest = ((np.arange(clip.frames) + 0.5) / store.fps * FRAME_RATE).astype(int)
    features = last_layer[np.minimum(nearest, len(last_layer) - 1)]
    emotion = np.zeros((clip.frames, len(store.labels)), np.float32)
    emotion[:, store.labels.index(clip.emotion)] = clip.intensity
    return np.concatenate([features, emotion, np.ones((clip.frames, 1), np.float32)], axis=1)


def _training_clips(store: Store) -> list[VertexClip]:
    clips = store.select("train")
    if not clips:
        raise DataError(f"no training clips: {store.root}. Its baselines cannot be fitted; use --baselines still")
    return clips


def predict_with_talker(folder: Path | str, truth: StoreTruth, device: str = "cpu", emotion: str = LABELLED) -> Predict:
    """Function that predicts positions (T, V, 3) at the frame rate of the store by a talker with its mean style.

    Args:
        emotion: out of `EMOTION_SOURCES`: the labels of the clips, or the tracks of a diarizer on their sounds.

    Raises:
        CheckpointError: the talker cannot be read.
        DataError: its topology, emotions or features differ from those of the store.
    """
    prediction = _TalkerPrediction(Path(folder), truth, device, emotion)
    prediction.load()
    return prediction


@dataclass
class _TalkerPrediction:
    """Predictions of a talker, which each process loads for itself."""

    folder: Path
    truth: StoreTruth
    device: str
    emotion: str
    model: TalkerModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}

    def load(self) -> TalkerModel:
        """Load and check the talker at first use."""
        if self.model is None:
            model = load_talker_model(self.folder).to(self.device)
            labels = {clip.emotion for clip in self.truth.clips.values()}
            if unknown := sorted(labels - set(model.config.labels)):
                raise DataError(
                    f"the talker does not know {unknown[0]!r}: {self.folder}. Train one with it, or use another store"
                )
            _displacement_function(model, self.truth.store.vertices)  # raises if it has another topology
            self.model = model
        return self.model

    @torch.inference_mode()
    def __call__(self, item: Item) -> Float:
        model, store, clip = self.load(), self.truth.store, self.truth.clips[item.id]
        features = torch.from_numpy(load_features(store, clip).astype(np.float32))[None].to(self.device)
        check_features(model.config, store.root, *features.shape[2:])
        posterior, intensity = self._emotion(clip, features.shape[1], model.config.labels)
        coefficients = model(features, posterior, intensity)[0].float().cpu().numpy()
        displacements = _displacement_function(model, store.vertices)
        moved = displacements(resample(coefficients, FRAME_RATE, store.fps, clip.frames))
        return moved + store.templates[clip.subject]

    def _emotion(self, clip: VertexClip, frames: int, labels: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Posterior (1, T, C) and intensity (1, T)."""
        posterior = torch.zeros(1, frames, len(labels), device=self.device)
        if self.emotion == LABELLED:
            posterior[..., labels.index(clip.emotion)] = 1
            return posterior, torch.full((1, frames), clip.intensity, device=self.device)
        track = read_emotion(self.truth.store, clip.audio)
        own = np.minimum(np.arange(frames), len(track.intensity) - 1)
        posterior[0, :, : track.posterior.shape[1]] = torch.from_numpy(track.posterior[own])
        return posterior, torch.from_numpy(track.intensity[own])[None].to(self.device)


def _displacement_function(model: TalkerModel, vertices: int) -> Callable[[Float], Float]:
    """Function from coefficients (T, K) to displacements (T, V, 3) in metres."""
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
