"""Train a diarizer without each corpus in turn, and measure it on that corpus with four emotions:

python -m sedtalker.recipes leave_one_corpus_out --config configs/diarizer/default.yaml steps=600 -o WORK

WORK/without-CORPUS/model   diarizer that was not trained on the corpus; an existing one is used again
WORK/cross-corpus.json, .md figures of every corpus, and their mean
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sedtalker.checkpoint import is_checkpoint
from sedtalker.data.manifest import Manifest, load_manifest
from sedtalker.emotion.diarizer import KIND
from sedtalker.errors import DataError
from sedtalker.evaluation.cross_corpus import CLASSES, evaluate_cross_corpus, format_cross_corpus
from sedtalker.evaluation.report import write_report
from sedtalker.training.config import read_config
from sedtalker.training.diarizer import run_training
from sedtalker.training.diarizer_config import DiarizerTraining


def corpora_to_leave_out(manifest: Manifest, training: DiarizerTraining, named: Sequence[str] = ()) -> list[str]:
    """The named corpora, or all with at least two emotions of the four, in the manifest's order.

    Raises:
        DataError: a named corpus is not in the manifest, or no other corpus is left to train on.
    """
    emotions: dict[str, set[str]] = {}
    for item in manifest:
        emotions.setdefault(item.corpus, set()).add(item.emotion)
    unknown = [name for name in named if name not in emotions]
    if unknown:
        raise DataError(f"no corpus {unknown[0]!r}: {training.manifest}. It holds: {', '.join(emotions)}")
    chosen = [name for name, found in emotions.items() if (name in named or not named) and len(found & {*CLASSES}) > 1]
    used = [name for name in emotions if training.corpus_weights.get(name, 1) > 0]
    for name in chosen:
        if not any(len(emotions[other] & {*CLASSES}) > 1 for other in used if other != name):
            raise DataError(f"no other corpus with emotions to train on: {training.manifest}. Add one")
    return chosen


def train_without(corpus: str, training: DiarizerTraining, folder: Path) -> Path:
    """Train a diarizer on all corpora but one; returns its folder. A finished one is used again."""
    output = folder / f"without-{corpus}"
    if is_checkpoint(output / "model", KIND):
        return output / "model"
    weights = training.corpus_weights | {corpus: 0.0}
    return run_training(replace(training, corpus_weights=weights, output=str(output)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        nargs="+",
        required=True,
        metavar=("FILE", "KEY=VALUE"),
        help="training of a diarizer, and settings that override it",
    )
    parser.add_argument("--corpora", nargs="+", default=(), metavar="NAME", help="left out in turn (default: all)")
    parser.add_argument("--most", type=int, metavar="N", help="maximum number of measured clips per corpus")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="WORK", help="folder of the results")


def run(arguments: argparse.Namespace) -> None:
    file, *overrides = arguments.config
    training = read_config(Path(file), (*overrides, f"output={arguments.output}"), DiarizerTraining)
    manifest = load_manifest(training.manifest)
    corpora = corpora_to_leave_out(manifest, training, arguments.corpora)
    models = {corpus: train_without(corpus, training, arguments.output) for corpus in corpora}
    report = evaluate_cross_corpus(manifest, models, arguments.most)
    print(format_cross_corpus(report))
    for name in ("cross-corpus.json", "cross-corpus.md"):
        write_report(report, arguments.output / name, {".md": format_cross_corpus})
