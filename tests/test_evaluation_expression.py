"""The recogniser of action units, on performances made from known patterns."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError
from sedtalker.evaluation.expression import (
    CODES,
    EMOTIONS,
    REGIONS,
    UNITS,
    NeutralSpeech,
    UnitRecogniser,
    associations,
    evaluate_expression,
    onset_times,
    pattern,
    read_measured_units,
    real_rates,
    units_of_weights,
)
from sedtalker.evaluation.expression_chain import agreement, dominant_emotion, intensities_by_level
from sedtalker.face.action_units import emotion_weights
from sedtalker.labels import LABELS
from sedtalker.mel import FRAME_RATE
from sedtalker.pipeline import Talker

TYPICAL = {
    "happy": {6: 1.4, 7: 1.5, 10: 1.6, 12: 2.1, 14: 1.0},
    "sad": {1: 0.5, 4: 1.0, 15: 0.4, 17: 0.3, 20: 0.3},
    "angry": {4: 0.5, 5: 0.5, 9: 0.4, 10: 0.5},
    "disgust": {4: 1.5, 6: 0.9, 7: 1.7, 9: 1.5, 10: 1.6, 15: 0.8, 17: 0.5},
    "fear": {1: 0.7, 2: 0.3, 4: 0.5, 5: 0.9, 20: 0.4},
    "surprise": {1: 0.3, 2: 0.5, 5: 0.9, 12: 0.3},
}
"""Rounded mean excess of RAVDESS' actors over their neutral face."""


@pytest.fixture
def ravdess(tmp_path: Path) -> Path:
    """A folder with the table of ten actors, each with another face at rest."""
    folder = tmp_path / "RAVDESS"
    (folder / "action_units").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "action_units" / "per_clip.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", *(f"AU{unit:02d}_r" for unit in UNITS)])
        writer.writeheader()
        for actor in range(1, 11):
            rest = rng.uniform(0, 1.5, len(UNITS))
            for code, emotion in CODES.items():
                for take in (1, 2, 3):
                    own = np.array([TYPICAL.get(emotion, {}).get(unit, 0.0) for unit in UNITS])
                    values = rest + own + rng.normal(0, 0.05, len(UNITS))
                    name = f"01-01-{code}-02-01-{take:02d}-{actor:02d}"
                    units = {f"AU{u:02d}_r": value for u, value in zip(UNITS, values, strict=True)}
                    writer.writerow({"name": name, **units})
    return folder


def test_other_actors_are_recognised_after_their_own_neutral_face_is_taken_off(ravdess: Path) -> None:
    measured = read_measured_units(ravdess)
    assert len(measured.emotions) == 10 * 3 * len(EMOTIONS)
    assert min(real_rates(measured).values()) > 0.9
    excess = associations(measured)["excess_over_neutral"]["happy"][UNITS.index(12)]
    assert excess == pytest.approx(2.1, abs=0.1)


def test_our_expressions_are_read_as_meant(ravdess: Path) -> None:
    measured = read_measured_units(ravdess)
    recogniser = UnitRecogniser(*measured.select(measured.strong))
    faces = emotion_weights()[[LABELS.index(emotion) for emotion in EMOTIONS]]
    read = recogniser.probabilities(units_of_weights(faces))
    assert [EMOTIONS[index] for index in read.argmax(1)] == list(EMOTIONS)
    half = recogniser.probabilities(units_of_weights(faces / 2))
    np.testing.assert_allclose(half, read, atol=1e-6)  # the pattern counts, not its size


def test_a_small_change_is_not_enlarged() -> None:
    assert np.linalg.norm(pattern(np.full(len(UNITS), 1e-3))) < 0.05


def test_every_unit_belongs_to_one_region() -> None:
    assert sorted(unit for units in REGIONS.values() for unit in units) == sorted(UNITS)


@pytest.mark.parametrize("broken", ["missing", "no unit", "no neutral"])
def test_a_table_that_cannot_be_used_is_named(ravdess: Path, broken: str) -> None:
    path = ravdess / "action_units" / "per_clip.csv"
    text = path.read_text()
    if broken == "missing":
        path.unlink()
    elif broken == "no unit":
        path.write_text(text.replace("AU12_r", "AU12"))
    else:
        path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("01-01-01")) + "\n")
    with pytest.raises(DataError, match=r"per_clip\.csv"):
        read_measured_units(ravdess)


def test_the_dominant_emotion_counts_only_frames_of_speech() -> None:
    track = EmotionTrack.neutral(1.0)
    track.set("angry", 0.8, 0.0, 0.4)
    spoken = np.arange(50) < 20
    label, intensity = dominant_emotion(track, spoken)
    assert label == "angry"
    assert intensity == pytest.approx(0.8, abs=0.1)
    assert dominant_emotion(track, ~spoken)[0] == "neutral"


def test_agreement_counts_strong_tracks_and_neutral_voices() -> None:
    rows = [
        {"acted": "angry", "level": 1.0, "label": "angry", "intensity": 0.9, "read": "angry"},
        {"acted": "angry", "level": 1.0, "label": "disgust", "intensity": 0.8, "read": "disgust"},
        {"acted": "sad", "level": 1.0, "label": "sad", "intensity": 0.7, "read": "neutral"},
        {"acted": "fear", "level": 1.0, "label": "fear", "intensity": 0.3, "read": "neutral"},
        {"acted": "neutral", "level": 0.0, "label": "neutral", "intensity": 0.0, "read": "neutral"},
        {"acted": "happy", "level": 0.5, "label": "happy", "intensity": 0.5},
    ]
    found = agreement(rows)
    assert (found["strong"], found["strong_read_as_the_track"]) == (3, 0.667)
    assert (found["neutral"], found["neutral_read_as_neutral"]) == (1, 1.0)
    assert found["read_as_acted"] == 0.4


def test_intensities_are_grouped_by_acted_level() -> None:
    rows = [{"level": level, "intensity": level * share} for level in (0.0, 1.0) for share in (0.5, 0.6, 0.7)]
    found = intensities_by_level(rows)
    assert found["0.0"]["quantiles"]["0.5"] == 0.0
    assert found["1.0"] == {"clips": 3, "quantiles": {"0.1": 0.52, "0.25": 0.55, "0.5": 0.6, "0.75": 0.65, "0.9": 0.68}}


class LateTalker:
    """Shows 4 s of an emotion, 0.1 s after the track has it."""

    name = "late"

    def __init__(self) -> None:
        self.animated: Counter[str] = Counter()  # by emotion

    def animate(self, audio: Path, emotion: str | EmotionTrack, fps: float, still: bool) -> SimpleNamespace:
        assert fps == FRAME_RATE and still
        self.animated[emotion if isinstance(emotion, str) else "track"] += 1
        track = emotion
        if isinstance(track, str):
            label, _, level = track.partition(":")
            track = EmotionTrack.neutral(4.0)
            if level:
                track.set(label, float(level), 0.0, 4.0)
        shown = (track.posterior * track.intensity[:, None]) @ emotion_weights(track.labels)
        return SimpleNamespace(blendshapes=np.concatenate([np.repeat(shown[:1], 5, axis=0), shown[:-5]]))


def test_the_delay_of_an_expression_is_measured_at_both_ends() -> None:
    times = onset_times(NeutralSpeech(cast(Talker, LateTalker()), Path("speech.wav")), "happy")
    assert times["onset_50%"] == pytest.approx(0.1, abs=0.06)
    assert times["offset_50%"] == pytest.approx(0.1, abs=0.06)


def test_the_neutral_animation_of_a_recording_is_made_once(ravdess: Path) -> None:
    talker = LateTalker()
    report = evaluate_expression(cast(Talker, talker), [Path("one.wav"), Path("two.wav")], ravdess, judge=False)
    assert talker.animated["neutral"] == 2
    assert {row["read_as_meant"] for row in report["action_units"].values()} == {1.0}


def test_a_talker_without_a_rig_is_named() -> None:
    mesh = SimpleNamespace(name="mesh", animate=lambda audio, **options: SimpleNamespace(blendshapes=None))
    with pytest.raises(DataError, match="the talker mesh does not move a rig"):
        NeutralSpeech(cast(Talker, mesh), Path("speech.wav"))
