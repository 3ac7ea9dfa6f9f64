"""Cost and memory of speech to vertices against the peers' method: pytest tests/bench/test_bench_talker.py -n 0 -s

CPU seconds of one thread, the best of a few runs. Times are printed, never asserted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_bench_scan import cpu_seconds, one_thread
from torch import Tensor

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.evaluation.bench import LIVE_CHUNKS, live_cost, offline_cost
from sedtalker.mamba.scan import selective_scan_reference
from sedtalker.pipeline import load
from sedtalker.resources import asset
from sedtalker.talker.model import TalkerModel, load_talker_model
from sedtalker.talker.model_cpu import PackedTalker
from sedtalker.talker.model_steps import ModelMotion, embed_speech
from sedtalker.talker.streaming import MotionDecoder

__all__ = ["one_thread"]  # a fixture that pytest takes from here

MORE_MEGABYTES = 75  # that a ten times longer recording may take; the diarizer keeps what it reads twice


def test_speech_to_vertices_in_parts() -> None:
    talker = load(device="cpu")
    samples = load_audio(asset("demo.wav"))
    seconds = len(samples) / SAMPLE_RATE
    features = talker.encoder.encode(samples)
    track = talker.diarize((samples, SAMPLE_RATE))
    weights = talker.animate((samples, SAMPLE_RATE), emotion=track, still=True)
    parts = {
        "encoder": lambda: talker.encoder.encode(samples),
        "diarizer": lambda: talker.diarizer.predict([features]),
        "decoder": lambda: decode(talker.model, features),
        "vertices": lambda: weights.face.pose(weights.blendshapes),
    }
    costs = {name: cpu_seconds(run, 3) / seconds for name, run in parts.items()}
    listed = ", ".join(f"{name} {cost:.4f}" for name, cost in costs.items())
    print(f"\nspeech to vertices: {sum(costs.values()):.4f} of real time on one core ({listed})")


def decode(model: PackedTalker, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coefficients (T, 52) of features (T, L, D) of a whole recording."""
    speech = model.embed(features)
    posterior, intensity = (part[0].numpy() for part in emotion(len(features)))
    return model.start_steps().push(speech, posterior, intensity, model.recording_mouth([speech]))


def test_live_against_offline() -> None:
    talker = load(device="cpu")
    samples = np.resize(load_audio(asset("demo.wav")), 6 * SAMPLE_RATE)
    offline = sum(offline_cost(talker, samples))
    for chunk in LIVE_CHUNKS:
        cost = live_cost(talker, samples, chunk)
        assert len(cost.steps) > 0
        print(
            f"\nlive in chunks of {1000 * chunk:.0f} ms: {cost.cpu:.4f} of real time, {cost.cpu / offline:.1f} x a "
            f"whole file; a step {1000 * np.median(cost.steps):.1f} ms"
        )


def test_decoder_against_the_peers_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network with a step-by-step scan and attention over the whole recording."""
    model = load_talker_model(asset("talker", "default"))
    torch.manual_seed(0)
    features = torch.randn(1, 1500, model.config.layers, model.config.feature_width)
    with torch.inference_mode():
        ours = cpu_seconds(lambda: model(features, *emotion(1500)), 3)
        full = TalkerModel(replace(model.config, window=1500)).eval()
        full.load_state_dict(model.state_dict())
        monkeypatch.setattr("sedtalker.mamba.block.selective_scan", selective_scan_reference)
        theirs = cpu_seconds(lambda: full(features, *emotion(1500)), 1)
        stepwise = model(features, *emotion(1500))
    monkeypatch.undo()
    print(f"\ndecoder, 30 s: {ours / 30:.4f} of real time; step by step and with full attention {theirs / ours:.1f} x")
    torch.testing.assert_close(model(features, *emotion(1500)), stepwise, atol=1e-3, rtol=0)  # of weights in 0..1


def test_decoder_grows_linearly() -> None:
    model = TalkerModel().eval().requires_grad_(False)
    seconds = (10, 100)
    costs = []
    for length in seconds:
        features = torch.randn(length * 50, 5, 384).split(200)
        controls = [part[0].split(200) for part in emotion(length * 50)]

        def run(features: Sequence[Tensor] = features, controls: Sequence[Sequence[Tensor]] = controls) -> int:
            decoder = MotionDecoder(ModelMotion(model), still=True)
            rows = [
                decoder.push(
                    embed_speech(model, x).numpy(),
                    *(part.numpy() for part in emotion),
                    np.zeros((len(x), 2), np.float32),
                )
                for x, *emotion in zip(features, *controls, strict=True)
            ]
            return sum(map(len, rows)) + len(decoder.finish())

        assert run() == length * 50
        costs.append(cpu_seconds(run, 3))
    print(f"\ndecoder: 100 s cost {costs[1] / costs[0] / (seconds[1] / seconds[0]):.2f} x as much a second as 10 s")


@pytest.mark.slow
def test_ten_times_the_length_takes_little_more_memory(tmp_path: Path) -> None:
    code = (
        "import sys; import numpy as np; import torch; torch.set_num_threads(1); import sedtalker; "
        "sound = np.tile(np.load(sys.argv[1]), int(sys.argv[2])); "
        "sedtalker.load(device='cpu').animate((sound, 16000)); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    if sys.platform != "linux":
        pytest.skip("peak memory is read as Linux tells it")
    np.save(tmp_path / "sound.npy", load_audio(asset("demo.wav")))
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "sound.npy"), times], text=True)) / 1024
        for times in ("2", "20")
    ]
    print(f"\npeak memory of 20 s: {peaks[0]:.0f} MB, of 204 s: {peaks[1]:.0f} MB")
    assert peaks[1] - peaks[0] < MORE_MEGABYTES


def emotion(frames: int) -> tuple[Tensor, Tensor]:
    """A posterior (1, T, 8) and an intensity (1, T)."""
    return torch.full((1, frames, 8), 1 / 8), torch.ones(1, frames)
