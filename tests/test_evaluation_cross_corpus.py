"""Accuracy on corpora that a diarizer was not trained on, with clips whose posterior is known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lightning")

from sedtalker.cli.main import main
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig, save_diarizer
from sedtalker.errors import DataError
from sedtalker.evaluation import cross_corpus
from sedtalker.evaluation.clips import ClipPrediction
from sedtalker.labels import LABELS
from sedtalker.recipes import leave_one_corpus_out as recipe
from sedtalker.training.diarizer_config import DiarizerTraining


def made_manifest() -> Manifest:
    items = [
        Utterance(f"{corpus}/{speaker}-{emotion}", "", corpus, f"{corpus}-{speaker}", gender, "en", emotion)
        for corpus, emotions in (("one", ("neutral", "happy", "sad", "angry", "fear")), ("two", ("happy", "sad")))
        for speaker, gender in (("a", "female"), ("b", "male"), ("c", "male"))
        for emotion in emotions
    ]
    return Manifest("", [*items, Utterance("plain/x", "", "plain", "plain-x", "male", "en", "neutral")])


def predict(item: Utterance) -> ClipPrediction:
    """Fear has half of the posterior, the true emotion most of the rest; of the speaker b it is always happy."""
    posterior = np.full((5, len(LABELS)), 0.01, np.float32)
    posterior[:, LABELS.index("fear")] = 0.5
    posterior[:, LABELS.index("happy" if item.speaker.endswith("-b") else item.emotion)] = 0.4
    return ClipPrediction(item, posterior / posterior.sum(1, keepdims=True), np.ones(5, np.float32), 0)


@pytest.fixture
def known_posteriors(monkeypatch):
    monkeypatch.setattr(cross_corpus, "load_encoder", lambda name: None)
    monkeypatch.setattr(cross_corpus, "diarize_clips", lambda manifest, items, *rest: [predict(item) for item in items])
    return Diarizer(DiarizerConfig())


def test_only_the_four_emotions_count(known_posteriors):
    report = cross_corpus.evaluate_cross_corpus(made_manifest(), dict.fromkeys(("one", "two"), known_posteriors))
    one, two = report["corpora"]["one"], report["corpora"]["two"]
    assert (one["clips"], two["clips"]) == (12, 6)  # without fear
    assert one["uar"]["value"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 3 + 1) / 4)
    assert two["uar"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert one["by_sex"]["female"]["value"] == 1 and one["by_sex"]["male"]["value"] == pytest.approx(5 / 8)
    assert report["mean"]["value"] == pytest.approx((0.75 + 5 / 6) / 2) and report["worst"] == "one"
    lines = cross_corpus.format_cross_corpus(report).splitlines()
    assert lines[2].startswith("| one | en | 12 | 0.750 [") and lines[-1].startswith("| mean |")


def test_a_corpus_without_emotions_is_refused(known_posteriors):
    for name in ("plain", "unknown"):
        with pytest.raises(DataError, match=f"tell apart in the corpus '{name}'"):
            cross_corpus.evaluate_cross_corpus(made_manifest(), {name: known_posteriors})


def test_the_recipe_trains_without_each_corpus_and_uses_finished_runs_again(tmp_path, monkeypatch):
    made_manifest().save(tmp_path / "manifest.json")
    trained = []

    def train(training: DiarizerTraining):
        trained.append((training.output, training.corpus_weights))
        save_diarizer(Diarizer(DiarizerConfig(width=8, hidden=8)), f"{training.output}/model")
        return tmp_path / training.output / "model"

    monkeypatch.setattr(recipe, "run_training", train)
    training = DiarizerTraining(str(tmp_path / "manifest.json"), ("f",), "x", corpus_weights={"plain": 0.1})
    corpora = recipe.corpora_to_leave_out(made_manifest(), training)
    assert corpora == ["one", "two"]
    for _ in range(2):
        for corpus in corpora:
            recipe.train_without(corpus, training, tmp_path / "out")
    assert trained == [
        (str(tmp_path / "out/without-one"), {"plain": 0.1, "one": 0.0}),
        (str(tmp_path / "out/without-two"), {"plain": 0.1, "two": 0.0}),
    ]
    with pytest.raises(DataError, match="no corpus 'three'"):
        recipe.corpora_to_leave_out(made_manifest(), training, ["three"])


def test_the_command_writes_its_table(tmp_path, capsys, known_posteriors):
    made_manifest().save(tmp_path / "manifest.json")
    save_diarizer(Diarizer(DiarizerConfig(width=8, hidden=8)), tmp_path / "model")
    command = ["evaluate", "diarizer", str(tmp_path / "manifest.json"), "--left-out", f"one={tmp_path / 'model'}"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/cross-corpus.md").read_text() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command[:4], "one"])
    assert "not CORPUS=DIR" in capsys.readouterr().err
