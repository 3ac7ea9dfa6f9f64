"""Frames and sound -> a checked video file, in this process and with one frame in memory at a time."""

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
from sedtalker.render.arrays import Bytes
from sedtalker.render.parallel import available_threads
from sedtalker.render.yuv import to_yuv420

Audio = tuple[NDArray[np.floating], int]

GIF_RATE = 25  # frames a second of a GIF whose own rate is no whole number of hundredths of a second a frame


@dataclass(frozen=True)
class _Container:
    """What goes into a file of one suffix."""

    video_codec: str
    video_options: dict[str, str]
    audio_codec: str
    audio_rates: tuple[int, ...]  # the rates its audio codec takes
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
"""Suffixes that `write_video` knows; without one, the path is a folder of PNG files."""


class _BadVideo(Exception):
    """What is wrong with a video, before its name is known."""


def write_video(path: Path | str, frames: Iterable[Bytes], fps: float, audio: Audio | None = None) -> None:
    """Write frames (H, W, 3) uint8 sRGB, and sound if given, to `path`; the suffix chooses the format.

    The file is written aside, read back, checked and only then renamed; whatever fails, nothing is left behind.

    Args:
        path: .mp4 (H.264 and AAC), .webm (VP9 and Opus), .gif, or no suffix for a folder of PNG files.
        frames: consumed one by one.
        fps: frames a second.
        audio: samples (N,) in [-1, 1] and their rate; as long as the frames to half a frame.

    Raises:
        RenderError: no frames, an unknown suffix, sound of another length, or a file that does not hold what was put
            in.
        SEDTalkerError: the folder cannot be written or holds other files, or the disk is full.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise RenderError(
            f"no video format: {path.suffix} ({path}). Choose .mp4, .webm, .gif, or a folder for PNG files"
        )
    check_replaceable(path)
    try:
        with atomic_write(path) as temp_path:
            count = _write(temp_path, _shown(frames, path), fps, audio)
            _check(temp_path, count, fps, audio)
    except _BadVideo as error:
        raise RenderError(f"cannot write {final_name(path)}: {error}") from error
    except (ValueError, RuntimeError) as error:  # what PyAV raises beside operating system errors
        raise RenderError(f"cannot write {final_name(path)}: {error}. Choose another size or format") from error


def _shown(frames: Iterable[Bytes], path: Path) -> Iterator[Bytes]:
    """The frames, as long as they are pictures of one size."""
    shape = None
    for index, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != shape:
            raise RenderError(
                f"frame {index} is {frame.dtype} {frame.shape} and not uint8 {shape}: {path}. Draw one size"
            )
        yield frame
    if shape is None:
        raise RenderError(f"no frames: {path}. The animation is empty")


def _write(path: Path, frames: Iterator[Bytes], fps: float, audio: Audio | None) -> int:
    """Write by the suffix; returns the number of frames."""
    container = _CONTAINERS.get(path.suffix.lower())
    if container is not None:
        return _write_streams(path, container, frames, Fraction(fps).limit_denominator(100_000), audio)
    if path.suffix.lower() == ".gif":
        return _write_gif(path, frames, fps)
    return _write_folder(path, frames)


def _write_streams(path: Path, kind: _Container, frames: Iterator[Bytes], fps: Fraction, audio: Audio | None) -> int:
    import av

    first = next(frames)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise _BadVideo(f"a video of {width} x {height} pixels. Use an even width and height")
    with av.open(ffmpeg_name(path), "w", options=kind.options) as output:
        output.metadata["comment"] = OUTPUT_MARKER
        video = output.add_stream(kind.video_codec, rate=fps, options=kind.video_options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # Drawing needs the processors more than this: a thread of it costs work of its own.
        video.codec_context.thread_count = max(1, available_threads() // 4)
        video.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        video.codec_context.colorspace = av.video.reformatter.Colorspace.ITU709
        video.codec_context.color_primaries = av.video.reformatter.ColorPrimaries.BT709
        video.codec_context.color_trc = av.video.reformatter.ColorTrc.BT709
        sound = _SoundTrack(output, kind, *audio) if audio is not None else None
        buffer = np.empty((height * 3 // 2, width), np.uint8)
        count = 0
        for frame in chain([first], frames):
            to_yuv420(np.ascontiguousarray(frame), buffer)
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
    """Sound that is written along with the pictures, so that neither waits for the other in the file."""

    def __init__(self, output: Any, kind: _Container, samples: NDArray[np.floating], rate: int) -> None:
        import av

        self._output, self._rate = output, rate
        self._samples = np.clip(np.asarray(samples, np.float32), -1, 1)
        target = rate if rate in kind.audio_rates else kind.audio_rates[-1]
        self._stream = output.add_stream(kind.audio_codec, rate=target, layout="mono")
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=target)
        self._at = 0

    def write_until(self, seconds: float) -> None:
        """Encode the samples before a time."""
        import av

        end = min(len(self._samples), round(seconds * self._rate))
        if end <= self._at:
            return
        chunk = np.ascontiguousarray(self._samples[None, self._at : end])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._at, Fraction(1, self._rate)
        self._at = end
        self._encode(self._resampler.resample(frame))

    def finish(self) -> None:
        """Encode what is left."""
        self.write_until(len(self._samples) / self._rate)
        self._encode([*self._resampler.resample(None), None])

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            self._output.mux(self._stream.encode(frame))


def _write_gif(path: Path, frames: Iterator[Bytes], fps: float) -> int:
    from PIL import Image

    rate = fps if (100 / fps).is_integer() else GIF_RATE
    kept = (Image.fromarray(frame) for frame in _at_rate(frames, fps, rate))
    next(kept).save(path, save_all=True, append_images=kept, duration=round(1000 / rate), loop=0, optimize=False)
    with Image.open(path) as image:
        return int(getattr(image, "n_frames", 1))


def _at_rate(frames: Iterable[Bytes], fps: float, rate: float) -> Iterator[Bytes]:
    """Repeat or drop frames so that they play as fast at another rate."""
    shown = 0
    for index, frame in enumerate(frames):
        while shown * fps < (index + 1) * rate - 1e-6:
            yield frame
            shown += 1


def _write_folder(path: Path, frames: Iterator[Bytes]) -> int:
    from PIL import Image

    path.mkdir()
    count = 0
    for frame in frames:
        Image.fromarray(frame).save(path / f"{count:06d}.png", compress_level=1)
        count += 1
    return count


def check_sound_length(count: int, fps: float, audio: Audio) -> None:
    """Refuse sound that is not as long as `count` frames to half a frame.

    Raises:
        RenderError: with both lengths in seconds.
    """
    given, seconds = len(audio[0]) / audio[1], count / fps
    if abs(given - seconds) > 0.5 / fps + 1e-6:
        raise RenderError(f"{given:.3f} s of sound for {seconds:.3f} s of pictures. Use audio of the same length")


def _check(path: Path, count: int, fps: float, audio: Audio | None) -> None:
    """Read a written file back and hold it against what was put in."""
    if path.suffix.lower() not in _CONTAINERS:
        return
    import av

    seconds, half = count / fps, 0.5 / fps
    if audio is not None:
        check_sound_length(count, fps, audio)
    with av.open(ffmpeg_name(path)) as written:
        video = written.streams.video[0]
        shown = [packet.pts for packet in written.demux(video) if packet.pts is not None]
        long = _seconds(video, shown)
    if len(shown) != count or abs(long - seconds) > half:
        raise _BadVideo(f"the written video holds {len(shown)} frames in {long:.3f} s, not {count} in {seconds:.3f} s")
    if audio is None:
        return
    with av.open(ffmpeg_name(path)) as written:
        sound = written.streams.audio[0]
        heard = sum(frame.samples for frame in written.decode(sound)) / sound.rate
    if abs(heard - seconds) > half + _AUDIO_BLOCK / sound.rate:
        raise _BadVideo(f"the written sound is {heard:.3f} s long, not {seconds:.3f} s")


_AUDIO_BLOCK = 1024  # samples that audio codecs write at a time; the container hides what is too much


def _seconds(stream: Any, pts: list[int]) -> float:
    """Length of a video stream by the times of its pictures."""
    step = (max(pts) - min(pts)) / max(len(pts) - 1, 1)
    return float((max(pts) - min(pts) + step) * stream.time_base)
