"""Audio from clients: PCM of any rate, or a container that grows, as 16 kHz samples; and checks of posted files."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, check_samples
from sedtalker.errors import AudioError
from sedtalker.serve.config import Limits

Float = NDArray[np.float32]

RATES = (8_000, 144_000)  # Hz
ENCODINGS = ("pcm16", "webm", "ogg")
_CONTAINERS = {"webm": "matroska", "ogg": "ogg"}  # encoding -> FFmpeg's demuxer
_PIECES = 64  # pieces of a container that wait for the decoder
_FLUSH = 10.0  # s for the decoder to finish

_SIGNATURES = (  # start of the file -> media; playlists and scripts, which can name other files, are not among them
    (0, b"RIFF"), (0, b"RIFX"), (0, b"RF64"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (0, b"\x1a\x45\xdf\xa3"),
    (4, b"ftyp"), (0, b"FORM"), (0, b"caff"), (0, b".snd"),
)  # fmt: skip


def check_rate(rate: Any) -> int:
    """A sample rate in Hz. Raises AudioError if it is none."""
    if isinstance(rate, bool) or not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"a sample rate of {rate!r:.20}: give {RATES[0]} to {RATES[1]} Hz as a whole number")
    return rate


def is_media(start: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a sound or video file."""
    if any(start[place : place + len(mark)] == mark for place, mark in _SIGNATURES):
        return True
    return len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0  # MPEG audio or ADTS


class PcmReader:
    """16-bit little-endian mono PCM in pieces of any size -> samples at 16 kHz."""

    def __init__(self, rate: int) -> None:
        self._rate = check_rate(rate)
        self._start()

    def _start(self) -> None:
        self._rest = b""
        self._resampler: Any = None
        if self._rate != SAMPLE_RATE:
            import av

            self._resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)

    def push(self, data: bytes) -> Float:
        """The next samples (N,)."""
        data = self._rest + data
        whole = len(data) & ~1
        self._rest = data[whole:]
        values = np.frombuffer(data[:whole], "<i2")
        if self._resampler is None:
            return values.astype(np.float32) / np.float32(32768)
        return self._resample(values)

    def finish(self) -> Float:
        """The samples (N,) that the resampler holds; the next ones are of another utterance."""
        rest = _join_frames([] if self._resampler is None else self._resampler.resample(None))
        self._start()  # a flushed resampler takes no more frames
        return rest

    def _resample(self, values: NDArray[np.int16]) -> Float:
        import av

        if not len(values):
            return np.zeros(0, np.float32)
        frame = av.AudioFrame.from_ndarray(values[None].astype(np.int16), "s16", "mono")
        frame.sample_rate = self._rate
        return _join_frames(self._resampler.resample(frame))

    def close(self) -> None:
        """As `ContainerReader.close`: nothing is open."""


def _join_frames(frames: Iterable[Any]) -> Float:
    return _join(frame.to_ndarray()[0] for frame in frames)


def _join(pieces: Iterable[Float]) -> Float:
    return np.concatenate([np.zeros(0, np.float32), *pieces])


class ContainerReader:
    """WebM or Ogg in pieces, as a browser's MediaRecorder makes them -> samples at 16 kHz. Decodes in a thread."""

    def __init__(self, encoding: str, limits: Limits) -> None:
        """`limits.utterance` bounds what is decoded (a megabyte of silence can be an hour), `upload_bytes` the data."""
        self._format, self._limits = _CONTAINERS[encoding], limits
        self._input: queue.Queue[bytes | None] = queue.Queue(_PIECES)
        self._output: queue.SimpleQueue[Float | AudioError | None] = queue.SimpleQueue()
        self._rest = b""
        self._bytes = 0  # received
        self._ended = False
        self._thread = threading.Thread(target=self._decode, name="container", daemon=True)
        self._thread.start()

    def push(self, data: bytes) -> Float:
        """The samples (N,) that are decoded by now. Raises AudioError for damaged data, or too much of it."""
        self._bytes += len(data)
        if self._bytes > self._limits.upload_bytes:  # FFmpeg keeps attachments in memory
            raise AudioError(f"more than {self._limits.upload_bytes >> 20} MB in an utterance. End it earlier")
        try:
            self._input.put(data, timeout=_FLUSH)
        except queue.Full:
            raise AudioError("the decoder is behind. Send the audio more slowly") from None
        return self._take()

    def finish(self) -> Float:
        """The rest of the samples (N,); call it in a thread."""
        pieces = []
        try:
            self._input.put(None, timeout=_FLUSH)
            while (piece := self._output.get(timeout=_FLUSH)) is not None:
                pieces.append(_check_decoded(piece))
        except (queue.Full, queue.Empty):
            raise AudioError("the decoder is behind. Send the audio more slowly") from None
        return _join(pieces)

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        with suppress(queue.Full):  # then it reads a piece, and sees that it must end
            self._input.put_nowait(None)

    def _take(self) -> Float:
        pieces = []
        while not self._output.empty():
            piece = self._output.get()
            if piece is not None:
                pieces.append(_check_decoded(piece))
        return _join(pieces)

    def read(self, size: int) -> bytes:
        """For FFmpeg: at most `size` bytes, none at the end."""
        while not self._rest:
            piece = None if self._ended else self._input.get()
            if piece is None:
                self._ended = True
                return b""
            self._rest = piece
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def _decode(self) -> None:
        import av

        try:
            with av.open(
                self, "r", format=self._format, options={"probesize": "512", "analyzeduration": "0"}
            ) as source:
                count, seconds = 0, self._limits.utterance
                for samples in self._samples(source):
                    count += len(samples)
                    if count > seconds * SAMPLE_RATE:
                        raise AudioError(f"more than {seconds:g} s of audio in an utterance. End it earlier")
                    check_samples(samples, "the recording")
                    self._output.put(samples)
        except AudioError as error:
            self._output.put(error)
        except (av.FFmpegError, ValueError, IndexError) as error:
            self._output.put(AudioError(f"not {self._format} audio ({error}). Start a new recording"))
        self._output.put(None)

    def _samples(self, source: Any) -> Iterator[Float]:
        """Samples (n,) at 16 kHz of the first audio track."""
        import av

        if not source.streams.audio:
            raise ValueError("no audio track")
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        for frame in source.decode(source.streams.audio[0]):
            check_rate(frame.sample_rate)  # a frame at 1 Hz would become gigabytes
            for part in resampler.resample(frame):
                yield part.to_ndarray()[0].copy()


def _check_decoded(piece: Float | AudioError) -> Float:
    """Samples (N,) of the decoder; raises its error."""
    if isinstance(piece, AudioError):
        raise piece
    return piece


async def push_audio(reader: PcmReader | ContainerReader, data: bytes) -> Float:
    """`push` of a reader, in a thread where it can wait."""
    if isinstance(reader, PcmReader):
        return reader.push(data)
    return await asyncio.to_thread(reader.push, data)


async def finish_audio(reader: PcmReader | ContainerReader) -> Float:
    """`finish` of a reader, in a thread where it can wait."""
    if isinstance(reader, PcmReader):
        return reader.finish()
    return await asyncio.to_thread(reader.finish)
