"""Blend a tuned speech encoder with the one that it was tuned from."""

from __future__ import annotations

import argparse
from pathlib import Path

from sedtalker.checkpoint import save_checkpoint
from sedtalker.speech import KIND
from sedtalker.training.encoder_tuning import blended, whisper_encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("tuned", help="folder of a tuned encoder")
    parser.add_argument("--from", dest="original", required=True, help="the encoder it was tuned from")
    parser.add_argument("--share", type=float, required=True, help="of the way between them: 0 the one, 1 the other")
    parser.add_argument("-o", "--output", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    original, tuned = (whisper_encoder(name) for name in (arguments.original, arguments.tuned))
    save_checkpoint(arguments.output, KIND, original.config.plain(), blended(original, tuned, arguments.share))
