"""Read vertex masks of a topology: FLAME's pickle, JSON lists, or CodeTalker's text files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.data.safe_files import load_array_dict
from sedtalker.errors import DataError, FaceError, reason_of
from sedtalker.face.vertex_masks import (
    FLAME_LIP_PAIR,
    FLAME_VERTICES,
    LIP_PAIR,
    LIPS,
    UPPER,
    VertexMasks,
    flame_regions,
)
from sedtalker.files import read_text

Index = NDArray[np.int64]


def read_masks(path: Path | str, vertices: int) -> VertexMasks:
    """Read `FLAME_masks.pkl`, or a `.json` with lists of vertex numbers from 0 by region.

    The regions are `lips`, `upper_face`, `emotion` and `lip_pair`, the middles of the upper and of the lower lip
    (FLAME's are known). A folder with CodeTalker's `lve.txt` and `fdd.txt` (numbers separated by commas) gives lips and
    upper face.

    Raises:
        DataError: it cannot be read, or names vertices that the topology does not have.
    """
    path = Path(path)
    if path.is_dir():
        regions = {name: _read_numbers(path / file) for name, file in ((LIPS, "lve.txt"), (UPPER, "fdd.txt"))}
    elif path.suffix == ".json":
        regions = _read_lists(path)
    else:
        regions = _read_flame_masks(path)
    if vertices == FLAME_VERTICES:
        regions.setdefault(LIP_PAIR, np.array(FLAME_LIP_PAIR, np.int64))
    if len(regions.get(LIP_PAIR, (0, 1))) != 2:
        raise DataError(f"a {LIP_PAIR} of {len(regions[LIP_PAIR])} vertices: {path}. Give the upper lip's, the lower's")
    for name, index in regions.items():
        if len(index) == 0 or index.min() < 0 or index.max() >= vertices:
            raise DataError(
                f"mask {name!r} names vertex {index.max() if len(index) else 'none'} of {vertices}: {path}. "
                "Use masks of this topology"
            )
    return VertexMasks(path.name, regions)


def _read_flame_masks(path: Path) -> dict[str, Index]:
    try:
        return flame_regions(load_array_dict(path))
    except FaceError as error:
        raise DataError(f"{error}: {path}. Give FLAME_masks.pkl from flame.is.tue.mpg.de") from error


def _read_lists(path: Path) -> dict[str, Index]:
    try:
        lists = json.loads(read_text(path))
        arrays = {str(name): np.asarray(numbers, np.int64) for name, numbers in lists.items()}
        return {name: array if name == LIP_PAIR else np.unique(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'no lists of vertices: {path} ({reason_of(error)}). Write {{"lips": [0, 1, ...], "upper_face": [...]}}'
        ) from error


def _read_numbers(path: Path) -> Index:
    try:
        words = read_text(path).replace(",", " ").split()
        return np.unique(np.array([int(word) for word in words], np.int64))
    except (OSError, ValueError) as error:
        raise DataError(
            f"no list of vertices: {path} ({reason_of(error)}). Write numbers separated by commas"
        ) from error
