"""Voice profiles on the command line, with a small random diarizer that uses them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sedtalker.audio import write_wav
from sedtalker.cli.main import main
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig, save_diarizer
from sedtalker.emotion.track_io import read_track
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.emotion.voice_pool import merge_others, merge_profiles

ENCODER = "whisper-tiny.en-streaming"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random diarizer on the streaming encoder whose output depends on the voice."""
    torch.manual_seed(0)
    diarizer = Diarizer(DiarizerConfig(encoder=ENCODER, layers=4, width=8, hidden=8, convolutions=0, causal=True))
    torch.nn.init.normal_(diarizer.speech_head.weight)
    for member in diarizer.causal_members:
        torch.nn.init.normal_(member.spread.weight, std=3)
    folder = tmp_path_factory.mktemp("model")
    save_diarizer(diarizer, folder)
    return folder


@pytest.fixture
def recordings(tmp_path) -> list[Path]:
    """Three recordings of syllables with different pitches."""
    paths = []
    for number, pitch in enumerate((110, 150, 260)):
        times = np.arange(3 * 16_000) / 16_000
        voice = sum(np.sin(2 * np.pi * pitch * order * times) / order for order in range(1, 12))
        path = tmp_path / "in" / f"r{number}.wav"
        path.parent.mkdir(exist_ok=True)
        write_wav(path, [(0.1 * voice * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * times))).astype(np.float32)])
        paths.append(path)
    return paths


def posterior(folder: Path, name: str) -> np.ndarray:
    return read_track(folder / f"{name}.emotion.json").posterior


def diarize(model: Path, output: Path, *arguments: object) -> int:
    return main(["diarize", *map(str, arguments), "--diarizer", str(model), "-o", str(output)])


def test_a_profile_is_enrolled_shown_and_used(model, recordings, tmp_path, capsys):
    profile = tmp_path / "profile.safetensors"
    enroll = ["voice", "enroll", *map(str, recordings[:2]), "--diarizer", str(model), "-o", str(profile)]
    assert main(enroll) == 0
    assert "s of speech in 2 recordings" in capsys.readouterr().out
    assert main(["voice", "show", str(profile)]) == 0
    assert f"encoder {ENCODER}, 4 x 384 states" in capsys.readouterr().out
    assert main(["voice", "show", str(recordings[0]), str(profile)]) == 1  # the other one is shown
    output = capsys.readouterr()
    assert "not a voice profile" in output.err and f"encoder {ENCODER}" in output.out
    assert diarize(model, tmp_path / "without", recordings[2]) == 0
    assert diarize(model, tmp_path / "with", recordings[2], "--voice-reference", profile) == 0
    assert diarize(model, tmp_path / "audio", recordings[2], "--voice-reference", recordings[0]) == 0
    without, profiled, referenced = (posterior(tmp_path / name, "r2") for name in ("without", "with", "audio"))
    assert np.abs(without - profiled).max() > 1e-3 and np.abs(profiled - referenced).max() > 1e-4


def test_references_that_cannot_be_used(model, recordings, tmp_path, capsys):
    silent, short = tmp_path / "silent.wav", tmp_path / "short.wav"
    write_wav(silent, [np.zeros(64_000, np.float32)])
    write_wav(short, [np.full(8_000, 0.1, np.float32) * np.random.default_rng(0).normal(size=8_000).astype(np.float32)])
    other = VoiceProfile(np.zeros((5, 384), np.float32), np.ones((5, 384), np.float32), 9.0, "whisper-tiny.en")
    other.save(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    for reference, reason in (
        (silent, f"0.0 s of speech are too little to know a voice by: {silent}"),
        (short, f"0.5 s of speech are too little to know a voice by: {short}"),
        (tmp_path / "none.wav", "no such voice reference"),
        (tmp_path / "broken.safetensors", "not a voice profile"),
        (
            tmp_path / "other.safetensors",
            "other.safetensors: a voice profile of whisper-tiny.en, but the",
        ),
    ):
        assert diarize(model, tmp_path / "out", recordings[0], "--voice-reference", reference) == 1
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    save_diarizer(Diarizer(DiarizerConfig(width=8, hidden=8)), tmp_path / "plain")
    for option in (["--voice-reference", recordings[1]], ["--same-speaker"]):
        assert diarize(tmp_path / "plain", tmp_path / "out", recordings[0], *option) == 1
        assert "does not use voice profiles" in capsys.readouterr().err
    enroll = ["voice", "enroll", str(silent), "--diarizer", str(model), "-o", str(tmp_path / "p.safetensors")]
    assert main(enroll) == 1 and "too little to know a voice by" in capsys.readouterr().err
    assert not (tmp_path / "p.safetensors").exists()


def test_inputs_of_one_speaker_share_their_voice_in_any_order(model, recordings, tmp_path, capsys):
    first, second, alone = tmp_path / "first", tmp_path / "second", tmp_path / "alone"
    assert diarize(model, first, *recordings, "--same-speaker") == 0
    assert diarize(model, second, *recordings[::-1], "--same-speaker") == 0
    assert diarize(model, alone, *recordings) == 0
    for name in ("r0", "r1", "r2"):
        np.testing.assert_allclose(posterior(first, name), posterior(second, name), atol=2e-4)
        assert np.abs(posterior(first, name) - posterior(alone, name)).max() > 1e-3
    capsys.readouterr()
    assert diarize(model, first, *recordings, "--same-speaker", "--resume") == 0
    assert capsys.readouterr().out.count("kept") == 3
    shutil.copy(recordings[0], recordings[2])
    assert diarize(model, first, *recordings, "--same-speaker", "--resume") == 0
    assert "kept" not in capsys.readouterr().out  # a recording changed, so the voice that the others know did


def test_speakers_come_from_folders_or_a_table(model, recordings, tmp_path, capsys):
    table = tmp_path / "speakers.csv"
    table.write_text("file,speaker\nr0.wav,ann\nr1.wav,ann\nr2.wav,bob\n")
    elsewhere = tmp_path / "bob" / "r2.wav"
    elsewhere.parent.mkdir()
    shutil.move(recordings[2], elsewhere)
    inputs = (*recordings[:2], elsewhere)
    assert diarize(model, tmp_path / "table", *inputs, f"--same-speaker={table}") == 0
    assert diarize(model, tmp_path / "folder", *inputs, "--same-speaker", "folder") == 0
    assert diarize(model, tmp_path / "alone", elsewhere) == 0
    for name in ("r0", "r1", "r2"):
        np.testing.assert_allclose(posterior(tmp_path / "table", name), posterior(tmp_path / "folder", name), atol=2e-4)
    np.testing.assert_allclose(posterior(tmp_path / "table", "r2"), posterior(tmp_path / "alone", "r2"), atol=2e-4)
    table.write_text("file,speaker\nr0.wav,ann\nr1.wav,\n")
    assert diarize(model, tmp_path / "out", *inputs, "--same-speaker", table) == 1
    assert f"no speaker of {recordings[1]}" in capsys.readouterr().err
    both = ["--same-speaker", "--voice-reference", recordings[0]]
    assert diarize(model, tmp_path / "out", *inputs, *both) == 2
    with pytest.raises(SystemExit):
        diarize(model, tmp_path / "out", "--same-speaker", *inputs)
    assert "Write inputs before it" in capsys.readouterr().err


def test_an_unreadable_input_is_reported_once(model, recordings, tmp_path, capsys):
    recordings[1].write_bytes(b"RIFF broken")
    assert diarize(model, tmp_path / "out", *recordings, "--same-speaker") == 1
    output = capsys.readouterr()
    assert output.err.count(f"{recordings[1]}") == 1 and "1 of 3 files failed" in output.err
    assert (tmp_path / "out/r0.emotion.json").exists()


def test_merged_profiles_do_not_depend_on_their_order():
    rng = np.random.default_rng(0)
    made = {
        name: VoiceProfile(*rng.uniform(0.5, 2, (2, 3, 4)).astype(np.float32), float(seconds), "e")
        for name, seconds in zip("abcd", (3, 5, 0, 11), strict=True)
    }
    whole, again = merge_profiles(made.values()), merge_profiles(list(made.values())[::-1])
    assert (whole.mean == again.mean).all() and whole.seconds == again.seconds == 19
    np.testing.assert_allclose(
        whole.mean, sum(one.mean * one.seconds for one in made.values()) / 19, rtol=1e-5, atol=1e-6
    )
    others = merge_others(made)
    assert {name: profile.seconds for name, profile in others.items()} == {"a": 16, "b": 14, "c": 19, "d": 8}
    expected = merge_profiles([made[name] for name in "bcd"])
    np.testing.assert_allclose(others["a"].mean, expected.mean, rtol=1e-5)
    reversed_others = merge_others(dict(reversed(made.items())))
    assert all((others[name].mean == reversed_others[name].mean).all() for name in made)
    assert merge_others({"a": made["a"]}) == {"a": None}
