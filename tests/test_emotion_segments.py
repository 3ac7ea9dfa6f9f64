"""Operations on segments, against pyannote.core where it has the same one."""

from __future__ import annotations

import pytest

from sedtalker.emotion.segments import (
    Segment,
    check_segment,
    clip_segments,
    neutral_gaps,
    overlay,
    scale_segments,
    sort_segments,
    split_segment,
)
from sedtalker.errors import TrackError

HAPPY, SAD = Segment(1.0, 3.0, "happy", 0.6), Segment(4.0, 5.0, "sad", 0.5)


def spans(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(segment.start, segment.end) for segment in segments]


def test_a_segment_is_split_only_at_times_inside_it() -> None:
    assert spans(split_segment(HAPPY, 0.5, 2.0)) == [(1.0, 2.0), (2.0, 3.0)]
    assert spans(split_segment(HAPPY, 1.0, 3.0)) == [(1.0, 3.0)]
    assert spans(split_segment(HAPPY, 1.5, 2.5)) == [(1.0, 1.5), (1.5, 2.5), (2.5, 3.0)]


def test_overlay_keeps_the_rest_of_the_segments() -> None:
    edit = Segment(2.0, 4.5, "fear")
    result = overlay([SAD, HAPPY], edit)
    assert [segment.emotion for segment in result] == ["happy", "fear", "sad"]
    assert spans(result) == [(1.0, 2.0), (2.0, 4.5), (4.5, 5.0)]


def test_scaling_changes_only_the_pieces_in_the_span_and_stops_at_one() -> None:
    result = scale_segments([HAPPY, SAD], 10.0, 2.0, 4.5)
    assert spans(result) == [(1.0, 2.0), (2.0, 3.0), (4.0, 4.5), (4.5, 5.0)]
    assert [segment.intensity for segment in result] == [0.6, 1.0, 1.0, 0.5]


def test_clipping_counts_times_from_the_start() -> None:
    assert spans(clip_segments([HAPPY, SAD], 2.0, 2.5)) == [(0.0, 1.0), (2.0, 2.5)]
    assert clip_segments([HAPPY], 3.0, 1.0) == []


def test_gaps_and_segments_cover_the_whole_duration() -> None:
    core = pytest.importorskip("pyannote.core")
    gaps = neutral_gaps([HAPPY, SAD], 6.0)
    timeline = core.Timeline([core.Segment(*span) for span in spans([HAPPY, SAD])])
    assert spans(gaps) == [(gap.start, gap.end) for gap in timeline.gaps(core.Segment(0, 6))]
    assert spans(neutral_gaps([HAPPY, SAD], 5.0005, shortest=0.002)) == [(0.0, 1.0), (3.0, 4.0)]


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (Segment(1.0, 1.0, "happy"), "no length"),
        (Segment(-1.0, 1.0, "happy"), "no length"),
        (Segment(0.0, float("nan"), "happy"), "no length"),
        (Segment(0.0, 2.5, "happy"), "beyond the audio"),
        (Segment(0.0, 1.0, "happy", 1.5), "intensity 1.5"),
        (Segment(0.0, 1.0, "happy", 1.0, -0.1), "confidence -0.1"),
    ],
)
def test_invalid_segments_are_refused(segment: Segment, reason: str) -> None:
    with pytest.raises(TrackError, match=reason):
        check_segment(segment, 2.0)


def test_segments_are_sorted_and_must_not_overlap() -> None:
    assert sort_segments([SAD, HAPPY], 6.0) == [HAPPY, SAD]
    with pytest.raises(TrackError, match="overlap"):
        sort_segments([HAPPY, Segment(2.9, 3.5, "sad")], 6.0)
