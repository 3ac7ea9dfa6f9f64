"""A colour for each emotion, the same in every picture of a track."""

from __future__ import annotations

from collections.abc import Sequence

_COLORS = {
    "neutral": "#7d8793",
    "happy": "#f2b84b",
    "sad": "#5f93e8",
    "angry": "#e2574e",
    "upset": "#b07fd6",
    "disgust": "#77b05a",
    "fear": "#45b5ae",
    "surprise": "#f092b8",
}
_SPARE = ("#c9a27c", "#9fb6c9", "#c3c96a", "#d08f8f")  # for labels that are not the default model's


def colors_of(labels: Sequence[str]) -> list[str]:
    """CSS colours, one a label."""
    spare = [label for label in labels if label not in _COLORS]
    return [_COLORS.get(label) or _SPARE[spare.index(label) % len(_SPARE)] for label in labels]
