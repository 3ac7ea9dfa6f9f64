"""The emotion track: category and intensity of every 20 ms, and how a person edits them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import resample, smooth
from sedtalker.emotion.segments import (
    TRACK_RATE,
    Segment,
    check_segment,
    clip_segments,
    overlay,
    scale_segments,
    segment_weight,
    sort_segments,
)
from sedtalker.emotion.viterbi import decode_segments
from sedtalker.errors import TrackError, as_number
from sedtalker.labels import LABELS, NEUTRAL, canonical_label, check_labels, label_columns
from sedtalker.providers import provider

BLEND = 0.25  # s, the length of the blend that is centred on each boundary of an edit
CERTAIN = 0.45  # posterior of a label below which a frame is not certain
SPEECH_ACTIVE = 0.5  # activity above which a frame is speech
MAX_DURATION = 360_000.0  # s, 100 hours: their frames take 0.6 GB

Frames = NDArray[np.float32]


@dataclass(repr=False)
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
    # The segments of a file or an edit; None: they are decoded from the frames.
    explicit_segments: list[Segment] | None = None
    speech: Frames | None = None  # (T,), 0..1, speech activity; None: unknown

    def __post_init__(self) -> None:
        self.labels = check_labels(self.labels)
        try:
            self.posterior = np.array(self.posterior, dtype=np.float32)
            self.intensity = np.array(self.intensity, dtype=np.float32)
            self.speech = None if self.speech is None else np.array(self.speech, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrackError(f"posterior and intensity must be arrays of numbers ({error})") from error
        _check_track(self)

    def __repr__(self) -> str:
        """One line; the arrays would fill the screen of an interactive session."""
        source = f" of {self.audio}" if self.audio else ""
        return f"<EmotionTrack{source}: {self.duration:.2f} s, {len(self.intensity)} frames, {len(self.labels)} labels>"

    @classmethod
    def neutral(
        cls, duration: float, frame_rate: float = TRACK_RATE, labels: Sequence[str] = LABELS, audio: str | None = None
    ) -> EmotionTrack:
        """A track without emotion."""
        labels = check_labels(labels)
        if not 0 < as_number(duration, "duration", TrackError) <= MAX_DURATION:
            raise TrackError(f"an emotion track of {duration} s: give a duration above 0, up to {MAX_DURATION:g} s")
        if not 0 < as_number(frame_rate, "frame rate", TrackError) <= 1000:
            raise TrackError(f"a frame rate of {frame_rate} Hz. It must be in 1..1000; 50 is usual")
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
            TrackError: a segment is empty, overlaps another, ends after `duration`, or has values out of range.
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
    def shown_intensity(self) -> NDArray[np.float32]:
        """Intensity (T,) of the likeliest emotion of each frame: 0 where that is neutral."""
        emotional: NDArray[np.bool_] = self.posterior.argmax(axis=1) != self.labels.index("neutral")
        return self.intensity * emotional

    @property
    def abstained(self) -> NDArray[np.bool_]:
        """Mask (T,) of the frames whose emotion is not certain: no speech, or no label above `CERTAIN`."""
        uncertain: NDArray[np.bool_] = self.posterior.max(axis=1) < CERTAIN
        return uncertain if self.speech is None else uncertain | (self.speech < SPEECH_ACTIVE)

    @property
    def abstained_spans(self) -> list[tuple[float, float]]:
        """(start, end) in seconds of each run of frames whose emotion is not certain."""
        edges = np.flatnonzero(np.diff(self.abstained.astype(np.int8), prepend=0, append=0)) / self.frame_rate
        return [(float(start), min(float(end), self.duration)) for start, end in edges.reshape(-1, 2)]

    def certain_share(self, start: float, end: float) -> float:
        """Share of the frames between two times in seconds whose emotion is certain."""
        first = min(round(start * self.frame_rate), len(self) - 1)
        return float(1 - self.abstained[first : max(first + 1, round(end * self.frame_rate))].mean())

    @property
    def segments(self) -> list[Segment]:
        """Emotion segments: those of a file or an edit, otherwise decoded from the frames."""
        if self.explicit_segments is None:
            return decode_segments(self.posterior, self.intensity, self.labels, self.frame_rate, self.duration)
        return list(self.explicit_segments)

    def set(
        self, emotion: str, intensity: float = 1.0, start: float = 0.0, end: float | None = None, blend: float = BLEND
    ) -> None:
        """Set one emotion at one intensity from `start` to `end` (None: the end of the track).

        Frames outside the span do not change, except in a blend of `blend` seconds centred on each boundary.

        Raises:
            TrackError: unknown emotion, an intensity outside 0..1, or a span outside the track.
        """
        end = self.duration if end is None else end
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
        """Multiply the intensity from `start` to `end`, at most to 1."""
        check_scale(factor)
        end = self.duration if end is None else end
        if not as_number(start, "start", TrackError) <= as_number(end, "end", TrackError):
            raise TrackError(f"span {start:g}-{end:g} s: its end must not be before its start")
        inside = (self.times >= start) & (self.times < end)
        self.intensity[inside] = np.clip(self.intensity[inside] * factor, 0, 1)
        if self.explicit_segments is not None:
            self.explicit_segments = scale_segments(self.explicit_segments, factor, start, end)

    def smooth(self, seconds: float) -> None:
        """Average posterior and intensity with a Gaussian of this standard deviation; edited segments do not change."""
        if not 0 <= as_number(seconds, "smoothing", TrackError) < math.inf:
            raise TrackError(f"smoothing over {seconds} s: it must be 0 or more, and finite")
        stacked = np.concatenate([self.posterior, self.intensity[:, None]], axis=1)
        smoothed = smooth(stacked, seconds * self.frame_rate)
        self.posterior = smoothed[:, :-1] / smoothed[:, :-1].sum(axis=1, keepdims=True)
        self.intensity = np.clip(smoothed[:, -1], 0, 1)

    def clip(self, start: float, end: float) -> EmotionTrack:
        """The track between `start` and `end`, both rounded to whole frames, with times counted from `start`."""
        start, end = as_number(start, "start", TrackError), as_number(end, "end", TrackError)
        if not 0 <= start < end <= self.duration + 1 / self.frame_rate:
            raise TrackError(f"span {start:g}-{end:g} s: outside the track of {self.duration:g} s. Choose within it")
        first = round(start * self.frame_rate)
        last = min(len(self), max(first + 1, round(end * self.frame_rate)))
        offset = first / self.frame_rate
        duration = min(self.duration, last / self.frame_rate) - offset
        explicit = self.explicit_segments
        return replace(
            self,
            posterior=self.posterior[first:last],
            intensity=self.intensity[first:last],
            speech=None if self.speech is None else self.speech[first:last],
            duration=duration,
            explicit_segments=None if explicit is None else clip_segments(explicit, offset, duration),
        )

    def copy(self) -> EmotionTrack:
        """An independent copy of the track."""
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
        explicit = self.explicit_segments
        segments = None if explicit is None else clip_segments(explicit, 0.0, duration)
        frames = frame_count(duration, self.frame_rate)
        if frames <= len(self):
            return replace(
                self,
                posterior=self.posterior[:frames],
                intensity=self.intensity[:frames],
                speech=None if self.speech is None else self.speech[:frames],
                duration=duration,
                explicit_segments=segments,
            )
        frames = frame_count(self.duration)
        posterior, intensity = self.at_rate(TRACK_RATE, frames)
        longer = EmotionTrack.neutral(duration, TRACK_RATE, self.labels, self.audio)
        frames = min(frames, len(longer))
        longer.posterior[:frames], longer.intensity[:frames] = posterior[:frames], intensity[:frames]
        if self.speech is not None:
            longer.speech = np.zeros(len(longer), np.float32)
            longer.speech[:frames] = resample(self.speech, self.frame_rate, TRACK_RATE, frames)
        longer.explicit_segments = segments
        return longer

    def with_labels(self, labels: Sequence[str]) -> EmotionTrack:
        """A copy with a posterior over these labels, in their order; aliases become the labels that they mean.

        Raises:
            TrackError: the track has an emotion that is not among them.
        """
        labels = check_labels(labels)
        if labels == self.labels:
            return self.copy()
        columns = label_columns(self.labels, labels)
        named = {segment.emotion for segment in self.explicit_segments or []}
        lost = [
            name
            for k, name in enumerate(self.labels)
            if columns[k] is None and (name in named or self.posterior[:, k].max() > 1e-3)
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
        segments = self.explicit_segments
        if segments is not None:
            segments = [replace(segment, emotion=canonical_label(segment.emotion, labels)) for segment in segments]
        return replace(self, posterior=posterior, labels=labels, explicit_segments=segments)

    def _repr_html_(self) -> str:
        """HTML for notebooks: a picture of the track."""
        html: str = provider("track_html")(self)
        return html

    def at_rate(self, fps: float, frames: int) -> tuple[Frames, Frames]:
        """Posterior (frames, C) and intensity (frames,) at the middles of video frames.

        Linear interpolation over time; before the first and after the last frame the value stays constant.
        """
        posterior, intensity = (
            resample(values, self.frame_rate, fps, frames) for values in (self.posterior, self.intensity)
        )
        return posterior, intensity

    def override(self, segments: Sequence[Segment], blend: float = BLEND) -> None:
        """Blend segments, which do not overlap, into the frames; `explicit_segments` does not change.

        Inside a segment the posterior becomes one-hot, for any confidence of the segment. Neighbours fade into each
        other; at an end without a neighbour a segment fades into the frames.
        """
        ordered = sorted(segments, key=lambda segment: segment.start)
        posterior, intensity = np.zeros_like(self.posterior), np.zeros_like(self.intensity)
        total = np.zeros_like(self.intensity)  # (T,), summed weight of all segments
        times, reach = self.times, blend + 1 / self.frame_rate  # beyond its reach the weight of a segment is 0
        for before, segment, after in zip([None, *ordered], ordered, [*ordered[1:], None], strict=False):
            first, last = np.searchsorted(times, (segment.start - reach, segment.end + reach))
            near = slice(first, last if segment.end < self.duration else None)
            weight = segment_weight(times[near], before, segment, after, self.duration, blend)
            posterior[near, self.labels.index(segment.emotion)] += weight
            intensity[near] += weight * (0.0 if segment.emotion == "neutral" else segment.intensity)
            total[near] += weight
        # Fades across a gap shorter than a blend overlap, and their sum can exceed 1.
        share = np.maximum(total, np.float32(1))
        rest = 1 - total / share
        self.posterior = posterior / share[:, None] + rest[:, None] * self.posterior
        self.intensity = np.clip(intensity / share + rest * self.intensity, 0, 1)


def check_scale(factor: float) -> None:
    """Check that a factor of the intensity is finite and 0 or more. Raises TrackError if it is not."""
    if not 0 <= as_number(factor, "intensity scale", TrackError) < math.inf:
        raise TrackError(f"intensity scale {factor}: it must be 0 or more, and finite")


def frame_count(duration: float, frame_rate: float = TRACK_RATE) -> int:
    """Frames that cover `duration` seconds; the last may be partial."""
    return max(1, int(np.ceil(round(duration * frame_rate, 6))))


def constant_track(label: str, intensity: float, frames: int) -> tuple[Frames, Frames]:
    """Posterior (T, C) over `LABELS` and intensity (T,) of one emotion throughout."""
    posterior = np.zeros((frames, len(LABELS)), np.float32)
    posterior[:, LABELS.index(label)] = 1.0
    return posterior, np.full(frames, 0.0 if label == LABELS[NEUTRAL] else intensity, np.float32)


def random_track(frames: int, rng: np.random.Generator) -> tuple[Frames, Frames]:
    """Posterior (T, C) over `LABELS` and intensity (T,) that are independent of any voice, for training.

    One track in six is neutral. Of the others half have one emotion, and half change once or twice. One piece in five
    is a mixture of two emotions.
    """
    kind = rng.uniform()
    pieces = 1 if kind < 0.58 else int(rng.integers(2, 4))
    cuts = np.r_[0, np.sort(rng.uniform(0.15, 0.85, pieces - 1) * frames).astype(int), frames]
    posterior = np.zeros((frames, len(LABELS)), np.float32)
    intensity = np.zeros(frames, np.float32)
    for start, end in pairwise(cuts):
        first, second = rng.choice(len(LABELS) - 1, 2, replace=False) + 1
        share = rng.uniform(0.5, 0.9) if rng.uniform() < 0.2 else 1.0
        neutral = kind < 1 / 6 or (pieces > 1 and rng.uniform() < 0.25)
        posterior[start:end, NEUTRAL if neutral else first] = share if not neutral else 1.0
        if share < 1 and not neutral:
            posterior[start:end, second] = 1 - share
        intensity[start:end] = 0.0 if neutral else rng.uniform(0.15, 1.0)
    return posterior, intensity


def parse_emotion_spec(spec: str, duration: float, base: EmotionTrack | None = None) -> EmotionTrack:
    """The track of "happy", "happy:0.8", or "happy:0.8@2.0-4.5,sad:0.5@5-6".

    An emotion without a span covers the whole track. The rest is as in `base` (not changed), or neutral.

    Raises:
        TrackError: the text cannot be read, or names an unknown emotion or a span outside the audio.
    """
    track = EmotionTrack.neutral(duration) if base is None else base.copy()
    for emotion, intensity, start, end in _spec_parts(spec):
        track.set(emotion, intensity, start, end)
    return track


def check_emotion_spec(spec: str, labels: Sequence[str] | None = LABELS) -> None:
    """Check a text of `parse_emotion_spec` before the audio's length is known.

    `labels` of None checks everything except the names, for callers that do not know the talker's labels.

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


def _check_track(track: EmotionTrack) -> None:
    shape = track.posterior.shape
    if track.intensity.ndim != 1 or shape != (len(track.intensity), len(track.labels)):
        raise TrackError(
            f"arrays that do not form a track: posterior {shape}, intensity {track.intensity.shape}, "
            f"{len(track.labels)} labels. Need (T, C), (T,) and C labels"
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
        raise TrackError("track that contains NaN or infinity. Diarize the audio again")
    if track.posterior.min() < -1e-4 or np.abs(track.posterior.sum(axis=1) - 1).max() > 1e-2:
        raise TrackError("posterior rows must be 0 or more and sum to 1. Normalise them")
    if track.speech is not None and not (
        track.speech.shape == track.intensity.shape and (track.speech >= 0).all() and (track.speech <= 1).all()
    ):
        raise TrackError(f"speech activity {track.speech.shape} for {len(track.intensity)} frames. It must be in 0..1")
    if track.intensity.min() < 0 or track.intensity.max() > 1:
        raise TrackError(f"intensity from {track.intensity.min():g} to {track.intensity.max():g}. It must be in 0..1")
