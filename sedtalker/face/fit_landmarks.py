"""Landmarks of a bare head by geometry: the tip of the nose, and the line between the lips.

The head is looked at from the front as a map of heights (the nearest z at each x and y). On the profile of its middle
the nose and the line of the lips are extrema, as in craniometry, and the valley between the lips goes on to both sides.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError, require
from sedtalker.face.rig import Float, Index

NAMES = ("nose_tip", "mouth_middle", "chin", "mouth_left", "mouth_right", "eye_left_inner", "eye_right_inner")
_CELL = 0.0007  # metres of the map of heights
_SAMPLES = 400_000  # points on the surface
_VALLEY = 0.00012  # metres; a shallower valley has ended
_EXPECTED = 0.007  # metres from the expected line of the lips
_SHORTEST = 0.008  # metres of the line between the lips to each side


def read_landmarks(path: Path) -> dict[str, int | tuple[float, float, float]]:
    """Landmarks of a JSON file: name -> vertex index (from 0) or [x, y, z] in the mesh's own units and axes.

    Raises:
        FaceError: the file cannot be read, or has other names or values.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FaceError(f"no landmarks: {path} ({error}). Give a JSON file of names and positions") from error
    result: dict[str, int | tuple[float, float, float]] = {}
    for name, value in content.items() if isinstance(content, dict) else [("", None)]:
        if name not in NAMES:
            raise FaceError(f"an unknown landmark: {name!r:.40} in {path}. Known are {', '.join(NAMES)}")
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            result[name] = value
        elif isinstance(value, list) and len(value) == 3 and all(isinstance(x, (int, float)) for x in value):
            result[name] = (float(value[0]), float(value[1]), float(value[2]))
        else:
            raise FaceError(f"the landmark {name} is no vertex and no position: {path}. Write 123 or [x, y, z]")
    return result


def find_landmarks(vertices: Float, triangles: Index, guess: dict[str, NDArray[np.floating]]) -> dict[str, Float]:
    """Positions (3,) of those landmarks that the shape shows clearly.

    Args:
        vertices, triangles: of the mesh, in metres, y up, facing +z.
        guess: positions of the landmarks on an aligned head, off by up to 2 cm.
    """
    heights = _HeightMap(vertices, triangles, guess)
    return heights.landmarks()


class _HeightMap:
    """The nearest z at each x and y of the face, in cells of `_CELL` metres."""

    def __init__(self, vertices: Float, triangles: Index, guess: dict[str, NDArray[np.floating]]) -> None:
        self._image = require("scipy.ndimage", "fit")
        self._guess = guess
        self._low = np.array([guess["nose_tip"][0] - 0.06, guess["chin"][1] - 0.04])
        shape = (round(0.12 / _CELL), round((guess["eye_left_inner"][1] + 0.03 - self._low[1]) / _CELL))
        random = np.random.default_rng(0)
        inside = np.abs(vertices[triangles][..., 0].mean(axis=1) - guess["nose_tip"][0]) < 0.07
        inside &= vertices[triangles][..., 2].max(axis=1) > guess["nose_tip"][2] - 0.09
        corners = vertices[triangles[inside]].astype(np.float64)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        areas = np.linalg.norm(normal, axis=1)
        self.map = np.full(shape, -np.inf)
        self.usable = bool(len(areas)) and bool(areas.sum() > 0)
        if not self.usable:
            return
        ids = random.choice(len(corners), _SAMPLES, p=areas / areas.sum())
        along, across = np.sqrt(random.random((_SAMPLES, 1))), random.random((_SAMPLES, 1))
        points = corners[ids, 0] * (1 - along) + corners[ids, 1] * along * (1 - across)
        points += corners[ids, 2] * along * across
        cells = np.floor((points[:, :2] - self._low) / _CELL).astype(int)
        valid = ((cells >= 0) & (cells < shape)).all(axis=1)
        np.maximum.at(self.map, tuple(cells[valid].T), points[valid, 2])
        filled = self._image.grey_dilation(self.map, size=3)
        self.map = np.where(np.isfinite(self.map), self.map, filled)
        self.usable = bool(np.isfinite(self.map).mean() > 0.3)
        if self.usable:
            floor = self.map[np.isfinite(self.map)].min()
            self.map = self._image.gaussian_filter(np.where(np.isfinite(self.map), self.map, floor), 1.0)

    def _cell(self, name: str) -> tuple[int, int]:
        x, y = np.clip(((self._guess[name][:2] - self._low) / _CELL).astype(int), 0, np.array(self.map.shape) - 1)
        return int(x), int(y)

    def _point(self, x: int, y: int) -> Float:
        place = self._low + (np.array([x, y]) + 0.5) * _CELL
        return np.array([place[0], place[1], self.map[x, y]], np.float32)

    def landmarks(self) -> dict[str, Float]:
        if not self.usable:
            return {}
        found: dict[str, Float] = {}
        reach = round(0.02 / _CELL)
        nose_x, nose_y = self._cell("nose_tip")
        window = self.map[max(nose_x - reach, 0) : nose_x + reach, max(nose_y - reach, 0) : nose_y + reach]
        tip = np.unravel_index(int(window.argmax()), window.shape)
        nose_x, nose_y = int(tip[0]) + max(nose_x - reach, 0), int(tip[1]) + max(nose_y - reach, 0)
        found["nose_tip"] = self._point(nose_x, nose_y)
        # Down the profile: the deepest point below the nose, the upper lip, the line of the lips, the lower lip.
        profile = self.map[max(nose_x - 2, 0) : nose_x + 3].mean(axis=0)
        expected = nose_y - (self._cell("nose_tip")[1] - self._cell("mouth_middle")[1])
        half = round(0.013 / _CELL)
        rows = np.arange(max(expected - half, 1), min(expected + half, len(profile) - 1))
        minima = [int(y) for y in rows if profile[y] < profile[y - 1] and profile[y] <= profile[y + 1]]
        side = round(0.004 / _CELL)  # narrow: the hollow under the nose is deeper and wider
        depth = {y: _depth(profile, y, side) for y in minima}
        # The hollow under the nose may be deeper: near the expected place counts more.
        score = {y: value / (1 + np.square((y - expected) * _CELL / _EXPECTED)) for y, value in depth.items()}
        best = max(score, key=lambda y: score[y], default=0)
        lengths = [self._follow(nose_x, best, step) for step in (1, -1)] if best else [0.0]
        if best and depth[best] > _VALLEY and min(lengths) > _SHORTEST:
            found["mouth_middle"] = self._point(nose_x, best)
        return found

    def _follow(self, x: int, y: int, step: int) -> float:
        """Metres over which the valley between the lips goes on to a side."""
        first = last = x
        side = round(0.004 / _CELL)
        while 0 < x + step < self.map.shape[0] - 1 and abs(x - last) < 4:
            x += step
            low = max(y - 2, 1)
            column = self.map[x]
            y = low + int(column[low : y + 3].argmin())
            if _depth(column, y, side) > _VALLEY:
                last = x
        return abs(last - first) * _CELL


def _depth(heights: NDArray[np.float64], at: int, side: int) -> float:
    """Depth of a valley: how far the lower of its walls, within `side` cells, rises above its ground."""
    low, high = heights[max(at - side, 0) : at], heights[at + 1 : at + side + 1]
    return float(min(low.max(initial=-1), high.max(initial=-1)) - heights[at])
