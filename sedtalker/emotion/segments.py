"""Segments of an emotion track: checks, and operations on lists of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import TrackError

TRACK_RATE = 50.0  # Hz, the rate of the speech features
TOUCHING = 1e-6  # s; segments closer than this have a common boundary


@dataclass(frozen=True)
class Segment:
    """One emotion from `start` to `end`, in seconds."""

    start: float
    end: float
    emotion: str
    intensity: float = 1.0  # 0..1
    confidence: float = 1.0  # 0..1

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


def check_segment(segment: Segment, duration: float) -> None:
    """Check that a segment has a length, ends within `duration` seconds and holds values in 0..1.

    Raises:
        TrackError: it does not.
    """
    span = f"{segment.start:g}-{segment.end:g} s"
    if not (math.isfinite(segment.start) and math.isfinite(segment.end) and 0 <= segment.start < segment.end):
        raise TrackError(
            f"segment {span} ({segment.emotion}): it has no length. Its end must be after its start, which is 0 or more"
        )
    if segment.end > duration + 0.5 / TRACK_RATE:
        raise TrackError(f"segment {span} ({segment.emotion}): it ends beyond the audio of {duration:g} s. Shorten it")
    for name, value in (("intensity", segment.intensity), ("confidence", segment.confidence)):
        if not 0 <= value <= 1:
            raise TrackError(f"segment {span} ({segment.emotion}): {name} {value:g}. It must be in 0..1")


def sort_segments(segments: Sequence[Segment], duration: float) -> list[Segment]:
    """Sort segments by time, and check each of them. Raises TrackError as it, and if two overlap."""
    ordered = sorted(segments, key=lambda segment: segment.start)
    for segment in ordered:
        check_segment(segment, duration)
    for before, after in itertools.pairwise(ordered):
        if after.start < before.end - TOUCHING:
            raise TrackError(
                f"segments overlap: {before.emotion} until {before.end:g} s and {after.emotion} at {after.start:g} s. "
                "Let one end where the other starts"
            )
    return ordered


def split_segment(segment: Segment, start: float, end: float) -> list[Segment]:
    """Split a segment at `start` and `end`, where these are inside it."""
    edges = [segment.start, *(time for time in (start, end) if segment.start < time < segment.end), segment.end]
    return [replace(segment, start=first, end=last) for first, last in itertools.pairwise(edges)]


def overlay(segments: Sequence[Segment], edit: Segment) -> list[Segment]:
    """Replace the span of `edit` by it; returns the segments in order of time."""
    pieces = [piece for segment in segments for piece in split_segment(segment, edit.start, edit.end)]
    outside = [piece for piece in pieces if piece.end <= edit.start or piece.start >= edit.end]
    return sorted([*outside, edit], key=lambda segment: segment.start)


def scale_segments(segments: Sequence[Segment], factor: float, start: float, end: float) -> list[Segment]:
    """Multiply the intensity between `start` and `end` by `factor`, at most to 1; segments are split there."""
    pieces = [piece for segment in segments for piece in split_segment(segment, start, end)]
    return [
        replace(piece, intensity=min(1.0, piece.intensity * factor))
        if start <= piece.start and piece.end <= end
        else piece
        for piece in pieces
    ]


def clip_segments(segments: Sequence[Segment], start: float, duration: float) -> list[Segment]:
    """The parts of segments in the `duration` seconds from `start` on, with times counted from `start`."""
    moved = [replace(s, start=max(0.0, s.start - start), end=min(duration, s.end - start)) for s in segments]
    return [segment for segment in moved if segment.end > segment.start]


def neutral_gaps(segments: Sequence[Segment], duration: float, shortest: float = 0.0) -> list[Segment]:
    """Neutral segments where sorted segments leave a gap of more than `shortest` seconds."""
    edges = [0.0, *(time for segment in segments for time in (segment.start, segment.end)), duration]
    spans = zip(edges[::2], edges[1::2], strict=True)
    return [Segment(start, end, "neutral", 0.0) for start, end in spans if end - start > shortest]


def segment_weight(
    times: NDArray[np.float64],
    before: Segment | None,
    segment: Segment,
    after: Segment | None,
    duration: float,
    blend: float,
) -> NDArray[np.float32]:
    """Weight (T,) of a segment at `times` (T,): 1 inside, 0 outside, a raised cosine of `blend` s on each boundary.

    A fade is at most as long as each of the two segments that it joins, so that the weights of neighbours sum to 1. At
    the ends of the track there is none.
    """
    weight = np.ones(len(times))
    for boundary, sign, neighbour in ((segment.start, 1, before), (segment.end, -1, after)):
        if (sign > 0 and boundary <= 0) or (sign < 0 and boundary >= duration):
            continue
        length = min(blend, segment.duration)
        if neighbour is not None and abs((neighbour.end if sign > 0 else neighbour.start) - boundary) < TOUCHING:
            length = min(length, neighbour.duration)
        position = np.clip(sign * (times - boundary) / max(length / 2, 1e-9), -1, 1)
        weight *= 0.5 + 0.5 * np.sin(np.pi / 2 * position)
    return weight.astype(np.float32)
