"""The emotion track: what is felt, and how strongly, at every 20 ms; the editable object between the two models."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import resample, smooth
from sedtalker.errors import TrackError, as_number
from sedtalker.labels import LABELS, canonical_label, check_labels, label_columns
from sedtalker.providers import provider

TRACK_RATE = 50.0  # Hz, the rate of the speech features
BLEND = 0.25  # s, the length of the blend that is centred on each boundary of an edit
LONGEST = 360_000.0  # s of a track: 100 hours, whose frames take 0.6 GB

Frames = NDArray[np.float32]


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
        return self.end - self.start


@dataclass
class EmotionTrack:
    """Posterior and intensity by frame; frame t covers t / frame_rate to (t + 1) / frame_rate.

    Example:
        >>> track = EmotionTrack.neutral(2.0)
        >>> track.set("happy", 0.8, start=0.5, end=1.5)
        >>> [(segment.emotion, segment.start, segment.end) for segment in track.segments]
        [('neutral', 0.0, 0.5), ('happy', 0.5, 1.5), ('neutral', 1.5, 2.0)]
    """

    posterior: Frames  # (T, C), rows sum to 1
    intensity: Frames  # (T,), 0..1
    duration: float  # s; the last frame may be partial
    labels: tuple[str, ...] = LABELS
    frame_rate: float = TRACK_RATE
    audio: str | None = None  # the file it was read from
    explicit_segments: list[Segment] | None = field(
        default=None, repr=False
    )  # segments of a file or an edit; None: decoded from frames

    def __post_init__(self) -> None:
        self.labels = check_labels(self.labels)
        try:
            self.posterior = np.array(self.posterior, dtype=np.float32)
            self.intensity = np.array(self.intensity, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrackError(f"posterior and intensity must be arrays of numbers ({error})") from error
        _check(self)

    @classmethod
    def neutral(
        cls,
        duration: float,
        frame_rate: float = TRACK_RATE,
        labels: Sequence[str] = LABELS,
        audio: str | None = None,
    ) -> EmotionTrack:
        """A track without emotion."""
        labels = check_labels(labels)
        if not 0 < as_number(duration, "duration", TrackError) <= LONGEST:
            raise TrackError(f"an emotion track of {duration} s: give a duration above 0, up to {LONGEST:g} s")
        if not 0 < as_number(frame_rate, "frame rate", TrackError) <= 1000:
            raise TrackError(f"a frame rate of {frame_rate} Hz. It must lie in 1..1000; 50 is usual")
        frames = frame_count(duration, frame_rate)
        posterior = np.zeros((frames, len(labels)), np.float32)
        posterior[:, labels.index("neutral")] = 1
        return cls(posterior, np.zeros(frames, np.float32), duration, labels, frame_rate, audio)

    @classmethod
    def from_segments(
        cls,
        segments: Sequence[Segment],
        duration: float,
        labels: Sequence[str] = LABELS,
        frame_rate: float = TRACK_RATE,
        audio: str | None = None,
    ) -> EmotionTrack:
        """The track of segments that do not overlap; time that none covers is neutral.

        Raises:
            TrackError: a segment is empty, overlaps another, ends beyond `duration` or holds values out of range.
        """
        track = cls.neutral(duration, frame_rate, labels, audio)
        named = [replace(segment, emotion=canonical_label(segment.emotion, track.labels)) for segment in segments]
        track.explicit_segments = sort_segments(named, duration)
        track.override(track.explicit_segments)
        return track

    def __len__(self) -> int:
        return len(self.intensity)

    @property
    def times(self) -> NDArray[np.float64]:
        """Middle of each frame (T,), seconds."""
        return (np.arange(len(self), dtype=np.float64) + 0.5) / self.frame_rate

    @property
    def segments(self) -> list[Segment]:
        """Who feels what when: as given by a file or an edit, otherwise decoded from the frames."""
        if self.explicit_segments is None:
            from sedtalker.emotion.viterbi import decode

            return decode(self.posterior, self.intensity, self.labels, self.frame_rate, self.duration)
        return list(self.explicit_segments)

    def set(
        self, emotion: str, intensity: float = 1.0, start: float = 0.0, end: float | None = None, blend: float = BLEND
    ) -> None:
        """Put one emotion at one intensity from `start` to `end` (the end of the track where None).

        Frames outside the span stay as they are, but for a blend of `blend` seconds centred on each of its boundaries.

        Raises:
            TrackError: unknown emotion, an intensity outside 0..1, or a span outside the track.
        """
        end = self.duration if end is None else end
        if not isinstance(emotion, str):
            raise TrackError(f"an emotion must be a name: {emotion!r}. Use one of: {', '.join(self.labels)}")
        if not 0 <= as_number(blend, "blend", TrackError) < math.inf:
            raise TrackError(f"a blend of {blend} s: it must be 0 or more, and finite")
        label = canonical_label(emotion, self.labels)
        segment = Segment(
            as_number(start, "start", TrackError),
            as_number(end, "end", TrackError),
            label,
            as_number(intensity, "intensity", TrackError),
        )
        check_segment(segment, self.duration)
        if label == "neutral":
            segment = replace(segment, intensity=0.0)
        before = self.segments
        self.override([segment], blend)
        self.explicit_segments = overlay(before, segment)

    def scale(self, factor: float, start: float = 0.0, end: float | None = None) -> None:
        """Multiply the intensity from `start` to `end`, staying within 0..1."""
        check_scale(factor)
        end = self.duration if end is None else end
        if not as_number(start, "start", TrackError) <= as_number(end, "end", TrackError):
            raise TrackError(f"span {start:g}-{end:g} s: its end must not be before its start")
        inside = (self.times >= start) & (self.times < end)
        self.intensity[inside] = np.clip(self.intensity[inside] * factor, 0, 1)
        if self.explicit_segments is not None:
            pieces = [piece for segment in self.explicit_segments for piece in _cut(segment, start, end)]
            self.explicit_segments = [
                _scaled(piece, factor) if start <= piece.start and piece.end <= end else piece for piece in pieces
            ]

    def smooth(self, seconds: float) -> None:
        """Average posterior and intensity with a Gaussian of this standard deviation; edited segments stay."""
        if not 0 <= as_number(seconds, "smoothing", TrackError) < math.inf:
            raise TrackError(f"smoothing over {seconds} s: it must be 0 or more, and finite")
        stacked = np.concatenate([self.posterior, self.intensity[:, None]], axis=1)
        smoothed = smooth(stacked, seconds * self.frame_rate)
        self.posterior = smoothed[:, :-1] / smoothed[:, :-1].sum(axis=1, keepdims=True)
        self.intensity = np.clip(smoothed[:, -1], 0, 1)

    def clip(self, start: float, end: float) -> EmotionTrack:
        """The track between `start` and `end`, both moved to whole frames, with times counted from `start`."""
        if (
            not 0
            <= as_number(start, "start", TrackError)
            < as_number(end, "end", TrackError)
            <= self.duration + 1 / self.frame_rate
        ):
            raise TrackError(f"span {start:g}-{end:g} s: outside the track of {self.duration:g} s. Choose within it")
        first = round(start * self.frame_rate)
        last = min(len(self), max(first + 1, round(end * self.frame_rate)))
        offset = first / self.frame_rate
        duration = min(self.duration, last / self.frame_rate) - offset
        explicit_segments = None
        if self.explicit_segments is not None:
            moved = [
                replace(piece, start=max(0.0, piece.start - offset), end=min(duration, piece.end - offset))
                for piece in self.explicit_segments
            ]
            explicit_segments = [piece for piece in moved if piece.end > piece.start]
        return replace(
            self,
            posterior=self.posterior[first:last],
            intensity=self.intensity[first:last],
            duration=duration,
            explicit_segments=explicit_segments,
        )

    def copy(self) -> EmotionTrack:
        """An independent track; editing it leaves this one alone."""
        return replace(self, explicit_segments=None if self.explicit_segments is None else list(self.explicit_segments))

    def fit_duration(self, duration: float) -> EmotionTrack:
        """A copy for audio of `duration` seconds: neutral after the track's end.

        A track at another rate than 50 Hz is read at 50 Hz where it is lengthened, so that it ends where it did.

        Raises:
            TrackError: the track is longer than the audio by more than 1.5 frames.
        """
        if self.duration > duration + 1.5 / self.frame_rate:
            raise TrackError(
                f"a track of {self.duration:g} s for audio of {duration:g} s. "
                "Cut it with track.clip, or diarize this audio"
            )
        explicit_segments = None
        if self.explicit_segments is not None:
            explicit_segments = [
                replace(s, end=min(s.end, duration)) for s in self.explicit_segments if s.start < duration
            ]
        frames = frame_count(duration, self.frame_rate)
        if frames <= len(self):
            posterior, intensity = self.posterior[:frames], self.intensity[:frames]
            return replace(
                self, posterior=posterior, intensity=intensity, duration=duration, explicit_segments=explicit_segments
            )
        frames = frame_count(self.duration)
        posterior, intensity = self.at_rate(TRACK_RATE, frames)
        whole = EmotionTrack.neutral(duration, TRACK_RATE, self.labels, self.audio)
        frames = min(frames, len(whole))
        whole.posterior[:frames], whole.intensity[:frames] = posterior[:frames], intensity[:frames]
        whole.explicit_segments = explicit_segments
        return whole

    def with_labels(self, labels: Sequence[str]) -> EmotionTrack:
        """A copy whose posterior has these labels' columns, in their order; aliases count as the labels they mean.

        Raises:
            TrackError: the track holds an emotion that is none of them.
        """
        labels = check_labels(labels)
        if labels == self.labels:
            return self.copy()
        columns = label_columns(self.labels, labels)
        shown = {segment.emotion for segment in self.explicit_segments or []}
        lost = [
            name
            for k, name in enumerate(self.labels)
            if columns[k] is None and (name in shown or self.posterior[:, k].max() > 1e-3)
        ]
        if lost:
            raise TrackError(
                f"an emotion that this model does not know: {', '.join(lost)}. Use one of: {', '.join(labels)}"
            )
        posterior = np.zeros((len(self), len(labels)), np.float32)
        for k, column in enumerate(columns):
            if column is not None:
                posterior[:, column] += self.posterior[:, k]
        posterior /= posterior.sum(axis=1, keepdims=True)
        explicit_segments = None
        if self.explicit_segments is not None:
            explicit_segments = [
                replace(segment, emotion=canonical_label(segment.emotion, labels)) for segment in self.explicit_segments
            ]
        return replace(self, posterior=posterior, labels=labels, explicit_segments=explicit_segments)

    def _repr_html_(self) -> str:
        """A notebook shows the track as a picture."""
        html: str = provider("track_html")(self)
        return html

    def at_rate(self, fps: float, frames: int) -> tuple[Frames, Frames]:
        """Posterior (frames, C) and intensity (frames,) at the middles of video frames.

        Interpolated linearly by time; beyond either end the nearest frame holds.
        """
        posterior, intensity = (
            resample(values, self.frame_rate, fps, frames) for values in (self.posterior, self.intensity)
        )
        return posterior, intensity

    def override(self, segments: Sequence[Segment], blend: float = BLEND) -> None:
        """Blend segments, which do not overlap, into the frames; `segments` of the track stay as they are.

        The confidence says how sure a segment is, not how much of it to show: inside, the frames become one-hot.
        Neighbours fade into each other, an end without a neighbour fades into what the frames hold.
        """
        ordered = sorted(segments, key=lambda segment: segment.start)
        posterior, intensity = np.zeros_like(self.posterior), np.zeros_like(self.intensity)
        covered = np.zeros_like(self.intensity)  # (T,), by all segments together
        for before, segment, after in zip([None, *ordered], ordered, [*ordered[1:], None], strict=False):
            weight = _fade(self.times, before, segment, after, self.duration, blend)
            posterior[:, self.labels.index(segment.emotion)] += weight
            intensity += weight * (0.0 if segment.emotion == "neutral" else segment.intensity)
            covered += weight
        # Fades across a gap shorter than a blend overlap, and may cover more than there is.
        share = np.maximum(covered, np.float32(1))
        rest = 1 - covered / share
        self.posterior = posterior / share[:, None] + rest[:, None] * self.posterior
        self.intensity = np.clip(intensity / share + rest * self.intensity, 0, 1)


def check_scale(factor: float) -> None:
    """Refuse a factor of the intensity that is negative or not finite.

    Raises:
        TrackError: it is.
    """
    if not 0 <= as_number(factor, "intensity scale", TrackError) < math.inf:
        raise TrackError(f"intensity scale {factor}: it must be 0 or more, and finite")


def frame_count(duration: float, frame_rate: float = TRACK_RATE) -> int:
    """Frames that cover `duration` seconds; the last may be partial."""
    return max(1, int(np.ceil(round(duration * frame_rate, 6))))


def check_segment(segment: Segment, duration: float) -> None:
    """Refuse a segment that is empty, out of range, or beyond the audio.

    Raises:
        TrackError: with the reason.
    """
    span = f"{segment.start:g}-{segment.end:g} s"
    if not (np.isfinite(segment.start) and np.isfinite(segment.end) and 0 <= segment.start < segment.end):
        raise TrackError(
            f"segment {span} ({segment.emotion}): it has no length. Its end must be after its start, which is 0 or more"
        )
    if segment.end > duration + 0.5 / TRACK_RATE:
        raise TrackError(f"segment {span} ({segment.emotion}): it ends beyond the audio of {duration:g} s. Shorten it")
    for name, value in (("intensity", segment.intensity), ("confidence", segment.confidence)):
        if not 0 <= value <= 1:
            raise TrackError(f"segment {span} ({segment.emotion}): {name} {value:g}. It must lie in 0..1")


def sort_segments(segments: Sequence[Segment], duration: float) -> list[Segment]:
    """Segments in order of time, each one valid and none overlapping another.

    Raises:
        TrackError: with the first that is not.
    """
    ordered = sorted(segments, key=lambda segment: segment.start)
    for segment in ordered:
        check_segment(segment, duration)
    for before, after in itertools.pairwise(ordered):
        if after.start < before.end - 1e-6:
            raise TrackError(
                f"segments overlap: {before.emotion} until {before.end:g} s and {after.emotion} at {after.start:g} s. "
                "Let one end where the other starts"
            )
    return ordered


def overlay(segments: Sequence[Segment], edit: Segment) -> list[Segment]:
    """Segments with `edit` laid over them, in order; what it covers is cut away."""
    kept = [piece for segment in segments for piece in _cut(segment, edit.start, edit.end)]
    kept = [piece for piece in kept if piece.end <= edit.start or piece.start >= edit.end]
    return sorted([*kept, edit], key=lambda segment: segment.start)


def parse_emotion_spec(spec: str, duration: float, base: EmotionTrack | None = None) -> EmotionTrack:
    """The track of "happy", "happy:0.8", or "happy:0.8@2.0-4.5,sad:0.5@5-6".

    Without a span an emotion holds throughout. Outside the spans `base` holds, neutral where None; it is not changed.

    Raises:
        TrackError: the text cannot be read, or names an unknown emotion or a span outside the audio.
    """
    track = EmotionTrack.neutral(duration) if base is None else base.copy()
    for emotion, intensity, start, end in _spec_parts(spec):
        track.set(emotion, intensity, start, end)
    return track


def check_emotion_spec(spec: str, labels: Sequence[str] | None = LABELS) -> None:
    """Check a text of `parse_emotion_spec` before the audio's length is known.

    `labels` of None checks all but the names, as long as the talker, and so its labels, is not known.

    Raises:
        TrackError: as `parse_emotion_spec`, except for a span beyond the audio's end.
    """
    for emotion, intensity, start, end in _spec_parts(spec):
        label = emotion if labels is None else canonical_label(emotion, labels)
        check_segment(Segment(start, start + 1 if end is None else end, label, intensity), math.inf)


def _spec_parts(spec: str) -> list[tuple[str, float, float, float | None]]:
    """Emotion, intensity, start and end (None: the end of the audio) of each part of a text."""
    parts = []
    for part in spec.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise TrackError(
                f"cannot read emotion {part.strip()!r}. Write happy, happy:0.8 or happy:0.8@2.0-4.5, commas between"
            )
        end = None if match["end"] is None else float(match["end"])
        parts.append((match["emotion"], float(match["intensity"] or 1), float(match["start"] or 0), end))
    return parts


_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PART = re.compile(
    rf"(?P<emotion>[A-Za-z]\w*)(?::(?P<intensity>{_NUMBER}))?(?:@(?P<start>{_NUMBER})-(?P<end>{_NUMBER}))?"
)


def _check(track: EmotionTrack) -> None:
    shape = track.posterior.shape
    if (
        len(shape) != 2
        or shape[1] != len(track.labels)
        or shape[0] != len(track.intensity)
        or track.intensity.ndim != 1
    ):
        raise TrackError(
            f"arrays of no track: posterior {shape}, intensity {track.intensity.shape}, {len(track.labels)} labels. "
            "Need (T, C), (T,) and C labels"
        )
    if shape[0] == 0 or not track.frame_rate > 0 or not track.duration > 0:
        raise TrackError(
            f"empty track: {shape[0]} frames at {track.frame_rate:g} Hz for {track.duration:g} s. Give at least a frame"
        )
    if abs(shape[0] / track.frame_rate - track.duration) > 1.5 / track.frame_rate:
        raise TrackError(
            f"track of {shape[0]} frames at {track.frame_rate:g} Hz ({shape[0] / track.frame_rate:g} s) for audio of "
            f"{track.duration:g} s: the lengths differ. Diarize the audio again"
        )
    if not (np.isfinite(track.posterior).all() and np.isfinite(track.intensity).all()):
        raise TrackError("track with numbers that are not finite. Diarize the audio again")
    if track.posterior.min() < -1e-4 or np.abs(track.posterior.sum(axis=1) - 1).max() > 1e-2:
        raise TrackError("posterior rows must be 0 or more and sum to 1. Normalise them")
    if track.intensity.min() < 0 or track.intensity.max() > 1:
        raise TrackError(f"intensity from {track.intensity.min():g} to {track.intensity.max():g}. It must lie in 0..1")


def _fade(
    times: NDArray[np.float64],
    before: Segment | None,
    segment: Segment,
    after: Segment | None,
    duration: float,
    blend: float,
) -> Frames:
    """Weight (T,) of a segment: 1 inside, 0 outside, a raised cosine of `blend` seconds centred on each boundary.

    A fade is no longer than the segments that it joins, so that the weights of neighbours sum to 1; at the ends of the
    track there is none.
    """
    weight = np.ones(len(times))
    for boundary, sign, neighbour in ((segment.start, 1, before), (segment.end, -1, after)):
        if (sign > 0 and boundary <= 0) or (sign < 0 and boundary >= duration):
            continue
        length = min(blend, segment.duration)
        if neighbour is not None and abs((neighbour.end if sign > 0 else neighbour.start) - boundary) < 1e-6:
            length = min(length, neighbour.duration)
        position = np.clip(sign * (times - boundary) / max(length / 2, 1e-9), -1, 1)
        weight *= 0.5 + 0.5 * np.sin(np.pi / 2 * position)
    return weight.astype(np.float32)


def _cut(segment: Segment, start: float, end: float) -> list[Segment]:
    """The pieces of a segment before, within and after a span."""
    edges = [segment.start, *(time for time in (start, end) if segment.start < time < segment.end), segment.end]
    return [replace(segment, start=first, end=last) for first, last in itertools.pairwise(edges)]


def _scaled(segment: Segment, factor: float) -> Segment:
    return replace(segment, intensity=min(1.0, segment.intensity * factor))
