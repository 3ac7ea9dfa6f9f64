"""Speech encoders: mono 16 kHz -> 50 feature vectors a second.

The built-in encoders are that of Whisper tiny.en (Radford et al. 2022, MIT), which runs on overlapping windows without
padding to 30 s, and one made from it that computes each frame once (`sedtalker.streaming_encoder`). The features of a
frame depend on a bounded stretch of audio, and the cost grows linearly.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.audio import split_blocks
from sedtalker.checkpoint import (
    check_fit,
    config_from_plain,
    is_checkpoint,
    load_checkpoint,
    load_weights,
)
from sedtalker.encoder_config import BUILT_IN as BUILT_IN
from sedtalker.encoder_config import (
    DEFAULT_ENCODER,
    LONG_WINDOWS,
    LOOK_AHEAD,
    EarlyStream,
    EncoderConfig,
    LookAheadDial,
    Windowing,
    encoder_folder,
)
from sedtalker.encoder_config import STREAMING_KIND as STREAMING_KIND
from sedtalker.errors import CheckpointError, SEDTalkerError, first_line, require
from sedtalker.int8 import named_weights
from sedtalker.mel import FRAME_SAMPLES
from sedtalker.mel import MEL_HOP as MEL_HOP
from sedtalker.mel import MEL_WINDOW as MEL_WINDOW
from sedtalker.mel import mel_edges as mel_edges
from sedtalker.mel import mel_filters as mel_filters
from sedtalker.resources import asset
from sedtalker.streaming_encoder import EncoderStream, StreamingNetwork, load_streaming_network

if TYPE_CHECKING:
    from sedtalker.streaming_encoder_cpu import CompiledEncoder

if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not exist in a forked child, which would wait for them without end.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

MEL_DECADES = 4.0  # decades of power per unit of a log-mel
MAX_FRAMES = 1500  # 30 s, the number of position embeddings

KIND = "speech-encoder"
TUNED_KIND = "tuned-blocks"  # fine-tuned upper blocks of a built-in encoder


def load_encoder(name: Path | str = DEFAULT_ENCODER, device: str | torch.device = "cpu") -> WindowedEncoder:
    """Load a speech encoder.

    Args:
        name: a built-in encoder, the folder of a fine-tuned one, or the hub name or folder of a WavLM, wav2vec2, HuBERT
            or Whisper model of `transformers`.
        device: of the network.

    Raises:
        CheckpointError: the model is missing, or has another architecture.
        MissingExtraError: `transformers` is needed and not installed.
    """
    folder = encoder_folder(name)
    if is_checkpoint(folder, STREAMING_KIND):
        return StreamingEncoder(str(name), load_streaming_network(folder, device), device)
    if is_checkpoint(folder, KIND):
        network = _load_whisper(folder)
    elif is_checkpoint(folder, TUNED_KIND):
        network = _load_tuned_whisper(folder)
    else:
        return _load_with_transformers(name, device)
    sizes = network.config
    windows = Windowing() if sizes.width <= WhisperConfig.width else LONG_WINDOWS
    return WindowedEncoder(str(name), network, sizes.layers + 1, sizes.width, device, windows)


class WindowedEncoder:
    """An encoder network run over overlapping windows."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        layers: int,
        width: int,
        device: str | torch.device,
        windows: Windowing | None = None,
    ) -> None:
        self.name, self.layers, self.width = name, layers, width
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.windows = windows = windows or Windowing()
        if isinstance(network, WhisperEncoder) and windows.left + windows.hop + windows.right > MAX_FRAMES:
            raise SEDTalkerError(f"windows of more than {MAX_FRAMES} frames: {name} reads 30 s at once at most")

    @property
    def delay(self) -> float:
        """Longest time in frames from the end of a frame to the end of the sound that its features need."""
        return self.windows.hop - 1 + self.windows.right

    def with_windows(self, windows: Windowing) -> WindowedEncoder:
        """The same network with other windows."""
        return WindowedEncoder(self.name, self.network, self.layers, self.width, self.device, windows)

    def encode(self, samples: NDArray[np.float32] | Tensor) -> Tensor:
        """Hidden states (T, layers, width) of samples (N,), T = ceil(N / 320)."""
        return torch.cat(list(self.blocks([samples])))

    def compiled(self) -> WindowedEncoder | CompiledEncoder:
        """The same encoder for compiled code if there is such code for it, else itself."""
        return self

    def with_look_ahead(self, look_ahead: int) -> WindowedEncoder:
        """The same network with another look-ahead in ms. Raises CheckpointError: this encoder has one alone."""
        raise CheckpointError(
            f"no look-ahead of {look_ahead} ms: the speech encoder {self.name} was made for one. "
            "Use a model on whisper-tiny.en-streaming, or leave the look-ahead out"
        )

    def blocks(self, chunks: Iterable[NDArray[np.float32] | Tensor]) -> Iterator[Tensor]:
        """Hidden states (hop, layers, width) of chunks of samples of any size, each when its window is complete.

        Holds no more than a window and a chunk.
        """
        stream = WindowStream(self)
        for chunk in chunks:
            yield from stream.windows(chunk)
        yield from stream.windows(None)

    def stream(self) -> FeatureStream:
        """A stream of live sound, before its first sample."""
        return WindowStream(self)


class FeatureStream(Protocol):
    """Features (n, layers, width) of streamed sound; together they do not depend on the sizes of the chunks."""

    def push(self, samples: NDArray[np.float32]) -> Tensor | NDArray[np.float32]:
        """Features of the frames that became complete with the next samples (N,)."""

    def finish(self) -> Tensor | NDArray[np.float32]:
        """Features of the frames that still wait, after the last samples."""


class WindowStream:
    """`FeatureStream` of a network over overlapping windows."""

    def __init__(self, encoder: WindowedEncoder) -> None:
        self._encoder = encoder
        self._buffer = torch.zeros(0)  # samples from frame `first` on
        self._first = self._start = 0  # frames

    def push(self, samples: NDArray[np.float32] | Tensor) -> Tensor:
        """As `FeatureStream`."""
        return torch.cat([torch.zeros(0, self._encoder.layers, self._encoder.width), *self.windows(samples)])

    def finish(self) -> Tensor:
        """As `FeatureStream`."""
        return torch.cat([torch.zeros(0, self._encoder.layers, self._encoder.width), *self.windows(None)])

    @torch.inference_mode()
    def windows(self, samples: NDArray[np.float32] | Tensor | None) -> Iterator[Tensor]:
        """Hidden states (hop, layers, width) of the windows that the next samples (N,) complete; None: the rest."""
        windows = self._encoder.windows
        if samples is not None:
            new = torch.as_tensor(samples, dtype=torch.float32)
            self._buffer = torch.cat([self._buffer, new]) if len(self._buffer) else new
        known = self._first + len(self._buffer) // FRAME_SAMPLES
        frames = self._first + math.ceil(len(self._buffer) / FRAME_SAMPLES)
        while self._start + windows.hop + windows.right <= known or (samples is None and self._start < frames):
            end = min(self._start + windows.hop, frames)
            yield self._encode(self._start, end, min(frames, end + windows.right))
            self._start = end
            dropped = max(0, end - windows.left) - self._first
            self._buffer, self._first = self._buffer[dropped * FRAME_SAMPLES :], self._first + dropped

    def _encode(self, start: int, end: int, last: int) -> Tensor:
        """Hidden states of the frames start..end, computed with the left context and the frames up to `last`."""
        begin = max(0, start - self._encoder.windows.left)
        samples = self._buffer[(begin - self._first) * FRAME_SAMPLES : (last - self._first) * FRAME_SAMPLES]
        missing = (last - begin) * FRAME_SAMPLES - len(samples)
        hidden = self._encoder.network(F.pad(samples, (0, missing)).to(self._encoder.device))
        return hidden[start - begin : end - begin].cpu()


class StreamingEncoder(LookAheadDial, WindowedEncoder):
    """An encoder that computes each frame once and carries its state between chunks."""

    network: StreamingNetwork

    def __init__(
        self, name: str, network: StreamingNetwork, device: str | torch.device, windows: Windowing | None = None
    ) -> None:
        config = network.config
        WindowedEncoder.__init__(self, name, network, config.layers + 1, config.width, device, windows)
        LookAheadDial.__init__(self, name, config, windows)

    def with_windows(self, windows: Windowing) -> StreamingEncoder:
        """The same network with other sizes of chunks and another look-ahead."""
        return StreamingEncoder(self.name, self.network, self.device, windows)

    def encode(self, samples: NDArray[np.float32] | Tensor) -> Tensor:
        """Hidden states (T, layers, width) of samples (N,), T = ceil(N / 320)."""
        return torch.cat([torch.zeros(0, self.layers, self.width), *self.blocks([samples])])

    def blocks(self, chunks: Iterable[NDArray[np.float32] | Tensor]) -> Iterator[Tensor]:
        """The same of samples that come in chunks of any size, in blocks (n, layers, width) of about `windows.hop`."""
        stream, pieces = self._long_stream(), (np.asarray(chunk, np.float32) for chunk in chunks)
        for samples in split_blocks(pieces, self.windows.hop * FRAME_SAMPLES):
            if len(block := stream.push(samples)):
                yield block
        if len(block := stream.finish()):
            yield block

    def stream(self) -> FeatureStream:
        """A stream of live sound, before its first sample."""
        compiled = self.compiled()
        return self._long_stream() if compiled is self else compiled.stream()

    @property
    def early_frames(self) -> int:
        """As `LookAheadDial.early_frames`."""
        return 0 if self.compiled() is self else super().early_frames

    def early_stream(self) -> EarlyStream:
        """As `LookAheadDial.early_stream`."""
        compiled = self.compiled()
        if compiled is self:
            raise SEDTalkerError("early states of the speech encoder are known on the CPU alone. Use device cpu")
        return compiled.early_stream()

    def compiled(self) -> StreamingEncoder | CompiledEncoder:
        """The same encoder for compiled code; itself on a GPU."""
        if self.device.type != "cpu":
            return self
        from sedtalker.layers_cpu import share_packed
        from sedtalker.streaming_encoder_cpu import CompiledEncoder, PackedEncoder

        def build(network: StreamingNetwork) -> PackedEncoder:
            return PackedEncoder(network.config, named_weights(network))

        return CompiledEncoder(self.name, share_packed(self.network, build), self.windows)

    def _long_stream(self) -> EncoderStream:
        """A stream for chunks of seconds."""
        return EncoderStream(self.network, LOOK_AHEAD[self.look_ahead])


@dataclass(frozen=True)
class WhisperConfig(EncoderConfig):
    """Sizes of a Whisper encoder."""

    def plain(self) -> dict[str, Any]:
        """Plain types for a checkpoint."""
        return asdict(self)


def log_mel(samples: Tensor, mels: int = 80) -> Tensor:
    """Whisper's input (mels, N // 160) of samples (N,): log10 power, limited to 8 decades, scaled to about -1..1.

    As Whisper's `log_mel_spectrogram`, except that the loudest bin counts as at least 1, so that the noise floor of a
    silent window is not raised.
    """
    window = torch.hann_window(MEL_WINDOW, device=samples.device)
    spectrum = torch.stft(samples, MEL_WINDOW, MEL_HOP, window=window, return_complex=True)[:, :-1]
    power = torch.from_numpy(mel_filters(mels)).to(samples.device) @ spectrum.abs().square()
    decades = power.clamp(min=1e-10).log10()
    return (torch.maximum(decades, decades.max().clamp(min=0.0) - 8.0) + MEL_DECADES) / MEL_DECADES


class WhisperEncoder(nn.Module):
    """Whisper's audio encoder; parameters are named as in `transformers`."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.mels, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(MAX_FRAMES, config.width)
        self.layers = nn.ModuleList(WhisperLayer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.width)

    def forward(self, samples: Tensor) -> Tensor:
        """Hidden states (T, layers + 1, width) of samples (320 T,): before the first block and after each."""
        return self.hidden_states(log_mel(samples, self.config.mels)[None])[0]

    def hidden_states(self, mel: Tensor) -> Tensor:
        """Hidden states (B, T, layers + 1, width) of log-mels (B, mels, 2 T); the last is layer-normed."""
        return self.run_layers(0, self.embed_mel(mel))

    def embed_mel(self, mel: Tensor) -> Tensor:
        """Input (B, T, width) of the first block, of log-mels (B, mels, 2 T)."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        return x + self.embed_positions.weight[: x.shape[1]]

    def run_layers(self, block: int, x: Tensor) -> Tensor:
        """Hidden states (B, T, layers - block + 1, width) of x (B, T, width), the state after `block` blocks."""
        states = [x]
        for layer in self.layers[block:]:
            x = layer(x)
            states.append(x)
        states[-1] = self.layer_norm(states[-1])
        return torch.stack(states, dim=2)


class WhisperLayer(nn.Module):
    """Pre-norm self-attention and feed-forward block."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.self_attn = WhisperAttention(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.feedforward)
        self.fc2 = nn.Linear(config.feedforward, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperAttention(nn.Module):
    """Full self-attention; Whisper's key projection has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _WaveformNetwork(nn.Module):
    """WavLM, wav2vec2 or HuBERT of `transformers`: samples (320 T,) -> hidden states (T, layers + 1, width)."""

    def __init__(self, model: nn.Module, normalise: bool) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise

    def forward(self, samples: Tensor) -> Tensor:
        if self.normalise:
            samples = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
        # The convolutions use 400 samples every 320: with 40 more on each side there is a frame for every 20 ms.
        padded = F.pad(samples, ((MEL_WINDOW - FRAME_SAMPLES) // 2,) * 2)
        states = self.model(padded[None], output_hidden_states=True).hidden_states
        return torch.stack([state[0] for state in states], dim=1)


def _load_whisper(folder: Path) -> WhisperEncoder:
    """The encoder of a checkpoint."""
    config, state = load_checkpoint(folder, KIND)
    sizes = config_from_plain(WhisperConfig, config, "speech encoder")
    with check_fit(folder):
        encoder = WhisperEncoder(sizes)
    load_weights(encoder, state, folder)
    return encoder


def _load_tuned_whisper(folder: Path) -> WhisperEncoder:
    """A built-in encoder whose upper blocks are those of a checkpoint."""
    config, state = load_checkpoint(folder, TUNED_KIND)
    name, below = config.get("encoder"), config.get("below")
    if not isinstance(name, str) or not isinstance(below, int):
        raise CheckpointError(f"no encoder and first block of the tuned blocks: {folder}. Copy the folder again")
    encoder = _load_whisper(asset("speech", name))
    load_weights(encoder.layers[below:], state, folder)
    return encoder


def _load_with_transformers(name: Path | str, device: str | torch.device) -> WindowedEncoder:
    if "/" not in str(name) and not Path(name).is_dir():
        raise CheckpointError(
            f"no speech encoder has this name: {name}. Give {DEFAULT_ENCODER}, a folder or OWNER/NAME"
        )
    transformers = require("transformers", "hub")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if config.model_type == "whisper":
            return _whisper_from_transformers(transformers, name, config, device)
        if config.model_type not in ("wavlm", "wav2vec2", "hubert"):
            raise CheckpointError(
                f"not a speech encoder: {name} is a {config.model_type!r}. Give WavLM, wav2vec2, HuBERT or Whisper"
            )
        model = transformers.AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load the speech encoder {name}: {first_line(error)}. Give a folder, or a hub name while online"
        ) from error
    normalise = _normalises_input(transformers, name)
    network = _WaveformNetwork(model, normalise)
    return WindowedEncoder(str(name), network, config.num_hidden_layers + 1, config.hidden_size, device)


def _whisper_from_transformers(
    transformers: Any, name: Path | str, config: Any, device: str | torch.device
) -> WindowedEncoder:
    sizes = WhisperConfig(
        config.num_mel_bins,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_ffn_dim,
        config.encoder_layers,
    )
    encoder = WhisperEncoder(sizes)
    encoder.load_state_dict(transformers.WhisperModel.from_pretrained(name).encoder.float().state_dict())
    return WindowedEncoder(str(name), encoder, sizes.layers + 1, sizes.width, device)


def _normalises_input(transformers: Any, name: Path | str) -> bool:
    try:
        return bool(transformers.AutoFeatureExtractor.from_pretrained(name).do_normalize)
    except (OSError, ValueError):
        return True  # the setting of the large models, for folders without a preprocessor
