"""JSON with one curve of weights per blendshape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sedtalker.export.motion import require_weights
from sedtalker.files import atomic_write

if TYPE_CHECKING:
    from sedtalker.animation import Animation


def write(animation: Animation, path: Path) -> None:
    """Write `{"version": 1, "fps": ..., "frames": T, "curves": {name: [T weights]}}`.

    Raises:
        AnimationError: the animation has no blendshape weights.
    """
    weights = require_weights(animation, "json")
    header = {"version": 1, "fps": animation.fps, "frames": len(animation)}
    with atomic_write(path) as temp_path, temp_path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header)[:-1] + ', "curves": {')
        for column, name in enumerate(animation.blendshape_names):  # one at a time, to save memory
            curve = [round(weight, 6) for weight in weights[:, column].tolist()]
            file.write(f"{', ' if column else ''}{json.dumps(name)}: {json.dumps(curve)}")
        file.write("}}\n")
