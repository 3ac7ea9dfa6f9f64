"""The lip gap of a voice, from speech features: a small recurrent network that was taught by measured mouths alone.

    features (B, T, L, D) -> embedding -> two layers forward in time -> gap and width, live
                                          two layers in both directions -> gap and width of whole recordings

The decoder (`sedtalker.talker.model`) learns from rules and from other faces too, which makes its gap follow people
who talk naturally less. It determines when the lips close, this network how far they open in between.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.checkpoint import load_checkpoint, load_weights, save_checkpoint

KIND = "lip-opening"
OUTPUTS = ("gap", "widening")


class LipOpening(nn.Module):
    """Lip gap, and mouth width minus its median, in mm on the default head."""

    mean: Tensor  # (2,) mm
    scale: Tensor  # (2,) mm

    def __init__(self, layers: int, feature_width: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(layers))
        self.project = nn.Linear(feature_width, width)
        self.dropout = nn.Dropout(dropout)
        self.past = nn.GRU(width, width, 2, batch_first=True, dropout=dropout)
        self.live_head = nn.Linear(width, len(OUTPUTS))
        self.both = nn.GRU(width, width, 2, batch_first=True, bidirectional=True, dropout=dropout)
        self.offline_head = nn.Linear(2 * width, len(OUTPUTS))
        self.register_buffer("mean", torch.zeros(len(OUTPUTS)))
        self.register_buffer("scale", torch.ones(len(OUTPUTS)))

    def embed(self, features: Tensor) -> Tensor:
        """Embedding (B, T, width) of features (B, T, L, D)."""
        normed = F.layer_norm(features.float(), features.shape[-1:])
        mixed = torch.einsum("btld,l->btd", normed, self.layer_weights.softmax(0))
        return F.gelu(self.project(F.layer_norm(mixed, mixed.shape[-1:])))

    def run_past(self, embedded: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gap and widening (B, T, 2) of the embedding (B, T, width), from the past, and the state (2, B, width)."""
        hidden, state = self.past(self.dropout(embedded), state)
        return self._scaled(self.live_head(self.dropout(hidden))), state

    def run_both(self, embedded: Tensor) -> Tensor:
        """Gap and widening (B, T, 2) of the embedding (B, T, width) of whole recordings."""
        return self._scaled(self.offline_head(self.dropout(self.both(self.dropout(embedded))[0])))

    def run_recording(self, embedded: Tensor) -> Tensor:
        """Gap of `run_both`, and the mean widening of both directions and of the past, (B, T, 2)."""
        both, past = self.run_both(embedded), self.run_past(embedded)[0]
        return torch.stack([both[..., 0], (both[..., 1] + past[..., 1]) / 2], dim=-1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Gap and widening (B, T, 2) from the past, and from whole recordings."""
        embedded = self.embed(features)
        return self.run_past(embedded)[0], self.run_both(embedded)

    def _scaled(self, raw: Tensor) -> Tensor:
        return raw * self.scale + self.mean


def save_lip_opening(network: LipOpening, folder: Path) -> None:
    """Write a network to a folder that `load_lip_opening` reads."""
    config = {
        "layers": len(network.layer_weights),
        "feature_width": network.project.in_features,
        "width": network.project.out_features,
    }
    save_checkpoint(folder, KIND, config, network.state_dict())


def load_lip_opening(folder: Path) -> LipOpening:
    """The network of a folder, in evaluation mode without gradients.

    Raises:
        CheckpointError: the folder does not hold such a network.
    """
    config, state = load_checkpoint(folder, KIND)
    network = LipOpening(**config)
    load_weights(network, state, folder)
    return network.eval().requires_grad_(False)
