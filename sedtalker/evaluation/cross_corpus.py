"""Accuracy of diarizers on corpora that they were not trained on, with the four emotions that most corpora have.

Whole clips count, as in the literature: the posterior over the four labels is averaged over the frames of speech. Each
corpus needs a diarizer that has not seen it, such as those of `python -m sedtalker.recipes leave_one_corpus_out`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.diarizer import Diarizer, load_diarizer
from sedtalker.errors import DataError
from sedtalker.evaluation.bootstrap import draw_counts, interval, show
from sedtalker.evaluation.clips import (
    ClipPrediction,
    bootstrap_groups,
    clip_counts,
    diarize_clips,
    false_rates,
    frame_counts,
    offline,
    thin_out,
)
from sedtalker.evaluation.report import markdown_table
from sedtalker.speech import load_encoder

CLASSES = ("neutral", "happy", "sad", "angry")


def select_clips(manifest: Manifest, corpus: str, most: int | None = None) -> list[Utterance]:
    """The clips of a corpus with one emotion of `CLASSES`, of all splits; at most `most`, drawn at random.

    Raises:
        DataError: there are none, or only one emotion.
    """
    found = [item for item in manifest if item.corpus == corpus and item.emotion in CLASSES and not item.segments]
    if len({item.emotion for item in found}) < 2:
        known = ", ".join(sorted({item.corpus for item in manifest}))
        raise DataError(f"no emotions to tell apart in the corpus {corpus!r}. The manifest holds: {known}")
    return thin_out(found, most)


def restrict(clips: Sequence[ClipPrediction], labels: Sequence[str]) -> list[ClipPrediction]:
    """Predictions over `CLASSES` only, of predictions over `labels`."""
    columns = [labels.index(name) for name in CLASSES]
    restricted = []
    for clip in clips:
        posterior = clip.posterior[:, columns] + 1e-6
        truth = CLASSES.index(clip.utterance.emotion)
        restricted.append(replace(clip, posterior=posterior / posterior.sum(1, keepdims=True), truth=truth))
    return restricted


def measure_corpus(
    clips: Sequence[ClipPrediction], seed: int | Sequence[int] = 0
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Figures of restricted predictions for one corpus, and the resampled unweighted average recalls (R,) of clips."""
    size, draws = len(CLASSES), draw_counts(bootstrap_groups(clips), seed)
    by_clip = false_rates(draws @ clip_counts(clips, size), size)
    by_frame = false_rates(draws @ frame_counts(clips, size), size)
    present = np.unique([clip.truth for clip in clips])
    sexes = {}
    for sex in ("female", "male"):
        group = [clip for clip in clips if clip.utterance.gender == sex]
        if group:
            own = false_rates(draw_counts(bootstrap_groups(group), seed) @ clip_counts(group, size), size)
            sexes[sex] = interval(own.uar)
    figures = {
        "clips": len(clips),
        "speakers": len({clip.utterance.speaker for clip in clips}),
        "languages": sorted({clip.utterance.language for clip in clips}),
        "uar": interval(by_clip.uar),
        "frame_uar": interval(by_frame.uar),
        "recalls": {CLASSES[k]: interval(1 - by_clip.negative[:, k]) for k in present},
        "false_positives": {CLASSES[k]: interval(by_clip.positive[:, k]) for k in present},
        "by_sex": sexes,
    }
    return figures, by_clip.uar


def evaluate_cross_corpus(
    manifest: Manifest,
    models: Mapping[str, Diarizer | str | Path],
    most: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate the diarizer of each corpus on that corpus; returns plain types.

    Args:
        models: corpus -> a diarizer that was not trained on it.
        most: clips of each corpus that are used; None: all.

    Raises:
        DataError: the manifest does not hold a corpus.
    """
    selected = {corpus: select_clips(manifest, corpus, most) for corpus in models}
    corpora, recalls = {}, []
    for number, (corpus, model) in enumerate(models.items()):
        diarizer = model if isinstance(model, Diarizer) else load_diarizer(model)
        clips = diarize_clips(manifest, selected[corpus], diarizer, offline(load_encoder(diarizer.config.encoder)))
        corpora[corpus], resampled = measure_corpus(restrict(clips, diarizer.config.labels), (seed, number))
        recalls.append(resampled)
    worst = min(corpora, key=lambda corpus: corpora[corpus]["uar"]["value"])
    return {"classes": list(CLASSES), "corpora": corpora, "mean": interval(np.mean(recalls, axis=0)), "worst": worst}


def format_cross_corpus(report: Mapping[str, Any]) -> str:
    """Format the figures as a Markdown table, with the worst corpus first."""
    columns = [f"recall {name}" for name in report["classes"]]
    rows = [["corpus not trained on", "language", "clips", "clip UAR", "frame UAR", *columns, "women", "men"]]
    for name, row in sorted(report["corpora"].items(), key=lambda item: item[1]["uar"]["value"]):
        recalls = [show(row["recalls"][x], 2) if x in row["recalls"] else "" for x in report["classes"]]
        sexes = [show(row["by_sex"][sex], 2) if sex in row["by_sex"] else "" for sex in ("female", "male")]
        languages = ", ".join(row["languages"])
        rows.append([name, languages, str(row["clips"]), show(row["uar"]), show(row["frame_uar"]), *recalls, *sexes])
    rows.append(["mean", "", "", show(report["mean"]), *[""] * (len(rows[0]) - 4)])
    return f"{markdown_table(rows)}\n"
