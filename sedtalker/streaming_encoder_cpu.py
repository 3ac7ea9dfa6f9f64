"""The streaming encoder on one CPU core, for streams and recordings: the features of `StreamingNetwork`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import split_blocks
from sedtalker.checkpoint import check_fit, config_from_plain, load_arrays
from sedtalker.encoder_config import (
    EARLY_AHEAD,
    LOOK_AHEAD,
    PERIOD,
    REACH,
    STREAMING_KIND,
    LookAheadDial,
    StreamingConfig,
    Windowing,
    periodic_positions,
)
from sedtalker.layers_cpu import (
    ADD,
    GELU,
    STORE,
    Float,
    KeyRows,
    Rows,
    apply_layer,
    attend,
    compiled,
    layer_norm,
    pack,
    pack_norm,
)
from sedtalker.mel import FRAME_SAMPLES, MEL_HOP, MEL_WINDOW, mel_filters, mel_window
from sedtalker.weights import Weights, quantize_layers

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


@compiled
def _extend_keys(x: Float, norm: Any, qkv: Any, rows: Float, columns: Float, place: int) -> None:
    """Fill rows (m, 3 width) with queries, keys and values of x (m, width), and columns from `place` on with keys.

    norm and qkv are the arrays of the layers.
    """
    width, normed = x.shape[1], np.empty_like(x)
    layer_norm(x, norm[0], norm[1], normed)
    apply_layer(normed, qkv, rows, np.int64(STORE))
    for i in range(width):
        for m in range(rows.shape[0]):
            columns[i, place + m] = rows[m, width + i]


@compiled
def _run_block(
    x: Float, rows: Float, first: int, columns: Float, place: int, sizes: Any, ahead: int, layers: Any, y: Float
) -> None:  # fmt: skip
    """y (m, width), outputs of a block for x (m, width), of queries, keys and values `rows` (R, 3 width).

    Args:
        first: the row of the first frame.
        columns: the keys, from column `place` on.
        sizes: heads, frames that they look back, and width of the hidden layer.
        layers: arrays of the output, the norm and the two layers after it.
    """
    width = x.shape[1]
    heads, left, hidden = sizes
    out, norm, fc1, fc2 = layers
    mixed, inner = np.empty_like(y), np.empty((y.shape[0], hidden), np.float32)
    attend(rows, first, columns, place, rows, 2 * width, heads, 1, width // heads, left, ahead, mixed)
    for m in range(y.shape[0]):
        for i in range(width):
            y[m, i] = x[m, i]
    apply_layer(mixed, out, y, np.int64(ADD))
    layer_norm(y, norm[0], norm[1], mixed)
    apply_layer(mixed, fc1, inner, np.int64(GELU))
    apply_layer(inner, fc2, y, np.int64(ADD))


class PackedEncoder:
    """The weights of a network; streams share it."""

    def __init__(self, config: StreamingConfig, weights: Weights) -> None:
        """`weights` of a `StreamingNetwork`."""
        self.config = config
        self.convolutions = [
            pack(weights, name, config.width, 3 * width, order=np.arange(3 * width).reshape(width, 3).T.ravel())
            for name, width in (("conv1", config.mels), ("conv2", config.width))
        ]
        self.layers = [PackedLayer(weights.part(f"layers.{number}"), config) for number in range(config.layers)]
        self.positions, self.window = periodic_positions(config.width), mel_window()
        self.filters = mel_filters(config.mels)
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

    def __init__(self, weights: Weights, config: StreamingConfig) -> None:
        """`weights` of a `StreamingLayer`."""
        width, inner = config.width, config.feedforward
        self.left, self._sizes = config.left, (config.heads, config.left, inner)
        norms = [pack_norm(weights, f"{name}_norm", width).arrays for name in ("attention", "feedforward")]
        self._entry = norms[0], pack(weights, "qkv", 3 * width, width).arrays
        shapes = (("out", width, width), ("fc1", inner, width), ("fc2", width, inner))
        out, *feedforward = (pack(weights, *shape).arrays for shape in shapes)
        self._arrays = out, norms[1], *feedforward

    def extend(self, inputs: Rows, keys: KeyRows) -> None:
        """Append the queries, keys and values of new inputs."""
        if inputs.count > (first := keys.count):
            rows = keys.extend(inputs.count - first)
            _extend_keys(inputs.view(first, inputs.count), *self._entry, rows, keys.columns, keys.place(first))

    def read(self, inputs: Rows, keys: KeyRows, start: int, ahead: int, y: Float) -> None:
        """Fill y (m, width) for the inputs from number `start` on."""
        x, rows = inputs.view(start, start + len(y)), keys.view(keys.first, keys.count)
        place = keys.place(keys.first)
        _run_block(x, rows, start - keys.first, keys.columns, place, self._sizes, ahead, self._arrays, y)


class PackedStream:
    """As `EncoderStream`, for short chunks."""

    def __init__(self, encoder: PackedEncoder, ahead: tuple[int, ...], early: bool = False) -> None:
        """`early`: keep the first block's states for `take_early`."""
        self._encoder, self._ahead, self._keep_early = encoder, ahead, early
        self._early: list[Float] = []
        self.reset()

    def reset(self) -> None:
        """Return to the state before the first sample."""
        width, layers = self._encoder.config.width, len(self._encoder.layers)
        self._samples = np.zeros(REACH, np.float32)  # the last samples, which later frames read
        self._position = self._received = 0  # of the next frame, modulo PERIOD; samples of the last, incomplete frame
        self._hidden = [Rows(width) for _ in range(layers + 1)]  # inputs of the blocks, and outputs of the last
        self._qkv = [KeyRows(width) for _ in range(layers)]
        self._early_count = 0  # frames whose early state is known

    def take_early(self) -> Float:
        """Early states (n, width) of the next frames: those after the first block, `EARLY_AHEAD` frames ahead."""
        states = self._early or [np.zeros((0, self._encoder.config.width), np.float32)]
        self._early = []
        return np.concatenate(states)

    def push(self, samples: Float) -> Float:
        """As `EncoderStream.push`."""
        new = np.asarray(samples, np.float32)
        self._received = (self._received + len(new)) % FRAME_SAMPLES
        return self._step(new, last=False)

    def finish(self) -> Float:
        """As `EncoderStream.finish`."""
        hidden = self._step(np.zeros(-self._received % FRAME_SAMPLES + REACH - FRAME_SAMPLES, np.float32), last=True)
        self.reset()
        return hidden

    def _step(self, samples: Float, last: bool) -> Float:
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
            return np.zeros((0, len(self._hidden), self._encoder.config.width), np.float32)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _run_layers(self, last: bool) -> Float:
        """Hidden states (m, layers + 1, width) of the frames that become complete."""
        if self._keep_early:
            self._run_early(last)
        run_layers(self._encoder.layers, self._ahead, self._hidden, self._qkv, last)
        start, stop = self._hidden[-1].first, self._hidden[-1].count
        complete_states = np.stack([rows.view(start, stop) for rows in self._hidden], axis=1)
        for rows in self._hidden:
            rows.drop(stop)
        return complete_states

    def _run_early(self, last: bool) -> None:
        """Append the early states of the frames that become complete; `last`: no frames follow."""
        layer, inputs, keys = self._encoder.layers[0], self._hidden[0], self._qkv[0]
        layer.extend(inputs, keys)
        ahead, start = min(EARLY_AHEAD, self._ahead[0]), self._early_count
        complete = inputs.count if last else max(start, inputs.count - ahead)
        if complete > start:
            y = np.empty((complete - start, self._encoder.config.width), np.float32)
            layer.read(inputs, keys, start, ahead, y)
            self._early.append(y)
            self._early_count = complete


def run_layers(
    layers: Sequence[PackedLayer], ahead: Sequence[int], hidden: Sequence[Rows], qkv: Sequence[KeyRows], last: bool
) -> None:
    """Append the rows that become complete to the outputs of each block.

    Args:
        ahead: rows that each block looks ahead.
        hidden: inputs of the blocks, and outputs of the last.
        qkv: queries, keys and values of each block.
        last: no rows follow.
    """
    for layer, reach, inputs, outputs, keys in zip(layers, ahead, hidden[:-1], hidden[1:], qkv, strict=False):
        layer.extend(inputs, keys)
        complete = inputs.count if last else max(outputs.count, inputs.count - reach)
        if complete > outputs.count:
            start = outputs.count
            layer.read(inputs, keys, start, reach, outputs.extend(complete - start))
            keys.drop(complete - layer.left)


class CompiledEncoder(LookAheadDial):
    """The `StreamingEncoder` of a CPU, without torch: its features are arrays."""

    def __init__(self, name: str, packed: PackedEncoder, windows: Windowing | None = None) -> None:
        super().__init__(name, packed.config, windows)
        self._packed = packed

    def with_windows(self, windows: Windowing) -> CompiledEncoder:
        """As `StreamingEncoder.with_windows`."""
        return CompiledEncoder(self.name, self._packed, windows)

    def compiled(self) -> CompiledEncoder:
        """Itself, as `StreamingEncoder.compiled`."""
        return self

    def encode(self, samples: Float) -> Float:
        """Hidden states (T, layers, width) of samples (N,), T = ceil(N / 320)."""
        stream = self.stream()
        return np.concatenate([stream.push(samples), stream.finish()])

    def blocks(self, chunks: Iterable[Float]) -> Iterator[Float]:
        """The same of samples that come in chunks of any size, in blocks (n, layers, width) of about `windows.hop`.

        As many samples are encoded at once for any chunks, so that equal samples have equal features to the last bit.
        """
        stream = self.stream()
        for samples in split_blocks(chunks, self.windows.hop * FRAME_SAMPLES):
            if len(block := stream.push(samples)):
                yield block
        if len(block := stream.finish()):
            yield block

    def stream(self) -> PackedStream:
        """A stream of live sound, before its first sample."""
        return PackedStream(self._packed, LOOK_AHEAD[self.look_ahead])

    def early_stream(self) -> PackedStream:
        """As `LookAheadDial.early_stream`."""
        return PackedStream(self._packed, LOOK_AHEAD[self.look_ahead], early=True)


def load_compiled_encoder(name: Path | str, folder: Path) -> CompiledEncoder:
    """Load the streaming encoder of a folder, in 8 bits. Raises CheckpointError as `load_streaming_network`."""
    config, state, rows = load_arrays(folder, STREAMING_KIND)
    sizes = config_from_plain(StreamingConfig, config, "speech encoder")
    with check_fit(folder):
        weights = quantize_layers(state, rows)
        packed = PackedEncoder(sizes, weights)
        weights.check_all_read()
    return CompiledEncoder(str(name), packed)
