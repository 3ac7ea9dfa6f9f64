"""Train the default talker from its corpora; a stopped run resumes:

    python -m sedtalker.recipes default_talker --spoken TTS --grid GRID --facegood FACEGOOD --crema-d CREMA-D -o WORK

    WORK/crema-d.json      manifest, split by speaker
    WORK/store/            clips, audio, features of every look-ahead, and the teacher's lip gaps and mouth widths
    WORK/store-made        marks a complete store
    WORK/first/model       the talker after `configs/talker/default.yaml`
    WORK/second/model      the talker after `configs/talker/default-finish.yaml`
    WORK/third/model       the talker after `configs/talker/default-polish.yaml`
    WORK/fourth/model      the talker after `configs/talker/default-last.yaml`
    WORK/fifth/model       the talker after `configs/talker/default-opening.yaml`, with the teacher's lip gap
    WORK/sixth/model       the talker after `configs/talker/default-closures.yaml`
    WORK/talker/model      the talker after `configs/talker/default-share.yaml`
    WORK/readouts/model    the talker with the readouts of `recipes lip_readouts`

Existing results are reused: use another folder for other sources or settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from sedtalker.data.speech_corpora.registry import add_corpus
from sedtalker.recipes import lip_teacher
from sedtalker.recipes.lip_readouts import refit_talker
from sedtalker.recipes.lip_teacher import NETWORK, label_with_teacher
from sedtalker.synthesis.rig_clips import StoreSources, build_store
from sedtalker.training.config import read_config
from sedtalker.training.talker import TalkerTraining, run_training

CONFIGURATIONS = Path("configs/talker")
RUNS = (
    ("first", "default.yaml"),
    ("second", "default-finish.yaml"),
    ("third", "default-polish.yaml"),
    ("fourth", "default-last.yaml"),
    ("fifth", "default-opening.yaml"),
    ("sixth", "default-closures.yaml"),
    ("talker", "default-share.yaml"),
)
WITH_OPENING = ("fifth", "sixth", "talker")  # runs with the teacher as network of the lip gap


def train_default(
    work: Path,
    sources: StoreSources,
    configurations: Path = CONFIGURATIONS,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    teacher_steps: int | None = None,
) -> Path:
    """Make the store, label it with the teacher, and train the talker; returns the talker's folder.

    Overrides hold for all runs of the talker.

    Raises:
        DataError: a source or a configuration cannot be read.
    """
    store = work / "store"

    def settings(name: str, configuration: str, start: Path | None) -> TalkerTraining:
        begin = () if start is None else (f"init_from={start}",)
        network = (f"opening={store / NETWORK}",) if name in WITH_OPENING else ()
        own = (f"store={store}", f"output={work / name}", *begin, *network, *overrides)
        return read_config(configurations / configuration, own, TalkerTraining)

    for name, configuration in RUNS:  # report errors before the store is made
        settings(name, configuration, None)
    made = work / "store-made"  # a store has a manifest before it has features
    if not made.exists():
        build_store(store, sources, limit)
        made.touch()
    label_with_teacher(store, *lip_teacher.settings(teacher_steps))
    start: Path | None = None
    for name, configuration in RUNS:
        exported = work / name / "model"
        if not (exported / "config.json").is_file():  # written last
            run_training(settings(name, configuration, start))
        start = exported
    assert start is not None
    refitted = work / "readouts" / "model"
    if not (refitted / "config.json").is_file():  # written last
        refit_talker(store, start, refitted)
    return refitted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("--spoken", type=Path, required=True, help="folder of utterances.tsv, audio/ and phones.tsv")
    parser.add_argument("--grid", type=Path, required=True, help="folder of s1/ and s1_words.tsv")
    parser.add_argument("--facegood", type=Path, required=True, help="folder of FACEGOOD-Audio2Face")
    parser.add_argument("--crema-d", type=Path, required=True, help="folder of CREMA-D")
    parser.add_argument("--phones", type=Path, nargs="*", default=[], help="phone tables; what they lack is aligned")
    parser.add_argument("--configurations", type=Path, default=CONFIGURATIONS, help="default: %(default)s")
    parser.add_argument("--most", type=int, help="recordings of a corpus (default: all)")
    parser.add_argument("--teacher-steps", type=int, help="of each network of the lip gap (default: their own)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="working folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all runs")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    manifest = arguments.output / "crema-d.json"
    add_corpus(manifest, "crema-d", arguments.crema_d)
    sources = StoreSources(arguments.spoken, arguments.grid, arguments.facegood, manifest, tuple(arguments.phones))
    talker = train_default(
        arguments.output,
        sources,
        arguments.configurations,
        arguments.most,
        arguments.overrides,
        arguments.teacher_steps,
    )
    print(f"{talker}: the default talker")
