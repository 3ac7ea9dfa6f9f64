"""`sedtalker critique`: videos and animations -> the expressions of the face, and where they differ from the track."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.each_file import process_each
from sedtalker.cli.options import add_seed, any_path, integer, path_with_suffix, real, refuse_unused
from sedtalker.errors import SEDTalkerError, UsageError

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.evaluation.expression import PictureJudge


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "critique",
        parents=[common],
        help="videos and animations -> the expressions that the face shows",
        description=__doc__,
    )
    parser.add_argument("files", nargs="*", type=any_path, metavar="VIDEO|ANIM", help="videos, or animations (.npz)")
    parser.add_argument(
        "--judge", action="store_true", help="also read every frame with a classifier of pictures (extra judge)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with every frame")
    parser.add_argument(
        "--plot",
        type=path_with_suffix(".png", ".svg", ".pdf"),
        metavar="FILE",
        help="draw track, reading and regions of one file (.png, .svg or .pdf)",
    )
    parser.add_argument(
        "--inserted",
        type=integer(1, 100_000),
        metavar="N",
        help="measure the critic: insert N expressions of 0.3 and 0.5 s into animations that are otherwise neutral",
    )
    parser.add_argument(
        "--intensity", type=real(0.01, 1.0), default=1.0, metavar="X", help="of the inserted expressions (default: 1)"
    )
    parser.add_argument(
        "--groups",
        type=any_path,
        metavar="DIR",
        help="measure the critic by group of people: RAVDESS with OpenFace's action units, or a folder of sedtalker "
        "data expressions",
    )
    add_seed(parser, "the inserted expressions and of the intervals")
    parser.set_defaults(run=partial(run, parser))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Print the expressions of the faces; exit code 1 if a file cannot be read."""
    if not arguments.files and arguments.groups is None:
        raise UsageError("no VIDEO|ANIM. Name videos or animations (.npz), or labelled faces with --groups")
    if arguments.plot is not None and len(arguments.files) != 1:
        raise UsageError(f"--plot draws one file, but {len(arguments.files)} are named. Name one")
    if arguments.inserted is None:
        refuse_unused(parser, arguments, "intensity", "without --inserted")
    documents: list[dict[str, Any]] = []
    if arguments.groups is not None:
        documents.append(_measure_groups(arguments))
    measure = _critique_files if arguments.inserted is None else _measure_recall
    failed, found = measure(arguments)
    if arguments.json:
        print(json.dumps(documents + found))
    return 1 if failed else 0


def _critique_files(arguments: argparse.Namespace) -> tuple[bool, list[dict[str, Any]]]:
    """Print the critique of every file; returns whether one failed, and the critiques as plain types."""
    from sedtalker.evaluation.critic import critique_animation, critique_video, format_critique, plot_critique

    judge = _load_judge() if arguments.judge else None
    documents = []

    def work(path: Path, animation: Animation | None) -> None:
        if animation is None:
            critique = critique_video(path, judge)
        else:
            critique = critique_animation(animation, str(path), judge)
        documents.append(critique.plain())
        if not arguments.json:
            print(format_critique(critique))
        if arguments.plot is not None:
            plot_critique(critique, arguments.plot, None if animation is None else animation.emotion)

    return _for_each(arguments.files, work), documents


def _measure_recall(arguments: argparse.Namespace) -> tuple[bool, list[dict[str, Any]]]:
    """Print the recall of inserted expressions; returns whether a file failed, and the recall as plain types."""
    from sedtalker.evaluation.critic import format_recall, measure_recall

    faces = []

    def work(path: Path, animation: Animation | None) -> None:
        if animation is None or animation.blendshapes is None:
            raise SEDTalkerError(f"no weights to change: {path}. Give --inserted animations (.npz)")
        faces.append((animation.blendshapes, animation.fps))

    failed = _for_each(arguments.files, work)
    if not faces:
        return failed, []
    recall = measure_recall(faces, count=arguments.inserted, intensity=arguments.intensity, seed=arguments.seed)
    if not arguments.json:
        print(format_recall(recall))
    return failed, [asdict(one) for one in recall]


def _for_each(files: list[Path], work: Callable[[Path, Animation | None], None]) -> bool:
    """Call `work` with every file and its animation, None for a video; prints errors, returns whether one failed."""
    from sedtalker.animation import load_animation

    def load_and_work(path: Path) -> None:
        if not path.is_file():
            problem = "a folder, not a file" if path.is_dir() else "no such file"
            raise SEDTalkerError(f"{problem}: {path}. Name videos or animations (.npz)")
        work(path, load_animation(path) if path.suffix.lower() == ".npz" else None)

    return process_each(files, load_and_work)


def _measure_groups(arguments: argparse.Namespace) -> dict[str, Any]:
    from sedtalker.evaluation.critic_groups import critic_groups, format_groups

    report = critic_groups(arguments.groups, arguments.seed)
    if not arguments.json:
        print(format_groups(report))
    return report


def _load_judge() -> PictureJudge:
    from sedtalker.evaluation.expression import PictureJudge

    return PictureJudge()
