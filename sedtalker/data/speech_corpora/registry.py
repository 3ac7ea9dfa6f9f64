"""Manifest of several speech emotion corpora with its splits."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sedtalker.data.manifest import Manifest, load_manifest, merge, split_by_speaker
from sedtalker.data.speech_corpora.readers import READERS
from sedtalker.errors import DataError

BENCHMARK_ACTORS = (1002, 1015, 1018, 1021, 1027, 1029, 1038, 1039, 1042, 1047, 1051, 1055, 1068, 1069)
ORDINARY_READERS = (367, 533, 1688, 1998, 2033, 2414, 2609, 3005, 3080, 3331)
PINNED = {
    "crema-d-1028": "validation", "nemo-EB0": "train",
    **{f"crema-d-{actor}": "test" for actor in BENCHMARK_ACTORS},
    **{f"librispeech-{reader}": "validation" for reader in ORDINARY_READERS},
}  # fmt: skip
"""Splits that are not random: the actors of the demo and of the benchmark (`data.frame_benchmark`) are never
trained on, nEMO keeps one more speaker for training, and LibriSpeech's test-other decides about ordinary speech."""


def add_corpus(path: Path, name: str, folder: str | os.PathLike[str], seed: int = 0) -> Manifest:
    """Add a corpus to the manifest in a file, or replace it there; the file is created if it is missing.

    All recordings of a speaker are in one split. The same seed gives the same split for any order of the corpora.

    Raises:
        DataError: the corpus is unknown, the folder does not hold it, or the file is not a manifest.
    """
    if name not in READERS:
        raise DataError(f"unknown corpus: {name}. Use: {', '.join(READERS)}")
    manifest = READERS[name](folder)
    if path.exists():
        earlier = load_manifest(path)
        others = [item for item in earlier if item.corpus != name]
        manifest = merge([replace(earlier, utterances=others), manifest]) if others else manifest
    manifest = split_by_speaker(manifest, seed=seed, pinned=PINNED)
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.save(path)
    return manifest


def summary(manifest: Manifest) -> str:
    """Clips and speakers of a manifest by corpus and split, and the files its readers skipped, one line each."""
    clips = Counter((item.corpus, item.split) for item in manifest)
    speakers = Counter((corpus, split) for corpus, split, _ in {(i.corpus, i.split, i.speaker) for i in manifest})
    lines = [f"{c} {s}: {count} clips of {speakers[c, s]} speakers" for (c, s), count in sorted(clips.items())]
    lines += [f"left out: {count} ({reason})" for reason, count in sorted(manifest.skipped.items())]
    return "\n".join(lines)
