"""Estimate unit and orientation of a head mesh by comparison with the packaged heads.

A mesh with the default head's topology is aligned by its vertices, with the least-squares similarity transform of
Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI 1991). A head of
another topology is compared as a surface, in the 24 rotations that permute the axes; see `match_surface`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.rig import Float, Index

UNITS = {"metres": 1.0, "decimetres": 0.1, "inches": 0.0254, "centimetres": 0.01, "millimetres": 0.001}
"""Metres in one unit."""

# A head measures 0.2 to 0.3 m, with neck and shoulders about 0.6 m. A size far outside means another unit.
_MESH_SIZES = (0.08, 2.5)  # metres

STATEMENT = "metres, y up, facing +z"
"""A comment with these words in a mesh file states its unit and axes, which are then not estimated."""

_SIZE_RATIO = 1.5  # largest ratio between two heads; the closest units, cm and inch, differ by 2.54
# Largest residual in head radii: at most 0.08 between the packaged heads, 1 for shuffled vertices.
_MAX_RESIDUAL = 0.25
_MAX_OFFSET = 10_000  # times the size of a head: float32 then rounds to 0.1 mm
_SNAP_DEGREES = 5.0  # a smaller rotation from the axes is the head's posture and is kept
_MAX_STRETCH = 6.0  # times an edge's length in the template: a longer edge connects the wrong vertices
_SHORT_EDGE = 0.003  # metres; shorter edges of the template count as this long


class AlignmentError(Exception):
    """The mesh cannot be aligned. The message does not name the file."""


@dataclass(frozen=True)
class Pose:
    """The transform of a mesh to metres, y up, facing +z: points @ rotation.T * metres."""

    rotation: NDArray[np.float64]  # (3, 3), determinant 1
    unit: str = "metres"
    factor: float = 1.0  # of the unit, for a mesh in none of `UNITS`

    @property
    def metres(self) -> float:
        """Metres in one unit of the mesh."""
        return UNITS[self.unit] * self.factor

    @property
    def is_identity(self) -> bool:
        """Whether the mesh already is in metres, y up, facing +z."""
        return self.metres == 1.0 and bool(np.array_equal(self.rotation, np.eye(3)))

    def rotate(self, points: NDArray[np.floating]) -> Float:
        """Points (..., 3) with y up and facing +z, in the unit of the mesh."""
        if np.array_equal(self.rotation, np.eye(3)):
            return points.astype(np.float32, copy=False)
        return (points @ self.rotation.T).astype(np.float32)

    def apply(self, points: NDArray[np.floating]) -> Float:
        """Points (..., 3) in metres, y up, facing +z."""
        return self.rotate(points * self.metres if self.metres != 1 else points)

    def describe(self) -> str:
        """Unit and orientation as text: "in centimetres, +z up, facing -y"."""
        up, front = self.rotation[1], self.rotation[2]  # directions in the mesh that become +y and +z
        unit = self.unit if self.factor == 1 else f"units of {self.metres:.3g} m"
        if np.abs(self.rotation).max(axis=1).min() == 1.0:
            return f"in {unit}, {_axis(up)} up, facing {_axis(front)}"
        degrees = np.degrees(np.arccos(np.clip((np.trace(self.rotation) - 1) / 2, -1, 1)))
        return f"in {unit}, rotated by {degrees:.0f} degrees"


UPRIGHT = Pose(np.eye(3))


def longest_side(vertices: NDArray[np.floating]) -> float:
    """Longest side of the bounding box of vertices (V, 3)."""
    return float(np.ptp(vertices, axis=0).max())


def is_mesh_size(size: float) -> bool:
    """Whether the longest side of a mesh can be that of a head or a body in metres."""
    return _MESH_SIZES[0] <= size <= _MESH_SIZES[1]


def align_vertices(vertices: Float, triangles: Index, templates: Sequence[Float]) -> Pose:
    """The pose of a mesh with the topology of the templates.

    Args:
        vertices, triangles: (V, 3) and (F, 3) of the mesh.
        templates: (V, 3) in metres, heads of several people.

    Raises:
        AlignmentError: the mesh is mirrored, has another vertex order, or its unit is not in `UNITS`.
    """
    points = vertices.astype(np.float64)
    size = longest_side(points)
    if np.abs(points).max() > _MAX_OFFSET * size > 0:
        raise AlignmentError("the mesh is too far from the origin, where its shape is rounded. Move it to the origin")
    fits = [_umeyama(points, template.astype(np.float64)) for template in templates]
    best = min(range(len(fits)), key=lambda k: fits[k].residual)
    fit = fits[best]
    if not fit.residual <= _MAX_RESIDUAL:
        mirrored = min(_umeyama(points * (-1, 1, 1), template.astype(np.float64)).residual for template in templates)
        if mirrored <= _MAX_RESIDUAL:
            raise AlignmentError("the mesh is a mirror image. Undo the mirroring: swap two axes, or negate one")
        raise AlignmentError("the mesh's vertices are in another order. Keep the order of vertices when exporting it")
    stretched = _count_stretched_edges(points * fit.scale, templates[best].astype(np.float64), triangles)
    if stretched:
        raise AlignmentError(
            f"some vertices are in another order ({stretched} edges are stretched). "
            "Keep the order of vertices when exporting it"
        )
    unit = _unit_of(fit.scale)
    if unit is None:
        raise AlignmentError(f"the size of the mesh, {size:.3g}, fits no known unit. Scale it to metres")
    return Pose(_snap(fit.rotation), unit)


@dataclass(frozen=True)
class _Fit:
    rotation: NDArray[np.float64]  # (3, 3), determinant 1
    scale: float
    residual: float  # root mean square, in radii of the template


def _umeyama(points: NDArray[np.float64], template: NDArray[np.float64]) -> _Fit:
    """Least-squares similarity transform of points (V, 3) onto a template (V, 3), without reflection."""
    source, target = points - points.mean(axis=0), template - template.mean(axis=0)
    spread, radius = np.square(source).sum(), np.square(target).sum()
    if not spread > 0:
        return _Fit(np.eye(3), 1.0, np.inf)
    left, singular, right = np.linalg.svd(target.T @ source)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation, scale = (left * signs) @ right, float((singular * signs).sum() / spread)
    error = np.square(scale * source @ rotation.T - target).sum()
    return _Fit(rotation, scale, float(np.sqrt(error / radius)) if scale > 0 else np.inf)


def pose_of_landmarks(points: NDArray[np.floating], template: NDArray[np.floating]) -> Pose | None:
    """The pose of a mesh by at least three landmarks (N, 3) and their places (N, 3) on a head; None if they differ.

    A mesh in no known unit gets the size of the head.
    """
    fit = _umeyama(np.asarray(points, np.float64), np.asarray(template, np.float64))
    if not fit.residual <= _MAX_RESIDUAL:
        return None
    unit = _unit_of(fit.scale)
    return Pose(_snap(fit.rotation), "metres", fit.scale) if unit is None else Pose(_snap(fit.rotation), unit)


def _count_stretched_edges(points: NDArray[np.float64], template: NDArray[np.float64], triangles: Index) -> int:
    edges = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    lengths, expected = (np.linalg.norm(at[edges[:, 0]] - at[edges[:, 1]], axis=1) for at in (points, template))
    return int((lengths > _MAX_STRETCH * np.maximum(expected, _SHORT_EDGE)).sum())


def _unit_of(metres: float) -> str | None:
    """The unit with about this many metres; None if all differ."""
    for name, exact in UNITS.items():
        if 1 / _SIZE_RATIO <= metres / exact <= _SIZE_RATIO:
            return name
    return None


@cache
def axis_rotations() -> tuple[NDArray[np.float64], ...]:
    """The 24 rotations (3, 3) that permute the axes; the first is the identity."""
    rotations = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        rotation = np.zeros((3, 3))
        rotation[range(3), order] = signs
        if np.linalg.det(rotation) > 0:
            rotations.append(rotation)
    return tuple(rotations)


def _snap(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest axis rotation if it is within `_SNAP_DEGREES`, else the rotation itself."""
    nearest = max(axis_rotations(), key=lambda other: float(np.trace(rotation @ other.T)))
    cosine = (np.trace(rotation @ nearest.T) - 1) / 2
    return nearest if cosine >= np.cos(np.radians(_SNAP_DEGREES)) else rotation


def _axis(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return f"{'-' if direction[axis] < 0 else '+'}{'xyz'[axis]}"


# Matching by surface. The constants were set on parts of the packaged heads and one avatar: whole heads in the right
# rotation score 1.2 to 1.8 times better than in any other, face masks only 1.0 times.
_HEAD_SIZE = (0.17, 0.75)  # metres, the longest side of a head with or without neck and shoulders
_SAMPLES = (250, 600)  # points on the mesh and on the packaged head
_BUST_HEIGHT, _HEAD_HEIGHT = 0.36, 0.27  # metres: what is taller has shoulders; the part of it that is compared
_BUST_SAMPLES = 4  # times as many points on a bust
_ITERATIONS = 8  # of ICP
_MATCHED = 0.8  # share of the mesh's points that are matched, nearest first; hair and clothes have no counterpart
_COVERED = 0.6  # share of the packaged head that the mesh must cover: it may have no shoulders
_MIN_RATIO = 1.15  # of the second best score to the best
HEAD_DISTANCE = 0.022  # metres, the sum of both distances


def match_surface(
    vertices: Float, triangles: Index, head: Float, head_triangles: Index, limit: float = HEAD_DISTANCE
) -> Pose | None:
    """The pose of a head of any topology by its surface, among all units and axis rotations; None if uncertain.

    Each unit and rotation is refined by trimmed iterative closest points (ICP, Besl and McKay 1992) with translation
    and scale. Mirror images are not detected, because heads are symmetric.

    Args:
        vertices, triangles: (V, 3) and (F, 3) of the mesh.
        head, head_triangles: those of a packaged head's skin, in metres, y up, facing +z.
        limit: largest distance between the surfaces in metres, summed over both directions.
    """
    random = np.random.default_rng(0)
    points = _sample(vertices, triangles, _SAMPLES[0], random)
    target = _sample(head, head_triangles, _SAMPLES[1], random)
    more = _sample(vertices, triangles, _SAMPLES[0] * _BUST_SAMPLES, random)
    if points is None or target is None or more is None:
        return None
    size = longest_side(vertices)
    poses = [
        Pose(rotation, unit)
        for unit, metres in UNITS.items()
        if _HEAD_SIZE[0] <= size * metres <= _HEAD_SIZE[1]
        for rotation in axis_rotations()
    ]
    if not poses:
        return None
    scores = np.array(
        [_surface_distance(_without_shoulders(pose.apply(points), pose.apply(more)), target) for pose in poses]
    )
    first, second = np.argsort(scores)[:2]
    certain = scores[first] <= limit and scores[second] >= _MIN_RATIO * scores[first]
    return poses[int(first)] if certain else None


def _without_shoulders(points: Float, more: Float) -> Float:
    """Points (N, 3) of a head; those of a bust, which is taller, are replaced by `more` of its upper part."""
    top = points[:, 1].max()
    if top - points[:, 1].min() <= _BUST_HEIGHT:
        return points
    head = more[more[:, 1] > top - _HEAD_HEIGHT]
    return head[:: max(1, len(head) // len(points))]


def _sample(vertices: Float, triangles: Index, count: int, random: np.random.Generator) -> Float | None:
    """Random points (count, 3), uniform over a surface; None for a surface without area."""
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not 0 < areas.sum() < np.inf:
        return None
    ids = random.choice(len(triangles), count, p=areas / areas.sum())
    along, across = np.sqrt(random.random((count, 1))), random.random((count, 1))
    points = a[ids] * (1 - along) + b[ids] * along * (1 - across) + c[ids] * along * across
    return points.astype(np.float32)


def _surface_distance(points: Float, target: Float) -> float:
    """Root mean square distances between points (N, 3) and (M, 3) in metres, summed over both directions, after ICP."""
    low, high = points.min(axis=0), points.max(axis=0)  # start: align the top of the head and the tip of the nose
    middle = (target[:, 0].max() + target[:, 0].min() - high[0] - low[0]) / 2
    aligned = points + np.array([middle, target[:, 1].max() - high[1], target[:, 2].max() - high[2]], np.float32)
    scale = 1.0
    for _ in range(_ITERATIONS):
        squares = _squared_distances(aligned, target)
        nearest = squares.argmin(axis=1)
        distances = squares[np.arange(len(aligned)), nearest]
        inliers = distances <= np.quantile(distances, _MATCHED)
        source, match = aligned[inliers], target[nearest[inliers]]
        centre = source.mean(axis=0)
        step = float(((source - centre) * (match - match.mean(axis=0))).sum() / np.square(source - centre).sum())
        step = min(max(step, 1 / _SIZE_RATIO / scale), _SIZE_RATIO / scale)
        scale *= step
        aligned = (aligned - centre) * step + match.mean(axis=0)
    squares = _squared_distances(aligned, target)
    there, back = (
        np.sort(squares.min(axis=axis))[: round(share * squares.shape[1 - axis])]
        for axis, share in ((1, _MATCHED), (0, _COVERED))
    )
    return float(np.sqrt(there.mean()) + np.sqrt(back.mean()))


def _squared_distances(points: Float, others: Float) -> Float:
    """Squared distances (N, M) between points (N, 3) and (M, 3)."""
    products = np.square(points).sum(axis=1)[:, None] + np.square(others).sum(axis=1) - 2 * points @ others.T
    return np.maximum(products, 0)
