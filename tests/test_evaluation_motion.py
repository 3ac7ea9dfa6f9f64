"""Motion metrics of a small rig store, of an untrained model and of finished animations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_animation import made_animation

from sedtalker.animation import Animation, load_animation
from sedtalker.audio import write_wav
from sedtalker.cli.main import main
from sedtalker.data.rig_store import RigClip, write_rig_store
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack, constant_track
from sedtalker.errors import DataError
from sedtalker.evaluation.motion import TrackedClip, evaluate, evaluate_animation, tracked_metrics
from sedtalker.labels import LABELS
from sedtalker.phones import Phone, write_phones
from sedtalker.synthesis.coarticulation import perform
from sedtalker.synthesis.rig_clips import non_speech_clips, performance_arrays, tracked_arrays
from sedtalker.synthesis.tracked_faces import FaceMotion
from sedtalker.talker.model import TalkerConfig, TalkerModel, save_talker_model

SPOKEN = tuple(
    Phone("word", name, start, end)
    for name, start, end in (("SIL", 0, 0.4), ("AA", 0.4, 0.7), ("B", 0.7, 0.8), ("AA", 0.8, 1.2), ("SIL", 1.2, 1.6))
)


def spoken_clips(audio: Path):
    """An aligned synthetic clip and a tracked clip of the same sound."""
    samples = np.random.default_rng(0).normal(0, 0.1, 25_600).astype(np.float32)
    samples[:6_400] = samples[19_200:] = 0
    for identity, source in (("tts_0", "tts"), ("grid_0", "grid")):
        path = audio / f"{identity}.wav"
        write_wav(path, [samples])
        track = constant_track("neutral", 0, 80)
        performance = perform(SPOKEN, np.full(80, -20, np.float32), *track)
        clip = RigClip(identity, str(path), "somebody", source, "test", "en")
        motion = FaceMotion(performance.weights, np.ones_like(performance.weights))
        yield clip, tracked_arrays(motion, 80) if source == "grid" else performance_arrays(performance, *track)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")

    def clips():
        yield from spoken_clips(root / "audio")
        yield from non_speech_clips(root / "audio", 18)  # the last is for testing

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


def test_every_kind_of_clip_has_its_metrics(store: Path):
    report = evaluate(store / "model", store, [store / "phones.tsv"])
    assert set(report) == {"tts", "tts, mouth shape", "grid", "foreign", "emotion"}
    assert report["tts"]["bilabials"] == 1
    assert report["grid"]["tracked"]["closure_recall"] == 1
    assert set(report["emotion"]["closure_recall_at_intensity_1"]) == set(LABELS) - {"neutral"}


@pytest.mark.parametrize(("scale", "correlation", "spread"), [(1.0, 1.0, 1.0), (0.5, 1.0, 0.5), (-2.0, -1.0, 2.0)])
def test_a_tracked_gap_is_compared_where_it_is_known(scale: float, correlation: float, spread: float):
    truth = np.zeros((100, 52), np.float32)
    truth[:, 0] = np.random.default_rng(0).uniform(0, 1, 100)
    known = np.arange(100) < 80
    made = scale * truth
    made[80:] = 50.0  # what is made where nothing is known does not count
    speaker = SimpleNamespace(neutral=lambda features: made, gap=lambda weights: weights[:, 0])
    clip = TrackedClip(torch.zeros(100, 1, 1), truth, known, (), np.full(100, -20, np.float32))
    figures = tracked_metrics(speaker, [clip])
    assert figures["gap_correlation_median"] == pytest.approx(correlation, abs=1e-5)
    assert figures["gap_spread_over_truth_median"] == pytest.approx(spread, rel=1e-5)


def test_the_command_shows_metrics_with_norms(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    report = tmp_path / "report.json"
    assert main(["evaluate", "motion", str(store / "model"), str(store), "-o", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "closure_recall" in shown and "GRID's man" in shown
    assert set(json.loads(report.read_text())) == {"tts", "tts, mouth shape", "grid", "foreign", "emotion"}


PHONES = (
    *(Phone("", name, at, end) for name, at, end in (("SIL", 0, 0.5), ("AA", 0.5, 0.9), ("B", 0.9, 1.0))),
    *(Phone("", name, at, end) for name, at, end in (("AA", 1.0, 1.5), ("SIL", 1.5, 2.0))),
)


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """ "ah-bah" at 30 fps, happy, from 0.5 to 1.5 s of two seconds, with noise as its sound."""
    samples = np.zeros(32_000, np.float32)
    samples[8_000:24_000] = np.random.default_rng(0).normal(0, 0.1, 16_000)
    samples[14_400:16_000] *= 0.05
    write_wav(tmp_path / "utterance.wav", [samples])
    decibels = np.where((np.arange(100) >= 25) & (np.arange(100) < 75), -20, -70).astype(np.float32)
    posterior, intensity = constant_track("happy", 0.8, 100)
    weights = perform(PHONES, decibels, posterior, intensity).weights
    at_30 = np.stack([np.interp((np.arange(60) + 0.5) / 30, (np.arange(100) + 0.5) / 50, w) for w in weights.T], 1)
    made = made_animation(tmp_path, 2.0)
    track = EmotionTrack.from_segments([Segment(0.0, 2.0, "happy", 0.8)], 2.0)
    animation = replace(made, blendshapes=at_30.astype(np.float32), emotion=track, meta=made.meta | sound(tmp_path))
    animation.save(tmp_path / "utterance.npz")
    return tmp_path / "utterance.npz"


def animation_metrics(path: Path, phones: tuple[Phone, ...] = ()) -> dict[str, Any]:
    return evaluate_animation(load_animation(path), path, {path.stem: phones} if phones else None)


def sound(folder: Path) -> dict[str, str]:
    return {"audio": str(folder / "utterance.wav")}


def test_a_closure_is_found_where_the_phones_say_so(spoken: Path):
    figures = animation_metrics(spoken, PHONES)
    assert (figures["bilabials"], figures["closure_recall"]) == (1, 1.0)
    assert figures["silence_gap_mm_p95"] < 0.5


def test_without_phones_there_are_no_phone_metrics(spoken: Path):
    figures = animation_metrics(spoken)
    assert not {"bilabials", "closure_recall", "rounding_ratio"} & set(figures)
    assert abs(figures["rest_after_sound_seconds"]) < 0.15
    assert all(np.isfinite(value) for value in figures.values())


def test_the_command_reads_a_table_of_phones(spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table, report = tmp_path / "phones.tsv", tmp_path / "report.json"
    write_phones(table, {"utterance": PHONES})
    assert main(["evaluate", "motion", str(spoken), "--phones", str(table), "-o", str(report)]) == 0
    assert "closure_recall" in capsys.readouterr().out
    assert json.loads(report.read_text())[str(spoken)]["bilabials"] == 1
    (tmp_path / "broken.npz").write_text("")
    assert main(["evaluate", "motion", str(tmp_path / "broken.npz"), str(spoken)]) == 1  # the other one is measured
    output = capsys.readouterr()
    assert "not an animation file" in output.err and str(spoken) in output.out
    write_phones(table, {"other": PHONES})
    assert main(["evaluate", "motion", str(spoken), "--phones", str(table)]) == 1
    assert "no phones of utterance" in capsys.readouterr().err
    assert main(["evaluate", "motion", str(spoken), "--most", "3"]) == 2
    assert "--most has no effect on animations" in capsys.readouterr().err


def test_silence_has_only_metrics_of_the_closed_mouth(spoken: Path, tmp_path: Path):
    write_wav(tmp_path / "utterance.wav", [np.zeros(32_000, np.float32)])
    figures = animation_metrics(spoken)
    assert figures["silence_gap_mm_p95"] > 1  # it speaks all the same
    assert not {"audio_lip_offset_seconds", "rest_after_sound_seconds"} & set(figures)


def test_animations_without_rig_or_audio_are_refused(spoken: Path, tmp_path: Path):
    made = made_animation(tmp_path)
    bare = Animation(made.template, made.faces, made.fps, made.emotion, dense=made.vertices, meta=made.meta)
    bare.save(tmp_path / "bare.npz")
    with pytest.raises(DataError, match="no ARKit weights"):
        animation_metrics(tmp_path / "bare.npz")
    other = replace(load_animation(spoken), faces=made.faces[1:], rig=None)
    other.save(tmp_path / "other.npz")
    with pytest.raises(DataError, match="no lips"):
        animation_metrics(tmp_path / "other.npz")
    replace(load_animation(spoken), meta={"face": "default"}).save(tmp_path / "unnamed.npz")
    with pytest.raises(DataError, match=r"sound of .*unnamed"):
        animation_metrics(tmp_path / "unnamed.npz")
    (tmp_path / "utterance.wav").unlink()
    with pytest.raises(DataError, match="sound of"):
        animation_metrics(spoken)
