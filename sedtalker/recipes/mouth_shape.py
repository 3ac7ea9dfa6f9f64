"""Fine-tune a talker on the measured shape of the mouth; a stopped run resumes:

    python -m sedtalker.recipes mouth_shape --start assets/talker/default --spoken TTS --grid GRID \\
        --facegood FACEGOOD --crema-d CREMA-D -o WORK

    WORK/crema-d.json      manifest, split by speaker
    WORK/store/            clips, audio, features, and the pseudo-labels of gap and widening
    WORK/store-made        marks a complete store
    WORK/teacher/model     from START: only measured faces and non-speech (configs/talker/shape-teacher.yaml)
    WORK/first/model       from the teacher: all sources (configs/talker/shape.yaml)
    WORK/talker/model      from `first`: more measured faces, larger weights of spread and speed (shape-finish.yaml)

In the targets (`sedtalker.synthesis.tracked_faces.read_grid`) GRID's width has the same weight as its gap; protrusion,
tuck and tongue follow from the phones; and the teacher's widening is applied to all voices. For a talker of another
encoder, give its folder as START and a store of its features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from sedtalker.recipes import default_talker
from sedtalker.recipes.pseudo_label_jaw import pseudo_label_jaw_opening
from sedtalker.synthesis.rig_clips import StoreSources, build_store
from sedtalker.talker.model import load_talker_model
from sedtalker.training.config import read_config
from sedtalker.training.talker import TalkerTraining, run_training

RUNS = (
    ("teacher", "shape-teacher.yaml"),
    ("first", "shape.yaml"),
    ("second", "shape-finish.yaml"),
    ("talker", "shape-head.yaml"),
)


def train_mouth_shape(
    work: Path,
    start: Path,
    sources: StoreSources,
    configurations: Path = default_talker.CONFIGURATIONS,
    limit: int | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Build the store, train the teacher, pseudo-label and train; returns the folder of the talker.

    Overrides hold for all runs.

    Raises:
        DataError: a source, the first talker or a configuration cannot be read.
    """
    store = work / "store"

    def settings(name: str, configuration: str, init_from: Path) -> TalkerTraining:
        own = (f"store={store}", f"output={work / name}", f"init_from={init_from}", *overrides)
        return read_config(configurations / configuration, own, TalkerTraining)

    load_talker_model(start)
    for name, configuration in RUNS:  # errors in them are found before the store is built
        settings(name, configuration, start)
    built = work / "store-made"  # a store has a manifest before it has features
    if not built.exists():
        build_store(store, sources, limit)
        built.touch()
    for name, configuration in RUNS:
        exported = work / name / "model"
        if not (exported / "config.json").is_file():  # written last
            run_training(settings(name, configuration, start))
        if name == "teacher":
            pseudo_label_jaw_opening(store, load_talker_model(exported))
        start = exported
    return start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: those of `default_talker` and the talker to start from."""
    parser.add_argument("--start", type=Path, required=True, help="folder of the talker to start from")
    default_talker.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.set_num_threads(1)
    talker = train_mouth_shape(
        arguments.output,
        arguments.start,
        default_talker.read_sources(arguments),
        arguments.configurations,
        arguments.most,
        arguments.overrides,
    )
    print(f"{talker}: the talker")
