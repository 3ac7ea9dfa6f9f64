"""Batches on a real Slurm of one node (`.ci/slurm.sh` starts it): broken files, a cancelled job, and resuming."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_batch import Copying, inputs  # noqa: F401, the fixture of ten texts

from sedtalker.batch import BatchConfig, run_batch


def _slurm_is_idle() -> bool:
    if shutil.which("sbatch") is None:
        return False
    states = subprocess.run(["sinfo", "--noheader", "--format", "%T"], capture_output=True, text=True, timeout=20)
    return states.returncode == 0 and "idle" in states.stdout


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _slurm_is_idle(), reason="no idle Slurm here; .ci/slurm.sh starts one"),
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs import this folder's modules."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))


def test_one_broken_file_of_many_costs_that_file(inputs: list[Path], tmp_path: Path) -> None:  # noqa: F811
    inputs[3].write_text("broken")
    out = tmp_path / "out"
    assert run_batch(inputs, out, Copying(), BatchConfig(jobs=2, executor="slurm")) == 1
    assert len(list(out.glob("*.two"))) == 9


def test_a_cancelled_job_costs_its_unfinished_files_and_resume_makes_them(
    inputs: list[Path],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    slow = Copying(seconds=2.0)

    def cancel_one() -> None:
        for _ in range(300):
            listing = subprocess.run(["squeue", "--noheader", "--format", "%i %T"], capture_output=True, text=True)
            running = [row.split()[0] for row in listing.stdout.splitlines() if "RUNNING" in row]
            if running and len(list(out.glob("*.two"))) >= 2:
                subprocess.run(["scancel", running[-1]], check=True)
                return
            time.sleep(0.1)

    canceller = threading.Thread(target=cancel_one)
    canceller.start()
    code = run_batch(inputs, out, slow, BatchConfig(jobs=2, executor="slurm"))
    canceller.join()
    done = {path.stem for path in out.glob("*.two")}
    assert code == 1 and 5 <= len(done) < 10  # the other job's five at least
    assert "its cluster job failed" in capsys.readouterr().err
    assert run_batch(inputs, out, slow, BatchConfig(jobs=2, executor="slurm", resume=True)) == 0
    assert {path.stem for path in out.glob("*.two")} == {path.stem for path in inputs}
    made = (out / "log").read_text().split()
    assert all(made.count(f"{stem}.txt") == 1 for stem in done)
