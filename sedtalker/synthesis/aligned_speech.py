"""Speech with known phones, to be animated by rules: folders of spoken sentences, and aligned corpora."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sedtalker.data.alignment import align_corpus
from sedtalker.data.manifest import Manifest, Utterance, load_manifest
from sedtalker.data.speech_corpora.readers import read_spoken
from sedtalker.data.tables import Row, match_names, read_table
from sedtalker.phones import Phone, read_phones, write_phones

PhoneTable = Mapping[str, Sequence[Phone]]  # recording's id -> its phones

HELD_OUT_SPEAKERS = {"validation": 2, "test": 2}  # of a folder of spoken sentences; the others are for training


@dataclass(frozen=True)
class AlignedUtterance:
    """One recording with its phones."""

    id: str  # also a file name
    audio: str  # path
    speaker: str
    source: str  # corpus
    split: str
    language: str
    phones: Sequence[Phone]
    acted: Utterance | None = None  # entry of an acted corpus, where the emotion is known


def read_spoken_folder(folder: Path) -> Iterator[AlignedUtterance]:
    """Read a folder of spoken sentences: `utterances.tsv` (id, speaker, text), `audio/ID.*` and `phones.tsv`.

    With more than four speakers, two are for validation and two for testing. Recordings without phones are skipped.

    Raises:
        DataError: a table is missing or broken, or does not fit the recordings.
    """
    manifest = read_spoken(folder)
    ids = {item.id: item.id.removeprefix("spoken/") for item in manifest}
    table = folder / "phones.tsv"
    phones: PhoneTable = match_names(read_phones(table), list(ids.values()), table, complete=False)
    speakers = sorted({item.speaker for item in manifest})
    held_out = [split for split, count in HELD_OUT_SPEAKERS.items() for _ in range(count)]
    held_out = held_out if len(speakers) > len(held_out) else []
    splits = dict(zip(speakers[len(speakers) - len(held_out) :], held_out, strict=True))
    for item in manifest:
        name, split = ids[item.id], splits.get(item.speaker, "train")
        if name in phones:
            speaker, path = item.speaker.removeprefix("spoken-"), str(manifest.audio(item))
            yield AlignedUtterance(name, path, speaker, "tts", split, item.language, phones[name])


def select_aligned(manifest: Manifest, phones: PhoneTable) -> Iterator[AlignedUtterance]:
    """Recordings of acted corpora that have phones."""
    for item in manifest:
        if item.id in phones:
            name, path = item.id.replace("/", "_"), str(manifest.audio(item))
            yield AlignedUtterance(
                name, path, item.speaker, item.corpus, item.split, item.language, phones[item.id], item
            )


def read_grid_manifest(folder: Path) -> Manifest:
    """Read GRID's sentences (`s1/ID.opus`) with the transcripts of its table of words."""
    words: dict[str, list[str]] = defaultdict(list)
    for row in read_grid_words(folder):
        words[row["id"]].append(row["word"])
    utterances = [
        Utterance(f"grid/{name}", f"s1/{name}.opus", "grid", "grid-s1", "male", "en", "neutral", transcript=" ".join(w))
        for name, w in words.items()
    ]
    return Manifest(str(folder), utterances)


def read_grid_words(folder: Path) -> list[Row]:
    """Read the rows (id, word, start, end) of GRID's own alignment, without pauses."""
    rows = read_table(folder / "s1_words.tsv", ("id", "word", "start", "end"), quoted=False)
    return [row for row in rows if row["word"] not in ("sil", "sp")]


def align_manifests(manifests: Iterable[Manifest], tables: Iterable[Path], cache: Path) -> dict[str, Sequence[Phone]]:
    """Phones by recording, from tables and an earlier run's `cache`; all others are aligned and added to the cache.

    Raises:
        DataError: a table is missing or broken.
    """
    phones: dict[str, Sequence[Phone]] = {}
    for table in [*tables, cache] if cache.exists() else tables:
        phones |= read_phones(table)
    aligned: dict[str, tuple[Phone, ...]] = {}
    for manifest in manifests:
        missing = [item for item in manifest if item.id not in phones and item.transcript]
        if missing:
            aligned |= align_corpus(Path(manifest.root), missing)[0]
    if aligned:
        earlier = read_phones(cache) if cache.exists() else {}
        write_phones(cache, earlier | aligned)
    return phones | aligned


def read_limited_manifest(path: Path, limit: int | None = None) -> Manifest:
    """Read a manifest, with at most `limit` recordings of each corpus, spread evenly over its list.

    Raises:
        DataError: the file is not a manifest.
    """
    manifest = load_manifest(path)
    if limit is None:
        return manifest
    utterances = []
    for corpus in sorted({item.corpus for item in manifest}):
        items = [item for item in manifest if item.corpus == corpus]
        utterances += items[:: max(1, -(-len(items) // limit))][:limit]
    return replace(manifest, utterances=utterances)
