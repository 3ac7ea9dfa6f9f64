"""False alarms of a diarizer in ordinary speech: recordings without emotion, of folders or manifests.

Everything but neutral is an error there. A false alarm is a segment of another emotion; false alarms are counted per
minute of speech.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.data.manifest import audio_files, load_manifest
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation.bootstrap import draw_counts, interval, mean_interval, show
from sedtalker.evaluation.clips import SURE, Samples, contradictions, diarize_samples
from sedtalker.evaluation.report import markdown_table
from sedtalker.mel import FRAME_RATE
from sedtalker.speech import WindowedEncoder

BELOW = 0.5  # share of neutral frames below which a recording counts as misread


@dataclass(frozen=True)
class Recording:
    """Figures of the track of one recording of ordinary speech."""

    name: str
    folder: str  # or manifest
    speaker: str
    minutes: float  # of speech
    neutral: float  # share of the frames of speech
    alarms: int  # segments of an emotion
    intensity: float  # mean over the frames of speech
    sure: float  # share of the frames with an emotion's posterior above `SURE`
    contradictions: float  # of posterior and intensity
    confidence: float  # mean over the frames of speech
    emotion: str  # the most frequent one other than neutral, "" if there is none


class Source(NamedTuple):
    """Where a recording of ordinary speech is."""

    name: str
    folder: str  # or manifest
    speaker: str  # the name of the recording if unknown
    path: Path


def find_recordings(place: Path, split: str) -> list[Source]:
    """Every recording below a folder; or the neutral ones of a manifest's split, of corpora without emotions.

    Raises:
        DataError: there are none, or the file is not a manifest.
    """
    if not place.is_file():
        names = [(str(path.relative_to(place)), path) for path in audio_files(place)]
        return [Source(name, str(place), name, path) for name, path in names]
    manifest = load_manifest(place)
    acted = {item.corpus for item in manifest if item.emotion != "neutral"}
    items = [item for item in manifest.select(split) if item.corpus not in acted]
    if not items:
        raise DataError(f"no corpus without emotions in split {split!r}: {place}. Add one: sedtalker data prepare")
    return [Source(item.id, str(place), item.speaker, manifest.audio(item)) for item in items]


def measure_recording(source: Source, track: EmotionTrack, spoken: NDArray[np.bool_]) -> Recording:
    """Figures of the track of a recording, whose frames with speech are `spoken` (T,)."""
    neutral = track.labels.index("neutral")
    posterior, intensity = track.posterior[spoken], track.intensity[spoken]
    named = posterior.argmax(1)
    emotions = np.bincount(named, minlength=len(track.labels))
    emotions[neutral] = -1
    times = track.times[spoken]
    alarms = [
        segment
        for segment in track.segments
        if segment.emotion != "neutral" and ((times >= segment.start) & (times < segment.end)).any()
    ]
    return Recording(
        name=source.name,
        folder=source.folder,
        speaker=source.speaker,
        minutes=float(spoken.sum()) / FRAME_RATE / 60,
        neutral=float((named == neutral).mean()),
        alarms=len(alarms),
        intensity=float(intensity.mean()),
        sure=float((np.delete(posterior, neutral, axis=1).max(1) > SURE).mean()),
        contradictions=contradictions(posterior, intensity, neutral),
        confidence=float(posterior.max(1).mean()),
        emotion=track.labels[int(emotions.argmax())] if emotions.max() > 0 else "",
    )


def evaluate_ordinary(
    places: Sequence[Path], diarizer: Diarizer, encoder: WindowedEncoder, seed: int = 0, split: str = "test"
) -> dict[str, Any]:
    """Figures of every recording of the folders and manifests, and of each of them; returns plain types.

    Args:
        split: of the manifests.

    Raises:
        DataError: a folder is missing or holds no audio, or a manifest has no ordinary speech in the split.
        AudioError: a recording cannot be read.
    """
    found = [source for place in places for source in find_recordings(place, split)]
    recordings = []
    for source in tqdm(found, desc="ordinary speech", unit="file"):
        samples: Samples = load_audio(source.path)
        track = diarize_samples(samples, diarizer, encoder)
        spoken = detect_speech(loudness(samples))
        recordings.append(measure_recording(source, track, spoken))
    return summarise(recordings, seed)


def summarise(recordings: Sequence[Recording], seed: int = 0) -> dict[str, Any]:
    """Figures over all recordings, and over those of each folder if there are several; intervals over speakers."""
    groups = {"all": list(recordings)}
    folders = dict.fromkeys(recording.folder for recording in recordings)
    if len(folders) > 1:
        groups |= {folder: [one for one in recordings if one.folder == folder] for folder in folders}
    return {
        "groups": {name: _summarise_group(group, seed) for name, group in groups.items()},
        "recordings": [vars(recording) for recording in sorted(recordings, key=lambda one: one.neutral)],
    }


def _summarise_group(group: Sequence[Recording], seed: int) -> dict[str, Any]:
    names = [f"{one.folder}/{one.speaker}" for one in group]
    minutes = np.array([one.minutes for one in group])
    draws = draw_counts(names, seed)

    def average(name: str) -> Any:
        return mean_interval([getattr(one, name) for one in group], names, seed)

    wrong = np.array([one.confidence - one.neutral for one in group]) * minutes
    return {
        "recordings": len(group),
        "minutes": float(minutes.sum()),
        "neutral": average("neutral"),
        "below_half": mean_interval([one.neutral < BELOW for one in group], names, seed),
        "alarms_per_minute": interval(draws @ np.array([one.alarms for one in group]) / (draws @ minutes)),
        "intensity": average("intensity"),
        "sure": average("sure"),
        "contradictions": average("contradictions"),
        "overconfidence": interval(draws @ wrong / (draws @ minutes)),
    }


def format_ordinary(report: Mapping[str, Any], shown: int = 10) -> str:
    """Format the figures of the folders, and the recordings that are called neutral least, as Markdown."""
    columns = {
        "neutral": "neutral frames", "below_half": "recordings below half", "alarms_per_minute": "false alarms/min",
        "intensity": "intensity", "sure": f"emotion above {SURE}", "contradictions": "of these without intensity",
        "overconfidence": "confidence - accuracy",
    }  # fmt: skip
    rows = [["ordinary speech", "recordings", "minutes", *columns.values()]]
    for name, row in report["groups"].items():
        rows.append([name, str(row["recordings"]), f"{row['minutes']:.1f}", *(show(row[key]) for key in columns)])
    least = [["called neutral least", "neutral frames", "instead", "intensity", "false alarms/min"]]
    for one in report["recordings"][:shown]:
        cells = [f"{one['neutral']:.2f}", one["emotion"], f"{one['intensity']:.2f}"]
        least.append([one["name"], *cells, f"{one['alarms'] / one['minutes']:.1f}"])
    return f"{markdown_table(rows)}\n\n{markdown_table(least)}"
