"""Arguments of the Python API: all forms of audio, invalid arguments, and forked processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sedtalker
from sedtalker.audio import load_audio, write_wav
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.errors import AudioError, SEDTalkerError
from sedtalker.speech import WhisperConfig, WhisperEncoder, WindowedEncoder, Windowing
from sedtalker.talker.model import TalkerConfig, TalkerModel

RATE = 16_000
SOUND = (np.random.default_rng(0).normal(size=RATE) * 0.1).astype(np.float32)
TRACK = sedtalker.EmotionTrack.neutral(1.0)


@pytest.fixture(scope="module")
def talker() -> sedtalker.Talker:
    """A small talker with random weights."""
    torch.manual_seed(0)
    network = WhisperEncoder(WhisperConfig(width=24, heads=2, feedforward=16, layers=2))
    encoder = WindowedEncoder("tiny", network, 3, 24, "cpu")
    diarizer = Diarizer(DiarizerConfig(layers=3, feature_width=24, width=16, hidden=8)).eval()
    settings = TalkerConfig(layers=3, feature_width=24, width=32, expert_hidden=16)
    return sedtalker.Talker(encoder, diarizer, TalkerModel(settings).eval(), "made")


@pytest.mark.parametrize(
    "source",
    [
        (SOUND, RATE),
        (RATE, SOUND),
        [SOUND, RATE],
        (SOUND, np.int64(RATE)),
        (SOUND, float(RATE)),
        (np.float32(RATE), SOUND),
        (torch.from_numpy(SOUND), RATE),
        (SOUND.tolist(), RATE),
        (SOUND[:, None], RATE),
        (RATE, np.stack([SOUND, SOUND])),
        (SOUND.astype(np.float64), RATE),
    ],
)
def test_all_forms_of_samples_give_the_same_audio(source: Any) -> None:
    np.testing.assert_allclose(load_audio(source), SOUND, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.int8])
def test_integers_are_scaled_by_their_type(dtype: type) -> None:
    middle, full = (128, 128) if dtype is np.uint8 else (0, -int(np.iinfo(dtype).min))
    integers = np.round(SOUND * full + middle).astype(dtype)
    np.testing.assert_allclose(load_audio((integers, RATE)), SOUND, atol=0.51 / full + 1e-6)
    assert not load_audio((np.full(RATE, middle, dtype), RATE)).any()


WRONG_AUDIO: list[Any] = [
    SOUND, None, 5, b"RIFF", io.BytesIO(b"RIFF"), {"array": SOUND, "sampling_rate": RATE}, (SOUND,), (SOUND, RATE, 1),
    (SOUND, None), (SOUND, "16k"), (SOUND, SOUND), (RATE, RATE), (SOUND, 0), (SOUND, float("nan")), (SOUND, 22050.5),
    (SOUND, -RATE), (SOUND.reshape(10, 40, 40), RATE), (SOUND.reshape(125, 128), RATE), (SOUND > 0, RATE),
    (SOUND.astype(complex), RATE), (["a", "b"], RATE), ([[0.0, 1.0], [0.0]], RATE), (np.zeros(0), RATE),
    (np.where(SOUND > 0.3, np.nan, SOUND), RATE), (np.where(SOUND > 0.3, -np.inf, SOUND), RATE),
    *((SOUND * scale, RATE) for scale in (2.0**7, 2.0**15, 2.0**23, 2.0**31)), (SOUND.astype(np.float64) * 2**15, RATE),
    (RATE, SOUND * 2**15), ((SOUND * 2**15).astype(np.int32), RATE), ((SOUND * 2**15).astype(np.int64), RATE),
    ((SOUND * 2**23).astype(np.int32), RATE), (np.round(SOUND * 128 + 128), RATE),
]  # fmt: skip


@pytest.mark.parametrize("source", WRONG_AUDIO, ids=range(len(WRONG_AUDIO)))
def test_audio_of_a_wrong_form_or_scale_is_refused_in_one_line(talker: sedtalker.Talker, source: Any) -> None:
    for work in (load_audio, talker.diarize, talker.animate):
        with pytest.raises(AudioError) as caught:
            work(source)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("scale", [128, 32768, 2**23, 2**31])
def test_a_float_file_on_the_scale_of_integers_is_refused(tmp_path: Path, scale: int) -> None:
    soundfile = pytest.importorskip("soundfile")
    for name, kind in (("a.wav", "FLOAT"), ("b.wav", "DOUBLE")):
        soundfile.write(tmp_path / name, SOUND * scale, RATE, subtype=kind)
        with pytest.raises(AudioError, match="scale of integers"):
            load_audio(tmp_path / name)
    loud = SOUND / np.abs(SOUND).max() * 3  # 9 dB over full scale: a float recording may be
    soundfile.write(tmp_path / "c.wav", loud, RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "c.wav"), loud, atol=1e-6)


def forbidden() -> Iterator[np.ndarray]:
    raise AssertionError("a chunk was taken")
    yield SOUND


WRONG: list[Callable[[sedtalker.Talker], Any]] = [
    *(lambda t, fps=fps: t.animate((SOUND, RATE), fps=fps) for fps in (0, -1, float("nan"), "fast", None, 1e9, [30])),
    *(lambda t, fps=fps: t.stream(forbidden(), emotion=TRACK, fps=fps) for fps in (0, -1, float("nan"), "fast", None)),
    *(lambda t, seed=seed: t.animate((SOUND, RATE), seed=seed) for seed in (-1, 1.5, "x", None, True)),
    *(lambda t, x=x: t.animate((SOUND, RATE), intensity_scale=x) for x in (-1, float("inf"), float("nan"), "2", None)),
    *(lambda t, x=x: t.animate((SOUND, RATE), emotion=x) for x in (None, 5, "", "grumpy", "happy:2", "absent.json")),
    *(lambda t, x=x: t.animate((SOUND, RATE), emotion=x) for x in ("happy@2-1", {"happy": 1}, "happy@0-5")),
    *(lambda t, x=x: t.stream(forbidden(), emotion=x) for x in ("happy", 5, {})),
    *(lambda t, x=x: t.stream(x, emotion=TRACK) for x in (None, 5, "a.wav", Path("a.wav"), b"RIFF")),
    *(lambda t, x=x: t.stream(forbidden(), emotion=TRACK, windows=x) for x in (5, (1, 2, 3))),
    *(lambda t, x=x: t.stream(forbidden(), emotion=TRACK, look_ahead=x) for x in (120, 5, "a")),
    lambda t: t.animate((SOUND, RATE), look_ahead=400),
    *(lambda t, x=x: t.open_stream(emotion=TRACK, **x) for x in ({"seed": -1}, {"intensity_scale": -1}, {"fps": 0})),
    *(lambda t, x=x: t.stream(forbidden(), emotion=TRACK, face=x) for x in ("nobody", 5)),
    *(lambda t, x=x: t.animate((SOUND, RATE), face=x) for x in ("nobody", 5)),
    *(
        lambda t, x=x: list(t.stream([SOUND, x], emotion=TRACK))
        for x in (5.0, None, "a", SOUND[:, None], SOUND * 2**15, SOUND * np.nan, SOUND > 0, (SOUND * 2**15).astype(int))
    ),
    *(lambda t, x=x: list(t.stream([x], emotion=TRACK)) for x in ((SOUND * (2**31 - 1)).astype(np.int32), [0] * 9)),
    *(lambda t, x=x: t.open_stream(voice=x) for x in ("anna.safetensors", 5)),
    *(lambda t, x=x: t.animate((SOUND, RATE), voice=x) for x in ("anna.safetensors", "")),
    *(lambda t, x=x: t.diarize((SOUND, RATE), voice=x) for x in ("anna.safetensors", Path("anna.safetensors"))),
    *(lambda t, x=x: t.latency(windows=x) for x in (5, "a")),
    lambda t: Windowing(hop=0),
    lambda t: Windowing(left=-1),
    lambda t: Windowing(right=1.5),
    lambda t: t.encoder.with_windows(Windowing(hop=1600)),
    *(lambda t, x=x: sedtalker.load(x) for x in (5, None, "nobody", "")),
    *(lambda t, x=x: sedtalker.load(diarizer=x) for x in (5, None, "nobody", "")),
    *(lambda t, x=x: sedtalker.load(device=x) for x in (None, "gpu", 99, [])),
    *(lambda t, x=x: sedtalker.load_face(x) for x in (5, "nobody")),
    *(lambda t, x=x: sedtalker.load_animation(x) for x in (5, None, "absent.npz")),
    lambda t: sedtalker.Talker(t.encoder, t.diarizer, TalkerModel(TalkerConfig(width=32)), "other"),
]


@pytest.mark.parametrize("work", WRONG, ids=range(len(WRONG)))
def test_a_wrong_argument_is_refused_in_one_line(
    talker: sedtalker.Talker, work: Callable[[sedtalker.Talker], Any]
) -> None:
    with pytest.raises(SEDTalkerError) as caught:
        work(talker)
    assert "\n" not in str(caught.value)


def test_chunks_of_integers_stream_as_their_floats(talker: sedtalker.Talker) -> None:
    integers = np.round(SOUND * 32768).astype(np.int16)
    one, two = (
        np.concatenate(list(talker.stream([x[:9000], x[9000:]], emotion=TRACK)))
        for x in (integers, integers.astype(np.float32) / 32768)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not available")
def test_a_talker_that_was_loaded_before_a_fork_works_in_the_child(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [SOUND])
    script = (
        "import multiprocessing, sys, torch, sedtalker\n"
        "torch.set_num_threads(2)\n"
        "talker = sedtalker.load(device='cpu')\n"
        "def frames(path): return len(talker.animate(path))\n"
        "assert frames(sys.argv[1]) == 30\n"  # the threads have worked
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    print(pool.map_async(frames, [sys.argv[1]] * 2).get(timeout=60))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "a.wav")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.strip() == "[30, 30]", done.stderr[-500:]


def test_a_talker_on_a_gpu_is_refused_in_a_forked_process(talker: sedtalker.Talker) -> None:
    elsewhere = TalkerModel(talker.model.config).to("meta")
    forked = sedtalker.Talker(talker.encoder, talker.diarizer, elsewhere, "made")
    forked._process += 1
    for work in (forked.diarize, forked.animate, lambda sound: forked.stream([sound[0]])):
        with pytest.raises(SEDTalkerError, match="spawn"):
            work((SOUND, RATE))
