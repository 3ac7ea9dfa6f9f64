"""A talker's network in torch, on any device, for the decoder of `sedtalker.talker.streaming`, which reads arrays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.int8 import named_weights
from sedtalker.layers_cpu import share_packed
from sedtalker.talker.model import TalkerModel, TalkerState, scale_mouth
from sedtalker.talker.model_cpu import PackedTalker, supports
from sedtalker.talker.segments import predict_segments
from sedtalker.talker.streaming import MotionNetwork

Float = NDArray[np.float32]


class ModelMotion:
    """`MotionNetwork` of a model."""

    def __init__(self, model: TalkerModel) -> None:
        self._model, self.config = model, model.config

    def embed(self, features: Float) -> Float:
        """As `MotionNetwork`."""
        return embed_speech(self._model, torch.as_tensor(features)).numpy()

    def recording_mouth(self, blocks: Iterable[Float]) -> Float | None:
        """As `MotionNetwork`."""
        return predict_mouth(self._model, blocks)

    def start_steps(self) -> ModelSteps:
        """As `MotionNetwork`."""
        return ModelSteps(self._model)


def motion_of(model: TalkerModel) -> MotionNetwork:
    """The compiled network of a model if it is on the CPU and the kernels support it, else the model itself."""
    if model.layer_weights.device.type != "cpu" or not supports(model.config):
        return ModelMotion(model)

    def build(model: TalkerModel) -> PackedTalker:
        return PackedTalker(model.config, named_weights(model))

    packed: PackedTalker = share_packed(model, build)
    return packed


class ModelSteps:
    """`MotionSteps` of a model on any device, for long chunks."""

    def __init__(self, model: TalkerModel) -> None:
        self._model = model
        self._state: TalkerState | None = None

    @torch.inference_mode()
    def push(self, speech: Float, posterior: Float, intensity: Float, mouth: Float | None = None) -> Float:
        """As `MotionSteps`."""
        device = self._model.layer_weights.device
        x, p, i = (torch.from_numpy(part)[None].to(device) for part in (speech, posterior, intensity))
        known = None if mouth is None else torch.from_numpy(mouth)[None].to(device)
        coefficients, self._state = self._model.step_embedded(x, p, i, self._state, known)
        return coefficients[0].float().cpu().numpy()

    @torch.inference_mode()
    def finish(self) -> Float:
        """As `MotionSteps`."""
        if self._state is None:
            return np.zeros((0, self._model.config.coefficients), np.float32)
        return self._model.finish(self._state)[0].float().cpu().numpy()


@torch.inference_mode()
def embed_speech(model: TalkerModel, features: Tensor) -> Tensor:
    """The talker's input (n, embedded_width) of features (n, L, D), in the mean style."""
    return model.embed(features[None].to(model.layer_weights.device))[0].float().cpu()


@torch.inference_mode()
def predict_mouth(model: TalkerModel, blocks: Iterable[Float]) -> Float | None:
    """Lip gap and added widening (T, 2) in mm of a whole recording, of blocks (n, embedded_width) of its input.

    None if the model has no such network. `TalkerModel.recording_mouth` in constant memory.
    """
    opening, device = model.opening, model.layer_weights.device
    if opening is None:
        return None

    def predict(inputs: Float) -> Float:
        return scale_mouth(opening.run_recording(torch.from_numpy(inputs)[None].to(device)))[0].float().cpu().numpy()

    inputs = (np.ascontiguousarray(block[:, model.config.width :]) for block in blocks)
    return np.concatenate([np.zeros((0, 2), np.float32), *predict_segments(predict, inputs)])
