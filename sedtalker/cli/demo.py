"""`sedtalker demo`: animate the packaged recording."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import add_output, is_command


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("demo", parents=[common], help="animate the packaged recording", description=__doc__)
    add_output(parser, "demo.mp4, demo.npz and demo.emotion.json")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Animate the packaged recording with default options."""
    from sedtalker.batch import BatchConfig, run_batch
    from sedtalker.resources import asset
    from sedtalker.task_options import AnimateOptions

    config = BatchConfig(debug=arguments.debug, video_process=is_command())
    return run_batch([asset("demo.wav")], arguments.output, AnimateOptions(), config)
