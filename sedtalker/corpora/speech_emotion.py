"""The readers of speech emotion corpora by name, and the manifest of several with its splits.

`python -m sedtalker.corpora.speech_emotion ravdess=DIR crema-d=DIR nemo=DIR spoken=DIR -o manifest.json` makes the
manifest that the packaged diarizers were trained with.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from sedtalker.corpora.cremad import read_cremad
from sedtalker.corpora.emodb import read_emodb
from sedtalker.corpora.emovdb import read_emovdb
from sedtalker.corpora.esd import read_esd
from sedtalker.corpora.iemocap import read_iemocap
from sedtalker.corpora.jlcorpus import read_jlcorpus
from sedtalker.corpora.manifest import Manifest, merge, split_by_speaker
from sedtalker.corpora.meld import read_meld
from sedtalker.corpora.nemo import read_nemo
from sedtalker.corpora.ravdess import read_ravdess
from sedtalker.corpora.savee import read_savee
from sedtalker.corpora.spoken import read_spoken
from sedtalker.corpora.tess import read_tess
from sedtalker.corpora.zed import read_zed
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


def prepare_speech(folders: Mapping[str, str | os.PathLike[str]], seed: int = 0) -> Manifest:
    """One manifest of corpora by name, split by speaker; the same seed gives the same split.

    Raises:
        DataError: an unknown corpus, or a folder that does not hold it.
    """
    unknown = sorted(set(folders) - set(READERS))
    if unknown or not folders:
        raise DataError(f"unknown corpus: {', '.join(unknown) or 'none given'}. Use: {', '.join(READERS)}")
    manifests = [READERS[name](folder) for name, folder in folders.items()]
    return split_by_speaker(merge(manifests), seed=seed, pinned=PINNED)


def summary(manifest: Manifest) -> str:
    """What a manifest holds and what its readers left out, a line a corpus and split."""
    clips = Counter((item.corpus, item.split) for item in manifest)
    speakers = Counter((corpus, split) for corpus, split, _ in {(i.corpus, i.split, i.speaker) for i in manifest})
    lines = [f"{c} {s}: {count} clips of {speakers[c, s]} speakers" for (c, s), count in sorted(clips.items())]
    lines += [f"left out: {count} ({reason})" for reason, count in sorted(manifest.skipped.items())]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", nargs="+", metavar="NAME=DIR")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    manifest = prepare_speech(dict(entry.partition("=")[::2] for entry in arguments.corpora), arguments.seed)
    manifest.save(arguments.output)
    print(summary(manifest))


if __name__ == "__main__":
    main()
