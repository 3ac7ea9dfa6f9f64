"""A CSS colour for each label, those of other models too."""

from __future__ import annotations

from collections.abc import Sequence

from sedtalker.labels import COLORS

_SPARE = ("#c9a27c", "#9fb6c9", "#c3c96a", "#d08f8f")  # for labels that are not the default model's


def label_colors(labels: Sequence[str]) -> list[str]:
    """CSS colours, one a label."""
    spare = [label for label in labels if label not in COLORS]
    return [COLORS.get(label) or _SPARE[spare.index(label) % len(_SPARE)] for label in labels]
