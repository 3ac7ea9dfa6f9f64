"""The tasks of `animate`, `diarize`, `render` and of voices for one file: all of its results are written, or none."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial, singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.errors import (
    AnimationError,
    CheckpointError,
    FaceError,
    SEDTalkerWarning,
    warnings_as_lines,
)
from sedtalker.files import atomic_write
from sedtalker.render.config import RenderConfig
from sedtalker.render.parallel import available_threads
from sedtalker.resources import pause_collection
from sedtalker.task_options import (
    PROFILE_ENDING,
    WITH_AUDIO,
    AnimateOptions,
    DiarizeOptions,
    EnrollOptions,
    Options,
    PictureOptions,
    ReadingOptions,
    RenderOptions,
    VoiceOptions,
    apply_texture,
    check_result_paths,
    option_files,
    pooled_profile,
    result_paths,
)

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.audio import AudioFile, Samples
    from sedtalker.emotion.voice import VoiceProfile
    from sedtalker.face.rig import Face
    from sedtalker.pipeline import Talker
    from sedtalker.provenance.record import Provenance
    from sedtalker.render.animation_video import Renderer
    from sedtalker.workers import BackgroundWorker

    VideoProcess = BackgroundWorker["VideoTask", None]

CommitCallback = Callable[[dict[Path, Path]], None]
"""Called when all results are complete, before their renames: final path -> temporary path of each result."""


@dataclass(frozen=True)
class FileResult:
    """Paths of the results of one file."""

    paths: list[Path]
    summary: tuple[str, ...] = ()  # lines to print


FileTask = Callable[[Path, Path, CommitCallback], FileResult]
"""Processes a file: writes its results to a folder under temporary names, calls the callback, renames them."""


def _write_results(
    paths: Mapping[str, Path],
    write: Callable[[str, Path], None],
    on_commit: CommitCallback,
    write_extra: Callable[[], list[Path]] = list,
    meanwhile: AbstractContextManager[Any] | None = None,
) -> list[Path]:
    """Write all results or none; returns their paths.

    Args:
        paths: of the results, by format.
        write: called with a format and the temporary path for it.
        on_commit: called when all results are complete, before they are renamed.
        write_extra: writes additional files of the results and returns their paths.
        meanwhile: entered while the temporary paths exist.
    """
    with ExitStack() as stack:
        temp_paths = {name: stack.enter_context(atomic_write(path)) for name, path in paths.items()}
        stack.enter_context(meanwhile or nullcontext())
        for name, temp_path in temp_paths.items():
            write(name, temp_path)
        more = write_extra()
        on_commit({paths[name]: temp_path for name, temp_path in temp_paths.items()} | {path: path for path in more})
    return [*paths.values(), *more]


@singledispatch
def load_task(options: Any) -> FileTask:
    """Load the models once; returns the function that writes the results of one input to a folder."""
    raise TypeError(f"no task for options of type {type(options).__name__}")


@load_task.register
def _(options: AnimateOptions) -> FileTask:
    with pause_collection():
        from sedtalker.pipeline import load

        talker = load(options.model, diarizer=options.diarizer, device=options.device)
    if options.look_ahead is not None:
        talker.encoder.with_look_ahead(options.look_ahead)  # raises if there is none
    if "csv" in options.exports and talker.model.config.head != "blendshapes":
        raise AnimationError(
            f"csv holds blendshape weights, but the talker has none: {options.model}. Export npy or obj"
        )
    return partial(animate_file, talker, options, voice=read_reference(talker, options.voice_reference))


@load_task.register
def _(options: DiarizeOptions) -> FileTask:
    with pause_collection():
        from sedtalker.pipeline import load

        talker = load(diarizer=options.diarizer, device=options.device)
    if options.look_ahead is not None:
        talker.diarizer_encoder.with_look_ahead(options.look_ahead)
    return partial(diarize_file, talker, options, voice=read_reference(talker, options.voice_reference))


@load_task.register
def _(options: EnrollOptions) -> FileTask:
    from sedtalker.emotion.prediction import check_voice
    from sedtalker.pipeline import load

    talker = load(diarizer=options.diarizer, device=options.device)
    check_voice(talker.diarizer)
    return partial(enroll_file, talker, options)


@load_task.register
def _(options: RenderOptions) -> FileTask:
    return partial(render_file, options)


def animate_file(
    talker: Talker,
    options: AnimateOptions,
    audio: Path,
    folder: Path,
    on_commit: CommitCallback,
    voice: VoiceProfile | None = None,
    video_process: VideoProcess | None = None,
) -> FileResult:
    """Animate one audio file and write every format in `options.exports` to a folder; the .mp4 in `video_process`."""
    from sedtalker.face.assets import load_face

    paths = result_paths(options, folder, audio)
    check_result_paths(paths, [audio, *option_files(options, audio)])
    if "mp4" in options.exports:
        _check_captions(options, audio)
    source = _source(audio, options)
    animation = talker.animate(
        source,
        emotion=options.emotion,
        intensity_scale=options.intensity_scale,
        fps=options.fps,
        face=apply_texture(load_face(options.face), options),
        seed=options.seed,
        still=options.still,
        look_ahead=options.look_ahead,
        voice=_voice_of(audio, folder, options, voice),
    )
    writer = _AnimationWriter(animation, source, audio, options, video_process)
    stop_drawing = None if video_process is None else video_process.close_on_error()
    return FileResult(_write_results(paths, writer.write, on_commit, partial(writer.finish, paths), stop_drawing))


@dataclass
class _AnimationWriter:
    """Writes the results of one animated file; the .mp4 in `process` if given."""

    animation: Animation
    source: AudioFile
    audio: Path  # the input
    options: AnimateOptions
    process: VideoProcess | None
    video: VideoTask | None = None  # that the process works on

    def write(self, name: str, temp_path: Path) -> None:
        """Write one format; return before `process` has written the .mp4."""
        from sedtalker.emotion.track_io import write_json
        from sedtalker.export import export_animation

        if name == "mp4":
            task = VideoTask(replace(self.animation, rig=None), temp_path, self.source, self.audio)
            if self.process is None:
                _draw_video(task, self.options, self.animation.face)
            else:
                self.video = task
                self.process.submit(task)
        elif name == "npz":
            self.animation.save(temp_path, dense=self.options.dense)
        elif name == "json":
            write_json(self.animation.emotion, temp_path)
        else:
            export_animation(self.animation, name, temp_path, _provenance(self.animation, self.options))

    def finish(self, paths: Mapping[str, Path]) -> list[Path]:
        """Wait for the .mp4, which is drawn here if its process died, and write the sound files of the formats."""
        from sedtalker.export import export_sound
        from sedtalker.workers import WorkerDeath

        if self.process is not None and self.video is not None and isinstance(self.process.wait(), WorkerDeath):
            _draw_video(self.video, self.options, self.animation.face)
        played = [export_sound(self.animation, name, path) for name, path in paths.items()]
        return [sound for sound in dict.fromkeys(played) if sound is not None]


@dataclass(frozen=True)
class VideoTask:
    """Arguments of the process of `open_video_process` for the .mp4 of one input."""

    animation: Animation  # without its face, which the process has
    path: Path
    source: AudioFile
    audio: Path  # the input


@contextmanager
def open_video_process(options: Options) -> Iterator[VideoProcess | None]:
    """A process that gets ready to draw videos while this one loads the models and animates the first input.

    None if that saves no time: for other tasks, where torch is imported already, or on one processor.
    """
    wanted = isinstance(options, AnimateOptions) and "mp4" in options.exports and options.backend == "soft"
    if not wanted or "torch" in sys.modules or available_threads() < 2:
        yield None
        return
    from sedtalker.workers import BackgroundWorker

    assert isinstance(options, AnimateOptions)
    try:
        process = BackgroundWorker(_VideoDrawer(options))
    except OSError:  # no memory or permission for another process
        yield None
        return
    with process:
        yield process


@dataclass(frozen=True)
class _VideoDrawer:
    """Arguments of the process of `open_video_process`."""

    options: AnimateOptions

    def __call__(self) -> Callable[[VideoTask], None]:
        """Load the face, and compiled code by means of a video of two frames; returns the function of the tasks."""
        from tempfile import TemporaryDirectory

        from sedtalker.face.assets import load_face
        from sedtalker.provenance.record import describe
        from sedtalker.render.animation_video import prepare_renderer
        from sedtalker.render.parallel import map_in_order
        from sedtalker.render.video import write_video

        options = self.options
        with pause_collection(), warnings.catch_warnings(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore", SEDTalkerWarning)  # the main process prints them
            face = apply_texture(load_face(options.face), options)
            renderer = prepare_renderer(face, _render_config(options, options.size))
            frames = map_in_order(renderer.frame, 2 * [face.template], 1)
            write_video(Path(folder, "first.mp4"), frames, options.fps, None, describe({}, mark=options.mark))

        def draw(task: VideoTask) -> None:
            with warnings_as_lines():
                _draw_video(task, options, face, renderer)

        return draw


def _draw_video(task: VideoTask, options: AnimateOptions, face: Face, renderer: Renderer | None = None) -> None:
    from sedtalker.audio import load_audio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SEDTalkerWarning)  # the animation read the same recording
        samples = load_audio(task.source)
    _write_video(replace(task.animation, rig=face), task.path, samples, options, task.audio, renderer)


def diarize_file(
    talker: Talker,
    options: DiarizeOptions,
    audio: Path,
    folder: Path,
    on_commit: CommitCallback,
    voice: VoiceProfile | None = None,
) -> FileResult:
    """Diarize one audio file and write its track in every format in `options.formats` to a folder."""
    from sedtalker.audio import load_audio
    from sedtalker.emotion.track_io import write_track

    paths = result_paths(options, folder, audio)
    check_result_paths(paths, [audio, *option_files(options, audio)])
    source = _source(audio, options)
    track = talker.diarize(source, look_ahead=options.look_ahead, voice=_voice_of(audio, folder, options, voice))

    def write(name: str, temp_path: Path) -> None:
        if name == "plot":
            from sedtalker.emotion.plot import plot_track

            plot_track(track, temp_path, load_audio(source))
        else:
            write_track(track, temp_path, name)

    summary = (
        f"{segment.start:8.2f} {segment.end:8.2f}  {segment.emotion:<9} {segment.intensity:.2f}"
        for segment in track.segments
    )
    return FileResult(_write_results(paths, write, on_commit), tuple(summary))


def enroll_file(
    talker: Talker, options: EnrollOptions, audio: Path, folder: Path, on_commit: CommitCallback
) -> FileResult:
    """Write the profile of the voice in one audio file of several."""
    from sedtalker.audio import AudioFile
    from sedtalker.pipeline import SHORTEST_PART

    profile = talker.enroll(AudioFile(audio, options.audio_track), shortest=SHORTEST_PART)
    paths = result_paths(options, folder, audio)
    return FileResult(_write_results(paths, lambda name, temp_path: profile.save(temp_path), on_commit))


def read_reference(talker: Talker, reference: Path | None) -> VoiceProfile | None:
    """The profile that a file holds, or of the voice in it. Raises SEDTalkerError if it cannot be used."""
    from sedtalker.emotion.prediction import check_voice
    from sedtalker.emotion.voice import VoiceProfile

    if reference is None:
        return None
    if reference.suffix.lower() != PROFILE_ENDING:
        return talker.enroll(reference)
    profile = VoiceProfile.load(reference)
    try:
        check_voice(talker.diarizer, profile)
    except CheckpointError as error:
        raise CheckpointError(f"{reference}: {error}") from error
    return profile


def _voice_of(audio: Path, folder: Path, options: VoiceOptions, reference: VoiceProfile | None) -> VoiceProfile | None:
    """The profile of an input's speaker that `batch` pooled in the folder of the results, or the reference."""
    from sedtalker.emotion.voice import VoiceProfile

    if options.same_speaker is None:
        return reference
    pooled = pooled_profile(folder, audio)
    return VoiceProfile.load(pooled) if pooled.is_file() else None


def render_file(options: RenderOptions, path: Path, folder: Path, on_commit: CommitCallback) -> FileResult:
    """Render one animation file in every format in `options.formats` to a folder, with its recording if it is found."""
    from sedtalker.animation import load_animation
    from sedtalker.audio import load_audio
    from sedtalker.export.resample import resample_animation
    from sedtalker.export.sound import describe_missing, find_recording
    from sedtalker.render.animation_video import contact_sheet, poster

    paths = result_paths(options, folder, path)
    check_result_paths(paths, [path, *option_files(options, path)])
    if not {*options.formats} <= {"sheet", "poster"}:
        _check_captions(options, path)
    animation = _replace_face(load_animation(path), options.face)
    animation = replace(animation, rig=apply_texture(animation.face, options))
    if options.fps is not None:
        animation = resample_animation(animation, options.fps)
    samples = None
    if any(name in WITH_AUDIO for name in options.formats):
        source = options.audio or find_recording(animation)
        samples = None if source is None else load_audio(source)
        if source is None:
            warnings.warn(f"a silent video: {describe_missing(animation, path)}", SEDTalkerWarning, stacklevel=2)

    def write(name: str, temp_path: Path) -> None:
        if name == "sheet":
            config = _render_config(options, options.size // 2)
            contact_sheet(animation, temp_path, config, provenance=_provenance(animation, options))
        elif name == "poster":
            config = _render_config(options, options.size)
            poster(animation, animation.duration / 2, temp_path, config, provenance=_provenance(animation, options))
        else:
            sound = samples if name in WITH_AUDIO else None
            _write_video(animation, temp_path, sound, options, path)

    return FileResult(_write_results(paths, write, on_commit))


def _source(audio: Path, options: ReadingOptions) -> AudioFile:
    """The audio file with its track; raises AudioError if it is damaged and `options.strict` is set."""
    from sedtalker.audio import AudioFile, refuse_damaged

    source = AudioFile(audio, options.audio_track)
    if options.strict:
        refuse_damaged(source)
    return source


def _replace_face(animation: Animation, face: str | None) -> Animation:
    """The animation on another face: weights are applied to the new rig if both have one, else vertices are kept."""
    if face is None:
        return animation
    from sedtalker.face.assets import load_face

    other = load_face(face)
    if animation.blendshapes is not None and other.blendshape_names == animation.blendshape_names:
        return replace(animation, template=other.template, faces=other.faces, dense=None, rig=other)
    if other.template.shape != animation.template.shape:
        raise FaceError(
            f"the face has {len(other.template)} vertices, the animation {len(animation.template)}: {face}. "
            "Name a face of the same topology"
        )
    return replace(animation, rig=other)


def _render_config(options: PictureOptions, size: int) -> RenderConfig:
    """The settings of square pictures with `size` pixels a side."""
    return RenderConfig(size, size, options.quality, options.backend, options.view, options.background, options.framing)


def _provenance(animation: Animation, options: PictureOptions) -> Provenance:
    from sedtalker.provenance.record import describe

    return describe(animation.meta, face=animation.face.name, mark=options.mark, sign=options.sign)


def _check_captions(options: PictureOptions, source: Path) -> None:
    """Raise before the work if the captions cannot be read or drawn."""
    from sedtalker.render.captions import caption_file, check_captions

    if options.captions is not None:
        check_captions(caption_file(options.captions, source), options.size, options.size, options.font)


def _write_video(
    animation: Animation,
    path: Path,
    samples: Samples | None,
    options: PictureOptions,
    source: Path,
    renderer: Renderer | None = None,
) -> None:
    from tqdm import tqdm

    from sedtalker.audio import SAMPLE_RATE
    from sedtalker.render.animation_video import render_animation
    from sedtalker.render.captions import caption_file, read_captions

    captions = []
    if options.captions is not None:
        captions = read_captions(caption_file(options.captions, source), animation.duration)
    with tqdm(total=len(animation), desc=f"rendering {source.name}", unit="frame", leave=False, disable=None) as bar:

        def show(done: int, _: int) -> None:
            bar.update(done - bar.n)

        render_animation(
            animation,
            path,
            _render_config(options, options.size),
            strip=options.strip and options.background != "transparent",
            captions=captions,
            font=options.font,
            audio=None if samples is None else (samples, SAMPLE_RATE),
            progress=show,
            provenance=_provenance(animation, options),
            renderer=renderer,
        )
