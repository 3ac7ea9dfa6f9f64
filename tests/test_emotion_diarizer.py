"""The diarizer's network: shapes, pooling, checkpoints and imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sedtalker.checkpoint import config_from_plain
from sedtalker.emotion.diarizer import (
    OWN_ENCODER,
    STRIDE,
    Diarizer,
    DiarizerConfig,
    LocalStatisticsPooling,
    load_diarizer,
    pool_frames,
    save_diarizer,
)
from sedtalker.emotion.inference import diarize, predict_frames
from sedtalker.errors import CheckpointError
from sedtalker.labels import LABELS

SMALL = DiarizerConfig(layers=3, feature_width=24, width=16, hidden=12)
PAIR = replace(SMALL, members=2, statistics_windows=())


def small_diarizer(config: DiarizerConfig = SMALL) -> Diarizer:
    torch.manual_seed(0)
    return Diarizer(config).eval()


@pytest.mark.parametrize("config", [SMALL, PAIR])
@pytest.mark.parametrize("frames", [1, 2, 75, 400])
def test_one_posterior_for_every_frame(config, frames):
    diarizer = small_diarizer(config)
    logits, intensity = diarizer(pool_frames(torch.randn(2, frames, 3, 24)))
    steps = -(-frames // STRIDE)
    assert logits.shape == (config.members, 2, steps, len(LABELS))
    assert intensity.shape == (config.members, 2, steps)
    posterior, intensity, _ = predict_frames(diarizer, torch.randn(frames, 3, 24))
    torch.testing.assert_close(posterior.sum(-1), torch.ones(frames))
    assert ((intensity >= 0) & (intensity <= 1)).all()


def test_a_label_without_training_data_has_no_share():
    posterior = predict_frames(small_diarizer(), torch.randn(50, 3, 24)).posterior
    assert posterior[:, LABELS.index("upset")].max() < 1e-9


def test_only_the_layers_from_the_first_on_are_read():
    diarizer, features = small_diarizer(), torch.randn(60, 3, 24)
    upper = small_diarizer(replace(SMALL, first_layer=2))
    both = predict_frames(upper, torch.cat([torch.randn(60, 2, 24), features], dim=1))
    for one, other in zip(predict_frames(diarizer, features)[:2], both[:2], strict=True):
        torch.testing.assert_close(one, other)


def test_statistics_pooling_is_the_mean_and_deviation_around_each_step():
    config = replace(SMALL, statistics_windows=(0.2,))
    around = LocalStatisticsPooling(config)
    torch.nn.init.zeros_(around.weight.weight)  # all steps have equal weights
    inputs: list[torch.Tensor] = []
    around.join.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    x = torch.randn(1, 40, config.width)
    around(x)
    near = x[0, 18:23]  # 0.2 s are five steps
    torch.testing.assert_close(inputs[0][0, 20, : config.width], near.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(inputs[0][0, 20, config.width :], near.std(0, unbiased=False), atol=1e-3, rtol=1e-2)
    edge = x[0, :3]
    torch.testing.assert_close(inputs[0][0, 0, : config.width], edge.mean(0), atol=1e-4, rtol=1e-4)


def test_temperature_softens():
    hot = small_diarizer(replace(SMALL, temperature=5.0))
    features = torch.randn(50, 3, 24)
    assert predict_frames(hot, features)[0].max() < predict_frames(small_diarizer(), features)[0].max()


def test_the_range_of_the_intensity_is_shown_as_0_to_1():
    means = torch.randn(1, 100, len(LABELS) + 1)
    posterior, raw = small_diarizer().finish(means)
    low, high = (float(raw.quantile(share)) for share in (0.2, 0.8))
    same, shown = small_diarizer(replace(SMALL, intensity_range=(low, high))).finish(means)
    torch.testing.assert_close(shown, ((raw - low) / (high - low)).clamp(0, 1))
    assert (shown == 0).float().mean() > 0.1 and (shown == 1).float().mean() > 0.1
    torch.testing.assert_close(same, posterior)


@pytest.mark.parametrize("config", [SMALL, PAIR])
def test_a_saved_diarizer_is_loaded(tmp_path, config):
    diarizer = small_diarizer(config)
    save_diarizer(diarizer, tmp_path / "model")
    again = load_diarizer(tmp_path / "model")
    assert again.config == diarizer.config
    features = torch.randn(60, 3, 24)
    torch.testing.assert_close(
        predict_frames(again, features)[0], predict_frames(diarizer, features)[0], atol=5e-3, rtol=0
    )


def test_the_tuned_encoder_is_saved_with_its_diarizer(tmp_path, monkeypatch):
    save_diarizer(small_diarizer(replace(SMALL, encoder=OWN_ENCODER)), tmp_path / "one")
    (tmp_path / "one" / "encoder").mkdir()
    (tmp_path / "one" / "encoder" / "config.json").write_text("{}")
    loaded = load_diarizer(tmp_path / "one")
    for folder in (tmp_path / "two", tmp_path / "one"):
        save_diarizer(loaded, folder)
        assert json.loads((folder / "config.json").read_text())["config"]["encoder"] == OWN_ENCODER
        assert (folder / "encoder" / "config.json").read_text() == "{}"
        assert load_diarizer(folder).config.encoder == str(folder / "encoder")
    monkeypatch.chdir(tmp_path / "two")  # a folder with the encoder of another diarizer
    save_diarizer(load_diarizer("../one"), tmp_path / "three")
    save_diarizer(small_diarizer(), tmp_path / "none")
    (tmp_path / "two" / "encoder" / "config.json").write_text('{"other": 1}')
    save_diarizer(loaded, tmp_path / "one")
    assert (tmp_path / "three" / "encoder" / "config.json").read_text() == "{}"
    assert (tmp_path / "one" / "encoder" / "config.json").read_text() == "{}"
    assert not (tmp_path / "none" / "encoder").exists()


def test_invalid_diarizers_are_refused(tmp_path):
    with pytest.raises(CheckpointError):
        load_diarizer(tmp_path)
    with pytest.raises(CheckpointError, match="unknown settings"):
        config_from_plain(DiarizerConfig, {"colour": 3}, "diarizer")
    save_diarizer(small_diarizer(), tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text().replace('"hidden": 12', '"hidden": 13')
    (tmp_path / "model" / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_diarizer(tmp_path / "model")


def test_inference_imports_nothing_of_training():
    code = (
        "import sys, torch; from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig\n"
        "from sedtalker.emotion.inference import diarize\n"
        "track = diarize(Diarizer(DiarizerConfig()), torch.randn(50, 5, 384), 1.0); track.segments\n"
        "heavy = {'lightning', 'scipy', 'matplotlib', 'transformers', 'torchaudio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["default", "open"])
def test_packaged_diarizers_find_silence_neutral(name):
    """They load, have the contract's labels, and predict neutral for silence."""
    from sedtalker.speech import load_encoder

    diarizer = load_diarizer(name)
    assert diarizer.config.labels == LABELS
    encoder = load_encoder(diarizer.config.encoder)
    silence = np.random.default_rng(0).normal(0, 1e-4, 32_000).astype(np.float32)
    track = diarize(diarizer, encoder.encode(silence), 2.0, samples=silence)
    assert [segment.emotion for segment in track.segments] == ["neutral"]
