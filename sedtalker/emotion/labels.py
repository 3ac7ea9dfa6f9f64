"""The emotions' names: the model's own, and what each corpus calls them."""

from __future__ import annotations

LABELS: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "upset", "disgust", "fear", "surprise")
"""Labels of the default model, in the order of every posterior's columns."""

NEUTRAL = LABELS.index("neutral")

ALIASES: dict[str, str] = {
    "neu": "neutral", "calm": "neutral",
    "happiness": "happy", "happiest": "happy", "joy": "happy", "hap": "happy", "smile": "happy", "smile2": "happy", "excited": "happy",
    "sadness": "sad", "sad1": "sad",
    "anger": "angry", "ang": "angry", "irritated": "angry", "irritated1": "angry",
    "dis": "disgust", "disgusted": "disgust",
    "fearful": "fear", "fea": "fear", "afraid": "fear",
    "surprised": "surprise",
}  # fmt: skip
"""Names that mean one of the labels, in lower case."""
