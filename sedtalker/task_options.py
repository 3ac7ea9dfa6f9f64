"""Options of the commands that process files, their checks before a model is loaded, and the paths of the results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.errors import AudioError, RenderError, SEDTalkerError, SEDTalkerWarning, UsageError, require
from sedtalker.export import FORMATS
from sedtalker.files import RECORDS_FOLDER, check_replaceable
from sedtalker.render.config import Background, RenderConfig

if TYPE_CHECKING:
    from sedtalker.face.rig import Face

PICTURE_ENDINGS = {
    "mp4": ".mp4",
    "webm": ".webm",
    "gif": ".gif",
    "png": "_png",  # a folder of numbered pictures
    "sheet": ".sheet.png",  # twelve frames with their times
    "poster": ".poster.png",  # the frame in the middle
}
ANIMATION_ENDINGS = {name: ending for name, (_, ending) in FORMATS.items()} | {
    "mp4": ".mp4",
    "npz": ".npz",
    "json": ".emotion.json",  # the track; `sedtalker export --to json` writes curves
}
TRACK_ENDINGS = {"json": ".emotion.json", "rttm": ".rttm", "csv": ".emotion.csv", "textgrid": ".TextGrid"}
PLOT_ENDING = ".emotion.png"
PROFILE_ENDING = ".safetensors"
VOICES_FOLDER = Path(RECORDS_FOLDER, "voices")  # in a folder of results
AUDIO_ENDINGS = (".wav", ".sound.wav")  # of `export_sound`
RESULT_ENDINGS = frozenset(
    (
        *ANIMATION_ENDINGS.values(),
        *TRACK_ENDINGS.values(),
        PLOT_ENDING,
        PROFILE_ENDING,
        *PICTURE_ENDINGS.values(),
        *AUDIO_ENDINGS,
    )
)
WITH_AUDIO = ("mp4", "webm")  # formats with an audio track; their colour subsampling needs an even width and height
TRANSPARENT = ("png", "poster")


@dataclass(frozen=True)
class PictureOptions:
    """Options of a rendering; field names are those of the command line."""

    size: int = RenderConfig.width  # pixels, width and height
    quality: str = RenderConfig.quality  # or "fine"
    view: str = RenderConfig.view
    framing: str = RenderConfig.framing
    backend: str = RenderConfig.backend
    background: Background = RenderConfig.background  # RGB, each 0 to 1; "transparent" for pictures; None: gradient
    strip: bool = True  # show the emotion track under the face
    texture: Path | None = None  # skin texture with the layout of the head's own
    captions: Path | None = None  # a file that `render.captions` reads, or a folder with one file per input
    font: Path | None = None  # for captions, tried before the packaged fonts
    mark: bool = True  # in the luminance of pictures
    sign: tuple[Path, Path] | None = None  # certificate and key of the C2PA manifest; None: a self-made certificate


@dataclass(frozen=True)
class VoiceOptions:
    """Prior knowledge of the speakers, from options; field names are those of the command line."""

    voice_reference: Path | None = None  # recording or voice profile of the speaker of all inputs
    same_speaker: str | None = None  # "all", "folder" or a table: whose voices `batch` pools


@dataclass(frozen=True)
class ReadingOptions(VoiceOptions):
    """Options of reading and diarizing recordings; field names are those of the command line."""

    device: str = "auto"
    diarizer: str = "default"
    look_ahead: int | None = None  # ms; None: the largest, 400
    audio_track: int | None = None  # from 1; None: the container's default
    strict: bool = False  # refuse audio that is damaged or silent


@dataclass(frozen=True)
class AnimateOptions(PictureOptions, ReadingOptions):
    """Options of `tasks.animate_file`."""

    emotion: str = "auto"
    intensity_scale: float = 1.0
    face: str = "default"
    fps: float = 30.0
    exports: tuple[str, ...] = ("mp4", "npz", "json")
    seed: int = 0
    still: bool = False
    dense: bool | None = None  # vertices in the .npz; None: up to 120 s
    model: str = "default"


@dataclass(frozen=True)
class DiarizeOptions(ReadingOptions):
    """Options of `tasks.diarize_file`."""

    formats: tuple[str, ...] = ("json",)
    plot: bool = False


@dataclass(frozen=True)
class EnrollOptions:
    """Options of `tasks.enroll_file`."""

    device: str = "auto"
    diarizer: str = "default"
    audio_track: int | None = None  # from 1; None: the container's default


@dataclass(frozen=True)
class RenderOptions(PictureOptions):
    """Options of `tasks.render_file`."""

    formats: tuple[str, ...] = ("mp4",)  # keys of PICTURE_ENDINGS
    audio: Path | None = None  # None: the recording that the animation was made from, if it still exists
    face: str | None = None  # None: the animation's face
    fps: float | None = None  # None: the animation's rate


Options = AnimateOptions | DiarizeOptions | EnrollOptions | RenderOptions


@singledispatch
def check_options(options: Any) -> None:
    """Check option values before a model is loaded.

    Raises:
        SEDTalkerError: a value with which no input can be processed.
    """


@check_options.register
def _(options: AnimateOptions) -> None:
    from sedtalker.emotion.track_io import TRACK_SUFFIXES, SeveralRecordingsError, read_track

    _check_pictures(options, options.exports, options.face)
    _check_voice(options)
    if options.emotion.lower().endswith(TRACK_SUFFIXES):
        with suppress(SeveralRecordingsError):  # each input then takes the segments of its own name
            read_track(options.emotion)
    if "usd" in options.exports:
        require("pxr.Usd", "usd")


@check_options.register
def _(options: DiarizeOptions) -> None:
    _check_voice(options)
    if options.plot:
        require("matplotlib", "plot")


@check_options.register
def _(options: RenderOptions) -> None:
    _check_pictures(options, options.formats, options.face)
    if options.background == "transparent" and not {*options.formats} <= {*TRANSPARENT}:
        raise RenderError(
            f"--background transparent does not work with {', '.join(options.formats)}. "
            f"Use --to {','.join(TRANSPARENT)}"
        )
    if options.audio is not None and not options.audio.is_file():
        raise RenderError(f"no such audio file: {options.audio}. Check the path")


def _check_voice(options: VoiceOptions) -> None:
    """Check the reference of the voice, which is read in full when the diarizer is loaded."""
    reference = options.voice_reference
    if reference is None:
        return
    if options.same_speaker is not None:
        raise UsageError("--voice-reference and --same-speaker both say who speaks. Use one of them")
    if not reference.is_file():
        raise AudioError(
            f"no such voice reference: {reference}. Name a recording, or a profile of sedtalker voice enroll"
        )
    if reference.suffix.lower() == PROFILE_ENDING:
        from sedtalker.emotion.voice import VoiceProfile

        VoiceProfile.load(reference)


def _check_pictures(options: PictureOptions, formats: tuple[str, ...], face: str | None) -> None:
    """Check size, certificate, texture, face and captions."""
    from sedtalker.face.assets import load_face

    coded = [name for name in formats if name in WITH_AUDIO]
    if coded and options.size % 2:
        raise RenderError(f"--size {options.size} is odd, but {coded[0]} needs an even size. Use {options.size + 1}")
    if options.sign is not None:
        from sedtalker.provenance.manifest import check_signer

        check_signer(*options.sign)
    if face is not None or options.texture is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SEDTalkerWarning)  # the first file raises them again
            apply_texture(load_face(face or "default"), options)
    if options.captions is not None and not options.captions.exists():
        raise RenderError(f"no such captions: {options.captions}. Name a file, or a folder with one file per input")


def profile_path(folder: Path, source: Path) -> Path:
    """Where a folder holds the voice profile of a recording."""
    return folder / f"{source.stem}{PROFILE_ENDING}"


def pooled_profile(folder: Path, source: Path) -> Path:
    """Where the folder of an input's results holds the profile that its speaker's other inputs give."""
    return profile_path(folder / VOICES_FOLDER, source)


@singledispatch
def result_paths(options: Any, folder: Path, source: Path) -> dict[str, Path]:
    """Paths of the results of one input, by format."""
    return {}


@result_paths.register
def _(options: AnimateOptions, folder: Path, source: Path) -> dict[str, Path]:
    paths = {name: folder / f"{source.stem}{ANIMATION_ENDINGS[name]}" for name in options.exports}
    if "json" in paths and len(paths) > 1 and _is_same_file(paths["json"], options.emotion):
        del paths["json"]  # the edited track of an earlier run stays as it is
    return paths


@result_paths.register
def _(options: DiarizeOptions, folder: Path, source: Path) -> dict[str, Path]:
    paths = {name: folder / f"{source.stem}{TRACK_ENDINGS[name]}" for name in options.formats}
    return paths | ({"plot": folder / f"{source.stem}{PLOT_ENDING}"} if options.plot else {})


@result_paths.register
def _(options: EnrollOptions, folder: Path, source: Path) -> dict[str, Path]:
    return {"voice": profile_path(folder, source)}


@result_paths.register
def _(options: RenderOptions, folder: Path, source: Path) -> dict[str, Path]:
    stems = {"png": source.stem.replace(".", "_")}  # the name of this folder must not look like that of a video
    return {name: folder / f"{stems.get(name, source.stem)}{PICTURE_ENDINGS[name]}" for name in options.formats}


@singledispatch
def option_files(options: Any, source: Path) -> list[Path]:
    """The other files that the results of an input depend on."""
    return []


@option_files.register
def _(options: AnimateOptions, source: Path) -> list[Path]:
    from sedtalker.emotion.track_io import TRACK_SUFFIXES

    track = [Path(options.emotion)] if options.emotion.lower().endswith(TRACK_SUFFIXES) else []
    return [*track, *_voice_files(options), *_picture_files(options, options.face, source)]


@option_files.register
def _(options: DiarizeOptions, source: Path) -> list[Path]:
    return _voice_files(options)


@option_files.register
def _(options: RenderOptions, source: Path) -> list[Path]:
    sound = [] if options.audio is None else [options.audio]
    if not sound and any(name in WITH_AUDIO for name in options.formats):
        from sedtalker.animation import load_animation
        from sedtalker.export.sound import find_recording

        found = find_recording(load_animation(source))
        sound = [] if found is None else [Path(found.path)]
    return [*sound, *_picture_files(options, options.face, source)]


def _voice_files(options: VoiceOptions) -> list[Path]:
    return [] if options.voice_reference is None else [options.voice_reference]


def _picture_files(options: PictureOptions, face: str | None, source: Path) -> list[Path]:
    from sedtalker.face.assets import identities
    from sedtalker.face.identity import is_person
    from sedtalker.render.captions import caption_file

    named = [] if face is None or face in identities() or is_person(face) else [Path(face)]
    named += [file for file in (options.texture, options.font, *(options.sign or ())) if file is not None]
    return named + ([] if options.captions is None else [caption_file(options.captions, source)])


def _is_same_file(path: Path, name: str) -> bool:
    """Whether a name is that of an existing file."""
    try:
        return path.samefile(name)
    except (OSError, ValueError):  # absent, too long, or no path at all
        return False


def check_result_paths(paths: Mapping[str, Path], read: list[Path]) -> None:
    """Check the paths of the results before the work.

    Raises:
        SEDTalkerError: a result would replace a file that is read, or a folder with other files.
    """
    for name, path in paths.items():
        if any(path.exists() and path.samefile(file) for file in read if file.exists()):
            raise SEDTalkerError(f"a result would replace an input: {path}. Choose another folder with -o")
        if path.is_dir() and name in ("png", "obj", "ply"):
            check_replaceable(path)
        elif path.is_dir():
            raise SEDTalkerError(
                f"cannot replace a folder with a file: {path}. Remove it, or choose another folder with -o"
            )


def apply_texture(face: Face, options: PictureOptions) -> Face:
    """The face with the skin texture of the options, if they name one."""
    from sedtalker.face.assets import replace_skin

    return face if options.texture is None else replace_skin(face, options.texture)
