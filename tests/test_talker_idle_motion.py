"""Blinks, gaze, head and brows over a talker's coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.emotion.track import EmotionTrack
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.neck import NECK, neck_pivot
from sedtalker.labels import LABELS
from sedtalker.talker.idle_motion import (
    BLINK_LEAST,
    EMOTION_EFFECTS,
    Drift,
    IdleMotion,
    IdleMotionConfig,
    IdleMotionGenerator,
    head_transforms,
)

SECONDS = 120
FRAMES = SECONDS * 50
BLINK = ARKIT_NAMES.index("eyeBlinkLeft")
TIMES = np.arange(FRAMES) / 50
PHRASES = TIMES % 4 < 3


def sung_prosody() -> np.ndarray:
    """Phrases of three seconds and pauses of one; syllables of a fifth of a second; a pitch that rises and falls."""
    rng = np.random.default_rng(5)
    levels = np.where(PHRASES, rng.uniform(-35, -15, SECONDS * 5)[np.arange(FRAMES) // 10], -100)
    pitch = np.where(PHRASES & (TIMES % 0.2 < 0.15), 120 * 2 ** (0.4 * np.sin(2 * np.pi * 0.37 * TIMES)), 0)
    return np.stack([levels, pitch], axis=1).astype(np.float32)


PROSODY = sung_prosody()
STILL = np.full((FRAMES, 52), 0.1, np.float32)
CALM = EmotionTrack.neutral(SECONDS)


def generate(
    track: EmotionTrack = CALM, seed: int = 0, prosody: np.ndarray = PROSODY, **strengths: float
) -> IdleMotion:
    generator = IdleMotionGenerator(LABELS, seed, IdleMotionConfig(**strengths))
    return generator.push(prosody, *track.at_rate(50, len(prosody)))


def idle_motion(track: EmotionTrack = CALM, seed: int = 0, **strengths: float) -> tuple[np.ndarray, np.ndarray]:
    found = generate(track, seed, **strengths)
    return found.apply(STILL), head_transforms(found.head, neck_pivot(load_face()))


def whole_clip(emotion: str) -> EmotionTrack:
    track = EmotionTrack.neutral(SECONDS)
    track.set(emotion, 1.0)
    return track


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


def test_blinks_have_the_published_rate_and_half_are_partial():
    """Bentivoglio et al. 1997: 26 a minute in conversation, 17 at rest; the intervals are log-normal."""
    depths, intervals, lengths = [], [], []
    speech = PROSODY[np.arange(FRAMES) % 150]  # never a pause
    silence = np.tile(np.float32([-100, 0]), (FRAMES, 1))
    counts = {"speech": 0, "phrases": 0, "silence": 0}
    seeds = 20
    for seed in range(seeds):
        for name, prosody in (("speech", speech), ("phrases", PROSODY), ("silence", silence)):
            closed = generate(CALM, seed, prosody, gaze=0).lids
            edges = np.flatnonzero(np.diff(np.r_[0, closed > 0.02, 0]))
            starts, ends = edges[::2], edges[1::2]
            counts[name] += len(starts)
            if name != "silence":
                depths += [closed[first:last].max() for first, last in zip(starts, ends, strict=True)]
                intervals += list(np.diff(starts) / 50)
                half = np.diff(np.flatnonzero(np.diff(np.r_[0, closed > 0.5, 0])))[::2] / 50
                lengths += list(half)
    rates = {name: count / seeds / SECONDS * 60 for name, count in counts.items()}
    assert 25 <= rates["speech"] <= 27 and 24.5 <= rates["phrases"] <= 27 and 16 <= rates["silence"] <= 18
    assert 0.46 <= np.mean(np.array(depths) < 0.9) <= 0.54
    assert 0.1 <= np.median(lengths) <= 0.16
    logs = np.log(intervals)
    assert abs(((logs - logs.mean()) ** 3).mean()) < 0.5 * logs.std() ** 3  # far from skewed, as the intervals are
    assert ((np.array(intervals) - np.mean(intervals)) ** 3).mean() > 0.5 * np.std(intervals) ** 3
    assert min(intervals) >= BLINK_LEAST - 0.021


def test_a_lid_closes_faster_than_it_opens():
    blink = idle_motion()[0][:, BLINK]
    speed = np.diff(blink) * 50
    assert speed.max() > 1.2 * -speed.min()


def test_fear_blinks_less():
    assert len(blink_lengths(idle_motion(whole_clip("fear"))[0])) < 0.75 * len(blink_lengths(idle_motion()[0]))


def test_sadness_turns_gaze_and_head_down():
    sad, calm = generate(whole_clip("sad")), generate()
    down = EMOTION_EFFECTS["sad"].gaze_down
    eyes = [(part.gaze[:, 1] - part.head[:, 0]).mean() for part in (sad, calm)]  # in the room
    assert eyes[1] - eyes[0] > 0.5 * down
    assert sad.head[100:, 0].mean() - calm.head[100:, 0].mean() > 2


def test_the_same_seed_gives_the_same_motion():
    (first, head), (again, head_again), (other, _) = idle_motion(seed=3), idle_motion(seed=3), idle_motion(seed=4)
    assert (first == again).all()
    assert (head == head_again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("part", "touched"),
    [("blinks", ("eyeBlink", "eyeWide", "eyeSquint")), ("gaze", ("eye",)), ("brows", ("brow",)), ("head", ())],
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


def test_brows_and_lids_are_never_still_for_a_second_of_speech():
    for emotion in ("neutral", "sad", "surprise"):
        weights = generate(whole_clip(emotion), 1).apply(STILL)
        for parts in (("brow",), ("eyeBlink", "eyeWide", "eyeSquint")):
            moving = weights[:, [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(parts)]]
            ranges = [np.ptp(moving[first : first + 50], axis=0).max() for first in range(0, FRAMES - 50, 5)]
            assert min(ranges) > 0.004, (emotion, parts)


def test_the_head_follows_pitch_more_than_loudness():
    """Yehia et al. 2002; most of the head's movement is below 2 Hz."""
    rises = -generate(brows=0).head[:, 0].astype(float)
    voiced = PROSODY[:, 1] > 0
    with_pitch = np.corrcoef(rises[voiced], np.log2(PROSODY[voiced, 1]))[0, 1]
    with_loudness = np.corrcoef(rises[voiced], PROSODY[voiced, 0])[0, 1]
    assert with_pitch > 0.3 and with_pitch > with_loudness + 0.2
    power = np.abs(np.fft.rfft(rises - rises.mean())) ** 2
    assert power[np.fft.rfftfreq(FRAMES, 0.02) < 2].sum() > 0.95 * power.sum()


def test_the_head_nods_at_stressed_syllables():
    """It goes down within a third of a second of a loud syllable among quiet ones."""
    levels = np.full(1000, -40.0, np.float32)
    stressed = range(100, 900, 100)
    for first in stressed:
        levels[first : first + 8] = -20
    prosody = np.stack([levels, np.zeros(1000, np.float32)], axis=1)
    head = [IdleMotionGenerator(LABELS, seed).push(prosody, *CALM.at_rate(50, 1000)).head[:, 0] for seed in range(10)]
    quiet = np.stack([levels * 0 - 40, np.zeros(1000, np.float32)], axis=1)
    rest = [IdleMotionGenerator(LABELS, seed).push(quiet, *CALM.at_rate(50, 1000)).head[:, 0] for seed in range(10)]
    nods = np.mean(head, axis=0) - np.mean(rest, axis=0)
    peaks = [nods[first : first + 24].max() - nods[first] for first in stressed]
    assert min(peaks) > 0.3


def test_a_nod_starts_smoothly():
    """95 % of a real speaker's head speeds are below 17 degrees/s (GRID s1); ours never exceed that by a nod."""
    levels = np.full(1000, -40.0, np.float32)
    for first in range(100, 900, 100):
        levels[first : first + 8] = -20
    prosody = np.stack([levels, np.zeros(1000, np.float32)], axis=1)
    pitch = np.stack(
        [IdleMotionGenerator(LABELS, seed).push(prosody, *CALM.at_rate(50, 1000)).head[:, 0] for seed in range(10)]
    )
    speed = np.diff(pitch, axis=1) * 50
    assert np.ptp(pitch[:, 100:150], axis=1).max() > 1.2  # degrees: the nods are there
    assert np.abs(speed).max() < 17
    assert np.abs(np.diff(speed, axis=1)).max() < 7  # within a frame; it was 32


def test_the_face_moves_in_silence():
    silence = np.tile(np.float32([-100, 0]), (FRAMES, 1))
    found = generate(prosody=silence)
    assert len(blink_lengths(found.apply(STILL))) > 10
    assert not found.speech.any()
    moves = [np.ptp(found.head[first : first + 250], axis=0).max() for first in range(0, FRAMES - 250, 50)]
    assert min(moves) > 0.1


@pytest.mark.parametrize("noise", [-50.0, -30.0])
def test_steady_noise_is_no_speech(noise: float):
    levels = noise + np.random.default_rng(0).normal(0, 1, FRAMES)
    found = generate(prosody=np.stack([levels, np.zeros(FRAMES)], axis=1).astype(np.float32))
    assert found.speech[20 * 50 :].mean() < 0.02


def test_blocks_of_frames_equal_the_whole():
    whole, generator = generate(seed=7), IdleMotionGenerator(LABELS, 7)
    emotion = CALM.at_rate(50, FRAMES)
    sizes = [0, 1, 333, 2, 4000]
    parts = [
        generator.push(*(x[a : a + n] for x in (PROSODY, *emotion)))
        for a, n in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)
    ]
    for one, other in zip(whole, zip(*parts, strict=True), strict=True):
        joined = np.concatenate(other)
        np.testing.assert_allclose(one[: len(joined)], joined, atol=1e-6)


def test_a_drift_is_smooth_noise():
    drift = Drift(np.random.default_rng(0), (0.1, 1.0), 200)(0, 5000)
    assert drift.std() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(Drift(np.random.default_rng(0), (0.1, 1.0), 200)(4000, 10), drift[4000:4010], atol=1e-9)


def test_every_head_rotates_about_its_neck():
    face = load_face("man")
    head = head_transforms(generate().head, neck_pivot(face))
    eyes = face.template[[face.landmarks["eye_left_outer"], face.landmarks["eye_right_outer"]]].mean(axis=0)
    neck = np.append(eyes + NECK, 1)
    np.testing.assert_allclose(head @ neck, np.broadcast_to(neck, (FRAMES, 4)), atol=1e-5)
