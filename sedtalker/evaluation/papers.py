"""Metrics of an evaluation in the formulas and units of papers, beside the figures that they published.

Published figures hold for their own data, split, frame rate and masks; every difference from them is a warning. A paper
whose figures we do not know in comparable units has its formula alone. Formulas, means and splits were compared with
the evaluation scripts that the authors published; a note of each paper names the script or says that there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sedtalker.errors import DataError, reason_of
from sedtalker.evaluation.bootstrap import Figure
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.vertex_masks import FLAME_VERTICES

FLAME_LIPS = 254  # vertices of FLAME's mask of the lips
BIWI_VERTICES = 23_370
_COMMAND = "sedtalker evaluate talker PRED_DIR TRUTH_DIR -o REPORT.json"  # that writes a report


@dataclass(frozen=True)
class PaperMetric:
    """A metric as a paper defines and scales it."""

    name: str
    measure: str  # our measure with the same formula
    unit: str
    scale: float  # value in the paper's unit of a value in metres or square metres
    published: Mapping[str, float]  # system -> value
    mean_over: str | None = None  # "sequences" if the paper averages the means of sequences; None: as our measure


@dataclass(frozen=True)
class Paper:
    """Protocol and metrics of a paper."""

    name: str
    corpus: str
    split: str
    fps: float
    vertices: int
    masks: str
    lips: int | None  # vertices; None: the mask cannot be had
    metrics: tuple[PaperMetric, ...]
    note: str  # the evaluation script that the formulas were compared with, and its differences from them
    own_split: bool = False  # no split of our stores has the same sequences


UNKNOWN = "none known in comparable units"

VOCASET_LVE = {
    "FaceFormer": 4.109, "CodeTalker": 3.945, "SelfTalk": 3.224, "UniTalker": 3.148, "PTalker": 2.886,
    "StreamingTalker": 2.721, "KMTalk": 2.264,
}  # fmt: skip

_SPEAKERS = "VOCASET's 8, 2, 2 subjects"
_VOCASET_SPLIT = f"{_SPEAKERS}, sentences 21-40"

PAPERS: tuple[Paper, ...] = (
    Paper(
        "SEDTalker (ICPR 2026)", "emovoca", "by utterance, with the test's speakers in training", 30, FLAME_VERTICES,
        "192 numbers of another topology", None,
        (
            PaperMetric("MVE", "mve", "m", 1, {"SEDTalker": 5.976e-3}, "sequences"),
            PaperMetric("LVE", "lip_mve", "m", 1, {"SEDTalker": 7.847e-3}, "sequences"),
            PaperMetric("EVE", "eve", "m", 1, {"SEDTalker": 7.863e-3}, "sequences"),
        ),
        "Evaluation/evaluation_metrics.py averages the means of sequences; it has 61 lip vertices, 58 of the emotion",
        own_split=True,
    ),
    Paper(
        "EmoVOCA (WACV 2025)", "emovoca", _SPEAKERS, 60, FLAME_VERTICES, "FLAME's lips and upper face", FLAME_LIPS,
        (
            PaperMetric("LVE", "lve_l2", "mm", 1e3, {"best of the paper": 1.845, "E-FaceFormer": 3.134}),
            PaperMetric("UVE", "uve", "mm", 1e3, {"best of the paper": 0.501, "E-FaceFormer": 0.904}),
        ),
        "its repository has no evaluation script, so the formulas were not compared with code",
    ),
    Paper(
        "JambaTalk (TOMM 2025)", "vocaset", _VOCASET_SPLIT, 30, FLAME_VERTICES, "192 numbers of another topology", None,
        (PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, {}), PaperMetric("FDD", "fdd", "1e-5 m^2", 1e5, {})),
        "evaluation/evaluation_metrics.py measures coordinates, not vertices: LVE is the norm of 61 of the 15,069 "
        "coordinates, FDD the deviation of the squared norm of 131. CodeTalker's formulas are shown",
    ),
    Paper(
        "ScanTalk (ECCV 2024)", "vocaset", f"{_SPEAKERS}, all sentences", 30, FLAME_VERTICES,
        "FLAME's lips and its upper_mask.npy", FLAME_LIPS,
        (
            PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, {}),
            PaperMetric("MVE", "mve", "mm", 1e3, {}),
            PaperMetric("FDD", "fdd", "1e-5 m^2", 1e5, {}),
        ),
        "src/compute_metrics.py has the same formulas and means",
        own_split=True,
    ),
    Paper(
        "Unregistered ScanTalk (arXiv 2410.11041)", "vocaset", f"{_SPEAKERS}, all sentences", 30, FLAME_VERTICES,
        "FLAME's lips", FLAME_LIPS,
        (PaperMetric("DTW", "dtw", "m", 1, {}), PaperMetric("DFD", "dfd", "m", 1, {})),
        "ScanTalk's repository has no script of these measures, so the formulas were not compared with code",
        own_split=True,
    ),
    Paper(
        "CodeTalker (CVPR 2023)", "biwi", "BIWI-Test-A: sentences e37-e40 of the six training subjects", 25,
        BIWI_VERTICES, "its lve.txt and fdd.txt", None,
        (PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, {}), PaperMetric("FDD", "fdd", "1e-5 m^2", 1e5, {})),
        "main/cal_metric.py has the same formulas and means, in BIWI's normalised coordinates, not in metres",
        own_split=True,
    ),
    Paper(
        "LVE on VOCASET, by later papers", "vocaset", _VOCASET_SPLIT, 30, FLAME_VERTICES, "each paper's own lips", None,
        (PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, VOCASET_LVE),),
        "the formula is that of CodeTalker's script; the scripts of the other papers were not read",
    ),
)  # fmt: skip
"""Papers whose metrics are shown."""


def read_summary(path: Path | str) -> dict[str, Any]:
    """Read the report of an evaluation of a talker.

    Raises:
        DataError: the file cannot be read, or is another report.
    """
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise DataError(f"report cannot be read: {path} ({reason}). Write one with: {_COMMAND}") from error
    if not isinstance(summary, dict) or not {"systems", "measures", "fps", "split", "corpus"} <= set(summary):
        raise DataError(f"not the report of evaluate talker: {path}. Write one with: {_COMMAND}")
    return summary


def compare_with_papers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Our metrics in the units of each paper, its published figures, and warnings where the protocols differ.

    Args:
        summary: as `sedtalker.evaluation.talker.summarise` makes it; its first system is compared.
    """
    name, system = next(iter(summary["systems"].items()))
    return {
        "version": 1,
        "system": name,
        "corpus": summary["corpus"],
        "split": summary["split"],
        "fps": summary["fps"],
        "papers": [
            {
                "paper": paper.name,
                "protocol": f"{paper.corpus}, {paper.split}, {paper.fps:g} fps, {paper.masks}",
                "rows": [_row(metric, summary, name, system["overall"]) for metric in paper.metrics],
                "warnings": _warnings(paper, summary),
                "note": paper.note,
            }
            for paper in PAPERS
        ],
    }


def _row(metric: PaperMetric, summary: Mapping[str, Any], system: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    known = summary["measures"].get(metric.measure)
    own = figures.get(metric.measure) or {"value": None, "low": None, "high": None}
    formula = known["formula"] if known else f"{metric.measure}: not measured, as its mask is missing"
    if known and metric.mean_over == "sequences":
        formula, own = f"mean over sequences of {formula}", _sequence_mean(metric.measure, summary, system)
    return {
        "metric": metric.name,
        "unit": metric.unit,
        "formula": formula,
        "own": {key: None if value is None else value * metric.scale for key, value in own.items()},
        "published": dict(metric.published),
    }


def _sequence_mean(measure: str, summary: Mapping[str, Any], system: str) -> Figure:
    """Mean over sequences of a measure whose own mean is over frames; without an interval, as groups are not known."""
    values = [figures[measure] for figures in summary.get("by_sequence", {}).get(system, {}).values()]
    return {"value": float(np.mean(values)) if values else None, "low": None, "high": None}


def _warnings(paper: Paper, summary: Mapping[str, Any]) -> list[str]:
    """Differences of the protocols because of which the figures cannot be compared."""
    found = []
    if summary["corpus"] != paper.corpus:
        found.append(f"corpus: {paper.corpus} in the paper, {summary['corpus']} here")
    if summary["vertices"] != paper.vertices:
        found.append(f"topology: {paper.vertices} vertices in the paper, {summary['vertices']} here")
    if summary["fps"] != paper.fps:
        found.append(f"frame rate: {paper.fps:g} fps in the paper, {summary['fps']:g} here")
    if paper.own_split:
        found.append(f"split: {paper.split} in the paper, {summary['split']} here")
    elif summary["split"] != "test":
        found.append(f"split: the paper's is test, here {summary['split']}")
    lips = next((one["mask"] for one in summary["measures"].values() if "lips" in one["mask"]["name"]), None)
    if lips is None:
        found.append("masks: none here")
    elif paper.lips is None:
        found.append(f"masks: {paper.masks} in the paper, which we cannot include; {lips['name']} here")
    elif lips["vertices"] != paper.lips:
        found.append(f"masks: {paper.lips} vertices of the lips in the paper, {lips['vertices']} here")
    return found


def format_papers(report: Mapping[str, Any]) -> str:
    """The comparison as Markdown: one table, and the warnings of each paper."""
    rows: list[list[str]] = [["paper", "metric", "unit", "formula", report["system"], "published"]]
    for paper in report["papers"]:
        for row in paper["rows"]:
            published = ", ".join(f"{name} {value:g}" for name, value in row["published"].items())
            rows.append(
                [paper["paper"], row["metric"], row["unit"], row["formula"], _show(row["own"]), published or UNKNOWN]
            )
    lines = [f"{report['corpus']}, split {report['split']}, {report['fps']:g} fps", "", markdown_table(rows), ""]
    lines.append("Published figures hold for the published corpora alone, not for synthetic ones of the same layout.")
    for paper in report["papers"]:
        lines += [f"warning, {paper['paper']}: {warning}" for warning in paper["warnings"]]
    lines += [f"note, {paper['paper']}: {paper['note']}" for paper in report["papers"]]
    return "\n".join(lines)


def _show(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "-"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.4g}"
    return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"
