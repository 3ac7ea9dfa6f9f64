"""The whole way to the default talker's weights, which goes on where it was stopped:

    python -m sedtalker.training.default_talker --spoken TTS --grid GRID --facegood FACEGOOD --crema-d CREMA-D -o WORK

    WORK/crema-d.json      manifest, split by speaker
    WORK/store/            clips, sounds, features, and the openings of made motion that the teacher says
    WORK/teacher/model     trained on measured faces alone
    WORK/first/            the talker's long run
    WORK/finish-0/, -1/    two short ones from there, and so on, two a round
    WORK/mean-0/           the mean of a round's two, from which the next round goes on
    WORK/talker/           the mean of the last two rounds

Each run stands under `configs/talker/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from sedtalker.corpora.motion_store import Clip, Sources, build_store
from sedtalker.corpora.speech_emotion import add_corpus
from sedtalker.speech import load_encoder
from sedtalker.talker.model import load_talker_model
from sedtalker.training.averaging import average_talkers
from sedtalker.training.features import cache_features, listed_clips
from sedtalker.training.openings import write_openings
from sedtalker.training.talker import train_talker

CONFIGURATIONS = Path("configs/talker")
ROUNDS = ((6e-3, 2000), (6e-3, 2000), (4e-3, 2000), (4e-3, 1500), (2.5e-3, 1500))
"""Closures' weight and steps of each round of finishing: less weight in the end, or lips close at other phones too."""
FINISHES = 2  # runs in a round, whose mean is taken: each errs a little differently


def make_store(folder: Path, sources: Sources, most: int | None = None) -> list[Clip]:
    """Write a talker's store with its features; features that are there stay."""
    clips = build_store(folder, sources, most)
    cache_features(listed_clips(folder / "manifest.json"), folder / "features", load_encoder().encode)
    return clips


def train_default(
    work: Path,
    sources: Sources,
    configurations: Path = CONFIGURATIONS,
    most: int | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Make the store, ask the teacher, train and finish; the folder of the talker comes back.

    Overrides hold for all runs.

    Raises:
        DataError: a source or a configuration cannot be read.
    """
    store = work / "store"
    made = work / "store-made"  # a whole store has a manifest before it has features
    if not made.exists():
        make_store(store, sources, most)
        made.touch()

    def trained(name: str, configuration: str, *settings: str) -> Path:
        exported = work / name / "model"
        if not (exported / "config.json").is_file():  # what is written last
            here = (f"store={store}", f"output={work / name}", *settings, *overrides)
            train_talker(configurations / configuration, here)
        return exported

    teacher = trained("teacher", "default-teacher.yaml")
    write_openings(store, load_talker_model(teacher).eval())
    trained("first", "default.yaml")
    start, means = work / "first" / "last.ckpt", []
    for number, (closure, steps) in enumerate(ROUNDS):
        if number == len(ROUNDS) - 1:  # its weight on closures is another: it starts from the middle of the two before
            start = _mean(means[-2:], work / "mean-of-two")
        settings = f"start={start}", f"losses.closure={closure}", f"steps={steps}"
        seeds = range(number * FINISHES, (number + 1) * FINISHES)
        finished = [trained(f"finish-{seed}", "default-finish.yaml", *settings, f"seed={seed}") for seed in seeds]
        start = _mean(finished, work / f"mean-{number}")
        means.append(start)
    return _mean(means[-2:], work / "talker")


def _mean(talkers: Sequence[Path], output: Path) -> Path:
    average_talkers(talkers, [1 / len(talkers)] * len(talkers), output)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spoken", type=Path, required=True, help="folder of utterances.tsv, audio/ and phones.tsv")
    parser.add_argument("--grid", type=Path, required=True, help="folder of s1/ and s1_words.tsv")
    parser.add_argument("--facegood", type=Path, required=True)
    parser.add_argument("--crema-d", type=Path, required=True)
    parser.add_argument("--phones", type=Path, nargs="*", default=[], help="phone tables; what they lack is aligned")
    parser.add_argument("--configurations", type=Path, default=CONFIGURATIONS, help="default: %(default)s")
    parser.add_argument("--most", type=int, help="recordings of a corpus (default: all)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = arguments.output
    manifest = work / "crema-d.json"
    add_corpus(manifest, "crema-d", arguments.crema_d)
    sources = Sources(arguments.spoken, arguments.grid, arguments.facegood, manifest, tuple(arguments.phones))
    talker = train_default(work, sources, arguments.configurations, arguments.most, arguments.overrides)
    print(f"{talker}: the default talker")


if __name__ == "__main__":
    main()
