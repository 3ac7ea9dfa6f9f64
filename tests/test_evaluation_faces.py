"""Speech on avatars: closures, lips through each other, and the speed of drawing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_avatar import write_all
from test_evaluation_live import PHONES
from test_talker_live import made_talker

from sedtalker.audio import load_audio
from sedtalker.cli.main import main
from sedtalker.data.alignment import Aligner
from sedtalker.errors import FaceError
from sedtalker.evaluation.faces import evaluate_faces, format_faces, lip_heights
from sedtalker.face.arkit import ARKIT_NAMES, MOUTH_CLOSE
from sedtalker.face.assets import load_face
from sedtalker.phones import Phone, write_phones
from sedtalker.pipeline import Talker, load
from sedtalker.resources import asset

SENTENCES = (
    (2.48, 4.64, "I think I've seen this before."),
    (5.28, 6.96, "I'm on my way to the meeting."),
    (7.58, 9.74, "The airplane is almost full."),
)
"""Sentences of the demo with their times in seconds; six of their phones are /p b m/."""


def demo_phones() -> list[Phone]:
    samples, aligner, phones = load_audio(asset("demo.wav")), Aligner(), []
    for start, end, text in SENTENCES:
        found = aligner.align(samples[round(start * 16_000) : round(end * 16_000)], text)
        assert found is not None
        phones += [replace(phone, start=phone.start + start, end=phone.end + start) for phone in found]
    return phones


def test_avatars_of_other_programs_close_their_lips(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    avatars = [str(path) for path in write_all(tmp_path)]
    report = evaluate_faces(load(), ["default", *avatars], [(asset("demo.wav"), demo_phones())], drawn=0)
    default = report["default"]
    assert default["closure_recall"] > 0.9
    for name in avatars:
        assert abs(report[name]["difference_points"]) <= 3, name
        assert report[name]["crossing_mm"] < 2, name  # the thickness of a lip
        assert report[name]["gap_p95_mm"] == pytest.approx(default["gap_p95_mm"], rel=0.5), name


def test_table_and_report(speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr("sedtalker.pipeline.load", lambda name: made_talker())
    write_phones(tmp_path / "phones.tsv", {speech_file.stem: PHONES})
    arguments = ["--spoken", str(speech_file.parent), "--phones", str(tmp_path / "phones.tsv"), "--drawn", "2"]
    assert main(["evaluate", "faces", "man", *arguments, "-o", str(tmp_path / "report.json")]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert [*report] == ["default", "man"]
    assert report["man"]["frames_per_second"] > 0 and report["default"]["difference_points"] == 0
    assert format_faces(report).splitlines() == table


def test_lips_that_pass_through_each_other_are_measured() -> None:
    face = load_face("default")
    weights = np.zeros((1, len(ARKIT_NAMES)), np.float32)
    assert lip_heights(face, weights).min() > -0.001
    weights[0, MOUTH_CLOSE] = 1  # without the jaw, it presses the lips into each other
    assert lip_heights(face, weights).min() < -0.005


def test_faces_that_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talker = made_talker()
    monkeypatch.setattr(Talker, "animate", lambda *_, **__: pytest.fail("speech before the faces were checked"))
    face = load_face("default")
    for changed, message in (
        (replace(face, blendshapes=None), "without blendshapes"),
        (replace(face, lip_pairs=None), "no lips"),
    ):
        monkeypatch.setattr("sedtalker.evaluation.faces.load_face", lambda _, changed=changed: changed)
        with pytest.raises(FaceError, match=message):
            evaluate_faces(talker, ["a.glb"], [(tmp_path / "a.wav", PHONES)])
