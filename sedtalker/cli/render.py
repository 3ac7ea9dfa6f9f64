"""`sedtalker render`: animation files -> videos and pictures."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import (
    add_batch_options,
    add_output,
    add_picture_options,
    any_path,
    batch_config,
    name_list,
    real,
    task_options,
)
from sedtalker.task_options import PICTURE_ENDINGS


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("render", parents=[common], help="animation files -> videos", description=__doc__)
    parser.add_argument("animation", nargs="+", metavar="ANIM", help=".npz files, folders, or patterns in quotes")
    add_output(parser, "the videos")
    parser.add_argument(
        "--to",
        type=name_list(*PICTURE_ENDINGS),
        default=("mp4",),
        metavar=",".join(PICTURE_ENDINGS),
        help="formats (default: mp4)",
    )
    parser.add_argument(
        "--audio",
        type=any_path,
        metavar="FILE",
        help="audio of the video (default: the recording that the animation was made from)",
    )
    parser.add_argument("--face", metavar="NAME|MESH", help="another packaged head, or a mesh of the same topology")
    parser.add_argument(
        "--fps", type=real(1, 240, "Hz"), metavar="N", help="frames per second (default: the animation's)"
    )
    add_picture_options(parser)
    add_batch_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Render every animation; a failure is printed and does not stop the others."""
    from sedtalker.batch import run_batch
    from sedtalker.inputs import expand_inputs
    from sedtalker.task_options import RenderOptions

    options = task_options(RenderOptions, arguments, formats=arguments.to)
    return run_batch(expand_inputs(arguments.animation, (".npz",)), arguments.output, options, batch_config(arguments))
