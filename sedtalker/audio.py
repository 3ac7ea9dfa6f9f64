"""Any audio file -> mono float32 at 16 kHz, and the one kind of file that is written.

The container and codec are told from the content, never from the name; FFmpeg (inside PyAV's wheel) decodes.
"""

from __future__ import annotations

import os
import struct
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import AudioError
from sedtalker.files import written_whole

SAMPLE_RATE = 16_000  # Hz, the rate of every model here
LOUDEST = 1e6  # more than any float recording that was scaled like integers
MIN_SAMPLES = 400  # 25 ms, one analysis window; less holds no speech

Samples = NDArray[np.float32]  # (N,) mono, 16 kHz, nominally -1..1
AudioSource = Path | str | tuple[NDArray[Any], int]


def load_audio(source: AudioSource) -> Samples:
    """Samples (N,) of a file, or of `(samples, rate)` with samples (N,), (N, channels) or (channels, N).

    Raises:
        AudioError: as `stream_audio`.
    """
    held = bytearray()  # it grows in place: blocks and their sum would be there twice
    for block in stream_audio(source):
        held += block.tobytes()
    return np.frombuffer(held, np.float32)


def stream_audio(source: AudioSource) -> Iterator[Samples]:
    """The samples of a file, or of `(samples, rate)`, in blocks of a second, in flat memory.

    Channels are averaged. Integer samples are scaled by their type's range.

    Raises:
        AudioError: missing, empty, not audio, shorter than 25 ms, or with samples that are not finite.
    """
    name, pieces = (
        ("the samples given", _resampled(*source)) if isinstance(source, tuple) else (str(source), _decoded(source))
    )
    count = 0
    for block in _of_a_second(pieces):
        if not (np.abs(block) < LOUDEST).all():
            raise AudioError(f"samples that are no numbers, or absurdly large: {name}. Export the audio again")
        count += len(block)
        yield block
    if count < MIN_SAMPLES:
        raise AudioError(
            f"too short: {name} holds {count / SAMPLE_RATE * 1000:.1f} ms of sound. "
            f"Give at least {MIN_SAMPLES / SAMPLE_RATE * 1000:.0f} ms"
        )


def _of_a_second(pieces: Iterable[Samples]) -> Iterator[Samples]:
    held: list[Samples] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= SAMPLE_RATE:
            joined = np.concatenate(held)
            whole = len(joined) // SAMPLE_RATE * SAMPLE_RATE
            yield from joined[:whole].reshape(-1, SAMPLE_RATE)
            held = [joined[whole:]]
    rest = np.concatenate(held) if held else np.zeros(0, np.float32)
    if len(rest):
        yield rest


def _decoded(path: Path | str) -> Iterator[Samples]:
    """The sound of a file, mono at 16 kHz, in pieces of any length."""
    import av

    path = Path(path)
    if path.is_dir():
        raise AudioError(f"a folder, not an audio file: {path}. Name the files in it")
    if not path.exists():
        raise AudioError(f"no such audio file: {path}. Check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"empty file: {path}. Record or copy it again")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"no sound track: {path}. Give a file with audio")
            for frames in _mono_frames(container):
                for frame in frames:
                    yield frame.to_ndarray()[0]
    except av.error.FFmpegError as error:
        raise AudioError(
            f"cannot read as audio: {path} ({error.strerror}). Give wav, flac, mp3, ogg, m4a ..."
        ) from error
    except OSError as error:
        raise AudioError(f"cannot open: {path} ({error.strerror}). Check its permissions") from error


def _mono_frames(container: Any) -> Iterator[list[Any]]:
    import av

    stream = container.streams.audio[0]
    # Packed floats: PyAV's arrays of more than seven planes are unsafe.
    to_float = av.AudioResampler(format="flt")
    to_rate = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    for frame in container.decode(stream):
        frame.pts = None
        for packed in to_float.resample(frame):
            channels = packed.to_ndarray().reshape(packed.samples, -1).T
            yield to_rate.resample(_mono_frame(channels, packed.sample_rate))
    yield to_rate.resample(None)


def _mono_frame(channels: NDArray[np.float32], rate: int) -> Any:
    """One frame holding the mean of channels (C, N); FFmpeg's own downmix would raise the level by 3 dB."""
    import av

    mono = np.ascontiguousarray(channels.mean(axis=0, keepdims=True, dtype=np.float32))
    frame = av.AudioFrame.from_ndarray(mono, format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame


def _resampled(samples: NDArray[Any], rate: int) -> Iterator[Samples]:
    """Samples in memory, mono at 16 kHz, in pieces of any length."""
    import av

    samples, rate = np.asarray(samples), int(rate)
    if samples.ndim not in (1, 2) or not 1000 <= rate <= 1_000_000:
        raise AudioError(
            f"samples of shape {samples.shape} at {rate} Hz: need (N,) or (N, channels), and 1,000 to 1,000,000 Hz"
        )
    if samples.size == 0:
        return
    channels = np.atleast_2d(samples)
    channels = channels.T if channels.shape[0] > channels.shape[1] else channels
    to_rate = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    for start in range(0, channels.shape[1], rate):
        block = _scaled(channels[:, start : start + rate])
        if rate == SAMPLE_RATE:
            yield block.mean(axis=0, dtype=np.float32)
        else:
            yield from (frame.to_ndarray()[0] for frame in to_rate.resample(_mono_frame(block, rate)))
    if rate != SAMPLE_RATE:
        yield from (frame.to_ndarray()[0] for frame in to_rate.resample(None))


def _scaled(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any type as floats of -1..1."""
    if np.issubdtype(samples.dtype, np.integer):
        low, high = np.iinfo(samples.dtype).min, np.iinfo(samples.dtype).max
        samples = (samples.astype(np.float64) - (low + high + 1) // 2) / ((high - low + 1) // 2)
    return samples.astype(np.float32)


def write_wav(path: Path, blocks: Iterable[Samples], rate: int = SAMPLE_RATE, comment: str = "") -> None:
    """Write blocks (n,) of samples as 16-bit mono at `rate` Hz, whole or not at all; `comment` goes into its metadata.

    Raises:
        SEDTalkerError: the file cannot be written.
    """
    with written_whole(path) as aside:
        with wave.open(str(aside), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            for block in blocks:
                file.writeframes(as_integers(block).tobytes())
        if comment:
            _append_comment(aside, comment)


def _append_comment(path: Path, comment: str) -> None:
    """Add a RIFF list of information with a comment (ICMT) to a WAV file."""
    text = comment.encode("ascii") + b"\0"
    text += b"\0" * (len(text) % 2)
    information = b"INFOICMT" + struct.pack("<I", len(text)) + text
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"LIST" + struct.pack("<I", len(information)) + information)
        size = file.tell() - 8  # of what follows the RIFF header
        file.seek(4)
        file.write(struct.pack("<I", size))


def as_integers(samples: Samples) -> NDArray[np.int16]:
    """The nearest 16-bit samples; what is louder than 1 is clipped."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
