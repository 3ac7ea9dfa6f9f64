"""Reading audio of all formats as mono float32 at 16 kHz, and refusal of other files in one line."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from media import FORMATS, clicks, corrupt, find_clicks, write_media

from sedtalker.audio import SAMPLE_RATE, AudioFile, load_audio, refuse_damaged, stream_audio, to_samples
from sedtalker.errors import AudioError, AudioWarning


def write_encoded(path: Path, samples: np.ndarray, rate: int, codec: str, form: str) -> None:
    """Write mono float samples with FFmpeg's encoder `codec` in the container `form`."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size
        )
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def dominant_frequency(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6, 8, 9, 16])
def test_rates_and_channels_keep_pitch_level_and_length(tmp_path: Path, rate: int, channels: int) -> None:
    seconds = 0.7
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    soundfile.write(tmp_path / "a.wav", np.repeat(wave[:, None], channels, axis=1), rate, subtype="FLOAT")
    samples = load_audio(tmp_path / "a.wav")
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - seconds * SAMPLE_RATE) <= 2
    assert dominant_frequency(samples) == pytest.approx(440, abs=2)
    middle = samples[2000:-2000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


@pytest.mark.parametrize(
    ("codec", "form", "suffix"),
    [("libmp3lame", "mp3", ".mp3"), ("aac", "mp4", ".m4a"), ("libopus", "ogg", ".opus"), ("flac", "flac", ".flac")],
)
def test_formats_are_detected_by_content(tmp_path: Path, codec: str, form: str, suffix: str) -> None:
    rate = 48_000
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    honest, odd = tmp_path / f"a{suffix}", tmp_path / "Ünïcode und ' Leer\" zeichen.wav"
    write_encoded(honest, wave, rate, codec, form)
    odd.write_bytes(honest.read_bytes())
    samples = load_audio(honest)
    np.testing.assert_array_equal(samples, load_audio(odd))
    assert dominant_frequency(samples) == pytest.approx(440, abs=2)
    assert abs(len(samples) / SAMPLE_RATE - 1.0) < 0.06  # lossy codecs pad by a frame or two


def test_vorbis(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.bin", tone, SAMPLE_RATE, format="OGG", subtype="VORBIS")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = load_audio(tmp_path / "a.bin")
    np.testing.assert_allclose(samples[100:2000], tone[100:2000], atol=0.05)  # not a millisecond late
    assert dominant_frequency(samples) == pytest.approx(220, abs=2) and abs(len(samples) - len(tone)) < 1024


def test_time_is_kept_through_resampling(tmp_path: Path) -> None:
    wave = np.zeros(44_100)
    wave[22_050] = 1.0
    soundfile.write(tmp_path / "click.wav", wave, 44_100, subtype="FLOAT")
    samples = load_audio(tmp_path / "click.wav")
    assert abs(int(np.argmax(np.abs(samples))) - SAMPLE_RATE // 2) <= 1


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def channel_cases(tone: np.ndarray) -> dict[str, tuple[np.ndarray, bool]]:
    """Channels (C, N), and whether they cancel in their mean."""
    rng = np.random.default_rng(0)
    noise, silence = 0.01 * rng.standard_normal(len(tone)).astype(np.float32), 0 * tone
    voice, other = 0.3 * rng.standard_normal((2, len(tone))).clip(-1, 1).astype(np.float32)
    half = np.repeat(np.float32([1, -1]), len(tone))
    return {
        "one": (np.stack([tone, silence]), False),
        "equal": (np.stack([tone, tone]), False),
        "unrelated": (np.stack([voice, other]), False),
        "silence": (np.stack([silence, silence]), False),
        "inverted": (np.stack([tone, -tone]), True),
        "inverted and quieter": (np.stack([-0.7 * tone, tone]), True),
        "inverted in noise": (np.stack([tone + noise, -tone]), True),
        "inverted in one half": (np.stack([np.tile(tone, 2), np.tile(tone, 2) * half]), True),
        "four": (np.stack([tone, -tone, silence, silence]), True),
        "in turns": (np.stack([np.r_[tone, silence], np.r_[silence, tone]]), False),
    }


@pytest.mark.parametrize("case", channel_cases(np.zeros(8, np.float32)))
def test_channels_are_averaged_unless_they_cancel(tmp_path: Path, tone: np.ndarray, case: str) -> None:
    channels, cancel = channel_cases(tone)[case]
    soundfile.write(tmp_path / "a.wav", channels.T, SAMPLE_RATE, subtype="FLOAT")
    for source in (tmp_path / "a.wav", (channels, SAMPLE_RATE)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            samples = load_audio(source)
        if not cancel:
            np.testing.assert_allclose(samples, channels.mean(axis=0), atol=1e-6)
        for start in range(0, len(samples), SAMPLE_RATE):
            alone = max(level(channel) for channel in channels[:, start : start + SAMPLE_RATE])
            assert level(samples[start : start + SAMPLE_RATE]) > 0.3 * alone or alone == 0
        assert any("cancel" in str(warning.message) for warning in caught) == cancel


def test_the_downmix_is_computed_from_the_whole_recording(tmp_path: Path, tone: np.ndarray) -> None:
    sound = np.r_[0 * tone, 0 * tone, tone]
    soundfile.write(tmp_path / "a.wav", np.stack([sound, -sound], 1), SAMPLE_RATE, subtype="FLOAT")
    with pytest.warns(AudioWarning, match="channel 2 inverted"):
        np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), sound, atol=1e-6)


TIMED = [
    ("matroska", "aac"), ("matroska", "libopus"), ("matroska", "libmp3lame"), ("matroska", "flac"),
    ("matroska", "pcm_s16le"), ("webm", "libopus"), ("mp4", "aac"), ("mp4", "libopus"), ("mp4", "libmp3lame"),
    ("mp4", "alac"), ("ipod", "aac"), ("mov", "aac"), ("3gp", "aac"),
]  # fmt: skip
TIMED_BY_PICTURES = [("mpegts", "aac"), ("mpegts", "libmp3lame"), ("nut", "aac")]
UNTIMED = [
    ("wav", "pcm_s16le"), ("w64", "pcm_s16le"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be"), ("caf", "pcm_s16be"),
    ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ogg", "flac"), ("tta", "tta"), ("wv", "wavpack"),
    ("ac3", "ac3"), ("avi", "pcm_s16le"), ("adts", "aac"), ("mpegts", "aac"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "codec"), [*TIMED, *UNTIMED])
def test_encoder_delay_is_removed(tmp_path: Path, form: str, codec: str) -> None:
    write_media(tmp_path / "a", clicks(48_000), 48_000, codec, form)
    samples = load_audio(tmp_path / "a")
    # ADTS and MPEG-TS have no field for the 1,024 samples that an AAC encoder adds.
    unknown = 0.022 if form in ("adts", "mpegts") else 0.0
    assert find_clicks(samples, SAMPLE_RATE) == pytest.approx([0.5 + unknown, 1.5 + unknown], abs=0.008)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0 + unknown, abs=0.025)


@pytest.mark.parametrize(("form", "codec"), TIMED)
def test_late_starts_and_pauses_keep_their_times(tmp_path: Path, form: str, codec: str) -> None:
    write_media(tmp_path / "late", clicks(48_000), 48_000, codec, form, late=1.5)
    samples = load_audio(tmp_path / "late")
    assert find_clicks(samples, SAMPLE_RATE) == pytest.approx([2.0, 3.0], abs=0.008)
    assert len(samples) / SAMPLE_RATE == pytest.approx(3.5, abs=0.025)
    write_media(tmp_path / "pause", clicks(48_000), 48_000, codec, form, pause=(1.0, 2.0))
    samples = load_audio(tmp_path / "pause")
    assert find_clicks(samples, SAMPLE_RATE) == pytest.approx([0.5, 3.5], abs=0.008)
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.0, abs=0.025)


@pytest.mark.parametrize(
    ("form", "codec"),
    [pair for pair in [*TIMED, *TIMED_BY_PICTURES] if pair[0] not in ("ipod", "3gp") and pair[1] != "flac"],
)
def test_audio_is_as_long_as_the_video_stream(tmp_path: Path, form: str, codec: str) -> None:
    write_media(tmp_path / "a", clicks(48_000), 48_000, codec, form, late=1.5, picture=4.5)
    samples = load_audio(tmp_path / "a")
    assert find_clicks(samples, SAMPLE_RATE) == pytest.approx([2.0, 3.0], abs=0.025)
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.5, abs=0.05)


def test_wrong_time_stamps_do_not_add_hours_of_silence(tmp_path: Path) -> None:
    write_media(tmp_path / "a", clicks(48_000), 48_000, "libopus", "matroska", pause=(1.0, 90_000.0))
    with pytest.warns(AudioWarning, match=r"time stamps of .* jump by 900"):
        samples = load_audio(tmp_path / "a")
    assert find_clicks(samples, SAMPLE_RATE) == pytest.approx([0.5, 1.5], abs=0.008)


def hiss(seconds: float, rate: int = 48_000) -> np.ndarray:
    return 0.3 * np.random.default_rng(1).standard_normal(round(seconds * rate)).clip(-1, 1)


@pytest.mark.parametrize("name", ["flac", "mp3", "m4a", "alac", "webm", "mkv", "ts", "ogg"])
@pytest.mark.parametrize("place", [0.4, 0.7])
def test_a_damaged_span_becomes_silence_of_its_length(tmp_path: Path, name: str, place: float) -> None:
    path, rate = tmp_path / f"a.{name}", 48_000
    form, codec = FORMATS[name]
    write_media(path, 0.1 * hiss(4.0) + clicks(rate, (0.5, 3.8), 4.0), rate, codec, form)
    whole = load_audio(path)
    corrupt(path, place, 2000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = load_audio(path)
    messages = [str(warning.message) for warning in caught]
    assert abs(len(samples) - len(whole)) < 0.06 * SAMPLE_RATE
    assert len(messages) == 1 and "damaged" in messages[0] and str(path) in messages[0]
    assert find_clicks(samples[:SAMPLE_RATE], SAMPLE_RATE, 1) == pytest.approx(
        find_clicks(whole[:SAMPLE_RATE], SAMPLE_RATE, 1), abs=0.005
    )
    with pytest.raises(AudioError, match="refused by --strict: damaged"):
        refuse_damaged(path)


@pytest.mark.parametrize("name", ["flac", "mkv", "webm", "wav", "mp3", "mov"])
def test_a_truncated_file_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    form, codec = FORMATS[name]
    if name == "mov":  # its index is at the end unless it is moved
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("aac", rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(hiss(3.0)[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate = 48_000
            container.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        write_media(path, hiss(3.0), 48_000, codec, form)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = load_audio(path)
    assert level(samples[:SAMPLE_RATE]) > 0.1
    assert abs(len(samples) / SAMPLE_RATE - 3.0) < 0.06
    assert ["damaged" in str(warning.message) for warning in caught] == [True]
    assert "lost 1." in str(caught[0].message)


def test_a_damaged_lossless_frame_becomes_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.wv"
    write_media(path, 0.1 * hiss(4.0), 48_000, "wavpack", "wv")
    corrupt(path, 0.5, 200)
    with pytest.warns(AudioWarning, match="damaged: .* lost"):
        samples = load_audio(path)
    assert float(np.abs(samples).max()) < 0.2, "noise of the damaged frame"


def test_a_truncated_avi_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write_media(path, hiss(3.0), 48_000, *FORMATS["avi"][::-1])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(AudioWarning, match="damaged"):
        load_audio(path)


def test_a_truncated_m4a_without_index_is_named_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    write_media(path, hiss(3.0), 48_000, "aac", "ipod")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with pytest.raises(AudioError, match=r"incomplete: .*Copy it again"):
        load_audio(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streamed_wav_is_intact(tmp_path: Path, tone: np.ndarray, size: int) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone, size)
    refuse_damaged(path)
    assert len(load_audio(path)) == len(tone)


def test_sound_after_the_end_in_a_wav_header_is_read(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone, len(tone) // 4 * 2)
    with pytest.warns(AudioWarning, match="wrong length in the header"):
        assert len(load_audio(path)) == len(tone)


@pytest.mark.parametrize("tail", [b"LIST\xff\xff\0\0", b"ID3\4\0\0\0\0\0@", bytes(10)])
def test_tags_after_the_sound_of_a_wav_are_not_sound(tmp_path: Path, tone: np.ndarray, tail: bytes) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone, len(tone) * 2)
    path.write_bytes(path.read_bytes() + tail.ljust(20_000, tail[-1:]))
    refuse_damaged(path)
    assert len(load_audio(path)) == len(tone)


def id3_size(size: int) -> bytes:
    return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


PICTURE = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()  # frames seem to begin in it
APE = b"APETAGEX" + struct.pack("<4I", 2000, len(PICTURE) + 32, 1, 1 << 31) + bytes(8)
TAGS = {
    "id3v1": b"TAG" + bytes(125),
    "ape": APE + PICTURE + APE,
    "id3v2": b"ID3\4\0\0" + id3_size(len(PICTURE)) + PICTURE,
    "id3v2 with its end": b"ID3\4\0\20" + id3_size(len(PICTURE)) + PICTURE + b"3DI\4\0\20" + id3_size(len(PICTURE)),
    "lyrics": b"LYRICSBEGIN" + b"x" * 20_000 + b"020011LYRICS200" + b"TAG" + bytes(125),
    "zeros": bytes(100_000),
    "text": b"<html>" * 5_000,
}


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("tags", TAGS)
def test_tags_after_the_sound_of_an_mp3_are_not_lost_sound(tmp_path: Path, tags: str, counted: bool) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w", options={"write_xing": str(int(counted))}) as container:
        stream = container.add_stream("libmp3lame", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(0.1 * hiss(2.0)[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    path.write_bytes(path.read_bytes() + TAGS[tags])
    if not counted and tags in ("id3v2", "text"):
        pytest.skip("nothing says where the sound ends")
    refuse_damaged(path)
    assert abs(len(load_audio(path)) / SAMPLE_RATE - 2.0) < 0.1


@pytest.mark.parametrize("tags", ["id3v1", "ape", "zeros"])  # after the tag that FFmpeg writes
def test_tags_after_the_sound_of_wavpack_are_not_damage(tmp_path: Path, tags: str) -> None:
    path = tmp_path / "a.wv"
    write_media(path, 0.1 * hiss(2.0), 48_000, "wavpack", "wv")
    path.write_bytes(path.read_bytes() + TAGS[tags])
    refuse_damaged(path)
    assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(2.0, abs=0.01)


def test_an_impossible_rate_in_a_header_is_refused(tmp_path: Path, tone: np.ndarray) -> None:
    write_wav(tmp_path / "a.wav", tone, len(tone) * 2, rate=1)
    with pytest.raises(AudioError, match="a sampling rate of 1 Hz"):
        load_audio(tmp_path / "a.wav")


def write_wav(path: Path, samples: np.ndarray, size: int, rate: int = SAMPLE_RATE) -> None:
    """Write 16-bit samples with `size` as the number of bytes in the header."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size
    )
    path.write_bytes(head + (samples * 32767).astype("<i2").tobytes())


def test_a_mostly_damaged_file_is_refused(tmp_path: Path) -> None:
    write_media(tmp_path / "a.m4a", hiss(3.0), 48_000, "aac", "ipod")
    content = bytearray((tmp_path / "a.m4a").read_bytes())
    start = content.index(b"mdat") + 4
    start, end = start + 1500, content.index(b"moov") - 8
    content[start:end] = np.random.default_rng(0).bytes(end - start)
    (tmp_path / "a.m4a").write_bytes(content)
    with pytest.raises(AudioError, match=r"cannot read as audio: .* packets are damaged"):
        load_audio(tmp_path / "a.m4a")


NAMES = ["2026-05-01T12:30:05.wav", "http:x.wav", "-x.wav", "a%03d.wav", "a%d", "file:a.wav", "pipe:0", "a|b.wav", "-"]


@pytest.mark.parametrize("name", NAMES)
def test_file_names_are_not_read_as_protocols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tone: np.ndarray, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path(name).open("wb") as file:
        soundfile.write(file, tone, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    for path in (name, Path(name), f"./{name}", tmp_path / name):
        np.testing.assert_array_equal(load_audio(path), tone)


def test_the_default_or_the_given_track_is_read(tmp_path: Path) -> None:
    first, second = clicks(48_000, (0.5,)), clicks(48_000, (1.5,))
    write_media(tmp_path / "two.mkv", [first, second], 48_000, "libopus", "matroska", default=1)
    assert find_clicks(load_audio(tmp_path / "two.mkv"), SAMPLE_RATE, 1) == pytest.approx([1.5], abs=0.02)
    for track, time in ((1, 0.5), (2, 1.5)):
        samples = load_audio(AudioFile(tmp_path / "two.mkv", track))
        assert find_clicks(samples, SAMPLE_RATE, 1) == pytest.approx([time], abs=0.02)
    with pytest.raises(AudioError, match=r"no audio track 3: .* has 2"):
        load_audio(AudioFile(tmp_path / "two.mkv", 3))


def test_a_silent_recording_is_reported(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", tone * 1e-4, SAMPLE_RATE, subtype="FLOAT")
    with pytest.warns(AudioWarning, match="nothing audible in .* at -89 dB"):
        load_audio(tmp_path / "a.wav")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_audio((np.r_[np.zeros(16_000, np.float32), tone * 0.05], SAMPLE_RATE))


def test_a_quiet_recording_is_reported_with_the_gain_that_it_needs(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", tone * 0.01, SAMPLE_RATE, subtype="FLOAT")
    with pytest.warns(AudioWarning, match=r"very quiet: .* at -49 dB of full scale, .* Make it 29 dB louder"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("scale", [127, 32767, 2**23, 2**31 - 1])
def test_floats_on_the_scale_of_integers_are_refused(tmp_path: Path, tone: np.ndarray, scale: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone * scale, SAMPLE_RATE, subtype="FLOAT")
    for source in (tmp_path / "a.wav", (tone * scale, SAMPLE_RATE), (np.stack([tone, tone]) * scale, 48_000)):
        with pytest.raises(AudioError, match="scale of integers"):
            load_audio(source)
    assert np.abs(load_audio((tone * 4, SAMPLE_RATE))).max() == pytest.approx(2, rel=0.01)  # headroom of floats


def test_rate_and_samples_may_come_in_either_order(tone: np.ndarray) -> None:
    swapped: Any = (SAMPLE_RATE, tone)
    np.testing.assert_allclose(load_audio(swapped), load_audio((tone, SAMPLE_RATE)))


def test_complex_samples_are_refused(tone: np.ndarray) -> None:
    with pytest.raises(AudioError, match="samples of type complex64"):
        load_audio((tone.astype(np.complex64), SAMPLE_RATE))


class Unreadable:
    """An object that cannot become an array, and gives no reason."""

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise ValueError


def test_samples_that_are_no_array_are_refused_also_without_a_reason() -> None:
    with pytest.raises(AudioError, match=r"samples that are not an array \(ValueError\)"):
        load_audio((Unreadable(), SAMPLE_RATE))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match=r"a chunk that is not an array \(ValueError\)"):
        to_samples(Unreadable())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="a pipe or device, not a file"):
        load_audio(tmp_path / "pipe.wav")


def test_arrays_of_integers_and_both_orders_of_axes(tone: np.ndarray) -> None:
    assert load_audio((np.full(16_000, 128, np.uint8), SAMPLE_RATE)).max() == 0  # the middle of unsigned samples
    sixteen = (tone * 32767).astype(np.int16)
    np.testing.assert_allclose(load_audio((sixteen, SAMPLE_RATE)), tone, atol=1e-4)
    stereo = np.stack([tone, tone])
    np.testing.assert_array_equal(load_audio((stereo, SAMPLE_RATE)), load_audio((stereo.T, SAMPLE_RATE)))


def test_a_real_recording(speech_file: Path) -> None:
    samples = load_audio(speech_file)
    assert len(samples) == 30_966  # as ffmpeg decodes it
    assert 0.1 < np.abs(samples).max() <= 1.0
    np.testing.assert_array_equal(samples, np.concatenate(list(stream_audio(speech_file))))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is text, not sound\n" * 40, "cannot read as audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot read as audio"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01", "cannot read as audio"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as refusal:
        load_audio(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such audio file"):
        load_audio(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="a folder"):
        load_audio(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 399])
def test_too_few_samples_are_refused(tmp_path: Path, count: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(count), SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"too short|cannot read"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="too short"):
        load_audio((np.zeros(count, np.float32), SAMPLE_RATE))


def test_samples_with_nan_or_infinity_are_refused(tmp_path: Path, tone: np.ndarray) -> None:
    tone[100] = np.nan
    soundfile.write(tmp_path / "a.wav", tone, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="not finite"):
        load_audio((tone, SAMPLE_RATE))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_random_bytes_raise_audio_errors_only(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.wav"
    path.write_bytes(content)
    try:
        load_audio(path)
    except AudioError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("rate", "shown"), [("16000", "'16000'"), (float("nan"), "nan"), (None, "None")])
def test_a_rate_that_is_no_number_is_refused(rate: object, shown: str) -> None:
    with pytest.raises(AudioError, match=f"the sampling rate is not a number: {shown}$"):
        load_audio((np.zeros(1000, np.float32), rate))  # type: ignore[arg-type]
