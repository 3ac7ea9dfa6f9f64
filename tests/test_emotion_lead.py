"""Emotion of live streams: the diarizer's networks read early states, ahead of the frames of the talker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

import sedtalker
from sedtalker.audio import load_audio
from sedtalker.emotion.config import find_lead
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.encoder_config import EARLY_AHEAD, LOOK_AHEAD
from sedtalker.mel import FRAME_SAMPLES
from sedtalker.speech import StreamingEncoder, load_encoder
from sedtalker.streaming_encoder import StreamingConfig, StreamingNetwork
from sedtalker.talker.model import TalkerConfig, TalkerModel
from sedtalker.talker.streaming import Frames, TalkerStream

NAME = "whisper-tiny.en-streaming"
WIDTH = 32
READS_EARLY = DiarizerConfig(
    encoder=NAME, first_layer=1, layers=3, feature_width=WIDTH, width=16, hidden=8, statistics_windows=(0.4,),
    causal=True, blocks=2, block_feedforward=WIDTH, projected_voice=True,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randomised(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with random values where it starts with zeros."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def talker() -> sedtalker.Talker:
    torch.manual_seed(0)
    network = StreamingNetwork(StreamingConfig(width=WIDTH, heads=2, feedforward=WIDTH, left=30))
    model = TalkerModel(
        TalkerConfig(
            NAME, layers=4, feature_width=WIDTH, width=32, expert_hidden=32, heads=2, kv_heads=1, window=10,
            look_ahead=0,
        )
    )  # fmt: skip
    diarizer = Diarizer(READS_EARLY)
    for linear in (member.live_head for member in diarizer.causal_members):
        nn.init.normal_(linear.weight, std=2.0)
    randomised(diarizer), randomised(model)
    return sedtalker.Talker(StreamingEncoder(NAME, network, "cpu"), diarizer, model, "made")


@pytest.fixture(scope="module")
def sound(speech_file) -> np.ndarray:
    return load_audio(speech_file)[: 2 * 16_000]


def push_all(stream: TalkerStream, samples: np.ndarray, size: int) -> Frames:
    parts = [stream.push(samples[first : first + size]) for first in range(0, len(samples), size)]
    return Frames(*map(np.concatenate, zip(*parts, stream.finish(), strict=True)))


@pytest.mark.parametrize("look_ahead", LOOK_AHEAD)
def test_early_states_are_those_of_the_first_block_with_a_short_look_ahead(talker, sound, look_ahead: int) -> None:
    encoder = talker.encoder.with_look_ahead(look_ahead)
    samples = sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES]
    ahead = (min(EARLY_AHEAD, LOOK_AHEAD[look_ahead][0]), 0, 0)
    wanted = encoder.network(torch.from_numpy(samples)[None], ahead)[0, :, 1].numpy()
    for size in (320, 1111, len(samples)):
        stream, early, behind = encoder.early_stream(), [], 0
        for first in range(0, len(samples), size):
            behind -= len(stream.push(samples[first : first + size]))
            early.append(stream.take_early())
            behind += len(early[-1])
        assert behind == encoder.early_frames
        stream.finish()
        np.testing.assert_allclose(np.concatenate([*early, stream.take_early()]), wanted, atol=1e-5)


@pytest.mark.parametrize("look_ahead", LOOK_AHEAD)
def test_the_emotion_does_not_depend_on_the_chunks(talker, sound, look_ahead: int) -> None:
    wanted = push_all(talker.open_stream(fps=50, look_ahead=look_ahead), sound, 1280)
    assert wanted.posterior.std(axis=0).max() > 0.01
    for size in (200, 5000, len(sound)):
        got = push_all(talker.open_stream(fps=50, look_ahead=look_ahead), sound, size)
        np.testing.assert_allclose(got.posterior, wanted.posterior, atol=1e-5)
        np.testing.assert_allclose(got.intensity, wanted.intensity, atol=1e-5)


def test_frames_show_the_steps_that_the_networks_are_ahead(talker, sound) -> None:
    """With a look-ahead of 80 ms, early states are those that a stream without a lead reads, one step later."""
    stream = talker.encoder.with_look_ahead(80).early_stream()
    features, packed = np.concatenate([stream.push(sound), stream.finish()]), talker.diarizer.compiled()
    behind, ahead = packed.stream().push(features), packed.stream(None, 1).push(features, stream.take_early())
    count = len(features) // 2 * 2
    np.testing.assert_allclose(ahead.posterior[: count - 2 : 2], behind.posterior[3:count:2], atol=1e-5)
    np.testing.assert_allclose(ahead.posterior[1 : count - 2 : 2], behind.posterior[3:count:2], atol=1e-5)
    np.testing.assert_allclose(ahead.speech[1:count:2], behind.speech[1:count:2], atol=1e-6)


def test_the_lead_follows_from_the_look_ahead_and_the_inputs() -> None:
    encoder = load_encoder(NAME)
    leads = {ms: find_lead(READS_EARLY, encoder.with_look_ahead(ms).early_frames) for ms in LOOK_AHEAD}
    assert leads == {80: 1, 120: 2, 200: 2, 400: 2}
    assert find_lead(DiarizerConfig(encoder=NAME, first_layer=1, layers=3, causal=True), 8) == 0
    assert find_lead(DiarizerConfig(encoder=NAME, first_layer=1, layers=4, causal=True, blocks=2), 8) == 0
    assert find_lead(sedtalker.load(device="cpu").diarizer.config, 4) == 2


def test_sound_of_interruptions_is_forgotten_and_the_voice_is_not(talker, sound) -> None:
    stream = talker.open_stream(fps=50)
    rng = np.random.default_rng(0)
    for _ in range(60):
        stream.push(sound[: rng.integers(0, 9000)])
        stream.interrupt()
    frames = push_all(stream, sound, 1280)
    assert len(frames.time) == pytest.approx(len(sound) / FRAME_SAMPLES, abs=2)
    np.testing.assert_allclose(frames.posterior.sum(axis=1), 1, atol=1e-4)
    stream.reset()
    again = push_all(stream, sound, 1280)
    np.testing.assert_allclose(again.posterior, push_all(talker.open_stream(fps=50), sound, 1280).posterior, atol=1e-5)
