"""Messages about recordings: `doctor --audio`, and warnings of `diarize`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import clicks, corrupt, write_media

from sedtalker.cli.main import main


def test_doctor_explains_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = clicks(48_000)
    stereo = np.stack([sound, -sound], axis=1)
    write_media(tmp_path / "a.mkv", [sound, stereo], 48_000, "libopus", "matroska", pause=(1.0, 2.0), default=1)
    assert main(["doctor", "--audio", str(tmp_path / "a.mkv")]) == 0
    facts = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if not line.startswith("track")]
    named = dict(facts)
    assert named["container"] == "matroska,webm" and named["duration"].startswith("4.0")
    assert named["gap"].startswith("2.00") and named["damaged"].startswith("0 packets of")
    assert named["downmix"].startswith("mean of 2 channels with channel 2 inverted")
    assert main(["doctor", "--audio", str(tmp_path / "a.mkv"), "--audio-track", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("track 1 ") and line.endswith("1 channel, chosen") for line in lines)
    assert any(line.startswith("track 2 ") and line.endswith("2 channels, default") for line in lines)


def test_doctor_names_the_failed_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_media(tmp_path / "a.flac", clicks(48_000), 48_000, "flac", "flac")
    corrupt(tmp_path / "a.flac", 0.5)
    assert main(["doctor", "--audio", str(tmp_path / "a.flac")]) == 1
    assert "\nproblem          damaged: " in capsys.readouterr().out
    assert main(["doctor", "--audio", str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err == f"sedtalker: no such audio file: {tmp_path / 'absent'}. Check the path\n"


def test_damage_is_a_warning_that_strict_makes_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.flac"
    write_media(path, clicks(48_000), 48_000, "flac", "flac")
    corrupt(path, 0.5)
    assert main(["diarize", str(path), "-o", str(tmp_path / "out"), "--plot"]) == 0
    (line,) = capsys.readouterr().err.splitlines()  # once, though the plot reads the file again
    assert line.startswith(f"sedtalker: damaged: {path} lost ")
    assert main(["diarize", str(path), "-o", str(tmp_path / "strict"), "--strict"]) == 1
    assert capsys.readouterr().err.startswith(f"sedtalker: refused by --strict: damaged: {path}")
    assert not (tmp_path / "strict").exists()
