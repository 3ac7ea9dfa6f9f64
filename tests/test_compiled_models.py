"""Compiled models: those of folders equal those of torch modules, and weights that do not fit are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sedtalker import pipeline
from sedtalker.emotion import causal_cpu, inference
from sedtalker.emotion.causal_cpu import load_compiled_diarizer
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig, load_diarizer
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.encoder_config import encoder_folder
from sedtalker.errors import CheckpointError
from sedtalker.resources import asset
from sedtalker.speech import StreamingEncoder, load_encoder
from sedtalker.streaming_encoder_cpu import load_compiled_encoder
from sedtalker.talker.model import load_talker_model
from sedtalker.talker.model_cpu import load_compiled_talker
from sedtalker.talker.model_steps import motion_of

STREAMING = "whisper-tiny.en-streaming"


def random_features(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def make_diarizer(blocks: int, members: int, projected: bool = False) -> Diarizer:
    torch.manual_seed(0)
    sizes = {"layers": 3, "feature_width": 16, "width": 12, "hidden": 8, "block_feedforward": 24, "kernel": 3}
    config = DiarizerConfig(
        **sizes, causal=True, blocks=blocks, members=members, temperature=1.3, projected_voice=projected
    )
    diarizer = Diarizer(config).eval().requires_grad_(False)
    for name, value in diarizer.named_parameters():
        if name.endswith(("gates.2.weight", "spread.weight", "offline_head.weight")):
            torch.nn.init.normal_(value, std=0.5)
    torch.nn.init.normal_(diarizer.average_voice)
    torch.nn.init.uniform_(diarizer.average_deviation, 0.5, 1.5)
    if projected:
        torch.nn.init.normal_(diarizer.projected_average)
        torch.nn.init.uniform_(diarizer.projected_deviation, 0.5, 1.5)
    return diarizer


@pytest.mark.parametrize(
    ("blocks", "members", "projected"), [(0, 2, False), (2, 1, False), (3, 1, False), (2, 2, True)]
)
@pytest.mark.parametrize("frames", [1, 40, 301])
@pytest.mark.parametrize("known", [False, True])
def test_compiled_predictions_of_recordings_equal_those_of_torch(
    blocks: int, members: int, projected: bool, frames: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With windows, cross-fades and blocks of features that are as short as the recordings."""
    for module in (inference, causal_cpu):
        monkeypatch.setattr(module, "WINDOW", 60)
        monkeypatch.setattr(module, "OVERLAP", 20)
    diarizer, features = make_diarizer(blocks, members, projected), random_features(frames, 3, 16)
    config = diarizer.config
    voice = VoiceProfile(features[0], np.abs(features[0]) + 0.1, 12.0, config.encoder) if known else None
    wanted = inference.predict_frames(diarizer, torch.from_numpy(features), voice)
    got = diarizer.compiled().predict(np.array_split(features, 1 + frames // 70), voice)
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-4)


def test_the_compiled_voice_of_a_recording_equals_that_of_torch() -> None:
    diarizer, features = make_diarizer(2, 1), random_features(301, 3, 16)
    wanted = inference.enroll_voice(diarizer, torch.from_numpy(features))
    got = diarizer.compiled().enroll([features[:50], features[50:]])
    np.testing.assert_allclose(got.mean, wanted.mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.deviation, wanted.deviation, rtol=0, atol=1e-4)
    assert got.seconds == pytest.approx(wanted.seconds)


def test_models_of_folders_equal_those_of_torch_modules() -> None:
    """8-bit layers included; torch and numpy may round constants apart by a bit, which one depends on the processor."""
    equal = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    sound = np.random.default_rng(1).standard_normal(8000).astype(np.float32) / 10
    encoder = load_encoder(STREAMING)
    assert isinstance(encoder, StreamingEncoder)
    hidden = load_compiled_encoder(STREAMING, encoder_folder(STREAMING)).encode(sound)
    equal(hidden, encoder.compiled().encode(sound))
    folder = asset("talker", "default")
    ours, theirs = load_compiled_talker(folder), motion_of(load_talker_model(folder))
    assert ours is not None
    speech = ours.embed(hidden)
    equal(speech, theirs.embed(hidden))
    equal(ours.recording_mouth([speech]), theirs.recording_mouth([speech]))
    emotion = np.full((len(hidden), 8), 1 / 8, np.float32), np.ones(len(hidden), np.float32)
    equal(*(network.start_steps().push(speech, *emotion) for network in (ours, theirs)))
    packed = load_compiled_diarizer()
    assert packed is not None
    for got, wanted in zip(packed.predict([hidden]), load_diarizer().compiled().predict([hidden]), strict=True):
        equal(got, wanted)


@pytest.mark.parametrize(
    ("packaged", "load", "setting"),
    [
        (("speech", STREAMING), lambda folder: load_compiled_encoder("made", folder), {"layers": 2}),
        (("speech", STREAMING), lambda folder: load_compiled_encoder("made", folder), {"width": 96}),
        (("talker", "default"), load_compiled_talker, {"experts": 1, "top_k": 1}),
        (("talker", "default"), load_compiled_talker, {"opening_width": 32}),
        (("diarizer", "default"), load_compiled_diarizer, {"hidden": 64}),
        (("diarizer", "default"), load_compiled_diarizer, {"members": 2}),
    ],
)
def test_weights_that_do_not_fit_their_configuration_are_refused(
    packaged: tuple[str, str], load: Callable[[Path], Any], setting: dict[str, int], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(asset(*packaged), folder)
    described = json.loads((folder / "config.json").read_text())
    described["config"] |= setting
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="do not fit"):
        load(folder)


def test_a_gpu_that_torch_cannot_use_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pipeline._find_device("auto") == "cpu"
