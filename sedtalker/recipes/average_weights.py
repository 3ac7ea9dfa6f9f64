"""Average the weights of talkers that were fine-tuned from the same one (model soup).

The average keeps most of what each run gained (Wortsman et al. 2022, "Model soups").
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sedtalker.checkpoint import average_weights, load_checkpoint, save_checkpoint
from sedtalker.errors import DataError
from sedtalker.talker.model import KIND


def average_talkers(folders: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the weighted mean of trained talkers.

    Raises:
        DataError: they are of different sizes, or the shares do not sum to 1.
        CheckpointError: a folder holds no talker.
    """
    if len(shares) != len(folders) or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares {list(shares)} of {len(folders)} talkers. Give one for each, which sum to 1")
    configs, states = zip(*(load_checkpoint(folder, KIND) for folder in folders), strict=True)
    if any(config != configs[0] for config in configs):
        raise DataError("talkers of different sizes cannot be averaged. Give talkers that were tuned from the same one")
    save_checkpoint(output, KIND, configs[0], average_weights(states, shares))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("talkers", type=Path, nargs="+", help="folders of trained talkers")
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="weight of each talker; they sum to 1")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the averaged talker")


def run(arguments: argparse.Namespace) -> None:
    average_talkers(arguments.talkers, arguments.shares, arguments.output)
