"""Video files contain exactly the given frames and sound, or do not exist."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sedtalker.errors import RenderError, SEDTalkerError
from sedtalker.render.video import write_video
from sedtalker.render.yuv import to_yuv420


def _frames(count: int, size: tuple[int, int] = (32, 48)):
    for index in range(count):
        yield np.full((*size, 3), (index * 7) % 256, np.uint8)


def _sound(seconds: float, rate: int = 16_000) -> tuple[np.ndarray, int]:
    return 0.3 * np.sin(np.arange(round(seconds * rate)) * 0.2).astype(np.float32), rate


@pytest.mark.parametrize("fps", [24, 25, 30, 60, 29.97])
def test_video_and_sound_have_the_length_of_the_input(tmp_path, fps):
    count = 41
    path = tmp_path / "talk.mp4"
    write_video(path, _frames(count), fps, _sound(count / fps))
    with av.open(str(path)) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert video.streams.audio[0].codec_context.name == "aac"
        assert sum(1 for _ in video.decode(video=0)) == count
        assert float(video.streams.video[0].duration * video.streams.video[0].time_base) == pytest.approx(
            count / fps, abs=1e-3
        )
        sound = video.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(count / fps, abs=0.5 / fps)
    assert [file.name for file in tmp_path.iterdir()] == ["talk.mp4"]


@pytest.mark.parametrize("rate", [16_000, 44_100, 7_350])
def test_sound_is_not_delayed(tmp_path, rate):
    """A click at 0.5 s is decoded at 0.5 s, for any codec delay and sample rate."""
    samples = np.zeros(2 * rate, np.float32)
    samples[rate // 2 : rate // 2 + rate // 100] = 0.9
    path = tmp_path / "click.mp4"
    write_video(path, _frames(50), 25, (samples, rate))
    with av.open(str(path)) as video:
        frames = list(video.decode(audio=0))
    samples_back = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    start = float(frames[0].pts * frames[0].time_base)
    loudest = int(np.argmax(np.abs(samples_back) > 0.3)) / frames[0].sample_rate + start
    assert loudest == pytest.approx(0.5, abs=0.01)


def test_colors_are_preserved(tmp_path):
    colors = [(200, 40, 30), (30, 180, 60), (40, 60, 210), (128, 128, 128), (240, 235, 230)]
    path = tmp_path / "colors.mp4"
    write_video(path, (np.broadcast_to(np.uint8(color), (32, 32, 3)) for color in colors), 25)
    with av.open(str(path)) as video:
        shown = [frame.to_ndarray(format="rgb24")[16, 16] for frame in video.decode(video=0)]
    np.testing.assert_allclose(shown, colors, atol=6)


def test_yuv_is_bt709_in_limited_range():
    frame = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    out = np.zeros((6, 6), np.uint8)
    to_yuv420(frame, out)
    red, green, blue = np.moveaxis(frame / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    quads = (np.stack([(blue - luma) / 1.8556, (red - luma) / 1.5748]).reshape(2, 2, 2, 3, 2)).mean((2, 4))
    np.testing.assert_allclose(out[:4], 16 + 219 * luma, atol=1)
    np.testing.assert_allclose(out[4:].reshape(2, 2, 3), 128 + 224 * quads, atol=1)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ""])
def test_a_failing_frame_leaves_no_file(tmp_path, suffix):
    def frames():
        yield from _frames(5)
        raise RenderError("frame 5 is blank")

    with pytest.raises(RenderError, match="frame 5 is blank"):
        write_video(tmp_path / f"talk{suffix}", frames(), 25)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_previous_video(tmp_path):
    path = tmp_path / "talk.mp4"
    write_video(path, _frames(5), 25)
    before = path.read_bytes()
    with pytest.raises(RenderError, match="no frames"):
        write_video(path, iter(()), 25)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("talk.avi", _frames(3), 25), "unknown video format"),
        (("talk.mp4", _frames(3, (31, 48)), 25), "even width and height"),
        (("talk.mp4", _frames(50), 25, _sound(1.0)), "1.000 s of sound for 2.000 s of pictures"),
        (("talk.mp4", [np.zeros((32, 32, 4), np.uint8)], 25), "cannot store transparency"),
        (("talk.gif", [np.zeros((32, 32, 4), np.uint8)], 25), "cannot store transparency"),
        (("talk.mp4", [np.zeros((32, 32, 3), np.uint8), np.zeros((32, 34, 3), np.uint8)], 25), "frame 1"),
    ],
)
def test_invalid_input_is_rejected(tmp_path, arguments, reason):
    name, *rest = arguments
    with pytest.raises(RenderError, match=reason):
        write_video(tmp_path / name, *rest)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SEDTalkerError, match="cannot write"):
        write_video(tmp_path / "taken" / "talk.mp4", _frames(3), 25)


def test_webm(tmp_path):
    write_video(tmp_path / "talk.webm", _frames(25), 25, _sound(1.0))
    with av.open(str(tmp_path / "talk.webm")) as video:
        assert (video.streams.video[0].codec_context.name, video.streams.audio[0].codec_context.name) == ("vp9", "opus")
        assert sum(1 for _ in video.decode(video=0)) == 25


@pytest.mark.parametrize(("fps", "shown"), [(25, 10), (50, 10), (30, 9)])
def test_gif_plays_at_the_right_speed(tmp_path, fps, shown):
    """A GIF's frame duration is a multiple of 10 ms, so 30 frames/s are reduced to 25."""
    write_video(
        tmp_path / "talk.gif",
        (np.random.default_rng(k).integers(0, 255, (8, 8, 3)).astype(np.uint8) for k in range(10)),
        fps,
    )
    with Image.open(tmp_path / "talk.gif") as image:
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            durations.append(image.info["duration"])
    assert len(durations) == shown
    assert sum(durations) / 1000 == pytest.approx(10 / fps, abs=1 / 25)


def test_a_folder_of_pictures(tmp_path):
    write_video(tmp_path / "frames", _frames(3), 25)
    names = sorted(file.name for file in Path(tmp_path / "frames").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "frames" / "000002.png")), 14)
    write_video(tmp_path / "frames", _frames(2), 25)  # in place of the older ones
    assert len(list(Path(tmp_path / "frames").iterdir())) == 2


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_file_names_with_a_colon_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"2026-05-01T12:30:05{suffix}"
    write_video(name, [np.zeros((64, 64, 3), np.uint8)] * 5, 25)
    assert [path.name for path in tmp_path.iterdir()] == [name]
