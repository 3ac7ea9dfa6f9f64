"""The worst, the median and the best clip of an evaluation as videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from made_face import bare_face

from sedtalker.animation import Animation
from sedtalker.cli.main import main
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError
from sedtalker.evaluation.extremes import extremes, face_of
from sedtalker.evaluation.talker import Result, open_truth

ERRORS = {"a": 0.001, "b": 0.004, "c": 0.002, "d": 0.0}  # metres by clip
FRAMES, FPS = 6, 25.0


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predicted and true animations of a bare mesh."""
    face, track = bare_face(), EmotionTrack.neutral(FRAMES / FPS)
    swell = 1 + 0.05 * np.sin(np.arange(FRAMES))[:, None, None]
    for name, error in ERRORS.items():
        for kind, moved in (("truth", 0.0), ("predicted", error)):
            dense = (face.template * swell + [0, moved, 0]).astype(np.float32)
            animation = Animation(face.template, face.faces, FPS, track, dense=dense, rig=face)
            animation.save(tmp_path / kind / f"{name}.npz")
    return tmp_path / "predicted", tmp_path / "truth"


def test_the_command_renders_worst_median_and_best(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predicted, truth = map(str, folders)
    assert main(["evaluate", "talker", predicted, truth, "--fps", "25", "--render", str(tmp_path / "videos")]) == 0
    videos = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert videos == ["best_d.mp4", "median_a.mp4", "worst_b.mp4"]
    with av.open(str(tmp_path / "videos" / "worst_b.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert len(frames) == FRAMES
    third = frames[0].shape[1] // 3
    heat = frames[0][150:230, 2 * third + 130 : 2 * third + 250]
    with av.open(str(tmp_path / "videos" / "best_d.mp4")) as video:
        pale = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(int)[150:230, 2 * third + 130 :][:, :120]
    assert heat[..., 2].mean() < pale[..., 2].mean() - 30  # 4 mm are orange, no error is pale


def test_a_clip_is_shown_once() -> None:
    figures = {"x": {"mve": 1.0, "lve_l2": 2.0}, "y": {"mve": 2.0, "lve_l2": 1.0}}
    assert extremes(Result("talker", figures)) == {"worst": "x", "median": "y"}
    assert extremes(Result("talker", {"x": {"mve": 1.0}})) == {"worst": "x"}


def test_motion_without_triangles_asks_for_a_mesh(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 7, 3), np.float32))
    truth = open_truth(tmp_path)
    with pytest.raises(DataError, match=r"no triangles are known.*--face"):
        face_of(truth)
    with pytest.raises(DataError, match=r"default has .* vertices, the motion has 7"):
        face_of(truth, "default")
