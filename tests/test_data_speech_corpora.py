"""Readers of speech emotion corpora, on small trees with the publishers' names; the manifest and its splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sedtalker.data.manifest import Manifest, Span, Utterance, load_manifest, merge, split_by_speaker
from sedtalker.data.speech_corpora.readers import READERS
from sedtalker.data.speech_corpora.registry import PINNED, add_corpus, summary
from sedtalker.errors import DataError
from sedtalker.labels import LABELS


def tree(root: Path, files: dict[str, str] | list[str]) -> Path:
    """Files with their text below a folder; audio may be empty, since readers go by names and tables."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name] if isinstance(files, dict) else "", encoding="utf-8")
    return root


def read(corpus: str, root: Path) -> tuple[Manifest, dict[str, Utterance]]:
    manifest = READERS[corpus](root)
    assert all(item.emotion in LABELS and manifest.audio(item).is_file() for item in manifest)
    assert len({item.id for item in manifest}) == len(manifest)
    return manifest, {item.path: item for item in manifest}


def test_ravdess(tmp_path):
    names = [
        "Actor_02/03-01-02-02-01-01-02.wav",
        "Actor_01/03-01-05-02-02-01-01.wav",
        "Actor_01/03-02-05-02-02-01-01.wav",
    ]
    manifest, by_path = read("ravdess", tree(tmp_path, [*names, "Actor_01/01-01-05-02-02-01-01.mp4", "notes.mp3"]))
    calm, angry = by_path[names[0]], by_path[names[1]]
    assert (calm.emotion, calm.intensity, calm.gender, calm.speaker) == ("neutral", 0.0, "female", "ravdess-02")
    assert (angry.emotion, angry.intensity, angry.gender) == ("angry", 1.0, "male")
    assert angry.transcript == "Dogs are sitting by the door."
    assert manifest.skipped == {"song": 1, "video": 1, "not a RAVDESS name": 1}


CREMAD_TABLES = {
    "VideoDemographics.csv": "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n",
    "processedResults/summaryTable.csv": (
        ",FileName,VoiceVote,VoiceLevel,FaceVote,FaceLevel,MultiModalVote,MultiModalLevel\n"
        "1,1001_DFA_HAP_XX,N,69.1,N,92,N,64\n"
        "2,1001_DFA_SAD_XX,N:S,70.25:31.75,S,50,S,60\n"
        "3,1001_DFA_FEA_XX,F,60,F,50,F,60\n"
    ),
}


@pytest.mark.parametrize("name", sorted(CREMAD_TABLES))
def test_tables_of_another_corpus_are_refused(name, tmp_path):
    tables = CREMAD_TABLES | {name: CREMAD_TABLES[name].replace("1001", "7001")}
    root = tree(tmp_path, {"AudioWAV/1001_DFA_SAD_XX.wav": ""} | tables)
    with pytest.raises(DataError, match="table and recordings do not match") as refusal:
        READERS["crema-d"](root)
    assert Path(name).name in str(refusal.value) and "7001" in str(refusal.value)


def test_rows_name_recordings_with_or_without_their_ending(tmp_path):
    table = "id\tspeaker\ttext\nu1.wav\tv1\tOne.\naudio/u2\tv1\tTwo.\nu9\tv1\tNine.\n"
    root = tree(tmp_path, {"utterances.tsv": table, "audio/u1.opus": "", "audio/u2.opus": "", "audio/u3.opus": ""})
    manifest = READERS["spoken"](root)
    assert [item.transcript for item in manifest] == ["One.", "Two."]
    assert manifest.skipped == {"not in utterances.tsv": 1, "named in utterances.tsv, no recording": 1}


def test_cremad(tmp_path):
    clips = ["1001_IEO_ANG_MD", "1001_DFA_HAP_XX", "1001_DFA_SAD_XX", "1001_DFA_FEA_XX", "1001_DFA_NEU_XX", "readme"]
    files = {f"AudioWAV/{name}.wav": "" for name in clips} | CREMAD_TABLES
    manifest, by_path = read("crema-d", tree(tmp_path, files))
    angry, happy, sad, fear, neutral = (by_path[f"AudioWAV/{name}.wav"] for name in clips[:5])
    assert angry.intensity == pytest.approx(2 / 3)
    assert (happy.emotion, happy.perceived, happy.intensity) == ("happy", {"neutral": 1.0}, 0.25)
    assert sad.perceived == {"neutral": 0.5, "sad": 0.5}
    assert sad.intensity == pytest.approx((51 - 30) / 60)
    assert fear.intensity == pytest.approx(0.5)
    assert (neutral.intensity, neutral.gender, neutral.transcript) == (0.0, "male", "Don't forget a jacket.")
    assert (neutral.age, neutral.channel) == (51, "studio")
    assert manifest.skipped == {"not a CREMA-D name": 1}


def test_the_error_names_the_missing_table_of_cremad(tmp_path):
    with pytest.raises(DataError, match=r"VideoDemographics\.csv"):
        READERS["crema-d"](tree(tmp_path, ["AudioWAV/1001_IEO_ANG_MD.wav"]))


def test_nemo(tmp_path):
    table = (
        "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
        'WR0_surprised_64.wav\tsurprised\tUcho "wykrywa".\tucho wykrywa\t        WR0\tmale\t23\n'
    )
    files = {"data.tsv": table, "samples/WR0_surprised_64.opus": "", "samples/WR0_anger_1.opus": ""}
    manifest, by_path = read("nemo", tree(tmp_path, files))
    item = by_path["samples/WR0_surprised_64.opus"]
    assert (item.emotion, item.speaker, item.gender, item.language) == ("surprise", "nemo-WR0", "male", "pl")
    assert (item.age, item.channel) == (23, "")
    assert (item.transcript, item.intensity) == ('Ucho "wykrywa".', None)
    assert manifest.skipped == {"not in data.tsv": 1}


def test_savee_in_folders_and_flat(tmp_path):
    _, by_path = read(
        "savee", tree(tmp_path, ["AudioData/DC/sa01.wav", "AudioData/KL/n30.wav", "JK_su15.wav", "JK_d15.wav"])
    )
    assert [item.emotion for item in by_path.values()] == ["sad", "neutral", "disgust", "surprise"]
    assert {item.speaker for item in by_path.values()} == {"savee-DC", "savee-KL", "savee-JK"}


def test_tess_with_its_misspelt_file_and_second_copies(tmp_path):
    names = ["OAF_Fear/OAF_back_fear.wav", "OAF_neutral/OA_bite_neutral.wav", "YAF_pleasant_surprised/YAF_back_ps.wav"]
    manifest, by_path = read("tess", tree(tmp_path, [*names, "again/OAF_Fear/OAF_back_fear.wav"]))
    assert by_path[names[1]].speaker == "tess-OAF"
    assert by_path[names[2]].emotion == "surprise"
    assert by_path[names[1]].transcript == "Say the word bite."
    assert manifest.skipped == {"second copy": 1}


def test_banglaser(tmp_path):
    names = ["03-01-04-02-03-01-15.wav", "03-01-05-01-01-02-08.wav", "03-01-09-01-01-02-08.wav"]
    manifest, by_path = read("banglaser", tree(tmp_path, names))
    surprise, neutral = by_path[names[0]], by_path[names[1]]
    assert (surprise.emotion, surprise.intensity, surprise.gender) == ("surprise", 1.0, "male")
    assert (neutral.emotion, neutral.intensity, neutral.gender) == ("neutral", 0.0, "female")
    assert (surprise.speaker, surprise.language, surprise.channel) == ("banglaser-15", "bn", "phone or laptop")
    assert manifest.skipped == {"not a BanglaSER name": 1}


def test_emogator(tmp_path):
    names = ["000001-13-1.mp3", "000357-18-2.mp3", "000357-01-2.mp3"]
    manifest, by_path = read("emogator", tree(tmp_path, names))
    happy, neutral = by_path[names[0]], by_path[names[1]]
    assert (happy.emotion, happy.intensity, happy.speaker) == ("happy", None, "emogator-000001")
    assert (neutral.emotion, neutral.intensity, neutral.language) == ("neutral", 0.0, "zxx")
    assert manifest.skipped == {"an emotion without a label": 1}


def test_esd_with_texts_in_several_encodings(tmp_path):
    names = ["0001/Surprise/0001_001401.wav", "0011/Angry/train/0011_000351.wav", "0011/Angry/0011_noise.wav"]
    tree(tmp_path, names)
    (tmp_path / "0001/0001.txt").write_bytes("0001_001401\t打远一看\t惊喜\n".encode("gb18030"))
    (tmp_path / "0011/0011.txt").write_bytes("0011_000351\tThe nine the eggs.\tAngry\n".encode("utf-16"))
    manifest, by_path = read("esd", tmp_path)
    chinese, english = by_path[names[0]], by_path[names[1]]
    assert (chinese.language, chinese.transcript, chinese.gender, chinese.emotion) == (
        "zh",
        "打远一看",
        "female",
        "surprise",
    )
    assert (english.language, english.transcript, english.gender) == ("en", "The nine the eggs.", "male")
    assert manifest.skipped == {"not an ESD name": 1}


def test_emovdb(tmp_path):
    names = [
        "bea_Amused/amused_1-15_0001.wav",
        "sam_Disgusted/disgust_1-28_0002.wav",
        "josh_Sleepy/sleepiness_1-28_0001.wav",
    ]
    manifest, by_path = read("emov-db", tree(tmp_path, names))
    assert (by_path[names[0]].emotion, by_path[names[0]].gender) == ("happy", "female")
    assert by_path[names[1]].emotion == "disgust"
    assert manifest.skipped == {"an emotion without a label (sleepy)": 1}


def test_jlcorpus(tmp_path):
    files = {
        "JL(wav+txt)/female1_angry_10a_1.wav": "",
        "JL(wav+txt)/female1_angry_10a_1.txt": "Tom beats that farmer.\n",
        "JL(wav+txt)/male2_excited_2b_2.wav": "",
        "JL(wav+txt)/male2_anxious_2b_2.wav": "",
    }
    manifest, by_path = read("jl-corpus", tree(tmp_path, files))
    assert by_path["JL(wav+txt)/female1_angry_10a_1.wav"].transcript == "Tom beats that farmer."
    assert by_path["JL(wav+txt)/male2_excited_2b_2.wav"].emotion == "happy"
    assert manifest.skipped == {"an emotion without a label (secondary)": 1}


def test_emotiontts(tmp_path):
    names = ["plain-to-emotional/ema/wav/ema00205.wav", "emotional-to-emotional/nea/wav/nea00001.wav", "pfa00001.wav"]
    manifest, by_path = read("emotiontts", tree(tmp_path, names))
    sad, neutral = by_path[names[0]], by_path[names[1]]
    assert (sad.emotion, sad.speaker, sad.language) == ("sad", "emotiontts-a", "ko")
    assert (neutral.emotion, neutral.intensity, neutral.speaker) == ("neutral", 0.0, "emotiontts-a")
    assert manifest.skipped == {"not an EmotionTTS name": 1}


def test_emospeech_has_only_words_of_known_speakers(tmp_path):
    person, unnamed = "9d" * 28, "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f"
    names = [
        f"Metro/help-glass break-fearful-20190701193438-{person}.wav",
        f"Metro/go-safe-calm-1562907046662-{person}.wav",
        f"Metro/go-safe-calm-1562907046663-{unnamed}.wav",
        f"Metro/background-safe-calm-1562907046664-{person}.wav",
        f"Metro/background-safe-None-1562907046665-{person}.wav",
    ]
    manifest, by_path = read("emospeech", tree(tmp_path, names))
    fear, calm = by_path[names[0]], by_path[names[1]]
    assert (fear.emotion, fear.speaker, fear.channel) == ("fear", f"emospeech-{person}", "phone")
    assert (calm.emotion, calm.intensity) == ("neutral", 0.0)
    assert len(manifest) == 2
    assert manifest.skipped == {
        "a speaker without a name": 1, "background without a word": 1, "an emotion without a label (none)": 1,
    }  # fmt: skip


def test_emotale(tmp_path):
    names = ["wav/DK_008_A_5.wav", "wav/EN_004_H_1.wav", "wav/EN_004_B_1.wav"]
    manifest, by_path = read("emotale", tree(tmp_path, names))
    angry, happy = by_path[names[0]], by_path[names[1]]
    assert (angry.emotion, angry.language, angry.gender, angry.age) == ("angry", "da", "female", 12)
    assert (happy.emotion, happy.language, happy.gender) == ("happy", "en", "male")
    assert manifest.skipped == {"an emotion without a label (boredom)": 1}


def test_iemocap(tmp_path):
    ratings = (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tfru\t[2.5000, 3.0000, 2.5000]\nC-E2:\tNeutral;\t()\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_M001\txxx\t[2.5000, 2.5000, 2.5000]\n"
    )
    wav = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_"
    files = {
        f"{wav}F000.wav": "",
        f"{wav}M001.wav": "",
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": ratings,
        "Session1/dialog/transcriptions/Ses01F_impro01.txt": "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n",
    }
    manifest, by_path = read("iemocap", tree(tmp_path, files))
    item = by_path[f"{wav}F000.wav"]
    assert (item.emotion, item.intensity, item.speaker, item.transcript) == ("upset", 0.5, "iemocap-01F", "Excuse me.")
    assert manifest.skipped == {"raters disagree, or call it other": 1}


def test_meld(tmp_path):
    table = (
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
        '1,"Oh, you liked it?",Monica,joy,positive,0,0,8,21,"00:16:16,059","00:16:21,731"\n'
        "2,No.,The Interviewer,sadness,negative,0,1,8,21,a,b\n"
    )
    files = {"train_sent_emo.csv": table, "train_splits/dia0_utt0.mp4": "", "dev_splits_complete/dia0_utt0.mp4": ""}
    manifest, by_path = read("meld", tree(tmp_path, files))
    item = by_path["train_splits/dia0_utt0.mp4"]
    assert (item.emotion, item.gender, item.transcript) == ("happy", "female", "Oh, you liked it?")
    assert manifest.skipped == {"named in the table, no clip": 1}


def test_emodb(tmp_path):
    manifest, by_path = read("emodb", tree(tmp_path, ["wav/03a01Wa.wav", "wav/16b10Td.wav", "wav/03a01Lb.wav"]))
    assert (by_path["wav/03a01Wa.wav"].emotion, by_path["wav/03a01Wa.wav"].gender) == ("angry", "male")
    assert (by_path["wav/16b10Td.wav"].emotion, by_path["wav/16b10Td.wav"].gender) == ("sad", "female")
    assert manifest.skipped == {"an emotion without a label (boredom)": 1}


def test_zed_keeps_its_boundaries(tmp_path):
    entry = {
        "wav": "datafolder/session1/a_01.wav",
        "duration": 1.22,
        "emotion": [{"emo": "angry", "start": 0.39, "end": 1.10}],
        "transcription": "no",
    }
    labels = {"a_01": entry, "a_02": {**entry, "wav": "datafolder/session1/a_02.wav"}}
    files = {"ZED.json": json.dumps(labels), "session1/a_01.wav": ""}
    manifest, by_path = read("zed", tree(tmp_path, files))
    assert by_path["session1/a_01.wav"].segments == (Span(0.39, 1.10, "angry"),)
    assert manifest.skipped == {"named in ZED.json, no recording": 1}


@pytest.mark.parametrize("corpus", sorted(READERS))
def test_a_folder_of_something_else_is_refused_in_one_line(corpus, tmp_path):
    for folder in (tmp_path / "none", tree(tmp_path, ["holiday.wav"])):
        with pytest.raises(DataError) as caught:
            READERS[corpus](folder)
        assert "\n" not in str(caught.value)


def speakers(count: int) -> Manifest:
    items = [
        Utterance(f"c/{s}-{k}", f"{s}-{k}.wav", "c", f"c-{s:02}", "female" if s % 2 else "male", "en", "happy", 0.5)
        for s in range(count)
        for k in range(3)
    ]
    return Manifest("/data", items, {"song": 2})


def test_splits_keep_speakers_together_and_genders_apart():
    manifest = split_by_speaker(speakers(20), test=0.2, validation=0.1, seed=3, pinned={"c-00": "validation"})
    sides = {item.speaker: set() for item in manifest}
    for item in manifest:
        sides[item.speaker].add(item.split)
    assert all(len(side) == 1 for side in sides.values())
    assert sides["c-00"] == {"validation"}
    tested = {(item.speaker, item.gender) for item in manifest.select("test")}
    assert sum(gender == "female" for _, gender in tested) == 2
    again = split_by_speaker(speakers(20), test=0.2, validation=0.1, seed=3, pinned={"c-00": "validation"})
    assert [item.split for item in again] == [item.split for item in manifest]


def test_manifest_round_trip(tmp_path):
    manifest = split_by_speaker(speakers(6))
    manifest.utterances[0] = Utterance(
        "z/1",
        "a.wav",
        "z",
        "z-1",
        "unknown",
        "en",
        "sad",
        None,
        (Span(0.1, 0.5, "sad"),),
        "ś",
        {"sad": 0.5, "fear": 0.5},
        "test",
    )
    manifest.save(tmp_path / "manifest.json")
    assert load_manifest(tmp_path / "manifest.json") == manifest


def test_another_file_is_refused_as_a_manifest(tmp_path):
    for text in ("", "[]", '{"version": 1}', '{"version": 7, "root": "", "utterances": [], "skipped": {}}'):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(DataError):
            load_manifest(tmp_path / "m.json")


def test_merged_paths_are_relative_to_the_common_folder(tmp_path):
    one = READERS["emodb"](tree(tmp_path / "emodb", ["wav/03a01Wa.wav"]))
    two = READERS["savee"](tree(tmp_path / "savee", ["DC/a01.wav"]))
    both = merge([one, two])
    assert [item.path for item in both] == ["emodb/wav/03a01Wa.wav", "savee/DC/a01.wav"]
    assert all(both.audio(item).is_file() for item in both)


def test_several_corpora_become_one_manifest_with_splits(tmp_path):
    actors = [f"Actor_{a:02}/03-01-05-01-01-01-{a:02}.wav" for a in range(1, 13)]
    tree(tmp_path / "R", [*actors, "Actor_01/03-02-05-01-01-01-01.wav"])
    tables = {name: text.replace("1001", "1020") for name, text in CREMAD_TABLES.items()}
    tree(tmp_path / "C", {f"AudioWAV/10{a}_DFA_SAD_XX.wav": "" for a in range(20, 30)} | tables)
    path = tmp_path / "data" / "manifest.json"
    add_corpus(path, "ravdess", tmp_path / "R")
    manifest = add_corpus(path, "crema-d", tmp_path / "C")
    assert load_manifest(path) == manifest
    assert all(manifest.audio(item).is_file() for item in manifest)
    assert {item.speaker: item.split for item in manifest}["crema-d-1028"] == PINNED["crema-d-1028"]
    assert {item.split for item in manifest if item.corpus == "ravdess"} == {"train", "validation", "test"}
    assert "left out: 1 (song)" in summary(manifest)
    with pytest.raises(DataError, match="unknown corpus"):
        add_corpus(path, "radio", tmp_path)
    again = add_corpus(path, "ravdess", tmp_path / "R")
    assert {(item.id, item.split) for item in again} == {(item.id, item.split) for item in manifest}


def test_the_command_lists_the_readers(tmp_path, capsys):
    from sedtalker.cli.data import SPEECH
    from sedtalker.cli.main import main

    assert set(SPEECH) == set(READERS)
    tree(tmp_path / "R", [f"Actor_{a:02}/03-01-05-01-01-01-{a:02}.wav" for a in range(1, 13)])
    assert main(["data", "prepare", "ravdess", str(tmp_path / "R"), "-o", str(tmp_path / "manifest.json")]) == 0
    assert "ravdess train:" in capsys.readouterr().out
    assert len(load_manifest(tmp_path / "manifest.json")) == 12


def test_spoken_without_emotion(tmp_path):
    files = {"utterances.tsv": 'id\tspeaker\ttext\nu1\tv1\tIt\'s "plain".\n', "audio/u1.opus": "", "audio/u2.opus": ""}
    manifest, by_path = read("spoken", tree(tmp_path, files))
    item = by_path["audio/u1.opus"]
    assert (item.emotion, item.intensity, item.speaker, item.transcript) == (
        "neutral",
        0.0,
        "spoken-v1",
        'It\'s "plain".',
    )
    assert manifest.skipped == {"not in utterances.tsv": 1}


def test_librispeech(tmp_path):
    table = ";ID|SEX|SUBSET|MINUTES|NAME\n19   | F | train-clean-100  | 25.19 | Kara\n"
    files = {"dev/SPEAKERS.TXT": table, "dev/19/198/19-198-0000.flac": "", "dev/367/367-130732-0004.flac": ""}
    manifest, by_path = read("librispeech", tree(tmp_path, files | {"dev/19/noise.flac": ""}))
    woman, other = by_path["dev/19/198/19-198-0000.flac"], by_path["dev/367/367-130732-0004.flac"]
    assert (woman.emotion, woman.intensity, woman.speaker, woman.gender) == ("neutral", 0.0, "librispeech-19", "female")
    assert other.gender == "unknown" and PINNED[other.speaker] == "validation"
    assert manifest.skipped == {"not a LibriSpeech name": 1}
