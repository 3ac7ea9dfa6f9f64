"""Folders of packaged and of cached files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from sedtalker.resources import cache_folder


def test_a_process_without_a_writable_cache_makes_one_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    (tmp_path / f"sedtalker-{os.getuid()}").touch()
    monkeypatch.setenv("SEDTALKER_CACHE", str(blocked))
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = cache_folder("numba"), cache_folder("numba")
    assert first == second
    assert first.is_dir() and first.is_relative_to(tmp_path)
    assert cache_folder() == first.parent
