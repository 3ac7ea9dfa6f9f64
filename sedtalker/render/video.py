"""Writing of frames and sound to video files, with one frame in memory at a time, and verification of the result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.demux import ffmpeg_name
from sedtalker.errors import RenderError
from sedtalker.files import OUTPUT_MARKER, atomic_write, check_replaceable, final_name
from sedtalker.provenance import attach
from sedtalker.provenance.mark import Mark
from sedtalker.provenance.record import Provenance
from sedtalker.provenance.seal import statement
from sedtalker.render.arrays import Bytes
from sedtalker.render.parallel import available_threads
from sedtalker.render.yuv import to_yuv420

Audio = tuple[NDArray[np.floating], int]

GIF_RATE = 25  # frames/s of a GIF if the frame duration is not a multiple of 10 ms, as the format requires


@dataclass(frozen=True)
class _Container:
    """Codecs and options of a file suffix."""

    video_codec: str
    video_options: dict[str, str]
    audio_codec: str
    audio_rates: tuple[int, ...]  # sample rates of its audio codec
    options: dict[str, str]


_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_CONTAINERS = {
    ".mp4": _Container(
        "libx264", {"preset": "veryfast", "crf": "18"}, "aac", _AAC_RATES, {"movflags": "+faststart"}
    ),
    ".webm": _Container(
        "libvpx-vp9", {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "24", "b": "0"}, "libopus",
        (48000,), {},
    ),
}  # fmt: skip

FORMATS = (*_CONTAINERS, ".gif", "")
"""Suffixes that `write_video` supports; a path without suffix is a folder of PNG files."""


class _InvalidVideo(Exception):
    """An invalid video; `write_video` adds the path."""


def write_video(
    path: Path | str,
    frames: Iterable[Bytes],
    fps: float,
    audio: Audio | None = None,
    provenance: Provenance | None = None,
) -> None:
    """Write frames (H, W, 3) uint8 sRGB, and sound if given, to `path`; the suffix chooses the format.

    The file is written to a temporary path, verified and renamed; an error leaves no file.

    Args:
        path: .mp4 (H.264 and AAC), .webm (VP9 and Opus), .gif, or no suffix for a folder of PNG files.
        frames: consumed one by one; RGBA (H, W, 4) is possible for PNG files only.
        fps: frames/s.
        audio: samples (N,) in [-1, 1] and their rate; as long as the frames to half a frame.
        provenance: adds the mark to the pictures, and a manifest or metadata to the file.

    Raises:
        RenderError: no frames, an unknown suffix, sound of another length, or a file that differs from its input.
        SEDTalkerError: the folder cannot be written or contains other files, or the disk is full.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise RenderError(
            f"unknown video format: {path.suffix} ({path}). Choose .mp4, .webm, .gif, or a folder for PNG files"
        )
    check_replaceable(path)
    try:
        with atomic_write(path) as temp_path:
            count = _write_format(temp_path, _check_frames(frames, path), fps, audio, provenance)
            _verify(temp_path, count, fps, audio)
            if provenance is not None:
                attach(temp_path, provenance)
    except _InvalidVideo as error:
        raise RenderError(f"cannot write {final_name(path)}: {error}") from error
    except (ValueError, RuntimeError) as error:  # PyAV's errors that are not OSErrors
        raise RenderError(f"cannot write {final_name(path)}: {error}. Choose another size or format") from error


def _check_frames(frames: Iterable[Bytes], path: Path) -> Iterator[Bytes]:
    """Yield the frames; raise a RenderError at one of another size or type."""
    shape = None
    for index, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != shape:
            raise RenderError(
                f"frame {index} is {frame.dtype} {frame.shape} and not uint8 {shape}: {path}. Draw one size"
            )
        if frame.shape[2] != 3 and path.suffix:
            raise RenderError(f"a {path.suffix} file cannot store transparency: {path}. Write a folder of PNG files")
        yield frame
    if shape is None:
        raise RenderError(f"no frames: {path}. The animation is empty")


def _write_format(
    path: Path, frames: Iterator[Bytes], fps: float, audio: Audio | None, provenance: Provenance | None
) -> int:
    """Write in the suffix's format; returns the number of frames."""
    container = _CONTAINERS.get(path.suffix.lower())
    if container is not None:
        rate = Fraction(fps).limit_denominator(100_000)
        return _write_streams(path, container, frames, rate, audio, provenance)
    if provenance is not None and provenance.mark:
        mark = Mark(provenance.digest)
        frames = (mark.add(frame) for frame in frames)
    if path.suffix.lower() == ".gif":
        return _write_gif(path, frames, fps)
    return _write_folder(path, frames)


def _write_streams(
    path: Path,
    kind: _Container,
    frames: Iterator[Bytes],
    fps: Fraction,
    audio: Audio | None,
    provenance: Provenance | None,
) -> int:
    import av

    first = next(frames)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise _InvalidVideo(f"a video of {width} x {height} pixels. Use an even width and height")
    with av.open(ffmpeg_name(path), "w", options=kind.options) as output:
        output.metadata["comment"] = OUTPUT_MARKER
        if provenance is not None:
            sealed = path.suffix.lower() == ".webm"  # an .mp4 gets a manifest
            output.metadata["description"] = statement(provenance) if sealed else provenance.text
        video = output.add_stream(kind.video_codec, rate=fps, options=kind.video_options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # Most processors are left to the drawing threads.
        video.codec_context.thread_count = max(1, available_threads() // 4)
        video.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        video.codec_context.colorspace = av.video.reformatter.Colorspace.ITU709
        video.codec_context.color_primaries = av.video.reformatter.ColorPrimaries.BT709
        video.codec_context.color_trc = av.video.reformatter.ColorTrc.BT709
        sound = _SoundTrack(output, kind, *audio) if audio is not None else None
        buffer = np.empty((height * 3 // 2, width), np.uint8)
        mark = Mark(provenance.digest) if provenance is not None and provenance.mark else None
        count = 0
        for frame in chain([first], frames):
            to_yuv420(np.ascontiguousarray(frame), buffer)
            if mark is not None:
                mark.add_to_luma(buffer[:height])
            picture = av.VideoFrame.from_ndarray(buffer, format="yuv420p")
            picture.pts, picture.time_base = count, 1 / fps
            output.mux(video.encode(picture))
            count += 1
            if sound is not None:
                sound.write_until(float(count / fps))
        output.mux(video.encode(None))
        if sound is not None:
            sound.finish()
    return count


class _SoundTrack:
    """The audio stream, encoded along with the frames so that the file is interleaved."""

    def __init__(self, output: Any, kind: _Container, samples: NDArray[np.floating], rate: int) -> None:
        import av

        self._output, self._rate = output, rate
        self._samples = np.clip(np.asarray(samples, np.float32), -1, 1)
        target = rate if rate in kind.audio_rates else kind.audio_rates[-1]
        self._stream = output.add_stream(kind.audio_codec, rate=target, layout="mono")
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=target)
        self._position = 0

    def write_until(self, seconds: float) -> None:
        """Encode the samples before a time."""
        import av

        end = min(len(self._samples), round(seconds * self._rate))
        if end <= self._position:
            return
        chunk = np.ascontiguousarray(self._samples[None, self._position : end])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position, Fraction(1, self._rate)
        self._position = end
        self._encode(self._resampler.resample(frame))

    def finish(self) -> None:
        """Encode the remaining samples."""
        self.write_until(len(self._samples) / self._rate)
        self._encode([*self._resampler.resample(None), None])

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            self._output.mux(self._stream.encode(frame))


def _write_gif(path: Path, frames: Iterator[Bytes], fps: float) -> int:
    from PIL import Image

    rate = fps if (100 / fps).is_integer() else GIF_RATE
    images = (Image.fromarray(frame) for frame in _resample_frames(frames, fps, rate))
    next(images).save(path, save_all=True, append_images=images, duration=round(1000 / rate), loop=0, optimize=False)
    with Image.open(path) as image:
        return int(getattr(image, "n_frames", 1))


def _resample_frames(frames: Iterable[Bytes], fps: float, rate: float) -> Iterator[Bytes]:
    """Resample frames to another rate by repeating or dropping."""
    count = 0
    for index, frame in enumerate(frames):
        while count * fps < (index + 1) * rate - 1e-6:
            yield frame
            count += 1


def _write_folder(path: Path, frames: Iterator[Bytes]) -> int:
    from PIL import Image

    path.mkdir()
    count = 0
    for frame in frames:
        Image.fromarray(frame).save(path / f"{count:06d}.png", compress_level=1)
        count += 1
    return count


def check_sound_length(count: int, fps: float, audio: Audio) -> None:
    """Check that the sound is as long as `count` frames, to half a frame. Raises RenderError if the lengths differ."""
    sound_seconds, seconds = len(audio[0]) / audio[1], count / fps
    if abs(sound_seconds - seconds) > 0.5 / fps + 1e-6:
        raise RenderError(
            f"{sound_seconds:.3f} s of sound for {seconds:.3f} s of pictures. Use audio of the same length"
        )


def _verify(path: Path, count: int, fps: float, audio: Audio | None) -> None:
    """Read a file back and compare its lengths with the input."""
    if path.suffix.lower() not in _CONTAINERS:
        return
    import av

    seconds, half = count / fps, 0.5 / fps
    if audio is not None:
        check_sound_length(count, fps, audio)
    with av.open(ffmpeg_name(path)) as container:
        video = container.streams.video[0]
        pts = [packet.pts for packet in container.demux(video) if packet.pts is not None]
        video_seconds = _video_seconds(video, pts)
    if len(pts) != count or abs(video_seconds - seconds) > half:
        raise _InvalidVideo(
            f"the file contains {len(pts)} frames in {video_seconds:.3f} s, not {count} in {seconds:.3f} s"
        )
    if audio is None:
        return
    with av.open(ffmpeg_name(path)) as container:
        sound = container.streams.audio[0]
        sound_seconds = sum(frame.samples for frame in container.decode(sound)) / sound.rate
    if abs(sound_seconds - seconds) > half + _AUDIO_FRAME / sound.rate:
        raise _InvalidVideo(f"the file's sound is {sound_seconds:.3f} s long, not {seconds:.3f} s")


_AUDIO_FRAME = 1024  # samples of a codec's frame; the last frame is padded


def _video_seconds(stream: Any, pts: list[int]) -> float:
    """Length of a video stream in seconds by its presentation times."""
    step = (max(pts) - min(pts)) / max(len(pts) - 1, 1)
    return float((max(pts) - min(pts) + step) * stream.time_base)
