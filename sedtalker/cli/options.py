"""Option types that several commands share; each raises argparse's error with a message that names the way out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.export import FORMATS
from sedtalker.render.config import BACKENDS, QUALITIES, VIEWS, RenderConfig

if TYPE_CHECKING:
    from sedtalker.batch import BatchConfig

EXPORTS = ("mp4", "npz", *FORMATS)  # that speech is animated to; there json is its track
TRACKS = (".json", ".rttm", ".csv", ".textgrid")  # files that hold an emotion track
RESULTS = {*TRACKS, *(f".{name}" for name in EXPORTS), *(ending for _, ending in FORMATS.values())}


def listed(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    """A type for comma-separated names out of `allowed`."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown) or repr(text)} (known: {', '.join(allowed)})"
            )
        return names

    return parse


def number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    """A type for a real number in [low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low:g} to {high:g}{unit and ' ' + unit}")
        return value

    return parse


def decibels(text: str) -> tuple[float, ...]:
    """Comma-separated ratios of -20 to 60 dB."""
    return tuple(number(-20, 60, "dB")(part) for part in text.split(","))


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for a whole number in [low, high]."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return parse


def color(text: str) -> str | tuple[float, float, float]:
    """`transparent`, or a colour in hexadecimal, 0..1 each."""
    digits = text.removeprefix("#")
    if text == "transparent":
        return text
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no colour. Write 20242c or transparent") from None
    return red / 255, green / 255, blue / 255


def emotion(text: str) -> str:
    """`auto`, the path of a track file, or a text like `happy:0.8@2.0-4.5,sad:0.5`; returned as it is.

    Spans are held to the audio once it is read, names to the talker's labels once it is known.
    """
    from sedtalker.emotion.track import check_emotion_spec
    from sedtalker.errors import SEDTalkerError

    if text != "auto" and not text.lower().endswith(TRACKS):
        try:
            check_emotion_spec(text, labels=None)
        except SEDTalkerError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def folder(text: str) -> Path:
    """A folder, which may be yet to make; what looks like a video's or an animation's file is no folder's name."""
    path = Path(text)
    if path.suffix.lower() in RESULTS and not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} looks like a file. Give a folder: results are named after what they are made from"
        )
    return path


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """The option `-o DIR`, `renders` by default."""
    parser.add_argument(
        "-o",
        "--output",
        type=folder,
        default=Path("renders"),
        metavar="DIR",
        help=f"folder for {what} (default: renders)",
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that draws."""
    parser.add_argument(
        "--size",
        type=whole(64, 4096),
        default=RenderConfig.width,
        metavar="PIXELS",
        help="width and height (default: %(default)s)",
    )
    parser.add_argument(
        "--quality",
        choices=tuple(QUALITIES),
        default=RenderConfig.quality,
        help="fine: softer outline, key-light shadow, skin detail",
    )
    parser.add_argument("--view", choices=tuple(VIEWS), default=RenderConfig.view)
    parser.add_argument(
        "--backend", choices=BACKENDS, default=RenderConfig.backend, help="soft needs no OpenGL (default)"
    )
    parser.add_argument(
        "--background", type=color, metavar="RRGGBB", help="a colour, or transparent (--to png); default: a studio's"
    )
    add_texture(parser)
    parser.add_argument(
        "--no-strip", action="store_false", dest="strip", help="leave out the emotion strip under the face"
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE|DIR",
        help="what is said, under the face: subtitles (.srt, .vtt, .ass), words with times (.csv, .tsv: "
        "start,end,word), a text (.txt); or a folder with one for each input",
    )
    parser.add_argument(
        "--font", type=Path, metavar="FILE", help="a font for the captions, where the packaged ones lack their letters"
    )


def add_texture(parser: argparse.ArgumentParser) -> None:
    """The option `--texture FILE`."""
    parser.add_argument(
        "--texture", type=Path, metavar="FILE", help="another skin for the head: a picture laid out as its own"
    )


def picture_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_picture_options` added, as the fields of `jobs.PictureOptions`."""
    from sedtalker.tasks import PictureOptions

    return {field.name: getattr(arguments, field.name) for field in fields(PictureOptions)}


def add_audio_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that reads recordings."""
    parser.add_argument(
        "--audio-track",
        type=whole(1, 1000),
        metavar="N",
        help="sound track of the file, 1 is the first (default: the one that the file marks as default)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse damaged or silent audio; otherwise a warning tells what was lost"
    )


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that takes many files."""
    parser.add_argument("--jobs", type=whole(1, 1024), default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what an earlier run finished with the same input and options"
    )
    parser.add_argument(
        "--executor", choices=("local", "slurm"), default="local", help="slurm: N jobs of a cluster (needs submitit)"
    )


def running(arguments: argparse.Namespace) -> BatchConfig:
    """How the batch of these arguments is run."""
    from sedtalker.batch import BatchConfig

    return BatchConfig(arguments.jobs, arguments.resume, arguments.executor, arguments.debug)
