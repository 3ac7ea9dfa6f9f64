"""The comparison with papers: units, published figures, and a warning for each difference of the protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sedtalker.cli.main import main
from sedtalker.evaluation.papers import PAPERS, compare_with_papers
from sedtalker.evaluation.vertices import MEASURES


def summary(**changes: Any) -> dict[str, Any]:
    """A report of a talker with every measure at 2e-3."""
    mask = {"name": "FLAME_masks.pkl: lips", "vertices": 254, "sha256": "0" * 12}
    measures = {one.name: {"formula": one.formula, "unit": one.unit, "mask": mask} for one in MEASURES}
    figures = {one.name: {"value": 2e-3, "low": 1e-3, "high": 3e-3} for one in MEASURES}
    whole = {"corpus": "emovoca", "vertices": 5023, "fps": 60, "split": "test", "measures": measures}
    sequences = {name: {one.name: value for one in MEASURES} for name, value in (("short", 3e-3), ("long", 5e-3))}
    return {**whole, "systems": {"talker": {"overall": figures}}, "by_sequence": {"talker": sequences}, **changes}


def paper(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in report["papers"] if one["paper"].startswith(name))


def test_figures_are_in_the_units_of_the_papers() -> None:
    report = compare_with_papers(summary())
    own = {(one["paper"], row["metric"]): row["own"]["value"] for one in report["papers"] for row in one["rows"]}
    assert own["SEDTalker (ICPR 2026)", "LVE"] == pytest.approx(4e-3)  # metres, the mean of its two sequences
    assert own["EmoVOCA (WACV 2025)", "LVE"] == pytest.approx(2.0)  # mm
    assert own["CodeTalker (CVPR 2023)", "LVE"] == pytest.approx(200.0)  # 1e-5 square metres
    assert paper(report, "LVE on VOCASET")["rows"][0]["published"]["CodeTalker"] == 3.945
    assert paper(report, "CodeTalker")["rows"][0]["published"] == {}  # its own figures are of normalised coordinates
    known = {one.name for one in MEASURES}
    assert {metric.measure for one in PAPERS for metric in one.metrics} <= known


@pytest.mark.parametrize(
    "changes, warning",
    [
        ({"corpus": "biwi"}, "corpus: emovoca in the paper, biwi here"),
        ({"fps": 30}, "frame rate: 60 fps in the paper, 30 here"),
        ({"split": "train"}, "split: the paper's is test, here train"),
        ({"vertices": 7701}, "topology: 5023 vertices in the paper, 7701 here"),
        ({"measures": {"mve": {"formula": "", "mask": {"name": "all vertices"}}}}, "masks: none here"),
    ],
)
def test_differences_are_warnings(changes: dict[str, Any], warning: str) -> None:
    assert paper(compare_with_papers(summary()), "EmoVOCA")["warnings"] == []
    assert paper(compare_with_papers(summary(**changes)), "EmoVOCA")["warnings"] == [warning]
    same = summary(corpus="biwi", fps=25, vertices=23_370)
    assert paper(compare_with_papers(same), "CodeTalker")["warnings"][0].startswith("split: BIWI-Test-A")
    unlike = paper(compare_with_papers(summary()), "SEDTalker")["warnings"]
    assert any(one.startswith("split: by utterance") for one in unlike)
    assert any(one.startswith("masks: 192 numbers") for one in unlike)


def test_the_command_reads_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps(summary()))
    assert main(["evaluate", "papers", str(report), "-o", str(tmp_path / "papers.json")]) == 0
    shown = capsys.readouterr().out
    formula = "mean_t max_L d^2"
    for row in (
        f"LVE on VOCASET, by later papers | LVE | 1e-5 m^2 | {formula} | 200 [100, 300] | FaceFormer 4.109",
        f"JambaTalk (TOMM 2025) | LVE | 1e-5 m^2 | {formula} | 200 [100, 300] | none known in comparable units |",
        "SEDTalker (ICPR 2026) | MVE | m | mean over sequences of mean_t mean_v d | 0.004 | SEDTalker 0.005976 |",
    ):
        assert row in shown
    assert "note, JambaTalk (TOMM 2025): evaluation/evaluation_metrics.py measures coordinates, not vertices" in shown
    assert "warning, ScanTalk (ECCV 2024): corpus: vocaset in the paper, emovoca here" in shown
    assert json.loads((tmp_path / "papers.json").read_text())["system"] == "talker"
    report.write_text("{}")
    assert main(["evaluate", "papers", str(report)]) == 1
    assert "not the report of evaluate talker" in capsys.readouterr().err
