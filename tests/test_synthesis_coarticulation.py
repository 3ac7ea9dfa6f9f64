"""Motion by rules follows its phones and its emotion track."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.emotion.track import constant_track, random_track
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.mouth_measures import GAP
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.phones import LONG_PAUSE, Phone
from sedtalker.synthesis.coarticulation import (
    CONTACT_OPENING,
    Performance,
    SpeakerStyle,
    default_measures,
    perform,
)

JAW, PUCKER, ROLL, SMILE = (
    ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthPucker", "mouthRollLower", "mouthSmileLeft")
)


def phones_of(*phones: tuple[str, float]) -> list[Phone]:
    """Phones of these lengths in seconds, between half a second of silence on either side."""
    phones_at, time = [], 0.0
    for name, seconds in (("SIL", 0.5), *phones, ("SIL", 0.5)):
        phones_at.append(Phone("word", name, time, time + seconds))
        time += seconds
    return phones_at


def animate(phones: list[Phone], label: str = "neutral", intensity: float = 0.0, decibels: float = -20) -> Performance:
    frames = round(phones[-1].end * 50)
    levels = np.full(frames, -70, np.float32)
    for phone in phones:
        if phone.name != "SIL":
            levels[round(phone.start * 50) : round(phone.end * 50)] = decibels
    return perform(phones, levels, *constant_track(label, intensity, frames))


def opening(performance: Performance) -> np.ndarray:
    """The gap between the lips in units of jawOpen."""
    measures = default_measures()
    return np.maximum(performance.weights @ measures.matrix[:, GAP], 0) / measures.matrix[JAW, GAP]


ABA = phones_of(("AA", 0.2), ("B", 0.08), ("AA", 0.2))


def test_a_bilabial_between_open_vowels_closes_at_its_start_and_opens_again():
    gap = opening(animate(ABA))
    middle = gap[35:39]  # 0.70 to 0.78 s, the /b/
    assert middle.min() < 1e-6
    assert gap[25:35].max() > 0.25
    assert gap[40:48].max() > 0.25


@pytest.mark.parametrize("label", LABELS)
def test_an_emotion_does_not_open_a_closure(label: str):
    performance = animate(ABA, label, 1.0)
    shut = performance.closed > 0
    assert shut.sum() >= 2
    assert opening(performance)[shut].max() < 0.01  # 0.3 mm
    for name in ("mouthLowerDownLeft", "mouthUpperUpLeft", "mouthFunnel"):
        assert performance.weights[shut, ARKIT_NAMES.index(name)].max() < 0.01


def test_closed_marks_only_bilabials():
    assert animate(phones_of(("AA", 0.2), ("S", 0.1), ("F", 0.1), ("UW", 0.2))).closed.max() == 0


def test_the_lower_lip_stays_at_the_teeth_for_most_of_a_labiodental():
    """Where the lower lip is furthest back, the lips are near, also in a long /v/ between open vowels."""
    performance = animate(phones_of(("AA", 0.2), ("V", 0.2), ("AA", 0.2)))
    inside = slice(36, 44)  # 0.70 to 0.90 s, without a frame at either end
    np.testing.assert_allclose(opening(performance)[inside], CONTACT_OPENING, atol=0.02)


def test_postalveolars_are_marked_as_protruded():
    performance = animate(phones_of(("AA", 0.2), ("SH", 0.1), ("S", 0.1), ("UW", 0.2)))
    assert performance.protruded[36:39].min() == 1
    assert performance.protruded[:30].max() == performance.protruded[46:].max() == 0


def test_labiodentals_bring_the_lower_lip_to_the_teeth():
    performance = animate(phones_of(("AA", 0.2), ("F", 0.12), ("AA", 0.2)))
    at = 38  # 0.76 s, the middle of the /f/
    assert 0.03 < opening(performance)[at] < 0.11  # open enough to see the upper teeth
    assert performance.weights[at, ROLL] > 0.5


def test_rounding_comes_before_its_vowel():
    pucker = animate(phones_of(("T", 0.1), ("UW", 0.3), ("T", 0.1))).weights[:, PUCKER]
    assert pucker[35:40].min() > 0.4
    assert pucker[29] > 0.15  # 0.58 s; the vowel starts at 0.60


def test_silence_is_at_rest():
    performance = animate(ABA)
    at_rest = np.r_[0:15, -12:0]
    assert np.abs(performance.weights[at_rest]).max() < 0.02


@pytest.mark.parametrize("label", ["happy", "surprise", "fear", "disgust"])
def test_an_emotion_does_not_open_silent_lips(label: str):
    performance = animate(ABA, label, 1.0)
    quiet = performance.quiet > 0
    assert quiet.sum() > 20
    assert opening(performance)[quiet].max() < 0.01
    assert performance.weights[quiet, ARKIT_NAMES.index("mouthUpperUpLeft")].max() < 0.02


def test_silence_lasts_to_the_end_of_a_recording_with_a_partial_frame():
    phones, frames = phones_of(("AA", 0.2)), 60
    phones[-1] = Phone("", "SIL", phones[-1].start, 1.18)  # of a recording of 1.185 s
    last = perform(phones, np.full(frames, -20, np.float32), *constant_track("neutral", 0.0, frames))
    assert last.quiet[-10:].tolist() == [1.0] * 10
    assert not last.free[-10:].any()


def test_lips_close_within_an_eighth_of_a_second_after_the_sound():
    performance = animate(ABA)
    assert opening(performance)[round((0.98 + 0.125) * 50) :].max() < 0.02  # the last vowel ends at 0.98 s


@pytest.mark.parametrize(("seconds", "closed"), [(LONG_PAUSE - 0.1, False), (LONG_PAUSE + 0.1, True)])
def test_lips_close_in_long_pauses_only(seconds: float, closed: bool):
    performance = animate(phones_of(("AA", 0.3), ("SIL", seconds), ("AA", 0.3)))
    pause = slice(round(0.8 * 50), round((0.8 + seconds) * 50))
    assert bool(performance.quiet[pause].any()) == closed
    assert (performance.free[pause].min() == 0) == closed


def test_a_mouth_closes_for_a_bilabial_faster_than_it_opens():
    change = np.diff(opening(animate(ABA)))
    assert -change[28:36].min() > 1.1 * change[36:50].max()


def test_angry_speech_opens_wider_and_sad_speech_less():
    angry, calm, sad = (opening(animate(ABA, label, 1.0))[25:35].max() for label in ("angry", "neutral", "sad"))
    assert angry > 1.08 * calm and sad < 0.95 * calm


def test_rounding_reduces_a_smile():
    smile = animate(phones_of(("T", 0.1), ("UW", 0.3), ("T", 0.1)), "happy", 1.0).weights[:, SMILE]
    assert 0.6 * smile[5] < smile[37] < 0.8 * smile[5]  # a rounded mouth still smiles


def test_louder_speech_opens_wider():
    phones = phones_of(("AA", 0.3), ("T", 0.1), ("AA", 0.3))
    levels = np.full(round(phones[-1].end * 50), -70, np.float32)
    levels[25:40], levels[40:60] = -30, -18
    track = constant_track("neutral", 0, len(levels))
    gap = opening(perform(phones, levels, *track))
    assert gap[48:58].max() > 1.1 * gap[27:38].max()


def test_weights_without_expression_are_the_neutral_motion():
    neutral, happy = animate(ABA), animate(ABA, "happy", 0.8)
    np.testing.assert_allclose(happy.weights - happy.expression, neutral.weights, atol=1e-6)
    assert happy.expression[:, SMILE].max() > 0.4
    assert np.abs(neutral.expression).max() == 0


# Action units of the basic emotions (Ekman & Friesen 1983, EMFACS) as ARKit's blendshapes, and blendshapes of others.
PROTOTYPES = {
    "happy": (("mouthSmile", "cheekSquint"), ("mouthFrown", "browDown", "noseSneer")),
    "sad": (("browInnerUp", "mouthFrown"), ("mouthSmile", "eyeWide", "noseSneer")),
    "angry": (("browDown", "eyeSquint"), ("browInnerUp", "browOuterUp", "mouthSmile")),
    "fear": (("browInnerUp", "eyeWide", "mouthStretch"), ("mouthSmile", "cheekSquint", "noseSneer")),
    "surprise": (("browInnerUp", "browOuterUp", "eyeWide"), ("browDown", "eyeSquint", "mouthFrown")),
    "disgust": (("noseSneer", "mouthFrown"), ("eyeWide", "browOuterUp", "mouthSmile")),
}


@pytest.mark.parametrize("label", sorted(PROTOTYPES))
def test_an_emotion_shows_its_action_units_and_no_others(label: str):
    expression = animate(ABA, label, 1.0).expression[5]  # before speech

    def size(name: str) -> float:
        return max(abs(float(expression[i])) for i, channel in enumerate(ARKIT_NAMES) if channel.startswith(name))

    shown, absent = PROTOTYPES[label]
    assert min(map(size, shown)) > 0.15
    assert max(map(size, absent)) < 0.05


@pytest.mark.parametrize("label", [label for label in LABELS if label != "neutral"])
def test_an_expression_grows_with_the_intensity(label: str):
    sizes = [np.abs(animate(ABA, label, level).expression).sum() for level in (0.3, 0.6, 1.0)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_speaker_styles_differ_by_seed():
    styles = [SpeakerStyle.random(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert styles[0] == styles[1] != styles[2]


def test_random_tracks_are_valid_and_sometimes_neutral():
    rng = np.random.default_rng(0)
    neutral = 0
    for _ in range(200):
        posterior, intensity = random_track(150, rng)
        np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-5)
        assert intensity.min() >= 0
        assert intensity.max() <= 1
        assert intensity[posterior[:, NEUTRAL] == 1].sum() == 0
        neutral += intensity.max() == 0
    assert 10 < neutral < 70


def test_tongue_shows_at_its_phones_and_never_at_others():
    weights = animate(phones_of(("AA", 0.2), ("TH", 0.12), ("AA", 0.2), ("K", 0.1), ("AA", 0.2))).weights
    tongue = weights[:, ARKIT_NAMES.index("tongueOut")]
    assert tongue[35:41].max() > 0.4  # 0.70 to 0.82 s
    assert tongue[45:].max() == 0


def test_shape_of_the_lips_leaves_their_gap_alone():
    """/sh/ is a wide funnel, whose own gap of 7 mm would open the mouth by half as much again."""
    performance = animate(phones_of(("SH", 0.3)))
    assert performance.weights[30, ARKIT_NAMES.index("mouthFunnel")] > 0.5
    assert opening(performance)[30] < 0.25
