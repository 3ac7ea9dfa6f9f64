"""The streaming encoder: equal features for all chunk sizes, constant state, limited look-ahead, 8-bit inference."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sedtalker.audio import load_audio
from sedtalker.errors import CheckpointError
from sedtalker.int8 import Int8Linear, is_supported, measure_ranges, to_int8
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES
from sedtalker.speech import (
    StreamingEncoder,
    WhisperConfig,
    WhisperEncoder,
    Windowing,
    encoder_folder,
    load_encoder,
    log_mel,
)
from sedtalker.streaming_encoder import (
    LOOK_AHEAD,
    PERIOD,
    EncoderStream,
    StreamingConfig,
    StreamingNetwork,
    from_whisper,
    load_streaming_network,
    periodic_positions,
    save_streaming_network,
)
from sedtalker.streaming_encoder_cpu import load_compiled_encoder

SMALL = StreamingConfig(width=64, heads=2, feedforward=96, left=20)

needs_kernels = pytest.mark.skipif(not is_supported(), reason="this build of torch has no 8-bit kernels")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads do not speed up small matrix products, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> StreamingNetwork:
    torch.manual_seed(0)
    return StreamingNetwork(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder(network: StreamingNetwork) -> StreamingEncoder:
    return StreamingEncoder("small", network, "cpu")


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return (0.1 * noise * (1 + np.sin(np.arange(len(noise)) / 3000))).astype(np.float32)


def pieces(samples: np.ndarray, *sizes: int) -> Iterator[np.ndarray]:
    at = 0
    for size in cycle(sizes):
        if at >= len(samples):
            return
        yield samples[at : at + size]
        at += size


def as_tensor(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


def streamed(encoder: StreamingEncoder, samples: np.ndarray, *sizes: int) -> Tensor:
    stream = encoder.stream()
    return as_tensor([*(stream.push(piece) for piece in pieces(samples, *sizes)), stream.finish()])


@pytest.mark.parametrize("look_ahead", sorted(LOOK_AHEAD))
@pytest.mark.parametrize("sizes", [(1280,), (1,), (333, 7, 5000, 0, 1)])
def test_chunks_of_any_size_equal_the_whole_recording(
    encoder: StreamingEncoder, look_ahead: int, sizes: tuple[int, ...]
) -> None:
    samples = sound(0.05 if sizes == (1,) else 2.3)
    encoder = encoder.with_look_ahead(look_ahead)
    ahead = LOOK_AHEAD[look_ahead]
    padded = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))
    whole = encoder.network(torch.from_numpy(padded)[None], ahead)[0]
    assert whole.shape == (-(-len(samples) // FRAME_SAMPLES), SMALL.layers + 1, SMALL.width)
    torch.testing.assert_close(streamed(encoder, samples, *sizes), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode(samples), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(list(encoder.blocks(pieces(samples, *sizes)))), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 319, 320, 321, 2000])
def test_short_sounds_have_a_frame_for_every_20_ms_begun(encoder: StreamingEncoder, samples: int) -> None:
    hidden = encoder.encode(sound(1)[:samples])
    assert hidden.shape == (-(-samples // FRAME_SAMPLES), encoder.layers, encoder.width)


def test_recordings_may_be_longer_than_the_period_of_positions(encoder: StreamingEncoder) -> None:
    samples = sound(PERIOD / FRAME_RATE + 3)
    tail = samples[-5 * 16_000 :]
    start = (len(samples) - len(tail)) // FRAME_SAMPLES % PERIOD
    padded = torch.from_numpy(tail)[None]
    alone = encoder.network(padded, LOOK_AHEAD[encoder.look_ahead], start)[0]
    reached = SMALL.left * SMALL.layers + 5  # frames whose left context is cut in `alone`
    torch.testing.assert_close(encoder.encode(samples)[-250 + reached :], alone[reached:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("look_ahead", sorted(LOOK_AHEAD))
def test_a_frame_depends_on_audio_within_the_look_ahead_only(encoder: StreamingEncoder, look_ahead: int) -> None:
    encoder = encoder.with_look_ahead(look_ahead)
    samples = sound(1.6)
    stream, ready = encoder.stream(), 0
    for end in range(400, len(samples) + 1, 400):
        ready += len(stream.push(samples[end - 400 : end]))
        overdue = (end - look_ahead * 16) // FRAME_SAMPLES  # frames that ended `look_ahead` ms ago
        assert ready >= overdue
    changed = samples.copy()
    changed[16_000:] = 0
    kept = (16_000 - look_ahead * 16) // FRAME_SAMPLES
    torch.testing.assert_close(encoder.encode(changed)[:kept], encoder.encode(samples)[:kept], atol=1e-5, rtol=0)
    assert not torch.allclose(encoder.encode(changed)[49, -1], encoder.encode(samples)[49, -1], atol=1e-3)


def test_the_state_does_not_grow(encoder: StreamingEncoder) -> None:
    def bytes_of(stream: object) -> int:
        return len(pickle.dumps({name: value for name, value in vars(stream).items() if name != "_encoder"}))

    stream, samples, sizes = encoder.stream(), sound(1), []
    for _ in range(8):
        for piece in pieces(samples, 1280):
            stream.push(piece)
        sizes.append(bytes_of(stream))
    assert max(sizes[4:]) <= 1.01 * max(sizes[2:4])


def test_long_chunks_are_computed_as_short_ones(encoder: StreamingEncoder) -> None:
    """Recordings are encoded with torch in blocks of seconds, streams with compiled code in blocks of a few frames."""
    samples = sound(3)
    long = EncoderStream(encoder.network, LOOK_AHEAD[encoder.look_ahead])
    expected = as_tensor([long.push(samples), long.finish()])
    for size in (320, 480, 1280, len(samples)):
        torch.testing.assert_close(streamed(encoder, samples, size), expected, atol=1e-5, rtol=0)


def test_reset_begins_again(encoder: StreamingEncoder) -> None:
    stream = encoder.stream()
    first = as_tensor([stream.push(sound(1)), stream.finish()])
    stream.push(sound(2, seed=1))
    stream.reset()
    torch.testing.assert_close(as_tensor([stream.push(sound(1)), stream.finish()]), first, atol=1e-5, rtol=0)


def test_initial_features_equal_whispers_with_full_attention() -> None:
    """With full attention only the floor, the first frames' context and the positions differ slightly."""
    torch.manual_seed(1)
    theirs = WhisperEncoder(WhisperConfig(width=64, heads=2, feedforward=96, layers=3)).eval()
    positions = torch.from_numpy(periodic_positions(64))
    theirs.embed_positions.weight.data.copy_(positions)
    theirs.layer_norm = nn.Identity()  # type: ignore[assignment]  # ours has none after its last block
    ours = from_whisper(theirs, StreamingConfig(width=64, heads=2, feedforward=96, left=200)).eval()
    samples = torch.from_numpy(sound(2))
    with torch.inference_mode():
        expected = theirs.hidden_states(log_mel(samples).clamp(min=-0.75)[None])[0, :, 0]  # our floor
        torch.testing.assert_close(ours(samples[None], (100, 100, 100))[0, 2:-2, 0], expected[2:-2], atol=1e-4, rtol=0)
        quiet = torch.nn.functional.pad(samples[3200:-3200], (3200, 3200))  # so that the edges are silence for both
        hidden = theirs.hidden_states(log_mel(quiet).clamp(min=-0.75)[None])[0]
        mine = ours(quiet[None], (100, 100, 100))[0]
    error = (mine - hidden)[2:-2].square().mean().sqrt() / hidden.square().mean().sqrt()
    assert error < 0.05


def test_positions_repeat_and_are_near_whispers() -> None:
    positions = torch.from_numpy(periodic_positions(384))
    assert positions.shape == (PERIOD, 384)
    frequencies = torch.exp(-np.log(10000.0) / 191 * torch.arange(192))
    angles = torch.arange(100)[:, None] * frequencies
    whispers = torch.cat([angles.sin(), angles.cos()], dim=1)
    assert (positions[:100] - whispers).abs().max() < 0.22  # 100 frames at half a step of frequency, 2 pi / 1500 / 2


def test_saved_and_loaded(network: StreamingNetwork, tmp_path: Path) -> None:
    save_streaming_network(network, tmp_path / "model")
    loaded = load_encoder(tmp_path / "model")
    assert isinstance(loaded, StreamingEncoder)
    assert (loaded.layers, loaded.width, loaded.look_ahead) == (4, 64, SMALL.look_ahead)
    exact = StreamingEncoder("exact", load_streaming_network(tmp_path / "model", precision="float32"), "cpu")
    expected = StreamingEncoder("small", network, "cpu").encode(sound(1))
    apart = exact.encode(sound(1)) - expected  # weights are stored in 8 bits
    assert 0 < apart.square().mean().sqrt() < 0.02 * expected.std()


def test_windows_set_look_ahead_and_chunks(encoder: StreamingEncoder) -> None:
    for frames, look_ahead in ((0, 80), (4, 80), (5, 80), (6, 120), (10, 200), (19, 200), (50, 400)):
        assert encoder.with_windows(Windowing(left=0, hop=4, right=frames)).look_ahead == look_ahead
    live = encoder.with_windows(Windowing(left=0, hop=4, right=10))
    blocks = list(live.blocks([sound(1)]))
    assert {len(block) for block in blocks[1:-2]} == {4}
    torch.testing.assert_close(torch.cat(blocks), encoder.with_look_ahead(200).encode(sound(1)), atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="look-ahead of 90 ms"):
        encoder.with_look_ahead(90)


def measured_copy(network: StreamingNetwork) -> StreamingNetwork:
    """A network with ranges for 8-bit inference, its small tensors as a file has them."""
    copy = StreamingNetwork(SMALL)
    copy.load_state_dict(network.state_dict())
    measure_ranges(copy, [(torch.from_numpy(sound(4, seed))[None], LOOK_AHEAD[120]) for seed in (1, 2)])
    copy.load_state_dict({name: t if name.endswith("weight") else t.half() for name, t in copy.state_dict().items()})
    return copy.eval().requires_grad_(False)


@needs_kernels
def test_weights_stored_in_8_bits_do_not_change_8_bit_features(network: StreamingNetwork, tmp_path: Path) -> None:
    measured = measured_copy(network)
    save_streaming_network(measured, tmp_path / "model")
    loaded = load_encoder(tmp_path / "model")
    assert isinstance(loaded, StreamingEncoder)
    to_int8(measured)
    before, samples = StreamingEncoder("before", measured, "cpu"), sound(3)
    for run in (StreamingEncoder.encode, lambda encoder, samples: streamed(encoder, samples, 1280)):
        expected = run(before, samples)
        error = (run(loaded, samples) - expected).square().mean().sqrt()  # a rounding of 8 bits may fall either way
        assert error < 0.002 * expected.std()


@pytest.mark.parametrize("change", [{"width": "64"}, {"floor": None}, {"heads": 5}, {"look_ahead": "a"}, {"colour": 3}])
def test_a_damaged_configuration_is_refused_in_one_line(
    network: StreamingNetwork, tmp_path: Path, change: dict[str, object]
) -> None:
    save_streaming_network(network, tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    stored["config"] |= change
    path.write_text(json.dumps(stored))
    for load in (load_streaming_network, lambda folder: load_compiled_encoder("damaged", folder)):
        with pytest.raises(CheckpointError, match="speech encoder"):
            load(tmp_path)


@needs_kernels
def test_float32_features_of_the_packaged_encoder_are_close_to_those_in_8_bits(speech_file: Path) -> None:
    samples, folder = load_audio(speech_file), encoder_folder("whisper-tiny.en-streaming")
    expected, exact = (
        StreamingEncoder(precision, load_streaming_network(folder, precision=precision), "cpu").encode(samples)
        for precision in ("int8", "float32")
    )
    apart = (exact - expected).square().mean((0, 2)).sqrt() / expected.std((0, 2))
    assert 0 < apart.max() < 0.04


@needs_kernels
def test_int8_is_close_to_floating_point(network: StreamingNetwork) -> None:
    exact, rounded = measured_copy(network), measured_copy(network)
    to_int8(rounded)
    assert any(isinstance(module, Int8Linear) for module in rounded.modules())
    encoder = StreamingEncoder("int8", rounded, "cpu")
    hidden, expected = encoder.encode(sound(3)), StreamingEncoder("exact", exact, "cpu").encode(sound(3))
    assert (hidden - expected).square().mean().sqrt() < 0.1 * expected.std()
    apart = streamed(encoder, sound(3), 1280) - hidden  # an input on the edge of a step may fall on either side
    assert apart.square().mean().sqrt() < 0.01 * expected.std()


def test_packaged_encoder_follows_whisper(speech_file: Path) -> None:
    samples = load_audio(speech_file)
    encoder, whisper = load_encoder("whisper-tiny.en-streaming"), load_encoder("whisper-tiny.en")
    assert isinstance(encoder, StreamingEncoder) and encoder.look_ahead == 120
    ours, theirs = (torch.nn.functional.layer_norm(e.encode(samples), (384,)) for e in (encoder, whisper))
    similarity = torch.cosine_similarity(ours[:, 1:], theirs[:, 1:4], dim=-1).median(0).values
    assert (similarity > 0.85).all(), similarity
