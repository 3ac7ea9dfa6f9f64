"""Fine-tuning of a Whisper encoder, all of it or its upper blocks, together with the diarizer that reads it.

The output of the frozen lower blocks is cached (`python -m sedtalker.recipes cache_features --below K`): two frames of
20 ms for each step of the diarizer. With no frozen block (`--below 0`) the encoder's input is cached instead: four
log-mel frames of 10 ms for each step.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from sedtalker.checkpoint import save_checkpoint
from sedtalker.emotion.diarizer import pool_frames
from sedtalker.errors import DataError
from sedtalker.precision import bfloat16_products
from sedtalker.speech import KIND, TUNED_KIND, WhisperEncoder, load_encoder


class TunedEncoder(nn.Module):
    """An encoder with frozen lower blocks; with none frozen, its convolutions are trained too."""

    def __init__(self, encoder: WhisperEncoder, frozen_layers: int) -> None:
        super().__init__()
        self.encoder, self.frozen_layers = encoder.requires_grad_(False), frozen_layers
        encoder.layers[frozen_layers:].requires_grad_(True)
        if not frozen_layers:
            encoder.conv1.requires_grad_(True)
            encoder.conv2.requires_grad_(True)

    def forward(self, cached: Tensor) -> Tensor:
        """A diarizer's steps (B, S, blocks + 1, D) from cached states (B, S, 2, D) or log-mels (B, S, 4, mels)."""
        x = cached.float().flatten(1, 2)
        with bfloat16_products(x.device):  # doubles the speed; residual sums stay float32
            x = x if self.frozen_layers else self.encoder.embed_mel(x.transpose(1, 2)).float()
            states = self.encoder.run_layers(self.frozen_layers, x)
        return pool_frames(states)


def load_tunable_encoder(name: str, frozen_layers: int) -> TunedEncoder:
    """Load a Whisper encoder whose blocks above the first `frozen_layers` are trained.

    Raises:
        DataError: it is not a Whisper encoder, or it has no more than `frozen_layers` blocks.
    """
    network = load_whisper(name)
    if not 0 <= frozen_layers < len(network.layers):
        raise DataError(f"{name} has only {len(network.layers)} blocks. Set frozen_layers to a smaller number")
    return TunedEncoder(network, frozen_layers)


def load_whisper(name: str) -> WhisperEncoder:
    """Load the network of a Whisper encoder. Raises DataError if the encoder is of another kind."""
    network = load_encoder(name).network
    if not isinstance(network, WhisperEncoder):
        raise DataError(f"not a Whisper encoder: {name}. Only Whisper encoders can be fine-tuned")
    return network


def save_tuned_encoder(name: str, tuned: TunedEncoder, folder: Path | str) -> None:
    """Save the trained blocks of an encoder, or all of it, in a folder that `load_encoder` reads.

    `name` is the encoder that the frozen blocks come from.
    """
    encoder = tuned.encoder
    if tuned.frozen_layers:
        save_checkpoint(
            folder,
            TUNED_KIND,
            {"encoder": name, "below": tuned.frozen_layers},
            encoder.layers[tuned.frozen_layers :].state_dict(),
        )
    else:
        save_checkpoint(folder, KIND, encoder.config.plain(), encoder.state_dict())
