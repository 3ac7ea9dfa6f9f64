"""The readers of speech emotion corpora by name, and the manifest of several with its splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sedtalker.data.manifest import Manifest, load_manifest, merge, split_by_speaker
from sedtalker.data.speech_corpora.cremad import read_cremad
from sedtalker.data.speech_corpora.emodb import read_emodb
from sedtalker.data.speech_corpora.emovdb import read_emovdb
from sedtalker.data.speech_corpora.esd import read_esd
from sedtalker.data.speech_corpora.iemocap import read_iemocap
from sedtalker.data.speech_corpora.jlcorpus import read_jlcorpus
from sedtalker.data.speech_corpora.meld import read_meld
from sedtalker.data.speech_corpora.nemo import read_nemo
from sedtalker.data.speech_corpora.ravdess import read_ravdess
from sedtalker.data.speech_corpora.savee import read_savee
from sedtalker.data.speech_corpora.spoken import read_spoken
from sedtalker.data.speech_corpora.tess import read_tess
from sedtalker.data.speech_corpora.zed import read_zed
from sedtalker.errors import DataError

READERS: dict[str, Callable[[str | os.PathLike[str]], Manifest]] = {
    "ravdess": read_ravdess,
    "crema-d": read_cremad,
    "nemo": read_nemo,
    "savee": read_savee,
    "tess": read_tess,
    "esd": read_esd,
    "emov-db": read_emovdb,
    "jl-corpus": read_jlcorpus,
    "iemocap": read_iemocap,
    "meld": read_meld,
    "emodb": read_emodb,
    "zed": read_zed,
    "spoken": read_spoken,
}
"""Corpus -> reader of a folder as its publisher ships it."""

PINNED = {"crema-d-1028": "validation", "nemo-EB0": "train"}
"""Sides that are not drawn: the demo's actor is never trained on, and nEMO keeps one more speaker for training."""


def add_corpus(path: Path, name: str, folder: str | os.PathLike[str], seed: int = 0) -> Manifest:
    """Add a corpus to the manifest in a file, which is made if it is not there; a corpus of that name is replaced.

    Every speaker gets one side of the split; the same seed gives the same split, in whatever order corpora come.

    Raises:
        DataError: an unknown corpus, a folder that does not hold it, or a file that is no manifest.
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
    """What a manifest holds and what its readers left out, a line a corpus and split."""
    clips = Counter((item.corpus, item.split) for item in manifest)
    speakers = Counter((corpus, split) for corpus, split, _ in {(i.corpus, i.split, i.speaker) for i in manifest})
    lines = [f"{c} {s}: {count} clips of {speakers[c, s]} speakers" for (c, s), count in sorted(clips.items())]
    lines += [f"left out: {count} ({reason})" for reason, count in sorted(manifest.skipped.items())]
    return "\n".join(lines)
