"""Pictures of exports: the moment that they show, and the curves."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from made_animation import made_animation

from sedtalker.errors import MissingExtraError
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.recipes import export_pictures
from sedtalker.recipes.export_pictures import livelink_picture, open_moment


@pytest.mark.parametrize("label", ["happy", "sad"])
def test_the_moment_shows_the_emotion_an_open_mouth_and_open_eyes(label: str, tmp_path: Path) -> None:
    animation = made_animation(tmp_path, 3.0)
    index = open_moment(animation, label)
    segment = next(segment for segment in animation.emotion.segments if segment.emotion == label)
    assert segment.start <= (index + 0.5) / animation.fps <= segment.end
    assert animation.blendshapes is not None
    weights = animation.blendshapes[index]
    assert weights[JAW_OPEN] > 0.55 and weights[ARKIT_NAMES.index("eyeBlinkLeft")] < 0.05


def test_curves_have_one_row_for_each_column(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = np.asarray(livelink_picture(made_animation(tmp_path)))
    assert abs(picture.shape[0] - 460) <= 1 and picture.shape[1:] == (720, 3)  # matplotlib rounds down or not
    assert all((band[:, 130:].max(axis=-1) > 120).any() for band in np.array_split(picture, 6))


@pytest.mark.parametrize("names", [["page"], ["livelink", "threejs"], None])
def test_without_a_browser_nothing_is_rendered(
    names: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("selenium")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(export_pictures, "load", lambda **_: pytest.fail("a model was loaded first"))
    with pytest.raises(MissingExtraError, match="no chromium with its driver"):
        export_pictures.run(argparse.Namespace(only=names, output=tmp_path / "pictures"))
    assert not (tmp_path / "pictures").exists()
