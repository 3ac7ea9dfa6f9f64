"""Average the weights of talkers that were tuned from the same one (model soup)."""

from __future__ import annotations

import argparse
from pathlib import Path

from sedtalker.training.weight_averaging import average_talkers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("talkers", type=Path, nargs="+", help="folders of trained talkers")
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="of each; they sum to 1")
    parser.add_argument("-o", "--output", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    average_talkers(arguments.talkers, arguments.shares, arguments.output)
