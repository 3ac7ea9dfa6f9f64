"""Landmarks of a bare head by geometry: the tip of the nose, the line between the lips, and the corners of the mouth.

The head is seen from the front as a map of heights (the nearest z at each x and y). Lips that can part are two pieces
of the visible surface, connected only around the corners of the mouth. Where they are not, the line between them is a
valley of the profile, as in craniometry, that goes on to both sides.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError, reason_of, require
from sedtalker.face.mesh import vertex_normals
from sedtalker.face.rig import Float, Index

NAMES = ("nose_tip", "mouth_middle", "chin", "mouth_left", "mouth_right", "eye_left_inner", "eye_right_inner")
_CELL = 0.0007  # metres of the map of heights
_SAMPLES = 400_000  # points on the surface
_VALLEY = 0.00012  # metres; a shallower valley has ended
_EXPECTED = 0.007  # metres from the expected line of the lips
_SHORTEST = 0.008  # metres of the line between the lips to each side
_FRONT = 0.15  # least z of the normal of a vertex that is seen from the front
_HIDDEN = 0.0025  # metres behind the map of heights
_ABOVE, _BELOW = 0.014, 0.020  # metres around the expected line between the lips
_STRIP = 0.005  # metres, half the width of a strip of the face from top to bottom
_PARTED = 0.02  # metres, the widest gap between lips at rest
_LIP_HEIGHT = 0.0025  # metres, least height of a lip
_LIP_VERTICES = 3  # in a strip
_CORNER_STEP = 0.0015  # metres between the strips in which the lips are followed to the corners
_HALF_WIDTHS = (0.014, 0.045)  # metres from the middle to a corner of the mouth


def read_landmarks(path: Path) -> dict[str, int | tuple[float, float, float]]:
    """Landmarks of a JSON file: name -> vertex index (from 0) or [x, y, z] in the mesh's own units and axes.

    Raises:
        FaceError: the file cannot be read, or has other names or values.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FaceError(
            f"no landmarks: {path} ({reason_of(error)}). Give a JSON file of names and positions"
        ) from error
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
    found = heights.landmarks()
    return found | _parted_lips(vertices, triangles, heights, found, guess)


def _parted_lips(
    vertices: Float, triangles: Index, heights: _HeightMap, found: dict[str, Float],
    guess: dict[str, NDArray[np.floating]],
) -> dict[str, Float]:  # fmt: skip
    """Middle and corners of a mouth whose lips are two pieces of the visible surface."""
    if not heights.usable or "nose_tip" not in found:
        return {}
    seen = (vertex_normals(vertices, triangles)[:, 2] > _FRONT) & heights.shows(vertices)
    sides = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    sides = sides[seen[sides].all(axis=1)]
    middle = float(found["nose_tip"][0])
    line = _gap_between_lips(vertices, sides, middle, float(guess["mouth_middle"][1]))
    if line is None:
        return {}
    corners = {}
    surface = vertices[seen]
    for name, sign in (("mouth_left", 1.0), ("mouth_right", -1.0)):
        x, last, step = middle, line, sign * _CORNER_STEP
        while abs(x - middle) < _HALF_WIDTHS[1]:
            x += step
            place = _gap_between_lips(vertices, sides, x, float(last[1]))
            if place is None or abs(place[1] - last[1]) > 4 * _CORNER_STEP:
                break
            last = place
        # The first strip whose pieces are connected reaches over the corner.
        end = np.array([last[0] + sign * (_STRIP + _CORNER_STEP), last[1]])
        if _HALF_WIDTHS[0] < abs(end[0] - middle) < _HALF_WIDTHS[1]:
            corners[name] = surface[np.square(surface[:, :2] - end).sum(axis=1).argmin()]
    return {"mouth_middle": line} | (corners if len(corners) == 2 else {})


def _gap_between_lips(vertices: Float, sides: Index, x: float, y: float) -> Float | None:
    """The place in a strip around `x` where two pieces of the visible surface are one above the other, nearest to `y`.

    Args:
        vertices: (V, 3) metres.
        sides: (E, 2) edges between visible vertices.
        x, y: metres.
    """
    graph, sparse = require("scipy.sparse.csgraph", "fit"), require("scipy.sparse", "fit")
    near = (np.abs(vertices[:, 0] - x) < _STRIP) & (vertices[:, 1] < y + _ABOVE) & (vertices[:, 1] > y - _BELOW)
    own = sides[near[sides].all(axis=1)]
    if not len(own):
        return None
    used, inverse = np.unique(own, return_inverse=True)
    pairs = inverse.reshape(-1, 2)
    matrix = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (len(used), len(used)))
    count, label = graph.connected_components(matrix, directed=False)
    pieces = [vertices[used[label == number]] for number in range(count)]
    pieces = [piece for piece in pieces if len(piece) >= _LIP_VERTICES and np.ptp(piece[:, 1]) > _LIP_HEIGHT]
    best: Float | None = None
    for upper in pieces:
        for lower in pieces:
            top, bottom = upper[upper[:, 1].argmin()], lower[lower[:, 1].argmax()]
            if upper[:, 1].max() <= lower[:, 1].max() or upper[:, 1].min() <= lower[:, 1].min():
                continue
            if not -_LIP_HEIGHT < top[1] - bottom[1] < _PARTED:
                continue
            place = np.array([x, (top[1] + bottom[1]) / 2, max(top[2], bottom[2])], np.float32)
            if best is None or abs(place[1] - y) < abs(best[1] - y):
                best = place
    return best


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

    def shows(self, points: Float) -> NDArray[np.bool_]:
        """Whether points (N, 3) are on the surface that is seen from the front."""
        x, y = np.clip(((points[:, :2] - self._low) / _CELL).astype(int), 0, np.array(self.map.shape) - 1).T
        inside = ((points[:, :2] >= self._low) & (points[:, :2] < self._low + np.array(self.map.shape) * _CELL)).all(1)
        visible: NDArray[np.bool_] = inside & (points[:, 2] > self.map[x, y] - _HIDDEN)
        return visible

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
