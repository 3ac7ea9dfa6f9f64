"""Speech with known phones becomes talking heads in EmoVOCA's layout, and the talker's store, on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import load_audio, write_wav
from sedtalker.cli.main import main
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.data.rig_store import read_rig_manifest
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.errors import DataError
from sedtalker.face.assets import load_face
from sedtalker.phones import Phone, read_phones, write_phones
from sedtalker.synthesis.aligned_speech import read_spoken_folder
from sedtalker.synthesis.rig_clips import StoreSources, build_clips
from sedtalker.synthesis.talking_heads import assign_subjects, synthesize_talking_heads
from sedtalker.talker.lip_opening import load_lip_opening
from sedtalker.talker.model import load_talker_model

REPOSITORY = Path(__file__).parents[1]
SAID = tuple(
    Phone("word", name, start, end)
    for name, start, end in (("SIL", 0, 0.3), ("AA", 0.3, 0.5), ("M", 0.5, 0.6), ("AA", 0.6, 0.8), ("SIL", 0.8, 1.0))
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers of one sentence each."""
    folder = tmp_path_factory.mktemp("spoken")
    rows = ["id\tspeaker\ttext"]
    for number in range(6):
        sound = 0.1 * np.sin(np.arange(16_000) * (0.05 + 0.01 * number)).astype(np.float32)
        sound[:4_800] = sound[12_800:] = 0
        write_wav(folder / "audio" / f"u{number}.wav", [sound])
        rows.append(f"u{number}\tvoice{number}\tama")
    (folder / "utterances.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_phones(folder / "phones.tsv", {f"u{number}": SAID for number in range(6)})
    return folder


def test_speakers_are_held_out(spoken: Path):
    sides = {item.speaker: item.split for item in read_spoken_folder(spoken)}
    assert sorted(sides.values()) == ["test", "test", "train", "train", "validation", "validation"]
    subjects = assign_subjects(read_spoken_folder(spoken), [load_face()], sentences=4)
    assert len({subject.name for subject in subjects}) == 6


def test_the_corpus_is_prepared_like_emovoca(spoken: Path, tmp_path: Path):
    made = ["--spoken", str(spoken), "--identities", "default", "man", "--fps", "25", "--most", "2"]
    assert main(["data", "synthesize", "-o", str(tmp_path), *made]) == 0
    found = read_emovoca(tmp_path)
    assert len(found.sequences) == 2 * 6 * 3 and not found.refused
    root, name = tmp_path / "New_EmoVOCA", found.sequences[0].id
    vertices = np.load(root / "sequences" / f"{name}.npy")
    assert vertices.shape[0] == round(25 * len(load_audio(root / "wav" / f"{name}.wav")) / 16_000)
    assert main(["data", "prepare", "emovoca", str(tmp_path), "-o", str(tmp_path / "store"), "--encoder", "none"]) == 0


def test_heads_move_with_speech_and_expression(spoken: Path, tmp_path: Path):
    main(["data", "synthesize", "-o", str(tmp_path), "--spoken", str(spoken), "--identities", "default", "--most", "1"])
    face, root = load_face(), tmp_path / "New_EmoVOCA" / "sequences"
    calm, happy = (np.load(next(root.glob(f"*_{name}.npy"))) for name in ("Smile2_1", "Smile2_3"))
    upper, lower = face.lip_pairs[len(face.lip_pairs) // 2]
    gap = happy[:, upper, 1] - happy[:, lower, 1]
    assert gap[12:15].max() > 5 * max(gap[16], 1e-4)  # /aa/ at 0.4 to 0.5 s, /m/ at 0.55
    corner = face.landmarks["mouth_left"]
    assert happy[2, corner, 1] > calm[2, corner, 1] + 1e-3  # a smile before the words


def test_the_store_comes_with_features_and_phones(spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = tmp_path / "store"
    monkeypatch.chdir(tmp_path)  # it is named from here, and read from anywhere
    made = ["--to", "store", "--spoken", os.path.relpath(spoken), "--most", "4"]
    assert main(["data", "synthesize", "-o", "store", *made]) == 0
    monkeypatch.chdir("/")
    assert all(Path(clip.audio).is_file() for clip in read_rig_manifest(store).clips)
    clips = json.loads((store / "manifest.json").read_text())["clips"]
    assert {clip["source"] for clip in clips} == {"foreign", "tts", "tts-voices"}
    assert all((store / "features" / f"{clip['id']}.npy").is_file() for clip in clips)
    assert (store / "phones.tsv").is_file()


@pytest.fixture
def grid(spoken: Path, tmp_path: Path) -> Path:
    """One training sentence in GRID's layout, named as in GRID, with the audio of a voice of `spoken`."""
    folder = tmp_path / "grid"
    write_wav(folder / "s1" / "bbaf3s.opus", [load_audio(spoken / "audio" / "u0.wav")])
    np.savez(folder / "s1" / "bbaf3s.npz", lip_gap=np.full(25, 0.1), lip_width=np.full(25, 0.6), fps=np.float32(25))
    (folder / "s1_words.tsv").write_text("id\tword\tstart\tend\nbbaf3s\tbin\t0.3\t0.8\n", encoding="utf-8")
    return folder


def test_a_store_holds_acted_speech_and_tracked_faces(spoken: Path, grid: Path, tmp_path: Path):
    store = tmp_path / "store"
    acted = Utterance("acted/a", "audio/u1.wav", "acted", "acted-1", "female", "en", "happy", 0.5, transcript="ama")
    Manifest(str(spoken), [acted]).save(tmp_path / "manifest.json")
    write_phones(tmp_path / "phones.tsv", {"acted/a": SAID, "grid/bbaf3s": SAID})
    sources = StoreSources(grid=grid, manifest=tmp_path / "manifest.json", tables=(tmp_path / "phones.tsv",))
    clips = {clip.id: clip.source for clip in build_clips(store, sources, limit=1)}
    assert {"acted_a": "acted", "acted_a_voice0": "acted-voices", "grid_bbaf3s": "grid"}.items() <= clips.items()
    assert clips["grid_bbaf3s_voice0"] == "grid-voices"
    with np.load(store / "clips" / "acted_a.npz") as arrays:
        assert arrays["intensity"].max() > 0
    with np.load(store / "clips" / "grid_bbaf3s.npz") as arrays:
        marked = np.flatnonzero(arrays["closed"])
        assert ((marked >= 25) & (marked < 30)).all() and len(marked)  # its /m/, from 0.5 to 0.6 s
    assert set(read_phones(store / "phones.tsv")) == {"acted/a", "grid/bbaf3s"}


@pytest.mark.slow
def test_the_default_talker_is_made_by_one_command(spoken: Path, grid: Path, tmp_path: Path):
    pytest.importorskip("lightning")
    facegood, acted = tmp_path / "facegood", tmp_path / "CREMA-D" / "AudioWAV"
    sound = load_audio(spoken / "audio" / "u1.wav")
    write_wav(facegood / "1114_2_01.opus", [sound])
    np.savez(facegood / "1114_2_01.npz", weights=np.full((30, 52), 0.1), fps=np.float32(30))
    write_wav(acted / "1001_IEO_NEU_XX.wav", [sound])
    (acted.parent / "processedResults").mkdir()
    (acted.parent / "processedResults" / "summaryTable.csv").write_text("FileName,VoiceVote,VoiceLevel\n")
    (acted.parent / "VideoDemographics.csv").write_text("ActorID,Sex\n1001,Male\n")
    write_phones(tmp_path / "phones.tsv", {"crema-d/1001_IEO_NEU_XX": SAID, "grid/bbaf3s": SAID})
    work = tmp_path / "work"
    small = ["model.width=16", "model.order=[mamba]", "steps=8", "validate_every=4", "warmup=4", "pictures=false"]
    command = [
        sys.executable, "-m", "sedtalker.recipes", "default_talker", "--spoken", spoken, "--grid", grid, "--facegood",
        facegood, "--crema-d", acted.parent, "--phones", tmp_path / "phones.tsv", "--most", "6", "-o", work,
        "--teacher-steps", "4",
        "--configurations", REPOSITORY / "configs" / "talker", "--", *small,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    openings = {path.stem for path in (work / "store" / "openings").iterdir()}
    made = [
        clip
        for clip in read_rig_manifest(work / "store").clips
        if not clip.source.startswith(("grid", "facegood", "foreign"))
    ]
    assert openings == {clip.id for clip in made if clip.split != "test"}
    assert openings >= {"crema-d_1001_IEO_NEU_XX"} and not any(name.startswith("grid") for name in openings)
    folders = {path.name for path in (work / "store").glob("features*")}
    assert folders == {"features", "features-80", "features-120", "features-200"}
    first, talker = (load_talker_model(work / name / "model") for name in ("first", "talker"))
    assert talker.config.encoder == "whisper-tiny.en-streaming"
    assert talker.config.opening_width and replace(talker.config, opening_width=0) == first.config
    assert any((x != y).any() for x, y in zip(first.stack.parameters(), talker.stack.parameters(), strict=True))
    assert talker.opening is not None
    teacher = load_lip_opening(work / "store" / "opening-network")
    assert all((x == talker.opening.state_dict()[name]).all() for name, x in teacher.state_dict().items())
    written = {path: path.stat().st_mtime_ns for path in work.glob("*/model/*")}
    subprocess.run(command, check=True)  # nothing is left to train
    assert {path: path.stat().st_mtime_ns for path in work.glob("*/model/*")} == written


def test_an_existing_folder_is_refused_before_speech_is_read(tmp_path: Path):
    (tmp_path / "New_EmoVOCA").mkdir()
    with pytest.raises(DataError, match="the folder exists"):
        synthesize_talking_heads(tmp_path, speech=tmp_path / "absent.json")
