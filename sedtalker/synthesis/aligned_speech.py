"""Speech whose phones are known, from where made motion comes: folders with phone tables, and aligned corpora.

A folder holds `utterances.tsv` (id, speaker, text), `audio/ID.*` and `phones.tsv` (a table of
`sedtalker.data.alignment`); without the table it is aligned, as a corpus of a manifest is, by its transcripts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sedtalker.data.alignment import align_corpus
from sedtalker.data.manifest import Manifest, Utterance, load_manifest
from sedtalker.data.speech_corpora.readers import read_spoken
from sedtalker.data.tables import match_names, read_table
from sedtalker.phones import Phone, read_phones, write_phones

AlignedUtterance = Mapping[str, Sequence[Phone]]  # phones by the id of a recording

SPOKEN_SIDES = {"validation": 2, "test": 2}  # speakers of a folder; the others are for training


@dataclass(frozen=True)
class AlignmentTable:
    """One recording with its phones."""

    id: str  # fit for a file's name
    audio: str
    speaker: str
    source: str  # of which corpus
    split: str
    language: str
    phones: Sequence[Phone]
    acted: Utterance | None = None  # where the emotion is known


def spoken_folder(folder: Path, source: str = "tts") -> Iterator[AlignmentTable]:
    """The recordings of a folder with a table of phones: four speakers for validation and testing, others to train."""
    known: AlignedUtterance = read_phones(folder / "phones.tsv")
    manifest = read_spoken(folder)
    named = [item.id.removeprefix("spoken/") for item in manifest]
    known = match_names(known, named, folder / "phones.tsv", complete=False)
    speakers = sorted({item.speaker for item in manifest})
    held = sum(SPOKEN_SIDES.values()) if len(speakers) > sum(SPOKEN_SIDES.values()) else 0
    sides = dict(zip(speakers[len(speakers) - held :], _sides(), strict=False))
    for item in manifest:
        identity = item.id.removeprefix("spoken/")
        if identity in known:
            speaker, side = item.speaker.removeprefix("spoken-"), sides.get(item.speaker, "train")
            sound = str(manifest.audio(item))
            yield AlignmentTable(identity, sound, speaker, source, side, item.language, known[identity])


def acted_speech(manifest: Manifest, known: AlignedUtterance) -> Iterator[AlignmentTable]:
    """The recordings of a manifest whose phones are known, with what their speakers acted."""
    for item in manifest:
        if item.id in known:
            sound = str(manifest.audio(item))
            name = item.id.replace("/", "_")
            yield AlignmentTable(
                name, sound, item.speaker, item.corpus, item.split, item.language, known[item.id], item
            )


def grid_manifest(folder: Path) -> Manifest:
    """GRID's sentences (`s1/ID.opus`) as its own table of words has them, to be aligned."""
    said: dict[str, list[str]] = defaultdict(list)
    for row in grid_words(folder):
        said[row["id"]].append(row["word"])
    utterances = [
        Utterance(f"grid/{name}", f"s1/{name}.opus", "grid", "grid-s1", "male", "en", "neutral", transcript=" ".join(w))
        for name, w in said.items()
    ]
    return Manifest(str(folder), utterances)


def grid_words(folder: Path) -> list[dict[str, str]]:
    """Rows (id, word, start, end) of GRID's own alignment, without its pauses."""
    rows = read_table(folder / "s1_words.tsv", ("id", "word", "start", "end"), quoted=False)
    return [row for row in rows if row["word"] not in ("sil", "sp")]


def known_phones(manifests: Iterable[Manifest], tables: Iterable[Path], cache: Path) -> dict[str, Sequence[Phone]]:
    """Phones by recording: of tables and of an earlier run's `cache`, and of the rest by alignment, kept in `cache`."""
    held = [*tables, cache] if cache.exists() else list(tables)
    known: dict[str, Sequence[Phone]] = {}
    for table in held:
        known |= read_phones(table)
    added: dict[str, tuple[Phone, ...]] = {}
    for manifest in manifests:
        missing = [item for item in manifest if item.id not in known and item.transcript]
        if missing:
            added |= align_corpus(Path(manifest.root), missing)[0]
    if added:
        own = read_phones(cache) if cache.exists() else {}
        write_phones(cache, own | added)
    return known | added


def most_of(manifest: Manifest, most: int | None) -> Manifest:
    """At most so many recordings of each corpus, spread over its list."""
    if most is None:
        return manifest
    kept = []
    for corpus in sorted({item.corpus for item in manifest}):
        items = [item for item in manifest if item.corpus == corpus]
        kept += items[:: max(1, -(-len(items) // most))][:most]
    return replace(manifest, utterances=kept)


def opened(path: Path, most: int | None = None) -> Manifest:
    """The manifest of acted corpora, bounded."""
    return most_of(load_manifest(path), most)


def _sides() -> list[str]:
    return [side for side, count in SPOKEN_SIDES.items() for _ in range(count)]
