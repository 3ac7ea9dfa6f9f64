"""The packaged models run where torch is not installed; what needs torch says which extra installs it."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sedtalker.talker.config import TalkerConfig
from sedtalker.talker.model import TalkerModel, save_talker_model

ABSENT = ("torch", "functorch", "lightning", "pytorch_lightning", "sedtalker", "_sedtalker", "__editable__")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run_without_torch(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python with links to the installed packages, except torch and packages that need it."""
    folder = tmp_path_factory.mktemp("packages")
    for packages in map(Path, site.getsitepackages()):
        for path in packages.iterdir():
            if not path.name.startswith(ABSENT) and path.suffix != ".pth" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(folder), str(Path(__file__).parent.parent)])
        return subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],
            cwd=folder.parent,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_a_recording_becomes_a_video(run_without_torch: Run, speech_file: Path, tmp_path: Path) -> None:
    run = run_without_torch("-m", "sedtalker", "animate", speech_file, "-o", tmp_path, "--size", "64")
    assert run.returncode == 0, run.stderr
    assert {path.suffix for path in tmp_path.glob("*.*")} == {".mp4", ".npz", ".json"}


def test_files_and_streams_of_both_diarizers_run_in_python(run_without_torch: Run, speech_file: Path) -> None:
    code = f"""
import sys, sedtalker
from sedtalker.audio import load_audio
samples = load_audio({str(speech_file)!r})
for name in ("default", "open"):
    talker = sedtalker.load(diarizer=name)
    animation = talker.animate((samples, 16_000), voice=talker.enroll({str(speech_file)!r}, shortest=1))
    assert "torch" not in animation.meta and len(animation) > 10
    stream = talker.open_stream()
    assert len(stream.push(samples).time) > 10
assert "torch" not in sys.modules
"""
    run = run_without_torch("-c", code)
    assert run.returncode == 0, run.stderr


def test_doctor_says_what_torch_is_for(run_without_torch: Run) -> None:
    run = run_without_torch("-m", "sedtalker", "doctor")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sedtalker animate works here" in run.stdout and "pip install 'sedtalker[torch]'" in run.stdout


@pytest.mark.parametrize(
    "words, extra",
    [(["animate", "{speech}", "--device", "cuda"], "torch"), (["animate", "{speech}", "--model", "{folder}"], "torch"),
     (["evaluate", "talker", "one", "other"], "torch"), (["train", "diarizer", "--config", "a.yaml"], "train")],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)  # fmt: skip
def test_what_needs_torch_names_its_extra(
    run_without_torch: Run, speech_file: Path, tmp_path: Path, words: list[str], extra: str
) -> None:
    save_talker_model(TalkerModel(TalkerConfig(width=16, order=("mamba",))), tmp_path)
    run = run_without_torch("-m", "sedtalker", *(word.format(speech=speech_file, folder=tmp_path) for word in words))
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1 and f"pip install 'sedtalker[{extra}]'" in run.stderr
