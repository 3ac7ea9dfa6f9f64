"""Streams equal the whole recording for all sizes of chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.emotion.track import EmotionTrack
from sedtalker.face.arkit import JAW_OPEN, MOUTH_PUCKER, ROLL_LOWER, STRETCH_LEFT, STRETCH_RIGHT, TONGUE_OUT
from sedtalker.labels import LABELS
from sedtalker.speech import WhisperConfig, WhisperEncoder, WindowedEncoder, Windowing
from sedtalker.talker import segments
from sedtalker.talker.model import (
    CONTACT_GAP,
    CONTACT_ROLL,
    DOUBTFUL_CLOSURE,
    FREE_ROLL,
    KEPT_WIDTH,
    LARGEST_DOUBT,
    OPENING_GAIN,
    PARTED_GAP,
    PARTED_RAMP,
    STACK_WIDTH,
    TONGUE_GAP,
    TONGUE_HIDDEN,
    TONGUE_SHOWN,
    WIDENING_GAIN,
    WIDTH_PER_GAP,
    TalkerConfig,
    TalkerModel,
)
from sedtalker.talker.model_cpu import PackedTalker
from sedtalker.talker.model_steps import ModelMotion, embed_speech, motion_of
from sedtalker.talker.streaming import (
    SPOOLED,
    STEP,
    Frames,
    MotionDecoder,
    Spool,
    TalkerStream,
)

CONFIG = TalkerConfig(
    layers=3, feature_width=24, width=32, expert_hidden=32, heads=2, kv_heads=1, window=10, styles=2, dropout=0.0
)
SIZES = [1, 4, 7, 50, 1000]  # frames a chunk


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """One thread: chunks of one frame gain nothing from more, and on a busy machine waiting threads cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> TalkerModel:
    torch.manual_seed(0)
    model = TalkerModel(CONFIG)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder() -> WindowedEncoder:
    torch.manual_seed(0)
    network = WhisperEncoder(WhisperConfig(width=24, heads=2, feedforward=32, layers=2))
    return WindowedEncoder("tiny", network, 3, 24, "cpu", Windowing(left=20, hop=40, right=15))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=16_000 * 5 + 123) * 0.1).astype(np.float32)


def parts(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (T, L, D), posterior (T, C) and intensity (T,)."""
    generator = torch.Generator().manual_seed(1)
    posterior = torch.rand(frames, len(LABELS), generator=generator).softmax(-1)
    return torch.randn(frames, 3, 24, generator=generator), posterior, torch.linspace(0, 1, frames)


def decode(model: TalkerModel, frames: int, size: int) -> list[np.ndarray]:
    """Coefficients of each block."""
    decoder, prosody = MotionDecoder(ModelMotion(model), still=True), torch.zeros(frames, 2)
    parts_of = zip(*(part.split(size) for part in (*parts(frames), prosody)), strict=True)
    rows = [decoder.push(embed_speech(model, x).numpy(), *(part.numpy() for part in rest)) for x, *rest in parts_of]
    return [decoder.split(part, 0, 50).weights for part in (*rows, decoder.finish())]


def run(stream: TalkerStream, chunks: list[np.ndarray]) -> Frames:
    """All frames of the chunks."""
    return join([*map(stream.push, chunks), stream.finish()])


def join(parts: list[Frames]) -> Frames:
    return Frames(*map(np.concatenate, zip(*parts, strict=True)))


def open_stream(encoder: WindowedEncoder, emotion: Diarizer | EmotionTrack, model: TalkerModel, **options: Any):
    return TalkerStream(encoder, emotion, model, **{"fps": 50, "still": True, **options})


@pytest.mark.parametrize("size", SIZES)
def test_blocks_equal_the_whole(model: TalkerModel, size: int) -> None:
    wanted = model(*(part[None] for part in parts(151)))[0].numpy()
    np.testing.assert_allclose(np.concatenate(decode(model, 151, size)), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 200])
@pytest.mark.parametrize("known", [False, True])
def test_compiled_steps_with_a_network_of_the_lip_gap(size: int, known: bool) -> None:
    """Live, the mouth follows from the past; of a whole recording, it is the one of `TalkerModel.forward`."""
    model = make_opening_talker()
    network = motion_of(model)
    assert isinstance(network, PackedTalker)
    features, *emotion = parts(151)
    speech = network.embed(features.numpy())
    mouth = network.recording_mouth([speech[:40], speech[40:]]) if known else None
    steps = network.start_steps()
    got = []
    for start in range(0, 151, size):
        part = slice(start, start + size)
        own = None if mouth is None else mouth[part]
        got.append(steps.push(speech[part], *(x[part].numpy() for x in emotion), own))
    if known:
        wanted = model(features[None], *(part[None] for part in emotion))
    else:
        wanted, _ = model.step(features[None], *(part[None] for part in emotion))
    np.testing.assert_allclose(np.concatenate([*got, steps.finish()]), wanted[0].numpy(), rtol=0, atol=1e-5)


def make_opening_talker() -> TalkerModel:
    """A small talker with a network of the lip gap."""
    torch.manual_seed(0)
    sizes = {"layers": 3, "feature_width": 24, "width": 32, "heads": 2, "kv_heads": 1, "window": 7, "states": 4}
    model = TalkerModel(TalkerConfig(**sizes, injection="rules", look_ahead=0, opening_width=8)).eval()
    assert model.opening is not None
    model.opening.mean.copy_(torch.tensor([4.0, 0.0]))
    model.opening.scale.copy_(torch.tensor([20.0, 2.0]))
    torch.nn.init.normal_(model.lips.weight, std=0.3)
    return model.requires_grad_(False)


def test_the_gap_of_a_long_recording_is_read_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from its ends a segment's context is enough; a short recording is read at once."""
    model = make_opening_talker()
    speech = embed_speech(model, parts(900)[0])
    whole = model.recording_mouth(speech[None])
    assert whole is not None
    blocks = [part.numpy() for part in speech.split(70)]
    networks = ModelMotion(model), motion_of(model)
    for network in networks:
        np.testing.assert_allclose(network.recording_mouth(blocks), whole[0], rtol=0, atol=1e-4)
    monkeypatch.setattr(segments, "SEGMENT", 200)
    monkeypatch.setattr(segments, "CONTEXT", 100)
    for network in networks:
        np.testing.assert_allclose(network.recording_mouth(blocks), whole[0], rtol=0, atol=1e-3)


def test_a_visible_tip_of_the_tongue_parts_the_lips() -> None:
    model = make_opening_talker()
    assert model.expression is not None and model.opening_share is not None
    model.opening_share.weight.zero_()
    model.opening_share.bias.fill_(20.0)  # the predicted gap decides
    lips = torch.zeros(1, 3, 52)
    lips[0, :, TONGUE_OUT] = torch.tensor([TONGUE_HIDDEN, TONGUE_SHOWN, 1.0])
    for predicted, expected in ((1.0, [1.0, TONGUE_GAP, TONGUE_GAP]), (9.0, [9.0] * 3)):
        fitted = model._fit_mouth(lips, torch.zeros(1, 3, model.config.width), make_mouth(3, predicted))
        np.testing.assert_allclose((fitted @ model.expression.gap)[0].numpy(), expected, atol=0.01)


def test_a_contact_of_lip_and_teeth_parts_the_lips_as_predicted_up_to_a_limit() -> None:
    model = make_opening_talker()
    assert model.expression is not None and model.opening_share is not None
    model.opening_share.weight.zero_()
    lips = torch.zeros(1, 2, 52)
    lips[0, :, ROLL_LOWER] = torch.tensor([FREE_ROLL, CONTACT_ROLL])
    for bias, predicted, expected in (
        (20.0, 9.0, [9.0, CONTACT_GAP]),
        (20.0, 2.0, [2.0] * 2),
        (-20.0, 9.0, [0.0, CONTACT_GAP]),  # a closure, unless the lower lip touches the teeth
        (-20.0, 2.0, [0.0, 2.0]),
    ):
        model.opening_share.bias.fill_(bias)  # the predicted gap decides, or the closure
        fitted = model._fit_mouth(lips, torch.zeros(1, 2, model.config.width), make_mouth(2, predicted))
        np.testing.assert_allclose((fitted @ model.expression.gap)[0].numpy(), expected, atol=0.01)


def test_a_large_predicted_gap_overrules_a_closure_that_is_not_sure() -> None:
    model = make_opening_talker()
    assert model.expression is not None and model.opening_share is not None
    model.opening_share.weight.zero_()
    lips, hidden = torch.zeros(1, 1, 52), torch.zeros(1, 1, model.config.width)
    for logit, predicted, raised in (
        (-1.0, 9.0, LARGEST_DOUBT),
        (DOUBTFUL_CLOSURE + 0.5, 9.0, 0.5),
        (-1.0, PARTED_GAP + PARTED_RAMP / 2, LARGEST_DOUBT / 2),
        (-1.0, PARTED_GAP, 0.0),
        (DOUBTFUL_CLOSURE, 9.0, 0.0),
    ):
        model.opening_share.bias.fill_(logit)
        gap = model._fit_mouth(lips, hidden, make_mouth(1, predicted)) @ model.expression.gap
        assert float(gap) == pytest.approx(predicted / (1 + math.exp(-logit - raised)), abs=0.01)


def make_mouth(frames: int, gap: float, widening: float = 0.0) -> Tensor:
    """A predicted mouth (1, frames, 2)."""
    return torch.tensor([gap, widening]).expand(1, frames, 2)


def test_lips_stretch_to_widen_and_stretch_less_or_pucker_to_narrow() -> None:
    model = make_opening_talker()
    assert model.expression is not None
    width = model.expression.width
    lips = torch.zeros(1, 4, 52)
    lips[..., STRETCH_LEFT], lips[..., STRETCH_RIGHT] = 0.2, 0.3
    changes = torch.tensor([[1.5, 0.0, -1.0, -5.0]])
    got = model._widen(lips, changes)
    np.testing.assert_allclose(((got - lips) @ width).numpy(), changes, atol=1e-5)
    assert (got[0, :3, MOUTH_PUCKER] == 0).all() and got[0, 3, MOUTH_PUCKER] > 0.2
    assert got[0, 3, STRETCH_LEFT] == 0  # both sides stretch less by the same weight, none by less than 0
    assert got[0, 3, STRETCH_RIGHT] == pytest.approx(0.1)


def test_the_width_is_of_the_stack_the_predicted_widening_and_the_gap() -> None:
    model = make_opening_talker()
    assert model.expression is not None and model.opening_share is not None
    model.opening_share.weight.zero_()
    model.opening_share.bias.fill_(20.0)  # the predicted gap decides
    lips, hidden, width = torch.zeros(1, 1, 52), torch.zeros(1, 1, model.config.width), model.expression.width
    lips[..., STRETCH_LEFT] = lips[..., STRETCH_RIGHT] = 0.3
    own = float(lips @ width)
    for widening in (0.0, 2.0):
        fitted = model._fit_mouth(lips, hidden, make_mouth(1, 9.0, widening))
        jaw = float(fitted[..., JAW_OPEN] * width[JAW_OPEN])
        assert jaw < -0.5
        wanted = STACK_WIDTH * (own + (1 - KEPT_WIDTH) * jaw) + widening + WIDTH_PER_GAP * 9.0
        assert float(fitted @ width) == pytest.approx(wanted, abs=1e-3)
    lips[..., ROLL_LOWER] = CONTACT_ROLL  # /f v/, whose width is the stack's
    fitted = model._fit_mouth(lips, hidden, make_mouth(1, 2.0, 2.0))
    assert float(fitted[..., STRETCH_LEFT]) == pytest.approx(0.3)


def test_the_widening_of_a_recording_is_the_mean_of_both_directions_and_of_the_past() -> None:
    model = make_opening_talker()
    assert model.opening is not None
    embedded = embed_speech(model, parts(20)[0])[None]
    inputs = embedded[..., model.config.width :]
    both, past = model.opening.run_both(inputs), model.opening.run_past(inputs)[0]
    mouth = model.recording_mouth(embedded)
    assert mouth is not None
    torch.testing.assert_close(mouth[..., 1], WIDENING_GAIN * (both[..., 1] + past[..., 1]) / 2)
    torch.testing.assert_close(mouth[..., 0], OPENING_GAIN * both[..., 0].clamp(min=0))


@pytest.mark.parametrize("size", [1, 3, 200])
def test_compiled_steps_are_those_of_the_model(size: int) -> None:
    torch.manual_seed(0)
    sizes = {"layers": 3, "feature_width": 24, "width": 32, "heads": 2, "kv_heads": 1, "window": 7, "states": 4}
    order = ("mamba", "mamba+moe", "attention", "mamba")
    model = TalkerModel(TalkerConfig(**sizes, order=order, injection="rules", look_ahead=2, styles=3)).eval()
    for value in (model.styles.weight, model.lips.weight, model.layer_weights):
        torch.nn.init.normal_(value, std=0.3)
    network = motion_of(model.requires_grad_(False))
    assert isinstance(network, PackedTalker)
    steps, (features, *emotion) = network.start_steps(), parts(151)
    blocks = zip(*(part.split(size) for part in (features, *emotion)), strict=True)
    got = [steps.push(network.embed(x.numpy()), *(part.numpy() for part in rest)) for x, *rest in blocks]
    wanted = model(features[None], *(part[None] for part in emotion))[0].numpy()
    np.testing.assert_allclose(np.concatenate([*got, steps.finish()]), wanted, rtol=0, atol=1e-5)


def test_a_frame_comes_out_as_soon_as_its_look_ahead_is_there(model: TalkerModel) -> None:
    assert [len(part) for part in decode(model, 40, 4)] == [0, 3] + [4] * 8 + [CONFIG.look_ahead]


def test_coefficients_do_not_depend_on_the_chunks(
    model: TalkerModel, encoder: WindowedEncoder, sound: np.ndarray
) -> None:
    torch.manual_seed(0)
    diarizer = Diarizer(DiarizerConfig(layers=3, feature_width=24, width=16, hidden=8)).eval()
    whole = run(open_stream(encoder, diarizer, model, still=False), [sound])
    small = run(open_stream(encoder, diarizer, model, still=False), np.array_split(sound, 63))
    assert len(whole.time) == round(len(sound) / 320)
    for one, other in zip(small, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_diarizer_can_use_another_encoder(model: TalkerModel, encoder: WindowedEncoder, sound: np.ndarray) -> None:
    """Two encoders stay synchronous for any chunks; the features of the second determine the emotion."""
    torch.manual_seed(1)
    network = WhisperEncoder(WhisperConfig(width=16, heads=2, feedforward=32, layers=3))
    diarizer_encoder = WindowedEncoder("other", network, 4, 16, "cpu", encoder.windows)
    sizes = {"first_layer": 1, "layers": 3, "feature_width": 16, "width": 16, "hidden": 8}
    diarizer = Diarizer(DiarizerConfig(encoder="other", **sizes)).eval()

    def animate(pieces: int) -> np.ndarray:
        stream = open_stream(encoder, diarizer, model, diarizer_encoder=diarizer_encoder)
        return run(stream, np.array_split(sound, pieces)).weights

    whole = animate(1)
    assert len(whole) == round(len(sound) / 320)
    np.testing.assert_allclose(animate(63), whole, rtol=0, atol=1e-5)
    network.conv1.weight.data.neg_()
    assert np.abs(animate(1) - whole).max() > 1e-4


def test_a_track_sets_the_emotion(model: TalkerModel, encoder: WindowedEncoder, sound: np.ndarray) -> None:
    track = EmotionTrack.neutral(len(sound) / 16_000)
    track.set("happy", 1.0, 1.0, 3.0)
    posterior, intensity = map(torch.from_numpy, track.at_rate(50, 251))
    features = encoder.encode(sound)
    wanted = model(features[None], posterior[None], intensity[None])[0]
    got = run(open_stream(encoder, track, model), [sound]).weights
    np.testing.assert_allclose(got, wanted[: len(got)].clamp(0, 1), rtol=0, atol=1e-5)


def test_the_state_does_not_grow(model: TalkerModel) -> None:
    features = torch.randn(1, 30, 3, 24)
    posterior, intensity = torch.full((1, 30, len(LABELS)), 1 / len(LABELS)), torch.ones(1, 30)
    sizes, state = set(), None
    for _ in range(5):
        _, state = model.step(features, posterior, intensity, None, state)
        tensors = [x for layer in state.layers for x in layer if isinstance(x, Tensor)] + [
            state.emotion_history,
            state.last_input,
        ]
        sizes.add(sum(x.numel() for x in tensors))
    assert len(sizes) == 1


def test_latency_is_window_look_ahead_and_step(model: TalkerModel, encoder: WindowedEncoder) -> None:
    windows = Windowing(left=0, hop=4, right=11)
    stream = open_stream(encoder.with_windows(windows), EmotionTrack.neutral(1), model)
    assert stream.latency == pytest.approx((3 + 11 + CONFIG.look_ahead) * 0.02 + STEP / 16_000 - 0.02)


@pytest.mark.parametrize("rows", [0, 5, SPOOLED // 16 + 5])
def test_a_spool_returns_its_rows_in_order(rows: int) -> None:
    """The last one is saved on disk."""
    values = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    with Spool(4) as spool:
        for part in np.array_split(values, 7):
            spool.append(part)
        read = [block.copy() for block in spool.blocks(1000)]
    np.testing.assert_array_equal(np.concatenate([values[:0], *read]), values)


@pytest.mark.parametrize("samples", [1_000, 6_400, 9_600, 20_000, 33_333])
def test_an_interruption_after_any_amount_of_sound(encoder: WindowedEncoder, model: TalkerModel, samples: int) -> None:
    stream = TalkerStream(encoder, EmotionTrack.neutral(1.0), model)
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    for _ in range(2):
        count = len(stream.push(sound).time) + len(stream.interrupt().time)
        assert abs(count - samples / 16_000 * 30) <= 1.5
        stream.reset()


def test_a_stream_can_be_used_again_after_its_end(encoder: WindowedEncoder, model: TalkerModel) -> None:
    stream = TalkerStream(encoder, EmotionTrack.neutral(1.0), model)
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    for _ in range(3):
        motion = [stream.push(sound), stream.finish()]
        times = np.concatenate([frames.time for frames in motion])
        np.testing.assert_allclose(times, (np.arange(30) + 0.5) / 30)
        assert sum(len(frames.weights) for frames in motion) == 30
        stream.reset()
