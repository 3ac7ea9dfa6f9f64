"""Fixtures of many tests: synthetic sounds, and the real recordings in tests/data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run late, benchmarks last: a renderer of the peers closes the OpenGL display of the process."""
    items.sort(key=lambda item: ("bench" in item.path.parts, item.get_closest_marker("slow") is not None))


@pytest.fixture(scope="session")
def speech_file() -> Path:
    """A CREMA-D clip (ODbL, see tests/data/README.md)."""
    return DATA / "1001_IEO_ANG_HI.opus"


@pytest.fixture
def tone() -> np.ndarray:
    """A second of a 220 Hz tone at 16 kHz, half amplitude."""
    return (0.5 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000)).astype(np.float32)


@pytest.fixture
def run_cli(tmp_path: Path):
    """Run the command line as a user does: in a new process and an empty folder."""

    def run(*arguments: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sedtalker", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            check=False,
        )

    return run
