"""Blinks, gaze, head and brows over a talker's coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.neck import NECK, neck_pivot
from sedtalker.talker.idle_motion import (
    PAUSE,
    IdleMotionConfig,
    find_accents,
    generate_blinks,
    generate_idle_motion,
    head_transforms,
)

SECONDS = 120
FRAMES = SECONDS * 50
BLINK = ARKIT_NAMES.index("eyeBlinkLeft")


def babble() -> np.ndarray:
    """Noise in syllables of a fifth of a second and phrases of three seconds."""
    rng = np.random.default_rng(5)
    times = np.arange(SECONDS * 16_000) / 16_000
    loud = rng.uniform(0.02, 0.3, SECONDS * 5 + 1)[(times * 5).astype(int)] * (times % 4 < 3)
    return (loud * rng.normal(size=len(times))).astype(np.float32)


LEVELS = loudness(babble())
STILL = np.full((FRAMES, 52), 0.1, np.float32)
CALM = EmotionTrack.neutral(SECONDS)


def idle_motion(track: EmotionTrack = CALM, seed: int = 0, **strengths: float) -> tuple[np.ndarray, np.ndarray]:
    found = generate_idle_motion(track, LEVELS, FRAMES, seed, IdleMotionConfig(**strengths))
    return found.apply(STILL), head_transforms(found.head, neck_pivot(load_face()))


def blink_lengths(weights: np.ndarray) -> np.ndarray:
    """Seconds at half height of every blink."""
    closed = weights[:, BLINK] > 0.5 * (1 + STILL[0, BLINK])
    edges = np.flatnonzero(np.diff(np.r_[0, closed, 0]))
    return (edges[1::2] - edges[::2]) / 50


def test_the_mouth_does_not_change():
    weights, _ = idle_motion()
    mouth = [i for i, name in enumerate(ARKIT_NAMES) if not name.startswith(("eye", "brow"))]
    assert np.abs(weights[:, mouth] - STILL[:, mouth]).max() < 1e-6
    assert weights.min() >= 0
    assert weights.max() <= 1


def test_rate_and_duration_of_blinks():
    lengths = blink_lengths(idle_motion()[0])
    assert 20 <= len(lengths) / SECONDS * 60 <= 32
    assert 0.1 <= np.median(lengths) <= 0.15


def test_blinks_have_the_published_rate_and_half_are_partial():
    """Bentivoglio et al. 1997: 26 a minute in conversation; the intervals are log-normal."""
    speaking = detect_speech(LEVELS, bridge=PAUSE)
    depths, intervals, count, seeds = [], [], 0, 30
    for seed in range(seeds):
        closed = generate_blinks(np.ones(FRAMES, np.float32), speaking, np.random.default_rng(seed))
        edges = np.flatnonzero(np.diff(np.r_[0, closed > 0.02, 0]))
        starts, ends = edges[::2], edges[1::2]
        count += len(starts)
        depths += [closed[first:last].max() for first, last in zip(starts, ends, strict=True)]
        intervals += list(np.diff(starts) / 50)
    assert 25 <= count / seeds / SECONDS * 60 <= 27
    assert 0.46 <= np.mean(np.array(depths) < 0.9) <= 0.54
    logs = np.log(intervals)
    assert abs(((logs - logs.mean()) ** 3).mean()) < 0.3 * logs.std() ** 3  # far from skewed, as the intervals are
    assert ((np.array(intervals) - np.mean(intervals)) ** 3).mean() > 0.5 * np.std(intervals) ** 3
    assert min(intervals) >= 0.75


def test_a_lid_closes_faster_than_it_opens():
    blink = idle_motion()[0][:, BLINK]
    speed = np.diff(blink) * 50
    assert speed.max() > 1.2 * -speed.min()


def test_fear_blinks_less():
    afraid = CALM.copy()
    afraid.set("fear", 1.0)
    assert len(blink_lengths(idle_motion(afraid)[0])) < 0.75 * len(blink_lengths(idle_motion()[0]))


def test_the_same_seed_gives_the_same_motion():
    (first, head), (again, head_again), (other, _) = idle_motion(seed=3), idle_motion(seed=3), idle_motion(seed=4)
    assert (first == again).all()
    assert (head == head_again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("part", "touched"),
    [("blinks", ("eyeBlink", "eyeWide", "eyeSquint")), ("gaze", ("eyeLook",)), ("brows", ("brow",)), ("head", ())],
)
def test_each_part_changes_its_own_weights(part: str, touched: tuple[str, ...]):
    weights, head = idle_motion(**{name: float(name == part) for name in ("blinks", "gaze", "head", "brows")})
    moved = np.abs(weights - STILL).max(axis=0) > 1e-6
    assert all(name.startswith(touched) for name, moves in zip(ARKIT_NAMES, moved, strict=True) if moves)
    assert moved.any() == bool(touched)
    assert (np.abs(head - np.eye(4)).max() > 1e-4) == (part == "head")


def test_the_head_moves_rigidly_and_little():
    head = idle_motion()[1].astype(np.float64)
    turns = head[:, :3, :3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-5)
    degrees = np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert degrees.max() < 8
    assert degrees.std() > 0.2


def test_eyes_turn_together():
    weights = idle_motion(blinks=0, brows=0, head=0)[0] - STILL
    out, into = (weights[:, ARKIT_NAMES.index(name)] for name in ("eyeLookOutLeft", "eyeLookInRight"))
    np.testing.assert_allclose(out, into, atol=1e-6)
    assert out.max() > 0.1


def test_accents_are_peaks_of_loudness():
    levels = np.full(200, -40, np.float32)
    levels[50:56] = levels[120:126] = -20
    speaking = np.ones(200, bool)
    assert [round(frame / 10) for frame, _ in find_accents(levels, speaking)] == [5, 12]


def test_the_face_moves_in_silence():
    found = generate_idle_motion(CALM, loudness(np.zeros(SECONDS * 16_000, np.float32)), FRAMES)
    assert len(blink_lengths(found.apply(STILL))) > 10
    assert np.abs(found.head).max() > 0.1


def test_a_single_frame_is_enough():
    found = generate_idle_motion(EmotionTrack.neutral(0.03), LEVELS[:1], 1)
    assert found.apply(STILL[:1]).shape == (1, 52)
    assert found.head.shape == (1, 3)


def test_blocks_of_frames_equal_the_whole():
    found = generate_idle_motion(CALM, LEVELS, FRAMES)
    parts = [found.apply(STILL[first : first + 333], first) for first in range(0, FRAMES, 333)]
    np.testing.assert_array_equal(np.concatenate(parts), found.apply(STILL))


def test_every_head_rotates_about_its_neck():
    face = load_face("man")
    head = head_transforms(generate_idle_motion(CALM, LEVELS, FRAMES).head, neck_pivot(face))
    eyes = face.template[[face.landmarks["eye_left_outer"], face.landmarks["eye_right_outer"]]].mean(axis=0)
    neck = np.append(eyes + NECK, 1)
    np.testing.assert_allclose(head @ neck, np.broadcast_to(neck, (FRAMES, 4)), atol=1e-5)
