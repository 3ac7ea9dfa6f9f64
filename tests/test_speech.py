"""The built-in encoder equals transformers' Whisper; others load from folders; windows limit the context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sedtalker.audio import load_audio
from sedtalker.checkpoint import save_checkpoint
from sedtalker.errors import CheckpointError
from sedtalker.mel import FRAME_SAMPLES
from sedtalker.resources import asset
from sedtalker.speech import (
    KIND,
    TUNED_KIND,
    WhisperConfig,
    WhisperEncoder,
    WindowedEncoder,
    Windowing,
    load_encoder,
    log_mel,
    mel_filters,
)

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def samples(speech_file: Path) -> np.ndarray:
    return load_audio(speech_file)


def tiny_whisper() -> transformers.WhisperConfig:
    return transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64, decoder_layers=1,
        decoder_attention_heads=4, decoder_ffn_dim=64, vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip


def test_log_mel_equals_transformers_extractor(samples: np.ndarray) -> None:
    theirs = transformers.WhisperFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt").input_features[
        0
    ]
    ours = log_mel(torch.nn.functional.pad(torch.from_numpy(samples), (0, 480_000 - len(samples))))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_mel_filters_equal_transformers() -> None:
    theirs = transformers.audio_utils.mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(80), theirs.T, atol=1e-6)


def test_shipped_weights_equal_transformers_whisper(samples: np.ndarray) -> None:
    name, heads = "whisper-tiny.en", 6
    encoder = load_encoder(name)
    assert encoder.name == name
    theirs = transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=encoder.width, encoder_layers=4, encoder_attention_heads=heads, encoder_ffn_dim=4 * encoder.width,
            decoder_layers=1, decoder_attention_heads=heads, decoder_ffn_dim=64,
            vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )
    ).encoder.eval()  # fmt: skip
    theirs.load_state_dict(encoder.network.state_dict())
    mel = torch.nn.functional.pad(log_mel(torch.from_numpy(samples[:30_720])), (0, 3000 - 192))[None]
    with torch.inference_mode():
        expected = theirs(mel, output_hidden_states=True).hidden_states
        ours = encoder.network.hidden_states(mel)
    for layer, state in enumerate(expected):
        torch.testing.assert_close(ours[:, :, layer], state, atol=1e-4, rtol=1e-4)


def test_any_whisper_folder_loads_through_transformers(tmp_path: Path, samples: np.ndarray) -> None:
    torch.manual_seed(0)
    model = transformers.WhisperModel(tiny_whisper()).eval()
    model.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert (encoder.layers, encoder.width) == (3, 32)
    mel = torch.nn.functional.pad(log_mel(torch.from_numpy(samples[:30_720])), (0, 3000 - 192))[None]
    with torch.inference_mode():
        expected = model.encoder(mel).last_hidden_state
        torch.testing.assert_close(encoder.network.hidden_states(mel)[:, :, -1], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "WavLM"])
def test_waveform_encoders_load_from_a_folder(tmp_path: Path, samples: np.ndarray, kind: str) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    getattr(transformers, f"{kind}Model")(config).eval().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    features = encoder.encode(samples)
    assert features.shape == (int(np.ceil(len(samples) / FRAME_SAMPLES)), 3, 32)
    assert torch.isfinite(features).all()


def test_a_folder_without_an_encoder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as refusal:
        load_encoder(tmp_path / "absent")
    assert "\n" not in str(refusal.value)
    transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=10).save_pretrained(
        tmp_path
    )
    with pytest.raises(CheckpointError, match="not a speech encoder"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (KIND, {"width": "32"}),
        (KIND, {"heads": 5}),
        (KIND, {"colour": 3}),
        (TUNED_KIND, {}),
        (TUNED_KIND, {"below": "2"}),
    ],
)
def test_a_damaged_configuration_is_refused_in_one_line(tmp_path: Path, kind: str, config: dict[str, object]) -> None:
    save_checkpoint(tmp_path, kind, config, {"weight": torch.zeros(1)})
    with pytest.raises(CheckpointError) as refusal:
        load_encoder(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("count", [400, 4_800, 16_001, 30_966])
def test_one_frame_every_20_ms(samples: np.ndarray, count: int) -> None:
    features = load_encoder().encode(samples[:count])
    assert features.shape == (int(np.ceil(count / FRAME_SAMPLES)), 5, 384)


@pytest.fixture(scope="module")
def small() -> WindowedEncoder:
    torch.manual_seed(0)
    config = WhisperConfig(width=32, heads=2, feedforward=64, layers=2)
    return WindowedEncoder("small", WhisperEncoder(config), 3, 32, "cpu", Windowing(left=10, hop=40, right=10))


@pytest.mark.parametrize("frames", [1, 39, 40, 41, 50, 51, 123])
@pytest.mark.parametrize("size", [320, 1000, 10**6])
def test_windows_do_not_depend_on_the_chunks(small: WindowedEncoder, frames: int, size: int) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(frames * FRAME_SAMPLES - 7).astype(np.float32)
    padded = torch.from_numpy(np.pad(sound, (0, 7)))
    expected = []
    for start in range(0, frames, 40):
        first, end, last = max(0, start - 10), min(start + 40, frames), min(start + 50, frames)
        hidden = small.network(padded[first * FRAME_SAMPLES : last * FRAME_SAMPLES])
        expected.append(hidden[start - first : end - first])
    chunks = [sound[place : place + size] for place in range(0, len(sound), size)]
    torch.testing.assert_close(torch.cat(list(small.blocks(chunks))), torch.cat(expected), rtol=0, atol=1e-5)


def test_audio_beyond_the_context_has_no_effect(small: WindowedEncoder) -> None:
    rng = np.random.default_rng(0)
    sound = 0.1 * rng.standard_normal(200 * FRAME_SAMPLES).astype(np.float32)
    other = sound.copy()
    other[120 * FRAME_SAMPLES :] *= 0.3
    before, after = small.encode(sound), small.encode(other)
    torch.testing.assert_close(before[:80], after[:80])  # their windows end at frame 90
    assert not torch.allclose(before[120:], after[120:])


def test_an_encoder_folder_in_the_assets_is_described() -> None:
    card = (asset("speech", "whisper-tiny.en") / "README.md").read_text(encoding="utf-8")
    assert "MIT" in card and "Whisper" in card
