"""The command line in real processes with real files; every mistake gives a one-line error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

import sedtalker
from sedtalker.render.animation_video import render_frames


def assert_refused(result, code: int, *words: str) -> None:
    """One line on stderr that holds `words`, the exit code, and no traceback."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0]


def seconds_of(path: Path) -> tuple[float, float, int]:
    """Seconds of picture, seconds of sound and the number of frames, counted by decoding."""
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        rate = float(container.streams.video[0].average_rate)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        sound = min(samples / stream.rate, float(stream.duration * stream.time_base))
    return frames / rate, sound, frames


@pytest.fixture(scope="module")
def animated(tmp_path_factory: pytest.TempPathFactory, speech_file: Path) -> Path:
    """The folder of one whole run of `sedtalker animate` on a real recording."""
    folder = tmp_path_factory.mktemp("animated")
    done = subprocess.run(
        [sys.executable, "-m", "sedtalker", "animate", str(speech_file), "-o", str(folder / "out")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_animate_writes_the_three_files_of_the_contract(animated: Path, speech_file: Path) -> None:
    stem = speech_file.stem
    assert sorted(file.name for file in animated.iterdir()) == [f"{stem}.emotion.json", f"{stem}.mp4", f"{stem}.npz"]
    picture, sound, frames = seconds_of(animated / f"{stem}.mp4")
    seconds = 30_966 / 16_000
    assert abs(picture - seconds) <= 0.5 / 30 and abs(sound - seconds) <= 0.5 / 30
    with np.load(animated / f"{stem}.npz", allow_pickle=False) as stored:
        assert stored["vertices"].shape[0] == frames == stored["blendshapes"].shape[0]
        assert stored["blendshapes"].shape[1] == 52 and stored["head"].shape == (frames, 4, 4)
        assert json.loads(str(stored["meta"]))["audio"] == str(speech_file)
    track = json.loads((animated / f"{stem}.emotion.json").read_text())
    assert track["version"] == 1 and track["frame_rate"] == 50 and track["segments"]
    assert len(track["frames"]["posterior"]) == len(track["frames"]["intensity"]) == 97


def test_the_video_shows_the_frames_of_the_animation_at_their_times(animated: Path, speech_file: Path) -> None:
    """Of all decoded frames, the one at an index is the most similar to the animation's frame with this index."""
    with av.open(str(animated / f"{speech_file.stem}.mp4")) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    animation = sedtalker.load_animation(animated / f"{speech_file.stem}.npz")
    for index in (10, 30, 50):
        (expected,) = render_frames(animation, start=index, stop=index + 1)
        differences = np.array([np.abs(frame[:512].astype(int) - expected).mean() for frame in frames])
        assert differences.argmin() == index
        assert differences[index] < 3 < differences.max()  # compression, and another pose


def test_an_edited_segment_changes_only_its_span(run_cli, animated: Path, speech_file: Path, tmp_path: Path) -> None:
    track = json.loads((animated / f"{speech_file.stem}.emotion.json").read_text())
    edited = {**track, "segments": [{"start": 1.0, "end": 1.5, "emotion": "sad", "intensity": 1.0}]}
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    for name, emotion in (("plain", f"{animated}/{speech_file.stem}.emotion.json"), ("changed", "edited.json")):
        run = run_cli(
            "animate", speech_file, "-o", name, "--emotion", emotion, "--no-video", "--still", "--export", "npz"
        )
        assert run.returncode == 0, run.stderr
    plain, changed = (
        sedtalker.load_animation(tmp_path / name / f"{speech_file.stem}.npz") for name in ("plain", "changed")
    )
    moved = np.abs(plain.blendshapes - changed.blendshapes).max(axis=1)
    assert moved[:20].max() < 0.02  # up to 0.67 s
    assert moved[36:42].max() > 0.1


def test_render_and_export_read_the_animation(run_cli, animated: Path, speech_file: Path, tmp_path: Path) -> None:
    animation = animated / f"{speech_file.stem}.npz"
    run = run_cli("render", animation, "-o", "again", "--size", "128", "--audio", speech_file)
    assert run.returncode == 0, run.stderr
    assert seconds_of(tmp_path / "again" / f"{speech_file.stem}.mp4")[2] == len(sedtalker.load_animation(animation))
    run = run_cli("export", animation, "--to", "csv", "-o", "weights.csv")
    assert run.returncode == 0 and (tmp_path / "weights.csv").read_text().startswith("Timecode,")


def test_render_writes_pictures_and_other_heads(run_cli, animated: Path, speech_file: Path, tmp_path: Path) -> None:
    stem, animation = speech_file.stem, animated / f"{speech_file.stem}.npz"
    made = ("--to", "gif,png,sheet,poster", "--size", "96", "--face", "man", "--background", "204060")
    run = run_cli("render", animation, "-o", "pictures", *made)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "pictures"
    assert {file.name for file in folder.iterdir()} == {
        f"{stem}.gif",
        f"{stem}_png",
        f"{stem}.sheet.png",
        f"{stem}.poster.png",
    }
    assert len(list((folder / f"{stem}_png").iterdir())) == 58
    poster = np.asarray(Image.open(folder / f"{stem}.poster.png"))
    assert poster.shape == (96, 96, 3) and np.abs(poster[2, 2].astype(int) - (0x20, 0x40, 0x60)).max() <= 2
    assert_refused(
        run_cli("render", animation, "-o", "glass", "--background", "transparent"),
        1,
        "transparent does not work with mp4",
    )
    run = run_cli("render", animation, "-o", "glass", "--size", "96", "--background", "transparent", "--to", "poster")
    assert run.returncode == 0, run.stderr
    alpha = np.asarray(Image.open(tmp_path / "glass" / f"{stem}.poster.png"))[..., 3]
    assert alpha[2, 2] == 0 and alpha[48, 48] == 255


def test_render_uses_the_texture_option(run_cli, animated: Path, speech_file: Path, tmp_path: Path) -> None:
    animation = animated / f"{speech_file.stem}.npz"
    Image.new("RGB", (32, 32), (40, 200, 60)).save(tmp_path / "green.png")
    run = run_cli("render", animation, "-o", "skin", "--size", "96", "--to", "poster", "--texture", "green.png")
    assert run.returncode == 0, run.stderr
    red, green, _ = np.asarray(Image.open(tmp_path / "skin" / f"{speech_file.stem}.poster.png"))[40, 48].astype(int)
    assert green > 1.5 * red
    assert_refused(run_cli("animate", speech_file, "--texture", "no.png"), 1, "no picture for a skin: no.png")


@pytest.mark.parametrize("formats", ["json,rttm,csv,textgrid"])
def test_diarize_writes_every_format(run_cli, speech_file: Path, tmp_path: Path, formats: str) -> None:
    run = run_cli("diarize", speech_file, "-o", "tracks", "--format", formats)
    assert run.returncode == 0, run.stderr
    written = {file.name.removeprefix(speech_file.stem) for file in (tmp_path / "tracks").iterdir()}
    assert written == {".emotion.json", ".rttm", ".emotion.csv", ".TextGrid"}


BAD_AUDIO = {
    "empty": b"",
    "text": b"this is no sound\n" * 20,
    "header": b"RIFF\x00\x00\x00\x00WAVEfmt ",
}


@pytest.mark.parametrize("content", BAD_AUDIO.values(), ids=BAD_AUDIO.keys())
def test_files_without_audio_are_refused(run_cli, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert_refused(run_cli("animate", "a.wav", "-o", "out"), 1, "a.wav")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["none", "one", "nan"])
def test_empty_and_nan_samples_are_refused(run_cli, tmp_path: Path, kind: str) -> None:
    samples = {"none": np.zeros(0), "one": np.zeros(1), "nan": np.full(16_000, np.nan)}[kind]
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    assert_refused(run_cli("animate", "a.wav", "-o", "out"), 1, "a.wav")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_an_empty_folder(run_cli, tmp_path: Path) -> None:
    assert_refused(run_cli("animate", "absent.wav"), 1, "absent.wav")
    (tmp_path / "nothing").mkdir()
    assert_refused(run_cli("animate", "nothing"), 1, "no files found")


@pytest.mark.parametrize(
    "options",
    [
        ("--emotion", "grumpy"),
        ("--emotion", "happy:2"),
        ("--fps", "0"),
        ("--export", "docx"),
        ("--seed", "x"),
        ("--nonsense",),
        ("-o", "talk.mp4"),
        ("-o", "talk.gif"),
    ],
)
def test_wrong_usage_is_code_2_and_one_line(
    run_cli, speech_file: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert_refused(run_cli("animate", speech_file, "-o", "out", *options), 2)
    assert not (tmp_path / "out").exists()


def test_a_track_that_ends_beyond_the_audio(run_cli, speech_file: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        json.dumps({"version": 1, "segments": [{"start": 0, "end": 60, "emotion": "sad"}]})
    )
    assert_refused(run_cli("animate", speech_file, "-o", "out", "--emotion", "t.json"), 1, "beyond the audio")
    assert not (tmp_path / "out").exists()
    assert_refused(run_cli("animate", speech_file, "-o", "out", "--emotion", "happy:0.5@1-60"), 1, "beyond the audio")


def test_a_folder_that_cannot_be_written(run_cli, speech_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(run_cli("animate", speech_file, "-o", "file"), 1, "cannot write")


def test_two_inputs_of_the_same_name_are_refused_before_the_work(run_cli, speech_file: Path, tmp_path: Path) -> None:
    for name in ("x.opus", "x.ogg"):
        shutil.copy(speech_file, tmp_path / name)
    assert_refused(run_cli("animate", "x.opus", "x.ogg", "-o", "out"), 1, "two inputs of the same name")


def test_a_broken_file_does_not_stop_the_others(run_cli, speech_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.wav").write_bytes(b"no sound")
    shutil.copy(speech_file, tmp_path / "in" / "good one.opus")
    run = run_cli("animate", "in", "-o", "out", "--no-video", "--export", "json")
    assert run.returncode == 1 and (tmp_path / "out" / "good one.emotion.json").exists()
    assert run.stderr.strip().splitlines()[-1] == "sedtalker: 1 of 2 files failed"


def test_doctor_reports_that_animate_works(run_cli) -> None:
    run = run_cli("doctor")
    assert run.returncode == 0, run.stdout
    assert "sedtalker animate works here" in run.stdout
    for name in ("torch", "soft renderer", "libx264", "weights", "CUDA", "mamba-ssm", "pyrender"):
        assert name in run.stdout


def test_licences_name_every_asset(run_cli) -> None:
    entries = json.loads(run_cli("licences", "--json").stdout)
    text = json.dumps(entries)
    for name in ("Whisper", "MakeHuman", "CREMA-D", "RAVDESS", "MIT", "CC0", "ODbL"):
        assert name in text
    assert {entry["kind"] for entry in entries} >= {"code", "weights", "data", "face", "sound"}
    assert run_cli("licences").returncode == 0


def test_each_input_takes_its_own_segments_of_a_track_of_several_recordings(
    tmp_path: Path, run_cli, speech_file: Path
) -> None:
    for name in ("first", "second"):
        shutil.copy(speech_file, tmp_path / f"{name}.opus")
    rows = [
        f"SPEAKER {name} 1 0 1 <NA> <NA> {emotion} <NA> <NA>"
        for name, emotion in (("first", "happy"), ("second", "angry"), ("third", "sad"))
    ]
    (tmp_path / "all.rttm").write_text("\n".join(rows))
    ran = run_cli("animate", "first.opus", "second.opus", "--emotion", "all.rttm", "--no-video", "-o", "out")
    assert ran.returncode == 0, ran.stderr
    for name, emotion in (("first", "happy"), ("second", "angry")):
        track = json.loads((tmp_path / "out" / f"{name}.emotion.json").read_text())
        assert {segment["emotion"] for segment in track["segments"]} <= {emotion, "neutral"}
        assert emotion in {segment["emotion"] for segment in track["segments"]}
