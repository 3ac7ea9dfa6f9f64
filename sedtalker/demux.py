"""Decoding a sound track with the timing of its container: choice of the track, pauses, damage. FFmpeg (PyAV) decodes.

Time stamps of the container place each frame. Gaps become silence, so that the result is as long as the recording.
Samples that a codec adds before time zero (priming) are dropped.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import AudioError, first_line, reason_of

GAP = 0.04  # s; shorter gaps are rounding and jitter of time stamps, and below a video frame
EXACT_GAP = 0.002  # s; the same at the start and after a damaged packet; Matroska rounds to 1 ms
MAX_BACKWARD = 1.0  # s; time stamps that step back by more belong to another clock
MAX_SILENCE = 3600.0  # s, total length of the gaps that are filled; more is a wrong time stamp
READ_ERRORS = 4  # consecutive read errors after which the rest of a file is skipped
UNREAD = 1024  # bytes between two packets; more than headers of the container
MAX_CHANNELS = 64
RATES = (1_000, 1_000_000)  # Hz; a lower rate is a damaged header, and would become hours of sound
MAX_SAMPLE = 16.0  # +24 dB of headroom for floats; 16-bit integers below it are at -66 dB, inaudible

Channels = NDArray[np.float32]  # (C, N)

_DECLARED_DURATION = {
    "matroska",
    "webm",
    "mov",
    "mp4",
    "flac",
    "w64",
    "aiff",
    "caf",
    "ogg",
    "tta",
}  # duration in the header
_OWN_ORIGIN = {"matroska", "webm", "mov", "mp4", "avi"}  # time begins at 0, not at the first packet
_NO_PAUSES = {"flac", "mp3", "aac", "wav", "w64", "aiff", "caf", "au", "ac3", "eac3", "tta", "wv", "ogg"}
_CHECKSUMS = {"flac", "wavpack", "tta"}  # codecs whose decoders check frames on request
_FRAMES_ALONE = {"mp3", "aac", "ac3", "eac3", "wv"}  # frames without a container; tags can follow them
_MP3_RATES = {
    (version, number): rate // divisor
    for version, divisor in ((3, 1), (2, 2), (0, 4))
    for number, rate in enumerate((44_100, 48_000, 32_000))
}  # Hz, by the bits of the version and of the rate in the header of a frame
_TAG = re.compile(rb"[ -~]{4}|ID3|TAG")  # of a RIFF chunk or an ID3 tag
_RESYNC = {"matroska", "webm", "mpegts"}  # FFmpeg skips damaged bytes of these without an error


@dataclass(frozen=True)
class AudioFile:
    """A media file and the number of a sound track, from 1; None is the default track of the container."""

    path: Path | str
    track: int | None = None

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class SoundTrack:
    """One sound track of a container."""

    number: int  # from 1
    codec: str
    rate: int  # Hz; 0 if unknown
    channels: int
    default: bool
    language: str  # ISO 639, empty if unknown


@dataclass(frozen=True)
class Span:
    """A silent span, in seconds of the result."""

    start: float
    seconds: float


@dataclass
class AudioReport:
    """Report of the decoding of a file, complete after its last frame."""

    name: str
    container: str = ""
    tracks: list[SoundTrack] = field(default_factory=list)
    chosen: int = 0  # number of the decoded track
    start: float = 0.0  # s, time of the first sample
    pauses: list[Span] = field(default_factory=list)  # gaps of the time stamps, filled with silence
    lost: list[Span] = field(default_factory=list)  # damaged spans, filled with silence
    unfilled: float = 0.0  # s of gaps that were too long to fill
    damaged: int = 0  # packets that could not be decoded, and read errors
    decoded: int = 0  # packets that were decoded
    downmix: str = "mono"  # description of the conversion to mono
    missing: float = 0.0  # s between the end of the file and the end in its header
    undeclared: float = 0.0  # s of sound after the end that the header of a WAV file declares

    @property
    def lost_seconds(self) -> float:
        """Seconds lost by damage."""
        return sum(span.seconds for span in self.lost)


def check_file(path: Path) -> None:
    """Check that a path is a regular, readable file with content.

    Raises:
        AudioError: it is not; with the reason.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise AudioError(f"no such audio file: {path}. Check the path") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot open: {path} ({reason_of(error)}). Check the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise AudioError(f"a folder, not an audio file: {path}. Name the files in it")
    if not stat.S_ISREG(found.st_mode):
        raise AudioError(f"a pipe or device, not a file: {path}. Audio is read twice: save it to a file first")
    if found.st_size == 0:
        raise AudioError(f"empty file: {path}. Record or copy it again")


def _open_container(path: Path, options: dict[str, str]) -> Any:
    """Open a media file, also if its metadata is not UTF-8."""
    import av

    try:
        return av.open(ffmpeg_name(path), options=options, metadata_errors="replace")
    except TypeError:  # since PyAV 19, which always replaces
        return av.open(ffmpeg_name(path), options=options)


def ffmpeg_name(path: Path | str) -> str:
    """A path as a `file:` address of FFmpeg, which reads a name with a colon as another protocol otherwise."""
    return f"file:{path}"


def decode_file(file: AudioFile, report: AudioReport) -> Iterator[tuple[Channels, int]]:
    """Yield a track as floats (C, N) and their rate in Hz, with gaps filled by silence.

    Raises:
        AudioError: not a media file, no such track, no audio track, or more packets damaged than decoded.
    """
    import av

    path = Path(file)
    check_file(path)
    report.undeclared = _find_undeclared_sound(path)
    options = {"protocol_whitelist": "file", "ignore_length": str(int(report.undeclared > 0))}
    try:
        with _open_container(path, options) as container:
            stream = _choose_track(container, file, report)
            yield from _Timeline(path, container, stream, report).decode()
    except av.error.FFmpegError as error:
        if _lacks_index(path):
            raise AudioError(
                f"incomplete: {path} has no index (moov box), since the recording or a copy of it was stopped. "
                "Copy it again, or repair it with a tool for MP4 files"
            ) from error
        raise AudioError(
            f"cannot read as audio: {path} ({error.strerror}). Give wav, flac, mp3, ogg, m4a ..."
        ) from error
    except OSError as error:
        raise AudioError(f"cannot open: {path} ({error.strerror}). Check its permissions") from error
    except (ValueError, RuntimeError, OverflowError, MemoryError) as error:  # from PyAV, for invalid headers
        raise AudioError(
            f"cannot read as audio: {path} ({first_line(error)}). Give wav, flac, mp3, ogg, m4a ..."
        ) from error
    if report.damaged > report.decoded:
        raise AudioError(
            f"cannot read as audio: {path} ({report.damaged} of {report.damaged + report.decoded} packets are "
            "damaged). Copy it again"
        )


def _choose_track(container: Any, file: AudioFile, report: AudioReport) -> Any:
    """The stream of the given track, or the default one, or the first that can be decoded."""
    streams = list(container.streams.audio)
    if not streams:
        raise AudioError(f"no audio track: {file}. Give a file with audio")
    report.container = container.format.name
    report.tracks = [_describe_track(number, stream) for number, stream in enumerate(streams, 1)]
    if file.track is not None:
        if not 1 <= file.track <= len(streams):
            raise AudioError(f"no audio track {file.track}: {file} has {len(streams)}. Give --audio-track 1 ...")
        order = [file.track - 1]
    else:
        order = sorted(range(len(streams)), key=lambda index: not report.tracks[index].default)
    for index in order:
        if _can_decode(streams[index]):
            report.chosen = index + 1
            return streams[index]
    codecs = ", ".join(report.tracks[index].codec for index in order)
    raise AudioError(f"no decoder for the audio ({codecs}): {file}. Convert it to wav, flac or m4a")


def _describe_track(number: int, stream: Any) -> SoundTrack:
    context = stream.codec_context
    return SoundTrack(
        number,
        "unknown" if context is None else context.name,
        0 if context is None else context.sample_rate or 0,
        0 if context is None else context.channels or 0,
        _has_disposition(stream, "default"),
        stream.metadata.get("language", "").replace("und", ""),
    )


def _has_disposition(stream: Any, name: str) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition[name])


def _can_decode(stream: Any) -> bool:
    import av

    if stream.codec_context is None:
        return False
    if stream.codec_context.name in _CHECKSUMS:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}  # otherwise a damaged frame becomes noise
    try:
        stream.codec_context.open(strict=False)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


@dataclass(frozen=True)
class _WavData:
    """The chunk of a RIFF WAVE file with the samples, as its header declares it."""

    start: int  # byte of the first sample
    size: int  # bytes
    rate: int  # bytes a second; 0 if unknown

    @property
    def has_length(self) -> bool:
        """Whether the header has a length, which files written to a pipe lack."""
        return self.rate > 0 and 0 < self.size < 0x7FFF0000


def _find_wav_data(path: Path) -> _WavData | None:
    """The data chunk of a RIFF WAVE file; None for other files."""
    rate = 0
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                return _WavData(file.tell(), size, rate)
            if name == b"fmt " and size >= 16:
                rate = int.from_bytes(file.read(12)[8:], "little")
                size -= 12
            file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _find_undeclared_sound(path: Path) -> float:
    """Seconds of sound after the end that the header of a WAV file declares; 0 if other chunks or tags follow it.

    The header is too short if a recorder was stopped, or if the file exceeds 4 GiB.
    """
    try:
        data = _find_wav_data(path)
        if data is None or not data.has_length:
            return 0.0
        end = data.start + data.size
        seconds = (path.stat().st_size - end) / data.rate
        if seconds <= GAP:
            return 0.0
        with path.open("rb") as file:
            file.seek(end)
            rest = file.read(1 << 16)
    except OSError:
        return 0.0
    tagged = any(_TAG.match(rest, pad) for pad in (0, 1))  # chunks begin at even positions, tags anywhere
    return 0.0 if tagged or not rest.strip(b"\0") else seconds


def _find_sound_end(path: Path) -> int:
    """Byte at which the frames of a file without a container end; ID3, APE and Lyrics3 tags and zeros can follow."""
    end = path.stat().st_size
    with path.open("rb") as file:
        while end > 0:
            file.seek(max(0, end - 4096))
            tail = file.read(min(end, 4096))
            size, start = _size_of_tag(tail)
            file.seek(max(0, end - size))
            if size == 0 or size > end or file.read(len(start)) != start:
                size = _size_of_padding(tail)
            if size == 0:
                break
            end -= size
    return end


def _size_of_tag(tail: bytes) -> tuple[int, bytes]:
    """Size in bytes of the tag at the end of `tail`, and the bytes with which it starts; 0 if there is none."""
    if tail[-128:-125] == b"TAG" and tail[-131:-123] != b"APETAGEX":
        return 128, b"TAG"
    if tail[-32:-24] == b"APETAGEX":
        size, _, flags = struct.unpack("<3I", tail[-20:-8])
        return (size + 32, b"APETAGEX") if flags >> 31 else (size, b"")  # with or without a header
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15, b"LYRICSBEGIN"
    if tail[-10:-7] == b"3DI":
        return 20 + _synchsafe(tail[-4:]), b"ID3"
    return 0, b""


def _find_mp3_duration(path: Path) -> float | None:
    """Seconds by the number of frames in a LAME header (first frame of the file); None if there is none.

    FFmpeg ignores that number where tags follow the sound, and counts their bytes as sound.
    """
    with path.open("rb") as file:
        tag = file.read(10)
        if tag[:3] != b"ID3":
            file.seek(0)
        else:
            file.seek(10 + _synchsafe(tag[6:]))
        head = file.read(256)
    found = re.search(rb"(?:Xing|Info)\0\0\0(.)(.{4})", head, re.DOTALL)
    if len(head) < 256 or head[0] != 0xFF or found is None or not found[1][0] & 1:
        return None
    lame = found.start() + 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if found[1][0] & bit)
    if head[lame : lame + 4] not in (b"LAME", b"Lavf", b"Lavc"):
        return None
    padding = int.from_bytes(head[lame + 21 : lame + 24], "big")
    rate = _MP3_RATES.get((head[1] >> 3 & 3, head[2] >> 2 & 3))
    if rate is None:
        return None
    count = int.from_bytes(found[2], "big") * (1152 if head[1] >> 3 & 3 == 3 else 576)
    return max(0, count - (padding >> 12) - (padding & 0xFFF)) / rate


def _size_of_padding(tail: bytes) -> int:
    """Zeros at the end of `tail` that are not the end of a tag."""
    end = len(tail.rstrip(b"\0"))
    if end == 0 and len(tail) > 128:
        return len(tail) - 128  # the rest can be of a tag
    for mark, size in ((b"APETAGEX", 32), (b"TAG", 128)):
        start = tail.rfind(mark, max(0, end - size), end)
        if 0 <= start <= len(tail) - size:
            return len(tail) - start - size
    return len(tail) - end


def _synchsafe(size: bytes) -> int:
    """The size in an ID3 header: four bytes of seven bits."""
    return sum(byte << 7 * place for place, byte in enumerate(reversed(size)))


def _is_cut_riff(path: Path) -> bool:
    """Whether a RIFF file, such as AVI, ends before the end of its first RIFF chunk."""
    with path.open("rb") as file:
        head = file.read(8)
    return head[:4] == b"RIFF" and 8 + int.from_bytes(head[4:], "little") > path.stat().st_size + 1


def _lacks_index(path: Path) -> bool:
    """Whether a file of the MP4 family has no `moov` box."""
    try:
        with path.open("rb") as file:
            position, kinds = 0, []
            while len(head := file.read(16)) >= 8:
                size, kind = struct.unpack(">I4s", head[:8])
                kinds.append(kind)
                if size == 1 and len(head) == 16:
                    size = int.from_bytes(head[8:], "big")
                if kind == b"moov" or size < 8:
                    break
                position += size
                file.seek(position)
    except OSError:
        return False
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds


class _Timeline:
    """Decoder of one track that places frames by their time stamps."""

    def __init__(self, path: Path, container: Any, stream: Any, report: AudioReport) -> None:
        self._path = path
        self._container, self._stream, self._report = container, stream, report
        self._formats = set(container.format.name.split(","))
        self._origin = self._find_origin()
        self._declared = self._find_duration()
        self._position = 0.0  # s, end of the output so far
        self._offset = 0.0  # s, correction of time stamps after a jump of their clock
        self._silence = 0.0  # s, silence filled in so far
        self._damage = False  # damage since the last frame
        self._failed_end = 0.0  # s, end of the packets that could not be decoded
        self._failed = 0  # packets since the last frame that could not be decoded
        self._sound_end = _find_sound_end(path) if self._formats & _FRAMES_ALONE else None  # byte
        self._seen_end = 0.0  # s, end of all packets
        self._picture_end = 0.0  # s, end of the video packets
        self._page = (0, 0)  # position in the file, and bytes read from it on
        self._format: tuple[int, int] | None = None  # channels and rate of the last frame
        self._to_float: tuple[Any, Any] | None = None

    def _find_origin(self) -> float:
        """The container's time, in seconds, at which the recording begins."""
        start = (self._container.start_time or 0) / 1e6
        duration = (self._container.duration or 0) / 1e6
        if self._formats & _OWN_ORIGIN and start < max(duration, EXACT_GAP):
            return 0.0  # otherwise it is a part of a longer stream
        return start

    def _find_duration(self) -> float | None:
        """Duration in the file's header, in seconds; None if FFmpeg estimates it."""
        if "wav" in self._formats:
            data = _find_wav_data(self._path)
            return data.size / data.rate if data and data.has_length and not self._report.undeclared else None
        if "mp3" in self._formats:
            return _find_mp3_duration(self._path)
        duration = self._container.duration
        cut = "avi" in self._formats and _is_cut_riff(self._path)  # FFmpeg's duration is wrong for some complete AVI
        if not duration or duration <= 0 or not (self._formats & _DECLARED_DURATION or cut):
            return None
        return float(duration / 1e6)

    def decode(self) -> Iterator[tuple[Channels, int]]:
        """Yield floats (C, N) and their rate in Hz."""
        for packet in self._packets():
            for frame in self._decode_packet(packet):
                yield from self._place(frame)
        for frame in self._decode_packet(None):
            yield from self._place(frame)
        yield from self._fill_end()

    def _packets(self) -> Iterator[Any]:
        """Packets of the decoded track; packets of the other streams give the end of the file."""
        import av

        errors = 0
        while errors < READ_ERRORS:
            try:
                for packet in self._container.demux():
                    if packet.size == 0 and packet.dts is None:  # end of the file
                        continue
                    errors = 0
                    if self._sound_end is not None and (packet.pos or 0) >= self._sound_end:
                        continue
                    self._note_end(packet)
                    if packet.stream.index == self._stream.index:
                        yield packet
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                if self._sound_end is not None and sum(self._page) >= self._sound_end:
                    return
                errors += 1
                self._note_damage()

    def _note_end(self, packet: Any) -> None:
        """Update the ends, and detect bytes that FFmpeg skipped."""
        if packet.pos is not None and packet.pos >= 0:
            page, read = self._page
            if packet.pos == page:
                self._page = (page, read + packet.size)
            else:
                if self._formats & _RESYNC and page and packet.pos - page - read > UNREAD + read // 10:
                    self._damage = True  # so that a gap in the time stamps counts as lost
                self._page = (packet.pos, packet.size)
        if packet.pts is None or packet.stream.type not in ("audio", "video"):
            return
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._origin + self._offset
        self._seen_end = max(self._seen_end, end)
        if packet.stream.type == "video" and not _has_disposition(packet.stream, "attached_pic"):
            self._picture_end = max(self._picture_end, end)

    def _note_damage(self) -> None:
        self._report.damaged += 1
        self._damage = True

    def _decode_packet(self, packet: Any) -> list[Any]:
        import av

        try:
            frames = list(self._stream.codec_context.decode(packet))
        except av.error.EOFError:
            return []
        except (av.error.FFmpegError, ValueError):
            if packet is not None:
                self._note_damage()
                self._failed += 1
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._failed_end = end - self._origin + self._offset
            return []
        if packet is not None:
            # the last packet of a WAV file without length is shorter than FFmpeg expects
            if packet.is_corrupt and not ("wav" in self._formats and self._declared is None):
                self._note_damage()
            self._report.decoded += 1
        return [frame for frame in frames if frame.samples and frame.sample_rate]

    def _place(self, frame: Any) -> Iterator[tuple[Channels, int]]:
        """The frame, after silence for a gap before it, and without samples before time zero."""
        stamp = None if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)
        channels, rate = self._to_floats(frame)
        self._format = (len(channels), rate)
        if stamp is not None:
            time = stamp - self._origin + self._offset
            gap = time - self._position
            first = self._position == 0
            if first and gap > 0 and self._formats & _NO_PAUSES and not self._damage:
                self._origin += gap  # priming of a codec such as Vorbis: time zero is the first sample
                self._declared = None if self._declared is None else self._declared - gap
            elif first and -MAX_BACKWARD < time < 0:
                channels = channels[:, round(-time * rate) :]
            elif gap > (EXACT_GAP if first or self._damage else GAP) and self._is_plausible(time, gap):
                yield from self._fill(gap, lost=self._damage or bool(self._formats & _NO_PAUSES))
            elif gap > GAP or gap < -MAX_BACKWARD:
                self._offset -= gap
                self._report.unfilled += abs(gap) if not first else 0
            if first:
                self._report.start = self._position
                self._report.pauses.clear()
        if self._is_garbage(channels):
            self._report.damaged += 1
            self._report.lost.append(Span(self._position, channels.shape[1] / rate))
            channels = np.zeros_like(channels)
        self._damage, self._failed = False, 0
        if channels.shape[1]:
            self._position += channels.shape[1] / rate
            yield channels, rate

    def _is_garbage(self, channels: Channels) -> bool:
        """Whether a lossy codec decoded a damaged packet to samples far beyond full scale; PCM can hold such values."""
        lossy = not self._stream.codec_context.name.startswith(("pcm_", "wavpack"))
        return lossy and not float(np.abs(channels).max(initial=0)) <= MAX_SAMPLE

    def _is_plausible(self, time: float, gap: float) -> bool:
        """Whether a gap up to `time` can be a pause and not a wrong time stamp."""
        within = self._declared is None or time <= self._declared + 1
        return within and self._silence + gap <= MAX_SILENCE

    def _fill(self, seconds: float, lost: bool) -> Iterator[tuple[Channels, int]]:
        """Silence, in blocks of up to a second."""
        assert self._format is not None
        count, rate = self._format
        (self._report.lost if lost else self._report.pauses).append(Span(self._position, seconds))
        self._silence += seconds
        remaining = round(seconds * rate)
        self._position += remaining / rate
        while remaining > 0:
            size = min(remaining, rate)
            yield np.zeros((count, size), np.float32), rate
            remaining -= size

    def _fill_end(self) -> Iterator[tuple[Channels, int]]:
        """Silence up to the end of the header's duration, of the video or of a failed packet."""
        if self._format is None:
            return
        if self._sound_end is not None and self._declared is not None and self._position >= self._declared - GAP:
            self._report.damaged -= self._failed  # other content than sound follows the last frame
            return
        damaged = self._damage or bool(self._report.damaged or self._report.lost)
        end = self._picture_end
        if self._damage:
            end = max(end, self._failed_end)
        cut = False
        if self._declared is not None and self._offset == 0:
            cut = self._declared - self._seen_end > GAP
            if cut or damaged:
                end = max(end, self._declared)
        gap = end - self._position
        if gap > (EXACT_GAP if damaged else GAP):
            if self._silence + gap <= MAX_SILENCE:
                yield from self._fill(gap, lost=cut or damaged)
            else:
                self._report.missing = gap

    def _to_floats(self, frame: Any) -> tuple[Channels, int]:
        """The frame's samples (C, N) in -1..1, and their rate in Hz."""
        import av

        count = frame.layout.nb_channels
        if not 1 <= count <= MAX_CHANNELS:
            raise ValueError(f"{count} channels")
        if not RATES[0] <= frame.sample_rate <= RATES[1]:
            raise ValueError(f"a sampling rate of {frame.sample_rate} Hz")
        kind = (frame.format.name, frame.layout.name, count, frame.sample_rate)
        if self._to_float is None or self._to_float[0] != kind:
            # Packed floats, because arrays of more than seven planes are unsafe in PyAV.
            self._to_float = (kind, av.AudioResampler(format="flt"))
        rate = frame.sample_rate
        frame.pts = None  # otherwise the resampler would fill gaps too
        pieces = [packed.to_ndarray().reshape(packed.samples, -1).T for packed in self._to_float[1].resample(frame)]
        return np.concatenate(pieces, axis=1) if pieces else np.zeros((count, 0), np.float32), rate
