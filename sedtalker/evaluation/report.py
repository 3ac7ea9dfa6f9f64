"""Reports of evaluations: tables as text, Markdown and HTML, and the only writer of report files."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sedtalker.errors import require
from sedtalker.evaluation.lips import DEFINITIONS
from sedtalker.files import atomic_write

Summary = Mapping[str, Any]
Row = Sequence[str]
Format = Callable[[Mapping[str, Any]], str]

PLOTTED = ("mve", "lve", "eve")
SHOWN = 5  # failed pairs that are shown on the screen; files list all


def format_text(summary: Summary) -> str:
    """Format the metrics of all systems over all sequences, masks and remarks as text for the screen."""
    rows = [list(row) for row in _overall_rows(summary, _region)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    masks = sorted({f"{_region(one['mask'])}: {_mask(one['mask'])}" for one in summary["measures"].values()})
    return "\n".join([_head(summary), "", *lines, "", *masks, *_closure_lines(summary), *_remarks(summary, SHOWN)])


def write_report(report: Mapping[str, Any], path: Path | str, formats: Mapping[str, Format] | None = None) -> None:
    """Write a report in the form of the path's suffix: by the function that `formats` has for it, otherwise as JSON."""
    path = Path(path)
    formatter = (formats or {}).get(path.suffix.lower())
    text = formatter(report) if formatter else json.dumps(report, indent=1) + "\n"
    with atomic_write(path) as temp_path:
        temp_path.write_text(text, encoding="utf-8")


def format_markdown(summary: Summary) -> str:
    """Format the evaluation as Markdown, with definitions and tables overall and by group."""
    parts = ["# Evaluation of a talker", _head(summary), markdown_table(_overall_rows(summary))]
    if summary["closures"]:
        parts += ["## Closures", markdown_table(_closure_rows(summary))]
    parts += ["## Definitions", markdown_table(_definitions(summary))]
    for kind in _kinds(summary):
        parts += [f"## {kind.capitalize()}", markdown_table(_group_rows(summary, kind))]
    return "\n\n".join([*parts, *_remarks(summary)]) + "\n"


_STYLE = (
    "body{font:15px sans-serif;max-width:90em;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "div{overflow-x:auto}table{border-collapse:collapse}tr{border-bottom:1px solid #ddd}"
    "td,th{padding:.2em .7em;text-align:left}.number{white-space:nowrap}"
)
"""Of the page. A table that is wider than the window scrolls, as a figure is not divided between two lines."""


def format_html(summary: Summary) -> str:
    """Format the evaluation as a self-contained HTML page with plots."""
    parts = ["<h1>Evaluation of a talker</h1>", f"<p>{html.escape(_head(summary))}</p>"]
    parts.append(_html_table(_overall_rows(summary)))
    parts += [f'<img alt="{name} by emotion" src="{_plot(summary, name)}">' for name in PLOTTED if _has(summary, name)]
    if summary["closures"]:
        parts += ["<h2>Closures</h2>", _html_table(_closure_rows(summary))]
    parts += ["<h2>Definitions</h2>", _html_table(_definitions(summary))]
    for kind in _kinds(summary):
        parts += [f"<h2>{html.escape(kind.capitalize())}</h2>", _html_table(_group_rows(summary, kind))]
    parts += [f"<p>{html.escape(remark)}</p>" for remark in _remarks(summary)]
    title = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    return f"{title}<title>Evaluation of a talker</title><style>{_STYLE}</style>" + "\n".join(parts) + "\n"


def _head(summary: Summary) -> str:
    return (
        f"{summary['sequences']} sequences, {summary['frames']} frames at {summary['fps']:g} fps, "
        f"split: {summary['split']}; intervals: {summary['confidence']}"
    )


def _overall_rows(summary: Summary, describe: Callable[[Mapping[str, Any]], str] | None = None) -> list[Row]:
    systems = summary["systems"]
    rows: list[Row] = [["measure", "unit", "mask", *systems]]
    for name, described in summary["measures"].items():
        cells = [_interval(system["overall"][name]) for system in systems.values()]
        rows.append([name, described["unit"], (describe or _mask)(described["mask"]), *cells])
    return rows


def _group_rows(summary: Summary, kind: str) -> list[Row]:
    names = [name for name in PLOTTED if _has(summary, name)]
    rows: list[Row] = [[kind.removeprefix("by "), "system", "sequences", "frames", *names]]
    for system, groups in summary["systems"].items():
        for group, figures in groups[kind].items():
            counts = [str(figures["sequences"]), str(figures["frames"])]
            rows.append([group, system, *counts, *(_interval(figures[name]) for name in names)])
    return rows


def _closure_rows(summary: Summary, defined: bool = True) -> list[Row]:
    systems = summary["closures"]
    rows: list[Row] = [["closures", *systems, *(["definition"] if defined else [])]]
    for name in next(iter(systems.values())):
        values = [figures[name] for figures in systems.values()]
        cells = ["not defined" if value is None else f"{value:.3g}" for value in values]
        rows.append([name, *cells, *([DEFINITIONS[name]] if defined else [])])
    return rows


def _closure_lines(summary: Summary) -> list[str]:
    if not summary["closures"]:
        return []
    return ["", *("  ".join(cell.ljust(24) for cell in row).rstrip() for row in _closure_rows(summary, False)), ""]


def _definitions(summary: Summary) -> list[Row]:
    rows: list[Row] = [["measure", "formula", "unit", "mask", "mean over"]]
    for name, described in summary["measures"].items():
        rows.append([name, described["formula"], described["unit"], _mask(described["mask"]), described["mean_over"]])
    return rows


def _mask(mask: Mapping[str, Any]) -> str:
    if "sha256" not in mask:
        return mask["name"]
    return f"{mask['name']} ({mask['vertices']} vertices, sha256 {mask['sha256']})"


def _region(mask: Mapping[str, Any]) -> str:
    return mask["name"].rpartition(": ")[2].removesuffix(" vertices")


def _interval(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "not defined"
    if figure["low"] is None or figure["high"] is None:  # of one sentence
        return f"{figure['value']:.3e}"
    return f"{figure['value']:.3e} [{figure['low']:.3e}, {figure['high']:.3e}]"


def _reach(figure: Mapping[str, float | None], limit: str) -> float:
    """Distance of a limit of the interval from the value; 0 without an interval."""
    end, value = figure[limit], figure["value"]
    return 0.0 if end is None or value is None else abs(end - value)


def _kinds(summary: Summary) -> list[str]:
    first = next(iter(summary["systems"].values()))
    return [kind for kind, groups in first.items() if kind != "overall" and groups]


def _has(summary: Summary, name: str) -> bool:
    return name in summary["measures"]


def _remarks(summary: Summary, most: int | None = None) -> list[str]:
    """Metrics and sequences that are missing, cut or not measured."""
    remarks = []
    if summary["left_out"]:
        remarks.append(f"not measured, as masks or a template are missing: {', '.join(summary['left_out'])}")
    for system, cut in summary["cut"].items():
        if cut:
            remarks.append(
                f"{system}: {len(cut)} sequences cut to the shorter length, {sum(cut.values())} frames in all"
            )
    for system, bad in summary["bad"].items():
        remarks += [f"{system}, not measured: {name}: {reason}" for name, reason in list(bad.items())[:most]]
        if most is not None and len(bad) > most:
            remarks.append(f"{system}, not measured: and {len(bad) - most} more")
    return remarks


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows of cells, the first with the names of the columns, as a Markdown table."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _html_table(rows: Sequence[Row]) -> str:
    def line(row: Row, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{_kind(cell)}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    lines = line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:])
    return f"<div><table>{lines}</table></div>"


def _kind(cell: str) -> str:
    """The attribute of a table's cell: the class of figures."""
    return " class=number" if cell.lstrip("-")[:1].isdigit() else ""


TALKER_FORMATS: Mapping[str, Format] = {".md": format_markdown, ".html": format_html}
"""Formats of a talker's evaluation by suffix. The page has plots and raises MissingExtraError without matplotlib."""


def _plot(summary: Summary, name: str) -> str:
    """Bar plot of a metric by emotion and system with confidence intervals, as the data URL of a PNG."""
    require("matplotlib", "plot")
    from matplotlib.figure import Figure  # no pyplot: it would ask for a display

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    systems = {system: groups for system, groups in summary["systems"].items() if system != "truth"}  # it has no error
    width = 0.8 / len(systems)
    for number, (system, groups) in enumerate(systems.items()):
        figures = {"overall": groups["overall"], **groups["by emotion"]}
        values = [group[name]["value"] for group in figures.values()]
        below, above = ([_reach(group[name], limit) for group in figures.values()] for limit in ("low", "high"))
        places = [index + (number - (len(systems) - 1) / 2) * width for index in range(len(figures))]
        axes.bar(places, values, width, yerr=[below, above], capsize=2, label=system)
        axes.set_xticks(range(len(figures)), list(figures))
    axes.set_ylabel(f"{name} ({summary['measures'][name]['unit']})")
    figure.legend(loc="outside right upper", frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
