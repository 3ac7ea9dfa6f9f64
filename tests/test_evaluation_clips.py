"""Figures of clips by group: rates against counts by hand, intervals by speaker, and the largest gaps first."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sedtalker.data.manifest import Utterance
from sedtalker.evaluation.bootstrap import draw_counts, interval, mean_interval, show
from sedtalker.evaluation.clips import (
    ClipPrediction,
    age_band,
    calibration_errors,
    clip_metrics,
    contradictions,
    group_names,
    largest_gaps,
)
from sedtalker.evaluation.diarization import expected_calibration_error

LABELS = ("neutral", "happy", "angry")


def made_clip(
    speaker: str, emotion: str, predicted: str, number: int = 0, sure: float = 0.8, **fields
) -> ClipPrediction:
    """A clip of ten frames that are all predicted as one emotion."""
    fields = {"gender": "female", "language": "en", **fields}
    item = Utterance(f"made/{speaker}-{emotion}-{number}", "", "made", speaker, emotion=emotion, **fields)
    posterior = np.full((10, 3), (1 - sure) / 2, np.float32)
    posterior[:, LABELS.index(predicted)] = sure
    return ClipPrediction(item, posterior, np.full(10, 0.5, np.float32), LABELS.index(emotion))


@pytest.fixture
def clips() -> list[ClipPrediction]:
    """Women are recognised; a third of the angry clips of men are called happy, and all of one man's."""
    made = []
    for speaker, gender, wrong in (("a", "female", 0), ("b", "female", 0), ("c", "male", 0), ("d", "male", 12)):
        for number in range(12):
            for emotion in LABELS:
                predicted = "happy" if emotion == "angry" and number < wrong else emotion
                made.append(made_clip(speaker, emotion, predicted, number, gender=gender))
    return made


def test_rates_and_recalls_are_those_of_the_counts(clips):
    figures = clip_metrics(clips, LABELS)
    assert figures["uar"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert figures["false_rates"]["happy"] == pytest.approx((12 / 96, 0))
    intervals = figures["intervals"]
    assert intervals["uar"]["value"] == pytest.approx(figures["uar"])
    assert intervals["clip_uar"]["value"] == pytest.approx(figures["clip_uar"])
    assert intervals["false_negative"]["angry"]["value"] == pytest.approx(0.25)
    assert intervals["false_positive"]["happy"]["value"] == pytest.approx(12 / 96)
    assert intervals["calibration_error"]["value"] == pytest.approx(figures["calibration_error"], abs=1e-5)


def test_the_interval_is_over_speakers_and_not_over_clips(clips):
    wide = clip_metrics(clips, LABELS)["intervals"]["false_negative"]["angry"]
    assert (wide["low"], wide["high"]) == (0.0, 0.75)  # four speakers of whom one fails: none to three of four drawn


def test_the_largest_gap_is_first_and_names_both_groups(clips):
    gaps = largest_gaps(clips, LABELS)
    first = gaps[0]
    assert (first["kind"], first["figure"]) == ("speaker in made", "false negatives of angry")
    assert (first["worst"], first["worst_value"], first["best_value"]) == ("made/d", 1.0, 0.0)
    assert [gap["gap"]["value"] for gap in gaps] == sorted((gap["gap"]["value"] for gap in gaps), reverse=True)
    sex = next(gap for gap in gaps if gap["kind"] == "sex in made" and gap["figure"] == "UAR")
    assert (sex["worst"], sex["best"], sex["gap"]["value"]) == ("made/male", "made/female", pytest.approx(1 / 6))
    assert sex["gap"]["low"] == 0.0 and sex["gap"]["high"] == pytest.approx(1 / 3)


def test_small_groups_are_not_ranked(clips):
    few = [made_clip("e", "angry", "neutral", number, gender="male") for number in range(3)]
    assert all("made/e" not in (gap["worst"], gap["best"]) for gap in largest_gaps([*clips, *few], LABELS))


def test_calibration_error_is_that_of_torchmetrics():
    rng = np.random.default_rng(0)
    clips = []
    for number in range(40):
        clip = made_clip("a", "happy", "happy", number, sure=float(rng.uniform(0.4, 0.99)))
        clips.append(clip if rng.random() < 0.6 else made_clip("a", "angry", "happy", number, sure=0.9))
    ours = calibration_errors(clips, np.ones((1, len(clips))))[0]
    confidence = np.concatenate([clip.posterior.max(1) for clip in clips])
    correct = np.concatenate([clip.posterior.argmax(1) == clip.truth for clip in clips])
    assert ours == pytest.approx(expected_calibration_error(confidence, correct), abs=1e-5)


def test_contradictions_are_sure_emotions_without_intensity():
    posterior = np.array([[0.02, 0.95, 0.03], [0.02, 0.95, 0.03], [0.95, 0.02, 0.03], [0.5, 0.4, 0.1]], np.float32)
    intensity = np.array([0.05, 0.5, 0.0, 0.0], np.float32)
    assert contradictions(posterior, intensity, 0) == 0.25


def test_bands_of_age_and_groups_without_a_value():
    assert [age_band(age) for age in (21, 30, 44, 59, 60, 74)] == [
        "under 30", "30 to 44", "30 to 44", "45 to 59", "60 and over", "60 and over"
    ]  # fmt: skip
    names = group_names(made_clip("a", "happy", "happy", age=21, channel="studio").utterance)
    assert names["age in made"] == "made/under 30" and names["channel"] == "all/studio"
    assert {"age", "channel", "age in made"}.isdisjoint(group_names(made_clip("a", "happy", "happy").utterance))


def test_a_mean_has_its_interval_over_groups():
    figure = mean_interval([0.0, 0.0, 1.0, float("nan")], ["a", "a", "b", "b"])
    assert figure["value"] == pytest.approx(1 / 3) and (figure["low"], figure["high"]) == (0.0, 1.0)
    counts = draw_counts(["a", "a", "b"], 3)
    assert (counts[0] == 1).all() and (counts[:, 0] == counts[:, 1]).all() and set(counts[1:, 0]) == {0, 1, 2}
    assert interval(np.array([np.nan, 1.0])) == {"value": None, "low": None, "high": None}
    assert show(figure, 2) == "0.33 [0.00, 1.00]" and show({"value": None, "low": None, "high": None}) == "-"
