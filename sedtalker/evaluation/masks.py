"""Regions of a topology that measures look at: FLAME's, a list of the user's own, or the default head's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.data.pickles import load_array_dict
from sedtalker.errors import DataError
from sedtalker.evaluation.vertices import EMOTION, LIP_PAIR, LIPS, UPPER, mask_hash
from sedtalker.files import read_text

Index = NDArray[np.int64]

FLAME_REGIONS: dict[str, tuple[str, ...]] = {
    LIPS: ("lips",),
    UPPER: ("forehead", "eye_region"),
    EMOTION: ("forehead", "eye_region", "nose", "lips"),
}
"""The regions as unions of the masks of `FLAME_masks.pkl`."""

FLAME_VERTICES = 5023
FLAME_LIP_PAIR = (3531, 3504)  # middle of the upper and of the lower lip, as Chae-Yeon et al. (2025) measure them


@dataclass(frozen=True)
class Masks:
    """Regions by name, and where they come from."""

    source: str
    regions: Mapping[str, Index]

    def described(self, region: str) -> dict[str, str | int]:
        """Name, number of vertices and hash of a region, for a table."""
        index = self.regions[region]
        return {"name": f"{self.source}: {region}", "vertices": len(index), "sha256": mask_hash(index)}


def read_masks(path: Path | str, vertices: int) -> Masks:
    """`FLAME_masks.pkl`; or `.json` with lists of vertex numbers from 0 under the names of regions.

    They are `lips`, `upper_face`, `emotion` and `lip_pair`, the middles of the upper and of the lower lip (FLAME's are
    known). A folder with CodeTalker's `lve.txt` and `fdd.txt` (numbers separated by commas) gives lips and upper face.

    Raises:
        DataError: it cannot be read, or names vertices that the topology does not have.
    """
    path = Path(path)
    if path.is_dir():
        regions = {name: _numbers(path / file) for name, file in ((LIPS, "lve.txt"), (UPPER, "fdd.txt"))}
    elif path.suffix == ".json":
        regions = _lists(path)
    else:
        regions = _flame_regions(path)
    if vertices == FLAME_VERTICES:
        regions.setdefault(LIP_PAIR, np.array(FLAME_LIP_PAIR, np.int64))
    if len(regions.get(LIP_PAIR, (0, 1))) != 2:
        raise DataError(f"a {LIP_PAIR} of {len(regions[LIP_PAIR])} vertices: {path}. Give the upper lip's, the lower's")
    for name, index in regions.items():
        if len(index) == 0 or index.min() < 0 or index.max() >= vertices:
            raise DataError(
                f"mask {name!r} names vertex {index.max() if len(index) else 'none'} of {vertices}: {path}. "
                "Give the masks of this topology"
            )
    return Masks(path.name, regions)


def default_masks(vertices: int) -> Masks | None:
    """The default head's regions, where it has that many vertices."""
    from sedtalker.face.assets import load_face

    face = load_face()
    if len(face.template) != vertices:
        return None
    named = {name: np.asarray(face.masks[name], np.int64) for name in (LIPS, UPPER, EMOTION) if name in face.masks}
    if face.lip_pairs is not None:
        named[LIP_PAIR] = np.asarray(face.lip_pairs[len(face.lip_pairs) // 2], np.int64)
    return Masks(f"head {face.name!r}", named)


def _flame_regions(path: Path) -> dict[str, Index]:
    masks = load_array_dict(path)
    lacking = sorted({part for parts in FLAME_REGIONS.values() for part in parts} - set(masks))
    if lacking:
        raise DataError(f"no mask {lacking[0]!r}: {path}. Give FLAME_masks.pkl from flame.is.tue.mpg.de")
    return {
        name: np.unique(np.concatenate([masks[part].reshape(-1) for part in parts])).astype(np.int64)
        for name, parts in FLAME_REGIONS.items()
    }


def _lists(path: Path) -> dict[str, Index]:
    try:
        lists = json.loads(read_text(path))
        arrays = {str(name): np.asarray(numbers, np.int64) for name, numbers in lists.items()}
        return {name: array if name == LIP_PAIR else np.unique(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'no lists of vertices: {path} ({error}). Write {{"lips": [0, 1, ...], "upper_face": [...]}}'
        ) from error


def _numbers(path: Path) -> Index:
    try:
        words = read_text(path).replace(",", " ").split()
        return np.unique(np.array([int(word) for word in words], np.int64))
    except (OSError, ValueError) as error:
        raise DataError(f"no list of vertices: {path} ({error}). Write numbers separated by commas") from error
