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


INTERRUPT = """
import atexit, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
from sedtalker.cli import start

class Parser:
    debug = False

    def parse_args(self, argv):
        return self

    def run(self, arguments):
        try:
            interrupt("work")
        finally:
            print("removed")

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "sedtalker.cli.animate":
            interrupt("imports")

def interrupt(moment):
    if sys.argv[1] == moment:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)

sys.meta_path.insert(0, Finder)
atexit.register(interrupt, "exit")
if sys.argv[1] != "imports":
    from sedtalker.cli import main
    main.build_parser = Parser
start.start()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("moment", ["imports", "work", "exit"])
def test_an_interrupt_is_one_line_at_any_time(moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPT, moment], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "sedtalker: stopped\n")
    assert done.stdout.strip() == ("" if moment == "imports" else "removed")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_output_is_an_error() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "sedtalker", "licences"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
