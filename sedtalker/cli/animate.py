"""`sedtalker animate`: audio files -> videos, animations and emotion tracks."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import (
    EXPORTS,
    add_audio_options,
    add_batch_options,
    add_device,
    add_diarizer,
    add_look_ahead,
    add_output,
    add_picture_options,
    add_seed,
    add_voice_options,
    batch_config,
    emotion_spec,
    name_list,
    real,
    task_options,
)
from sedtalker.errors import TrackError, UsageError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "animate", parents=[common], help="audio files -> talking-face videos", description=__doc__
    )
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="any audio or video file, a folder, or a pattern in quotes"
    )
    add_output(parser, "the results")
    parser.add_argument(
        "--emotion",
        type=emotion_spec,
        default="auto",
        metavar="auto|TRACK.json|happy:0.8@2.0-4.5,...",
        help="emotion of the face: from the voice (auto, the default), from a track file, or as given",
    )
    parser.add_argument(
        "--intensity-scale",
        type=real(0, 4),
        default=1.0,
        metavar="X",
        help="factor of the emotion intensity (default: 1)",
    )
    parser.add_argument(
        "--face",
        default="default",
        metavar="NAME|FILE|DIR",
        help="packaged head, also with parameters (default:age=60,sex=0.3); an avatar with blendshapes (.glb, .gltf, "
        ".vrm); a mesh of the default head's topology; or a folder of sedtalker face fit",
    )
    parser.add_argument("--fps", type=real(1, 240, "Hz"), default=30.0, help="frames per second (default: 30)")
    parser.add_argument(
        "--export",
        type=name_list(*EXPORTS),
        default=("mp4", "npz", "json"),
        metavar="NAMES",
        help=f"comma-separated formats: {', '.join(EXPORTS)} (default: mp4,npz,json)",
    )
    parser.add_argument("--no-video", action="store_true", help="do not write mp4")
    add_device(parser)
    add_seed(parser, "blinks, gaze and head motion, which differ by recording")
    parser.add_argument("--still", action="store_true", help="no blinks, gaze or head motion")
    parser.add_argument("--dense", action="store_true", help="store vertices in the .npz even for more than 120 s")
    parser.add_argument(
        "--model", default="default", metavar="NAME|DIR", help="talker: default, a folder, or OWNER/NAME on the hub"
    )
    add_diarizer(parser)
    add_look_ahead(parser, "400, and the whole recording for the lip gap")
    add_audio_options(parser)
    add_voice_options(parser)
    add_picture_options(parser)
    add_batch_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Animate every input; a failure is printed and does not stop the others."""
    from sedtalker.batch import run_batch
    from sedtalker.emotion.track import check_emotion_spec
    from sedtalker.emotion.track_io import TRACK_SUFFIXES
    from sedtalker.inputs import expand_inputs
    from sedtalker.task_options import AnimateOptions

    packaged = arguments.model == "default"  # other talkers may have other labels
    if packaged and arguments.emotion != "auto" and not arguments.emotion.lower().endswith(TRACK_SUFFIXES):
        try:
            check_emotion_spec(arguments.emotion)
        except TrackError as error:
            raise UsageError(f"argument --emotion: {error}") from error
    exports = tuple(name for name in arguments.export if not (name == "mp4" and arguments.no_video))
    if not exports:
        raise UsageError("nothing to write: --export mp4 with --no-video. Remove one of them")
    if arguments.background == "transparent" and "mp4" in exports:
        raise UsageError(
            "mp4 cannot be transparent: --background transparent. Use --no-video, then sedtalker render --to png"
        )
    options = task_options(AnimateOptions, arguments, exports=exports, dense=arguments.dense or None)
    return run_batch(expand_inputs(arguments.audio), arguments.output, options, batch_config(arguments))
