"""Many files: each is done whole or not at all, a failure is told and does not stop the others."""

from __future__ import annotations

import glob
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.errors import AnimationError, AudioError, SEDTalkerError
from sedtalker.files import written_whole

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.audio import Samples
    from sedtalker.pipeline import Talker

AUDIO_SUFFIXES = (
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".opus",
    ".m4a",
    ".aac",
    ".wma",
    ".aif",
    ".aiff",
    ".mp4",
    ".mkv",
    ".mov",
    ".webm",
)


@dataclass(frozen=True)
class PictureOptions:
    """How a video is drawn; the same names as on the command line."""

    size: int = 512  # pixels, width and height
    quality: str = "standard"  # or "fine"
    view: str = "front"
    backend: str = "soft"
    strip: bool = True  # the emotion track under the face


@dataclass(frozen=True)
class AnimateOptions(PictureOptions):
    """What `animate_files` makes of each audio file."""

    emotion: str = "auto"
    intensity_scale: float = 1.0
    face: str = "default"
    fps: float = 30.0
    exports: tuple[str, ...] = ("mp4", "npz", "json")
    seed: int = 0
    still: bool = False
    dense: bool | None = None  # vertices in the .npz; None: up to 120 s
    device: str = "auto"
    model: str = "default"
    diarizer: str = "default"


@dataclass(frozen=True)
class DiarizeOptions:
    """What `diarize_files` makes of each audio file."""

    formats: tuple[str, ...] = ("json",)
    plot: bool = False
    device: str = "auto"
    diarizer: str = "default"


@dataclass(frozen=True)
class RenderOptions(PictureOptions):
    """How `render_files` draws each animation."""

    audio: Path | None = None  # None: the file that the animation was made from, where it still is
    face: str | None = None  # None: the animation's own


def expand_inputs(names: Sequence[str], suffixes: tuple[str, ...] = AUDIO_SUFFIXES) -> list[Path]:
    """Files named by paths, folders (their files with one of `suffixes`) and glob patterns, in order, each once."""
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
        elif not path.exists() and glob.has_magic(name):
            found += sorted(Path(match) for match in glob.glob(name, recursive=True)) or [path]  # noqa: PTH207, patterns may be absolute
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def animate_files(inputs: Sequence[Path], folder: Path, options: AnimateOptions, debug: bool = False) -> int:
    """Animate every audio file into `folder`; returns the exit code, 0 only if everything was written."""

    def prepare() -> Callable[[Path], list[Path]]:
        from sedtalker.pipeline import load

        talker = load(options.model, diarizer=options.diarizer, device=options.device)
        return lambda audio: animate_file(talker, audio, folder, options)

    return _each(inputs, folder, prepare, AudioError, debug)


def diarize_files(inputs: Sequence[Path], folder: Path, options: DiarizeOptions, debug: bool = False) -> int:
    """Diarize every audio file into `folder`; returns the exit code."""

    def prepare() -> Callable[[Path], list[Path]]:
        from sedtalker.pipeline import load

        talker = load(diarizer=options.diarizer, device=options.device)
        return lambda audio: diarize_file(talker, audio, folder, options)

    return _each(inputs, folder, prepare, AudioError, debug)


def render_files(inputs: Sequence[Path], folder: Path, options: RenderOptions, debug: bool = False) -> int:
    """Draw every animation file into `folder`; returns the exit code."""
    return _each(inputs, folder, lambda: lambda path: render_file(path, folder, options), AnimationError, debug)


def animate_file(talker: Talker, audio: Path, folder: Path, options: AnimateOptions) -> list[Path]:
    """Write everything that `options.exports` names for one audio file, all of it or nothing; returns the paths."""
    from sedtalker.audio import SAMPLE_RATE, load_audio
    from sedtalker.emotion.files import write_json
    from sedtalker.export import export_animation

    samples = load_audio(audio)
    animation = talker.animate(
        (samples, SAMPLE_RATE),
        emotion=options.emotion,
        intensity_scale=options.intensity_scale,
        fps=options.fps,
        face=options.face,
        seed=options.seed,
        still=options.still,
        source=audio,
    )
    endings = {"json": ".emotion.json", "csv": ".csv", "npy": ".npy", "obj": "_obj"}
    paths = {name: folder / f"{audio.stem}{endings.get(name, '.' + name)}" for name in options.exports}
    with ExitStack() as stack:
        asides = {name: stack.enter_context(written_whole(path)) for name, path in paths.items()}
        for name, aside in asides.items():
            if name == "mp4":
                _write_video(animation, aside, samples, options, f"drawing {audio.name}")
            elif name == "npz":
                animation.save(aside, dense=options.dense)
            elif name == "json":
                write_json(animation.emotion, aside)
            else:
                export_animation(animation, name, aside)
    return list(paths.values())


def diarize_file(talker: Talker, audio: Path, folder: Path, options: DiarizeOptions) -> list[Path]:
    """Write the track of one audio file in every format asked for, all of them or none; returns the paths."""
    from sedtalker.audio import SAMPLE_RATE, load_audio
    from sedtalker.emotion.files import write_track

    samples = load_audio(audio)
    track = talker.diarize((samples, SAMPLE_RATE), source=audio)
    endings = {"json": ".emotion.json", "rttm": ".rttm", "csv": ".emotion.csv", "textgrid": ".TextGrid"}
    paths = {name: folder / f"{audio.stem}{endings[name]}" for name in options.formats}
    with ExitStack() as stack:
        for name, path in paths.items():
            write_track(track, stack.enter_context(written_whole(path)), name)
        if options.plot:
            from sedtalker.emotion.plot import plot_track

            paths["plot"] = folder / f"{audio.stem}.emotion.png"
            plot_track(track, stack.enter_context(written_whole(paths["plot"])), samples)
    for segment in track.segments:
        print(f"{segment.start:8.2f} {segment.end:8.2f}  {segment.emotion:<9} {segment.intensity:.2f}")
    return list(paths.values())


def render_file(path: Path, folder: Path, options: RenderOptions) -> list[Path]:
    """Draw one animation file, with its sound where that is known; returns the video's path."""
    from sedtalker.animation import load_animation
    from sedtalker.audio import load_audio

    animation = load_animation(path)
    sound = options.audio or _source_audio(animation)
    video = folder / f"{path.stem}.mp4"
    with written_whole(video) as aside:
        _write_video(
            animation, aside, load_audio(sound) if sound else None, options, f"drawing {path.name}", options.face
        )
    return [video]


def _source_audio(animation: Animation) -> Path | None:
    """The file the animation was made from, if it is still the same one."""
    from sedtalker.files import sha256

    path = Path(animation.meta.get("audio") or "")
    if path.is_file() and animation.meta.get("audio_sha256") == sha256(path):
        return path
    print(
        f"sedtalker: the sound of {path.name or 'this animation'} is not where it was; the video is silent",
        file=sys.stderr,
    )
    return None


def _write_video(
    animation: Animation,
    path: Path,
    samples: Samples | None,
    options: PictureOptions,
    title: str,
    face: str | None = None,
) -> None:
    from tqdm import tqdm

    from sedtalker.audio import SAMPLE_RATE
    from sedtalker.face.assets import load_face
    from sedtalker.render import render_animation

    with tqdm(total=len(animation), desc=title, unit="frame", leave=False, disable=None) as bar:
        render_animation(
            animation,
            path,
            face=load_face(face) if face else None,
            width=options.size,
            height=options.size,
            quality=options.quality,
            backend=options.backend,
            view=options.view,
            strip=options.strip,
            audio=None if samples is None else (samples, SAMPLE_RATE),
            progress=bar.update,
        )


def _each(
    inputs: Sequence[Path],
    folder: Path,
    prepare: Callable[[], Callable[[Path], list[Path]]],
    missing: type[SEDTalkerError],
    debug: bool,
) -> int:
    """Run what `prepare` returns on every input that exists; tell failures, last how many there were.

    What can be known without loading a model (absent files, two results of one name) is told before it is loaded.
    """
    failures = [(path, missing(f"no such file: {path}. Check the path")) for path in inputs if not path.exists()]
    present = [path for path in inputs if path.exists()]
    _refuse_equal_names(present)
    if not inputs:
        raise missing("no files found. Name files, a folder that holds some, or a pattern in quotes")
    for _, error in failures:
        _tell(error)
    if present:
        _check_writable(folder)
        work = prepare()
        for path in present:
            try:
                for made in work(path):
                    print(made)
            except SEDTalkerError as error:
                if debug:
                    traceback.print_exc()
                failures.append((path, error))
                _tell(error)
    if failures and len(inputs) > 1:
        print(f"sedtalker: {len(failures)} of {len(inputs)} files failed", file=sys.stderr)
    return 1 if failures else 0


def _tell(error: Any) -> None:
    print(f"sedtalker: {error}", file=sys.stderr)


def _refuse_equal_names(paths: Iterable[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise SEDTalkerError(
                f"two inputs of one name: {other} and {path} would write the same results. Use two folders with -o"
            )


def _check_writable(folder: Path) -> None:
    """Fail before the work, not after it."""
    with written_whole(folder / ".sedtalker-probe") as probe:
        probe.write_bytes(b"")
    (folder / ".sedtalker-probe").unlink()
