"""`sedtalker export`: an animation file -> the formats of other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export", parents=[common], help="an animation -> formats of other tools", description=__doc__
    )
    parser.add_argument("animation", type=Path, metavar="ANIM", help="an .npz written by sedtalker animate")
    parser.add_argument(
        "--to",
        choices=("csv", "json", "obj", "npy"),
        required=True,
        help="csv: Live Link Face columns; json: weight curves by name; obj: numbered meshes; npy: (T, V, 3) vertices",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="default: beside the animation")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write one format of one animation."""
    from sedtalker.animation import load_animation
    from sedtalker.export import default_path, export_animation

    path = arguments.output or default_path(arguments.animation, arguments.to)
    export_animation(load_animation(arguments.animation), arguments.to, path)
    print(path)
    return 0
