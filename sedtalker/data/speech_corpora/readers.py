"""Readers of speech emotion corpora as their publishers ship them: a folder -> a manifest.

Most corpora have all labels in their file names: `NAMED` has a row for each of them. The others have tables, which the
functions below read. `READERS` lists both kinds by the corpus's name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sedtalker.data.manifest import Manifest, SkipCounter, Span, Utterance, audio_files, finish
from sedtalker.data.tables import Row, index_rows, match_names, read_table
from sedtalker.errors import DataError, reason_of
from sedtalker.inputs import AUDIO_SUFFIXES
from sedtalker.labels import canonical_label

Folder = str | os.PathLike[str]
Fields = re.Match[str]  # the named groups of a file's name


CHANNELS = {
    **dict.fromkeys(("ravdess", "crema-d", "savee", "tess", "emov-db", "jl-corpus", "emodb", "esd"), "studio"),
    "iemocap": "studio", "emotiontts": "studio", "emospeech": "phone", "meld": "television",
    "banglaser": "phone or laptop", "emogator": "own microphone",
}  # fmt: skip
"""How the corpora were recorded, where their authors name one way for all recordings."""


def make_utterance(corpus: str, name: str, path: Path, speaker: str, emotion: str, **fields: Any) -> Utterance:
    """Utterance of one corpus; a neutral one has the intensity 0.

    Args:
        path: relative to the corpus's folder.
        fields: of `Utterance`; the gender is unknown and the language English unless given.
    """
    fields = {"gender": "unknown", "language": "en", "channel": CHANNELS.get(corpus, ""), **fields}
    if emotion == "neutral":
        fields["intensity"] = 0.0
    return Utterance(f"{corpus}/{name}", str(path), corpus, f"{corpus}-{speaker}", emotion=emotion, **fields)


def read_files(folder: Folder, parse: Callable[[Path], Utterance | str]) -> Manifest:
    """Manifest of every audio file below a folder that `parse` accepts; it returns the reason for any other.

    A file with the id of an earlier one is skipped as a second copy.

    Raises:
        DataError: the folder is missing, or no file is accepted.
    """
    skipped, utterances = SkipCounter(), {}
    for path in audio_files(folder):
        parsed = parse(path)
        if isinstance(parsed, str):
            skipped.skip(parsed)
        elif parsed.id in utterances:
            skipped.skip("second copy")
        else:
            utterances[parsed.id] = parsed
    return finish(folder, list(utterances.values()), skipped)


@dataclass(frozen=True)
class NamedCorpus:
    """Corpus whose file names hold the labels."""

    title: str
    pattern: str  # of the path's end without its suffix, with the groups speaker and emotion
    emotions: Mapping[str, str]  # the group `emotion` in lower case -> label
    gender: Callable[[Fields], str] = lambda fields: "unknown"
    language: Callable[[Fields], str] = lambda fields: "en"
    speaker: Callable[[Fields], str] = lambda fields: fields["speaker"]
    name: Callable[[Fields, Path], str] = lambda fields, path: path.stem  # unique in the corpus
    intensities: Mapping[str, float] = field(default_factory=dict)  # by the group `intensity`
    ages: Mapping[str, int] = field(default_factory=dict)  # by the group `speaker`
    transcript: Callable[[Fields, Path], str] = lambda fields, path: ""
    exclude: Callable[[Fields], str] = lambda fields: ""  # the reason to skip a file, or ""
    unlabelled: str = ""  # the reason to skip an emotion outside the table; "" if it makes the name a wrong one
    flags: int = 0


def read_named(corpus: str, folder: Folder) -> Manifest:
    """Read a corpus of `NAMED`. Raises DataError if the folder is missing, or no file has a name of the corpus."""
    row = NAMED[corpus]
    pattern = re.compile(f"(?:.*/)?{row.pattern}", row.flags)

    def parse(path: Path) -> Utterance | str:
        fields = pattern.fullmatch(path.with_suffix("").as_posix())
        emotion = row.emotions.get(fields["emotion"].lower()) if fields else None
        if fields is None or (emotion is None and not row.unlabelled):
            return f"not {'an' if row.title[0] in 'AEIOU' else 'a'} {row.title} name"
        if emotion is None:
            return row.unlabelled
        if reason := row.exclude(fields):
            return reason
        return make_utterance(
            corpus,
            row.name(fields, path),
            path.relative_to(folder),
            row.speaker(fields),
            emotion,
            gender=row.gender(fields),
            language=row.language(fields),
            intensity=row.intensities[fields["intensity"]] if row.intensities else None,
            transcript=row.transcript(fields, path),
            age=row.ages.get(fields["speaker"]),
        )

    return read_files(folder, parse)


EMODB_TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.", "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.", "a07": "In sieben Stunden wird es soweit sein.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}  # fmt: skip
RAVDESS_TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
EMODB_AGES = {
    "03": 31, "08": 34, "09": 21, "10": 32, "11": 26, "12": 30, "13": 32, "14": 35, "15": 25, "16": 31,
}  # fmt: skip
EMODB_WOMEN = ("08", "09", "13", "14", "16")
ESD_WOMEN = ("0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019")
EMOTALE_AGES = {
    "001": 22, "003": 23, "004": 24, "005": 24, "006": 22, "007": 27, "008": 12, "009": 12, "010": 21, "011": 25,
    "012": 26, "013": 24, "014": 9, "015": 24, "016": 39, "017": 25, "018": 25, "019": 26,
}  # fmt: skip
EMOTALE_WOMEN = ("001", "003", "007", "008", "009", "010", "011", "012", "013", "014", "016", "017")
EMOSPEECH_UNNAMED = "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f"  # any of many people
EMOVDB_SPEAKERS = {"bea": "female", "jenie": "female", "josh": "male", "sam": "male"}


def _gender_of_women(*women: str) -> Callable[[Fields], str]:
    return lambda fields: "female" if fields["speaker"] in women else "male"


def _gender_of_parity(fields: Fields) -> str:
    """Even actors are women."""
    return "male" if int(fields["speaker"]) % 2 else "female"


def _text_file_of(fields: Fields, path: Path) -> str:
    """Transcript in a text file with the recording's name."""
    text = path.with_suffix(".txt")
    return text.read_text(encoding="utf-8", errors="replace").strip() if text.exists() else ""


def _exclude_video_and_song(fields: Fields) -> str:
    return "video" if fields["modality"] != "03" else "song" if fields["channel"] != "01" else ""


def _exclude_unnamed_and_background(fields: Fields) -> str:
    if fields["speaker"] == EMOSPEECH_UNNAMED:
        return "a speaker without a name"
    return "background without a word" if fields["word"] == "background" else ""


NAMED: dict[str, NamedCorpus] = {
    # Livingstone & Russo 2018, CC BY-NC-SA 4.0: `Actor_07/03-01-05-02-01-01-07.wav` = modality, channel, emotion,
    # intensity, statement, repetition, actor. Calm counts as neutral.
    "ravdess": NamedCorpus(
        "RAVDESS",
        r"(?P<modality>\d\d)-(?P<channel>\d\d)-(?P<emotion>\d\d)-(?P<intensity>0[12])-(?P<text>\d\d)-\d\d"
        r"-(?P<speaker>\d\d)",
        {"01": "neutral", "02": "neutral", "03": "happy", "04": "sad", "05": "angry", "06": "fear", "07": "disgust",
         "08": "surprise"},
        _gender_of_parity,
        intensities={"01": 0.5, "02": 1.0},  # normal, strong
        transcript=lambda fields, path: RAVDESS_TEXTS.get(fields["text"], ""),
        exclude=_exclude_video_and_song,
    ),
    # Das et al. 2022, Bengali, RAVDESS's fields with its own emotions: `03-01-02-01-03-05-12.wav`.
    "banglaser": NamedCorpus(
        "BanglaSER",
        r"\d\d-\d\d-(?P<emotion>\d\d)-(?P<intensity>0[12])-\d\d-\d\d-(?P<speaker>\d\d)",
        {"01": "happy", "02": "sad", "03": "angry", "04": "surprise", "05": "neutral"},
        _gender_of_parity,
        language=lambda fields: "bn",
        intensities={"01": 0.5, "02": 1.0},
    ),
    # Buhl 2023, Apache-2.0: `000123-15-1.mp3` = speaker, emotion, take. Vocal bursts without words (language zxx). Of
    # its 30 categories those with a label are read: anger, disgust, fear, neutral, sadness; amusement and elation count
    # as happy, both kinds of surprise as surprise.
    "emogator": NamedCorpus(
        "EmoGator",
        r"(?P<speaker>\d{6})-(?P<emotion>\d\d)-\d+",
        {"02": "happy", "03": "angry", "10": "disgust", "13": "happy", "15": "fear", "18": "neutral", "24": "sad",
         "27": "surprise", "28": "surprise"},
        language=lambda fields: "zxx",
        unlabelled="an emotion without a label",
    ),
    # Haq & Jackson 2009, British English: `AudioData/DC/sa01.wav`, or flat, `DC_sa01.wav`. Four men, no intensities.
    "savee": NamedCorpus(
        "SAVEE",
        r"(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>sa|su|[adfhn])(?P<sentence>\d\d)",
        {"a": "angry", "d": "disgust", "f": "fear", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprise"},
        lambda fields: "male",
        name=lambda fields, path: f"{fields['speaker']}_{fields['emotion']}{fields['sentence']}",
    ),
    # Pichora-Fuller & Dupuis 2020, CC BY-NC-ND 4.0: `OAF_Fear/OAF_back_fear.wav`. Two women, no intensities; `ps` is
    # pleasant surprise. The publisher names one file of OAF `OA_bite_neutral.wav`. Some archives hold all files twice.
    "tess": NamedCorpus(
        "TESS",
        r"(?P<speaker>OA|YA)F?_(?P<word>\w+)_(?P<emotion>[a-z]+)",
        {"angry": "angry", "disgust": "disgust", "fear": "fear", "happy": "happy", "neutral": "neutral",
         "ps": "surprise", "sad": "sad"},
        lambda fields: "female",
        speaker=lambda fields: f"{fields['speaker']}F",
        name=lambda fields, path: f"{fields['speaker']}F_{fields['word']}_{fields['emotion']}",
        transcript=lambda fields, path: f"Say the word {fields['word']}.",
        ages={"OA": 64, "YA": 26},
    ),
    # Adigwe et al. 2018, English: `bea_Amused/amused_1-15_0001.wav`. Amused counts as happy; sleepy has no label.
    "emov-db": NamedCorpus(
        "EmoV-DB",
        rf"(?P<speaker>{'|'.join(EMOVDB_SPEAKERS)})_(?P<emotion>[a-z]+)/[^/]+",
        {"amused": "happy", "ang": "angry", "anger": "angry", "angry": "angry", "disgust": "disgust",
         "disgusted": "disgust", "neutral": "neutral"},
        lambda fields: EMOVDB_SPEAKERS[fields["speaker"].lower()],
        speaker=lambda fields: fields["speaker"].lower(),
        name=lambda fields, path: f"{fields['speaker'].lower()}_{path.stem}",
        unlabelled="an emotion without a label (sleepy)",
        flags=re.IGNORECASE,
    ),
    # James et al. 2018, CC0, New Zealand English: `female1_angry_10a_1.wav` and `.txt`. Excited counts as happy; the
    # secondary emotions (anxious, apologetic, assertive, concerned, encouraging) have no label.
    "jl-corpus": NamedCorpus(
        "JL-Corpus",
        r"(?P<speaker>(?P<gender>female|male)[12])_(?P<emotion>[a-z]+)_\w+_\d+",
        {"angry": "angry", "sad": "sad", "neutral": "neutral", "happy": "happy", "excited": "happy"},
        lambda fields: fields["gender"],
        transcript=_text_file_of,
        unlabelled="an emotion without a label (secondary)",
    ),
    # Burkhardt et al. 2005, German: `wav/03a01Wa.wav` = speaker, text, emotion, take. Boredom has no label.
    "emodb": NamedCorpus(
        "EmoDB",
        r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])[a-f]",
        {"w": "angry", "e": "disgust", "a": "fear", "f": "happy", "t": "sad", "n": "neutral"},
        _gender_of_women(*EMODB_WOMEN),
        language=lambda fields: "de",
        transcript=lambda fields, path: EMODB_TEXTS.get(fields["text"], ""),
        unlabelled="an emotion without a label (boredom)",
        ages=EMODB_AGES,
    ),
    # Selvas AI 2018-2020, Korean, CC BY-NC-SA (github.com/emotiontts/emotiontts_open_db, folder `Emotional`):
    # `nea00103.wav` = script (em: neutral text, ne: emotional text), speaker, emotion, sentence. The same letter in
    # both scripts may be the same person, so it is one speaker.
    "emotiontts": NamedCorpus(
        "EmotionTTS",
        r"(?:em|ne)(?P<speaker>[a-z])00(?P<emotion>[0-3])\d\d",
        {"0": "neutral", "1": "happy", "2": "sad", "3": "angry"},
        language=lambda fields: "ko",
    ),
    # Banga et al. 2019, CC BY-NC-SA 4.0: `Metro/stop-safe-angry-20190710134940-d14a...f.wav` = word, surroundings,
    # emotion, time, speaker. Prompted English and Hindi words of untrained people on phones. Calm counts as neutral.
    "emospeech": NamedCorpus(
        "EmoSpeech",
        r"(?P<word>[a-z]+)-(?P<scene>[a-z ]+)-(?P<emotion>[A-Za-z]+)-\d+-(?P<speaker>[0-9a-f]{56})",
        {"calm": "neutral", "happy": "happy", "angry": "angry", "fearful": "fear"},
        exclude=_exclude_unnamed_and_background,
        unlabelled="an emotion without a label (none)",
    ),
    # Danish and English, 2025 (github.com/snehadas/EmoTale): `DK_004_A_5.wav` = language, speaker, emotion, sentence.
    # Boredom has no label. Its authors grant no licence: to measure on, not to train on.
    "emotale": NamedCorpus(
        "EmoTale",
        r"(?P<language>DK|EN)_(?P<speaker>\d{3})_(?P<emotion>[AHSNB])_\d",
        {"a": "angry", "h": "happy", "s": "sad", "n": "neutral"},
        _gender_of_women(*EMOTALE_WOMEN),
        language=lambda fields: {"DK": "da", "EN": "en"}[fields["language"]],
        unlabelled="an emotion without a label (boredom)",
        ages=EMOTALE_AGES,
    ),
    # Zhou et al. 2021, Mandarin (0001-0010) and English: `0011/Angry/0011_000351.wav`, `0011/0011.txt`. Some archives
    # hold `train`, `test` and `evaluation` below the emotion; these mix the speakers and are not used.
    "esd": NamedCorpus(
        "ESD",
        r"(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/(?:[^/]+/)*(?P<speaker>00[01]\d|0020)_\d{6}",
        {"angry": "angry", "happy": "happy", "neutral": "neutral", "sad": "sad", "surprise": "surprise"},
        _gender_of_women(*ESD_WOMEN),
        language=lambda fields: "zh" if int(fields["speaker"]) <= 10 else "en",
    ),
}  # fmt: skip


def read_esd(folder: Folder) -> Manifest:
    """Read ESD with its transcripts: lines of name, text and emotion between tabs, in one of several encodings."""
    texts = {}
    for path in sorted(Path(folder).rglob("00??.txt")):
        for line in _decode(path.read_bytes()).splitlines():
            fields = line.split("\t")
            if len(fields) > 1:
                texts[f"esd/{fields[0].strip()}"] = fields[1].strip()
    return _with_transcripts(read_named("esd", folder), texts)


def _with_transcripts(manifest: Manifest, texts: Mapping[str, str]) -> Manifest:
    utterances = [replace(item, transcript=texts.get(item.id, item.transcript)) for item in manifest]
    return replace(manifest, utterances=utterances)


def _decode(content: bytes) -> str:
    """Text in UTF-16 with a byte order mark, UTF-8, GB 18030 or Latin-1, the first that fits."""
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ()
    for encoding in (*encodings, "utf-8-sig", "gb18030"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin1")


CREMAD_EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "DIS": "disgust", "FEA": "fear"}
CREMAD_VOTES = {emotion[0]: label for emotion, label in CREMAD_EMOTIONS.items()}
CREMAD_LEVELS = {"LO": 1 / 3, "MD": 2 / 3, "HI": 1.0}
CREMAD_RATED_NEUTRAL = 0.25  # intensity of an emotion that the listeners rated as neutral
CREMAD_SENTENCES = {
    "IEO": "It's eleven o'clock.", "TIE": "That is exactly what happened.", "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.", "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.", "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.", "ITS": "I think I've seen this before.", "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}  # fmt: skip


def read_cremad(folder: Folder) -> Manifest:
    """Read CREMA-D (Cao et al. 2014, ODbL 1.0): `AudioWAV/1001_IEO_ANG_HI.wav` = actor, sentence, emotion, level.

    `processedResults/summaryTable.csv` holds the listeners' votes on the sound alone, of which only the winners are
    named; these share `perceived` equally. The intensity is the acted level where there is one. Elsewhere it is the
    rated level of the vote, of which ratings from 30 to 90 span 0 to 1; an emotion that was rated as neutral gets
    `CREMAD_RATED_NEUTRAL`.

    Raises:
        DataError: a table is missing or does not fit the recordings, or no file has a name of the corpus.
    """
    root, stems = Path(folder), [path.stem for path in audio_files(folder)]
    actors = _rows(root / "VideoDemographics.csv", ("ActorID", "Sex"), {stem.split("_")[0] for stem in stems})
    votes = _rows(root / "processedResults" / "summaryTable.csv", ("FileName", "VoiceVote", "VoiceLevel"), stems)

    def parse(path: Path) -> Utterance | str:
        fields = path.stem.split("_")
        if len(fields) != 4 or fields[2] not in CREMAD_EMOTIONS:
            return "not a CREMA-D name"
        actor, sentence, code, level = fields
        emotion, vote = CREMAD_EMOTIONS[code], votes.get(path.stem)
        winners = [CREMAD_VOTES[v] for v in vote["VoiceVote"].split(":") if v in CREMAD_VOTES] if vote else []
        return make_utterance(
            "crema-d",
            path.stem,
            path.relative_to(root),
            actor,
            emotion,
            gender=actors[actor]["Sex"].lower() if actor in actors else "unknown",
            intensity=CREMAD_LEVELS[level] if level in CREMAD_LEVELS else _rated_intensity(emotion, vote, winners),
            transcript=CREMAD_SENTENCES.get(sentence, ""),
            perceived={winner: 1 / len(winners) for winner in winners},
            age=_age(actors[actor].get("age", "")) if actor in actors else None,
        )

    return read_files(folder, parse)


def _age(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _rated_intensity(emotion: str, vote: Row | None, winners: list[str]) -> float | None:
    if vote is None or not winners:
        return None
    if emotion not in winners and "neutral" in winners:
        return CREMAD_RATED_NEUTRAL
    ratings = [float(rating) for rating in vote["VoiceLevel"].split(":")]
    return min(1.0, max(0.0, (sum(ratings) / len(ratings) - 30) / 60))


def _rows(table: Path, columns: tuple[str, ...], names: Any, quoted: bool = True) -> dict[str, Row]:
    """Rows of a table by the recordings' names in its first column; both sides may have more than the other."""
    rows = index_rows(read_table(table, columns, quoted=quoted), columns[0], table)
    return match_names(rows, sorted(names), table, complete=False)


def _read_table_corpus(
    folder: Folder, table: Path, columns: tuple[str, ...], make: Callable[[str, Path, Row], Utterance]
) -> Manifest:
    """Manifest of the recordings that a table names without their endings, quotes taken literally."""
    count = len(read_table(table, columns, quoted=False)) if table.exists() else 0
    rows = _rows(table, columns, [path.stem for path in audio_files(folder)], quoted=False)

    def parse(path: Path) -> Utterance | str:
        row = rows.get(path.stem)
        return f"not in {table.name}" if row is None else make(path.stem, path.relative_to(folder), row)

    manifest = read_files(folder, parse)
    absent = count - len(rows)
    return replace(
        manifest, skipped=manifest.skipped | ({f"named in {table.name}, no recording": absent} if absent else {})
    )


def read_nemo(folder: Folder) -> Manifest:
    """Read nEMO (Christop 2024, Polish, CC BY-NC-SA 4.0): `data.tsv` and `samples/WR0_surprised_64.wav`.

    Raises:
        DataError: the table is missing or broken, or names none of the recordings.
    """

    def make(name: str, path: Path, row: Row) -> Utterance:
        return make_utterance(
            "nemo",
            name,
            path,
            row["speaker_id"].strip(),
            canonical_label(row["emotion"]),
            gender=row["gender"].strip(),
            language="pl",
            transcript=row["raw_text"].strip(),
            age=_age(row.get("age", "")),
        )

    columns = ("file_id", "emotion", "speaker_id", "gender", "raw_text")
    return _read_table_corpus(folder, Path(folder, "data.tsv"), columns, make)


def read_spoken(folder: Folder) -> Manifest:
    """Read speech without emotion: `utterances.tsv` (id, speaker, text) and `audio/ID.*`, of real or synthetic voices.

    A diarizer learns from it that plain reading is neutral at any level, in any voice and recording.

    Raises:
        DataError: the table is missing or broken, or names none of the recordings.
    """

    def make(name: str, path: Path, row: Row) -> Utterance:
        return make_utterance("spoken", name, path, row["speaker"], "neutral", transcript=row["text"])

    return _read_table_corpus(folder, Path(folder, "utterances.tsv"), ("id", "speaker", "text"), make)


_LIBRISPEECH_NAME = re.compile(r"(?P<speaker>\d+)-\d+-\d{4}")


def read_librispeech(folder: Folder) -> Manifest:
    """Read LibriSpeech (Panayotov et al. 2015, CC BY 4.0), readings by volunteers: `19/198/19-198-0000.flac`.

    Every clip counts as neutral. `SPEAKERS.TXT`, anywhere below the folder, gives the gender.

    Raises:
        DataError: the folder is missing, or no file has a name of the corpus.
    """
    genders = {}
    for table in Path(folder).rglob("SPEAKERS.TXT"):
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = [field.strip() for field in line.split("|")]
            if not line.startswith(";") and len(fields) > 1 and fields[1] in ("F", "M"):
                genders[fields[0]] = {"F": "female", "M": "male"}[fields[1]]

    def parse(path: Path) -> Utterance | str:
        match = _LIBRISPEECH_NAME.fullmatch(path.stem)
        if match is None:
            return "not a LibriSpeech name"
        speaker = match["speaker"]
        return make_utterance(
            "librispeech", path.stem, path.relative_to(folder), speaker, "neutral",
            gender=genders.get(speaker, "unknown"),
        )  # fmt: skip

    return read_files(folder, parse)


IEMOCAP_EMOTIONS = {
    "neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry", "fru": "upset", "dis": "disgust",
    "fea": "fear", "sur": "surprise",
}  # fmt: skip
_IEMOCAP_RATING = re.compile(
    r"\[[\d.]+ - [\d.]+\]\s+(?P<name>Ses\w+)\s+(?P<emotion>[a-z]{3})\s+\[[\d.]+, (?P<activation>[\d.]+), [\d.]+\]"
)
_IEMOCAP_LINE = re.compile(r"(?P<name>Ses\w+) \[[\d.]+-[\d.]+\]: (?P<text>.*)")


def read_iemocap(folder: Folder) -> Manifest:
    """Read IEMOCAP (Busso et al. 2008) with the raters' majority.

    `SessionN/sentences/wav/...`, `SessionN/dialog/EmoEvaluation/*.txt` and `.../transcriptions/*.txt`. Excited counts
    as happy, frustrated as upset. Utterances without a majority (`xxx`) or rated as other are skipped. The intensity of
    an emotion is its activation, rated from 1 to 5, as 0 to 1.

    Raises:
        DataError: the folder is missing, or no recording has a rating.
    """
    root = Path(folder)
    ratings = {match["name"]: match for match in _matches(root, "EmoEvaluation", _IEMOCAP_RATING)}
    texts = {match["name"]: match["text"].strip() for match in _matches(root, "transcriptions", _IEMOCAP_LINE)}

    def parse(path: Path) -> Utterance | str:
        rating = ratings.get(path.stem)
        if rating is None:
            return "no rating (a whole dialog, or another file)"
        if rating["emotion"] not in IEMOCAP_EMOTIONS:
            return "raters disagree, or call it other"
        session, gender = path.stem[3:5], path.stem.rsplit("_", 1)[1][0]
        return make_utterance(
            "iemocap",
            path.stem,
            path.relative_to(root),
            f"{session}{gender}",
            IEMOCAP_EMOTIONS[rating["emotion"]],
            gender={"F": "female", "M": "male"}[gender],
            intensity=min(1.0, max(0.0, (float(rating["activation"]) - 1) / 4)),
            transcript=texts.get(path.stem, ""),
        )

    return read_files(folder, parse)


def _matches(root: Path, folder: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Matches at the start of each line of the text files in folders of that name."""
    files = sorted(path for path in root.rglob("*.txt") if path.parent.name == folder and not path.name.startswith("."))
    lines = (line for path in files for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [match for line in lines if (match := pattern.match(line))]


MELD_SPEAKERS = {
    "Monica": "female", "Phoebe": "female", "Rachel": "female", "Chandler": "male", "Joey": "male", "Ross": "male",
}  # fmt: skip


def read_meld(folder: Folder) -> Manifest:
    """Read MELD (Poria et al. 2019, GPL-3): `train_sent_emo.csv` and `train_splits/dia0_utt0.mp4`, also dev and test.

    Its splits share their speakers (the actors of Friends) and are not used. Clips outside the tables are ignored.

    Raises:
        DataError: a table is broken, names none of its clips, or is missing.
    """
    root, skipped, utterances = Path(folder), SkipCounter(), []
    columns = ("Dialogue_ID", "Utterance_ID", "Emotion", "Speaker", "Utterance")
    for part in ("train", "dev", "test"):
        table = next(iter(sorted(root.rglob(f"{part}_sent_emo.csv"))), None)
        if table is None:
            continue
        # folders are named train_splits, dev_splits_complete, output_repeated_splits_test
        clips = {
            path.stem: path.relative_to(root)
            for path in sorted(root.rglob("dia*_utt*"))
            if path.suffix.lower() in AUDIO_SUFFIXES and part in path.parent.name
        }
        listed = read_table(table, columns)
        named = [row | {"name": f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"} for row in listed]
        rows = index_rows(named, "name", table)
        matched = match_names(rows, list(clips), table, complete=False)
        skipped.skip("named in the table, no clip", len(rows) - len(matched))
        for name, row in matched.items():
            speaker = row["Speaker"].strip()
            utterances.append(
                make_utterance(
                    "meld",
                    f"{part}_{name}",
                    clips[name],
                    speaker,
                    canonical_label(row["Emotion"]),
                    gender=MELD_SPEAKERS.get(speaker, "unknown"),
                    transcript=row["Utterance"].strip(),
                )
            )
    return finish(folder, utterances, skipped)


def read_zed(folder: Folder) -> Manifest:
    """Read ZED, the Zaion Emotion Dataset (Wang et al. 2023, CC BY-NC 4.0), with its marked boundaries.

    `ZED.json` has entries `{"wav": "datafolder/...", "emotion": [{"emo": "angry", "start": s, "end": s}],
    "transcription": ...}`. An utterance is labelled by its first emotion and neutral outside its segments. The folder
    of a recording names the speaker; the gender is not given.

    Raises:
        DataError: `ZED.json` is missing or broken, or no recording is there.
    """
    root, table = Path(folder), Path(folder, "ZED.json")
    try:
        entries = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"ZED lacks its labels: {table} ({reason_of(error)}). Give the folder that holds ZED.json"
        ) from error
    skipped, utterances = SkipCounter(), []
    for name, entry in entries.items():
        path = Path(entry["wav"].replace("datafolder", "").lstrip("/"))
        if not (root / path).is_file():
            skipped.skip("named in ZED.json, no recording")
            continue
        spans = tuple(Span(float(e["start"]), float(e["end"]), canonical_label(e["emo"])) for e in entry["emotion"])
        emotion = spans[0].emotion if spans else "neutral"
        utterance = make_utterance(
            "zed", name, path, path.parent.name, emotion, segments=spans, transcript=entry.get("transcription", "")
        )
        utterances.append(replace(utterance, intensity=None))  # the segments have their own
    return finish(folder, utterances, skipped)


READERS: dict[str, Callable[[Folder], Manifest]] = {
    **{corpus: partial(read_named, corpus) for corpus in NAMED},
    "esd": read_esd,
    "crema-d": read_cremad,
    "nemo": read_nemo,
    "spoken": read_spoken,
    "librispeech": read_librispeech,
    "iemocap": read_iemocap,
    "meld": read_meld,
    "zed": read_zed,
}
"""Corpus -> reader of a folder as its publisher ships it."""
