"""Diarization metrics against published values and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from test_emotion_track_io import segmentations

from sedtalker.emotion.segments import Segment

pytest.importorskip("sklearn")

from sedtalker.evaluation.diarization import (
    auc,
    boundary_errors,
    change_times,
    classify,
    concordance,
    detect_insertions,
    eder,
    expected_calibration_error,
    fill_gaps,
    rank_correlation,
    unweighted_average_recall,
)


def test_eder_golden_case_of_the_literature():
    """speechbrain's test of EDER: n n n a a a at 0.2 s, 1.22 s long, angry from 0.39 to 1.10 s."""
    predicted = [Segment(0.0, 0.6, "neutral"), Segment(0.6, 1.22, "angry")]
    assert eder(predicted, [Segment(0.39, 1.10, "angry")], 1.22) == pytest.approx(0.2704918, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(segmentations(), segmentations())
def test_eder_equals_the_identification_error_rate_of_pyannote(predicted, reference):
    core = pytest.importorskip("pyannote.core")
    identification = pytest.importorskip("pyannote.metrics.identification")

    def annotation(segments):
        result = core.Annotation()
        for index, segment in enumerate(fill_gaps(segments, 21.0)):
            result[core.Segment(segment.start, segment.end), index] = segment.emotion
        return result

    theirs = identification.IdentificationErrorRate()(annotation(reference), annotation(predicted))
    assert eder(predicted, reference, 21.0) == pytest.approx(theirs, abs=1e-6)


def test_boundaries_and_switches():
    reference = [Segment(0, 1, "neutral"), Segment(1, 2, "happy"), Segment(2, 4, "neutral")]
    predicted = [Segment(0, 1.2, "neutral"), Segment(1.2, 4, "happy")]
    np.testing.assert_allclose(boundary_errors(predicted, reference), [0.2, 0.8])
    np.testing.assert_allclose(boundary_errors([Segment(0, 4, "sad")], reference), [1.0, 1.0])
    assert change_times(reference) == [1, 2]


def test_an_insertion_is_found_when_its_emotion_holds_half_of_it():
    reference = [Segment(0, 1, "neutral"), Segment(1, 1.5, "happy"), Segment(1.5, 3, "neutral")]
    half = [Segment(0, 1.2, "neutral"), Segment(1.2, 1.5, "happy"), Segment(1.5, 3, "neutral")]
    late = [Segment(0, 1.3, "neutral"), Segment(1.3, 3, "happy")]
    assert detect_insertions(half, reference) == [(0.5, True)]
    assert detect_insertions(late, reference) == [(0.5, False)]


def test_classification_by_hand():
    """Three classes, of which the second never occurs; counts of the true classes are 4, 0 and 4."""
    truth = np.array([0, 0, 0, 0, 2, 2, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    figures = classify(truth, predicted, ("neutral", "happy", "sad"))
    assert figures.recalls == {"neutral": 0.75, "sad": 0.5}
    assert figures.uar == unweighted_average_recall(truth, predicted) == pytest.approx(0.625)
    assert figures.accuracy == pytest.approx(5 / 8)
    assert figures.macro_f1 == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert figures.weighted_f1 == figures.macro_f1
    assert figures.confusion.tolist() == [[3, 1, 0], [0, 0, 0], [0, 2, 2]]


def test_weighted_f1_counts_each_class_by_its_frames():
    figures = classify(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ("neutral", "happy"))
    assert figures.weighted_f1 == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert figures.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_false_rates_of_a_class():
    ours = classify(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ("neutral", "happy"))
    assert ours.false_rates("happy") == pytest.approx((1 / 3, 0))
    assert ours.false_rates("neutral") == pytest.approx((0, 1 / 3))


def test_calibration_error():
    sure = np.full(100, 0.75)
    assert expected_calibration_error(sure, np.arange(100) < 75) == pytest.approx(0)
    assert expected_calibration_error(sure, np.arange(100) < 25) == pytest.approx(0.5)


def test_auc_counts_ties_half():
    positive = np.array([True, True, False, False])
    assert auc(np.array([0.9, 0.5, 0.5, 0.1]), positive) == pytest.approx(3.5 / 4)
    assert np.isnan(auc(np.ones(3), np.ones(3, bool)))


def test_rank_correlation_shares_the_ranks_of_ties():
    one, other = np.array([1.0, 2.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3, 0.4])
    assert rank_correlation(one, other) == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1])


def test_concordance_by_hand():
    one = np.array([0.0, 1.0, 2.0, 3.0])  # variance 1.25
    assert concordance(one, one) == pytest.approx(1)
    assert concordance(one, one + 5) == pytest.approx(2.5 / (2.5 + 25))
    assert concordance(one, 2 * one) == pytest.approx(5 / (1.25 + 5 + 1.5**2))
    assert np.isnan(concordance(np.ones(4), np.ones(4)))
