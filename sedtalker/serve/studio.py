"""Recorded takes and posted files: animated as a whole in a process of its own, so that live sessions go on.

A take is kept with its sound, so that an edited emotion track animates it again at once, and so that it can be saved.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sedtalker.errors import SEDTalkerError, TrackError
from sedtalker.serve.config import Limits, ServeConfig
from sedtalker.serve.pool import start_process, stop_executor

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.emotion.track import EmotionTrack
    from sedtalker.emotion.voice import VoiceProfile
    from sedtalker.pipeline import Talker

Result = TypeVar("Result")

NAME = "take"  # of every file that a client saves
SAVED = {
    "json": "application/json", "csv": "text/csv", "glb": "model/gltf-binary", "mp4": "video/mp4",
    "html": "text/html", "wav": "audio/wav",
}  # fmt: skip
"""Formats that a take can be saved in, and their media types."""


class Busy(SEDTalkerError):
    """Too many posted files wait."""


@dataclass
class _Take:
    sound: Path
    voice: EmotionTrack  # as diarized
    animation: Animation


class Studio:
    """The takes, in the process that computes them."""

    def __init__(self, talker: Talker, limits: Limits, folder: Path, voice: VoiceProfile | None = None) -> None:
        """`folder` is for the sounds of the takes; `voice` is what is known of the speaker of all."""
        self.talker, self.limits, self._folder, self._voice = talker, limits, folder, voice
        self._takes: OrderedDict[str, _Take] = OrderedDict()

    def add(self, data: bytes, fps: float, face: str) -> dict[str, Any]:
        """Animate a sound or video file with the emotion of the voice; returns the take for the page.

        Raises:
            AudioError: no sound, or more of it than the limit.
        """
        name = secrets.token_urlsafe(12)
        sound = self._folder / f"{name}.wav"
        try:
            _convert(data, sound, self.limits.take_seconds)
            animation = self.talker.animate(sound, fps=fps, face=face, voice=self._voice)
        except BaseException:
            sound.unlink(missing_ok=True)
            raise
        self._takes[name] = _Take(sound, animation.emotion, animation)
        while len(self._takes) > self.limits.takes:
            self._takes.popitem(last=False)[1].sound.unlink(missing_ok=True)
        return _describe(name, self._takes[name])

    def edit(self, name: str, segments: Any, share: float, face: str | None) -> dict[str, Any]:
        """Animate a take again with edited segments, mixed with the voice: `share` of the hand.

        Raises:
            TrackError: segments that cannot be used.
            KeyError: no such take.
        """
        take = self._find(name)
        track = edited_track(take.voice, segments, share)
        rig = face or take.animation.face.name
        take.animation = self.talker.animate(take.sound, fps=take.animation.fps, face=rig, emotion=track)
        return _describe(name, take)

    def save(self, name: str, form: str) -> bytes:
        """A take as a file of one of the formats of SAVED. Raises KeyError: no such take."""
        take = self._find(name)
        if form == "wav":
            return take.sound.read_bytes()
        animation = replace(take.animation, emotion=replace(take.animation.emotion, audio=f"{NAME}.wav"))
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder, f"{NAME}.{form}")
            _write(animation, form, path, take.sound)
            return path.read_bytes()

    def weights(self, data: bytes, fps: float) -> Motion:
        """Motion of a sound or video file; nothing is kept. Raises AudioError as `add`."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            sound = Path(folder, "sound.wav")
            _convert(data, sound, self.limits.take_seconds)
            animation = self.talker.animate(sound, fps=fps, voice=self._voice)
        assert animation.blendshapes is not None
        posterior, intensity = animation.emotion.at_rate(fps, len(animation))
        head = np.tile(np.eye(3, dtype=np.float32), (len(animation), 1, 1))
        if animation.head is not None:
            head = animation.head[:, :3, :3]
        return Motion(animation.blendshapes, head, posterior, intensity, animation.emotion.labels)

    def _find(self, name: str) -> _Take:
        take = self._takes[name]
        self._takes.move_to_end(name)
        return take


@dataclass(frozen=True)
class Motion:
    """Motion of a file."""

    weights: np.ndarray  # (T, 52)
    head: np.ndarray  # (T, 3, 3)
    posterior: np.ndarray  # (T, C)
    intensity: np.ndarray  # (T,)
    labels: tuple[str, ...]


def edited_track(voice: EmotionTrack, segments: Any, share: float) -> EmotionTrack:
    """The track of the voice with a person's segments, which replace its own, mixed with it by `share` of the hand."""
    from sedtalker.emotion.track_io import from_json, to_json

    document = json.loads(to_json(replace(voice, audio=None)))
    document["segments"] = segments
    try:
        track = from_json(json.dumps(document), voice.duration, labels=voice.labels)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrackError(f"segments that cannot be read ({error!r:.80})") from error
    if share < 1:
        track.posterior = share * track.posterior + (1 - share) * voice.posterior
        track.intensity = share * track.intensity + (1 - share) * voice.intensity
    return replace(track, audio=voice.audio)


def _convert(data: bytes, sound: Path, seconds: float) -> None:
    """Write a client's file as mono 16 kHz WAV, which no decoder has to guess again."""
    from sedtalker.audio import SAMPLE_RATE, stream_audio, write_wav
    from sedtalker.errors import AudioError
    from sedtalker.serve.incoming import is_media

    if not is_media(data[:16]):
        raise AudioError("not a sound or video file. Give WAV, FLAC, MP3, Ogg, MP4 or WebM")

    def blocks(path: Path) -> Any:
        count = 0
        for block in stream_audio(path):
            count += len(block)
            if count > seconds * SAMPLE_RATE:
                raise AudioError(f"more than {seconds:g} s of sound. Post a shorter file")
            yield block

    with tempfile.TemporaryDirectory(dir=sound.parent) as folder:
        source = Path(folder, "upload")
        source.write_bytes(data)
        try:
            write_wav(sound, blocks(source))
        except AudioError as error:  # without the path of the server's file
            raise AudioError(str(error).replace(str(source), "the file")) from None


def _write(animation: Animation, form: str, path: Path, sound: Path) -> None:
    if form == "json":
        from sedtalker.emotion.track_io import write_json

        write_json(animation.emotion, path)
    elif form == "mp4":
        from sedtalker.audio import SAMPLE_RATE, load_audio
        from sedtalker.render.animation_video import render_animation

        render_animation(animation, path, audio=(load_audio(sound), SAMPLE_RATE))
    else:
        from sedtalker.export import export_animation

        export_animation(animation, form, path)


def _describe(name: str, take: _Take) -> dict[str, Any]:
    """A take for the page. Rows are base64 of little-endian float32."""
    from sedtalker.emotion.track_io import to_json
    from sedtalker.rotations import head_angles

    animation, track = take.animation, take.animation.emotion
    document = json.loads(to_json(track))
    head = np.zeros((len(animation), 3), np.float32)
    if animation.head is not None:
        yaw_pitch_roll = np.degrees([head_angles(motion) for motion in animation.head[:, :3, :3]])
        head = yaw_pitch_roll[:, [1, 0, 2]].astype(np.float32)
    assert animation.blendshapes is not None
    return {
        "id": name,
        "duration": animation.duration,
        "fps": animation.fps,
        "labels": list(track.labels),
        "segments": document["segments"],
        "uncertain": track.abstained_spans,
        "trackRate": track.frame_rate,
        "posterior": _encode(track.posterior),
        "intensity": _encode(track.intensity),
        "weights": _encode(animation.blendshapes),
        "head": _encode(head),
    }


def _encode(values: np.ndarray) -> str:
    return b64encode(values.astype("<f4").tobytes()).decode()


_studio: Studio | None = None  # of this process


def start_studio(config: ServeConfig, folder: Path) -> None:
    """Load the talker in the studio's process."""
    global _studio
    from sedtalker.serve.engine import load_talker, prepare_worker

    prepare_worker()
    talker, voice = load_talker(config)
    _studio = Studio(talker, config.limits, folder, voice)


def call_studio(method: str, *arguments: Any) -> Any:
    """Call a method of the studio of this process."""
    assert _studio is not None
    return getattr(_studio, method)(*arguments)


class StudioClient:
    """The front's side of the studio: starts it at the first use, and limits the jobs."""

    def __init__(self, start: Callable[[Path], tuple[Executor, Callable[..., Any]]], limits: Limits) -> None:
        """`start` is called with a folder for the sounds."""
        self._start, self._limits = start, limits
        self._folder = tempfile.TemporaryDirectory(prefix="sedtalker-takes-")
        self._executor: Executor | None = None
        self._call: Callable[..., Any] = call_studio
        self._jobs = 0

    @classmethod
    def of_process(cls, config: ServeConfig) -> StudioClient:
        """A studio in a process of its own."""

        def start(folder: Path) -> tuple[Executor, Callable[..., Any]]:
            return start_process(start_studio, config, folder), call_studio

        return cls(start, config.limits)

    @classmethod
    def of_thread(cls, talker: Talker, limits: Limits) -> StudioClient:
        """A studio in a thread of this process."""

        def start(folder: Path) -> tuple[Executor, Callable[..., Any]]:
            studio = Studio(talker, limits, folder)
            return ThreadPoolExecutor(1, "studio"), lambda method, *arguments: getattr(studio, method)(*arguments)

        return cls(start, limits)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the studio.

        Raises:
            Busy: too many calls wait. Exceptions of the method are raised unchanged.
        """
        if self._jobs >= self._limits.jobs:
            raise Busy(f"{self._jobs} files wait already. Try again later")
        self._jobs += 1
        if self._executor is None:
            self._executor, self._call = self._start(Path(self._folder.name))
        executor = self._executor
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, self._call, method, *arguments)
        except BrokenExecutor as error:
            if executor is self._executor:  # another call may have started the next process
                self._executor = None
            raise SEDTalkerError("the process that animates files ended. Post the file again") from error
        finally:
            self._jobs -= 1

    def close(self) -> None:
        """End the process, and delete the sounds."""
        if self._executor is not None:
            stop_executor(self._executor)
        self._folder.cleanup()
