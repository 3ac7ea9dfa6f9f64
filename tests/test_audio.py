"""Any audio file becomes mono float32 at 16 kHz, and what is no audio is refused in one line."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sedtalker.audio import SAMPLE_RATE, load_audio, stream_audio
from sedtalker.errors import AudioError


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
def test_formats_are_told_by_content_not_by_name(tmp_path: Path, codec: str, form: str, suffix: str) -> None:
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
    samples = load_audio(tmp_path / "a.bin")
    assert dominant_frequency(samples) == pytest.approx(220, abs=2) and abs(len(samples) - len(tone)) < 1024


def test_time_is_kept_through_resampling(tmp_path: Path) -> None:
    wave = np.zeros(44_100)
    wave[22_050] = 1.0
    soundfile.write(tmp_path / "click.wav", wave, 44_100, subtype="FLOAT")
    samples = load_audio(tmp_path / "click.wav")
    assert abs(int(np.argmax(np.abs(samples))) - SAMPLE_RATE // 2) <= 1


def test_channels_are_averaged_so_that_opposite_ones_cancel(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone, -tone], axis=1), SAMPLE_RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav")).max() < 1e-6
    np.testing.assert_allclose(load_audio((np.stack([tone, 0 * tone]), SAMPLE_RATE)), tone / 2, atol=1e-6)


def test_arrays_of_integers_and_both_orders_of_axes(tone: np.ndarray) -> None:
    assert load_audio((np.full(16_000, 128, np.uint8), SAMPLE_RATE)).max() == 0  # the middle of unsigned samples
    sixteen = (tone * 32767).astype(np.int16)
    np.testing.assert_allclose(load_audio((sixteen, SAMPLE_RATE)), tone, atol=1e-4)
    stereo = np.stack([tone, tone])
    np.testing.assert_array_equal(load_audio((stereo, SAMPLE_RATE)), load_audio((stereo.T, SAMPLE_RATE)))


def test_the_sound_of_a_real_recording(speech_file: Path) -> None:
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
    ],
)
def test_files_that_are_no_audio_are_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
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


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, tone: np.ndarray) -> None:
    tone[100] = np.nan
    soundfile.write(tmp_path / "a.wav", tone, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="no numbers"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="no numbers"):
        load_audio((tone, SAMPLE_RATE))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_no_bytes_whatever_bring_another_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.wav"
    path.write_bytes(content)
    try:
        load_audio(path)
    except AudioError as error:
        assert "\n" not in str(error)
