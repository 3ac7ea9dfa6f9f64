"""EmoBox's protocol on synthetic features with RAVDESS' file names, whose classes are directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")

from sedtalker.cli.main import main
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.evaluation.emobox import CLASSES, FOLDS, evaluate_emobox

ACTORS = (1, 11, 4, 10, 8)  # of the first three folds


def made_ravdess(folder: Path, mislabelled_actor: int) -> Manifest:
    """A clip of each class and actor; one actor's classes are shifted by one."""
    rng = np.random.default_rng(0)
    items = []
    for actor in ACTORS:
        for k in range(len(CLASSES)):
            name = f"03-01-{k + 1:02}-01-01-01-{actor:02}"
            steps = rng.normal(0, 0.3, (30, 2, 12)).astype(np.float16)
            steps[:, :, (k + (actor == mislabelled_actor)) % len(CLASSES)] += 3
            path = folder / "steps" / f"ravdess/{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, steps)
            np.save(path.with_suffix(".loudness.npy"), np.full(60, -20, np.float16))
            items.append(
                Utterance(f"ravdess/{name}", f"{name}.wav", "ravdess", f"ravdess-{actor:02}", "x", "en", "sad")
            )
    return Manifest(str(folder), items)


def test_folds_part_the_actors():
    assert sorted(actor for fold in FOLDS for actor in fold) == list(range(1, 25))


def test_each_fold_is_evaluated_on_its_available_actors(tmp_path):
    report = evaluate_emobox(made_ravdess(tmp_path, mislabelled_actor=8), [tmp_path / "steps"])
    assert [fold["actors"] for fold in report["folds"]] == [[1, 11], [4, 10], [8]]
    figures = [fold["uar"] for fold in report["folds"]]
    assert min(figures[:2]) > 0.7
    assert figures[2] == 0
    assert (report["actors"], report["uar"]) == (5, pytest.approx(sum(figures) / 3))


def test_the_command_writes_its_report_and_asks_for_features(tmp_path, capsys):
    made_ravdess(tmp_path, mislabelled_actor=0).save(tmp_path / "manifest.json")
    command = ["evaluate", "diarizer", str(tmp_path / "manifest.json"), "--protocol", "emobox"]
    assert main([*command, "--features", str(tmp_path / "steps"), "-o", str(tmp_path / "out")]) == 0
    assert "3 of 6 folds, 5 of 24 actors" in capsys.readouterr().out
    assert (tmp_path / "out" / "emobox.md").read_text().splitlines()[-1] == "| mean |  | 1.000 |"
    assert main(command) == 2
    assert "--features" in capsys.readouterr().err
