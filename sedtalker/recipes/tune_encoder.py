"""Interpolate between a fine-tuned speech encoder and the encoder that it was tuned from.

An encoder between the two generalises better to unseen voices than the tuned one (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"): `python -m sedtalker.recipes tune_encoder TUNED --from NAME --share 0.6 -o DIR`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from sedtalker.checkpoint import average_weights, save_checkpoint
from sedtalker.errors import DataError
from sedtalker.speech import KIND, WhisperEncoder
from sedtalker.training.encoder_tuning import load_whisper


def interpolate_encoders(original: WhisperEncoder, tuned: WhisperEncoder, share: float) -> dict[str, Tensor]:
    """State dict at a share of the straight line from `original` (0) to `tuned` (1).

    Raises:
        DataError: the two differ in their sizes.
    """
    if original.config != tuned.config:
        raise DataError(f"encoders of different sizes: {original.config} and {tuned.config}. Give the one it came from")
    return average_weights([original.state_dict(), tuned.state_dict()], [1 - share, share])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tuned", help="folder of a tuned encoder")
    parser.add_argument("--from", dest="original", required=True, help="encoder that it was tuned from")
    parser.add_argument("--share", type=float, required=True, help="0: the original, 1: the tuned encoder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the encoder")


def run(arguments: argparse.Namespace) -> None:
    original, tuned = (load_whisper(name) for name in (arguments.original, arguments.tuned))
    weights = interpolate_encoders(original, tuned, arguments.share)
    save_checkpoint(arguments.output, KIND, original.config.plain(), weights)
