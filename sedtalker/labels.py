"""Names of the emotions, their aliases in corpora and in common use, and their colours."""

from __future__ import annotations

from collections.abc import Sequence

from sedtalker.errors import TrackError

LABELS: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "upset", "disgust", "fear", "surprise")
"""Labels of the default model, in the order of the columns of its posterior."""

NEUTRAL = LABELS.index("neutral")

ALIASES: dict[str, str] = {
    "neu": "neutral", "calm": "neutral",
    "happiness": "happy", "happiest": "happy", "joy": "happy", "hap": "happy", "smile": "happy", "smile2": "happy",
    "excited": "happy",
    "sadness": "sad", "sad1": "sad",
    "anger": "angry", "ang": "angry", "irritated": "angry", "irritated1": "angry",
    "frustrated": "upset", "frustration": "upset",
    "dis": "disgust", "disgusted": "disgust",
    "fearful": "fear", "fea": "fear", "afraid": "fear",
    "surprised": "surprise",
}  # fmt: skip
"""Aliases of the labels, in lower case."""


COLORS: dict[str, str] = {
    "neutral": "#8a93a0", "happy": "#f0bc42", "sad": "#5488ce", "angry": "#d84e44", "upset": "#d07a54",
    "disgust": "#7ca658", "fear": "#9670c8", "surprise": "#52bcba",
}  # fmt: skip
"""Colour of each label in pictures, for dark and for white backgrounds."""

_SPARE_COLORS = ("#c9a27c", "#9fb6c9", "#c3c96a", "#d08f8f")  # for labels that the default model does not have


def canonical_label(name: str, labels: Sequence[str] = LABELS) -> str:
    """The label for a name or an alias: "Happiness" -> "happy".

    Names in `labels` have priority over aliases, so that a corpus can have a label that is in `ALIASES`.

    Raises:
        TrackError: the name is unknown.
    """
    if not isinstance(name, str):
        raise TrackError(f"an emotion must be a name: {name!r}. Use one of: {', '.join(labels)}")
    key = name.strip().casefold()
    by_name = {label.casefold(): label for label in reversed(labels)}
    label = name if name in labels else by_name.get(key) or by_name.get(ALIASES.get(key, key))
    if label is None:
        raise TrackError(f"unknown emotion: {name!r}. Use one of: {', '.join(labels)}")
    return label


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check that labels are different names that include "neutral"; returns them as a tuple.

    Raises:
        TrackError: they are not.
    """
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    if not all(isinstance(name, str) and name for name in names) or "neutral" not in names:
        raise TrackError(f"labels {list(names)}: need a list of names with neutral among them")
    if len(set(names)) < len(names):
        raise TrackError(f"labels {list(names)}: a name occurs twice. Give each emotion one name")
    return names


def label_columns(source: Sequence[str], target: Sequence[str]) -> list[int | None]:
    """For each label of `source` its column in a posterior over `target`; None if `target` does not have it."""
    columns: list[int | None] = []
    for name in source:
        try:
            columns.append(list(target).index(canonical_label(name, target)))
        except TrackError:
            columns.append(None)
    return columns


def label_colors(labels: Sequence[str]) -> list[str]:
    """CSS colours (C,) of labels, also of other models' labels."""
    others = [label for label in labels if label not in COLORS]
    return [COLORS.get(label) or _SPARE_COLORS[others.index(label) % len(_SPARE_COLORS)] for label in labels]
