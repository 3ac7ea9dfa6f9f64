"""Manifest of speech corpora: speaker, transcript, emotion, file and split of every utterance."""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sedtalker.errors import DataError, reason_of
from sedtalker.files import atomic_write, read_text
from sedtalker.inputs import AUDIO_SUFFIXES

VERSION = 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Span:
    """An emotion with marked boundaries inside an utterance, in seconds."""

    start: float
    end: float
    emotion: str
    intensity: float | None = None


@dataclass(frozen=True)
class Utterance:
    """One recording of one speaker."""

    id: str  # unique over corpora: "ravdess/03-01-05-02-01-01-07"
    path: str  # relative to the manifest's root
    corpus: str
    speaker: str  # unique over corpora: "ravdess-07"
    gender: str  # female, male or unknown
    language: str  # ISO 639-1
    emotion: str  # a label of the model; the emotion that the speaker acted
    intensity: float | None = None  # 0..1; None if the corpus does not give it
    segments: tuple[Span, ...] = ()  # empty: the emotion holds throughout
    transcript: str = ""
    perceived: dict[str, float] = field(default_factory=dict)  # listeners' votes: label -> share
    split: str = "train"
    age: int | None = None  # years; None: unknown
    channel: str = ""  # how it was recorded: "studio", "phone or laptop" ...; "": unknown


@dataclass
class Manifest:
    """Utterances below one folder, and the number of skipped files by reason."""

    root: str
    utterances: list[Utterance]
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> number of files

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def audio(self, utterance: Utterance) -> Path:
        """Path of an utterance's recording."""
        return Path(self.root, utterance.path)

    def select(self, *splits: str) -> list[Utterance]:
        """The utterances of the named splits, in the manifest's order."""
        return [utterance for utterance in self.utterances if utterance.split in splits]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON with an absolute root."""
        document = {"version": VERSION, **asdict(self), "root": str(Path(self.root).resolve())}
        with atomic_write(Path(path)) as temp_path:
            temp_path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


class SkipCounter(Counter[str]):
    """Counts the files that a reader skips, by reason."""

    def skip(self, reason: str, count: int = 1) -> None:
        """Count skipped files."""
        if count:
            self[reason] += count


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest written by `Manifest.save`.

    Raises:
        DataError: the file is missing, is not a manifest, or was written by a later version.
    """
    try:
        document = json.loads(read_text(path))
        version = document["version"]
        utterances = [
            Utterance(**entry | {"segments": tuple(Span(**span) for span in entry["segments"])})
            for entry in document["utterances"]
        ]
        manifest = Manifest(document["root"], utterances, document["skipped"])
    except OSError as error:
        raise DataError(
            f"manifest cannot be read: {path} ({error.strerror}). Write one with: sedtalker data prepare"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a manifest: {path} ({reason_of(error)}). Write one with: sedtalker data prepare"
        ) from error
    if version != VERSION:
        raise DataError(f"manifest of version {version}: {path}. Write it again with: sedtalker data prepare")
    return manifest


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """One manifest of several corpora; paths become relative to the folder that holds them all."""
    manifests = list(manifests)
    root = os.path.commonpath([str(Path(manifest.root).resolve()) for manifest in manifests])
    utterances = []
    skipped: Counter[str] = Counter()
    for manifest in manifests:
        prefix = Path(manifest.root).resolve().relative_to(root)
        utterances += [replace(item, path=str(prefix / item.path)) for item in manifest]
        skipped.update(manifest.skipped)
    return Manifest(root, utterances, dict(skipped))


def split_by_speaker(
    manifest: Manifest, test: float = 0.2, validation: float = 0.1, seed: int = 0, pinned: dict[str, str] | None = None
) -> Manifest:
    """Assign every speaker with all utterances to one split.

    Speakers are drawn within each corpus and gender, so every split has both genders; shares are rounded to whole
    speakers. If a corpus has fewer than three speakers of a gender, all of them are for training.

    Args:
        test, validation: shares of the speakers.
        pinned: splits of speakers that are not drawn.
    """
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in manifest:
        groups[item.corpus, item.gender].add(item.speaker)
    side: dict[str, str] = {}
    for key, speakers in sorted(groups.items()):
        order = sorted(speakers)
        random.Random(f"{seed}/{key}").shuffle(order)
        side.update(zip(order, _sides(len(order), test, validation), strict=True))
    side.update(pinned or {})
    return replace(manifest, utterances=[replace(item, split=side[item.speaker]) for item in manifest])


def _sides(speakers: int, test: float, validation: float) -> list[str]:
    if speakers < 3:
        return ["train"] * speakers
    tests, validations = round(test * speakers), max(1, round(validation * speakers))
    return ["test"] * tests + ["validation"] * validations + ["train"] * (speakers - tests - validations)


def audio_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Every audio file below a folder, sorted. Raises DataError if the folder is missing or holds no audio."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"no such folder: {folder}. Give the folder as its publisher ships it")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not found:
        raise DataError(f"no audio below: {folder}. Give the folder as its publisher ships it")
    return found


def finish(folder: str | os.PathLike[str], utterances: list[Utterance], skipped: Counter[str]) -> Manifest:
    """Manifest from a reader's results. An empty one is an error, because the folder holds something else.

    Raises:
        DataError: no file was recognised.
    """
    if not utterances:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no file"
        raise DataError(f"nothing recognised in: {folder} ({reasons}). Check the name of the corpus")
    return Manifest(str(Path(folder).resolve()), utterances, dict(skipped))
