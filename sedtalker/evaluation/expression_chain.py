"""From a voice to a face that is read: recorded emotions through diarizer, talker, renderer and an outside judge.

`sedtalker evaluate expression --chain MANIFEST` answers two questions on recordings of actors whom the diarizer did not
see. How strong is an intensity of the diarizer, compared with the levels that the actors and listeners gave? And does
the picture show the emotion that the track names?
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation.clips import thin_out
from sedtalker.evaluation.expression import (
    FRAMES_OF_CLIP,
    JUDGE_LABELS,
    PICTURE,
    PictureJudge,
    rig_weights,
)
from sedtalker.face.assets import identities, load_face
from sedtalker.pipeline import Talker
from sedtalker.render.soft import SoftRenderer

Float = NDArray[np.floating]

NEUTRAL = "neutral"
STRONG = 1.0  # acted level of the voices that should give a strong face
SHOWN = 0.5  # intensity of a track from which the picture should show its emotion
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def evaluate_chain(talker: Talker, manifest: Manifest, split: str, most: int, judge: bool) -> dict[str, Any]:
    """Figures of diarized voices: intensities by acted level, and the judge's reading of the faces.

    Args:
        manifest: clips of one emotion each, with levels of intensity.
        split: of the manifest; "validation" and "test" have speakers whom the diarizer did not see.
        most: number of clips of each emotion and level, drawn at random.
        judge: render strong and neutral voices, and read the pictures.

    Raises:
        DataError: the split has no clip with an intensity.
        MissingExtraError: `judge` without the extra [judge].
    """
    chosen = select_levels(manifest, split, most)
    reader = _FaceReader(talker) if judge else None
    rows = []
    for item in tqdm(chosen, desc="clips", unit="clip"):
        samples = load_audio(manifest.audio(item))
        track = talker.diarize((samples, SAMPLE_RATE))
        label, intensity = dominant_emotion(track, detect_speech(loudness(samples)))
        row = {"acted": item.emotion, "level": item.intensity, "label": label, "intensity": intensity}
        if reader is not None and item.intensity in (0.0, STRONG) and label in JUDGE_LABELS:
            row["read"] = reader.read(samples, track)
        rows.append(row)
    report = {"clips": len(rows), "intensity_by_level": intensities_by_level(rows)}
    return {**report, **({"pictures": agreement(rows)} if judge else {})}


def select_levels(manifest: Manifest, split: str, most: int, least: int = 1) -> list[Utterance]:
    """At most some clips of each corpus, emotion and acted level, drawn at random.

    Args:
        least: clips of a corpus and level below which they are left out.

    Raises:
        DataError: no level of the split has that many clips.
    """
    groups: dict[tuple[str, str, float], list[Utterance]] = defaultdict(list)
    for item in manifest.select(split):
        if item.intensity is not None and not item.segments:
            groups[item.corpus, item.emotion, round(item.intensity, 2)].append(item)
    of_level: dict[tuple[str, float], int] = defaultdict(int)
    for (corpus, _, level), group in groups.items():
        of_level[corpus, level] += len(group)
    kept = [group for (corpus, _, level), group in groups.items() if of_level[corpus, level] >= least]
    if not kept:
        raise DataError(f"no level of intensity with {least} clips in the split {split!r}. Choose another with --split")
    return [item for group in kept for item in thin_out(group, most)]


def dominant_emotion(track: EmotionTrack, spoken: NDArray[np.bool_]) -> tuple[str, float]:
    """The emotion with the largest mean activation over the frames of speech, and its share of the intensity."""
    frames = min(len(track.posterior), len(spoken))
    used = spoken[:frames] if spoken[:frames].any() else np.ones(frames, bool)
    posterior = track.posterior[:frames][used].mean(0)
    label = track.labels[int(posterior.argmax())]
    return label, float(track.intensity[:frames][used].mean())


def intensities_by_level(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Quantiles of the diarizer's mean intensity for each acted level, from 0 (neutral) to 1 (strong)."""
    levels: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        levels[round(float(row["level"]), 2)].append(row["intensity"])
    return {
        str(level): {
            "clips": len(values),
            "quantiles": {str(q): round(float(np.quantile(values, q)), 3) for q in QUANTILES},
        }
        for level, values in sorted(levels.items())
        if len(values) > 1
    }


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the judge reads the emotion of the track, and how often a neutral voice as neutral."""
    read = [row for row in rows if "read" in row]
    shown = [row for row in read if row["intensity"] > SHOWN and row["label"] != NEUTRAL]
    plain = [row for row in read if row["acted"] == NEUTRAL]
    confusion: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in shown:
        confusion[row["label"]][row["read"]] += 1
    return {
        "strong": len(shown),
        "strong_read_as_the_track": _share([row["read"] == row["label"] for row in shown]),
        "neutral": len(plain),
        "neutral_read_as_neutral": _share([row["read"] == NEUTRAL for row in plain]),
        "track_as_acted": _share([row["label"] == row["acted"] for row in read]),
        "read_as_acted": _share([row["read"] == row["acted"] for row in read]),
        "confusion": {label: dict(row) for label, row in confusion.items()},
    }


def _share(hits: Sequence[bool]) -> float | None:
    return round(float(np.mean(hits)), 3) if hits else None


class _FaceReader:
    """Renders a track on one head after the other, and asks the judge."""

    def __init__(self, talker: Talker) -> None:
        self._talker, self._judge = talker, PictureJudge()
        heads = [load_face(name) for name in identities()]
        self._heads = [(face, SoftRenderer(face, PICTURE, PICTURE)) for face in heads]
        self._next = 0

    def read(self, samples: NDArray[np.float32], track: EmotionTrack) -> str:
        """The emotion that the judge names on some frames of a recording."""
        face, renderer = self._heads[self._next % len(self._heads)]
        self._next += 1
        weights = rig_weights(self._talker, (samples, SAMPLE_RATE), track)
        spoken = np.flatnonzero(detect_speech(loudness(samples)))
        span = np.linspace(0.2, 0.8, FRAMES_OF_CLIP) * (len(spoken) - 1)
        moments = (spoken[span.astype(int)] / max(len(track.posterior), 1) * len(weights)).astype(int)
        probabilities = self._judge.read_frames(renderer, face, weights[np.minimum(moments, len(weights) - 1)])
        return JUDGE_LABELS[int(probabilities.mean(0).argmax())]


def format_chain(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [f"intensity of the diarizer by acted level, {report['clips']} clips; quantiles {QUANTILES}"]
    for level, row in report["intensity_by_level"].items():
        values = " ".join(f"{value:.2f}" for value in row["quantiles"].values())
        lines.append(f"level {float(level):.2f}: {values}  ({row['clips']} clips)")
    if "pictures" in report:
        row = report["pictures"]
        lines.append(
            f"pictures: the judge reads the track's emotion in {_percent(row['strong_read_as_the_track'])} of "
            f"{row['strong']} clips above {SHOWN}, neutral in {_percent(row['neutral_read_as_neutral'])} of "
            f"{row['neutral']} neutral voices; track as acted {_percent(row['track_as_acted'])}, picture as acted "
            f"{_percent(row['read_as_acted'])}"
        )
        lines += [f"  {label}: {counts}" for label, counts in row["confusion"].items()]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"
