"""Weights of a network as named arrays, without torch: what compiled code packs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

LEVELS = 63  # largest magnitude of a quantized weight
STEPS = 255  # quantization steps of an input's range
SMOOTHED = ".smoothed"  # ending of the name of smoothed weights


class StoredRows(NamedTuple):
    """Weights in 8 bits, as a file stores them."""

    integers: NDArray[np.int8]  # (rows, ...) of at most `LEVELS`
    scales: Float  # (rows,)

    def check(self) -> None:
        """Raise ValueError if the shapes do not fit each other."""
        if self.scales.shape != self.integers.shape[:1]:
            raise ValueError(f"{len(self.integers)} rows of integers and scales {self.scales.shape}")

    def restore(self) -> Float:
        """The weights (rows, ...) in float32."""
        return self.integers * self.scales.reshape(-1, *[1] * (self.integers.ndim - 1))


class Int8Weights(NamedTuple):
    """A linear layer in 8 bits, see `sedtalker.int8`."""

    integers: NDArray[np.int8]  # (N, K)
    scales: Float  # (N,)
    bias: Float  # (N,)
    factor: Float  # (K,), of the inputs before they are quantized
    scale: float  # of a step of the inputs
    zero: int  # the step of an input of 0


class Weights:
    """Arrays by the names of a torch module's parameters, and layers in 8 bits by the names of the layers.

    Every access checks the shape, since compiled code does not check its indices.
    """

    def __init__(self, values: Mapping[str, Float | Int8Weights], prefix: str = "") -> None:
        self._values, self._prefix = values, prefix
        self._unread = set(values)

    def part(self, name: str) -> Weights:
        """The weights of a submodule."""
        part = Weights(self._values, f"{self._prefix}{name}.")
        part._unread = self._unread
        return part

    def array(self, name: str, *shape: int) -> Float:
        """An array. Raises KeyError if it is missing, ValueError if its shape differs."""
        values = self._read(name)
        if isinstance(values, Int8Weights) or values.shape != shape:
            raise ValueError(f"{self._prefix}{name} has not the shape {shape}")
        return np.ascontiguousarray(values, np.float32)

    def int8(self, name: str, outputs: int, inputs: int) -> Int8Weights | None:
        """A layer in 8 bits; None if it is in floating point. Raises ValueError if its shape differs."""
        if not isinstance(self._values.get(self._prefix + name), Int8Weights):
            return None
        layer = self._read(name)
        assert isinstance(layer, Int8Weights)
        shapes = layer.integers.shape, layer.scales.shape, layer.bias.shape, layer.factor.shape
        if shapes != ((outputs, inputs), (outputs,), (outputs,), (inputs,)):
            raise ValueError(f"{self._prefix}{name} has not the shape {(outputs, inputs)}")
        return layer

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._values

    def check_all_read(self) -> None:
        """Raise ValueError if the network has not used every array."""
        if self._unread:
            raise ValueError(f"unexpected weights: {sorted(self._unread)[:3]}")

    def _read(self, name: str) -> Float | Int8Weights:
        self._unread.discard(self._prefix + name)
        return self._values[self._prefix + name]


def quantize_layers(state: Mapping[str, Float], rows: Mapping[str, StoredRows]) -> Weights:
    """The weights of a network whose measured layers (`MeasuredLinear`) compute in 8 bits.

    Args:
        state: arrays of a model folder, by name.
        rows: smoothed weights in 8 bits, by name; layers without them are rounded.
    """
    weights: dict[str, Float | Int8Weights] = dict(state)
    for name in [name.removesuffix(".input_range") for name in state if name.endswith(".input_range")]:
        smoothing, (low, high) = state[f"{name}.smoothing"], state[f"{name}.input_range"].tolist()
        scale = (high - low) / STEPS
        stored = rows.get(name + SMOOTHED) or _round_rows(state[f"{name}.weight"] * smoothing)
        zero = min(max(round(-low / scale), 0), STEPS)
        factor = np.float32(1) / smoothing
        weights[name] = Int8Weights(*stored, state[f"{name}.bias"], factor, scale, zero)
        for part in ("weight", "bias", "smoothing", "input_range"):
            weights.pop(f"{name}.{part}", None)
    return Weights(weights)


def _round_rows(weight: Float) -> StoredRows:
    """As `sedtalker.int8.quantize_rows`."""
    scales = np.maximum(np.abs(weight).max(axis=1) / np.float32(LEVELS), np.float32(1e-12))
    return StoredRows(np.rint(weight / scales[:, None]).clip(-LEVELS, LEVELS).astype(np.int8), scales)
