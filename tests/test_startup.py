"""Imports: heavy modules are imported where they are used, and imports have no side effects."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sedtalker.kernels import _save_alone

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
    "c2pa",
    "cryptography",
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
def test_quick_commands_import_no_heavy_modules(tmp_path: Path, arguments: list[str]) -> None:
    modules = imported_by(f"from sedtalker.cli.main import main; main({arguments!r})", tmp_path)
    assert not modules & set(HEAVY)


def test_a_file_that_is_no_animation_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    modules = imported_by("from sedtalker.cli.main import main; assert main(['evaluate', 'motion', 'a.npz'])", tmp_path)
    assert "torch" not in modules


def test_animate_imports_only_the_modules_that_it_needs(tmp_path: Path, speech_file: Path) -> None:
    arguments = ["animate", str(speech_file), "-o", "out", "--size", "64"]
    modules = imported_by(f"from sedtalker.cli.main import main; assert main({arguments!r}) == 0", tmp_path)
    assert modules >= {"numba", "av"}
    # numba itself imports scipy where it is installed
    assert not modules & ({*HEAVY} - {"numba", "av", "scipy", "c2pa", "cryptography"})
    assert (tmp_path / "out" / f"{speech_file.stem}.mp4").exists()


def test_the_package_imports_no_heavy_modules(tmp_path: Path) -> None:
    assert not imported_by("import sedtalker; sedtalker.__version__", tmp_path) & {*HEAVY, "numpy"}


def test_a_store_is_made_without_the_training_extra() -> None:
    code = "import sys; sys.modules['lightning'] = None; from sedtalker.synthesis.rig_clips import build_store"
    subprocess.run([sys.executable, "-c", code], check=True)


GLOBALS = """
import json, locale, os, signal, warnings

def state():
    handlers = [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())]
    return [dict(os.environ), list(map(str, warnings.filters)), handlers, locale.setlocale(locale.LC_ALL), os.getcwd()]

before = state()
{code}
after = state()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
"""


@pytest.mark.parametrize(
    "code",
    [
        "import sedtalker; sedtalker.__version__",
        "import sedtalker; [getattr(sedtalker, name) for name in sedtalker.__all__]",
        "import sedtalker.mamba.scan_cpu, sedtalker.face.blendshape_solver, sedtalker.render.soft, numba\n"
        "assert numba.config.CACHE_DIR == ''",
        "from sedtalker.cli.main import main; main(['licences'])",
    ],
)
def test_environment_and_globals_are_the_same_after_an_import(code: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "NUMBA_CACHE_DIR")}
    # torch and numba set warning filters of their own when they are imported
    script = "import numba, torch\n" + GLOBALS.format(code=code)
    run = subprocess.run([sys.executable, "-c", script], env=kept, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_streams_and_tracks_are_made_without_torch(tmp_path: Path, speech_file: Path) -> None:
    code = (
        f"import sedtalker; talker = sedtalker.load(device='cpu'); track = talker.diarize({str(speech_file)!r}); "
        f"voice = talker.enroll({str(speech_file)!r}, shortest=0.1); voice.merge(voice); "
        "import numpy; talker.open_stream(voice=voice).push(numpy.zeros(16000, numpy.float32))"
    )
    assert "torch" not in imported_by(code, tmp_path)


def test_the_server_runs_without_torch(tmp_path: Path) -> None:
    code = (
        "import sedtalker.serve.server; from sedtalker.serve.config import ServeConfig; "
        "from sedtalker.serve.engine import load_talker, prepare_worker; prepare_worker(); load_talker(ServeConfig())"
    )
    assert "torch" not in imported_by(code, tmp_path)


def test_openmp_spin_is_short_when_the_package_imports_torch(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    (tmp_path / "torch.py").write_text(
        "import os; print('torch sees', os.environ.get('GOMP_SPINCOUNT')); raise SystemExit"
    )
    code = "import sys; sys.path.insert(0, '.'); import sedtalker; sedtalker.load(device='cuda')"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert "torch sees 1000" in run.stdout, run.stderr


def test_compiled_functions_are_cached_in_the_cache_folder(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    code = (
        "from sedtalker.mamba import scan_cpu; from sedtalker.face import blendshape_solver\n"
        "for kernel in (scan_cpu._forward, blendshape_solver._descend): print(kernel._cache.cache_path)"
    )
    for name, folder in (("SEDTALKER_CACHE", tmp_path / "ours"), ("NUMBA_CACHE_DIR", tmp_path / "theirs")):
        kept[name] = str(folder)
        run = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
        assert all(line.startswith(str(folder)) for line in run.stdout.splitlines()), run.stdout


def test_each_version_of_the_sources_has_its_own_cache_in_a_folder_of_the_user(tmp_path: Path) -> None:
    """Two processes after a change of the sources could otherwise load code of the version before."""
    folders = []
    for version in ("1", "2"):
        code = f"import numba; numba.__version__ = {version!r}\nfrom sedtalker.mamba import scan_cpu\n"
        code += "print(scan_cpu._forward._cache.cache_path)"
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        folders.append(run.stdout)
    assert len(set(folders)) == 2 and all(folder.startswith(str(tmp_path)) for folder in folders)


def test_processes_save_compiled_functions_one_at_a_time(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    saved = []
    with (tmp_path / "lock").open("w") as other:  # of another process
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=_save_alone(saved.append, tmp_path / "lock"), args=("signature",))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not saved
    thread.join(60)
    assert saved == ["signature"]
