"""What is heavy is imported only where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "numba",
    "av",
    "transformers",
    "lightning",
    "librosa",
    "scipy",
    "pyrender",
    "trimesh",
    "matplotlib",
    "torchaudio",
)


def imported_by(code: str, folder: Path) -> set[str]:
    """Top-level modules that are loaded once `code` has run in a process of its own."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    line = next(line for line in run.stdout.splitlines() if line.startswith("MODULES"))
    return set(line.split()[1:])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["animate", "--help"], [], ["animate"], ["animate", "absent.wav"],
     ["animate", "a.wav", "--emotion", "grumpy"], ["render", "absent.npz"], ["licences"]],
    ids=" ".join,
)  # fmt: skip
def test_quick_answers_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    modules = imported_by(f"from sedtalker.cli.main import main; main({arguments!r})", tmp_path)
    assert not modules & set(HEAVY)


def test_the_way_from_audio_to_video_imports_only_what_it_needs(tmp_path: Path, speech_file: Path) -> None:
    arguments = ["animate", str(speech_file), "-o", "out", "--size", "64"]
    modules = imported_by(f"from sedtalker.cli.main import main; assert main({arguments!r}) == 0", tmp_path)
    assert modules >= {"torch", "numba", "av"}
    # numba itself imports scipy where it is installed
    assert not modules & ({*HEAVY} - {"torch", "numba", "av", "scipy"})
    assert (tmp_path / "out" / f"{speech_file.stem}.mp4").exists()


def test_the_package_itself_costs_nothing(tmp_path: Path) -> None:
    assert not imported_by("import sedtalker; sedtalker.__version__", tmp_path) & {*HEAVY, "numpy"}


def test_a_store_is_made_without_the_training_extra() -> None:
    code = "import sys; sys.modules['lightning'] = None; from sedtalker.synthesis.rig_clips import build_store"
    subprocess.run([sys.executable, "-c", code], check=True)
