"""The streaming encoder for a few frames at a time on one CPU core: the features of `StreamingNetwork`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.layers_cpu import ADD, GELU, Float, LayerNorm, Linear, Rows, attend, compiled, pack
from sedtalker.layers_cpu import share_packed as share_packed
from sedtalker.mel import FRAME_SAMPLES, MEL_HOP, MEL_WINDOW
from sedtalker.streaming_encoder import PERIOD, REACH, StreamingLayer, StreamingNetwork

BLOCK = 32  # frames that are computed at once, at most


@compiled
def _cut_windows(samples: Float, window: Float, y: Float) -> None:
    """y (M, N), windows of samples that begin `MEL_HOP` apart, times `window` (N,)."""
    for m in range(y.shape[0]):
        for i in range(y.shape[1]):
            y[m, i] = samples[m * MEL_HOP + i] * window[i]


@compiled
def _log_mel(spectrum: NDArray[np.complex64], filters: Float, edges: NDArray[np.int64], least: float, y: Float) -> None:
    """y (M, mels), log-mels of spectra (M, bins); filter f of (mels, bins) is 0 outside the bins `edges[f]`."""
    power = np.empty(spectrum.shape[1], np.float32)
    for m in range(spectrum.shape[0]):
        for k in range(spectrum.shape[1]):
            value = spectrum[m, k]
            power[k] = value.real * value.real + value.imag * value.imag
        for f in range(filters.shape[0]):
            total = np.float32(0.0)
            for k in range(edges[f, 0], edges[f, 1]):
                total += power[k] * filters[f, k]
            y[m, f] = np.float32(0.25) * np.float32(np.log10(max(total, least))) + np.float32(1.0)


class PackedEncoder:
    """The weights of a network; streams share it."""

    def __init__(self, network: StreamingNetwork) -> None:
        self.config = config = network.config
        by_tap = [np.arange(3 * width).reshape(width, 3).T.ravel() for width in (config.mels, config.width)]
        self.convolutions = [
            pack(layer, order) for layer, order in zip((network.conv1, network.conv2), by_tap, strict=True)
        ]
        self.layers = [PackedLayer(layer) for layer in network.layers if isinstance(layer, StreamingLayer)]
        self.positions, self.window = network.positions.numpy(), network.window.numpy()
        self.filters = np.ascontiguousarray(network.filters.numpy().T)
        used = self.filters > 0
        self.edges = np.stack([used.argmax(1), self.filters.shape[1] - used[:, ::-1].argmax(1)], axis=1)
        self.edges[~used.any(1)] = 0
        self.least = np.float32(10.0**config.floor)

    def embed(self, held: Float, frames: int, position: int, y: Float) -> None:
        """Fill y (frames, width), as `StreamingNetwork._embed`."""
        windows = np.empty((2 * frames + 3, MEL_WINDOW), np.float32)
        _cut_windows(held, self.window, windows)
        spectrum = np.fft.rfft(windows).astype(np.complex64, copy=False)
        mel = np.empty((2 * frames + 3, self.config.mels), np.float32)
        _log_mel(spectrum, self.filters, self.edges, self.least, mel)
        x = np.empty((2 * frames + 1, self.config.width), np.float32)
        self.convolutions[0](_unfold(mel, 1, len(x)), x, GELU)
        self.convolutions[1](_unfold(x, 2, frames), y, GELU)
        if position + frames <= PERIOD:
            y += self.positions[position : position + frames]
        else:
            y += self.positions[(position + np.arange(frames)) % PERIOD]


def _unfold(x: Float, step: int, rows: int) -> Float:
    """Row i (rows, 3 width) is the rows `step` i to `step` i + 2 of x (M, width)."""
    return np.concatenate([x[tap : tap + step * (rows - 1) + 1 : step] for tap in range(3)], axis=1)


class PackedLayer:
    """The weights of a block."""

    def __init__(self, layer: StreamingLayer) -> None:
        self.heads, self.left = layer.heads, layer.left
        self.attention_norm: LayerNorm = pack(layer.attention_norm)
        self.feedforward_norm: LayerNorm = pack(layer.feedforward_norm)
        self.qkv: Linear = pack(layer.qkv)
        self.out: Linear = pack(layer.out)
        self.fc1: Linear = pack(layer.fc1)
        self.fc2: Linear = pack(layer.fc2)

    def read(self, x: Float, qkv: Float, first: int, ahead: int, y: Float) -> None:
        """Fill y (m, width) for frames with inputs x (m, width); the first is row `first` of qkv (R, 3 width)."""
        width = x.shape[1]
        mixed, size = np.empty_like(y), width // self.heads
        attend(qkv, first, qkv, width, qkv, 2 * width, self.heads, 1, size, self.left, ahead, mixed)
        y[:] = x
        self.out(mixed, y, ADD)
        inner = np.empty((len(y), self.fc1.outputs), np.float32)
        self.fc1(self.feedforward_norm(y, mixed), inner, GELU)
        self.fc2(inner, y, ADD)


class PackedStream:
    """As `EncoderStream`, for short chunks."""

    def __init__(self, encoder: PackedEncoder, ahead: tuple[int, ...]) -> None:
        self._encoder, self._ahead = encoder, ahead
        self.reset()

    def reset(self) -> None:
        """Return to the state before the first sample."""
        width, layers = self._encoder.config.width, len(self._encoder.layers)
        self._samples = np.zeros(REACH, np.float32)  # the last samples, which later frames read
        self._position = self._received = 0  # of the next frame, modulo PERIOD; samples of the last, incomplete frame
        self._hidden = [Rows(width) for _ in range(layers + 1)]  # inputs of the blocks, and outputs of the last
        self._qkv = [Rows(3 * width) for _ in range(layers)]

    def push(self, samples: Float | Tensor) -> Tensor:
        """As `EncoderStream.push`."""
        new = samples.numpy() if isinstance(samples, Tensor) else np.asarray(samples, np.float32)
        self._received = (self._received + len(new)) % FRAME_SAMPLES
        return self._step(new, last=False)

    def finish(self) -> Tensor:
        """As `EncoderStream.finish`."""
        hidden = self._step(np.zeros(-self._received % FRAME_SAMPLES + REACH - FRAME_SAMPLES, np.float32), last=True)
        self.reset()
        return hidden

    def _step(self, samples: Float, last: bool) -> Tensor:
        held = np.concatenate([self._samples, samples])
        frames = max(0, (len(held) - 2 * REACH) // FRAME_SAMPLES + 1)
        outputs = []
        for start in range(0, frames, BLOCK):
            count = min(BLOCK, frames - start)
            x = self._hidden[0].extend(count)
            self._encoder.embed(held[start * FRAME_SAMPLES :], count, self._position, x)
            self._position = (self._position + count) % PERIOD
            outputs.append(self._run_layers(last and start + count == frames))
        if last and not frames:
            outputs.append(self._run_layers(last))
        self._samples = held[frames * FRAME_SAMPLES :]
        if not outputs:
            return torch.zeros(0, len(self._hidden), self._encoder.config.width)
        return torch.from_numpy(outputs[0] if len(outputs) == 1 else np.concatenate(outputs))

    def _run_layers(self, last: bool) -> Float:
        """Hidden states (m, layers + 1, width) of the frames that become complete."""
        for layer, qkv, ahead, inputs, outputs in zip(
            self._encoder.layers, self._qkv, self._ahead, self._hidden, self._hidden[1:], strict=False
        ):
            if inputs.count > qkv.count:
                x = inputs.view(qkv.count, inputs.count)
                layer.qkv(layer.attention_norm(x, np.empty_like(x)), qkv.extend(len(x)))
            complete = inputs.count if last else max(outputs.count, inputs.count - ahead)
            if complete > outputs.count:
                start = outputs.count
                y = outputs.extend(complete - start)
                keys = qkv.view(qkv.first, qkv.count)
                layer.read(inputs.view(start, complete), keys, start - qkv.first, ahead, y)
                qkv.drop(complete - layer.left)
        start, stop = self._hidden[-1].first, self._hidden[-1].count
        complete_states = np.stack([rows.view(start, stop) for rows in self._hidden], axis=1)
        for rows in self._hidden:
            rows.drop(stop)
        return complete_states
