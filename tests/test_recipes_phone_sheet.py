"""The sheet of mouths by phone."""

from __future__ import annotations

from sedtalker.data.rig_store import RigClip
from sedtalker.face.assets import load_face
from sedtalker.phones import Phone
from sedtalker.recipes.phone_sheet import EXAMPLES, find_examples, mouth_camera


def test_examples_are_of_many_clips_and_of_phones_that_are_long_enough() -> None:
    clips = [RigClip(f"c{i}", "", "someone", "tts", "validation", "en") for i in range(20)]
    phones = (Phone("a", "AA", 0.0, 0.02), Phone("two", "T", 0.1, 0.2), Phone("two", "UW", 0.2, 0.4))
    found = find_examples(clips, {clip.id: phones for clip in clips})
    assert len({clip for clip, _ in found["UW"]}) == len(found["UW"]) == EXAMPLES
    assert not found["AA"] and "T" not in found


def test_the_mouth_fills_the_picture() -> None:
    face = load_face()
    camera = mouth_camera(face)
    corners = face.template[[face.landmarks["mouth_left"], face.landmarks["mouth_right"]]]
    left, right = camera.project(corners, 100, 100)[:, 0]
    assert 35 < abs(left - right) < 70
