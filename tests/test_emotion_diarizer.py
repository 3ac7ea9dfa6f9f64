"""The diarizer network: shapes, long audio without seams, the checkpoint, and what inference imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

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
from sedtalker.emotion.inference import diarize, overlap_add, predict_frames, sliding_windows, upsample_steps
from sedtalker.errors import CheckpointError
from sedtalker.labels import LABELS
from sedtalker.speech import Windowing

SMALL = DiarizerConfig(layers=3, feature_width=24, width=16, hidden=12)
PAIR = replace(SMALL, members=2, surroundings=())


def small_diarizer(config: DiarizerConfig = SMALL) -> Diarizer:
    torch.manual_seed(0)
    return Diarizer(config).eval()


@pytest.mark.parametrize("config", [SMALL, PAIR])
@pytest.mark.parametrize("frames", [1, 2, 75, 400])
def test_one_posterior_for_every_frame(config, frames):
    diarizer = small_diarizer(config)
    logits, strength = diarizer(pool_frames(torch.randn(2, frames, 3, 24)))
    steps = -(-frames // STRIDE)
    assert logits.shape == (config.members, 2, steps, len(LABELS))
    assert strength.shape == (config.members, 2, steps)
    posterior, intensity = predict_frames(diarizer, torch.randn(frames, 3, 24))
    torch.testing.assert_close(posterior.sum(-1), torch.ones(frames))
    assert ((intensity >= 0) & (intensity <= 1)).all()


def test_a_label_without_training_data_has_no_share():
    posterior, _ = predict_frames(small_diarizer(), torch.randn(50, 3, 24))
    assert posterior[:, LABELS.index("upset")].max() < 1e-9


def test_only_the_layers_from_the_first_on_are_read():
    diarizer, features = small_diarizer(), torch.randn(60, 3, 24)
    upper = small_diarizer(replace(SMALL, first_layer=2))
    both = predict_frames(upper, torch.cat([torch.randn(60, 2, 24), features], dim=1))
    for one, other in zip(predict_frames(diarizer, features), both, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("config", [SMALL, PAIR])
def test_blocks_of_any_length_give_what_the_whole_gives(config):
    diarizer = small_diarizer(config)
    features = torch.randn(2_711, 3, 24)
    whole = predict_frames(diarizer, features)
    blocks = predict_frames(diarizer, iter(features.split([1, 200, 333, 1700, 477])))
    for one, other in zip(whole, blocks, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_long_audio_is_read_as_if_at_once():
    """The recurrent layer forgets within the overlap, so that windows change next to nothing and leave no seam."""
    diarizer = small_diarizer()
    features = torch.randn(6_000, 3, 24)
    windowed, _ = predict_frames(diarizer, features)
    at_once = upsample_steps(diarizer(pool_frames(features[None]))[0].mean(0).softmax(-1), 6_000)[0]
    assert (windowed - at_once).abs().max() < 0.02


def test_windows_fade_into_each_other():
    for length in (1, 5, 30, 31, 50, 51, 100, 1003):
        steps = torch.arange(float(length))[:, None]
        seen: list[int] = []

        def numbered(window: torch.Tensor, seen: list[int] = seen) -> torch.Tensor:
            seen.append(len(window))
            return torch.cat([window, torch.full_like(window, len(seen))], dim=1)

        said = torch.cat(list(overlap_add(steps.split(7), numbered, window=30, overlap=10)))
        torch.testing.assert_close(said[:, :1], steps)  # what all say alike stays
        assert max(seen) <= 30 and len(said) == length
        number = said[:, 1]  # of the window: from one to the next in ten equal steps
        assert number[:20].eq(1).all()
        if length > 30:
            torch.testing.assert_close(number[20:30], 1 + (torch.arange(10) + 0.5) / 10)
            assert number[-1] == len(seen)


def test_windows_of_blocks_hold_their_context():
    frames = torch.arange(103.0)[:, None, None]
    windows = Windowing(left=4, hop=10, right=6)
    new = []
    for window, first, last in sliding_windows(iter(frames.split(7)), windows):
        assert len(window) <= 4 + 10 + 6
        new.append(window[first:last])
        start = int(window[first, 0, 0])
        assert first == min(4, start)
        assert len(window) - last == min(6, 103 - start - (last - first))
    torch.testing.assert_close(torch.cat(new), frames)


def test_steps_and_upsampling_keep_time():
    ramp = torch.arange(101.0)[None, :, None, None] * torch.tensor([1.0, -1.0])
    steps = pool_frames(ramp + torch.tensor([0.0, 100.0]))
    assert steps.shape == (1, 51, 1, 2)
    assert steps[0, 24, 0, 0] < 0 < steps[0, 26, 0, 0]  # the two cross at the fiftieth frame
    back = upsample_steps(torch.arange(51.0)[None, :, None] * 2 + 0.5, 101)[0, :, 0]
    torch.testing.assert_close(back[2:98], torch.arange(2.0, 98.0))


def test_surroundings_are_the_mean_and_spread_around_each_step():
    config = replace(SMALL, surroundings=(0.2,))
    around = LocalStatisticsPooling(config)
    torch.nn.init.zeros_(around.weight.weight)  # every step counts alike
    heard: list[torch.Tensor] = []
    around.join.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    x = torch.randn(1, 40, config.width)
    around(x)
    near = x[0, 18:23]  # 0.2 s are five steps
    torch.testing.assert_close(heard[0][0, 20, : config.width], near.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(heard[0][0, 20, config.width :], near.std(0, unbiased=False), atol=1e-3, rtol=1e-2)
    edge = x[0, :3]
    torch.testing.assert_close(heard[0][0, 0, : config.width], edge.mean(0), atol=1e-4, rtol=1e-4)


def test_the_track_has_the_audios_length():
    diarizer = small_diarizer()
    track = diarize(diarizer, torch.randn(120, 3, 24), duration=2.385, audio="a.wav")
    assert len(track) == 120
    assert (track.duration, track.audio, track.labels) == (2.385, "a.wav", LABELS)


def test_temperature_softens():
    hot = small_diarizer(replace(SMALL, temperature=5.0))
    features = torch.randn(50, 3, 24)
    assert predict_frames(hot, features)[0].max() < predict_frames(small_diarizer(), features)[0].max()


@pytest.mark.parametrize("config", [SMALL, PAIR])
def test_a_saved_diarizer_comes_back(tmp_path, config):
    diarizer = small_diarizer(config)
    save_diarizer(diarizer, tmp_path / "model")
    again = load_diarizer(tmp_path / "model")
    assert again.config == diarizer.config
    features = torch.randn(60, 3, 24)
    torch.testing.assert_close(
        predict_frames(again, features)[0], predict_frames(diarizer, features)[0], atol=5e-3, rtol=0
    )


def test_an_encoder_that_came_along_goes_along(tmp_path, monkeypatch):
    save_diarizer(small_diarizer(replace(SMALL, encoder=OWN_ENCODER)), tmp_path / "one")
    (tmp_path / "one" / "encoder").mkdir()
    (tmp_path / "one" / "encoder" / "config.json").write_text("{}")
    loaded = load_diarizer(tmp_path / "one")
    for folder in (tmp_path / "two", tmp_path / "one"):
        save_diarizer(loaded, folder)
        assert json.loads((folder / "config.json").read_text())["config"]["encoder"] == OWN_ENCODER
        assert (folder / "encoder" / "config.json").read_text() == "{}"
        assert load_diarizer(folder).config.encoder == str(folder / "encoder")
    monkeypatch.chdir(tmp_path / "two")  # where another diarizer's encoder lies
    save_diarizer(load_diarizer("../one"), tmp_path / "three")
    save_diarizer(small_diarizer(), tmp_path / "none")
    (tmp_path / "two" / "encoder" / "config.json").write_text('{"other": 1}')
    save_diarizer(loaded, tmp_path / "one")
    assert (tmp_path / "three" / "encoder" / "config.json").read_text() == "{}"
    assert (tmp_path / "one" / "encoder" / "config.json").read_text() == "{}"
    assert not (tmp_path / "none" / "encoder").exists()


def test_what_is_no_diarizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        load_diarizer(tmp_path)
    with pytest.raises(CheckpointError, match="unknown settings"):
        DiarizerConfig.from_plain({"colour": 3})
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


@pytest.mark.parametrize("name", ["default", "base", "open"])
def test_the_packaged_diarizers_are_sure_of_what_is_plain(name):
    """They load, know the labels of the contract, and hear no emotion in silence."""
    from sedtalker.speech import load_encoder

    diarizer = load_diarizer(name)
    assert diarizer.config.labels == LABELS
    encoder = load_encoder(diarizer.config.encoder)
    silence = np.random.default_rng(0).normal(0, 1e-4, 32_000).astype(np.float32)
    track = diarize(diarizer, encoder.encode(silence), 2.0, samples=silence)
    assert [segment.emotion for segment in track.segments] == ["neutral"]
