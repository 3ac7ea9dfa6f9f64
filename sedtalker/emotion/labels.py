"""The emotions' names, the model's own and what people and corpora call them, and their colours."""

from __future__ import annotations

from sedtalker.errors import TrackError

LABELS: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "upset", "disgust", "fear", "surprise")
"""Labels of the default model, in the order of every posterior's columns."""

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
"""Names that mean one of the labels, in lower case."""


COLORS: dict[str, str] = {
    "neutral": "#8a93a0", "happy": "#f0bc42", "sad": "#5488ce", "angry": "#d84e44", "upset": "#d07a54",
    "disgust": "#7ca658", "fear": "#9670c8", "surprise": "#52bcba",
}  # fmt: skip
"""A colour for each label, on dark and on white ground, wherever a track is drawn."""


def canonical(name: str, labels: tuple[str, ...] = LABELS) -> str:
    """The label that a name means: "Happiness" -> "happy".

    Raises:
        TrackError: no label goes by that name.
    """
    key = name.strip().lower()
    label = ALIASES.get(key, key)
    if label not in labels:
        raise TrackError(f"unknown emotion: {name!r}. Use one of: {', '.join(labels)}")
    return label
