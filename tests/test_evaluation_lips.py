"""Lip metrics of gaps with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.evaluation.lips import (
    audio_lip_offset,
    closure_metrics,
    deviation,
    jitter,
    lip_gap,
    lip_gap_of_weights,
    movement_around_sound,
    opening_and_closing_speed,
    pool,
    rounding,
    silence_opening,
    spectral_edge,
    speech_frames,
    speech_span,
    speeds_at_closures,
    vowel_openings,
)
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.phones import LONG_PAUSE, Phone

FPS = 50


def phones(*parts: tuple[str, float, float]) -> list[Phone]:
    return [Phone("w", name, start, end) for name, start, end in parts]


SENTENCE = phones(
    ("SIL", 0.0, 0.5), ("AA", 0.5, 1.0), ("B", 1.0, 1.1), ("AA", 1.1, 2.0), ("T", 2.0, 2.1), ("AA", 2.1, 3.0),
    ("M", 3.0, 3.1), ("AA", 3.1, 3.5), ("SIL", 3.5, 4.0),
)  # fmt: skip


def open_gap() -> np.ndarray:
    """10 mm while speaking, 0 in silence, frame i at (i + 0.5) / 50 s."""
    gap = np.zeros(200)
    gap[25:175] = 0.010
    return gap


def test_a_closure_at_one_of_two_bilabials_is_half_the_recall():
    gap = open_gap()
    gap[50:55] = 0.0  # 1.00 to 1.10 s, the /b/; the /m/ stays open
    summary = closure_metrics(gap, SENTENCE, FPS).summary()
    assert summary["closure_recall"] == 0.5
    assert summary["bilabials"] == 2
    # under 1.5 mm from 1.5 mm/10 mm of a frame before the first zero frame (1.01 s) to as much after the last (1.09 s)
    assert summary["closure_seconds"] == pytest.approx(0.08 + 2 * 0.15 / FPS)
    assert summary["apex_error_seconds"] == pytest.approx(0.0)


def test_the_window_is_sixty_milliseconds():
    late = open_gap()
    late[54:57] = 0.0  # from 1.09 s on, 90 ms after the /b/ started
    assert closure_metrics(late, SENTENCE, FPS).closed_bilabials == 0


def test_a_phone_far_from_labials_that_closes_is_false_contact():
    gap = open_gap()
    spoken = phones(("SIL", 0, 0.5), ("AA", 0.5, 1.5), ("T", 1.5, 1.6), ("AA", 1.6, 2.5), ("SIL", 2.5, 3.0))
    assert closure_metrics(gap, spoken, FPS).summary()["false_contact"] == 0
    gap[75:80] = 0
    figures = closure_metrics(gap, spoken, FPS)
    assert (figures.closed_others, figures.others) == (2, 2)  # the /t/, and the vowel that starts as it ends


def test_bilabials_next_to_silence_do_not_count():
    assert closure_metrics(open_gap(), phones(("SIL", 0, 0.5), ("M", 0.5, 0.6), ("AA", 0.6, 2)), FPS).bilabials == 0


def test_open_vowels_are_measured_against_closures():
    gap = open_gap()
    gap[50:55] = gap[150:155] = 0.001
    assert closure_metrics(gap, SENTENCE, FPS).summary()["open_vowel_over_closure"] == pytest.approx(10)


def test_pooling_adds_counts():
    gap = open_gap()
    gap[50:55] = 0
    one = closure_metrics(gap, SENTENCE, FPS)
    both = pool([one, one])
    assert (both.bilabials, both.closed_bilabials, len(both.durations)) == (4, 2, 2)


@pytest.mark.parametrize("frames", [-3, 0, 4])
def test_the_offset_is_the_shift(frames: int):
    sound = np.random.default_rng(0).normal(size=400)
    sound = np.convolve(sound, np.hanning(9), mode="same")
    assert audio_lip_offset(np.roll(sound, frames), sound, FPS) == pytest.approx(frames / FPS, abs=2e-3)


def test_silence_has_no_offset():
    assert np.isnan(audio_lip_offset(np.random.default_rng(0).normal(size=400), np.full(400, -100.0), FPS))


def test_the_spectral_edge_is_above_the_slow_wave_and_at_the_fast_one():
    times = np.arange(1000) / FPS
    slow, fast = np.sin(2 * np.pi * 2 * times), np.sin(2 * np.pi * 8 * times)
    assert spectral_edge([slow], FPS) == pytest.approx(2, abs=0.15)
    assert spectral_edge([slow + 0.5 * fast], FPS) == pytest.approx(8, abs=0.15)  # a fifth of the variance is fast


def test_speeds_distinguish_opening_from_closing():
    ramp = np.r_[np.linspace(0, 1, 51), np.linspace(1, 0, 26)[1:]]  # a second up, half a second down
    opening, closing = opening_and_closing_speed(ramp, FPS)
    height = np.percentile(ramp, 95)
    assert opening == pytest.approx(1 / height)
    assert closing == pytest.approx(2 / height)


def test_jitter_is_the_third_derivative():
    times = np.arange(50) / FPS
    lips = np.zeros((50, 2, 3))
    lips[:, :, 1] = (times**3)[:, None]
    assert jitter(lips, FPS) == pytest.approx(6.0)
    assert jitter(np.cumsum(np.ones((50, 2, 3)), axis=0), FPS) == pytest.approx(0, abs=1e-6)


def test_silence_leaves_the_lips_time_to_close():
    gap = open_gap()
    gap[175:181] = 0.005  # 3.5 to 3.62 s
    levels = np.where(speech_frames(SENTENCE, 200, FPS), -20.0, -70.0)
    assert silence_opening(gap, SENTENCE, levels, FPS) == 0
    gap[185] = 0.002
    assert silence_opening(gap, SENTENCE, levels, FPS) == 0.002
    levels[175:184] = -35.0  # the speech ends later than the aligned phones
    assert silence_opening(gap, SENTENCE, levels, FPS) == 0


def test_lips_may_stay_parted_in_a_short_pause_but_not_in_a_long_one():
    levels = np.full(100, -70.0)
    levels[:25] = levels[75:] = -20.0
    for pause, expected in ((LONG_PAUSE - 0.1, np.nan), (LONG_PAUSE + 0.1, 0.004)):
        phones = [Phone("a", "AA", 0.0, 0.6), Phone("", "SIL", 0.6, 0.6 + pause), Phone("a", "AA", 0.6 + pause, 2.0)]
        np.testing.assert_equal(silence_opening(np.full(100, 0.004), phones, levels, 50.0), expected)


def test_rounding_compares_rounded_with_open_vowels():
    weights = np.zeros((100, 52))
    weights[0:50, ARKIT_NAMES.index("mouthPucker")] = 0.6
    weights[50:100, ARKIT_NAMES.index("mouthFunnel")] = 0.2
    assert rounding(weights, phones(("UW", 0, 1), ("AA", 1, 2)), FPS) == pytest.approx(3)


def test_the_gap_of_weights_is_the_gap_of_the_posed_face():
    face = load_face()
    weights = np.zeros((3, 52), np.float32)
    weights[1, ARKIT_NAMES.index("jawOpen")] = 0.3
    weights[2, [ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthClose")]] = 0.3
    gap = lip_gap(face.pose(weights), face)
    np.testing.assert_allclose(gap, lip_gap_of_weights(weights, face), atol=1e-6)
    assert gap[1] > 0.008
    assert gap[2] < 0.001


def test_speeds_at_a_closure_are_those_around_it():
    gap = open_gap()
    gap[50:55] = 0.0  # shut within a frame, opened again over five
    gap[55:60] = 0.010 * np.arange(1, 6) / 6
    closing, opening = speeds_at_closures(gap, SENTENCE, FPS)
    assert closing[0] == pytest.approx(FPS)
    assert opening[0] == pytest.approx(FPS / 6)


def test_vowel_openings_by_class():
    gap = open_gap()
    gap[150:175] = 0.005  # the last /aa/ is half as wide
    wide = vowel_openings(gap, SENTENCE, FPS)
    assert wide["open"] == pytest.approx([1, 1, 1, 0.5], rel=1e-6)
    assert wide["middle"] == wide["close"] == []


def test_movement_begins_before_the_sound_and_ends_after_it():
    weights, decibels = np.zeros((200, len(ARKIT_NAMES)), np.float32), np.full(200, -70.0, np.float32)
    decibels[25:175] = -20.0  # 0.5 to 3.5 s
    weights[22:178, ARKIT_NAMES.index("mouthFunnel")] = 0.2  # 0.44 to 3.56 s
    leads, rests = movement_around_sound(weights, decibels, FPS)
    assert leads == pytest.approx([0.06])
    assert rests == pytest.approx([0.06])
    weights[:] = 0
    weights[:, ARKIT_NAMES.index("jawOpen")] = weights[:, ARKIT_NAMES.index("mouthClose")] = decibels > -50
    assert movement_around_sound(weights, decibels, FPS) == ([], [])  # a jaw under closed lips is not seen


@pytest.mark.parametrize("frames", [15, 20, 30])
def test_a_pause_within_speech_has_an_end_and_a_start_and_a_stop_has_none(frames: int):
    weights, decibels = np.zeros((200, len(ARKIT_NAMES)), np.float32), np.full(200, -20.0, np.float32)
    decibels[50:54] = decibels[100 : 100 + frames] = -70.0  # a stop of 0.08 s, and a pause
    weights[:, ARKIT_NAMES.index("jawOpen")] = 0.5
    weights[105 : 100 + frames - 4, ARKIT_NAMES.index("jawOpen")] = 0.0
    leads, rests = movement_around_sound(weights, decibels, FPS)
    assert leads == pytest.approx([0.08])
    assert rests == pytest.approx([0.10])


def test_a_mouth_that_never_rests_is_not_left_out():
    weights, decibels = np.zeros((200, len(ARKIT_NAMES)), np.float32), np.full(200, -20.0, np.float32)
    decibels[100:130] = -70.0
    weights[:, ARKIT_NAMES.index("jawOpen")] = np.where(np.arange(200) % 2, 0.5, 0.2)  # the least, now and then
    weights[100:130, ARKIT_NAMES.index("mouthFunnel")] = np.where(np.arange(30) % 2, 0.0, 0.5)
    assert movement_around_sound(weights, decibels, FPS) == ([], [0.6])


def test_speech_frames_are_those_of_phones():
    spoken = speech_frames(SENTENCE, 200, FPS)
    assert spoken.tolist() == [25 <= frame < 175 for frame in range(200)]
    assert speech_span(SENTENCE, 200, FPS) == slice(15, 185)
    assert speech_span(SENTENCE[:1], 200, FPS) == slice(0, 200)


def test_deviation_is_root_mean_square_motion():
    vertices = np.zeros((100, 3, 3))
    vertices[:, :, 1] = 0.002 * np.sign(np.sin(np.arange(100) + 0.5))[:, None]
    assert deviation(vertices) == pytest.approx(0.002, rel=0.02)
