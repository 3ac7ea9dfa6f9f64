"""A speech encoder's upper blocks, trained along with the diarizer that reads them.

What lies below them stays frozen, so its states are computed once (`sedtalker.training.features --below K`), two frames
of 20 ms for each of the diarizer's steps.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sedtalker.checkpoint import save_checkpoint
from sedtalker.emotion.diarizer import STRIDE, steps_of
from sedtalker.errors import DataError
from sedtalker.speech import TUNED_KIND, WhisperEncoder, load_encoder


class UpperBlocks(nn.Module):
    """The blocks of an encoder above the one whose states are cached."""

    def __init__(self, encoder: WhisperEncoder, below: int) -> None:
        super().__init__()
        self.blocks = encoder.layers[below:].requires_grad_(True)
        self.norm = encoder.layer_norm  # of the last state; stays as it is

    def forward(self, pairs: Tensor) -> Tensor:
        """Steps (B, S, blocks + 1, D) of a diarizer, of cached states (B, S, 2, D) from below the blocks."""
        x = pairs.float().flatten(1, 2)
        states = [x]
        for block in self.blocks:
            # bfloat16 is twice as fast on a CPU that has it; sums between the blocks stay exact
            with torch.autocast(x.device.type, torch.bfloat16):
                x = block(x)
            states.append(x.float())
        states[-1] = self.norm(states[-1])
        return steps_of(torch.stack(states, dim=2))


def upper_blocks(encoder: str, below: int) -> UpperBlocks:
    """The blocks of a Whisper encoder above the first `below`.

    Raises:
        DataError: the encoder is another kind, or has no block above.
    """
    network = load_encoder(encoder).network
    if not isinstance(network, WhisperEncoder) or not 0 < below < len(network.layers):
        raise DataError(f"no blocks to tune above {below} of {encoder}: give a Whisper encoder with more blocks")
    return UpperBlocks(network, below)


def paired(states: Tensor) -> Tensor:
    """States (T, D) of 50 Hz -> (ceil(T / 2), 2, D), the two frames of each step; an odd last frame counts twice."""
    whole = torch.cat([states, states[-1:]]) if len(states) % STRIDE else states
    return whole.unflatten(0, (-1, STRIDE))


def save_tuned(encoder: str, below: int, tuned: UpperBlocks, folder: Path | str) -> None:
    """The tuned blocks of an encoder, as a folder that `load_encoder` reads."""
    save_checkpoint(folder, TUNED_KIND, {"encoder": encoder, "below": below}, tuned.blocks.state_dict())
