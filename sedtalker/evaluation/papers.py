"""Metrics of an evaluation in the formulas and units of papers, beside the figures that they published.

Published figures hold for their own data, split, frame rate and masks; every difference from them is a warning. A paper
whose figures we have not seen has its formula alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sedtalker.errors import DataError
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.vertex_masks import FLAME_VERTICES

FLAME_LIPS = 254  # vertices of FLAME's mask of the lips


@dataclass(frozen=True)
class PaperMetric:
    """A metric as a paper defines and scales it."""

    name: str
    measure: str  # our measure with the same formula
    unit: str
    scale: float  # value in the paper's unit of a value in metres or square metres
    published: Mapping[str, float]  # system -> value


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
    by_utterance: bool = False  # its test speakers are in its training set too


VOCASET_LVE = {
    "FaceFormer": 4.109, "CodeTalker": 3.945, "SelfTalk": 3.224, "UniTalker": 3.148, "PTalker": 2.886,
    "StreamingTalker": 2.721, "KMTalk": 2.264,
}  # fmt: skip

_SPEAKERS = "VOCASET's 8, 2, 2 subjects"

PAPERS: tuple[Paper, ...] = (
    Paper(
        "SEDTalker (ICPR 2026)", "emovoca", "its own, by utterance", 30, FLAME_VERTICES,
        "192 numbers of another topology", None,
        (
            PaperMetric("MVE", "mve", "m", 1, {"SEDTalker": 5.976e-3}),
            PaperMetric("LVE", "lip_mve", "m", 1, {"SEDTalker": 7.847e-3}),
            PaperMetric("EVE", "eve", "m", 1, {"SEDTalker": 7.863e-3}),
        ),
        by_utterance=True,
    ),
    Paper(
        "EmoVOCA (WACV 2025)", "emovoca", _SPEAKERS, 60, FLAME_VERTICES, "FLAME's lips and upper face", FLAME_LIPS,
        (
            PaperMetric("LVE", "lve_l2", "mm", 1e3, {"best of the paper": 1.845, "E-FaceFormer": 3.134}),
            PaperMetric("UVE", "uve", "mm", 1e3, {"best of the paper": 0.501, "E-FaceFormer": 0.904}),
        ),
    ),
    Paper(
        "JambaTalk (TOMM 2025)", "vocaset", _SPEAKERS, 30, FLAME_VERTICES, "CodeTalker's lips and upper face", None,
        (PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, {}), PaperMetric("FDD", "fdd", "1e-5 m^2", 1e5, {})),
    ),
    Paper(
        "ScanTalk (ECCV 2024)", "vocaset", _SPEAKERS, 30, FLAME_VERTICES, "FLAME's lips and upper face", FLAME_LIPS,
        (
            PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, {}),
            PaperMetric("MVE", "mve", "mm", 1e3, {}),
            PaperMetric("DTW", "dtw", "m", 1, {}),
            PaperMetric("DFD", "dfd", "m", 1, {}),
        ),
    ),
    Paper(
        "CodeTalker (CVPR 2023)", "vocaset", _SPEAKERS, 30, FLAME_VERTICES, "CodeTalker's lips and upper face", None,
        (PaperMetric("LVE", "lve", "1e-5 m^2", 1e5, VOCASET_LVE), PaperMetric("FDD", "fdd", "1e-5 m^2", 1e5, {})),
    ),
)  # fmt: skip
"""Papers whose metrics are shown; CodeTalker's LVE of others on the same data is in their papers."""


def read_summary(path: Path | str) -> dict[str, Any]:
    """Read the report of an evaluation of a talker.

    Raises:
        DataError: the file cannot be read, or is another report.
    """
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"report cannot be read: {path} ({error}). Write one with: evaluate talker -o {path}"
        ) from error
    if not isinstance(summary, dict) or not {"systems", "measures", "fps", "split", "corpus"} <= set(summary):
        raise DataError(f"not the report of evaluate talker: {path}. Write one with: evaluate talker -o {path}")
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
                "rows": [_row(metric, summary, system["overall"]) for metric in paper.metrics],
                "warnings": _warnings(paper, summary),
            }
            for paper in PAPERS
        ],
    }


def _row(metric: PaperMetric, summary: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    known = summary["measures"].get(metric.measure)
    own = figures.get(metric.measure) or {"value": None, "low": None, "high": None}
    return {
        "metric": metric.name,
        "unit": metric.unit,
        "formula": known["formula"] if known else f"{metric.measure}: not measured, as its mask is missing",
        "own": {key: None if value is None else value * metric.scale for key, value in own.items()},
        "published": dict(metric.published),
    }


def _warnings(paper: Paper, summary: Mapping[str, Any]) -> list[str]:
    """Differences of the protocols because of which the figures cannot be compared."""
    found = []
    if summary["corpus"] != paper.corpus:
        found.append(f"corpus: {paper.corpus} in the paper, {summary['corpus']} here")
    if summary["vertices"] != paper.vertices:
        found.append(f"topology: {paper.vertices} vertices in the paper, {summary['vertices']} here")
    if summary["fps"] != paper.fps:
        found.append(f"frame rate: {paper.fps:g} fps in the paper, {summary['fps']:g} here")
    if paper.by_utterance:
        found.append(f"split: by utterance in the paper, with the test's speakers in training; here {summary['split']}")
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
                [paper["paper"], row["metric"], row["unit"], row["formula"], _show(row["own"]), published or "-"]
            )
    lines = [f"{report['corpus']}, split {report['split']}, {report['fps']:g} fps", "", markdown_table(rows), ""]
    lines.append("Published figures hold for the published corpora alone, not for synthetic ones of the same layout.")
    for paper in report["papers"]:
        lines += [f"warning, {paper['paper']}: {warning}" for warning in paper["warnings"]]
    return "\n".join(lines)


def _show(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"
