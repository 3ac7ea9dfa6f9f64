"""`sedtalker animate`: audio files -> videos, animations and emotion tracks."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import (
    EXPORTS,
    add_audio_options,
    add_batch_options,
    add_output,
    add_picture_options,
    emotion,
    listed,
    number,
    picture_options,
    running,
    whole,
)
from sedtalker.errors import TrackError, UsageError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "animate", parents=[common], help="audio files -> talking-face videos", description=__doc__
    )
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="any audio or video file, a folder, or a pattern in quotes"
    )
    add_output(parser, "the results")
    parser.add_argument(
        "--emotion",
        type=emotion,
        default="auto",
        metavar="auto|TRACK.json|happy:0.8@2.0-4.5,...",
        help="what the face feels: read from the voice (default), from a track file, or as written",
    )
    parser.add_argument(
        "--intensity-scale", type=number(0, 4), default=1.0, metavar="X", help="multiplies the intensity (default: 1)"
    )
    parser.add_argument(
        "--face", default="default", metavar="NAME|MESH", help="an identity of the default head, or your own mesh"
    )
    parser.add_argument("--fps", type=number(1, 240, "Hz"), default=30.0, help="frames a second (default: 30)")
    parser.add_argument(
        "--export",
        type=listed(*EXPORTS),
        default=("mp4", "npz", "json"),
        metavar="NAMES",
        help=f"of {', '.join(EXPORTS)} (default: mp4,npz,json)",
    )
    parser.add_argument("--no-video", action="store_true", help="the same as leaving mp4 out of --export")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    parser.add_argument(
        "--seed", type=whole(0, 2**31 - 1), default=0, help="of blinks, gaze and head motion (default: 0)"
    )
    parser.add_argument("--still", action="store_true", help="no blinks, gaze or head motion")
    parser.add_argument("--dense", action="store_true", help="keep vertices in the .npz beyond 120 s")
    parser.add_argument("--model", default="default", metavar="NAME|DIR", help="the talker's folder")
    parser.add_argument(
        "--diarizer", default="default", metavar="NAME|DIR", help="the diarizer: default, base, open, or a folder"
    )
    add_audio_options(parser)
    add_picture_options(parser)
    add_batch_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Animate every input; failures are told and do not stop the others."""
    from sedtalker.batch import run_batch
    from sedtalker.emotion.track import check_emotion_spec
    from sedtalker.emotion.track_io import TRACK_SUFFIXES
    from sedtalker.inputs import expand_inputs
    from sedtalker.tasks import AnimateOptions

    packaged = arguments.model == "default"  # another talker may know other labels
    if packaged and arguments.emotion != "auto" and not arguments.emotion.lower().endswith(TRACK_SUFFIXES):
        try:
            check_emotion_spec(arguments.emotion)
        except TrackError as error:
            raise UsageError(f"argument --emotion: {error}") from error
    exports = tuple(name for name in arguments.export if not (name == "mp4" and arguments.no_video))
    if not exports:
        raise UsageError("nothing to write: --no-video leaves nothing of --export mp4")
    if arguments.background == "transparent" and "mp4" in exports:
        raise UsageError("no transparency in mp4: animate with --no-video, then sedtalker render --to png")
    options = AnimateOptions(
        emotion=arguments.emotion,
        intensity_scale=arguments.intensity_scale,
        face=arguments.face,
        fps=arguments.fps,
        exports=exports,
        seed=arguments.seed,
        still=arguments.still,
        dense=arguments.dense or None,
        device=arguments.device,
        model=arguments.model,
        diarizer=arguments.diarizer,
        audio_track=arguments.audio_track,
        strict=arguments.strict,
        **picture_options(arguments),
    )
    return run_batch(expand_inputs(arguments.audio), arguments.output, options, running(arguments))
