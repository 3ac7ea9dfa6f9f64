"""The process that draws videos while the first one animates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch  # noqa: F401, the state of a process that has animated before
from made_animation import made_animation

from sedtalker import tasks
from sedtalker.cli.options import is_command
from sedtalker.face.assets import load_face
from sedtalker.task_options import AnimateOptions
from sedtalker.tasks import animate_file, open_video_process
from sedtalker.workers import BackgroundWorker

OPTIONS = AnimateOptions(size=64, exports=("mp4", "json"))


def decode(path: Path) -> np.ndarray:
    """Luma (T, H, W); x264 codes such small pictures a little differently each time."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)


def test_the_video_of_the_process_is_that_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    animation = replace(made_animation(tmp_path, 0.2), rig=load_face("default"))
    talker = SimpleNamespace(animate=lambda source, **options: animation)
    sound, done = tmp_path / "made.wav", []

    def animate(name: str, process: BackgroundWorker | None) -> np.ndarray:
        animate_file(talker, OPTIONS, sound, tmp_path / name, done.append, video_process=process)
        return decode(tmp_path / name / "made.mp4")

    expected = animate("here", None)
    monkeypatch.setattr(tasks, "available_threads", lambda: 2)
    monkeypatch.delitem(tasks.sys.modules, "torch", raising=False)  # as in a new process
    with open_video_process(OPTIONS) as process:
        monkeypatch.undo()
        assert process is not None
        assert np.abs(animate("there", process) - expected).mean((1, 2)).max() < 4
        process.close()
        assert np.abs(animate("after its end", process) - expected).mean((1, 2)).max() < 4
    assert len(done) == 3


def test_no_video_process_where_it_saves_nothing() -> None:
    for options in (AnimateOptions(exports=("npz",)), AnimateOptions(backend="pyrender"), OPTIONS):
        with open_video_process(options) as process:  # torch has been imported by this test's process
            assert process is None


def test_a_script_is_not_run_again_by_the_video_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file, expected in (
        ("sedtalker.__main__", "sedtalker/__main__.py", True),
        (None, "bin/sedtalker", True),
        (None, "Scripts/sedtalker.exe", True),
        (None, "work/animate_all.py", False),
        ("package.animate_all", "package/animate_all.py", False),
    ):
        spec = None if name is None else SimpleNamespace(name=name)
        monkeypatch.setitem(tasks.sys.modules, "__main__", SimpleNamespace(__spec__=spec, __file__=file))
        assert is_command() is expected
