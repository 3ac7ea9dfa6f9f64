"""A preparation that is killed at any moment continues, and ends with the same bytes as one that ran through."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import vertex_corpora as made
from tqdm import tqdm

from sedtalker import files
from sedtalker.data.preflight import motion_problem, within_bounds
from sedtalker.data.prepare import prepare
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.data.vertex_store import open_store
from sedtalker.errors import DataError
from sedtalker.face.motion_bounds import motion_bounds


def prepare_until(corpus: Path, store: Path, moment: int, late: bool) -> None:
    """Prepare, and end this process by SIGKILL at its n-th file: before or after the file gets its name."""
    rename, count = files.replace_into, 0

    def killing(temp_path: Path, path: Path) -> None:
        nonlocal count
        count += 1
        if count == moment and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(temp_path, path)
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    files.replace_into = killing
    prepare(read_emovoca(corpus), store)


def run_with_own_lock(target: Callable[..., None], *args: object) -> None:
    tqdm.set_lock(threading.RLock())  # a process that is killed would keep tqdm's lock, which its parent shares
    target(*args)


def run_forked(target: Callable[..., None], *args: object) -> int | None:
    """Exit code of a function in a forked process."""
    gc.collect()  # else the child may free PyAV graphs of earlier tests, which waits for threads that it lacks
    process = multiprocessing.get_context("fork").Process(target=run_with_own_lock, args=(target, *args))
    process.start()
    process.join()
    return process.exitcode


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("moment, late", [(1, False), (1, True), (2, False), (4, True), (9, False), (-1, False)])
def test_a_killed_preparation_continues(moment: int, late: bool, tmp_path: Path) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    if moment < 0:
        moment = len(whole) + 1  # the manifest is written twice; this is the last time
    store = tmp_path / "killed"
    assert run_forked(prepare_until, tmp_path, store, moment, late) == -signal.SIGKILL
    with pytest.raises(DataError):  # no half store is opened
        open_store(store)
    prepare(read_emovoca(tmp_path), store)
    killed = contents(store)
    assert killed.keys() == whole.keys()  # no temporary file is left
    assert {name for name in whole if whole[name] != killed[name]} == set()


class KillAtCall:
    """Profiler that counts calls, of Python and of C, and ends this process by SIGKILL at the n-th."""

    def __init__(self, moment: int | None = None) -> None:
        self.calls, self.moment = 0, moment

    def __call__(self, frame: object, event: str, argument: object) -> None:
        self.calls += event in ("call", "c_call")
        if self.calls == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def prepare(self, corpus: Path, store: Path) -> None:
        source = read_emovoca(corpus)
        sys.setprofile(self)
        try:
            prepare(source, store)
        finally:
            sys.setprofile(None)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_twenty_kills_at_random_calls_leave_no_trace(tmp_path: Path) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "first")  # compiles and imports
    counter = KillAtCall()
    counter.prepare(tmp_path, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    killed = 0
    for number, moment in enumerate(np.random.default_rng(0).integers(1, counter.calls, 20).tolist()):
        store = tmp_path / f"store_{number}"
        killed += run_forked(KillAtCall(moment).prepare, tmp_path, store) == -signal.SIGKILL
        prepare(read_emovoca(tmp_path), store)
        assert contents(store) == whole, f"killed at call {moment} of {counter.calls}"
    assert killed > 15  # a run may need fewer calls than the one that was counted


def bounded(frames: np.ndarray, template: np.ndarray) -> bool:
    return within_bounds(motion_bounds(frames.astype(np.float32), template.astype(np.float32)))


def test_the_fast_check_lets_no_problem_pass() -> None:
    rest = made.template()
    good = made.motion(rest, 40)
    assert bounded(good, rest) and motion_problem(good, rest) is None
    rng = np.random.default_rng(0)
    for _ in range(60):
        frames, (frame, vertex, axis) = good.copy(), (rng.integers(40), rng.integers(made.VERTICES), rng.integers(3))
        kind = rng.integers(4)
        if kind == 0:
            frames[frame, vertex, axis] = rng.choice([np.nan, np.inf, -np.inf])
        elif kind == 1:
            frames[frame, vertex, axis] += rng.uniform(-0.2, 0.2)
        elif kind == 2:
            frames += rng.uniform(-0.05, 0.05, 3)
        else:
            frames[frame:] *= rng.uniform(0.7, 1.3)
        assert not (bounded(frames, rest) and motion_problem(frames, rest))


def test_displacements_and_bounds_are_those_of_numpy() -> None:
    rest = made.template().astype(np.float32)
    frames = made.motion(rest, 30).astype(np.float32)
    bounds, moved = motion_bounds(frames, rest), (frames - rest).reshape(30, -1)
    np.testing.assert_array_equal(bounds.moved, moved)
    np.testing.assert_array_equal(bounds.low, moved.min(axis=0))
    np.testing.assert_array_equal(bounds.high, moved.max(axis=0))
    np.testing.assert_allclose(bounds.step, np.abs(np.diff(moved, axis=0)).max(axis=0), rtol=1e-6)
