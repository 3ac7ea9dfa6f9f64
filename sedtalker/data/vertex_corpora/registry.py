"""The readers of face-mesh corpora by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sedtalker.data.vertex_corpora.biwi import read_biwi
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.data.vertex_corpora.own import read_own
from sedtalker.data.vertex_corpora.sequences import VertexSource
from sedtalker.data.vertex_corpora.vocaset import read_vocaset
from sedtalker.errors import DataError

_READERS: dict[str, Callable[[Path, Path | None, bool], VertexSource]] = {
    "emovoca": read_emovoca,
    "vocaset": lambda folder, templates, every: read_vocaset(folder),
    "biwi": lambda folder, templates, every: read_biwi(folder, templates),
    "own": lambda folder, templates, every: read_own(folder, templates),
}
CORPORA = tuple(_READERS)


def read_corpus(name: str, folder: Path, templates: Path | None = None, all_expressions: bool = False) -> VertexSource:
    """Read the sequences of a corpus.

    Args:
        name: one of `CORPORA`.
        folder: the folder that the publisher's archive unpacks to.
        templates: templates.pkl, or the mesh of your own data; None: search in the folder.
        all_expressions: include EmoVOCA's expressions that have no label.

    Raises:
        DataError: an unknown corpus, or a folder that does not contain it.
    """
    if name not in _READERS:
        raise DataError(f"unknown corpus: {name}. Use one of {', '.join(CORPORA)}")
    return _READERS[name](folder, templates, all_expressions)
