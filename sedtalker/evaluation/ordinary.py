"""False alarms of a diarizer in ordinary speech: folders of recordings without emotion.

Everything but neutral is an error there. A false alarm is a segment of another emotion; false alarms are counted per
minute of speech.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.data.manifest import audio_files
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.evaluation.bootstrap import draw_counts, interval, mean_interval, show
from sedtalker.evaluation.clips import SURE, Samples, contradictions, diarize_samples
from sedtalker.evaluation.report import markdown_table
from sedtalker.speech import FRAME_RATE, WindowedEncoder

BELOW = 0.5  # share of neutral frames below which a recording counts as misread


@dataclass(frozen=True)
class Recording:
    """Figures of the track of one recording of ordinary speech."""

    name: str
    folder: str
    minutes: float  # of speech
    neutral: float  # share of the frames of speech
    alarms: int  # segments of an emotion
    intensity: float  # mean over the frames of speech
    sure: float  # share of the frames with an emotion's posterior above `SURE`
    contradictions: float  # of posterior and intensity
    confidence: float  # mean over the frames of speech
    emotion: str  # the most frequent one other than neutral, "" if there is none


def measure_recording(name: str, folder: str, track: EmotionTrack, spoken: NDArray[np.bool_]) -> Recording:
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
        name=name,
        folder=folder,
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
    folders: Sequence[Path], diarizer: Diarizer, encoder: WindowedEncoder, seed: int = 0
) -> dict[str, Any]:
    """Figures of every recording below the folders, and of each folder; returns plain types.

    Raises:
        DataError: a folder is missing or holds no audio.
        AudioError: a recording cannot be read.
    """
    found = [(folder, path) for folder in folders for path in audio_files(folder)]
    recordings = []
    for folder, path in tqdm(found, desc="ordinary speech", unit="file"):
        samples: Samples = load_audio(path)
        track = diarize_samples(samples, diarizer, encoder)
        spoken = detect_speech(loudness(samples))
        recordings.append(measure_recording(str(path.relative_to(folder)), str(folder), track, spoken))
    return summarise(recordings, seed)


def summarise(recordings: Sequence[Recording], seed: int = 0) -> dict[str, Any]:
    """Figures over all recordings, and over those of each folder if there are several; intervals over recordings."""
    groups = {"all": list(recordings)}
    folders = dict.fromkeys(recording.folder for recording in recordings)
    if len(folders) > 1:
        groups |= {folder: [one for one in recordings if one.folder == folder] for folder in folders}
    return {
        "groups": {name: _summarise_group(group, seed) for name, group in groups.items()},
        "recordings": [vars(recording) for recording in sorted(recordings, key=lambda one: one.neutral)],
    }


def _summarise_group(group: Sequence[Recording], seed: int) -> dict[str, Any]:
    names = [f"{one.folder}/{one.name}" for one in group]
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
