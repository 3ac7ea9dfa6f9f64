"""Compiled functions and their cache on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numba
import pytest

from sedtalker.kernels import compiler


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
