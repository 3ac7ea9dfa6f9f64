"""`sedtalker diarize`: audio files -> emotion tracks."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import (
    add_audio_options,
    add_batch_options,
    add_device,
    add_diarizer,
    add_look_ahead,
    add_output,
    add_voice_options,
    batch_config,
    name_list,
    task_options,
)

FORMATS = ("json", "rttm", "csv", "textgrid")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("diarize", parents=[common], help="audio files -> emotion tracks", description=__doc__)
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="any audio or video file, a folder, or a pattern in quotes"
    )
    add_output(parser, "the tracks")
    parser.add_argument(
        "--format",
        type=name_list(*FORMATS),
        default=("json",),
        metavar=",".join(FORMATS),
        help="formats of the track (default: json)",
    )
    parser.add_argument(
        "--plot", action="store_true", help="also write a picture of waveform, posteriors, intensity and segments"
    )
    add_device(parser)
    add_diarizer(parser)
    add_look_ahead(parser, "400")
    add_audio_options(parser)
    add_voice_options(parser)
    add_batch_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Diarize every input; a failure is printed and does not stop the others."""
    from sedtalker.batch import run_batch
    from sedtalker.inputs import expand_inputs
    from sedtalker.task_options import DiarizeOptions

    options = task_options(DiarizeOptions, arguments, formats=arguments.format)
    return run_batch(expand_inputs(arguments.audio), arguments.output, options, batch_config(arguments))
