"""Weight averaging of talkers that were tuned from the same one (model soup).

`python -m sedtalker.recipes average_weights A B C --shares .2 .4 .4 -o D` writes the mean.

Weights that were tuned from the same ones can be averaged, and then keep most of what each run gained (Wortsman et al.
2022, "Model soups" and "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from sedtalker.checkpoint import load_checkpoint, save_checkpoint
from sedtalker.errors import DataError
from sedtalker.talker.model import KIND


def averaged(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The mean of networks' tensors by name, each network with its share of 1."""
    return {
        name: sum((share * state[name] for state, share in zip(states, shares, strict=True)), 0 * first)
        for name, first in states[0].items()
    }


def average_talkers(folders: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the mean of trained talkers.

    Raises:
        DataError: they are of different sizes, or the shares do not sum to 1.
        CheckpointError: a folder holds no talker.
    """
    if len(shares) != len(folders) or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares {list(shares)} of {len(folders)} talkers. Give one for each, which sum to 1")
    configs, states = zip(*(load_checkpoint(folder, KIND) for folder in folders), strict=True)
    if any(config != configs[0] for config in configs):
        raise DataError("talkers of different sizes cannot be averaged. Give some that were tuned from one")
    save_checkpoint(output, KIND, configs[0], averaged(states, shares))
