"""`sedtalker train`: a diarizer or a talker from a configuration file, through Lightning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sedtalker.errors import UsageError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("train", parents=[common], help="train a diarizer or a talker", description=__doc__)
    parser.add_argument("model", choices=("diarizer", "talker"))
    # the overrides belong to the option: before Python 3.13 argparse takes no "*" positionals that follow one
    parser.add_argument(
        "--config",
        nargs="+",
        required=True,
        metavar=("FILE", "KEY=VALUE"),
        help="YAML, as in configs/, and settings that override it, e.g. steps=100",
    )
    parser.add_argument(
        "--overfit-one", action="store_true", help="talker: train on one clip alone; what cannot learn it is broken"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train until the configuration says, then export the checkpoint folder."""
    file, *overrides = arguments.config
    if arguments.overfit_one:
        if arguments.model == "diarizer":
            raise UsageError("--overfit-one: only a talker can be trained on one clip")
        overrides.append("overfit_one=true")
    if arguments.model == "diarizer":
        from sedtalker.training.diarizer import train_diarizer as train
    else:
        from sedtalker.training.talker import train_talker as train
    print(train(Path(file), overrides))
    return 0
