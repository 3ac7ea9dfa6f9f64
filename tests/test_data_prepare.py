"""Preparation of every layout into a store: found, missing and refused sequences, and the contents of the store."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import vertex_corpora as made

from sedtalker.audio import load_audio
from sedtalker.data.features import cache_store_features
from sedtalker.data.prepare import PrepareOptions, check_source, check_store, prepare
from sedtalker.data.vertex_corpora.biwi import read_biwi
from sedtalker.data.vertex_corpora.emovoca import EXPRESSIONS, emotion_of, parse_name, read_emovoca
from sedtalker.data.vertex_corpora.own import read_own
from sedtalker.data.vertex_corpora.sequences import UNUSED
from sedtalker.data.vertex_corpora.vocaset import read_vocaset, split_of
from sedtalker.data.vertex_emotion import cache_store_emotions
from sedtalker.data.vertex_store import Store, open_store
from sedtalker.errors import CheckpointError, DataError
from sedtalker.labels import LABELS


def test_generator_layout_becomes_a_store(tmp_path: Path) -> None:
    root = made.generator_layout(tmp_path)
    outcome = prepare(read_emovoca(tmp_path), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert not outcome.refused
    assert (store.fps, store.source_fps, store.vertices) == (30.0, 60.0, made.VERTICES)
    assert any("60 Hz" in note and "every second frame" in note for note in outcome.notes)
    clip = next(clip for clip in store if clip.id == f"{made.TEST}_sentence22_Smile2_3")
    assert (clip.split, clip.emotion, clip.intensity, clip.frames) == ("test", "happy", 1.0, 30)
    truth = np.load(root / "sequences" / f"{clip.id}.npy")[::2]
    np.testing.assert_allclose(store.motion(clip), truth, atol=outcome.rounding + 1e-8)
    assert 0 < outcome.rounding < 4e-6  # float16 of 5 mm
    window = store.displacements(clip, 10, 14)
    np.testing.assert_allclose(window, truth[10:14] - store.templates[made.TEST], atol=outcome.rounding + 1e-8)
    assert {clip.split for clip in store} == {"train", "validation", "test"}


def test_variants_of_a_sentence_share_one_sound(tmp_path: Path) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert len(store) == 12 and len({clip.audio for clip in store}) == 6
    assert len(list((tmp_path / "store" / "audio").iterdir())) == 6
    assert abs(len(load_audio(store.sound(store.clips[0]))) - 16_000) < 20


def test_sedtalker_and_faceformer_layouts(tmp_path: Path) -> None:
    made.sedtalker_layout(tmp_path / "a")
    outcome = prepare(read_emovoca(tmp_path / "a"), tmp_path / "store_a")
    assert [clip.intensity for clip in outcome.clips] == pytest.approx([1 / 3, 2 / 3, 1])
    assert {clip.audio for clip in outcome.clips} == {f"{made.TRAIN}_sentence01"}
    made.faceformer_layout(tmp_path / "b")
    outcome = prepare(read_emovoca(tmp_path / "b"), tmp_path / "store_b", PrepareOptions(dtype="float32"))
    assert [clip.emotion for clip in outcome.clips] == ["disgust", "neutral"]
    store = open_store(tmp_path / "store_b")
    np.testing.assert_allclose(store.motion(store.clips[0]), made.motion(made.template(), 60)[::2], atol=1e-7)


def test_a_rate_of_thirty_hertz_is_found_from_the_sounds(tmp_path: Path) -> None:
    root = made.sedtalker_layout(tmp_path)
    for path in (root / "sequences").iterdir():
        np.save(path, np.load(path)[::2])
    outcome = prepare(read_emovoca(tmp_path), tmp_path / "store")
    assert outcome.source_fps == 30 and {clip.frames for clip in outcome.clips} == {30}


def test_vocaset_and_its_absent_sentences(tmp_path: Path) -> None:
    source = read_vocaset(made.vocaset_archives(tmp_path / "vocaset"))
    outcome = prepare(source, tmp_path / "store")
    absent = [line for line in outcome.missing if "published archive" in line]
    assert [line.split(" (")[0] for line in absent] == [
        "FaceTalk_170809_00138_TA sentence32",
        "FaceTalk_170811_03274_TA sentence24",
    ]
    assert f"{made.VALIDATION}, every sentence" in outcome.missing
    store = open_store(tmp_path / "store")
    second = next(clip for clip in store if clip.id == f"{made.TEST}_sentence24")
    rows = np.load(tmp_path / "vocaset" / "data_verts.npy")[180:240:2]
    np.testing.assert_allclose(store.motion(second), rows, atol=4e-6)


def test_vocaset_names_the_archive_that_is_missing(tmp_path: Path) -> None:
    made.vocaset_archives(tmp_path / "vocaset")
    (tmp_path / "vocaset" / "raw_audio_fixed.pkl").unlink()
    with pytest.raises(DataError, match=r"VOCASET lacks raw_audio_fixed\.pkl.*trainingdata"):
        read_vocaset(tmp_path / "vocaset")


def test_biwi_keeps_its_rate(tmp_path: Path) -> None:
    outcome = prepare(read_biwi(made.biwi_layout(tmp_path / "biwi")), tmp_path / "store")
    assert outcome.fps == 25 and {clip.id: clip.split for clip in outcome.clips} == {
        "F1_e37": "test",
        "F2_e01": "train",
        "F2_e36": "validation",
    }


def test_own_recordings_with_a_table(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    rows = "take_01,anna,Happiness,0.8,test\ntake_02,,,,\ntake_03,,,,\n"
    (folder / "clips.csv").write_text("name,subject,emotion,intensity,split\n" + rows)
    (folder / "take_03.wav").unlink()
    outcome = prepare(read_own(folder), tmp_path / "store")
    first = outcome.clips[0]
    assert (first.subject, first.emotion, first.intensity, first.split) == ("anna", "happy", 0.8, "test")
    assert outcome.missing == ["sound of take_03"]
    faces = open_store(tmp_path / "store").faces
    assert faces is not None and faces.shape == (made.VERTICES - 2, 3)


ROWS = ("take_01,anna,s1,happy,0.8,train", "take_02,anna,s2,angry,1,validation", "take_03,bob,s3,sad,0.5,test")
HEADINGS = "name,subject,sentence,emotion,intensity,split"


def labels_of(folder: Path) -> list[tuple[str, str, float, str]]:
    return [(item.id, item.emotion, item.intensity, item.split) for item in read_own(folder).sequences]


EXPECTED = [
    ("take_01", "happy", 0.8, "train"),
    ("take_02", "angry", 1.0, "validation"),
    ("take_03", "sad", 0.5, "test"),
]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("take_01", "take_01.wav").replace("take_02", "take_02.NPY"),
        lambda text: text.replace("take_01", "sounds/take_01.wav").replace("take_02", "C:\\own\\take_02.wav"),
        lambda text: text.replace(",", ";").replace("0.8", "0,8").replace("0.5", "0,5"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", " , ").replace("\n", "\r\n"),
        lambda text: text.replace(HEADINGS, HEADINGS.title()),
        lambda text: text.replace("train", "Train").replace("\n", "\n\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("take_01", "TAKE_01.flac").replace("take_02", "Take_02"),
    ],
)
def test_a_table_is_read_as_spreadsheets_write_it(change, tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    (folder / "clips.csv").write_bytes(change("\n".join((HEADINGS, *ROWS)) + "\n").encode())
    assert labels_of(folder) == EXPECTED
    (folder / "clips.csv").write_bytes(change("\n".join((HEADINGS, *ROWS)) + "\n").encode("utf-16"))
    assert labels_of(folder) == EXPECTED


def test_a_table_names_clips_in_any_unicode_form(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    for ending in ("wav", "npy"):
        (folder / f"take_01.{ending}").rename(folder / f"caf\u00e9.v1.{ending}")
    for written in ("cafe\u0301.v1", "caf\u00e9.v1.wav"):
        rows = (HEADINGS, ROWS[0].replace("take_01", written), *ROWS[1:])
        (folder / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
        assert labels_of(folder)[0] == ("caf\u00e9.v1", "happy", 0.8, "train")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ((HEADINGS, *ROWS, "take_09,anna,s,happy,1,train"), r"rows without a recording: take_09"),
        ((HEADINGS, *ROWS[:2]), r"recordings without a row: take_03"),
        (
            (HEADINGS, "a,anna,s,happy,1,train"),
            r"rows without a recording: a; recordings without a row: take_01, take_02",
        ),
        ((HEADINGS,), r"recordings without a row: take_01, take_02, take_03"),
        ((HEADINGS, *ROWS, ROWS[0]), r"two rows of take_01"),
        ((HEADINGS, *ROWS, ROWS[0].replace("take_01", "take_01.wav")), r"two rows of take_01"),
        ((HEADINGS.replace("emotion", "feeling"), *ROWS), r"an unknown column 'feeling'.*name,subject"),
        ((HEADINGS.replace("name", "file"), *ROWS), r"no column name.*name,subject"),
        ((HEADINGS.replace("sentence", "subject"), *ROWS), r"twice the column 'subject'"),
        ((HEADINGS, ROWS[0] + ",more", *ROWS[1:]), r"row 2 has 7 cells for 6 columns"),
        ((HEADINGS, *ROWS, ",anna,s,happy,1,train"), r"a row without name.*line 5"),
        ((HEADINGS, ROWS[0].replace("0.8", "high"), *ROWS[1:]), r"intensity 'high' of take_01"),
        ((HEADINGS, ROWS[0].replace("0.8", "nan"), *ROWS[1:]), r"intensity nan of take_01"),
        ((HEADINGS, ROWS[0].replace("0.8", "8"), *ROWS[1:]), r"intensity 8 of take_01"),
        ((HEADINGS, ROWS[0].replace("train", "learn"), *ROWS[1:]), r"split 'learn' of take_01"),
        ((HEADINGS, ROWS[0].replace("happy", "hapy"), *ROWS[1:]), r"emotion of take_01"),
        ((HEADINGS, '"take_01,anna'), r"not a table.*Save it as CSV"),
        ((), r"an empty table"),
    ],
)
def test_a_table_that_does_not_fit_stops_the_preparation(content: tuple[str, ...], found: str, tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    (folder / "clips.csv").write_text("\n".join(content), encoding="utf-8")
    with pytest.raises(DataError, match=found) as refusal:
        prepare(read_own(folder), tmp_path / "store")
    assert "clips.csv" in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "store").exists()


def test_a_table_of_another_name_is_read_or_stops_the_preparation(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    (folder / "Clips.TSV").write_text("\n".join((HEADINGS, *ROWS)).replace(",", "\t"), encoding="utf-8")
    assert labels_of(folder) == EXPECTED
    (folder / "Clips.TSV").rename(folder / "labels.csv")
    with pytest.raises(DataError, match=r"no table clips\.csv, but labels\.csv"):
        read_own(folder)
    (folder / "labels.csv").rename(folder / "take_01.csv")  # an export of the clip
    assert {emotion for _, emotion, *_ in labels_of(folder)} == {"neutral"}


def test_two_recordings_of_a_clip_are_refused(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    (folder / "take_01.flac").write_bytes((folder / "take_01.wav").read_bytes())
    with pytest.raises(DataError, match=r"two recordings of take_01: .*take_01\.flac and .*take_01\.wav"):
        read_own(folder)


def test_a_table_of_another_encoding_is_read_and_binary_data_is_not(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    rows = (HEADINGS, ROWS[0].replace("anna", "Zoé Müller"), *ROWS[1:])
    (folder / "clips.csv").write_bytes("\n".join(rows).encode("cp1252"))
    assert read_own(folder).sequences[0].subject == "Zoé Müller"
    (folder / "clips.csv").write_bytes(b"name\0\nPK\0\0")
    with pytest.raises(DataError, match=r"clips\.csv") as refusal:
        read_own(folder)
    assert "\n" not in str(refusal.value)


def test_own_recordings_at_another_rate(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own", frames=30)
    for path in folder.glob("*.npy"):
        np.save(path, made.motion(made.template(), 25))  # 25 frames in a second of sound
    assert check_source(read_own(folder)).source_fps == 25


def test_broken_sequences_are_named_and_left_out(tmp_path: Path) -> None:
    root = made.generator_layout(tmp_path)
    sequences = sorted((root / "sequences").glob("*.npy"))
    sequences[0].write_bytes(made.POINTER)
    sequences[1].write_bytes(sequences[1].read_bytes()[:-100])
    np.save(sequences[2], np.load(sequences[2]).transpose(0, 2, 1))
    np.save(sequences[3], np.load(sequences[3])[:, :-1])
    np.save(sequences[4], np.load(sequences[4])[:20])
    np.save(sequences[5], np.broadcast_to(np.load(sequences[5])[:1], (60, made.VERTICES, 3)))
    np.save(root / "label" / sequences[6].name, np.array(3))
    np.save(root / "sequences" / f"{made.TRAIN}_sentence21_Gleeful_2.npy", np.zeros((60, made.VERTICES, 3)))
    outcome = prepare(read_emovoca(tmp_path), tmp_path / "store")
    refusals = [outcome.refused.get(path.stem) or outcome.refused[path.name] for path in sequences[:7]]
    wanted = ["pointer", "truncated", "swapped", "topology", "last 0.33 s", "does not move", "label/ has"]
    assert all(word in reason for word, reason in zip(wanted, refusals, strict=True))
    assert "unknown expression 'Gleeful'" in outcome.refused[f"{made.TRAIN}_sentence21_Gleeful_2.npy"]
    assert len(outcome.clips) == 5 and len(outcome.refused) == 8
    assert any("sentence21: Smile2_3" in line for line in outcome.missing) is False  # it is there, though broken
    assert {path.stem for path in (tmp_path / "store" / "clips").iterdir()} == {clip.id for clip in outcome.clips}


def test_missing_variant_and_extra_subject(tmp_path: Path) -> None:
    stranger = "FaceTalk_990101_00001_TA"
    root = made.generator_layout(tmp_path, (made.TRAIN, stranger))
    (root / "sequences" / f"{made.TRAIN}_sentence21_Afraid_1.npy").unlink()
    outcome = prepare(read_emovoca(tmp_path), tmp_path / "store")
    assert f"{made.TRAIN} sentence21: Afraid_1" in outcome.missing
    assert any(stranger in note and UNUSED in note for note in outcome.notes)
    assert {clip.split for clip in outcome.clips if clip.subject == stranger} == {UNUSED}


def test_subject_without_template_is_refused(tmp_path: Path) -> None:
    root = made.generator_layout(tmp_path, (made.TRAIN, made.TEST))
    (root / "templates.pkl").write_bytes(made.python2_pickle({made.TRAIN: made.template(0)}))
    outcome = prepare(read_emovoca(tmp_path), tmp_path / "store")
    assert all(made.TEST in name and "no template" in reason for name, reason in outcome.refused.items())
    assert len(outcome.refused) == 4


def test_malicious_templates_stop_the_preparation(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return os.system, ("true",)

    root = made.generator_layout(tmp_path)
    (root / "templates.pkl").write_bytes(pickle.dumps({made.TRAIN: Hostile()}))
    with pytest.raises(DataError, match=r"system: .*templates\.pkl"):
        read_emovoca(tmp_path)


def test_the_scale_named_in_the_error_corrects_the_unit(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    for path in folder.glob("*.npy"):
        np.save(path, np.load(path) * 1000)
    lines = [f"v {x} {y} {z}" for x, y, z in made.template() * 1000] + ["f 1 2 3"]
    (folder / "template.obj").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"millimetres.*--scale 0\.001"):
        prepare(read_own(folder), tmp_path / "store")
    prepare(read_own(folder), tmp_path / "store", PrepareOptions(scale=0.001))
    store = open_store(tmp_path / "store")
    np.testing.assert_allclose(store.motion(store.clips[0]), made.motion(made.template(), 30), atol=5e-6)


def test_a_preparation_without_a_valid_sequence_leaves_no_store(tmp_path: Path) -> None:
    folder = made.own_folder(tmp_path / "own")
    for path in folder.glob("*.npy"):
        np.save(path, np.load(path)[:2])
    with pytest.raises(DataError, match="no valid sequence"):
        prepare(read_own(folder), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_second_run_copies_no_clip_again(tmp_path: Path) -> None:
    root = made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    clips = sorted((tmp_path / "store" / "clips").iterdir())
    clips[0].unlink()
    times = {path: path.stat().st_mtime_ns for path in clips[1:]}
    os.utime(root / "sequences" / clips[1].name, (2e9, 2e9))  # its source is newer
    outcome = prepare(read_emovoca(tmp_path), tmp_path / "store")
    assert outcome.kept == len(clips) - 2 and clips[0].is_file()
    assert {path for path, time in times.items() if path.stat().st_mtime_ns != time} == {clips[1]}


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    with pytest.raises(DataError, match=r"made with dtype 'float16', not 'float32'"):
        prepare(read_emovoca(tmp_path), tmp_path / "store", PrepareOptions(dtype="float32"))
    with pytest.raises(DataError, match="not empty and not a store"):
        prepare(read_emovoca(tmp_path), tmp_path / "New_EmoVOCA")


@pytest.mark.parametrize("cache", [cache_store_features, cache_store_emotions])
def test_a_model_that_cannot_be_loaded_leaves_no_record_of_its_name(
    cache: Callable[[Store, str], int], tmp_path: Path
) -> None:
    """A record would refuse the right model in the next run."""
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    with pytest.raises(CheckpointError, match="absent"):
        cache(open_store(tmp_path / "store"), "absent")
    assert not [*(tmp_path / "store").glob("*/*.json")]


def test_unfinished_store_is_not_opened(tmp_path: Path) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(DataError, match="not finished"):
        open_store(tmp_path / "store")


def test_check_finds_a_damaged_clip(tmp_path: Path) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert check_store(store) == {}
    path = tmp_path / "store" / "clips" / f"{store.clips[3].id}.npy"
    path.write_bytes(path.read_bytes()[:-10])
    assert list(check_store(store)) == [store.clips[3].id]


@pytest.mark.parametrize("size", [1, 480 * 7, 480 * 10])  # bytes; a frame has 480
def test_blocks_of_any_size_give_the_same_store_and_find_a_jump(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "whole")
    monkeypatch.setattr("sedtalker.data.prepare.BLOCK_BYTES", size)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    for path in (tmp_path / "whole" / "clips").iterdir():
        assert (tmp_path / "store" / "clips" / path.name).read_bytes() == path.read_bytes()
    store = open_store(tmp_path / "store")
    path = tmp_path / "store" / "clips" / f"{store.clips[1].id}.npy"
    frames = np.load(path)
    frames[20:, 3, 1] += 0.06  # frame 20 begins a block of 10
    np.save(path, frames)
    assert list(check_store(store)) == [store.clips[1].id]
    assert "jump" in check_store(store)[store.clips[1].id]


def test_expressions_without_a_label(tmp_path: Path) -> None:
    made.generator_layout(tmp_path, variants=(("Smile2", 4, 3), ("Drunk2", 5, 2)))
    source = read_emovoca(tmp_path)
    assert {sequence.expression for sequence in source.sequences} == {"Smile2"}
    assert any("6 Drunk2" in note for note in source.notes)
    prepare(read_emovoca(tmp_path, all_expressions=True), tmp_path / "store")
    assert open_store(tmp_path / "store").labels == (*LABELS, "drunk2")


def test_names_labels_and_splits() -> None:
    assert parse_name("FaceTalk_170809_00138_TA_sentence21_Smile2_3") == (made.TEST, "sentence21", "Smile2", 3)
    assert parse_name("FaceTalk_170809_00138_TA_sentence21") == (made.TEST, "sentence21", "", 0)
    with pytest.raises(DataError, match="level 4"):
        parse_name("FaceTalk_170809_00138_TA_sentence21_Smile2_4")
    assert emotion_of("Irritated1", 2) == ("angry", pytest.approx(2 / 3)) and emotion_of("", 0) == ("neutral", 0.0)
    assert sorted(number for number, _ in EXPRESSIONS.values()) == list(range(11))
    assert split_of(made.TEST, "sentence20") == UNUSED and split_of(made.TRAIN, "sentence20") == "train"


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    for read in (read_emovoca, read_biwi, read_vocaset, read_own):
        with pytest.raises(DataError):
            read(tmp_path)


def test_a_long_source_is_read_in_parts(tmp_path: Path) -> None:
    vertices, frames = 1500, 4000
    folder = tmp_path / "own"
    folder.mkdir()
    rest = made.template(vertices=vertices)
    lines = [f"v {x} {y} {z}" for x, y, z in rest] + ["f 1 2 3"]
    (folder / "template.obj").write_text("\n".join(lines) + "\n")
    array = np.lib.format.open_memmap(folder / "long.npy", "w+", np.float32, (frames, vertices, 3))
    for first in range(0, frames, 500):
        array[first : first + 500] = made.motion(rest, 500)
    size = array.nbytes
    del array
    made.write_wav(folder / "long.wav", frames / 30)
    source = read_own(folder)
    tracemalloc.start()
    prepare(source, tmp_path / "store")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * size  # blocks of 256 frames, and the sound
    store = open_store(tmp_path / "store")
    assert store.displacements(store.clips[0], 3990).shape == (10, vertices, 3)
