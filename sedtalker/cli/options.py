"""Option types and groups of options that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sedtalker.export import FORMATS
from sedtalker.render.config import BACKENDS, FRAMINGS, QUALITIES, VIEWS, RenderConfig

if TYPE_CHECKING:
    from sedtalker.batch import BatchConfig

Options = TypeVar("Options")
Group = argparse._ActionsContainer  # a parser or a group of options

LOOK_AHEADS = (80, 120, 200, 400)  # ms, settings of the streaming encoder's dial
EXPORTS = ("mp4", "npz", *FORMATS)  # formats of `animate`; json is the emotion track
TRACKS = (".json", ".rttm", ".csv", ".textgrid")  # suffixes of emotion track files
MEDIA = frozenset([".webm", ".gif", ".png", ".jpg", ".jpeg", ".webp", ".mov", ".mkv", ".avi", ".wav", ".mp3"])
RESULTS = {*TRACKS, *MEDIA, *(f".{name}" for name in EXPORTS), *(ending for _, ending in FORMATS.values())}


def name_list(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    """Option type: comma-separated names out of `allowed`, as a tuple."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown) or repr(text)} (known: {', '.join(allowed)})"
            )
        return names

    return parse


def real(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    """Option type: a real number in [low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}{unit and ' ' + unit}")
        return value

    return parse


def real_list(low: float, high: float, unit: str = "") -> Callable[[str], tuple[float, ...]]:
    """Option type: comma-separated real numbers in [low, high]."""
    return lambda text: tuple(real(low, high, unit)(part) for part in text.split(","))


def add_count(parser: Group, name: str, low: int, high: int, default: int, text: str, metavar: str = "N") -> None:
    """Add an option with an integer in [low, high]; `text` is its help, to which the default is added."""
    parser.add_argument(
        name, type=integer(low, high), default=default, metavar=metavar, help=f"{text} (default: %(default)s)"
    )


decibels = real_list(-20, 60, "dB")


def any_path(text: str) -> Path:
    """Option type: a path, existing or not. Refuses an empty text, which `Path` reads as the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path. Check the variable that it comes from")
    return Path(text)


def path_with_suffix(*suffixes: str) -> Callable[[str], Path]:
    """Option type: the path of a file to write, with one of these suffixes."""

    def parse(text: str) -> Path:
        path = any_path(text)
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(suffixes)}")
        return path

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    """Option type: an integer in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
        return value

    return parse


def integer_list(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    """Option type: comma-separated integers in [low, high]."""
    return lambda text: tuple(integer(low, high)(part) for part in text.split(","))


def color(text: str) -> str | tuple[float, float, float]:
    """Option type: `transparent`, or a colour in hexadecimal as (red, green, blue), each 0 to 1."""
    digits = text.removeprefix("#")
    if text == "transparent":
        return text
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a colour. Write RRGGBB, such as 20242c, or transparent"
        ) from None
    return red / 255, green / 255, blue / 255


def emotion_spec(text: str) -> str:
    """Option type: `auto`, the path of a track file, or a text like `happy:0.8@2.0-4.5,sad:0.5`; returned unchanged.

    Spans are checked against the audio when it is read, names against the labels of the talker when it is loaded.
    """
    from sedtalker.emotion.track import check_emotion_spec
    from sedtalker.errors import SEDTalkerError

    if text != "auto" and not text.lower().endswith(TRACKS):
        try:
            check_emotion_spec(text, labels=None)
        except SEDTalkerError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def speaker_source(text: str) -> str:
    """Option type: `all`, `folder`, or the path of a table of speakers."""
    if text not in ("all", "folder") and Path(text).suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not all, folder or a table (.csv, .tsv). Write inputs before it, or --same-speaker=all"
        )
    return text


def folder(text: str) -> Path:
    """Option type: an output folder, which need not exist. Names with the suffix of a file are refused."""
    path = any_path(text)
    if path.suffix.lower() in RESULTS and not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} looks like a file. Name a folder: result files take the names of the inputs"
        )
    return path


def add_output(parser: argparse.ArgumentParser, contents: str) -> None:
    """Add the option `-o DIR`, `renders` by default."""
    parser.add_argument(
        "-o",
        "--output",
        type=folder,
        default=Path("renders"),
        metavar="DIR",
        help=f"folder for {contents} (default: renders)",
    )


def add_report(parser: argparse.ArgumentParser, *suffixes: str, repeatable: bool = False) -> None:
    """Add the option `-o FILE` of commands that measure; the report is JSON, or of one of the other `suffixes`."""
    several: dict[str, Any] = {"action": "append", "default": []} if repeatable else {}
    parser.add_argument(
        "-o",
        "--output",
        type=path_with_suffix(".json", *suffixes),
        metavar="FILE",
        help=f"report ({', '.join(('.json', *suffixes))}){'; repeatable' if repeatable else ''}",
        **several,
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that render."""
    add_count(parser, "--size", 64, 4096, RenderConfig.width, "width and height", "PIXELS")
    parser.add_argument(
        "--quality",
        choices=tuple(QUALITIES),
        default=RenderConfig.quality,
        help="fine adds smooth edges, a shadow and skin detail (default: %(default)s)",
    )
    parser.add_argument(
        "--framing",
        choices=FRAMINGS,
        default=RenderConfig.framing,
        help="portrait shows the shoulders (default: %(default)s)",
    )
    parser.add_argument("--view", choices=tuple(VIEWS), default=RenderConfig.view, help="default: %(default)s")
    parser.add_argument(
        "--backend", choices=BACKENDS, default=RenderConfig.backend, help="soft needs no OpenGL (default: %(default)s)"
    )
    parser.add_argument(
        "--background",
        type=color,
        metavar="RRGGBB",
        help="a colour, or transparent for render --to png,poster (default: a gray gradient)",
    )
    add_texture(parser)
    parser.add_argument("--no-strip", action="store_false", dest="strip", help="hide the emotion strip under the face")
    parser.add_argument(
        "--captions",
        type=any_path,
        metavar="FILE|DIR",
        help="captions under the face: subtitles (.srt, .vtt, .ass), timed words (.csv, .tsv with columns "
        "start,end,word) or text (.txt); or a folder with one such file per input",
    )
    parser.add_argument(
        "--font",
        type=any_path,
        metavar="FILE",
        help="font for captions whose letters the packaged fonts lack (.ttf, .otf)",
    )
    parser.add_argument(
        "--no-mark", action="store_false", dest="mark", help="no mark in the pictures; the metadata states that"
    )
    add_sign(parser)


def add_sign(parser: argparse.ArgumentParser) -> None:
    """Add --sign."""
    parser.add_argument(
        "--sign",
        nargs=2,
        type=any_path,
        action=_Pair,
        metavar=("CERT", "KEY"),
        help="sign the files with this certificate chain and private key, PEM files (default: mp4, png and gif with a "
        "self-made certificate that proves no identity, others not)",
    )


class _Pair(argparse.Action):
    """Stores two values as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def add_texture(parser: argparse.ArgumentParser) -> None:
    """Add the option `--texture FILE`."""
    parser.add_argument(
        "--texture", type=any_path, metavar="FILE", help="skin texture: a picture with the layout of the head's own"
    )


def task_options(kind: type[Options], arguments: argparse.Namespace, **values: Any) -> Options:
    """The options of a task: `values`, and for every other field the argument of the same name."""
    names = [field.name for field in fields(kind) if field.name not in values]  # type: ignore[arg-type]
    return kind(**{name: getattr(arguments, name) for name in names}, **values)


def refuse_unused(parser: argparse.ArgumentParser, arguments: argparse.Namespace, names: str, when: str) -> None:
    """Raise UsageError if one of the options is given that have no effect `when`; `names` are their attributes."""
    from sedtalker.errors import UsageError

    for name in names.split():
        if getattr(arguments, name) != parser.get_default(name):
            raise UsageError(f"--{name.replace('_', '-')} has no effect {when}. Remove it")


def add_audio_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that read recordings."""
    parser.add_argument(
        "--audio-track",
        type=integer(1, 1000),
        metavar="N",
        help="number of the audio track to read, from 1 (default: the track that the file marks as default)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail on damaged or silent audio (default: print a warning)"
    )


def add_look_ahead(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option `--look-ahead MS`; None is the command's default, which the help describes."""
    parser.add_argument(
        "--look-ahead",
        type=int,
        choices=LOOK_AHEADS,
        metavar="|".join(map(str, LOOK_AHEADS)),
        help=f"ms of sound after a frame that are used for it, as in a live stream (default: {default})",
    )


def add_voice_reference(parser: argparse.ArgumentParser) -> None:
    """Add the option `--voice-reference FILE`."""
    parser.add_argument(
        "--voice-reference",
        type=any_path,
        metavar="FILE",
        help="ordinary speech of the person who speaks, or a profile of sedtalker voice enroll",
    )


def add_voice_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that can know the speakers of their inputs."""
    add_voice_reference(parser)
    parser.add_argument(
        "--same-speaker",
        type=speaker_source,
        nargs="?",
        const="all",
        metavar="folder|TABLE",
        help="judge each input with the voice of its speaker's other inputs: one speaker for all, one for each "
        "folder, or from a table with the columns file,speaker",
    )


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that process many files."""
    add_count(
        parser,
        "--jobs",
        1,
        1024,
        1,
        "worker processes; with 1, files run in the main process, where a crash ends the run",
    )
    _add_executor(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip files that an earlier run finished with the same input, options and weights",
    )


def add_workload(parser: argparse.ArgumentParser) -> None:
    """Add the options `--jobs N` and `--executor NAME` of commands that divide one task."""
    add_count(parser, "--jobs", 1, 1024, 1, "worker processes; 1 is the main process alone")
    _add_executor(parser)


def _add_executor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="slurm submits N cluster jobs (needs submitit; default: local)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option `--device NAME`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")


def add_diarizer(parser: argparse.ArgumentParser) -> None:
    """Add the option `--diarizer NAME|DIR`."""
    parser.add_argument(
        "--diarizer", default="default", metavar="NAME|DIR", help="diarizer: default, open, or a folder"
    )


def add_seed(parser: argparse.ArgumentParser, use: str) -> None:
    """Add the option `--seed N`, 0 by default; `use` names the random quantities."""
    parser.add_argument("--seed", type=integer(0, 2**31 - 1), default=0, help=f"random seed of {use} (default: 0)")


def is_command() -> bool:
    """Whether the command line was started by itself, and not by a script, which a child process would run again."""
    main = sys.modules["__main__"]
    name, file = getattr(main.__spec__, "name", ""), getattr(main, "__file__", None)
    return name == "sedtalker.__main__" or (file is not None and Path(file).stem == "sedtalker")


def batch_config(arguments: argparse.Namespace) -> BatchConfig:
    """The values of the options of `add_batch_options`."""
    from sedtalker.batch import BatchConfig

    return BatchConfig(
        arguments.jobs, arguments.resume, arguments.executor, arguments.debug, video_process=is_command()
    )
