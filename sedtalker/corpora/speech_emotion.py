"""The readers of speech emotion corpora, by the name that `sedtalker data prepare` takes."""

from __future__ import annotations

import os
from collections.abc import Callable

from sedtalker.corpora.cremad import read_cremad
from sedtalker.corpora.emodb import read_emodb
from sedtalker.corpora.emovdb import read_emovdb
from sedtalker.corpora.esd import read_esd
from sedtalker.corpora.iemocap import read_iemocap
from sedtalker.corpora.jlcorpus import read_jlcorpus
from sedtalker.corpora.manifest import Manifest
from sedtalker.corpora.meld import read_meld
from sedtalker.corpora.nemo import read_nemo
from sedtalker.corpora.ravdess import read_ravdess
from sedtalker.corpora.savee import read_savee
from sedtalker.corpora.tess import read_tess
from sedtalker.corpora.zed import read_zed

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
}
"""Corpus -> reader of a folder as its publisher ships it."""
