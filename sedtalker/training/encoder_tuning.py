"""A speech encoder trained along with the diarizer that reads it: all of it, or its upper blocks.

What lies below the blocks that are trained stays frozen, so its states are computed once
(`sedtalker.data.features --below K`): two frames of 20 ms for each of the diarizer's steps. With nothing frozen
(`--below 0`) they are the encoder's input, four log-mel frames of 10 ms for each step.

`python -m sedtalker.recipes tune_encoder TUNED --from NAME --share 0.6 -o DIR` writes the encoder that lies that far
from the one it was tuned from: what it learned from few voices carries over to others better than the tuned one does
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sedtalker.checkpoint import save_checkpoint
from sedtalker.emotion.diarizer import pool_frames
from sedtalker.errors import DataError
from sedtalker.speech import KIND, TUNED_KIND, WhisperEncoder, load_encoder
from sedtalker.training.weight_averaging import averaged


class TunedEncoder(nn.Module):
    """An encoder whose blocks above the first `below` are trained, and with none below its convolutions too."""

    def __init__(self, encoder: WhisperEncoder, below: int) -> None:
        super().__init__()
        self.encoder, self.below = encoder.requires_grad_(False), below
        encoder.layers[below:].requires_grad_(True)
        if not below:
            encoder.conv1.requires_grad_(True)
            encoder.conv2.requires_grad_(True)

    def forward(self, cached: Tensor) -> Tensor:
        """Steps (B, S, blocks + 1, D) of a diarizer, of cached states (B, S, 2, D) or log-mels (B, S, 4, mels)."""
        x = cached.float().flatten(1, 2)
        # bfloat16 is twice as fast, also on a CPU that has it; sums between the blocks stay exact
        with torch.autocast(x.device.type, torch.bfloat16):
            x = x if self.below else self.encoder.embed_mel(x.transpose(1, 2)).float()
            states = self.encoder.run_layers(self.below, x)
        return pool_frames(states)


def tuned_encoder(name: str, below: int) -> TunedEncoder:
    """A Whisper encoder to train above its first `below` blocks.

    Raises:
        DataError: as `whisper_encoder`, or it has no block above.
    """
    network = whisper_encoder(name)
    if not 0 <= below < len(network.layers):
        raise DataError(f"no blocks to tune above {below} of {name}: give a Whisper encoder with more blocks")
    return TunedEncoder(network, below)


def whisper_encoder(name: str) -> WhisperEncoder:
    """The network of a Whisper encoder.

    Raises:
        DataError: the encoder is another kind.
    """
    network = load_encoder(name).network
    if not isinstance(network, WhisperEncoder):
        raise DataError(f"not a Whisper encoder, so not one to tune: {name}")
    return network


def blended(original: WhisperEncoder, tuned: WhisperEncoder, share: float) -> dict[str, Tensor]:
    """The weights that lie a share of the way from an encoder's to those it was tuned to.

    Raises:
        DataError: the two differ in their sizes.
    """
    if original.config != tuned.config:
        raise DataError(f"encoders of different sizes: {original.config} and {tuned.config}. Give the one it came from")
    return averaged([original.state_dict(), tuned.state_dict()], [1 - share, share])


def save_tuned(name: str, tuned: TunedEncoder, folder: Path | str) -> None:
    """The tuned blocks of an encoder, or all of it, as a folder that `load_encoder` reads."""
    encoder = tuned.encoder
    if tuned.below:
        save_checkpoint(
            folder, TUNED_KIND, {"encoder": name, "below": tuned.below}, encoder.layers[tuned.below :].state_dict()
        )
    else:
        save_checkpoint(folder, KIND, encoder.config.plain(), encoder.state_dict())
