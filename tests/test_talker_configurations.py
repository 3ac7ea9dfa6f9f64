"""Every shipped configuration and head: whole file, stream and `forward` agree; bad settings are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import sedtalker
from sedtalker.checkpoint import config_from_plain
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import CheckpointError, TrackError
from sedtalker.face.rig import Face
from sedtalker.labels import LABELS
from sedtalker.resources import config
from sedtalker.speech import WhisperConfig, WhisperEncoder, WindowedEncoder, Windowing
from sedtalker.talker.model import HEADS, INJECTIONS, TalkerConfig, TalkerModel
from sedtalker.talker.streaming import TalkerStream

RATE = 16_000
WINDOWS = Windowing(left=10, hop=20, right=5)
VERTICES = 11
SMALL = {"layers": 3, "feature_width": 24, "width": 32, "expert_hidden": 16, "window": 10}
SHIPPED = sorted(path.name for path in Path(config("talker/default.yaml")).parent.glob("*.yaml"))
SOUND = (np.random.default_rng(0).normal(size=RATE + 123) * 0.1).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These networks are too small to share among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sizes_of(head: str) -> dict[str, Any]:
    coefficients = {"blendshapes": 52, "dense": 3 * VERTICES}.get(head, 6)
    return {"head": head, "coefficients": coefficients, "vertices": 0 if head == "blendshapes" else VERTICES}


def made_model(settings: TalkerConfig) -> TalkerModel:
    """A model whose outputs do not start at zero."""
    torch.manual_seed(0)
    model = TalkerModel(settings)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and not tensor.any():
            nn.init.normal_(tensor, std=0.3)
    if model.opening is not None:  # mm, so that the lips part
        model.opening.mean[0], model.opening.scale[0] = 5.0, 20.0
    return model.eval().requires_grad_(False)


def made_encoder() -> WindowedEncoder:
    torch.manual_seed(0)
    network = WhisperEncoder(WhisperConfig(width=24, heads=2, feedforward=16, layers=2))
    return WindowedEncoder("tiny", network, 3, 24, "cpu", WINDOWS)


def made_diarizer(**changes: Any) -> Diarizer:
    torch.manual_seed(0)
    return Diarizer(DiarizerConfig(layers=3, feature_width=24, width=16, hidden=8, **changes)).eval()


def made_talker(settings: TalkerConfig, diarizer: Diarizer | None = None) -> sedtalker.Talker:
    return sedtalker.Talker(made_encoder(), diarizer or made_diarizer(), made_model(settings), "made")


def face_of(settings: TalkerConfig) -> Face | None:
    if settings.head == "blendshapes":
        return None
    template = np.random.default_rng(1).normal(size=(VERTICES, 3)).astype(np.float32)
    return Face("points", template, np.array([[0, 1, 2]], np.int32))


def changing_track(seconds: float = len(SOUND) / RATE, labels: tuple[str, ...] = LABELS) -> EmotionTrack:
    """Happy throughout, also in the last frame, and sad for a while."""
    track = EmotionTrack.neutral(seconds, labels=labels)
    track.set("happy", 1.0)
    track.set("sad", 0.6, 0.3, 0.6)
    return track


def chunks(size: int) -> list[np.ndarray]:
    return [SOUND[first : first + size] for first in range(0, len(SOUND), size)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_configuration_animates_and_streams(name: str) -> None:
    shipped = yaml.safe_load(Path(config(f"talker/{name}")).read_text())["model"]
    head = shipped.get("head", "blendshapes")
    settings = config_from_plain(TalkerConfig, {**shipped, **SMALL, **sizes_of(head)}, "talker")
    talker, track, face = made_talker(settings), changing_track(), face_of(settings)
    whole = talker.animate((SOUND, RATE), emotion=track, fps=50, face=face, still=True)
    features = talker.encoder.encode(SOUND)
    posterior, intensity = map(torch.from_numpy, track.at_rate(50, len(features)))
    expected = whole.vertices
    if settings.opening_width:  # a stream does not know the rest of the recording
        weights = talker.model.step(features[None], posterior[None], intensity[None])[0][0, : len(whole)].numpy()
        expected = talker.pose(weights, talker.load_rig())
        assert np.abs(expected - whole.vertices).max() > 1e-4
    for size in (320, 4000, len(SOUND)):
        streamed = talker.stream(chunks(size), emotion=track, fps=50, face=face, windows=WINDOWS, still=True)
        np.testing.assert_allclose(np.concatenate(list(streamed)), expected, atol=1e-4)
    wanted = talker.model(features[None], posterior[None], intensity[None])[0]
    if settings.head == "blendshapes":
        np.testing.assert_allclose(whole.blendshapes, wanted[: len(whole)].clamp(0, 1), atol=1e-5)
    else:
        moved = talker.model.displacements(wanted[: len(whole)])
        np.testing.assert_allclose(whole.vertices, face.template + moved.numpy(), atol=1e-4)
    assert np.ptp(whole.vertices, axis=0).max() > 1e-3


@pytest.mark.parametrize(("look_ahead", "emotion_kernel_frames"), product((0, 1, 5), (1, 50)))
def test_every_injection_and_head_streams_the_result_of_forward(look_ahead: int, emotion_kernel_frames: int) -> None:
    encoder, track = made_encoder(), changing_track()
    features = encoder.encode(SOUND)
    posterior, intensity = map(torch.from_numpy, track.at_rate(50, len(features)))
    for injection, head in product(INJECTIONS, HEADS):
        if injection == "rules" and head != "blendshapes":
            continue
        settings = TalkerConfig(
            **SMALL,
            **sizes_of(head),
            injection=injection,
            look_ahead=look_ahead,
            emotion_kernel_frames=emotion_kernel_frames,
        )
        model = made_model(settings)
        wanted = model(features[None], posterior[None], intensity[None])[0]
        for size in (320, 5000, len(SOUND)):
            stream = TalkerStream(encoder, track, model, fps=50, still=True)
            got = np.concatenate([*(stream.push(chunk).weights for chunk in chunks(size)), stream.finish().weights])
            limited = wanted.clamp(0, 1) if head == "blendshapes" else wanted
            np.testing.assert_allclose(got, limited[: len(got)], atol=1e-4, err_msg=f"{injection}, {head}, {size}")


@pytest.mark.parametrize("labels", [(*LABELS, "excited", "whisper"), LABELS[::-1]], ids=["more", "another order"])
def test_the_diarizer_s_labels_are_mapped_to_the_talker_s(labels: tuple[str, ...]) -> None:
    """The same talker with its labels in another order, or with more of them, shows the same emotion."""
    plain = made_talker(TalkerConfig(**SMALL))
    other = made_talker(replace(plain.model.config, labels=labels))
    weights = plain.model.state_dict()
    rows = [LABELS.index(name) if name in LABELS else 0 for name in labels]
    weights["emotions.weight"] = weights["emotions.weight"][rows]
    other.model.load_state_dict(weights)
    for emotion in ("auto", "sad:0.7@0.2-0.6", changing_track()):
        one, two = (t.animate((SOUND, RATE), emotion=emotion, still=True) for t in (plain, other))
        np.testing.assert_allclose(one.blendshapes, two.blendshapes, atol=1e-5)
        assert np.ptp(one.blendshapes, axis=0).max() > 1e-2
    for track in (None, changing_track()):
        one, two = (np.concatenate(list(t.stream(chunks(1280), emotion=track))) for t in (plain, other))
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_talker_s_own_label_comes_before_an_alias() -> None:
    talker = made_talker(TalkerConfig(**SMALL, labels=(*LABELS, "excited")))
    animation = talker.animate((SOUND, RATE), emotion="excited", still=True)
    assert animation.emotion.posterior[:, -1].min() == 1
    assert {segment.emotion for segment in animation.emotion.segments} == {"excited"}


def test_a_diarizer_with_an_emotion_that_the_talker_lacks_is_refused_before_the_work() -> None:
    talker = made_talker(TalkerConfig(**SMALL, labels=("neutral", "happy", "sad")))

    def untouched() -> Iterator[np.ndarray]:
        raise AssertionError("a chunk was taken")
        yield SOUND

    for work in (lambda: talker.animate((SOUND, RATE)), lambda: talker.stream(untouched())):
        with pytest.raises(TrackError, match="angry"):
            work()
    assert len(talker.animate((SOUND, RATE), emotion="happy:0.5", still=True)) == 30
    assert len(np.concatenate(list(talker.stream([SOUND], emotion=changing_track())))) == 30


def test_neutral_may_be_any_of_the_labels() -> None:
    model = made_model(TalkerConfig(**SMALL, labels=("happy", "neutral")))
    features, ones = torch.randn(1, 20, 3, 24), torch.ones(1, 20)
    neutral = torch.tensor([0.0, 1.0]).expand(1, 20, 2)
    torch.testing.assert_close(model(features, neutral, ones), model(features, neutral, 0 * ones))


@pytest.mark.parametrize("form", ["memory", "stream", "json", "TextGrid"])
@pytest.mark.parametrize("rate", [50.0, 10.0])
def test_a_track_shorter_than_the_audio_is_neutral_after_its_end(form: str, rate: float, tmp_path: Path) -> None:
    from sedtalker.emotion.track_io import write_track

    talker, short, seconds = made_talker(TalkerConfig(**SMALL)), EmotionTrack.neutral(0.4, rate), len(SOUND) / RATE
    short.set("happy", 1.0)
    wanted = EmotionTrack.neutral(seconds)
    wanted.set("happy", 1.0, 0.0, 0.4, blend=0.0)
    expected = talker.animate((SOUND, RATE), emotion=wanted, fps=50, still=True)
    if form == "stream":
        got = np.concatenate(list(talker.stream(chunks(1280), emotion=short, fps=50, windows=WINDOWS, still=True)))
        np.testing.assert_allclose(got, expected.vertices, atol=1e-5)
        return
    given: EmotionTrack | Path = short
    if form != "memory":
        given = tmp_path / f"short.{form}"
        write_track(short, given)
    got = talker.animate((SOUND, RATE), emotion=given, fps=50, still=True)
    np.testing.assert_allclose(got.blendshapes, expected.blendshapes, atol=1e-5)
    np.testing.assert_allclose(got.emotion.at_rate(50, 50)[1], wanted.at_rate(50, 50)[1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotary": "lowrank"}, "rotary 'lowrank'"),
        ({"order": ("mamba+dropout",)}, "order"),
        ({"order": ("moe",)}, "order"),
        ({"order": ()}, "order"),
        ({"order": "mamba"}, "order"),
        ({"order": 3}, "order"),
        ({"heads": 0}, "heads is 0"),
        ({"kv_heads": 0}, "kv_heads is 0"),
        ({"heads": 32, "kv_heads": 2}, "even"),
        ({"coefficients": 10}, "52 coefficients"),
        ({"top_k": 3}, "top_k"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": "half"}, "dropout"),
        ({"look_ahead": -1}, "look_ahead"),
        ({"look_ahead": 2.5}, "look_ahead"),
        ({"emotion_kernel_frames": 0}, "emotion_kernel_frames"),
        ({"window": True}, "window"),
        ({"conv": 0}, "conv"),
        ({"styles": 0}, "styles"),
        ({"labels": ("happy", "sad")}, "neutral"),
        ({"labels": ("neutral", "sad", "sad")}, "labels"),
        ({"injection": "film"}, "injection"),
        ({"encoder": ""}, "encoder"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        TalkerConfig(**{**SMALL, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": 4}, "kernel"),
        ({"hidden": 0}, "hidden"),
        ({"temperature": 0.0}, "temperature"),
        ({"intensity_range": (0.5, 0.5)}, "intensity_range"),
        ({"intensity_range": (0.5,)}, "intensity_range"),
        ({"absent": ("neutral",)}, "absent"),
        ({"absent": ("boredom",)}, "absent"),
        ({"labels": ("happy",)}, "labels"),
        ({"statistics_windows": (0.0,)}, "statistics_windows"),
        ({"statistics_windows": "long"}, "statistics_windows"),
    ],
)
def test_a_diarizer_s_settings_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        DiarizerConfig(**change)


def test_lists_of_a_configuration_file_become_tuples() -> None:
    assert TalkerConfig(**SMALL, order=["mamba", "attention+moe"]).order == ("mamba", "attention+moe")  # type: ignore[arg-type]
