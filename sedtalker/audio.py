"""Reading audio of any format as mono float32 at 16 kHz, and writing WAV.

Container and codec are found from the content, never from the name; `sedtalker.demux` decodes.
"""

from __future__ import annotations

import os
import struct
import warnings
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.demux import MAX_CHANNELS, MAX_SAMPLE, RATES, AudioFile, AudioReport, Channels, decode_file
from sedtalker.errors import AudioError, AudioWarning, as_number, first_line
from sedtalker.files import atomic_write

SAMPLE_RATE = 16_000  # Hz, the rate of every model here
LEVEL_WINDOW = SAMPLE_RATE // 50  # samples, 20 ms
LEVEL_FLOOR = -100.0  # dB of full scale
AUDIBLE_LEVEL = -60.0  # dB of full scale; a recording below it counts as silent
QUIET_LEVEL = -40.0  # dB of full scale, of the loudest 20 ms; below it the mouth opens less than at a usual level
MIN_WIDE_PEAK = 2.0**-8  # of full scale; 32-bit samples with a lower peak are values of fewer bits
MIN_SAMPLES = 400  # 25 ms, one analysis window
CANCELLATION = 0.1  # of the power of the loudest channel alone; in a quieter mix the channels cancel

Samples = NDArray[np.float32]  # (N,) mono, 16 kHz, nominally -1..1
AudioSource = Path | str | AudioFile | tuple[NDArray[Any], int]


def load_audio(source: AudioSource) -> Samples:
    """Samples (N,) of a file, or of `(samples, rate)` with samples (N,), (N, channels) or (channels, N).

    Raises:
        AudioError: as `stream_audio`.

    Warns:
        AudioWarning: as `stream_audio`.
    """
    buffer = bytearray()  # grows in place; concatenating blocks would need twice the memory
    for block in stream_audio(source):
        buffer += block.tobytes()
    return np.frombuffer(buffer, np.float32)


def stream_audio(source: AudioSource, report: AudioReport | None = None) -> Iterator[Samples]:
    """Blocks of one second of a file, or of `(samples, rate)`, in constant memory.

    Channels are averaged, unless they would cancel (see `Downmix`). Integer samples are scaled by the range of their
    type. Pauses of the container and damaged packets become silence of the same length.

    Args:
        source: a path, an `AudioFile` for a certain track, or samples and their rate.
        report: filled while the blocks are read.

    Raises:
        AudioError: the source is missing, empty, not audio, shorter than 25 ms, contains NaN or infinity, or floats on
            the scale of integers.

    Warns:
        AudioWarning: after the last block, if a part was lost by damage, nothing is audible, or channels cancel.
    """
    report = AudioReport("") if report is None else report
    if isinstance(source, (str, Path, AudioFile)):
        report.name, pieces = str(source), _decode_mono(source, report)
    else:
        samples, rate = check_source(source)
        report.name, pieces = "the samples given", _convert_array(samples, rate, report)
    count, level = 0, LEVEL_FLOOR
    for block in split_blocks(pieces, SAMPLE_RATE):
        check_samples(block, report.name)
        level = max(level, float(loudness(block).max()))
        count += len(block)
        yield block
    if count < MIN_SAMPLES:
        raise AudioError(
            f"too short: {report.name} has {count / SAMPLE_RATE * 1000:.1f} ms of sound. "
            f"Give at least {MIN_SAMPLES / SAMPLE_RATE * 1000:.0f} ms"
        )
    notes = [f"{report.name} is read as {report.downmix}"] if "cancel" in report.downmix else []
    for problem in [*find_problems(report, level), *notes]:
        warnings.warn(problem, AudioWarning, stacklevel=2)


def check_samples(samples: NDArray[Any], name: str) -> None:
    """Check that float samples are finite and not on the scale of integers. Raises AudioError if they are not."""
    peak = float(np.maximum(samples.max(initial=0), -samples.min(initial=0)))  # NaN if there is one
    if not np.isfinite(peak):
        raise AudioError(f"samples that are not finite (NaN or infinite): {name}. Export the audio again")
    if peak > MAX_SAMPLE:
        raise AudioError(
            f"float samples on the scale of integers: {name} reaches {peak:.0f}, and floats must be in -1..1. "
            "Divide them by 32768 if they were 16-bit, by 2147483648 if 32-bit"
        )


def find_problems(report: AudioReport, level: float) -> list[str]:
    """One line for each problem of a file that a user should know; empty if it is intact and audible.

    Args:
        report: of the file, complete.
        level: of its loudest 20 ms, dB of full scale.
    """
    problems = []
    if report.lost:
        problems.append(
            f"damaged: {report.name} lost {report.lost_seconds:.2f} s of sound, the first at "
            f"{report.lost[0].start:.2f} s; there is silence instead. Copy it again, or refuse such files with --strict"
        )
    elif report.damaged:
        problems.append(
            f"damaged: {report.name} has {report.damaged} damaged packet{'s' * (report.damaged > 1)}, less than "
            "0.01 s of sound was lost. Copy it again, or refuse such files with --strict"
        )
    if report.missing:
        problems.append(
            f"damaged: {report.name} ends {report.missing:.0f} s before the end that its header declares. Copy it again"
        )
    if report.undeclared:
        problems.append(
            f"wrong length in the header of {report.name}: {report.undeclared:.2f} s of sound follow its end, and were "
            "read too. Save the file again with an audio editor"
        )
    if report.unfilled:
        problems.append(
            f"time stamps of {report.name} jump by {report.unfilled:.2f} s; the parts around were joined. "
            "Check the timing of the result"
        )
    if level < AUDIBLE_LEVEL:
        problems.append(
            f"nothing audible in {report.name}: its loudest 20 ms are at {level:.0f} dB of full scale. "
            "Check the recording, or choose another track with --audio-track"
        )
    elif level < QUIET_LEVEL:
        problems.append(
            f"very quiet: {report.name}, whose loudest 20 ms are at {level:.0f} dB of full scale, so that the mouth "
            f"opens less or stays closed. Make it {-20 - level:.0f} dB louder, or record it again"
        )
    return problems


def loudness(samples: Samples) -> NDArray[np.float32]:
    """Root mean square (T,) of every 20 ms of samples (N,), dB of full scale; the last frame may be shorter."""
    whole = len(samples) // LEVEL_WINDOW * LEVEL_WINDOW
    frames = samples[:whole].reshape(-1, LEVEL_WINDOW)
    power = np.einsum("tn,tn->t", frames, frames) / LEVEL_WINDOW  # needs no array of squares
    if whole < len(samples):
        power = np.append(power, np.square(samples[whole:]).sum() / LEVEL_WINDOW)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), LEVEL_FLOOR).astype(np.float32)


@dataclass
class Inspection:
    """Measurements of an audio file, and the report of its decoding."""

    report: AudioReport
    seconds: float
    peak: float  # largest absolute sample, 1 is full scale
    rms: float  # dB of full scale
    loudest: float  # of the loudest 20 ms, dB of full scale

    @property
    def problems(self) -> list[str]:
        """As `find_problems`."""
        return find_problems(self.report, self.loudest)


def inspect_audio(source: Path | str | AudioFile) -> Inspection:
    """Read a file to its end and measure it. Raises AudioError as `stream_audio`."""
    report = AudioReport("")
    count, power, peak, loudest = 0, 0.0, 0.0, LEVEL_FLOOR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        for block in stream_audio(source, report):
            count += len(block)
            power += float(np.square(block, dtype=np.float64).sum())
            peak = max(peak, float(np.abs(block).max()))
            loudest = max(loudest, float(loudness(block).max()))
    rms = max(LEVEL_FLOOR, 10 * float(np.log10(max(power / count, 1e-12))))
    return Inspection(report, count / SAMPLE_RATE, peak, rms, loudest)


def refuse_damaged(source: Path | str | AudioFile) -> None:
    """Read a file to its end, and raise an error where `stream_audio` would warn.

    Raises:
        AudioError: with the first problem, or as `stream_audio`.
    """
    problems = inspect_audio(source).problems
    if problems:
        raise AudioError(f"refused by --strict: {problems[0]}")


def check_source(source: Any) -> Any:
    """Check a source of `stream_audio` before it is read; returns a path, or `(samples, rate)`.

    `(rate, samples)`, the order of SciPy and Gradio, is recognised by the shapes.

    Raises:
        AudioError: the source has another form, or its samples are not on the scale of their type.
    """
    if isinstance(source, (str, Path, AudioFile)):
        return source
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        kind = type(source).__name__
        raise AudioError(f"audio of type {kind}: give a path, or (samples, rate) with the samples' rate in Hz")
    try:
        samples, rate = np.asarray(source[0]), np.asarray(source[1])
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"samples that are not an array ({first_line(error)}). Give (samples, rate)") from error
    if samples.ndim == 0 and rate.ndim > 0:
        samples, rate = rate, samples
    hertz = as_number(rate.item(), "the sampling rate", AudioError) if rate.ndim == 0 else 0.0
    if samples.ndim not in (1, 2) or not RATES[0] <= hertz <= RATES[1] or not hertz.is_integer():
        raise AudioError(
            f"samples of shape {samples.shape} at {hertz:g} Hz: need (N,) or (N, channels), and whole 1,000 to "
            "1,000,000 Hz"
        )
    if samples.ndim == 2 and min(samples.shape) > MAX_CHANNELS:
        raise AudioError(f"samples of shape {samples.shape}: more than {MAX_CHANNELS} channels. Give (N, channels)")
    if samples.dtype.kind not in "iuf":
        raise AudioError(f"samples of type {samples.dtype}: give floats of -1..1, or integers such as int16")
    if samples.size:
        _check_unit(samples)
    return samples, int(hertz)


def _check_unit(samples: NDArray[Any]) -> None:
    """Check that values are on the scale of their type: floats in about -1..1, 32-bit integers with a high peak."""
    if samples.dtype.kind == "f":
        check_samples(samples, "the samples given")
        return
    middle, full = _integer_range(samples.dtype)
    peak = max(abs(int(samples.max()) - middle), abs(int(samples.min()) - middle))
    if samples.dtype.itemsize > 2 and 0 < peak < MIN_WIDE_PEAK * full:
        raise AudioError(
            f"samples of type {samples.dtype} up to {peak}, but full scale is {full}: values of fewer bits. "
            "Convert them to int16, or to floats of -1..1"
        )


def to_samples(chunk: Any) -> Samples:
    """Convert a chunk (N,) of 16 kHz samples to floats of -1..1.

    Raises:
        AudioError: it is not an array (N,), or not on the scale of its type.
    """
    try:
        samples = np.asarray(chunk)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"a chunk that is not an array ({first_line(error)}). Give samples (N,)") from error
    # of wider integers a quiet chunk looks the same as one of fewer bits
    if samples.ndim != 1 or samples.dtype.kind not in "iuf" or (samples.dtype.kind != "f" and samples.itemsize > 2):
        raise AudioError(
            f"a chunk of shape {samples.shape} and type {samples.dtype}: "
            "give mono samples (N,), floats of -1..1 or int16"
        )
    if samples.size:
        _check_unit(samples)
    return _to_float(samples)


def split_blocks(pieces: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Pieces of any length as blocks of `size` samples; the last is shorter."""
    pending: list[Samples] = []
    for piece in pieces:
        pending.append(piece)
        if sum(map(len, pending)) >= size:
            samples = np.concatenate(pending)
            whole = len(samples) // size * size
            yield from samples[:whole].reshape(-1, size)
            pending = [samples[whole:]]
    if sum(map(len, pending)):
        yield np.concatenate(pending)


class Downmix:
    """Conversion of channels to mono, with constant weights for a whole recording.

    The mean, unless the channels cancel in some second of the recording (one of them is inverted). Then the mean after
    inverting those channels, or the loudest channel alone, whichever cancels least. FFmpeg's own downmix would raise
    the level by 3 dB.
    """

    def __init__(self) -> None:
        self._covariances: dict[int, list[NDArray[np.float32]]] = {}  # channels -> (C, C) of every second
        self._weights: dict[int, Samples | None] = {}

    def add(self, channels: Channels, rate: int) -> None:
        """Add statistics of channels (C, N) of up to a second; call it before the first `mix`."""
        if len(channels) > 1 and channels.shape[1]:
            finite = np.nan_to_num(channels, nan=0, posinf=0, neginf=0).astype(np.float64)
            self._covariances.setdefault(len(channels), []).append((finite @ finite.T / rate).astype(np.float32))

    def mix(self, channels: Channels) -> Samples:
        """Mono samples (N,) of channels (C, N)."""
        count = len(channels)
        if count not in self._weights:
            self._weights[count] = self._choose(count)
        weights = self._weights[count]
        return channels.mean(axis=0, dtype=np.float32) if weights is None else weights @ channels

    def describe(self, count: int) -> str:
        """Description of the mix of `count` channels."""
        weights = self._choose(count)
        if weights is None:
            return f"mean of {count} channels"
        reason = "since the channels cancel in parts of the recording"
        if np.count_nonzero(weights) == 1:
            return f"channel {int(np.argmax(weights)) + 1} of {count} alone, {reason}"
        inverted = ", ".join(str(index + 1) for index in np.flatnonzero(weights < 0))
        return f"mean of {count} channels with channel {inverted} inverted, {reason}"

    def _choose(self, count: int) -> Samples | None:
        """Weights (C,), or None for the mean."""
        seconds = np.array(self._covariances.get(count, []))  # (T, C, C)
        if not len(seconds):
            return None
        loudest = np.einsum("tcc->tc", seconds).max(axis=1)
        seconds, loudest = (part[loudest > 10 ** (AUDIBLE_LEVEL / 10)] for part in (seconds, loudest))
        total = seconds.sum(axis=0, dtype=np.float64)
        power = np.diagonal(total)
        # Channels of equal power differ by the codec's rounding: the first of them keeps its sign.
        reference = int(np.argmax(power > 0.99 * power.max()))
        mean = np.full(count, 1 / count)
        candidates = [mean, np.where(total[reference] < 0, -mean, mean), np.eye(count)[reference]]
        cancellations = [
            np.count_nonzero(np.einsum("c,tcd,d->t", weights, seconds, weights) < CANCELLATION * loudest / count**2)
            for weights in candidates
        ]
        best = int(np.argmin(cancellations))  # the first of equals
        return None if best == 0 else candidates[best].astype(np.float32)


def _decode_mono(source: Path | str | AudioFile, report: AudioReport) -> Iterator[Samples]:
    """A file's samples, mono at 16 kHz, in pieces of any length."""
    file = source if isinstance(source, AudioFile) else AudioFile(source)

    def mix() -> Iterator[tuple[Samples, int]]:
        downmix: Downmix | None = None
        for channels, rate in decode_file(file, report):
            if len(channels) == 1:
                yield channels[0], rate
                continue
            if downmix is None:
                found = Path(file).stat()
                downmix = _find_downmix(file, found.st_ino, found.st_size, found.st_mtime_ns)
                report.downmix = downmix.describe(len(channels))
            yield downmix.mix(channels), rate

    return _resample(mix())


@lru_cache(maxsize=16)
def _find_downmix(file: AudioFile, *identity: int) -> Downmix:
    """The downmix of a file, from all of it; `identity` changes when the file's content does."""
    downmix = Downmix()
    for channels, rate in _join_seconds(decode_file(file, AudioReport(str(file)))):
        downmix.add(channels, rate)
    return downmix


def _join_seconds(pieces: Iterable[tuple[Channels, int]]) -> Iterator[tuple[Channels, int]]:
    """Join pieces to at least a second, as long as their channels and rate do not change."""
    pending: list[Channels] = []
    kind = (0, 0)
    for channels, rate in pieces:
        if pending and ((len(channels), rate) != kind or sum(part.shape[1] for part in pending) >= rate):
            yield np.concatenate(pending, axis=1), kind[1]
            pending = []
        kind = (len(channels), rate)
        pending.append(channels)
    if pending:
        yield np.concatenate(pending, axis=1), kind[1]


def _resample(pieces: Iterable[tuple[Samples, int]]) -> Iterator[Samples]:
    """Mono pieces of any rate -> samples at 16 kHz."""
    import av

    resampler: Any = None
    last = 0
    for samples, rate in pieces:
        if rate != last:
            if resampler is not None:
                yield from (frame.to_ndarray()[0] for frame in resampler.resample(None))
            resampler, last = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE), rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
        frame.sample_rate = rate
        yield from (output.to_ndarray()[0] for output in resampler.resample(frame))
    if resampler is not None:
        yield from (frame.to_ndarray()[0] for frame in resampler.resample(None))


def _convert_array(samples: NDArray[Any], rate: int, report: AudioReport) -> Iterator[Samples]:
    """Samples (N,), (N, C) or (C, N) in memory -> mono at 16 kHz, in pieces of any length."""
    if samples.size == 0:
        return
    channels = np.atleast_2d(samples)
    channels = channels.T if channels.shape[0] > channels.shape[1] else channels
    blocks = [slice(start, start + rate) for start in range(0, channels.shape[1], rate)]
    downmix = Downmix()
    if len(channels) > 1:
        for block in blocks:
            downmix.add(_to_float(channels[:, block]), rate)
        report.downmix = downmix.describe(len(channels))
    mono = (downmix.mix(_to_float(channels[:, block])) for block in blocks)
    yield from mono if rate == SAMPLE_RATE else _resample((block, rate) for block in mono)


def _to_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Convert samples of any type to floats of -1..1."""
    if np.issubdtype(samples.dtype, np.integer):
        middle, full = _integer_range(samples.dtype)
        samples = (samples.astype(np.float64) - middle) / full
    return samples.astype(np.float32)


def _integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Silence and full scale of an integer type: 0 and 32768 of int16, 128 and 128 of uint8."""
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return (low + high + 1) // 2, (high - low + 1) // 2


def write_wav(path: Path, blocks: Iterable[Samples], rate: int = SAMPLE_RATE, comment: str = "") -> None:
    """Write blocks (n,) of samples as 16-bit mono WAV at `rate` Hz, with a comment in its metadata.

    The file appears when it is complete.

    Raises:
        SEDTalkerError: the file cannot be written.
    """
    with atomic_write(path) as temp_path:
        with wave.open(str(temp_path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            for block in blocks:
                file.writeframes(to_int16(block).tobytes())
        if comment:
            _append_comment(temp_path, comment)


def _append_comment(path: Path, comment: str) -> None:
    """Add a RIFF list of information with a comment (ICMT) to a WAV file; the `wave` module cannot."""
    text = comment.encode("ascii") + b"\0"
    text += b"\0" * (len(text) % 2)
    information = b"INFOICMT" + struct.pack("<I", len(text)) + text
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"LIST" + struct.pack("<I", len(information)) + information)
        size = file.tell() - 8  # without the RIFF header
        file.seek(4)
        file.write(struct.pack("<I", size))


def to_int16(samples: Samples) -> NDArray[np.int16]:
    """Convert floats to 16-bit samples; values beyond -1..1 are clipped."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
