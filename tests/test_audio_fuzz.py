"""Damaged media files of every container: read or refused in one line, in bounded time and memory."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media import FORMATS, write_media

from sedtalker.audio import SAMPLE_RATE, stream_audio
from sedtalker.demux import MAX_SILENCE
from sedtalker.errors import SEDTalkerError

SECONDS = 0.4


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A short file of every container."""
    folder = tmp_path_factory.mktemp("originals")
    sound = 0.3 * np.random.default_rng(0).standard_normal(round(SECONDS * 48_000)).clip(-1, 1)
    for name, (form, codec) in FORMATS.items():
        write_media(folder / name, np.stack([sound, sound], 1), 48_000, codec, form)
    return {name: (folder / name).read_bytes() for name in FORMATS}


@st.composite
def damage(draw: st.DrawFn) -> tuple[str, list[tuple[str, float, bytes]]]:
    """A container, and edits: kind, position as a share of the file, and bytes."""
    name = draw(st.sampled_from(sorted(FORMATS)))
    place = st.floats(0, 1) | st.floats(0, 0.05)  # headers are at the start
    edit = st.tuples(
        st.sampled_from(["set", "set", "insert", "delete", "cut", "repeat"]), place, st.binary(min_size=1, max_size=16)
    )
    return name, draw(st.lists(edit, min_size=1, max_size=4))


def edited(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, new in edits:
        start = int(place * len(content))
        if kind == "set":
            content = content[:start] + new + content[start + len(new) :]
        elif kind == "insert":
            content = content[:start] + new + content[start:]
        elif kind == "delete":
            content = content[:start] + content[start + len(new) * 16 :]
        elif kind == "repeat":
            content = content[: start + 512] + content[start:]
        else:
            content = content[:start]
    return content


def read(path: Path) -> None:
    """Read a file; anything but a result or an error of one line fails the test."""
    count = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for block in stream_audio(path):
                count += len(block)
                assert len(block) <= SAMPLE_RATE and np.isfinite(block).all()
    except SEDTalkerError as error:
        assert "\n" not in str(error)
    assert count <= (MAX_SILENCE + 600) * SAMPLE_RATE


def check(path: Path, originals: dict[str, bytes], case: tuple[str, list[tuple[str, float, bytes]]]) -> None:
    name, edits = case
    path.write_bytes(edited(originals[name], edits))
    read(path)


SLOWEST = timedelta(seconds=30)
UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=200, deadline=SLOWEST, suppress_health_check=UNCHECKED, derandomize=True)
@given(case=damage())
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, originals: dict[str, bytes], case: tuple[str, list[tuple[str, float, bytes]]]
) -> None:
    check(tmp_path / "a.bin", originals, case)


@pytest.mark.nightly
@settings(max_examples=100_000, deadline=SLOWEST, suppress_health_check=UNCHECKED)
@given(case=damage())
def test_many_damaged_files_are_read_or_refused(
    tmp_path: Path, originals: dict[str, bytes], case: tuple[str, list[tuple[str, float, bytes]]]
) -> None:
    check(tmp_path / "a.bin", originals, case)
