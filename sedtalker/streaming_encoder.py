"""A speech encoder that streams: mono 16 kHz -> 50 feature vectors a second, each computed once.

Blocks of Whisper's encoder (Radford et al. 2022) with banded attention: a frame attends to `left` frames before it and,
in each block, to a few frames after it. Keys and values are carried from one chunk to the next, so the features do not
depend on the size of the chunks, and the cost of a second of audio hardly does. The look-ahead can be chosen at run
time: one set of weights was trained with every setting of `LOOK_AHEAD`.

Two differences from Whisper make the features of a frame independent of the length of the audio:
- log-mels have a fixed floor; Whisper's is 8 decades below the loudest bin of the clip;
- positions are periodic: the frequencies of their sinusoids are rounded to multiples of 2 pi / PERIOD. Products
  of two positions still depend only on their difference, and streams may have any length.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.checkpoint import check_fit, config_from_plain, load_rows, load_weights, save_checkpoint
from sedtalker.encoder_config import DEFAULT_LOOK_AHEAD as DEFAULT_LOOK_AHEAD
from sedtalker.encoder_config import LOOK_AHEAD as LOOK_AHEAD
from sedtalker.encoder_config import PERIOD, REACH, StreamingConfig, periodic_positions
from sedtalker.encoder_config import STREAMING_KIND as KIND
from sedtalker.int8 import MeasuredLinear, smooth_state, to_int8, undo_smoothing, use_int8
from sedtalker.mel import FRAME_SAMPLES, MEL_HOP, MEL_WINDOW, mel_filters, mel_window


class LayerState(NamedTuple):
    """State of a block between chunks; time is the second axis."""

    keys: Tensor  # (B, <= left + ahead, width)
    values: Tensor
    queries: Tensor  # (B, <= ahead, width), of frames that wait for the frames after them
    inputs: Tensor  # (B, <= ahead, width), of the same frames


class EncoderState(NamedTuple):
    """State of the encoder between chunks; its size does not grow with time."""

    samples: Tensor  # (B, S), the last samples, which later frames read
    position: int  # of the next frame, modulo PERIOD
    layers: tuple[LayerState, ...]
    waiting: tuple[Tensor, ...]  # (B, n, width) a block: inputs of the blocks whose last output is not yet known


@lru_cache(maxsize=64)
def _band(queries: int, keys: int, first: int, left: int, ahead: int) -> Tensor:
    """0 at the keys (queries, keys) that a query reads, elsewhere -inf; query i is the frame of key first + i."""
    with torch.inference_mode(False):  # training may read it too
        distance = torch.arange(keys)[None] - (first + torch.arange(queries))[:, None]
        return torch.where((distance >= -left) & (distance <= ahead), 0.0, -torch.inf)


class StreamingLayer(nn.Module):
    """Whisper's block (pre-norm attention and feed-forward) with banded attention and carried keys and values."""

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.heads, self.left = config.heads, config.left
        self.attention_norm = nn.LayerNorm(config.width)
        self.qkv = MeasuredLinear(config.width, 3 * config.width)
        self.out = MeasuredLinear(config.width, config.width)
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.fc1 = MeasuredLinear(config.width, config.feedforward)
        self.fc2 = MeasuredLinear(config.feedforward, config.width)

    def forward(self, x: Tensor, ahead: int, state: LayerState | None, last: bool) -> tuple[Tensor, LayerState]:
        """Outputs (B, m, width) of the frames whose look-ahead is complete, given n more frames x (B, n, width).

        `last`: no frame comes after x, so all frames are complete.
        """
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        if state is not None:
            k, v = torch.cat([state.keys, k], 1), torch.cat([state.values, v], 1)
            q, x = torch.cat([state.queries, q], 1), torch.cat([state.inputs, x], 1)
        waiting = x.shape[1]
        complete = waiting if last else max(0, waiting - ahead)
        first = k.shape[1] - waiting  # the key of the first query
        y = self._read(x[:, :complete], q[:, :complete], k, v, first, ahead) if complete else x[:, :0]
        drop = max(0, first + complete - self.left)
        return y, LayerState(k[:, drop:], v[:, drop:], q[:, complete:], x[:, complete:])

    def _read(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, first: int, ahead: int) -> Tensor:
        band = _band(q.shape[1], k.shape[1], first, self.left, ahead).to(q)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=band).transpose(1, 2).flatten(2)
        x = x + self.out(read)
        return x + self.fc2(F.gelu(self.fc1(self.feedforward_norm(x))))


class StreamingNetwork(nn.Module):
    """Samples -> hidden states before the first block and after each block, for any number of frames at a time."""

    positions: Tensor
    filters: Tensor
    window: Tensor

    def __init__(self, config: StreamingConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StreamingConfig()
        # Convolutions over 3 steps as matrix products: torch's convolution takes twice as long for 4 frames.
        self.conv1 = MeasuredLinear(3 * config.mels, config.width)
        self.conv2 = MeasuredLinear(3 * config.width, config.width)
        self.layers = nn.ModuleList(StreamingLayer(config) for _ in range(config.layers))
        self.register_buffer("positions", torch.from_numpy(periodic_positions(config.width)), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(config.mels).T.copy()), persistent=False)
        self.register_buffer("window", torch.from_numpy(mel_window()), persistent=False)

    def forward(self, samples: Tensor, ahead: tuple[int, ...], position: int = 0) -> Tensor:
        """Hidden states (B, N // 320, layers + 1, width) of whole recordings (B, N), N a multiple of 320.

        Args:
            ahead: frames that each block looks ahead, of `LOOK_AHEAD`.
            position: of the first frame.
        """
        state = self.start(samples.shape[0], position)
        return self.step(F.pad(samples, (0, REACH - FRAME_SAMPLES)), ahead, state, last=True)[0]

    def start(self, batch: int = 1, position: int = 0) -> EncoderState:
        """The state before the first sample; earlier samples count as silence."""
        return EncoderState(self.window.new_zeros(batch, REACH), position, (), ())

    def step(
        self, samples: Tensor, ahead: tuple[int, ...], state: EncoderState, last: bool = False
    ) -> tuple[Tensor, EncoderState]:
        """Hidden states (B, m, layers + 1, width) of the frames that samples (B, n) complete, and the state.

        `last`: no samples follow; the waiting frames are computed without their look-ahead.
        """
        held = torch.cat([state.samples, samples], 1)
        frames = (held.shape[1] - 2 * REACH) // FRAME_SAMPLES + 1
        if frames < 1 and not last:
            return self.positions.new_zeros(len(held), 0, len(self.layers) + 1, self.config.width), state._replace(
                samples=held
            )
        frames = max(0, frames)
        x = self._embed(held, frames, state.position)
        waiting, states = list(state.waiting), []
        for number, layer in enumerate(self.layers):
            waiting[number : number + 1] = [torch.cat([waiting[number], x], 1) if state.waiting else x]
            x, new = layer(x, ahead[number], state.layers[number] if state.layers else None, last)
            states.append(new)
        complete = x.shape[1]
        outputs = [part[:, :complete] for part in waiting] + [x]
        return torch.stack(outputs, 2), EncoderState(
            held[:, frames * FRAME_SAMPLES :],
            (state.position + frames) % PERIOD,
            tuple(states),
            tuple(part[:, complete:] for part in waiting),
        )

    def log_mel(self, samples: Tensor) -> Tensor:
        """Log-mels (B, M, mels) of samples (B, 160 M + 240): Whisper's scale, with a fixed floor."""
        spectrum = torch.fft.rfft(samples.unfold(1, MEL_WINDOW, MEL_HOP) * self.window)
        power = torch.view_as_real(spectrum).square().sum(-1) @ self.filters
        return (power.clamp(min=10.0**self.config.floor).log10() + 4) / 4

    def _embed(self, held: Tensor, frames: int, position: int) -> Tensor:
        """Inputs of the first block (B, frames, width) from samples that begin REACH before the first frame."""
        if not frames:
            return held.new_zeros(held.shape[0], 0, self.config.width)
        mel = self.log_mel(held[:, : (frames - 1) * FRAME_SAMPLES + 2 * REACH])
        x = F.gelu(self.conv1(mel.unfold(1, 3, 1).flatten(2)))
        x = F.gelu(self.conv2(x.unfold(1, 3, 2).flatten(2)))
        if position + frames <= PERIOD:
            return x + self.positions[position : position + frames]
        at = torch.arange(position, position + frames, device=held.device) % PERIOD
        return x + self.positions[at]


class EncoderStream:
    """Features of streamed sound; they do not depend on the sizes of the chunks."""

    def __init__(self, network: StreamingNetwork, ahead: tuple[int, ...]) -> None:
        self._network, self._ahead = network, ahead
        self.reset()

    def reset(self) -> None:
        """Return to the state before the first sample."""
        self.state = self._network.start()
        self._received = 0  # samples of the last, incomplete frame

    @torch.inference_mode()
    def push(self, samples: NDArray[np.float32] | Tensor) -> Tensor:
        """Hidden states (n, layers, width) of the frames that became complete with the next samples (N,)."""
        new = torch.as_tensor(samples, dtype=torch.float32).to(self.state.samples.device)
        self._received = (self._received + len(new)) % FRAME_SAMPLES
        hidden, self.state = self._network.step(new[None], self._ahead, self.state)
        return hidden[0].cpu()

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """Hidden states (n, layers, width) of the waiting frames, as if silence followed; then `reset`."""
        padding = -self._received % FRAME_SAMPLES + REACH - FRAME_SAMPLES
        silence = self.state.samples.new_zeros(1, padding)
        hidden, _ = self._network.step(silence, self._ahead, self.state, last=True)
        self.reset()
        return hidden[0].cpu()


def load_streaming_network(
    folder: Path | str, device: str | torch.device = "cpu", precision: str = "auto"
) -> StreamingNetwork:
    """Load the network of a folder for inference.

    Args:
        precision: "int8" (CPU only), "float32", or "auto": int8 where it is supported.

    Raises:
        CheckpointError: the folder has no such encoder, or one of another version.
    """
    config, state, rows = load_rows(folder, KIND)
    state |= {name: stored.restore() for name, stored in rows.items()}
    undo_smoothing(state)
    sizes = config_from_plain(StreamingConfig, config, "speech encoder")
    with check_fit(folder):
        network = StreamingNetwork(sizes)
    load_weights(network, state, folder)
    if use_int8(device, precision):
        to_int8(network, rows)
    return network.to(device).eval().requires_grad_(False)


def save_streaming_network(network: StreamingNetwork, folder: Path | str) -> None:
    """Write a network in floating point to a folder that `load_streaming_network` reads; linear layers in 8 bits."""
    save_checkpoint(folder, KIND, asdict(network.config), *smooth_state(network))


def from_whisper(network: nn.Module, config: StreamingConfig) -> StreamingNetwork:
    """A streaming network that starts with the convolutions and the first blocks of a `WhisperEncoder`."""
    ours = StreamingNetwork(config)
    theirs = network.state_dict()
    state = {}
    for name in ("conv1", "conv2"):
        state[f"{name}.weight"], state[f"{name}.bias"] = theirs[f"{name}.weight"].flatten(1), theirs[f"{name}.bias"]
    names = {
        "self_attn_layer_norm": "attention_norm",
        "self_attn.out_proj": "out",
        "final_layer_norm": "feedforward_norm",
    }
    names |= {"fc1": "fc1", "fc2": "fc2"}
    for n in range(config.layers):
        for old, new in names.items():
            for kind in ("weight", "bias"):
                state[f"layers.{n}.{new}.{kind}"] = theirs[f"layers.{n}.{old}.{kind}"]
        attention = f"layers.{n}.self_attn."
        state[f"layers.{n}.qkv.weight"] = torch.cat([theirs[f"{attention}{p}_proj.weight"] for p in "qkv"])
        q, v = (theirs[f"{attention}{p}_proj.bias"] for p in "qv")
        state[f"layers.{n}.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])  # Whisper's keys have no bias
    ours.load_state_dict(state, strict=False)  # Whisper has no ranges of inputs
    return ours
