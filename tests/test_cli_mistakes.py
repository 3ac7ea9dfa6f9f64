"""Mistakes on the command line that are refused before the work: wrong paths, and options without effect."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_animation import made_animation

from sedtalker.cli.main import main
from sedtalker.errors import SEDTalkerError, reason_of
from sedtalker.files import atomic_write


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animation")
    made_animation(folder, 0.2).save(folder / "clip.npz")
    return folder / "clip.npz"


@pytest.fixture
def clip(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an animation in the current folder."""
    shutil.copy(saved, tmp_path)
    monkeypatch.chdir(tmp_path)
    return saved.name


def run(*arguments: str) -> int:
    """The exit code of the command, also where argparse exits."""
    try:
        return main(arguments)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code


@pytest.mark.parametrize(
    "arguments",
    [
        ("animate", ""),
        ("render", "clip.npz", ""),
        ("diarize", "clip.npz", "-o", ""),
        ("voice", "enroll", "", "-o", "voice.safetensors"),
        ("export", "clip.npz", "--to", "csv", "-o", ""),
        ("verify", ""),
        ("data", "check", ""),
        ("evaluate", "talker", "", "truth"),
    ],
)
def test_an_empty_path_is_refused_and_is_not_the_current_folder(
    clip: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "an empty " in line and [path.name for path in Path().iterdir()] == [clip]


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "clip.npz", "--to", "npy", "-o", "clip.npz"),
        ("export", "clip.npz", "--to", "glb", "--into", "own.glb", "-o", "./own.glb"),
        ("evaluate", "papers", "own.json", "-o", "own.json"),
        ("evaluate", "diarization", "own.json", "clip.npz", "-o", "own.json"),
        ("voice", "enroll", "own.safetensors", "-o", "link.safetensors"),
        ("critique", "own.png", "--plot", "own.png"),
    ],
)
def test_an_output_does_not_replace_an_input(
    clip: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    for name in ("own.glb", "own.json", "own.safetensors", "own.png"):
        Path(name).write_text("mine")
    Path("link.safetensors").symlink_to("own.safetensors")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert run(*arguments) == 2
    assert "would replace an input" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_pipes_and_devices_are_not_replaced(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As root, a rename would replace /dev/null by a file."""
    os.mkfifo("pipe.csv")
    assert run("export", clip, "--to", "csv", "-o", "pipe.csv") == 1
    assert "it is a pipe or device" in capsys.readouterr().err
    assert Path("pipe.csv").is_fifo()


def test_a_folder_as_the_path_of_an_export_gets_a_file_named_as_the_animation(clip: str) -> None:
    Path("there").mkdir()
    for folder in ("there", "new/"):
        assert run("export", clip, "--to", "csv", "-o", folder) == 0
        assert [path.name for path in Path(folder).iterdir()] == ["clip.csv"]
    assert run("export", clip, "--to", "ply", "-o", "meshes") == 0
    assert len([*Path("meshes").glob("*.ply")]) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "clip.npz", "--to", "csv", "-o", "a.json"), "End it in .csv"),
        (("evaluate", "motion", "clip.npz", "-o", "a.md"), "does not end in .json"),
        (("evaluate", "talker", "a", "b", "-o", "a.txt"), "does not end in .json or .md or .html"),
        (("critique", "clip.npz", "--plot", "a.doc"), "does not end in .png or .svg or .pdf"),
        (("animate", "https://example.org/a.wav"), "Download it"),
        (("export", "clip.npz", "clip.npz", "--to", "csv"), "See: sedtalker export --help"),
        (("animate", "a.wav", "--size", "²"), "'²' is not an integer"),
        (("evaluate", "papers", "absent.json"), "(No such file or directory)"),
        (("animate", "-voice.wav"), "Write ./-voice.wav"),
        (("verify", "."), "a folder, not a file"),
        (("critique", "."), "a folder, not a file"),
        (("export", ".", "--to", "csv"), "a folder, not an animation"),
        (("data", "prepare", "ravdess", ".", "-o", "made"), "End it in .json"),
        (("data", "check", "clip.npz"), "not a folder: clip.npz"),
    ],
)
def test_mistakes_that_are_refused_before_the_work(
    clip: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    Path("-voice.wav").write_bytes(b"RIFF")
    assert run(*arguments) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and sorted(path.name for path in Path().iterdir()) == ["-voice.wav", clip]


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "synthesize", "-o", "made", "--identities", "man"),
        ("data", "synthesize", "-o", "made", "--spoken", "speech", "--subjects", "2"),
        ("data", "synthesize", "-o", "made", "--to", "store", "--spoken", "speech", "--seconds", "3"),
        ("data", "synthesize", "-o", "made", "--to", "store"),
        ("data", "synthesize", "-o", "made", "--to", "store", "--spoken", "speech", "--phones", "phones.tsv"),
        ("data", "synthesize", "-o", "made", "--spoken", "speech", "--phones", "phones.tsv"),
        ("data", "prepare", "ravdess", "speech", "-o", "m.json", "--encoder", "none"),
        ("evaluate", "diarizer", "m.json", "--left-out", "ravdess=model", "--noise", "10"),
        ("evaluate", "diarizer", "m.json", "--protocol", "emobox", "--most", "3"),
        ("evaluate", "diarizer", "m.json", "--features", "cache"),
        ("evaluate", "diarizer", "--ordinary", "speech", "--noise", "10"),
        ("evaluate", "talker", "a", "b", "--face", "man"),
        ("evaluate", "motion", "clip.npz", "--look-ahead", "80"),
        ("evaluate", "motion", "clip.npz", "--tracked", "lips"),
        ("evaluate", "expression", "clip.wav", "--most", "3"),
        ("evaluate", "expression", "--chain", "m.json", "--ravdess", "RAVDESS"),
        ("evaluate", "live", "--tracked", "lips", "--split", "train"),
        ("critique", "clip.npz", "--intensity", "0.5"),
    ],
)
def test_options_without_effect_are_refused(
    clip: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no effect" in line or "no speech for --to store" in line


def test_a_damaged_manifest_is_named_as_the_problem_of_a_store(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("manifest.json").write_text("{")
    assert run("data", "check", ".") == 1
    assert "not a manifest: manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"), [("file/a.txt", "a file has the name of the folder"), ("folder", "a folder has its name")]
)
def test_the_reason_names_the_file_or_folder_in_the_path(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SEDTalkerError, match=f"cannot write .*: {reason}"), atomic_write(tmp_path / name) as path:
        path.write_text("")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.json"), "No such file or directory"),
        (KeyError("version"), "without 'version'"),
        (ValueError("two\n  lines"), "two lines"),
        (IndexError(), "IndexError"),
    ],
)
def test_the_reason_of_an_error_is_readable_in_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_an_unexpected_error_is_one_line_without_debug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("sedtalker.provenance.verify.verify_file", fail)
    assert run("verify", "a.png") == 1
    assert capsys.readouterr().err == "sedtalker: unexpected ZeroDivisionError (division by zero). Run with --debug\n"
    with pytest.raises(ZeroDivisionError):
        run("verify", "--debug", "a.png")


def test_an_error_of_the_file_system_names_the_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(30, "Read-only file system", "made\n/a")

    monkeypatch.setattr("sedtalker.provenance.verify.verify_file", fail)
    assert run("verify", "a.png") == 1
    assert capsys.readouterr().err == (
        "sedtalker: Read-only file system: made\\n/a. Check the path, its permissions and the free space\n"
    )


def test_control_characters_of_a_file_name_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "a\x1b[2J\x07\u2028\x85b.png") == 1
    assert r"a\x1b[2J\x07\u2028\x85b.png" in capsys.readouterr().err


def test_a_store_without_phones_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("model", "store"):
        (tmp_path / name).mkdir()
    assert run("evaluate", "motion", str(tmp_path / "model"), str(tmp_path / "store")) == 2
    assert "no phones.tsv in the store" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_behind_the_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sedtalker", "licences"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["sedtalker: unexpected OSError (No space left on device). Run with --debug"]


def test_the_choices_of_options_are_those_of_the_library() -> None:
    """They are written again where importing the library would take seconds."""
    from sedtalker.cli import data, diarize, evaluate, options
    from sedtalker.data.vertex_corpora.registry import CORPORA
    from sedtalker.emotion.track_io import TRACK_SUFFIXES
    from sedtalker.evaluation.systems import BASELINES
    from sedtalker.streaming_encoder import LOOK_AHEAD
    from sedtalker.task_options import TRACK_ENDINGS

    assert evaluate.BASELINES == BASELINES
    assert data.CORPORA == CORPORA
    assert tuple(TRACK_ENDINGS) == diarize.FORMATS
    assert set(options.TRACKS) == set(TRACK_SUFFIXES)
    assert tuple(LOOK_AHEAD) == options.LOOK_AHEADS
