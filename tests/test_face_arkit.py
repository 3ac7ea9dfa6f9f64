"""ARKit's names and columns."""

from __future__ import annotations

import pytest

from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE, MOUTH_FUNNEL, MOUTH_PUCKER, arkit_columns


def test_names_are_unique_and_sides_come_in_pairs() -> None:
    assert len(set(ARKIT_NAMES)) == 52
    left = {name.removesuffix("Left") for name in ARKIT_NAMES if name.endswith("Left")}
    assert left == {name.removesuffix("Right") for name in ARKIT_NAMES if name.endswith("Right")}


def test_columns_of_one_blendshape_or_both_sides() -> None:
    columns = (JAW_OPEN, MOUTH_CLOSE, MOUTH_FUNNEL, MOUTH_PUCKER)
    assert columns == tuple(arkit_columns(name)[0] for name in ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker"))
    assert [ARKIT_NAMES[k] for k in arkit_columns("mouthSmile")] == ["mouthSmileLeft", "mouthSmileRight"]
    assert [ARKIT_NAMES[k] for k in arkit_columns("jawLeft")] == ["jawLeft"]
    with pytest.raises(ValueError, match="smile"):
        arkit_columns("smile")
