"""BIWI 3D Audiovisual Corpus (Fanelli et al. 2010) in FaceFormer's layout: 25 Hz, 23,370 vertices or 3,895 of them.

    vertices_npy/F2_e37.npy   (T, 70110) or (T, V, 3)
    wav/F2_e37.wav
    templates.pkl             subject -> (V, 3)

Sentences 01-40 are spoken neutrally, e01-e40 emotionally. The corpus is licensed by ETH Zurich for research.
"""

from __future__ import annotations

import re
from pathlib import Path

from sedtalker.data.vertex_corpora.sequences import UNUSED, VertexSequence, VertexSource
from sedtalker.data.vertex_corpora.templates import read_templates
from sedtalker.errors import DataError

SEEN = frozenset(["F2", "F3", "F4", "M3", "M4", "M5"])  # subjects of training and validation
UNSEEN = frozenset(["F1", "F5", "F6", "F7", "F8", "M1", "M2", "M6"])  # subjects of the test

_NAME = re.compile(r"(?P<subject>[FM]\d+)_(?P<sentence>e?\d{1,2})")


def split_of(subject: str, sentence: str) -> str:
    """FaceFormer's protocol on the emotional sentences: unseen subjects speaking sentences 37 to 40 are the test."""
    number = int(sentence.lstrip("e"))
    if subject in UNSEEN:
        return "test" if number >= 37 else UNUSED
    if subject not in SEEN or number > 36:
        return UNUSED
    return "train" if number <= 32 else "validation"


def read_biwi(source: Path | str, templates: Path | str | None = None) -> VertexSource:
    """Find the sequences of BIWI; the emotion of its emotional sentences is not given, so every one counts as neutral.

    Raises:
        DataError: the layout is not recognised, or the templates are missing.
    """
    root = Path(source)
    folder = root / "vertices_npy"
    if not folder.is_dir():
        raise DataError(f"not BIWI: {root} holds no vertices_npy/. Convert the .vl files as FaceFormer describes")
    sounds = {path.stem: path for path in sorted((root / "wav").glob("*.wav"))}
    found = VertexSource("biwi", root, (25.0,), [], sounds, read_templates(root, templates))
    found.notes.append(f"layout: FaceFormer's, {folder}")
    for path in sorted(folder.glob("*.npy")):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            found.refused[path.name] = "not a BIWI name. They read F2_e37.npy"
            continue
        subject, sentence = match["subject"], match["sentence"]
        found.sequences.append(
            VertexSequence(path.stem, subject, sentence, path, path.stem, split=split_of(subject, sentence))
        )
    silent = [sequence.id for sequence in found.sequences if sequence.id not in sounds]
    found.missing += [f"sound of {name}" for name in silent]
    found.missing += [f"vertices of {name}" for name in sorted(set(sounds) - {s.id for s in found.sequences})]
    return found
