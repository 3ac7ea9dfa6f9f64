"""`sedtalker voice`: profiles of people's voices, with which the diarizer judges their emotion better."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sedtalker.cli.each_file import process_each
from sedtalker.cli.options import add_audio_options, add_device, add_diarizer, any_path, path_with_suffix


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("voice", parents=[common], help="make or show voice profiles", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="enroll|show", required=True)
    enroll = actions.add_parser(
        "enroll",
        parents=[common],
        help="recordings of one person -> a voice profile",
        description="Reads ordinary speech of one person, 10 to 60 s of it in all. Use the profile with "
        "--voice-reference.",
    )
    enroll.add_argument("audio", nargs="+", metavar="AUDIO", help="any audio or video file, a folder, or a pattern")
    enroll.add_argument(
        "-o",
        "--output",
        type=path_with_suffix(".safetensors"),
        required=True,
        metavar="FILE",
        help="the profile (.safetensors)",
    )
    add_device(enroll)
    add_diarizer(enroll)
    add_audio_options(enroll)
    enroll.set_defaults(run=run_enroll)
    show = actions.add_parser("show", parents=[common], help="print the contents of voice profiles")
    show.add_argument("profiles", nargs="+", type=any_path, metavar="PROFILE", help="of sedtalker voice enroll")
    show.set_defaults(run=run_show)


def run_enroll(arguments: argparse.Namespace) -> int:
    """Write the profile of the voice in all recordings; one that cannot be used is an error."""
    from sedtalker.audio import AudioFile, refuse_damaged
    from sedtalker.emotion.voice_pool import merge_profiles
    from sedtalker.errors import AudioError
    from sedtalker.inputs import expand_inputs
    from sedtalker.pipeline import SHORTEST_PART, SHORTEST_REFERENCE, load

    paths = expand_inputs(arguments.audio)
    if not paths:
        raise AudioError("no files found. Name recordings, a folder that contains some, or a pattern in quotes")
    sources = [AudioFile(path, arguments.audio_track) for path in paths]
    talker = load(diarizer=arguments.diarizer, device=arguments.device)
    profiles = []
    for source in sources:
        if arguments.strict:
            refuse_damaged(source)
        profiles.append(talker.enroll(source, shortest=SHORTEST_PART))
    profile = merge_profiles(profiles)
    if profile.seconds < SHORTEST_REFERENCE:
        raise AudioError(
            f"{profile.seconds:.1f} s of speech in {paths[0]}{' and the others' if len(paths) > 1 else ''} are too "
            f"little to know a voice by. Give {SHORTEST_REFERENCE:g} s or more, best 10 to 60 s"
        )
    profile.save(arguments.output)
    print(f"{arguments.output}: {profile.seconds:.1f} s of speech in {len(paths)} recordings")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print the evidence and the encoder of each profile; exit code 1 if one cannot be read."""
    from sedtalker.emotion.voice import VoiceProfile

    def show(path: Path) -> None:
        profile = VoiceProfile.load(path)
        layers, width = profile.mean.shape
        print(f"{path}: {profile.seconds:.1f} s of speech, encoder {profile.encoder}, {layers} x {width} states")

    return int(process_each(arguments.profiles, show))
