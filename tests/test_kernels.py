"""Compiled functions and their cache on the disk."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numba
import pytest
from numba.core import event

from sedtalker.kernels import CompilationNotice, compiler


def test_a_cache_folder_that_is_removed_while_the_program_runs_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))

    @compiler()
    def double(value: int) -> int:
        return 2 * value

    shutil.rmtree(tmp_path / "cache")
    assert double(3) == 6
    assert list(tmp_path.rglob("*.nbi"))


@pytest.mark.parametrize("seconds, terminal, lines", [(2.0, True, 1), (0.1, True, 0), (2.0, False, 0)])
def test_a_terminal_shows_once_that_the_first_run_compiles(
    monkeypatch: pytest.MonkeyPatch, seconds: float, terminal: bool, lines: int
) -> None:
    now = 0.0
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    notice, compiling = CompilationNotice(), event.Event("numba:compile", event.EventStatus.START)
    for _ in range(3):
        notice.on_start(compiling)
        notice.on_start(compiling)  # a function that it calls
        now += seconds
        notice.on_end(compiling)
        notice.on_end(compiling)
    assert stream.getvalue().count("\n") == lines
    assert stream.getvalue().startswith("sedtalker: compiling") == bool(lines)
