"""Heads that compare encoder windows: correct if the features contain the label, at chance otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sedtalker.errors import DataError
from sedtalker.recipes.encoder_windows import (
    Recording,
    Row,
    concatenate_clips,
    emotion_recalls,
    format_table,
    lip_correlations,
    read_lips,
)

LABELS = 3


def recordings() -> list[Recording]:
    """Ten speakers with each emotion in turn."""
    clips = tuple((20 * number, 20 * number + 20, number % LABELS) for number in range(6))
    return [Recording(f"speaker{number}", np.zeros(320 * 120, np.float32), clips) for number in range(10)]


@pytest.mark.parametrize(("signal", "low", "high"), [(3.0, 0.95, 1.0), (0.0, 0.15, 0.55)])
def test_emotion_recall_follows_the_features(signal: float, low: float, high: float) -> None:
    rng = np.random.default_rng(0)

    def features(recording: Recording) -> np.ndarray:
        values = rng.normal(size=(120, 8))
        for first, last, label in recording.clips:
            values[first:last, label] += signal
        return values

    by_frame, by_clip = emotion_recalls(recordings(), LABELS, features)
    assert len(by_frame) == len(by_clip) == 5
    assert low <= np.mean(by_frame) <= high and low <= np.mean(by_clip) <= high


def test_lips_are_read_from_frames_around() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(200, 130)) for _ in range(10)]
    gaps = [np.roll(values[:, 4], 3) for values in noise]  # three frames after its cause
    made = [Recording("s1", np.zeros(1), ((0, 200, gap),)) for gap in gaps]
    found = lip_correlations(made, lambda recording: noise[[id(r) for r in made].index(id(recording))])
    assert np.mean(found) > 0.8
    shuffled = [Recording("s1", np.zeros(1), ((0, 200, rng.permutation(gap)),)) for gap in gaps]
    lost = lip_correlations(shuffled, lambda recording: noise[[id(r) for r in shuffled].index(id(recording))])
    assert abs(np.mean(lost)) < 0.2


def test_clips_are_joined_on_whole_frames(tmp_path: Path) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(16_000 * 10 + 100, 0.1), 16_000)
    first, second = concatenate_clips("anna", [(tmp_path / f"{number}.wav", number) for number in range(3)])
    assert [clip[2] for clip in first.clips] == [0, 1] and [clip[2] for clip in second.clips] == [2]
    assert len(first.samples) == 2 * 500 * 320 and first.clips[1][:2] == (500, 1000)
    with pytest.raises(DataError, match="no sentences"):
        read_lips(tmp_path, 3)


def test_the_table_has_the_latency_of_each_windowing() -> None:
    text = format_table([Row((1, 4, 0.5), 0.02, [0.5, 0.7], [0.6], [0.9]), Row((0, 24, 0), 0.03, [0.5], [0.5], [0.5])])
    assert "| 1 + 4 + 0.5 | 4.5 | 0.0200 | 0.600 ± 0.100 |" in text and "| whole (24) | 24 |" in text
