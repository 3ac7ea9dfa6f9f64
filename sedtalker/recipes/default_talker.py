"""Train the default talker from its corpora; a stopped run resumes:

    python -m sedtalker.recipes default_talker --spoken TTS --grid GRID --facegood FACEGOOD --crema-d CREMA-D -o WORK

    WORK/crema-d.json      manifest, split by speaker
    WORK/store/            clips, audio, features, and jaw openings of synthetic motion from the teacher
    WORK/store-made        marks a complete store
    WORK/teacher/model     trained on measured faces and on sounds without speech
    WORK/first/            first run of the talker
    WORK/finish-0/, -1/    fine-tuning runs, two per round
    WORK/mean-0/           average of a round's two runs, the start of the next round
    WORK/mean-2-3/, -3-4/  average of two rounds, the start of one of the last two rounds
    WORK/talker/           average of the last round's two runs

The runs use `configs/talker/`. Existing results are reused: use another folder for other sources or settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from sedtalker.data.speech_corpora.registry import add_corpus
from sedtalker.errors import DataError
from sedtalker.recipes.average_weights import average_talkers
from sedtalker.recipes.pseudo_label_jaw import pseudo_label_jaw_opening
from sedtalker.synthesis.rig_clips import StoreSources, build_store
from sedtalker.talker.model import load_talker_model
from sedtalker.training.config import read_config
from sedtalker.training.talker import TalkerTraining, run_training

CONFIGURATIONS = Path("configs/talker")
RUNS = ("default-teacher.yaml", "default.yaml", "default-finish.yaml")


class FinetuneRound(NamedTuple):
    """Fine-tuning runs from one start."""

    closure: float  # weight, reduced from round to round; otherwise lips also close at other phones
    steps: int
    mean_of: int = 1  # number of previous rounds whose average it starts from


ROUNDS = (
    FinetuneRound(1.1e-2, 2000),
    FinetuneRound(1.1e-2, 2000),
    FinetuneRound(7.4e-3, 2000),
    FinetuneRound(7.4e-3, 1500),
    FinetuneRound(4.6e-3, 1500, mean_of=2),
    FinetuneRound(4e-3, 1500, mean_of=2),
)
RECIPE_KEYS = ("store", "output", "init_from", "seed", "losses.closure")  # settings that the recipe sets
FINISHES = 2  # runs per round that are averaged


def train_default(
    work: Path,
    sources: StoreSources,
    configurations: Path = CONFIGURATIONS,
    limit: int | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Make the store, train the teacher and the talker, fine-tune and average; returns the talker's folder.

    Overrides apply to all runs.

    Raises:
        DataError: a source or a configuration cannot be read, or an override changes a setting of the recipe.
    """
    if taken := [override for override in overrides if override.split("=")[0] in RECIPE_KEYS]:
        raise DataError(f"the recipe sets this itself: {taken[0]}. Leave it out")
    store = work / "store"

    def settings_of(name: str, configuration: str, *settings: str) -> TalkerTraining:
        here = (f"store={store}", f"output={work / name}", *settings, *overrides)
        return read_config(configurations / configuration, here, TalkerTraining)

    def run_once(name: str, configuration: str, *settings: str) -> Path:
        exported = work / name / "model"
        if not (exported / "config.json").is_file():  # written last
            run_training(settings_of(name, configuration, *settings))
        return exported

    for configuration in RUNS:  # report errors before the store is made
        settings_of("any", configuration)
    made = work / "store-made"  # a store has a manifest before it has features
    if not made.exists():
        build_store(store, sources, limit)
        made.touch()
    teacher = run_once("teacher", RUNS[0])
    pseudo_label_jaw_opening(store, load_talker_model(teacher))
    run_once("first", RUNS[1])
    start, means = work / "first" / "last.ckpt", list[Path]()
    for number, (closure, steps, mean_of) in enumerate(ROUNDS):
        if mean_of > 1:
            start = _average(means[-mean_of:], work / f"mean-{number - mean_of}-{number - 1}")
        settings = f"init_from={start}", f"losses.closure={closure}", f"steps={steps}"
        seeds = range(number * FINISHES, (number + 1) * FINISHES)
        finished = [run_once(f"finish-{seed}", RUNS[2], *settings, f"seed={seed}") for seed in seeds]
        start = _average(finished, work / ("talker" if number == len(ROUNDS) - 1 else f"mean-{number}"))
        means.append(start)
    return start


def _average(talkers: Sequence[Path], output: Path) -> Path:
    average_talkers(talkers, [1 / len(talkers)] * len(talkers), output)
    return output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spoken", type=Path, required=True, help="folder of utterances.tsv, audio/ and phones.tsv")
    parser.add_argument("--grid", type=Path, required=True, help="folder of s1/ and s1_words.tsv")
    parser.add_argument("--facegood", type=Path, required=True, help="folder of FACEGOOD-Audio2Face")
    parser.add_argument("--crema-d", type=Path, required=True, help="folder of CREMA-D")
    parser.add_argument("--phones", type=Path, nargs="*", default=[], help="phone tables; what they lack is aligned")
    parser.add_argument("--configurations", type=Path, default=CONFIGURATIONS, help="default: %(default)s")
    parser.add_argument("--most", type=int, help="recordings of a corpus (default: all)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="working folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all runs")


def read_sources(arguments: argparse.Namespace) -> StoreSources:
    """The sources that `add_arguments` declares; writes the manifest of CREMA-D into the working folder."""
    manifest = arguments.output / "crema-d.json"
    add_corpus(manifest, "crema-d", arguments.crema_d)
    return StoreSources(arguments.spoken, arguments.grid, arguments.facegood, manifest, tuple(arguments.phones))


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    talker = train_default(
        arguments.output, read_sources(arguments), arguments.configurations, arguments.most, arguments.overrides
    )
    print(f"{talker}: the default talker")
