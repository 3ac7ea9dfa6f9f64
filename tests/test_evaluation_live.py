"""Live streams measured for each look-ahead."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_talker_live import made_talker

from sedtalker.cli.main import main
from sedtalker.errors import DataError
from sedtalker.evaluation.live import (
    MOMENTS,
    LiveData,
    evaluate_live,
    evaluate_moments,
    find_spoken,
    format_live,
    format_moments,
)
from sedtalker.phones import Phone

PHONES = [
    Phone("word", name, 0.1 * n, 0.1 * n + 0.1)
    for n, name in enumerate(("SIL", "B", "AA", "M", "IY", "S", "P", "AA", "SIL"))
]


def test_each_setting_has_its_figures(speech_file: Path, tmp_path: Path) -> None:
    rng, frames = np.random.default_rng(0), 48
    curves = {"lip_gap": rng.uniform(0, 0.2, frames), "lip_width": rng.uniform(0.5, 0.6, frames)}
    np.savez(tmp_path / "a.npz", **curves, lip_points=rng.normal(size=(frames, 40, 3)), fps=25.0)
    data = LiveData(
        tracked=[(tmp_path / "a.npz", speech_file)], spoken=[(speech_file, PHONES)], emotional=[(speech_file, "angry")]
    )
    report = evaluate_live(made_talker(), data, (80, 400))
    assert list(report) == ["offline", "live, 80 ms", "live, 400 ms"]
    assert report["live, 400 ms"]["gap_r"] == pytest.approx(report["offline"]["gap_r"], abs=1e-3)
    assert report["live, 400 ms"]["closures"] == report["offline"]["closures"]
    assert report["live, 80 ms"]["width_r"] != pytest.approx(report["offline"]["width_r"], abs=1e-6)
    assert all(0 <= row["frame_uar"] <= 1 for row in report.values())
    assert all(0 <= row[name] <= 1 for row in report.values() for name in ("late_uar", "settled_uar"))
    assert report["live, 80 ms"]["latency_ms"] < 120
    table = format_live(report).splitlines()
    assert len(table) == 5 and len({line.count("|") for line in table}) == 1


def test_a_file_that_is_cut_at_a_moment_does_not_know_what_follows(
    speech_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talker, lengths = made_talker(), []
    diarize = talker.diarize
    monkeypatch.setattr(talker, "diarize", lambda audio: lengths.append(len(audio[0])) or diarize(audio))
    figures = evaluate_moments(talker, [(speech_file, "angry")], 80)
    assert set(figures) <= set(MOMENTS) and len(figures) >= 3
    assert all(row["clips"] == 1 and row[name] in (0, 1) for row in figures.values() for name in ("live", "cut"))
    whole, *cut = lengths
    assert np.diff(cut).tolist() == [round(16_000 * step) for step in np.diff(list(figures))] and max(cut) < whole
    assert len(format_moments(figures).splitlines()) == 2 + len(figures)


def test_spoken_clips_are_found_by_name(speech_file: Path, tmp_path: Path) -> None:
    for name in ("a.opus", "b.opus", "c.opus", "other.opus"):
        shutil.copy(speech_file, tmp_path / name)
    found = find_spoken(tmp_path, dict.fromkeys("abc", PHONES), 2)
    assert [path.name for path, _ in found] == ["a.opus", "b.opus"]
    with pytest.raises(DataError, match="names of the table"):
        find_spoken(tmp_path, {"nobody": PHONES}, None)
    with pytest.raises(DataError, match="cannot read the folder"):
        find_spoken(tmp_path / "missing", {"nobody": PHONES}, None)


def test_nothing_to_measure_is_wrong_usage(tmp_path: Path) -> None:
    assert main(["evaluate", "live"]) == 2
    assert main(["evaluate", "live", "--spoken", str(tmp_path)]) == 2
