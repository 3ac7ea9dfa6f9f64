"""Videos, contact sheets and comparisons of animations, the emotion strip and text."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
from made_face import bare_face
from PIL import Image

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import RenderError
from sedtalker.render import animation_video, camera
from sedtalker.render.animation_video import (
    contact_sheet,
    make_renderer,
    poster,
    render_animation,
    render_comparison,
    render_frames,
)
from sedtalker.render.config import RenderConfig
from sedtalker.render.strip import COLORS, EmotionStrip
from sedtalker.render.text import draw_captions, draw_text
from sedtalker.render.views import draw_scale, grid, heat_colors, side_by_side
from sedtalker.task_options import RenderOptions
from sedtalker.tasks import render_file

FRAMES, FPS = 20, 10.0
SMALL = RenderConfig(64, 64)
MEDIUM = RenderConfig(96, 96)


@pytest.fixture(scope="module")
def track() -> EmotionTrack:
    track = EmotionTrack.neutral(FRAMES / FPS)
    track.set("happy", 0.8, start=1.0, end=2.0)
    return track


@pytest.fixture(scope="module")
def animation(track) -> Animation:
    face = bare_face()
    sizes = 1 + 0.1 * np.sin(np.arange(FRAMES))[:, None, None]
    dense = (face.template * sizes).astype(np.float32)
    return Animation(face.template, face.faces, FPS, track, dense=dense, rig=face)


def test_video_of_an_animation(animation, tmp_path):
    progress = []
    sound = np.zeros(32_000, np.float32), 16_000
    render_animation(animation, tmp_path / "a.mp4", MEDIUM, audio=sound, progress=lambda *count: progress.append(count))
    assert progress == [(n, FRAMES) for n in range(1, FRAMES + 1)]
    with av.open(str(tmp_path / "a.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == FRAMES
    assert frames[0].shape[1] == 96
    assert frames[0].shape[0] > 96  # the strip is below the face


def test_a_broken_frame_is_reported_and_leaves_no_video(animation, tmp_path):
    dense = animation.dense.copy()
    dense[7, 3] = np.inf
    broken = Animation(animation.template, animation.faces, FPS, animation.emotion, dense=dense, rig=animation.rig)
    with pytest.raises(RenderError, match=r"frame 7 at 0.75 s: vertex 3 of .* contains NaN or infinity"):
        render_animation(broken, tmp_path / "a.mp4", MEDIUM)
    assert list(tmp_path.iterdir()) == []


def test_frames_do_not_depend_on_range_and_threads(animation):
    together = list(render_frames(animation, SMALL, threads=3))
    alone = list(render_frames(animation, SMALL, threads=1, start=5, stop=8))
    assert [frame.tobytes() for frame in together[5:8]] == [frame.tobytes() for frame in alone]


def test_turntable_shows_the_side_after_a_quarter_turn():
    """A still face with one colored half: the turntable shows both halves at the start and one half from the side."""
    face = bare_face()
    left_half = face.template[:, :1] > 0
    face = replace(face, colors=np.where(left_half, (255, 0, 0), (0, 0, 255)).astype(np.uint8))
    fps = 4.0
    count = round(camera.TURN_SECONDS * fps)
    dense = np.repeat(face.template[None], count, 0)
    still = Animation(face.template, face.faces, fps, EmotionTrack.neutral(count / fps), dense=dense, rig=face)
    turning = list(render_frames(still, RenderConfig(64, 64, view="turntable")))
    red_share = [_red_share(frame) for frame in turning]
    first_quarter, third_quarter = red_share[count // 4], red_share[3 * count // 4]
    assert red_share[0] == pytest.approx(0.5, abs=0.1)
    assert red_share[count // 2] == pytest.approx(0.5, abs=0.1)
    assert first_quarter > 0.9 and third_quarter < 0.1
    front = [_red_share(frame) for frame in render_frames(still, SMALL, stop=count // 4 + 1)]
    assert front[-1] == front[0]


def _red_share(frame: np.ndarray) -> float:
    """Red among the red and blue pixels."""
    red, _, blue = np.moveaxis(frame.astype(int), -1, 0)
    return (red > blue + 40).sum() / max(1, (abs(red - blue) > 40).sum())


def test_contact_sheet_and_poster(animation, tmp_path):
    sheet = contact_sheet(animation, tmp_path / "sheet.png", SMALL, count=6, columns=3)
    saved = np.asarray(Image.open(tmp_path / "sheet.png"))
    np.testing.assert_allclose(saved.astype(int), sheet, atol=1)  # the file has the mark
    assert sheet.shape == (2 * 66 - 2, 3 * 66 - 2, 3)
    picture = poster(animation, 0.55, tmp_path / "poster.png", SMALL)
    (frame,) = render_frames(animation, SMALL, start=5, stop=6)
    np.testing.assert_array_equal(picture, frame)


def test_a_picture_of_an_animation_without_frames_is_refused(animation):
    empty = replace(animation, dense=animation.dense[:0])
    for draw in (contact_sheet, lambda shown: poster(shown, 0.0)):
        with pytest.raises(RenderError, match="no frames to show"):
            draw(empty)


def test_comparison_shows_where_the_error_is(animation, tmp_path):
    dense = animation.dense.copy()
    dense[:, animation.template[:, 1] < -0.05] += np.array([0, -0.008, 0], np.float32)
    predicted = Animation(animation.template, animation.faces, FPS, animation.emotion, dense=dense, rig=animation.rig)
    render_comparison(predicted, animation, tmp_path / "c.mp4", MEDIUM, max_error=8.0)
    with av.open(str(tmp_path / "c.mp4")) as video:
        frame = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    error = frame[:, 2 * 98 : 2 * 98 + 96]
    above, below = error[35, 48], error[72, 48]
    assert below.sum() < above.sum() - 150  # large errors are dark


@pytest.mark.parametrize("kind", ["mp4", "sheet", "poster"])
def test_every_output_format_uses_the_backend(animation, tmp_path, monkeypatch, kind):
    backends = []

    def make(face, config, camera):
        backends.append(config.backend)
        return make_renderer(face, replace(config, backend="soft"), camera)

    monkeypatch.setattr(animation_video, "make_renderer", make)
    animation.save(tmp_path / "a.npz")
    options = RenderOptions(size=64, backend="pyrender", formats=(kind,))
    (path,) = render_file(options, tmp_path / "a.npz", tmp_path / "out", lambda results: None).paths
    assert path.is_file() and backends == ["pyrender"]


def test_sound_of_another_length_is_rejected_before_a_frame_is_drawn(animation, tmp_path):
    progress = []
    with pytest.raises(RenderError, match=r"1\.000 s of sound for 2\.000 s of pictures"):
        render_animation(
            animation,
            tmp_path / "a.mp4",
            audio=(np.zeros(16_000, np.float32), 16_000),
            progress=lambda *count: progress.append(count),
        )
    assert not progress and not list(tmp_path.iterdir())


def test_strip_shows_the_emotion_of_its_time(track):
    strip = EmotionStrip(track, 256)
    calm, happy = strip.frame(0.5), strip.frame(1.5)
    assert calm.shape == (strip.height, 256, 3)
    assert strip.height % 2 == 0
    assert not (calm[: strip.height // 3] == COLORS["happy"]).all(2).any()
    assert (happy[: strip.height // 3] == COLORS["happy"]).all(2).any()


def test_strip_of_a_long_track_scrolls():
    track = EmotionTrack.neutral(120.0)
    track.set("sad", 1.0, start=60.0, end=120.0)
    strip = EmotionStrip(track, 256)
    sad = np.array(COLORS["sad"])
    assert not (strip.frame(10.0)[-12] == sad).all(1).any()
    assert (strip.frame(115.0)[-12] == sad).all(1).any()


def test_heat_map_gets_darker_with_error():
    colors = heat_colors(np.linspace(0, 12, 60, dtype=np.float32), 10.0)
    brightness = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) <= 1e-6).all()
    np.testing.assert_array_equal(colors[-1], colors[-5])  # beyond the scale


def test_scale_captions_and_titles_are_drawn():
    picture = np.zeros((200, 300, 3), np.uint8)
    draw_scale(picture, 10.0)
    assert picture[150:].any()
    assert not picture[:140].any()
    below = np.zeros((200, 300, 3), np.uint8)
    draw_captions(below, ["What is said, in as many words as it takes to need a second line"])
    assert below[150:].max() > 200
    assert side_by_side([picture, picture], ("a", "b")).shape == (200, 602, 3)
    assert grid([picture] * 5, 3).shape == (402, 904, 3)


def test_text_is_clipped_to_the_picture():
    picture = np.zeros((20, 20, 3), np.uint8)
    draw_text(picture, "wide words", 12, 12, 14)
    draw_text(picture, "outside", 30, 30, 14)
    assert picture[12:, 12:].any()
    assert not picture[:10].any()
