"""`sedtalker critique`: videos and animations -> the expressions of the face, and where they differ from the track."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sedtalker.cli.options import add_seed, integer
from sedtalker.errors import SEDTalkerError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "critique",
        parents=[common],
        help="videos and animations -> the expressions that the face shows",
        description=__doc__,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="VIDEO|ANIM", help="videos, or animations (.npz)")
    parser.add_argument("--json", action="store_true", help="print JSON with every frame")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw track, reading and regions of one file (.png, .svg or .pdf)"
    )
    parser.add_argument(
        "--inserted",
        type=integer(1, 100_000),
        metavar="N",
        help="measure the critic: insert N expressions of 0.3 and 0.5 s into animations that are otherwise neutral",
    )
    add_seed(parser, "the inserted expressions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the face shows; exit code 1 if a file cannot be read."""
    from sedtalker.animation import load_animation
    from sedtalker.errors import UsageError
    from sedtalker.evaluation.critic import (
        critique_animation,
        critique_video,
        format_critique,
        format_recall,
        measure_recall,
        plot_critique,
    )

    if arguments.plot is not None and len(arguments.files) > 1:
        raise UsageError("--plot draws one file, but several are named. Name one")
    documents, failed = [], False
    for path in arguments.files:
        try:
            if not path.is_file():
                raise SEDTalkerError(f"no such file: {path}. Check the path")
            animation = load_animation(path) if path.suffix.lower() == ".npz" else None
            critique = critique_video(path) if animation is None else critique_animation(animation, str(path))
        except SEDTalkerError as error:
            failed = True
            print(f"sedtalker: {error}", file=sys.stderr)
            continue
        if arguments.inserted is not None and animation is not None and animation.blendshapes is not None:
            print(format_recall(measure_recall(
                animation.blendshapes, animation.fps, count=arguments.inserted, seed=arguments.seed
            )))  # fmt: skip
            continue
        documents.append(critique.plain())
        if not arguments.json:
            print(format_critique(critique))
        if arguments.plot is not None:
            plot_critique(critique, arguments.plot, None if animation is None else animation.emotion)
    if arguments.json:
        print(json.dumps(documents))
    return 1 if failed else 0
