"""`sedtalker train`: train a diarizer or a talker with a configuration file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from sedtalker.errors import UsageError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("train", parents=[common], help="train a diarizer or a talker", description=__doc__)
    parser.add_argument("model", choices=("diarizer", "talker"), help="kind of the model")
    # the overrides are values of the option: before Python 3.13 argparse accepts no "*" positional after an option
    parser.add_argument(
        "--config",
        nargs="+",
        required=True,
        metavar=("FILE", "KEY=VALUE"),
        help="YAML file, such as those in configs/, and settings that override it, such as steps=100",
    )
    parser.add_argument(
        "--overfit-one",
        action="store_true",
        help="talker only: train on a single clip, as a test of the model and the settings",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train the model and print the path of its folder."""
    file, *overrides = arguments.config
    if arguments.overfit_one:
        if arguments.model == "diarizer":
            raise UsageError("--overfit-one works only for a talker: sedtalker train diarizer. Remove it")
        overrides.append("overfit_one=true")
    if arguments.model == "diarizer":
        from sedtalker.training.diarizer import train_diarizer as train
    else:
        from sedtalker.training.talker import train_talker as train
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_tip)
    print(train(Path(file), overrides))
    return 0


def _is_no_tip(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning is about this training; its tips recommend products."""
    return "Tip:" not in record.getMessage()
