"""Media files that tests write with FFmpeg's encoders."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FORMATS = {  # name: container and codec
    "wav": ("wav", "pcm_s16le"), "aiff": ("aiff", "pcm_s16be"), "flac": ("flac", "flac"), "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "libopus"), "oga": ("ogg", "flac"), "m4a": ("ipod", "aac"), "alac": ("mp4", "alac"),
    "mkv": ("matroska", "aac"), "webm": ("webm", "libopus"), "ts": ("mpegts", "aac"), "adts": ("adts", "aac"),
    "mov": ("mov", "pcm_s16le"), "avi": ("avi", "libmp3lame"), "flv": ("flv", "aac"), "ac3": ("ac3", "ac3"),
    "wv": ("wv", "wavpack"),
}  # fmt: skip


def write_media(
    path: Path,
    sounds: np.ndarray | Sequence[np.ndarray],
    rate: int,
    codec: str,
    form: str,
    *,
    late: float = 0.0,
    pause: tuple[float, float] | None = None,
    picture: float = 0.0,
    default: int | None = None,
) -> None:
    """Write one sound track for each of `sounds`: samples (N,), or (N, C) for C of 1 or 2.

    Args:
        path: the file to write; its suffix is not used.
        late: seconds by which the sound begins after time zero.
        pause: a time, and the seconds that the time stamps leave out there.
        picture: seconds of a black picture track that begins at zero; 0 writes none.
        default: index of the track that is marked as default; None leaves the flags to FFmpeg.
    """
    sounds = [sounds] if isinstance(sounds, np.ndarray) else list(sounds)
    with av.open(f"file:{path}", "w", format=form) as container:
        pictures = container.add_stream("mpeg4" if form != "webm" else "libvpx", rate=25) if picture else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        streams = [container.add_stream(codec, rate=rate, layout="mono" if s.ndim == 1 else "stereo") for s in sounds]
        packets: list[Any] = []
        for index, (stream, sound) in enumerate(zip(streams, sounds, strict=True)):
            if default is not None:
                stream.disposition = av.stream.Disposition.default if index == default else av.stream.Disposition(0)
            packets += _encode(stream, sound.reshape(len(sound), -1), rate, late, pause)
        if pictures is not None:
            for index in range(round(25 * picture)):
                frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                packets += pictures.encode(frame)
            packets += pictures.encode(None)
        container.mux(sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)))


def _encode(stream: Any, sound: np.ndarray, rate: int, late: float, pause: tuple[float, float] | None) -> list[Any]:
    stream.codec_context.open(strict=False)
    layout = "mono" if sound.shape[1] == 1 else "stereo"
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(stream.codec_context.format, layout, rate, size)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T, np.float32), "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    packets = []
    for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
        packets += stream.encode(piece)
    for packet in packets:
        time = 0.0 if packet.pts is None else float(packet.pts * packet.time_base)
        shift = round((late + (pause[1] if pause and time >= pause[0] else 0)) / float(packet.time_base))
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift
    return packets


def clicks(rate: int, times: Sequence[float] = (0.5, 1.5), seconds: float = 2.0) -> np.ndarray:
    """Samples (N,) of a quiet tone with loud bursts of 4 ms at `times`."""
    sound = 0.01 * np.sin(2 * np.pi * 200 * np.arange(round(seconds * rate)) / rate)
    burst = 0.8 * np.sin(2 * np.pi * 1500 * np.arange(round(0.004 * rate)) / rate)
    for time in times:
        start = round(time * rate)
        sound[start : start + len(burst)] += burst
    return sound


def find_clicks(samples: np.ndarray, rate: int, count: int = 2) -> list[float]:
    """Times in seconds at which the `count` loudest bursts of samples (N,) begin."""
    left, times = np.abs(samples), []
    for _ in range(count):
        peak = int(np.argmax(left))
        around = left[max(0, peak - rate // 50) : peak + 1]
        times.append((max(0, peak - rate // 50) + int(np.flatnonzero(around > 0.2 * left[peak])[0])) / rate)
        left = left.copy()
        left[max(0, peak - rate // 10) : peak + rate // 10] = 0
    return sorted(times)


def corrupt(path: Path, place: float, size: int = 300) -> None:
    """Overwrite `size` bytes of a file at a share of its length."""
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(content)
