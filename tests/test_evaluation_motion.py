"""The report on a talker's motion, over a small made store and an untrained model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sedtalker.audio import write_wav
from sedtalker.cli.main import main
from sedtalker.data.rig_store import RigClip, write_rig_store
from sedtalker.emotion.track import constant_track
from sedtalker.evaluation.motion import TrackedClip, evaluate, tracked_figures
from sedtalker.labels import LABELS
from sedtalker.phones import Phone, write_phones
from sedtalker.synthesis.coarticulation import perform
from sedtalker.synthesis.rig_clips import foreign_clips, made_arrays, measured_arrays
from sedtalker.synthesis.tracked_faces import FaceMotion
from sedtalker.talker.model import TalkerConfig, TalkerModel, save_talker_model

SPOKEN = tuple(
    Phone("word", name, start, end)
    for name, start, end in (("SIL", 0, 0.4), ("AA", 0.4, 0.7), ("B", 0.7, 0.8), ("AA", 0.8, 1.2), ("SIL", 1.2, 1.6))
)


def spoken_clips(audio: Path):
    """One made clip that was aligned, and one that was measured, of the same sound."""
    samples = np.random.default_rng(0).normal(0, 0.1, 25_600).astype(np.float32)
    samples[:6_400] = samples[19_200:] = 0
    for identity, source in (("tts_0", "tts"), ("grid_0", "grid")):
        path = audio / f"{identity}.wav"
        write_wav(path, [samples])
        track = constant_track("neutral", 0, 80)
        performance = perform(SPOKEN, np.full(80, -20, np.float32), *track)
        clip = RigClip(identity, str(path), "somebody", source, "test", "en")
        motion = FaceMotion(performance.weights, np.ones_like(performance.weights))
        yield clip, measured_arrays(motion, 80) if source == "grid" else made_arrays(performance, *track)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")

    def clips():
        yield from spoken_clips(root / "audio")
        yield from foreign_clips(root / "audio", 18)  # the last is for testing

    (root / "features").mkdir()
    for clip in write_rig_store(root, clips()):
        features = np.random.default_rng(1).normal(size=(clip.frames, 5, 384)).astype(np.float16)
        np.save(root / "features" / f"{clip.id}.npy", features)
    write_phones(root / "phones.tsv", {"tts_0": SPOKEN, "grid_0": SPOKEN})
    torch.manual_seed(0)
    model = TalkerModel(TalkerConfig(width=16, order=("mamba",))).eval()
    torch.nn.init.normal_(model.lips.weight, std=0.3)  # an untrained mouth does not move
    save_talker_model(model, root / "model")
    return root


def test_every_kind_of_clip_is_judged_in_its_way(store: Path):
    report = evaluate(store / "model", store, [store / "phones.tsv"])
    assert set(report) == {"tts", "grid", "foreign", "emotion"}
    assert report["tts"]["bilabials"] == 1
    assert report["grid"]["tracked"]["closure_recall"] == 1
    assert set(report["emotion"]["read_back"]) == set(LABELS) - {"neutral"}


@pytest.mark.parametrize(("scale", "correlation", "spread"), [(1.0, 1.0, 1.0), (0.5, 1.0, 0.5), (-2.0, -1.0, 2.0)])
def test_a_tracked_gap_is_compared_where_it_is_known(scale: float, correlation: float, spread: float):
    truth = np.zeros((100, 52), np.float32)
    truth[:, 0] = np.random.default_rng(0).uniform(0, 1, 100)
    known = np.arange(100) < 80
    made = scale * truth
    made[80:] = 50.0  # what is made where nothing is known does not count
    speaker = SimpleNamespace(feeling=lambda features, label, level: made, gap=lambda weights: weights[:, 0])
    clip = TrackedClip(torch.zeros(100, 1, 1), truth, known, (), np.full(100, -20, np.float32))
    figures = tracked_figures(speaker, [clip])
    assert figures["gap_correlation_median"] == pytest.approx(correlation, abs=1e-5)
    assert figures["gap_spread_over_truth_median"] == pytest.approx(spread, rel=1e-5)


def test_the_command_shows_figures_beside_norms(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    report = tmp_path / "report.json"
    assert main(["evaluate", "motion", str(store / "model"), str(store), "-o", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "closure_recall" in shown and "GRID's man" in shown
    assert set(json.loads(report.read_text())) == {"tts", "grid", "foreign", "emotion"}
