"""The end of the process of the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = "import atexit, sys, threading, time; from sedtalker.cli import main; atexit.register(print, 'handler'); "
THREAD = "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start(); "


@pytest.mark.parametrize("thread", [False, True])
def test_command_ends_after_its_handlers_and_threads(thread: bool) -> None:
    body = "print('result'); main.main = lambda: 3; main.run_command()"
    command = [sys.executable, "-c", START + (THREAD if thread else "") + body]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert sorted(done.stdout.split()) == sorted(["result", "handler", *(["thread"] if thread else [])])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_output_is_an_error() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "sedtalker", "licences"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
