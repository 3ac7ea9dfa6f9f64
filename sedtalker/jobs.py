"""What the commands make of one file: all of it or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.errors import FaceError, RenderError, SEDTalkerError
from sedtalker.files import written_whole

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.audio import Samples
    from sedtalker.face.rig import Face
    from sedtalker.pipeline import Talker
    from sedtalker.render.soft import Background

PICTURE_ENDINGS = {
    "mp4": ".mp4",
    "webm": ".webm",
    "gif": ".gif",
    "png": "_png",  # a folder of numbered pictures
    "sheet": ".sheet.png",  # twelve frames with their times
    "poster": ".poster.png",  # the frame in the middle
}
SOUNDING = ("mp4", "webm")
TRANSPARENT = ("png", "poster")


@dataclass(frozen=True)
class PictureOptions:
    """How a video is drawn; the same names as on the command line."""

    size: int = 512  # pixels, width and height
    quality: str = "standard"  # or "fine"
    view: str = "front"
    backend: str = "soft"
    background: Background = None  # colour, 0..1 each; "transparent" for pictures; None: a studio's
    strip: bool = True  # the emotion track under the face
    texture: Path | None = None  # another skin for the head, laid out as its own
    captions: Path | None = None  # a file that `render.captions` reads, or a folder with one for each input
    font: Path | None = None  # of the captions, tried before the packaged ones


@dataclass(frozen=True)
class AnimateOptions(PictureOptions):
    """What `animate_file` makes of each audio file."""

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
    """What `diarize_file` makes of each audio file."""

    formats: tuple[str, ...] = ("json",)
    plot: bool = False
    device: str = "auto"
    diarizer: str = "default"


@dataclass(frozen=True)
class RenderOptions(PictureOptions):
    """How `render_file` draws each animation."""

    formats: tuple[str, ...] = ("mp4",)  # keys of PICTURE_ENDINGS
    audio: Path | None = None  # None: the file that the animation was made from, where it still is
    face: str | None = None  # None: the animation's own
    fps: float | None = None  # None: the animation's own


Options = AnimateOptions | DiarizeOptions | RenderOptions
Promise = Callable[[dict[Path, Path]], None]
"""Told what is about to appear: where each result will be -> where it lies, complete, until then."""
Work = Callable[[Path, Promise], list[Path]]
"""Makes what the options ask for of one file, promises it, puts it in place; returns the paths written."""


@singledispatch
def prepare(options: Any, folder: Path) -> Work:
    """Load what the work needs, once; the result makes files in `folder` from one input after another."""
    raise TypeError(f"no work is known for {type(options).__name__}")


@prepare.register
def _(options: AnimateOptions, folder: Path) -> Work:
    from sedtalker.pipeline import load

    talker = load(options.model, diarizer=options.diarizer, device=options.device)
    return partial(animate_file, talker, folder, options)


@prepare.register
def _(options: DiarizeOptions, folder: Path) -> Work:
    from sedtalker.pipeline import load

    return partial(diarize_file, load(diarizer=options.diarizer, device=options.device), folder, options)


@prepare.register
def _(options: RenderOptions, folder: Path) -> Work:
    return partial(render_file, folder, options)


def animate_file(talker: Talker, folder: Path, options: AnimateOptions, audio: Path, promise: Promise) -> list[Path]:
    """Write everything that `options.exports` names for one audio file, all of it or nothing; returns the paths."""
    from sedtalker.audio import load_audio
    from sedtalker.emotion.files import write_json
    from sedtalker.export import FORMATS, export_animation, export_sound
    from sedtalker.face.assets import load_face

    if "mp4" in options.exports:
        _check_captions(options, audio)
    animation = talker.animate(
        audio,
        emotion=options.emotion,
        intensity_scale=options.intensity_scale,
        fps=options.fps,
        face=_dressed(load_face(options.face), options),
        seed=options.seed,
        still=options.still,
    )
    endings = {name: ending for name, (_, ending) in FORMATS.items()}
    endings |= {"mp4": ".mp4", "npz": ".npz", "json": ".emotion.json"}
    paths = {name: folder / f"{audio.stem}{endings[name]}" for name in options.exports}
    blocked = [path for path in paths.values() if path.is_dir()]
    if blocked:
        raise SEDTalkerError(f"a folder is in the way: {blocked[0]}. Remove it, or choose another folder with -o")
    with ExitStack() as stack:
        asides = {name: stack.enter_context(written_whole(path)) for name, path in paths.items()}
        for name, aside in asides.items():
            if name == "mp4":
                _write_video(animation, aside, load_audio(audio), options, audio)
            elif name == "npz":
                animation.save(aside, dense=options.dense)
            elif name == "json":
                write_json(animation.emotion, aside)
            else:
                export_animation(animation, name, aside)
        played = [export_sound(animation, name, path) for name, path in paths.items()]
        sounds = [sound for sound in dict.fromkeys(played) if sound is not None]
        promise({paths[name]: aside for name, aside in asides.items()} | {sound: sound for sound in sounds})
    return [*paths.values(), *sounds]


def diarize_file(talker: Talker, folder: Path, options: DiarizeOptions, audio: Path, promise: Promise) -> list[Path]:
    """Write the track of one audio file in every format asked for, all of them or none; returns the paths."""
    from sedtalker.audio import load_audio
    from sedtalker.emotion.files import write_track

    track = talker.diarize(audio)
    endings = {"json": ".emotion.json", "rttm": ".rttm", "csv": ".emotion.csv", "textgrid": ".TextGrid"}
    paths = {name: folder / f"{audio.stem}{endings[name]}" for name in options.formats}
    if options.plot:
        paths["plot"] = folder / f"{audio.stem}.emotion.png"
    with ExitStack() as stack:
        asides = {name: stack.enter_context(written_whole(path)) for name, path in paths.items()}
        for name, aside in asides.items():
            if name == "plot":
                from sedtalker.emotion.plot import plot_track

                plot_track(track, aside, load_audio(audio))
            else:
                write_track(track, aside, name)
        promise({paths[name]: aside for name, aside in asides.items()})
    for segment in track.segments:
        print(f"{segment.start:8.2f} {segment.end:8.2f}  {segment.emotion:<9} {segment.intensity:.2f}")
    return list(paths.values())


def render_file(folder: Path, options: RenderOptions, path: Path, promise: Promise) -> list[Path]:
    """Draw one animation file in every format asked for, with its sound where that is known; returns the paths."""
    from sedtalker.animation import load_animation
    from sedtalker.audio import load_audio
    from sedtalker.export.resample import resampled
    from sedtalker.export.sound import recording
    from sedtalker.render import contact_sheet, poster

    if options.background == "transparent" and not {*options.formats} <= {*TRANSPARENT}:
        raise RenderError(f"no transparency in {', '.join(options.formats)}. Use --to {','.join(TRANSPARENT)}")
    if not {*options.formats} <= {"sheet", "poster"}:
        _check_captions(options, path)
    animation = _as_other(load_animation(path), options.face)
    animation = replace(animation, rig=_dressed(animation.face, options))
    if options.fps is not None:
        animation = resampled(animation, options.fps)
    samples = None
    if any(name in SOUNDING for name in options.formats):
        source = options.audio or recording(animation)
        samples = None if source is None else load_audio(source)
        if source is None:
            print(
                f"sedtalker: the sound of {path} is not where it was; the video is silent. Give --audio",
                file=sys.stderr,
            )
    paths = {name: folder / f"{path.stem}{PICTURE_ENDINGS[name]}" for name in options.formats}
    if "png" in paths:  # a folder: its name must not look like a video's
        paths["png"] = folder / f"{path.stem.replace('.', '_')}{PICTURE_ENDINGS['png']}"
    with ExitStack() as stack:
        asides = {name: stack.enter_context(written_whole(made)) for name, made in paths.items()}
        for name, aside in asides.items():
            if name == "sheet":
                contact_sheet(animation, aside, size=options.size // 2, **_look(options))
            elif name == "poster":
                size = options.size
                poster(animation, animation.duration / 2, aside, width=size, height=size, **_look(options))
            else:
                sound = samples if name in SOUNDING else None
                _write_video(animation, aside, sound, options, path)
        promise({paths[name]: aside for name, aside in asides.items()})
    return list(paths.values())


def _as_other(animation: Animation, face: str | None) -> Animation:
    """The animation on another face: posed anew where both have the rig, otherwise its vertices as they are."""
    if face is None:
        return animation
    from sedtalker.face.assets import load_face

    other = load_face(face)
    if animation.blendshapes is not None and other.blendshape_names == animation.blendshape_names:
        return replace(animation, template=other.template, faces=other.faces, dense=None, rig=other)
    if other.template.shape != animation.template.shape:
        raise FaceError(
            f"a face of {len(other.template)} vertices: {face}. The animation has {len(animation.template)}; "
            "give a face of its topology"
        )
    return replace(animation, rig=other)


def _dressed(face: Face, options: PictureOptions) -> Face:
    from sedtalker.face.assets import with_skin

    return face if options.texture is None else with_skin(face, options.texture)


def _look(options: PictureOptions) -> dict[str, Any]:
    """What videos, sheets and posters are told alike."""
    return {name: getattr(options, name) for name in ("quality", "view", "background")}


def _check_captions(options: PictureOptions, source: Path) -> None:
    """Refuse captions that cannot be read or drawn before the work begins."""
    from sedtalker.render.captions import caption_file, check_captions

    if options.captions is not None:
        check_captions(caption_file(options.captions, source), options.size, options.size, options.font)


def _write_video(
    animation: Animation, path: Path, samples: Samples | None, options: PictureOptions, source: Path
) -> None:
    from tqdm import tqdm

    from sedtalker.audio import SAMPLE_RATE
    from sedtalker.render import render_animation
    from sedtalker.render.captions import caption_file, read_captions

    captions = []
    if options.captions is not None:
        captions = read_captions(caption_file(options.captions, source), animation.duration)
    with tqdm(total=len(animation), desc=f"drawing {source.name}", unit="frame", leave=False, disable=None) as bar:

        def show(done: int, _: int) -> None:
            bar.update(done - bar.n)

        render_animation(
            animation,
            path,
            width=options.size,
            height=options.size,
            backend=options.backend,
            **_look(options),
            strip=options.strip and options.background != "transparent",
            captions=captions,
            font=options.font,
            audio=None if samples is None else (samples, SAMPLE_RATE),
            progress=show,
        )
