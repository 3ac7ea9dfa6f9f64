"""Selection of input files in folders and patterns."""

from __future__ import annotations

import json
import os
import wave
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from made_animation import made_animation
from vertex_corpora import own_folder

from sedtalker.audio import load_audio
from sedtalker.data.vertex_corpora.own import read_own
from sedtalker.errors import SEDTalkerWarning
from sedtalker.export import export_sound
from sedtalker.files import RECORDS_FOLDER, sha256
from sedtalker.inputs import expand_inputs
from sedtalker.render.video import write_video

RATE = 16_000


def write_sound(path: Path, codec: str = "pcm_s16le", form: str | None = None) -> Path:
    """Half a second of a tone, in any container."""
    rate = 48_000 if codec == "libopus" else RATE
    samples = (np.sin(np.arange(rate // 2) * 0.1) * 8000).astype(np.int16)
    with path.open("wb") as file, av.open(file, "w", format=form or path.suffix[1:]) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sound(tmp_path / "one.wav")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("note.oga", "libopus", "ogg"),
        ("note.weba", "libopus", "webm"),
        ("note.3gp", "aac", "3gp"),
        ("note.caf", "pcm_s16le", "caf"),
        ("note.au", "pcm_s16be", "au"),
        ("note.w64", "pcm_s16le", "w64"),
        ("note.mka", "pcm_s16le", "matroska"),
        ("NOTE", "flac", "flac"),
    ],
)
def test_audio_files_of_a_folder_are_recognised_by_content(folder: Path, name: str, codec: str, form: str) -> None:
    made = write_sound(folder / name, codec, form)
    assert expand_inputs([str(folder)]) == sorted([made, folder / "one.wav"])


def test_a_warning_names_files_without_audio_except_other_kinds(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name in ("one.txt", "one.json", "one.srt", "cover.png", ".hidden.wav", ".one~0123abcd.mp4"):
        (folder / name).write_bytes(b"1\n")
    assert expand_inputs([str(folder)]) == [folder / "one.wav"] and not recwarn.list
    unknown = folder / "unknown.xyz"
    unknown.write_bytes(np.random.default_rng(0).bytes(200_000))
    with pytest.warns(SEDTalkerWarning, match=r"skipped files without audio: \S+unknown.xyz$"):
        assert expand_inputs([str(folder)]) == [folder / "one.wav"]
    for number in range(20):
        (folder / f"{number}.xyz").write_bytes(b"")
    with pytest.warns(SEDTalkerWarning, match="and 16 more"):
        expand_inputs([str(folder)])


def test_a_damaged_recording_is_not_skipped(folder: Path) -> None:
    (folder / "broken.wav").write_bytes(b"RIFF")
    assert expand_inputs([str(folder)]) == [folder / "broken.wav", folder / "one.wav"]


def test_a_folder_named_like_a_recording_is_not_an_input(folder: Path) -> None:
    (folder / "old.wav").mkdir()
    assert expand_inputs([str(folder)]) == [folder / "one.wav"]
    assert expand_inputs([str(folder / "*.wav")]) == [folder / "one.wav"]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_own_videos_are_ignored_unless_they_are_named(folder: Path, suffix: str) -> None:
    frames = [np.zeros((64, 64, 3), np.uint8)] * 25
    video, theirs = folder / f"one{suffix}", folder / f"theirs{suffix}"
    write_video(video, frames, 25, (np.zeros(RATE, np.float32), RATE))
    write_sound(theirs, "aac" if suffix == ".mp4" else "libopus")
    assert expand_inputs([str(folder)]) == [folder / "one.wav", theirs]
    assert expand_inputs([str(folder / "*")]) == [folder / "one.wav", theirs]
    assert expand_inputs([str(video)]) == [video]


def test_own_copies_of_a_recording_are_ignored(tmp_path: Path) -> None:
    recording = write_sound(tmp_path / "made.mp3", "libmp3lame")
    animation = made_animation(tmp_path, audio_name="other.wav")
    (tmp_path / "other.wav").unlink()
    meta = {"audio": str(recording), "audio_sha256": sha256(recording)}
    made = export_sound(replace(animation, meta=meta), "glb", tmp_path / "made.glb")
    assert made == tmp_path / "made.wav" and len(load_audio(made)) >= RATE // 2
    assert expand_inputs([str(tmp_path)]) == [recording]


def test_own_recordings_for_training_are_found_by_content(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "own")
    (folder / "take_01.wav").unlink()
    write_sound(folder / "take_01.oga", "libopus", "ogg")
    source = read_own(folder)
    assert [sequence.sound for sequence in source.sequences] == ["take_01", "take_02", "take_03"] and not source.missing


def test_own_outputs_without_marker_are_recognised_by_their_record(folder: Path) -> None:
    write_sound(folder / "two.mp3", "libmp3lame")
    recording = write_sound(folder / "two.wav")
    record = folder / RECORDS_FOLDER / "two.mp3.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"key": "", "made": {"two.wav": {"aside": "two.wav", "sha256": sha256(recording)}}}))
    assert expand_inputs([str(folder)]) == [folder / "one.wav", folder / "two.mp3"]
    with wave.open(str(recording), "wb") as file:  # a new recording of that name
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(RATE))
    assert recording in expand_inputs([str(folder)])


def test_a_warning_names_subfolders_with_recordings(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "day 2").mkdir()
    write_sound(folder / "day 2" / "two.wav")
    with pytest.warns(SEDTalkerWarning, match=r"not searched: \S+day 2\. Use '\S+\*\*/\*\.wav'") as caught:
        assert expand_inputs([str(folder)]) == [folder / "one.wav"]
    pattern = str(caught[0].message).split("'")[1]
    assert expand_inputs([pattern]) == [folder / "day 2" / "two.wav", folder / "one.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_in_a_subfolder_is_not_opened(folder: Path) -> None:
    (folder / "day 2").mkdir()
    os.mkfifo(folder / "day 2" / "a.wav")
    assert expand_inputs([str(folder)]) == [folder / "one.wav"]


def test_a_folder_of_own_outputs_alone_is_explained(tmp_path: Path) -> None:
    write_video(tmp_path / "own.mp4", [np.zeros((64, 64, 3), np.uint8)] * 25, 25, (np.zeros(RATE, np.float32), RATE))
    with pytest.warns(SEDTalkerWarning, match="skipped outputs of sedtalker"):
        assert expand_inputs([str(tmp_path)]) == []


def test_a_link_to_a_folder_does_not_repeat_its_recordings(folder: Path) -> None:
    (folder / "again").symlink_to(".")
    (folder / "two.wav").symlink_to("one.wav")  # a name of its own
    wanted = sorted(folder.glob("*.wav"))
    assert expand_inputs([str(folder / "**" / "*.wav"), str(folder / "again" / "one.wav")]) == wanted


def test_broken_links_to_recordings_stay_inputs(folder: Path) -> None:
    (folder / "two.wav").symlink_to(folder / "moved.wav")
    assert expand_inputs([str(folder)]) == [folder / "one.wav", folder / "two.wav"]
    assert expand_inputs([str(folder / "*.wav")]) == [folder / "one.wav", folder / "two.wav"]


def test_unusable_names_stay_inputs(tmp_path: Path) -> None:
    long = "x" * 300
    assert expand_inputs([long, f"{long}*"]) == [Path(long), Path(f"{long}*")]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_listed_stays_an_input(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o000)
    assert expand_inputs([str(locked)]) == [locked]
