"""EmoVOCA (Nocentini et al. 2025, CC BY-NC 4.0): VOCASET's sentences spoken with Florence 4D's expressions.

Three layouts are read:

    the generator's   New_EmoVOCA/sequences/SUBJECT_sentenceNN_EXPRESSION_LEVEL.npy (T, 5023, 3) float64; label/ and
                      intensity/ (a one-number .npy of the same name); wav/ (the sentence's audio, same name again)
    SEDTalker's       EmoVOCA/sequences/, and EmoVOCA/wav/SUBJECT_sentenceNN.wav for all variants of the sentence
    FaceFormer's      vertices_npy/ (T, 15069) float32, wav/, templates/FLAME_sample.ply; also VOCASET's plain sentences

each with `templates.pkl` (subject -> (V, 3)), in the folder or above it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sedtalker.audio import AudioSource
from sedtalker.data.safe_files import open_array
from sedtalker.data.vertex_corpora.sequences import VertexSequence, VertexSource
from sedtalker.data.vertex_corpora.templates import read_templates, read_triangles
from sedtalker.data.vertex_corpora.vocaset import missing_sentences, split_of
from sedtalker.errors import DataError
from sedtalker.inputs import AUDIO_SUFFIXES

EXPRESSIONS: dict[str, tuple[int, str | None]] = {
    "Afraid": (0, "fear"), "Disgust": (1, "disgust"), "Irritated1": (2, "angry"), "Sad1": (3, "sad"),
    "Smile2": (4, "happy"), "Drunk2": (5, None), "Ill": (6, None), "Moody": (7, None), "Pleased": (8, None),
    "Suspicious": (9, None), "Upset": (10, "upset"),
}  # fmt: skip
"""EmoVOCA's expression -> its number in `label/`, and the model's label (None: it has none)."""

LEVELS = 3  # levels 1, 2, 3 are intensities 1/3, 2/3, 1

_NAME = re.compile(r"(?P<subject>.+)_(?P<sentence>sentence\d+)(?:_(?P<expression>[A-Za-z]+\d?)_(?P<level>\d+))?")


def read_emovoca(
    source: Path | str, templates: Path | str | None = None, all_expressions: bool = False
) -> VertexSource:
    """Find the sequences of EmoVOCA in any of its three layouts.

    Expressions without a label of the model are left out unless `all_expressions`; then they go by their own name in
    lower case. `templates` is the path of `templates.pkl` if it is in another folder.

    Raises:
        DataError: no layout is recognised, or the templates are missing.
    """
    root, folder, layout = _layout(Path(source))
    sounds = _sounds(root / "wav")
    found = VertexSource(
        "emovoca", root, (60.0, 30.0), [], sounds, read_templates(root, templates), read_triangles(root)
    )
    found.notes.append(f"layout: {layout}, {folder}")
    left_out: defaultdict[str, int] = defaultdict(int)
    for path in sorted(folder.glob("*.npy")):
        try:
            sequence = _sequence(path, sounds)
            check_labels(root, sequence)
        except DataError as error:
            found.refused[path.name] = str(error)
            continue
        if sequence.expression and EXPRESSIONS[sequence.expression][1] is None and not all_expressions:
            left_out[sequence.expression] += 1
            continue
        found.sequences.append(sequence)
    if left_out:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(left_out.items()))
        found.notes.append(f"left out, since the model has no label for them: {counts} (--all-expressions keeps them)")
    found.missing += missing_sentences(found.sequences) + _missing_variants(found.sequences)
    return found


def parse_name(stem: str) -> tuple[str, str, str, int]:
    """Subject, sentence, expression and level of a file's name; "" and 0 for a plain VOCASET sentence.

    Raises:
        DataError: the name is not one of EmoVOCA.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise DataError(f"not an EmoVOCA name: {stem}. Name files SUBJECT_sentenceNN_EXPRESSION_LEVEL")
    subject, sentence, expression, level = match.groups()
    if expression is None:
        return subject, sentence, "", 0
    if expression not in EXPRESSIONS:
        raise DataError(f"unknown expression {expression!r}: {stem}. Known: {', '.join(EXPRESSIONS)}")
    if not 1 <= int(level) <= LEVELS:
        raise DataError(f"level {level}: {stem}. EmoVOCA's levels are 1 to {LEVELS}")
    return subject, sentence, expression, int(level)


def emotion_of(expression: str, level: int) -> tuple[str, float]:
    """The model's label and intensity of EmoVOCA's expression and level; neutral for a plain sentence."""
    if not expression:
        return "neutral", 0.0
    return EXPRESSIONS[expression][1] or expression.lower(), level / LEVELS


def _layout(source: Path) -> tuple[Path, Path, str]:
    """The corpus's own folder, the one with its vertices, and the layout's name."""
    if not source.is_dir():
        raise DataError(f"no such folder: {source}. Give the folder that EmoVOCA was unpacked to")
    for root in (source, source / "New_EmoVOCA", source / "EmoVOCA"):
        if (root / "sequences").is_dir():
            generated = (root / "label").is_dir() and (root / "intensity").is_dir()
            return root, root / "sequences", "EmoVOCA generator's" if generated else "SEDTalker's"
        if (root / "vertices_npy").is_dir():
            return root, root / "vertices_npy", "FaceFormer's"
    raise DataError(
        f"not EmoVOCA: {source} holds neither sequences/ nor vertices_npy/. "
        "Give the folder that New_EmoVOCA.zip or EmoVOCA.zip was unpacked to"
    )


def _sounds(folder: Path) -> dict[str, AudioSource]:
    """The sounds by file name, and by SUBJECT_sentenceNN where the first copy of a sentence's sound serves all."""
    files = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix.lower() in AUDIO_SUFFIXES}
    sounds: dict[str, AudioSource] = dict(files)
    for stem, path in files.items():
        match = _NAME.fullmatch(stem)
        if match:
            sounds.setdefault(_sentence_key(match["subject"], match["sentence"]), path)
    return sounds


def _sentence_key(subject: str, sentence: str) -> str:
    return f"{subject}_{sentence}"


def _sequence(path: Path, sounds: Mapping[str, AudioSource]) -> VertexSequence:
    subject, sentence, expression, level = parse_name(path.stem)
    emotion, intensity = emotion_of(expression, level)
    sound = _sentence_key(subject, sentence)
    sizes = {Path(str(sounds[key])).stat().st_size for key in (path.stem, sound) if path.stem in sounds}
    if len(sizes) > 1:
        sound = path.stem  # no copy of the sentence's sound after all
    return VertexSequence(
        id=path.stem,
        subject=subject,
        sentence=sentence,
        vertices=path,
        sound=sound,
        split=split_of(subject, sentence),
        emotion=emotion,
        intensity=intensity,
        expression=expression,
        level=level,
    )


def check_labels(root: Path, sequence: VertexSequence) -> None:
    """Compare a sequence's name with its files in `label/` and `intensity/`.

    Raises:
        DataError: they disagree, or one cannot be read.
    """
    if not sequence.expression:
        return
    named = {"label": EXPRESSIONS[sequence.expression][0], "intensity": sequence.level}
    for kind, wanted in named.items():
        path = root / kind / f"{sequence.id}.npy"
        if not path.is_file():
            continue
        stored = open_array(path)
        if stored.size != 1 or int(stored.reshape(-1)[0]) != wanted:
            raise DataError(f"{kind}/ has {stored.reshape(-1)[:1]}, the name {wanted}: {path}. Correct one of them")


def _missing_variants(sequences: list[VertexSequence]) -> list[str]:
    """Expressions and levels that other sentences have and a sentence lacks."""
    variants = defaultdict(set)
    for sequence in sequences:
        if sequence.expression:
            variants[sequence.subject, sequence.sentence].add((sequence.expression, sequence.level))
    whole = set().union(*variants.values()) if variants else set()
    return [
        f"{subject} {sentence}: {', '.join(f'{name}_{level}' for name, level in sorted(whole - held))}"
        for (subject, sentence), held in sorted(variants.items())
        if held != whole
    ]
