"""A colour for each emotion: those of the strip under a video, on a dark ground."""

from __future__ import annotations

from collections.abc import Sequence

_COLORS = {
    "neutral": "#8a93a0",
    "happy": "#f0bc42",
    "sad": "#5488ce",
    "angry": "#d84e44",
    "upset": "#d07a54",
    "disgust": "#7ca658",
    "fear": "#9670c8",
    "surprise": "#52bcba",
}
_SPARE = ("#c9a27c", "#9fb6c9", "#c3c96a", "#d08f8f")  # for labels that are not the default model's


def colors_of(labels: Sequence[str]) -> list[str]:
    """CSS colours, one a label."""
    spare = [label for label in labels if label not in _COLORS]
    return [_COLORS.get(label) or _SPARE[spare.index(label) % len(_SPARE)] for label in labels]
