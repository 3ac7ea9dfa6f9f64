"""Batch runs: every file is processed once, results are complete, and the report lists them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_animation import made_animation

from sedtalker import batch
from sedtalker.batch import REPORT, BatchConfig, run_batch
from sedtalker.cli.main import main
from sedtalker.errors import AudioError, DataError, SEDTalkerError
from sedtalker.files import RECORDS_FOLDER, atomic_write, sha256
from sedtalker.inputs import expand_inputs
from sedtalker.task_options import (
    RESULT_ENDINGS,
    AnimateOptions,
    RenderOptions,
    check_result_paths,
    result_paths,
)
from sedtalker.tasks import CommitCallback, FileResult, load_task


@dataclass(frozen=True)
class Copying:
    """Options of a test task: writes a text in capitals to two outputs, slowly; fails if the text contains "broken"."""

    seconds: float = 0.0
    repeat: int = 1
    dies_at_start: bool = False


@load_task.register
def _(options: Copying):
    if options.dies_at_start:
        os._exit(7)
    return partial(copy_capitals, options)


def copy_capitals(options: Copying, path: Path, folder: Path, on_commit: CommitCallback) -> FileResult:
    text = path.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    if "broken" in text:
        raise AudioError(f"broken: {path}. Replace it")
    if "die" in text or "be killed" in text:
        with (folder / "attempts").open("a") as attempts:
            attempts.write(f"{path.name}\n")
        if "once" not in text or len((folder / "attempts").read_text().split()) == 1:
            (folder / f".{path.stem}~0123abcd.one").write_text("half")
            if "die" in text:
                os._exit(9)
            os.kill(os.getpid(), signal.SIGKILL)
    with (folder / "log").open("a") as log:
        log.write(f"{path.name}\n")
    paths = [folder / f"{path.stem}.one", folder / f"{path.stem}.two"]
    with atomic_write(paths[0]) as first, atomic_write(paths[1]) as second:
        first.write_text(text.upper() * options.repeat)
        time.sleep(options.seconds)
        second.write_text(text)
        on_commit({paths[0]: first, paths[1]: second})
    return FileResult(paths)


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"in{number:02d}.txt" for number in range(10)]
    for path in paths:
        path.write_text(f"text of {path.stem}")
    return paths


def log_of(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_broken_file_of_many(
    inputs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    inputs[3].write_text("broken")
    out = tmp_path / "out"
    assert run_batch(inputs, out, Copying(), BatchConfig(jobs=jobs)) == 1
    assert sorted(file.name for file in out.glob("*.one")) == [f"in{n:02d}.one" for n in range(10) if n != 3]
    report = json.loads((out / REPORT).read_text())
    assert report["counts"] == {"done": 9, "kept": 0, "failed": 1}
    assert report["files"][-1]["file"] == str(inputs[3]) and "Replace it" in report["files"][-1]["reason"]
    assert capsys.readouterr().err.strip().splitlines()[-1] == "sedtalker: 1 of 10 files failed"

    inputs[3].write_text("replaced")
    assert run_batch(inputs, out, Copying(), BatchConfig(jobs=jobs, resume=True)) == 0
    assert log_of(out).count("in03.txt") == 1 and len(log_of(out)) == 10  # the nine others were not done again
    assert json.loads((out / REPORT).read_text())["counts"] == {"done": 1, "kept": 9, "failed": 0}


def test_resume_repeats_changed_inputs_options_and_missing_results(inputs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(inputs, out, Copying())
    inputs[0].write_text("changed")
    (out / "in01.two").unlink()
    (out / "in02.one").write_text("cut")
    run_batch(inputs, out, Copying(), BatchConfig(resume=True))
    assert log_of(out)[10:] == ["in00.txt", "in01.txt", "in02.txt"]
    assert (out / "in00.one").read_text() == "CHANGED"
    run_batch(inputs, out, Copying(repeat=2), BatchConfig(resume=True))
    assert len(log_of(out)) == 23


@pytest.mark.parametrize("text", ["die", "be killed"])
def test_a_process_that_dies_fails_its_file_alone(
    inputs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    inputs[1].write_text(text)
    out = tmp_path / "out"
    assert run_batch(inputs, out, Copying(), BatchConfig(jobs=2)) == 1
    assert sorted(file.name for file in out.glob("*.two")) == [f"in{n:02d}.two" for n in range(10) if n != 1]
    failure, count = capsys.readouterr().err.strip().splitlines()
    assert str(inputs[1]) in failure and ("exit code 9" if text == "die" else "SIGKILL") in failure
    assert count == "sedtalker: 1 of 10 files failed"
    assert (out / "attempts").read_text().split() == ["in01.txt"] * 2
    assert not list(out.glob(".in*"))  # temporary files of the killed process


def test_a_file_is_tried_again_after_its_process_died(inputs: list[Path], tmp_path: Path) -> None:
    inputs[1].write_text("die once")
    assert run_batch(inputs[:4], tmp_path / "out", Copying(), BatchConfig(jobs=2)) == 0
    assert len(list((tmp_path / "out").glob("*.two"))) == 4


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_loader_is_the_same_line_with_and_without_processes(
    inputs: list[Path], tmp_path: Path, jobs: int
) -> None:
    command = [sys.executable, "-m", "sedtalker", "diarize", *map(str, inputs[:2]), "-o", "out"]
    command += ["--diarizer", "absent", "--jobs", str(jobs)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("sedtalker: no model folder: ") and "absent" in line


def test_a_process_that_cannot_start_stops_the_run_in_one_line(inputs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SEDTalkerError, match="no worker process starts: the last one ended with exit code 7"):
        run_batch(inputs, tmp_path / "out", Copying(dies_at_start=True), BatchConfig(jobs=2))


def processes_of(group: int) -> list[int]:
    """Identifiers of the living processes of a session."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(group)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "Z" not in line.split()[1]]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed with ps -s")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_no_process_outlives_its_parent(inputs: list[Path], tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    script = (
        f"import signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_batch import Copying\nfrom sedtalker.batch import BatchConfig, run_batch\n"
        "from sedtalker.cli import main as command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # nohup's children ignore it
        "class Parser:\n"
        "    def parse_args(self, argv):\n"
        "        return self\n"
        "    debug = False\n"
        "    def run(self, arguments):\n"
        f"        paths = [Path(name) for name in {[str(path) for path in inputs]!r}]\n"
        f"        return run_batch(paths, Path({str(out)!r}), Copying(60), BatchConfig(jobs=2))\n"
        "if __name__ == '__main__':\n"
        "    command.build_parser = Parser\n"
        "    command.run_command()\n"
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 300  # a loaded machine imports torch slowly
    while not ((out / "log").exists() and len(log_of(out)) == 2):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert errors.splitlines() == ([] if number == signal.SIGKILL else ["sedtalker: stopped"])
    while processes_of(process.pid):
        assert time.time() < deadline + 20
        time.sleep(0.02)
    assert not list(out.glob(".in*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_without_repeated_or_partial_results(
    inputs: list[Path], tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    script = (
        f"import signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell starts us deaf to it
        "from pathlib import Path\nfrom test_batch import Copying\nfrom sedtalker.batch import run_batch\n"
        f"run_batch([Path(name) for name in {[str(path) for path in inputs]!r}], Path({str(out)!r}), Copying(0.3))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 300
    while not ((out / "log").exists() and len(log_of(out)) >= 4):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    finished = [file.name.removesuffix(".txt.json") for file in (out / ".sedtalker").glob("*.json")]
    assert 3 <= len(finished) < 10
    for file in out.glob("in*.one"):
        assert file.read_text() == f"TEXT OF {file.stem.upper()}"
    assert run_batch(inputs, out, Copying(0.3), BatchConfig(resume=True)) == 0
    assert all(log_of(out).count(f"{stem}.txt") == 1 for stem in finished)
    assert not list(out.glob(".in*"))


@pytest.mark.parametrize("renamed", [0, 1, 2, 3, 4])
def test_a_kill_between_two_renames_loses_no_complete_result(inputs: list[Path], tmp_path: Path, renamed: int) -> None:
    """The renames of a file: its record, then its two results."""
    out = tmp_path / "out"
    script = (
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_batch import Copying\nfrom sedtalker.batch import run_batch\n"
        f"rename, left = Path.replace, iter(range({renamed}))\n"
        "Path.replace = lambda old, new: rename(old, new) if next(left, None) is not None else os._exit(9)\n"
        f"run_batch([Path(name) for name in {[str(path) for path in inputs[:3]]!r}], Path({str(out)!r}), Copying())"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 9
    before = log_of(out)
    assert run_batch(inputs[:3], out, Copying(), BatchConfig(resume=True)) == 0
    recorded = (renamed + 2) // 3
    assert before == [f"in{number:02d}.txt" for number in range(renamed // 3 + 1)]
    assert log_of(out)[len(before) :] == [f"in{number:02d}.txt" for number in range(recorded, 3)]
    assert {file.name: file.read_text() for file in out.glob("in*")} == {
        f"{path.stem}.{kind}": text.upper() if kind == "one" else text
        for path in inputs[:3]
        for text in [path.read_text()]
        for kind in ("one", "two")
    }
    assert not list(out.glob(".in*"))


@dataclass(frozen=True)
class Named(Copying):
    """Options of a test task with fields of the real options."""

    emotion: str = "auto"
    model: str = "default"


@pytest.mark.parametrize("emotion", ["auto", "happy:0.8@0-1," * 100 + "sad:0.5"])
def test_a_file_named_like_an_option_value_changes_nothing(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emotion: str
) -> None:
    """Only declared options are read as paths."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    options = Named(emotion=emotion)
    assert run_batch(inputs[:2], out, options) == 0
    for name in ("auto", "default", "Named"):
        Path(name).write_text("a file")
    assert run_batch(inputs[:2], out, options, BatchConfig(resume=True)) == 0
    assert len(log_of(out)) == 2


def test_resume_repeats_after_a_new_revision_of_a_hub_model(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "1" * 40

    def download(name: str, file: str) -> str:
        folder = tmp_path / "hub" / name.replace("/", "--") / "snapshots" / revision
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
        return str(folder / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    out, options = tmp_path / "out", Named(model="owner/name")
    assert run_batch(inputs[:2], out, options) == 0
    assert run_batch(inputs[:2], out, options, BatchConfig(resume=True)) == 0
    assert len(log_of(out)) == 2
    revision = "2" * 40
    assert run_batch(inputs[:2], out, options, BatchConfig(resume=True)) == 0
    assert len(log_of(out)) == 4


def test_the_resume_key_depends_on_files_that_options_name(tmp_path: Path) -> None:
    def key(**options: object) -> str | None:
        job = batch._Job(source, tmp_path)
        return batch._resume_key(job, RenderOptions(**options), [])  # type: ignore[arg-type]

    source = tmp_path / "made.npz"
    sound, captions, texture = tmp_path / "made.wav", tmp_path / "made.srt", tmp_path / "skin.png"
    for file in (sound, captions, texture):
        file.write_bytes(b"1")
    meta = {"audio": str(sound), "audio_sha256": sha256(sound)}
    replace(made_animation(tmp_path), meta=meta).save(source, dense=False)
    for chosen, file in (
        ({"captions": captions}, captions),
        ({"captions": tmp_path}, captions),
        ({"texture": texture}, texture),
        ({"audio": sound}, sound),
        ({}, sound),  # the recording that the animation names
    ):
        file.write_bytes(b"1")
        before = key(**chosen)
        assert before is not None and before == key(**chosen)
        file.write_bytes(b"2")
        assert key(**chosen) != before


@pytest.mark.parametrize("form", ["png", "obj", "ply"])
def test_a_folder_with_other_files_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    made_animation(tmp_path).save(tmp_path / "made.npz", dense=False)
    folder = tmp_path / f"made_{form}"
    command = ["render", str(tmp_path / "made.npz"), "-o", str(tmp_path), "--to", "png", "--size", "64"]
    if form != "png":
        command = ["export", str(tmp_path / "made.npz"), "--to", form]
    folder.mkdir()
    assert main(command) == 0  # into an empty folder
    files = sorted(folder.iterdir())
    files[-1].unlink()
    assert main(command) == 0 and sorted(folder.iterdir()) == files  # in place of an earlier result
    (folder / "notes.txt").write_text("mine")
    files[0].write_text("changed")
    capsys.readouterr()
    assert main(command) == 1
    assert "not empty" in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "mine" and files[0].read_text() == "changed"


def test_numbered_files_with_gaps_are_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "made_png"
    folder.mkdir()
    (folder / "000007.png").write_text("mine")
    with pytest.raises(SEDTalkerError, match="not empty"), atomic_write(folder) as temp_path:
        temp_path.mkdir()
        (temp_path / "000000.png").write_text("new")
    assert (folder / "000007.png").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["made_png"]


def test_an_edited_track_is_animated_into_its_own_folder(tmp_path: Path) -> None:
    track, other = tmp_path / "speech.emotion.json", tmp_path / "speech2.emotion.json"
    paths = partial(result_paths, folder=tmp_path, source=tmp_path / "speech.wav")
    names = ("mp4", "npz", "json")
    assert paths(AnimateOptions(emotion=str(track), exports=names))["json"] == track  # absent: reading it will tell
    track.write_text("edited")
    kept = paths(AnimateOptions(emotion=str(track), exports=names))
    assert list(kept) == ["mp4", "npz"]
    check_result_paths(kept, [tmp_path / "speech.wav", track])
    for emotion in (str(other), "auto", "happy", "x" * 5000):
        assert list(paths(AnimateOptions(emotion=emotion, exports=names))) == list(names)
    with pytest.raises(SEDTalkerError, match="would replace an input"):  # nothing else would be written
        check_result_paths(paths(AnimateOptions(emotion=str(track), exports=("json",))), [track])


def test_a_result_never_replaces_its_own_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_animation(tmp_path).save(tmp_path / "made.npz", dense=False)
    sound = tmp_path / "made.mp4"
    sound.write_bytes(b"a recording")
    command = ["render", str(tmp_path / "made.npz"), "-o", str(tmp_path), "--audio", str(sound)]
    assert main(command) == 1
    assert "would replace an input" in capsys.readouterr().err
    assert sound.read_bytes() == b"a recording"
    command = ["animate", str(sound), "-o", str(tmp_path)]
    assert main(command) == 1
    assert "would replace an input" in capsys.readouterr().err and sound.read_bytes() == b"a recording"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "513"], "even"),
        (["--captions", "absent.srt"], "no such captions"),
        (["--texture", "absent.png"], "no picture for a skin"),
        (["--face", "absent.obj"], "absent.obj"),
        (["--emotion", "absent.json"], "absent.json"),
    ],
)
def test_values_of_options_are_checked_before_a_model_is_loaded(
    inputs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["animate", *map(str, inputs[:2]), "-o", str(tmp_path / "out"), "--model", str(tmp_path / "no_model")]
    assert main([*command, *options]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line and not (tmp_path / "out").exists()


def test_an_input_that_cannot_be_read_fails_alone(inputs: list[Path], tmp_path: Path) -> None:
    odd = [tmp_path / "a folder.txt", tmp_path / ("x" * 300)]
    odd[0].mkdir()
    assert run_batch([*odd, *inputs[:2]], tmp_path / "out", Copying()) == 1
    assert len(list((tmp_path / "out").glob("*.two"))) == 2


def test_leftovers_of_every_kind_of_result_are_removed(inputs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = inputs[0].rename(tmp_path / "a.b.txt")
    endings = sorted(RESULT_ENDINGS)
    finals = [out / f"a.b{ending}" for ending in endings] + [out / "a_b_png"]
    for final in finals:
        temp_path = out / f".{final.stem}~0123abcd{final.suffix}"
        if final.name.endswith(("_png", "_obj", "_ply")):
            (temp_path / "frames").mkdir(parents=True)
        else:
            out.mkdir(exist_ok=True)
            temp_path.write_text("x")
    assert run_batch([source], out, Copying(), BatchConfig(resume=True)) == 0
    assert sorted(file.name for file in out.iterdir()) == [RECORDS_FOLDER, "a.b.one", "a.b.two", "log"]


def test_processes_share_the_processors() -> None:
    script = (
        "from sedtalker.render.parallel import available_threads, limit_threads\n"
        "processors = available_threads()\nlimit_threads(1)\nassert available_threads() == 1\n"
        "limit_threads(10_000)\nassert available_threads() == processors"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_hidden_files_of_other_programs_are_kept(inputs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left = out / ".in00~0123abcd.one"
    lefts = [left, out / "..in00~0123abcd~01234567.one"]
    theirs = [out / ".my_in00_notes~20240101.txt", out / ".in000~0123abcd.one"]
    for file in (*lefts, *theirs):
        file.write_text("x")
    run_batch(inputs[:1], out, Copying())
    assert left.exists()  # perhaps another run is writing it
    (out / "in00.one").unlink()
    run_batch(inputs[:1], out, Copying(), BatchConfig(resume=True))
    assert not any(file.exists() for file in lefts) and all(file.exists() for file in theirs)


def test_an_unexpected_error_fails_one_file(
    inputs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs[0].write_bytes(b"\xff\xfe")  # no text: the made work breaks with an error of Python's own
    assert run_batch(inputs, tmp_path / "out", Copying()) == 1
    assert len(list((tmp_path / "out").glob("in*.one"))) == 9
    assert "unexpected UnicodeDecodeError" in capsys.readouterr().err


def test_submitit_runs_the_same_batch_on_a_local_cluster(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    inputs[3].write_text("broken")
    out = tmp_path / "out"
    assert run_batch(inputs, out, Copying(), BatchConfig(jobs=2, executor="slurm", cluster="local")) == 1
    assert len(list(out.glob("*.two"))) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm needs a Unix")
def test_jobs_of_another_cluster_are_not_looked_up_in_the_queue_of_slurm(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setattr("sedtalker.cluster.CLUSTER_POLL", 0.01)
    assert (
        run_batch(inputs[:2], tmp_path / "out", Copying(), BatchConfig(jobs=1, executor="slurm", cluster="local")) == 0
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm needs a Unix")
def test_a_slurm_that_refuses_jobs_is_an_error_of_one_line(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no controller' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SEDTalkerError, match=r"cannot be submitted: .*no controller") as refusal:
        run_batch(inputs, tmp_path / "out", Copying(), BatchConfig(jobs=2, executor="slurm", cluster="slurm"))
    assert "\n" not in str(refusal.value)


def _may_mount() -> bool:
    """Whether a small file system can be mounted, to test a full disk."""
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not _may_mount(), reason="no file system may be mounted here")
def test_a_full_disk_gives_one_line_and_leaves_no_files(tmp_path: Path) -> None:
    made_animation(tmp_path).save(tmp_path / "made.npz", dense=False)
    (tmp_path / "full").mkdir()
    command = (
        "mount -t tmpfs -o size=32k none full && "
        f"{{ {sys.executable} -m sedtalker render made.npz --to mp4 -o full; echo $?; ls -A full; }}"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["1"], done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "cannot write full/made.mp4: No space left on device" in line


def test_an_animation_is_rendered_at_another_frame_rate(tmp_path: Path) -> None:
    made_animation(tmp_path).save(tmp_path / "made.npz", dense=False)
    command = ["render", str(tmp_path / "made.npz"), "-o", str(tmp_path), "--to", "png", "--size", "64", "--fps", "5"]
    assert main(command) == 0
    assert len(list((tmp_path / "made_png").glob("*.png"))) == 5


def test_inputs_may_be_folders_and_patterns(inputs: list[Path], tmp_path: Path) -> None:
    assert expand_inputs([str(tmp_path)], (".txt",)) == inputs
    assert expand_inputs([str(tmp_path / "in0[12].txt"), str(inputs[1])]) == inputs[1:3]
    odd = tmp_path / "a[1].txt"
    odd.write_text("")
    assert expand_inputs([str(odd)]) == [odd]


def test_errors_of_all_inputs_are_raised_before_the_work(inputs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no files found"):
        run_batch([], tmp_path, Copying())
    twin = inputs[0].with_suffix(".wav")
    twin.write_text("")
    with pytest.raises(SEDTalkerError, match=r"two inputs of the same name: \S+in00.txt and \S+in00.wav"):
        run_batch([inputs[0], twin], tmp_path / "out", Copying())
    with pytest.raises(SEDTalkerError, match="cannot write"):
        run_batch(inputs, inputs[0] / "out", Copying())


@pytest.fixture
def sessions(tmp_path: Path) -> list[Path]:
    """Recordings of two days, two of which have the same name."""
    paths = [tmp_path / "in" / name for name in ("day 1/a.txt", "day 1/b.txt", "day 2/b.txt")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {path.parent.name} {path.stem}")
    return paths


@pytest.mark.parametrize("jobs", [1, 2])
def test_inputs_of_the_same_name_keep_their_folders(sessions: list[Path], tmp_path: Path, jobs: int) -> None:
    out = tmp_path / "out"
    assert run_batch(sessions, out, Copying(), BatchConfig(jobs=jobs)) == 0
    results = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.one"))
    assert results == ["day 1/a.one", "day 1/b.one", "day 2/b.one"]
    assert (out / "day 2" / "b.one").read_text() == "TEXT OF DAY 2 B"
    report = json.loads((out / REPORT).read_text())
    assert report["files"][2]["made"] == [str(out / "day 2" / "b.one"), str(out / "day 2" / "b.two")] or jobs > 1
    (out / "day 2" / "b.two").unlink()
    assert run_batch(sessions, out, Copying(), BatchConfig(jobs=jobs, resume=True)) == 0
    assert len(log_of(out / "day 1")) == 2 and len(log_of(out / "day 2")) == 2
    assert run_batch(sessions[:2], tmp_path / "flat", Copying()) == 0
    assert sorted(path.name for path in (tmp_path / "flat").glob("*.one")) == ["a.one", "b.one"]


def test_a_failure_leaves_no_empty_subfolder(sessions: list[Path], tmp_path: Path) -> None:
    sessions[2].write_text("broken")
    assert run_batch(sessions, tmp_path / "out", Copying()) == 1
    assert (tmp_path / "out" / "day 1").exists() and not (tmp_path / "out" / "day 2").exists()


def test_a_table_of_speakers_tells_inputs_of_the_same_name_apart(sessions: list[Path], tmp_path: Path) -> None:
    table, out = tmp_path / "speakers.csv", tmp_path / "out"
    table.write_text("file,speaker\nday 1/a.wav,anna\nday 1/b.wav,ben\nday 2/b.wav,carl\n")
    jobs = batch._make_jobs(sessions, out, Copying())  # type: ignore[arg-type]
    assert [*batch._speakers(jobs, out, str(table)).values()] == ["anna", "ben", "carl"]
    table.write_text("file,speaker\na,anna\nb,ben\n")
    with pytest.raises(DataError, match="recordings without a row: day 1/a, day 1/b, day 2/b"):
        batch._speakers(jobs, out, str(table))


def test_files_that_are_found_by_a_name_cannot_serve_two_inputs(sessions: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SEDTalkerError, match="of the same name for --captions"):
        run_batch(sessions, tmp_path / "out", RenderOptions(captions=tmp_path))


@pytest.mark.parametrize("name", ["IN00", "e\u0301"])
def test_names_that_differ_in_case_alone_are_the_same_where_the_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    twins = [tmp_path / "a" / f"{name}.txt", tmp_path / "b" / f"{unicodedata.normalize('NFC', name).lower()}.txt"]
    for twin in twins:
        twin.parent.mkdir()
        twin.write_text("")
    monkeypatch.setattr(batch, "_ignores_case", lambda folder: True)
    assert run_batch(twins, tmp_path / "out", Copying()) == 0
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.one")} == {"a", "b"}
    monkeypatch.undo()
    if not (tmp_path / "A").exists():
        assert not batch._ignores_case(tmp_path / "new" / "out")
        assert run_batch(twins, tmp_path / "flat", Copying()) == 0
        assert len([*(tmp_path / "flat").glob("*.one")]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
@pytest.mark.parametrize(("name", "reason"), [(b"\xff.txt", "not UTF-8"), (b"x" * 240 + b".txt", "too long")])
def test_inputs_whose_results_cannot_be_named_fail_before_the_work(
    inputs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: bytes, reason: str
) -> None:
    odd = inputs[0].with_name(os.fsdecode(name))
    odd.write_text("")
    assert run_batch([odd, inputs[1]], tmp_path / "out", Copying()) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "name" in line]
    assert reason in line and "Rename the file" in line
    assert [path.name for path in (tmp_path / "out").glob("*.one")] == [f"{inputs[1].stem}.one"]


@pytest.mark.skipif(sys.platform == "win32", reason="names with line breaks")
def test_a_line_break_in_a_name_does_not_break_the_line_of_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\nb.wav"
    path.write_bytes(b"RIFF")
    for name in (path, tmp_path / "c\nd.wav"):
        assert main(["diarize", str(name), "-o", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_name_that_is_too_long_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(SEDTalkerError, match=r"cannot write .*too long"), atomic_write(tmp_path / ("x" * 250)) as path:
        path.write_text("")


def test_a_failure_removes_only_new_empty_folders(inputs: list[Path], tmp_path: Path) -> None:
    inputs[0].write_text("broken")
    output = tmp_path / "deep" / "out"
    assert run_batch(inputs[:1], output, Copying()) == 1
    assert not output.parent.exists()
    output.mkdir(parents=True)
    assert run_batch(inputs[:1], output, Copying()) == 1
    assert output.is_dir()
