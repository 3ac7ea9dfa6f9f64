"""Make a rig for a head mesh of any topology: `fit_mesh`.

    align -> landmarks -> register the default head -> correspondences -> transfer the 52 shapes -> eyes, teeth, tongue

The result is a face whose first vertices are those of the mesh, in its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker import resources
from sedtalker.errors import FaceError, require
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.asset_io import read_face
from sedtalker.face.assets import DEFAULT, find_pose, is_flame
from sedtalker.face.avatar import EYE_TURNS, turn_matrix
from sedtalker.face.avatar_materials import GLOSS, LOOKS
from sedtalker.face.deformation_transfer import transfer
from sedtalker.face.fit_landmarks import NAMES, find_landmarks
from sedtalker.face.gltf import SUFFIXES
from sedtalker.face.identity import shape_modes
from sedtalker.face.mesh import read_mesh, vertex_normals
from sedtalker.face.mesh_looks import MeshLooks, read_looks
from sedtalker.face.orientation import UPRIGHT, Pose, pose_of_landmarks
from sedtalker.face.registration import Anchors, Match, SurfaceIndex, register, similarity, smoothness
from sedtalker.face.rig import MESH, Face, Float, Index, Material, Surface
from sedtalker.face.vertex_masks import rig_regions

_NAME = "own"  # in the folder; a folder's head.npz is not a head's name
_CONFIDENT = (0.004, 0.010)  # metres to the registered head: fully, and not at all
_GIVEN = 30.0  # weight of a landmark that is given
_FOUND = {"mouth_left": 0.7, "mouth_right": 0.7}  # weights of landmarks that are found, 2 for others
_GOOD, _BAD = 0.0015, 0.004  # metres, mean distance over face and lips: good, refused
_FAR_HEAD = 0.032  # metres between a head of another person and the default one, see `match_surface`
_HEAD_SIZES = (0.17, 0.75)  # metres, the longest side of a head with or without neck and shoulders
_POSE_LANDMARKS = 3  # with which unit and axes are determined
_MAX_VERTICES = 400_000
_MODES, _MODE_STEPS = 12, 16  # modes of the shape, and steps of their fit
_MOUTH_REACH = 0.008  # metres from the registered inside of the mouth to that of the mesh
_LAST_STEPS = -3  # of the registration, repeated with the inside of the mouth
_SAME_SIZE = (0.85, 1.18)  # relative sizes of adult heads, whose faces move by the same millimetres
_OPEN_LIPS = 0.009  # metres along the surface between facing vertices of parted lips
_EYE_REACH = 0.018  # metres from the place of an eye to the middle of an eyeball
_BAG_VERTICES = 30  # vertices inside the mouth with which a mesh has one
_SPHERE = 0.12  # of its radius, between a sphere and an eyeball
_FLAT = 0.6  # of the depth of the deepest eyeball of a side
_SHEET = 2  # triangles of the smallest sheet
_TEARS = 0.2  # of the radius of an eyeball, between it and a layer on it
_EYEBALL = (0.009, 0.028)  # metres, radius
_MIXED = 0.35  # least share of the other jaw's vertices in a piece with both
_ROUND = 0.35  # least depth of an eyeball, which may be a shell, by its width; lashes are flatter
_IRIS = np.array([0.293, 0.299], np.float32)  # middle of an iris in the texture of the default head's eyes, v up
_EYE_IN_TEXTURE = 0.27  # radius of an eyeball in it
_SCALE = (0.7, 1.5)  # limits of the factors that close lids and lips
_SKIN = Material(kind="skin", tint=(0.56, 0.43, 0.36), wrap=(0.30, 0.22, 0.18), specular=0.35, gloss=18.0, sheen=0.10)


_Similarity = tuple[NDArray[np.float64], float, NDArray[np.float64]]  # rotation, scale, translation


@dataclass(frozen=True)
class FitReport:
    """Result of a fit: landmarks, residuals and remarks; lengths in millimetres."""

    vertices: int
    triangles: int
    pose: str  # unit and axes of the mesh
    landmarks: dict[str, list[float]]  # name -> position in metres, y up, facing +z
    face_mean: float  # distance between mesh and registered head over the face
    face_worst: float  # the 99th percentile of it
    lips_mean: float
    added: tuple[str, ...]  # parts of the default head that the mesh lacks
    kept: tuple[str, ...]  # parts found in the mesh
    blink_scale: tuple[float, float]  # factors that close the left and the right eye
    close_scale: float  # factor of mouthClose
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """The skin and the inside of the mouth of the default head."""

    face: Face
    used: NDArray[np.int64]  # (N,) vertices of the default head
    triangles: Index  # (F, 3) into `used`
    skin: NDArray[np.bool_]  # (N,) on the skin, not in the mouth
    front: NDArray[np.bool_]  # (N,) of the face: no neck, ears or back

    @property
    def points(self) -> Float:
        return self.face.template[self.used]

    def find(self, vertices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Rows of vertices of the default head."""
        return np.searchsorted(self.used, vertices)


@dataclass(frozen=True)
class _Mesh:
    """The user's mesh in metres, y up, facing +z."""

    path: Path
    points: Float  # (N, 3) vertices of the file
    triangles: Index  # (F, 3) of the file
    looks: MeshLooks  # materials and textures of the file
    whole: Float  # (M, 3) distinct positions
    unique: Index  # (N,) position of each vertex
    main: Index  # (G, 3) triangles between positions of the component with the face
    others: list[NDArray[np.int64]]  # positions of each other component


@dataclass(frozen=True)
class _Fit:
    """The registered head, and the shapes of the mesh's component with the face."""

    source: _Source
    mesh: _Mesh
    fitted: NDArray[np.float64]  # (N,) positions of the source on the mesh
    scale: float  # of the displacements
    used: NDArray[np.int64]  # (U,) positions of the component
    match: Match  # of the component on the registered head
    moved: Float  # (52, U, 3) displacements
    nearest: NDArray[np.int64]  # (N,) row of the component for each vertex of the source
    upper: NDArray[np.int64]  # rows of the lip pairs
    lower: NDArray[np.int64]
    blink: tuple[float, float]  # factors that close the lids
    close: float  # factor that closes the lips
    distances: NDArray[np.float64]  # (N,) metres from the source to the mesh

    @property
    def surface(self) -> Float:
        """Positions (U, 3) of the component."""
        return self.mesh.whole[self.used]


def fit_mesh(
    path: Path, landmarks: Mapping[str, int | tuple[float, float, float]] | None = None
) -> tuple[Face, FitReport]:
    """Make a rig for a mesh file.

    Args:
        path: of the mesh (.obj, .ply, .stl, .glb).
        landmarks: corrections by name: a vertex or a position in the mesh's units and axes.

    Raises:
        FaceError: the mesh cannot be read, is not one head, or has no mouth that could open.
    """
    vertices, triangles = read_mesh(path)
    if len(vertices) > _MAX_VERTICES:
        raise FaceError(f"a mesh of {len(vertices)} vertices: {path}. Reduce it to at most {_MAX_VERTICES}")
    vertices, strays = _gather_strays(vertices, triangles)
    flame = is_flame(vertices, triangles)
    source = _source()
    pose, notes = _find_pose(path, vertices, triangles, source, landmarks or {})
    if strays:
        notes.append(f"{strays} vertices belong to no triangle: they were moved to the middle of the mesh")
    if flame:
        notes.append("FLAME's topology: a vertex talker of this topology needs no fitting")
    points, looks = pose.apply(vertices), read_looks(path)
    once = _first_of_each(points, triangles)
    if _signed_volume(points, triangles[once]) < 0:
        triangles, looks = triangles[:, [0, 2, 1]], looks.flip()
        notes.append("the triangles face inwards, as after mirroring: they were flipped")
    if not once.all():
        notes.append(f"{int((~once).sum())} triangles occur twice, such as back sides: the fit uses each once")
    given = {name: _position(value, vertices, pose, path) for name, value in (landmarks or {}).items()}
    aligned = _align(source, points, triangles[once])
    mesh = _split_mesh(path, points, triangles, looks, aligned, source)
    found = _landmarks(source, aligned, mesh.whole, mesh.main, given)
    anchors = _anchors(source, found, given)
    aligned = _fit_modes(source, aligned, points, triangles[once], anchors)
    fitted = _register(source, aligned, SurfaceIndex(mesh.whole, mesh.main), anchors)
    _, size, _ = similarity(source.face.template, aligned)
    fit = _transfer_shapes(source, mesh, fitted, size)
    return _assemble(fit, pose, found, notes)


def _gather_strays(vertices: Float, triangles: Index) -> tuple[Float, int]:
    """Vertices of which those without a triangle are in the middle of the others, and their number.

    Scans and exports of selections have such vertices far away, which would hide unit and axes of the mesh.
    """
    stray = np.ones(len(vertices), bool)
    stray[triangles] = False
    if not stray.any():
        return vertices, 0
    return np.where(stray[:, None], vertices[~stray].mean(axis=0), vertices), int(stray.sum())


def _find_pose(
    path: Path, vertices: Float, triangles: Index, source: _Source, landmarks: Mapping[str, int | tuple[float, ...]]
) -> tuple[Pose, list[str]]:
    """Unit and axes of a mesh by its landmarks, its shape or its format, and notes for the report."""
    places = {name: vertices[v] if isinstance(v, int) else v for name, v in landmarks.items() if _exists(v, vertices)}
    known = [name for name in places if name in source.face.landmarks]
    if len(known) >= _POSE_LANDMARKS:
        template = source.face.template[[source.face.landmarks[name] for name in known]]
        pose = pose_of_landmarks(np.array([places[name] for name in known]), template)
        if pose is None:
            raise FaceError(f"the landmarks are not those of a face: {path}. Check their names and the sides")
        return pose, [] if pose.factor == 1 else ["the unit is not known: the head got the size of the default one"]
    pose = find_pose(path, vertices, triangles, _FAR_HEAD)
    if pose is None and (is_flame(vertices, triangles) or path.suffix.lower() in SUFFIXES):
        low, high = _HEAD_SIZES
        if low <= float(np.ptp(vertices, axis=0).max()) <= high:
            return UPRIGHT, ["the axes were not recognised: metres, y up, facing +z are taken, as the format states"]
    if pose is None:
        raise FaceError(
            f"no single head was recognised: {path}. Cut off the body, leave one head, or give nose_tip, mouth_left, "
            "mouth_right and eye_left_inner with --landmarks"
        )
    return pose, []


def _first_of_each(points: Float, triangles: Index) -> NDArray[np.bool_]:
    """Which triangles (F,) are the first with their three positions, in any order; back sides come after them."""
    _, place = np.unique(np.round(points / 1e-6).astype(np.int64), axis=0, return_inverse=True)
    _, first = np.unique(np.sort(place.ravel()[triangles], axis=1), axis=0, return_index=True)
    result = np.zeros(len(triangles), bool)
    result[first] = True
    return result


def _exists(landmark: int | tuple[float, ...], vertices: Float) -> bool:
    return not isinstance(landmark, int) or landmark < len(vertices)


def _signed_volume(points: Float, triangles: Index) -> float:
    """Volume between a surface and its middle in cubic metres, negative if the triangles face inwards."""
    a, b, c = np.moveaxis(points[triangles].astype(np.float64) - points.mean(axis=0), 1, 0)
    return float((np.cross(a, b) * c).sum()) / 6


def _source() -> _Source:
    face = read_face(resources.asset("face"), DEFAULT)
    skin, mouth = (surface.triangles for surface in face.surfaces[:2])
    used, inverse = np.unique(np.concatenate([skin, mouth]).ravel(), return_inverse=True)
    on_skin = np.isin(used, skin)
    front = np.isin(used, np.concatenate([face.masks["upper_face"], face.masks["lower_face"]]))
    return _Source(face, used, inverse.reshape(-1, 3).astype(np.int32), on_skin, front & on_skin)


def _position(value: int | tuple[float, float, float], vertices: Float, pose: Pose, path: Path) -> Float:
    """A landmark in metres, y up, facing +z."""
    if isinstance(value, int):
        if value >= len(vertices):
            raise FaceError(f"a landmark is vertex {value}, but the mesh has {len(vertices)}: {path}. Count from 0")
        return pose.apply(vertices[value])
    return pose.apply(np.array(value, np.float32))


def _align(source: _Source, points: Float, triangles: Index) -> Float:
    """The default head's vertices (V, 3), moved, turned and scaled onto the mesh by trimmed ICP."""
    template = source.face.template.astype(np.float64)
    index = SurfaceIndex(points, triangles)
    sample = source.used[source.front][::2]
    rest = template[sample]
    normals = vertex_normals(source.face.template, source.face.surfaces[0].triangles)[sample].astype(np.float64)
    head = template[source.used]
    top = np.array([points[:, 0].mean(), points[:, 1].max(), points[:, 2].max()])
    nose = points[int(points[:, 2].argmax())].astype(np.float64)
    starts = [top - (head[:, 0].mean(), head[:, 1].max(), head[:, 2].max()), nose - template[297]]
    best: tuple[float, NDArray[np.float64], float, NDArray[np.float64]] | None = None
    for start in starts:
        rotation, scale, shift = np.eye(3), 1.0, start
        residual = np.inf
        for step in range(25):
            places = scale * rest @ rotation.T + shift
            match = index.closest(places, normals @ rotation.T)
            partners = match.interpolate(triangles, index.vertices)
            limit = np.quantile(match.distances, 0.75)
            inliers = (match.distances <= limit) & (match.facing > 0.3)
            if inliers.sum() < 30:
                break
            rotation, scale, shift = similarity(rest[inliers], partners[inliers])
            scale = float(np.clip(scale, 1 / 1.6, 1.6))
            if step < 8:  # position and size first: a wrong start must not turn the head
                rotation = np.eye(3)
                shift = partners[inliers].mean(axis=0) - scale * rest[inliers].mean(axis=0)
            residual = float(limit)
        if best is None or residual < best[0]:
            best = residual, rotation, scale, shift
    assert best is not None
    return (best[2] * template @ best[1].T + best[3]).astype(np.float32)


def _fit_modes(source: _Source, aligned: Float, points: Float, triangles: Index, anchors: Anchors) -> Float:
    """The aligned head (V, 3) in the shape of the person nearest to the mesh, of those that the parameters can make.

    Alternates closest points with a least-squares solution of position, turn, size and the modes of `identity`, whose
    coefficients are kept near 0 by a ridge.
    """
    template = source.face.template.astype(np.float64)
    modes = shape_modes(_MODES).astype(np.float64)
    index = SurfaceIndex(points, triangles)
    rotation, scale, shift = similarity(template, aligned)
    coefficients = np.zeros(len(modes))
    rows = source.front
    chosen = source.used[rows]
    areas = smoothness(template[source.used], source.triangles)[1][rows]
    pinned = source.used[anchors.vertices]
    for step in range(_MODE_STEPS):
        shape = template + np.tensordot(coefficients, modes, 1)
        places = scale * shape @ rotation.T + shift
        normals = vertex_normals(places[source.used].astype(np.float32), source.triangles)[rows].astype(np.float64)
        match = index.closest(places[chosen], normals, turn=0.012)
        partners = match.interpolate(triangles, index.vertices)
        away = index.normals[match.triangles]
        weights = areas * (match.facing > 0.5) / (1 + np.square(match.distances / 0.004))
        # Small turns, a change of size and the modes, linear around the present state.
        arms = places[chosen] - places[chosen].mean(axis=0)
        columns = [np.broadcast_to(np.eye(3)[k], arms.shape) for k in range(3)]
        columns += [np.cross(np.eye(3)[k], arms) for k in range(3)] + [arms]
        columns += list(scale * modes[:, chosen] @ rotation.T)
        basis = np.stack(columns, axis=2)  # (N, 3, K)
        rows_of = np.einsum("nc,nck->nk", away, basis)
        gap = (away * (partners - places[chosen])).sum(axis=1)
        gram = rows_of.T @ (weights[:, None] * rows_of)
        right = rows_of.T @ (weights * gap)
        pin_arms = places[pinned] - places[chosen].mean(axis=0)
        pin_columns = [np.broadcast_to(np.eye(3)[k], pin_arms.shape) for k in range(3)]
        pin_columns += [np.cross(np.eye(3)[k], pin_arms) for k in range(3)] + [pin_arms]
        pin_columns += list(scale * modes[:, pinned] @ rotation.T)
        pins = np.stack(pin_columns, axis=2).reshape(-1, len(columns))
        pin_weights = np.repeat(anchors.weights * 3e-4, 3)
        gram += pins.T @ (pin_weights[:, None] * pins)
        right += pins.T @ (pin_weights * (anchors.positions - places[pinned]).ravel())
        ridge = np.concatenate([np.full(7, 1e-12), np.full(len(modes), areas.sum() * 1e-7)])
        right[7:] -= ridge[7:] * coefficients
        change = np.linalg.solve(gram + np.diag(ridge), right)
        if step < 3:
            change[7:] = 0
        coefficients = coefficients + change[7:]
        moved = scale * (template + np.tensordot(coefficients, modes, 1)) @ rotation.T + shift
        middle = places[chosen].mean(axis=0)
        turned = (moved - middle) + np.cross(change[3:6], moved - middle) + change[6] * (moved - middle)
        goal = turned + middle + change[:3]
        rotation, scale, shift = similarity(template + np.tensordot(coefficients, modes, 1), goal)
    shape = template + np.tensordot(coefficients, modes, 1)
    return (scale * shape @ rotation.T + shift).astype(np.float32)


def _landmarks(
    source: _Source, aligned: Float, points: Float, triangles: Index, given: Mapping[str, Float]
) -> dict[str, Float]:
    """Positions of the landmarks, found or given."""
    known = source.face.landmarks
    pairs = source.face.lip_pairs
    assert pairs is not None
    guess = {name: aligned[known[name]] for name in NAMES if name in known}
    guess["mouth_middle"] = aligned[pairs[len(pairs) // 2]].mean(axis=0)
    found = find_landmarks(points, triangles, guess)
    found = {name: place for name, place in found.items() if np.linalg.norm(place - guess[name]) < 0.03}
    return found | dict(given)


def _anchors(source: _Source, found: Mapping[str, Float], given: Mapping[str, Float]) -> Anchors:
    known, pairs = source.face.landmarks, source.face.lip_pairs
    assert pairs is not None
    ids, places, weights = [], [], []
    for name, place in found.items():
        vertices = pairs[len(pairs) // 2].tolist() if name == "mouth_middle" else [known[name]]
        for vertex in vertices:
            ids.append(int(source.find(np.array(vertex))))
            places.append(place)
            weights.append(_GIVEN if name in given else _FOUND.get(name, 2.0))
    return Anchors(np.array(ids, np.int32), np.array(places, np.float64).reshape(-1, 3), np.array(weights))


def _register(source: _Source, aligned: Float, target: SurfaceIndex, anchors: Anchors) -> NDArray[np.float64]:
    """Positions (N, 3) of the default head on the mesh; with the inside of the mouth if the mesh has one."""
    weights = np.where(source.front, 1.0, 0.3)
    fitted = register(aligned[source.used], source.triangles, np.where(source.skin, weights, 0.0), target, anchors)
    normals = vertex_normals(fitted.astype(np.float32), source.triangles).astype(np.float64)
    inside = target.closest(fitted[~source.skin], normals[~source.skin])
    if ((inside.distances < _MOUTH_REACH) & (inside.facing > 0.5)).mean() > 0.6:
        fitted = register(fitted, source.triangles, np.where(source.skin, weights, 0.3), target, anchors, _LAST_STEPS)
    return fitted


def _weld(points: Float, triangles: Index) -> tuple[Float, Index]:
    """Distinct positions (M, 3), and the position of each vertex (N,).

    Vertices at one position are joined, as texture seams split them, but not those of sheets that only touch the rest.
    """
    _, inverse = np.unique(np.round(points / 1e-6).astype(np.int64), axis=0, return_inverse=True)
    keys = np.stack([inverse.ravel(), _sheets(triangles, inverse.ravel().astype(np.int64))], axis=1)
    _, first, joined = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return points[first], joined.ravel().astype(np.int32)


def _sheets(triangles: Index, position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers (N,) from 1 of the components of the file that touch others but share no seam with them, else 0.

    A seam is an edge of two triangles of different components. Lashes and tears touch edges of the skin that have two
    triangles already.
    """
    graph, sparse = require("scipy.sparse.csgraph", "fit"), require("scipy.sparse", "fit")
    count = len(position)
    sides = triangles[:, [0, 1, 1, 2]].reshape(-1, 2)
    matrix = sparse.coo_matrix((np.ones(len(sides)), (sides[:, 0], sides[:, 1])), (count, count))
    total, label = graph.connected_components(matrix, directed=False)
    ends = np.sort(position[triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)], axis=1)
    ends, owner = ends[ends[:, 0] != ends[:, 1]], np.repeat(label[triangles[:, 0]], 3)[ends[:, 0] != ends[:, 1]]
    order = np.argsort(ends[:, 0] * count + ends[:, 1], kind="stable")
    key = (ends[:, 0] * count + ends[:, 1])[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.zeros(0, np.int64)
    pairs = starts[np.diff(np.r_[starts, len(key)]) == 2]
    first, second = owner[order[pairs]], owner[order[pairs + 1]]
    has_seam = np.zeros(total, bool)
    has_seam[first[first != second]] = has_seam[second[first != second]] = True
    sheet = ~has_seam & (np.bincount(label[triangles[:, 0]], minlength=total) >= _SHEET)  # in STL each is on its own
    sheet[np.bincount(label).argmax()] = False
    result: NDArray[np.int64] = np.where(sheet[label], label + 1, 0)
    return result


def _split_mesh(
    path: Path, points: Float, triangles: Index, looks: MeshLooks, aligned: Float, source: _Source
) -> _Mesh:
    """Join equal positions, and separate the component that has the face from the others."""
    whole, unique = _weld(points, triangles)
    graph, sparse = require("scipy.sparse.csgraph", "fit"), require("scipy.sparse", "fit")
    spatial = require("scipy.spatial", "fit")
    corners = unique[triangles]
    corners = corners[
        (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 0] != corners[:, 2])
    ]
    sides = corners[:, [0, 1, 1, 2]].reshape(-1, 2)
    matrix = sparse.coo_matrix((np.ones(len(sides)), (sides[:, 0], sides[:, 1])), (len(whole), len(whole)))
    count, label = graph.connected_components(matrix, directed=False)
    used = np.zeros(len(whole), bool)
    used[corners] = True
    near = spatial.cKDTree(whole[used]).query(aligned[source.used[source.front]])[1]
    face = int(np.bincount(label[np.flatnonzero(used)[near]], minlength=count).argmax())
    sizes = np.bincount(label[used], minlength=count)
    heads = []
    others = []
    for number in np.flatnonzero(sizes):
        if number == face:
            continue
        ids = np.flatnonzero((label == number) & used)
        others.append(ids)
        if np.ptp(whole[ids], axis=0).min() > 0.12:
            heads.append(number)
    mine = whole[(label == face) & used]
    apart = [n for n in heads if abs(whole[label == n].mean(axis=0)[0] - mine.mean(axis=0)[0]) > 0.1]
    if apart:
        raise FaceError(f"two heads in one mesh: {path}. Leave one of them")
    main = corners[label[corners[:, 0]] == face]
    main = main[_first_of_each(whole, main)]
    return _Mesh(path, points, triangles, looks, whole, unique, main, others)


@dataclass
class _Added:
    """Geometry of the default head that is added to the mesh."""

    surfaces: list[Surface]
    points: list[NDArray[np.float64]]
    shapes: list[Float]
    parts: dict[str, Index]
    rows: dict[int, int]  # vertex of the default head -> vertex of the face


def _transfer_shapes(source: _Source, mesh: _Mesh, fitted: NDArray[np.float64], size: float) -> _Fit:
    """Correspondences and displacements of the component with the face. `size` is relative to the default head."""
    blendshapes = source.face.blendshapes
    assert blendshapes is not None
    shapes = blendshapes[:, source.used]
    scale = size / float(np.clip(size, *_SAME_SIZE))
    used, inverse = np.unique(mesh.main.ravel().astype(np.int64), return_inverse=True)
    corners = inverse.reshape(-1, 3).astype(np.int32)
    surface = mesh.whole[used]
    normals = vertex_normals(surface, corners).astype(np.float64)
    head = SurfaceIndex(fitted, source.triangles)
    match = _match_sides(source, head, surface, corners, normals, shapes)
    near, far = _CONFIDENT
    confidence = np.clip((far - match.distances) / (far - near), 0, 1) * (match.facing > 0.2)
    distances = SurfaceIndex(surface, corners).closest(fitted).distances
    mean = float(distances[source.front].mean())
    if mean > _BAD:
        raise FaceError(
            f"the default head does not fit: {mesh.path} (mean distance {1000 * mean:.1f} mm over the face). Give "
            "landmarks with --landmarks, or check that it is a human head"
        )
    middles = surface[corners].mean(axis=1)
    facing = np.cross(surface[corners[:, 1]] - surface[corners[:, 0]], surface[corners[:, 2]] - surface[corners[:, 0]])
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-18)
    triangle_match = _match_triangles(source, head, match, middles, facing, corners)
    moved = transfer(
        source.points, source.triangles, shapes, surface, corners, match, triangle_match, confidence, scale, size,
    )  # fmt: skip
    nearest = _nearest(surface, normals, fitted, vertex_normals(fitted.astype(np.float32), source.triangles))
    upper, lower = _lip_rows(source, shapes, match, nearest, surface, fitted)
    _check_lips(mesh.path, surface, corners, upper, lower)
    left, right = (_close_lids(source, fitted, moved, nearest, side) for side in ("Left", "Right"))
    close = _close_lips(moved, upper, lower)
    return _Fit(
        source, mesh, fitted, scale, used, match, moved, nearest, upper, lower, (left, right), close, distances
    )  # fmt: skip


def _match_sides(
    source: _Source, head: SurfaceIndex, surface: Float, corners: Index, normals: NDArray[np.float64], shapes: Float
) -> Match:
    """Corresponding points of the mesh's vertices; near the mouth on the lip that their neighbours belong to."""
    match = head.closest(surface, normals, facing=0.2)
    travel = -shapes[JAW_OPEN][:, 1]
    low = travel > 0.5 * travel.max()  # moves with the jaw
    triangle_low = low[source.triangles].mean(axis=1) > 0.5
    pairs = source.face.lip_pairs
    assert pairs is not None
    line = head.vertices[source.find(pairs.ravel())]
    spatial = require("scipy.spatial", "fit")
    near = np.flatnonzero(spatial.cKDTree(line).query(surface)[0] < 0.012)
    if not len(near):
        return match
    is_low = triangle_low[match.triangles].astype(np.float64)
    sides = np.unique(np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    degree = np.bincount(sides.ravel(), minlength=len(surface))
    for _ in range(3):
        total = np.bincount(sides[:, 0], is_low[sides[:, 1]], len(surface))
        total += np.bincount(sides[:, 1], is_low[sides[:, 0]], len(surface))
        mean = (total + is_low) / (degree + 1)
        is_low[near] = mean[near] > 0.5
    wrong = near[is_low[near] != triangle_low[match.triangles[near]]]
    for side in (0.0, 1.0):
        ids = wrong[is_low[wrong] == side]
        allowed = np.flatnonzero(triangle_low == bool(side))
        if len(ids):
            again = SurfaceIndex(head.vertices, source.triangles[allowed]).closest(
                surface[ids], normals[ids], facing=0.0
            )
            match.triangles[ids] = allowed[again.triangles]
            match.barycentric[ids], match.distances[ids] = again.barycentric, again.distances
            match.facing[ids] = np.maximum(again.facing, 0.3)
    return match


def _match_triangles(
    source: _Source, head: SurfaceIndex, match: Match, middles: Float, normals: NDArray[np.float64], corners: Index
) -> Match:
    """Corresponding points of the triangles' middles, on the same side of the lips as their corners."""
    found = head.closest(middles, normals, facing=0.2)
    wrong = (
        np.linalg.norm(
            found.interpolate(source.triangles, head.vertices)
            - match.interpolate(source.triangles, head.vertices)[corners].mean(axis=1),
            axis=1,
        )
        > 0.006
    )
    found.triangles[wrong] = match.triangles[corners[wrong, 0]]
    return found


def _nearest(
    surface: Float, normals: NDArray[np.float64], fitted: NDArray[np.float64], fitted_normals: Float
) -> NDArray[np.int64]:
    """For each vertex of the registered head, the vertex of the mesh nearest to it that faces the same way."""
    spatial = require("scipy.spatial", "fit")
    count = min(8, len(surface))
    distance, ids = spatial.cKDTree(surface).query(fitted, k=count)
    distance, ids = distance.reshape(len(fitted), count), ids.reshape(len(fitted), count)
    cosine = np.einsum("nkc,nc->nk", normals[ids], fitted_normals)
    chosen = (distance + np.where(cosine < 0.2, 0.003, 0)).argmin(axis=1)
    result: NDArray[np.int64] = ids[np.arange(len(fitted)), chosen]
    return result


def _lip_rows(
    source: _Source,
    shapes: Float,
    match: Match,
    nearest: NDArray[np.int64],
    surface: Float,
    fitted: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertices of the mesh's upper and lower lip that correspond to the lip pairs."""
    pairs = source.face.lip_pairs
    assert pairs is not None
    spatial = require("scipy.spatial", "fit")
    travel = match.interpolate(source.triangles, -shapes[JAW_OPEN][:, 1:2])[:, 0]
    jaw = -shapes[JAW_OPEN][:, 1]
    limit = (jaw[source.find(pairs[:, 0])].mean() + jaw[source.find(pairs[:, 1])].mean()) / 2
    rows = []
    for column, low in ((0, False), (1, True)):
        own = np.flatnonzero((travel > limit) == low)
        at = fitted[source.find(pairs[:, column])]
        rows.append(own[spatial.cKDTree(surface[own]).query(at)[1]])
    return rows[0], rows[1]


def _check_lips(path: Path, surface: Float, corners: Index, upper: NDArray[np.int64], lower: NDArray[np.int64]) -> None:
    """Raise FaceError if the lips are one surface: facing points of parted lips are connected only around the mouth."""
    graph, sparse = require("scipy.sparse.csgraph", "fit"), require("scipy.sparse", "fit")
    middle = slice(len(upper) // 2 - 1, len(upper) // 2 + 2)
    centre = surface[np.concatenate([upper[middle], lower[middle]])].mean(axis=0)
    inside = np.linalg.norm(surface - centre, axis=1) < 0.045
    sides = np.unique(np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    sides = sides[inside[sides].all(axis=1)]
    lengths = np.linalg.norm(surface[sides[:, 0]] - surface[sides[:, 1]], axis=1)
    matrix = sparse.coo_matrix((np.maximum(lengths, 1e-9), (sides[:, 0], sides[:, 1])), (len(surface), len(surface)))
    starts, ends = upper[middle], lower[middle]
    paths = graph.dijkstra(matrix.tocsr(), directed=False, indices=starts, limit=0.1)
    along = paths[np.arange(len(starts)), ends] - np.linalg.norm(surface[starts] - surface[ends], axis=1)
    if np.median(along) < _OPEN_LIPS:
        raise FaceError(
            f"the lips of this mesh are one closed surface: {path}. Cut it along the line between the lips, so that "
            "the mouth can open"
        )


def _close_lids(
    source: _Source, fitted: NDArray[np.float64], moved: Float, nearest: NDArray[np.int64], side: str
) -> float:
    """Scale eyeBlink of a side so that the lids meet as on the default head; returns the factor."""
    column = ARKIT_NAMES.index(f"eyeBlink{side}")
    rim = _lid_rim(source, side)
    blendshapes = source.face.blendshapes
    assert blendshapes is not None
    falls = blendshapes[column][source.used][:, 1]
    upper, lower = rim[falls[rim] < 0.5 * falls[rim].min()], rim[falls[rim] >= 0.5 * falls[rim].min()]
    if len(upper) < 3 or len(lower) < 3:
        return 1.0
    x = source.points[:, 0]
    partner = lower[np.abs(x[upper][:, None] - x[lower][None]).argmin(axis=1)]
    middle = np.argsort(falls[upper])[: len(upper) // 2 + 1]
    upper, partner = upper[middle], partner[middle]
    gap, own = (fitted[upper, 1] - fitted[partner, 1]), (source.points[upper, 1] - source.points[partner, 1])
    closing = moved[column, nearest[partner], 1] - moved[column, nearest[upper], 1]
    expected = (falls[partner] - falls[upper]) / np.maximum(own, 1e-4)
    factor = float(np.median(expected * gap / np.maximum(closing, 1e-4)))
    factor = float(np.clip(factor, *_SCALE)) if np.isfinite(factor) else 1.0
    moved[column] *= np.float32(factor)
    return factor


def _lid_rim(source: _Source, side: str) -> NDArray[np.int64]:
    """Rows of the vertices on the border of the skin around an eye."""
    skin = source.face.surfaces[0].triangles
    sides = np.sort(skin[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(sides, axis=0, return_counts=True)
    border = np.unique(edges[counts == 1])
    eye = source.face.template[source.face.parts[f"eye_{side.lower()}"]].mean(axis=0)
    near = np.linalg.norm(source.face.template[border] - eye, axis=1) < 0.025
    return source.find(border[near])


def _close_lips(moved: Float, upper: NDArray[np.int64], lower: NDArray[np.int64]) -> float:
    """Scale mouthClose so that with an equal jawOpen it leaves the lips as at rest; returns the factor."""
    middle = slice(len(upper) // 4, len(upper) - len(upper) // 4)
    opening, closing = (
        float((moved[column, upper[middle], 1] - moved[column, lower[middle], 1]).mean())
        for column in (JAW_OPEN, MOUTH_CLOSE)
    )
    factor = float(np.clip(-opening / closing, *_SCALE)) if opening > 0 > closing else 1.0
    moved[MOUTH_CLOSE] *= np.float32(factor)
    return factor


def _assemble(fit: _Fit, pose: Pose, found: Mapping[str, Float], notes: list[str]) -> tuple[Face, FitReport]:
    """The face of all components and the added eyes, teeth and tongue, and the report."""
    source, mesh = fit.source, fit.mesh
    moves = {side: similarity(*_ring(source, fit.fitted, side)) for side in ("left", "right")}
    jaw_move = similarity(*_lower_face(source, fit.fitted))
    shapes, kept = _move_components(fit, moves, jaw_move)
    bag = ~np.asarray(source.skin[source.triangles].all(axis=1))
    has_bag = int((bag[fit.match.triangles] & (fit.match.distances < 0.006)).sum()) > _BAG_VERTICES
    missing = [] if has_bag else ["mouth"]
    if not {"eye_left", "eye_right"} <= {*kept}:
        if _eyes_sealed(source, fit.fitted, fit.surface, moves):
            notes.append("the eyes are part of the skin: they cannot turn, and lids may not close over them")
        else:
            missing += ["eyes", "cornea"]
    if "teeth" not in kept:
        missing += ["teeth", "tongue"]
    added = _Added([], [], [], {}, {})
    for surface in source.face.surfaces:
        if surface.name in missing:
            _add_surface(added, fit, surface, moves, jaw_move)
    face = _make_face(fit, shapes[:, mesh.unique], kept, added)
    mean, worst = fit.distances[source.front].mean(), np.quantile(fit.distances[source.front], 0.99)
    if mean > _GOOD:
        notes.append(f"a loose fit, {1000 * mean:.1f} mm over the face: correct the landmarks with --landmarks")
    lips = np.isin(source.used, source.face.parts["lips"])
    report = FitReport(
        vertices=len(mesh.points),
        triangles=len(mesh.triangles),
        pose=pose.describe(),
        landmarks={name: [round(float(x), 5) for x in place] for name, place in found.items()},
        face_mean=round(1000 * float(mean), 3),
        face_worst=round(1000 * float(worst), 3),
        lips_mean=round(1000 * float(fit.distances[lips].mean()), 3),
        added=tuple(missing),
        kept=tuple(kept) + (("mouth",) if has_bag else ()),
        blink_scale=(round(fit.blink[0], 3), round(fit.blink[1], 3)),
        close_scale=round(fit.close, 3),
        notes=tuple(notes),
    )
    return face, report


def _move_components(
    fit: _Fit, moves: Mapping[str, _Similarity], jaw_move: _Similarity
) -> tuple[Float, dict[str, NDArray[np.int64]]]:
    """Displacements (52, M, 3) of all positions of the mesh, and the eyes and teeth that it has."""
    spatial = require("scipy.spatial", "fit")
    face, whole = fit.source.face, fit.mesh.whole
    blendshapes = face.blendshapes
    assert blendshapes is not None
    shapes = np.zeros((len(ARKIT_NAMES), len(whole), 3), np.float32)
    shapes[:, fit.used] = fit.moved
    inside = fit.fitted[~fit.source.skin]
    low, high = inside.min(axis=0) - 0.004, inside.max(axis=0) + 0.004
    jaws = [face.parts["teeth_upper"], np.concatenate([face.parts["teeth_lower"], face.parts["tongue"]])]
    jaw_trees = [spatial.cKDTree(_apply(jaw_move, face.template[part])) for part in jaws]
    skin_tree = spatial.cKDTree(fit.surface)
    kept: dict[str, NDArray[np.int64]] = {}
    balls = _find_eyeballs(fit, moves)
    for number, ids in enumerate(fit.mesh.others):
        centre = (whole[ids].min(axis=0) + whole[ids].max(axis=0)) / 2
        if number in balls:
            name, sign = f"eye_{balls[number]}", 1.0 if balls[number] == "left" else -1.0
            for base, (pitch, yaw) in EYE_TURNS.items():
                turn = turn_matrix(pitch, sign * yaw) - np.eye(3)
                shapes[ARKIT_NAMES.index(base + balls[number].title()), ids] = (whole[ids] - centre) @ turn.T
        elif ((centre > low) & (centre < high)).all():
            near = [tree.query(whole[ids]) for tree in jaw_trees]
            below = near[1][0] < near[0][0]
            name = "gums"
            if not _MIXED < below.mean() < 1 - _MIXED:  # a tooth or a row of teeth moves with one jaw
                name, below = "teeth", np.full(len(ids), below.mean() > 0.5)
            partners = np.where(below, jaws[1][near[1][1]], jaws[0][near[0][1]])
            shapes[:, ids] = blendshapes[:, partners] * np.float32(fit.scale)
        else:  # lashes, brows, hair, and tears on the eyes: they follow the skin near them
            distance, partner = skin_tree.query(whole[ids])
            share = np.clip((0.03 - distance) / 0.02, 0, 1).astype(np.float32)
            shapes[:, ids] = fit.moved[:, partner] * share[:, None]
            if not any(_covers(whole[ids], whole[fit.mesh.others[ball]]) for ball in balls):
                continue
            name = "tears"
        kept[name] = np.concatenate([kept.get(name, np.zeros(0, np.int64)), ids])
    return shapes, kept


def _find_eyeballs(fit: _Fit, moves: Mapping[str, _Similarity]) -> dict[int, str]:
    """Numbers of the components that are eyeballs, with their side."""
    depths: dict[int, tuple[str, float]] = {}
    for number, ids in enumerate(fit.mesh.others):
        points = fit.mesh.whole[ids]
        extent = np.ptp(points, axis=0)
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        if not (extent.min() > _ROUND * extent.max() and _EYEBALL[0] < extent.max() / 2 < _EYEBALL[1]):
            continue
        near = [
            side
            for side, move in moves.items()
            if np.linalg.norm(centre - _apply(move, _eye_centre(fit.source.face, side))) < _EYE_REACH
        ]
        if near and _is_sphere(points):
            depths[number] = near[0], float(extent.min())
    # A layer of tears is a flat part of a sphere.
    return {
        number: side
        for number, (side, depth) in depths.items()
        if depth > _FLAT * max(other for own, other in depths.values() if own == side)
    }


def _is_sphere(points: Float) -> bool:
    """Whether most of the points (N, 3) are near their least-squares sphere. An iris bulges, lashes are not round."""
    exact = points.astype(np.float64) - points.mean(axis=0)
    system = np.column_stack([2 * exact, np.ones(len(exact))])
    solution = np.linalg.lstsq(system, np.square(exact).sum(axis=1), rcond=None)[0]
    radius = np.sqrt(max(solution[3] + np.square(solution[:3]).sum(), 1e-12))
    distance = np.linalg.norm(exact - solution[:3], axis=1)
    return bool((np.abs(distance - radius) < _SPHERE * radius).mean() > 0.7)


def _covers(points: Float, ball: Float) -> bool:
    """Whether points are a layer on an eyeball, as of tears; lashes are farther off."""
    low, high = ball.min(axis=0), ball.max(axis=0)
    radius = float((high - low)[:2].max()) / 2
    centre = (low + high) / 2
    centre[2] = high[2] - radius
    distance = np.linalg.norm(points - centre, axis=1)
    return bool((np.abs(distance - radius) < _TEARS * radius).mean() > 0.8)


def _make_face(fit: _Fit, shapes: Float, kept: Mapping[str, NDArray[np.int64]], added: _Added) -> Face:
    """The face of the file's vertices, with displacements (52, N, 3), and of the added geometry."""
    source, mesh = fit.source, fit.mesh
    unique = mesh.unique
    original = np.full(len(mesh.whole), -1, np.int64)
    original[unique[::-1]] = np.arange(len(unique))[::-1]  # a vertex of the file at each position

    def of_file(rows: NDArray[np.int64]) -> Index:
        return original[fit.used[rows]].astype(np.int32)

    lips = np.isin(source.used, source.face.parts["lips"])
    on_lips = lips[source.triangles[fit.match.triangles]].mean(axis=1) > 0.5
    parts: dict[str, Index] = {
        "skin": of_file(np.flatnonzero(~on_lips)), "lips": of_file(np.flatnonzero(on_lips)),
        MESH: np.arange(len(mesh.points), dtype=np.int32),
        **{name: np.flatnonzero(np.isin(unique, ids)).astype(np.int32) for name, ids in kept.items()},
        **added.parts,
    }  # fmt: skip
    for side in ("left", "right"):
        if f"eye_{side}" not in parts:
            parts[f"eye_{side}"] = np.unique(of_file(fit.nearest[_lid_rim(source, side.title())]))
    landmarks = {}
    for name, vertex in source.face.landmarks.items():
        if vertex in added.rows:
            landmarks[name] = added.rows[vertex]
        elif vertex in source.used:
            landmarks[name] = int(of_file(fit.nearest[[int(source.find(np.array(vertex)))]])[0])
    template = np.concatenate([mesh.points, *added.points]).astype(np.float32)
    blendshapes = np.concatenate([shapes, *added.shapes], axis=1).astype(np.float32)
    own, textures = _own_surfaces(mesh, kept, fit.used)
    irises = next(surface.material for surface in source.face.surfaces if surface.name == "eyes")
    if irises.texture is not None:
        bare = [surface.name for surface in own if surface.material == _OWN["own_eyes"]]
        own = [_paint_eyes(surface, mesh, kept, irises) if surface.name in bare else surface for surface in own]
        textures |= {irises.texture: source.face.textures[irises.texture]} if bare else {}
    surfaces = sorted([*own, *added.surfaces], key=lambda surface: surface.material.mode != "opaque")
    names = [surface.material.texture for surface in added.surfaces if surface.material.texture]
    return Face(
        name=_NAME,
        template=template,
        faces=np.concatenate([surface.triangles for surface in surfaces]).astype(np.int32),
        surfaces=tuple(surfaces),
        blendshapes=blendshapes,
        blendshape_names=ARKIT_NAMES,
        parts=parts,
        masks=rig_regions(template, blendshapes, parts),
        landmarks=landmarks,
        lip_pairs=np.stack([of_file(fit.upper), of_file(fit.lower)], axis=1),
        textures=textures | {name: source.face.textures[name] for name in names},
        colors=np.full((len(template), 3), 190, np.uint8),
    )


def _apply(move: _Similarity, points: NDArray[np.floating]) -> NDArray[np.float64]:
    rotation, scale, shift = move
    moved: NDArray[np.float64] = scale * np.asarray(points, np.float64) @ rotation.T + shift
    return moved


def _eye_centre(face: Face, side: str) -> NDArray[np.float64]:
    eye = face.template[face.parts[f"eye_{side}"]]
    centre = (eye.min(axis=0) + eye.max(axis=0)) / 2
    centre[2] = eye[:, 2].max() - 0.0165  # the balls are shells: of radius 16.5 mm
    return centre.astype(np.float64)


def _ring(source: _Source, fitted: NDArray[np.float64], side: str) -> tuple[Float, NDArray[np.float64]]:
    """The lids around an eye, on the default head and on the mesh."""
    rows = _lid_rim(source, side.title())
    return source.points[rows], fitted[rows]


def _lower_face(source: _Source, fitted: NDArray[np.float64]) -> tuple[Float, NDArray[np.float64]]:
    rows = np.flatnonzero(
        np.isin(source.used, np.concatenate([source.face.masks["lower_face"], source.face.parts["lips"]]))
    )
    return source.points[rows], fitted[rows]


def _eyes_sealed(
    source: _Source, fitted: NDArray[np.float64], surface: Float, moves: Mapping[str, _Similarity]
) -> bool:
    """Whether the skin of the mesh covers the openings of the eyes."""
    spatial = require("scipy.spatial", "fit")
    tree = spatial.cKDTree(surface)
    fronts = []
    for side in moves:
        rim = fitted[_lid_rim(source, side.title())]
        middle = rim.mean(axis=0)
        fronts.append(tree.query(middle + np.array([0, 0, 0.002]))[0])
    return max(fronts) < 0.0035


def _add_surface(
    added: _Added, fit: _Fit, surface: Surface, moves: Mapping[str, _Similarity], jaw_move: _Similarity
) -> None:
    """Add a surface of the default head, moved as its surroundings."""
    source, face = fit.source, fit.source.face
    blendshapes = face.blendshapes
    assert blendshapes is not None
    vertices, inverse = np.unique(surface.triangles.ravel(), return_inverse=True)
    rest = face.template[vertices]
    shapes = blendshapes[:, vertices].astype(np.float64)
    if surface.name == "mouth":
        places = fit.fitted[source.find(vertices)]
        shapes = shapes * fit.scale
    elif surface.name in ("eyes", "cornea"):
        places = np.empty((len(vertices), 3))
        for side, chosen in (("left", rest[:, 0] > 0), ("right", rest[:, 0] <= 0)):
            places[chosen] = _apply(moves[side], rest[chosen])
            shapes[:, chosen] = moves[side][1] * shapes[:, chosen] @ moves[side][0].T
    else:
        places = _apply(jaw_move, rest)
        shapes = shapes * fit.scale
    first = len(fit.mesh.points) + sum(len(part) for part in added.points)
    added.points.append(places)
    added.shapes.append(shapes.astype(np.float32))
    triangles = (inverse.reshape(-1, 3) + first).astype(np.int32)
    added.surfaces.append(replace(surface, triangles=triangles, occlusion=None))
    added.rows.update(zip(vertices.tolist(), range(first, first + len(vertices)), strict=True))
    for name, ids in face.parts.items():
        rows = np.flatnonzero(np.isin(vertices, ids))
        if name not in ("skin", "lips") and len(rows):
            known = added.parts.get(name, np.zeros(0, np.int32))
            added.parts[name] = np.concatenate([known, rows + first]).astype(np.int32)


def _own_surfaces(
    mesh: _Mesh, kept: Mapping[str, NDArray[np.int64]], skin: NDArray[np.int64]
) -> tuple[list[Surface], dict[str, NDArray[np.uint8]]]:
    """The surfaces of the mesh by kind and material, the skin first, and their textures."""
    component, on_skin = np.zeros(len(mesh.whole), np.int32), np.zeros(len(mesh.whole), bool)
    on_skin[skin] = True
    for name, ids in kept.items():
        component[ids] = [*_OWN].index("own_eyes" if name.startswith("eye") else f"own_{name}")
    corner = mesh.unique[mesh.triangles[:, 0]]
    of_part = np.full(len(mesh.triangles), -1, np.int32)
    for number, part in enumerate(mesh.looks.parts):
        of_part[part.triangles] = number
    surfaces, textures = [], {}
    for number in range(-1, len(mesh.looks.parts)):
        for kind, (name, plain) in enumerate(_OWN.items()):
            for is_skin in (True, False):
                chosen = (of_part == number) & (component[corner] == kind) & (on_skin[corner] == is_skin)
                rows = np.flatnonzero(chosen).astype(np.int32)
                if len(rows):
                    title = f"{name if is_skin or kind else 'own_other'}_{number + 1}".removesuffix("_0")
                    surface, pixels = _own_surface(mesh, rows, number, plain, is_skin)
                    surfaces.append(replace(surface, name=title))
                    textures.update(pixels)
    surfaces.sort(key=lambda surface: (surface.material.mode != "opaque", surface.material.kind != "skin"))
    return surfaces, textures


def _own_surface(
    mesh: _Mesh, rows: Index, number: int, plain: Material, is_skin: bool
) -> tuple[Surface, dict[str, NDArray[np.uint8]]]:
    """A surface of some triangles with the material of a part of the mesh, or -1 for none, and its texture.

    Skin and teeth without a texture and a colour have those of `plain`.
    """
    triangles = mesh.triangles[rows].astype(np.int32)
    uv = np.zeros((1, 2), np.float32)
    surface = Surface("", triangles, uv, np.zeros_like(triangles), plain, None, smooth=is_skin)
    if number < 0:
        return surface, {}
    part = mesh.looks.parts[number]
    used, inverse = np.unique(part.look.uv_triangles[np.searchsorted(part.triangles, rows)], return_inverse=True)
    surface = replace(surface, uv=part.look.uv[used], uv_triangles=inverse.reshape(-1, 3).astype(np.int32))
    if not part.has_color:
        return surface, {}
    own = part.look.material
    pixels = {} if own.texture is None else {own.texture: mesh.looks.textures[own.texture]}
    if is_skin:
        own = replace(LOOKS["skin"], tint=own.tint, texture=own.texture)
        if own.texture is not None:  # the fourth channel of a skin's texture is its gloss
            shiny = pixels.pop(own.texture).copy()
            shiny[..., 3] = GLOSS
            own = replace(own, texture=f"{own.texture}_skin")
            pixels[str(own.texture)] = shiny
    elif plain.kind != "skin":
        own = replace(plain, mode=own.mode, tint=own.tint, texture=own.texture)
    return replace(surface, material=own), pixels


def _paint_eyes(surface: Surface, mesh: _Mesh, kept: Mapping[str, NDArray[np.int64]], irises: Material) -> Surface:
    """Eyeballs of the mesh without colours, with the default head's iris and white projected from the front."""
    used, inverse = np.unique(surface.triangles, return_inverse=True)
    points = mesh.points[used]
    uv = np.empty((len(used), 2), np.float32)
    is_left = np.isin(mesh.unique[used], kept.get("eye_left", ()))
    for chosen in (is_left, ~is_left):
        if chosen.any():
            low, high = points[chosen].min(axis=0), points[chosen].max(axis=0)
            radius = float((high - low)[:2].max()) / 2
            uv[chosen] = _IRIS + _EYE_IN_TEXTURE * (points[chosen, :2] - (low + high)[:2] / 2) / radius
    return replace(surface, uv=uv, uv_triangles=inverse.reshape(-1, 3).astype(np.int32), material=irises, smooth=True)


_OWN = {
    "skin": _SKIN,
    "own_eyes": Material(kind="eye", tint=(0.75, 0.74, 0.72), wrap=(0.25, 0.2, 0.2), specular=0.5, gloss=90.0),
    "own_teeth": Material(kind="teeth", tint=(0.7, 0.66, 0.58), wrap=(0.5, 0.45, 0.4), specular=0.6, gloss=60.0),
    "own_gums": Material(kind="tongue", tint=(0.35, 0.12, 0.11), wrap=(0.3, 0.15, 0.15), specular=0.5, gloss=40.0),
    "own_tears": Material(kind="cornea", mode="add", tint=(0.0, 0.0, 0.0), specular=6.0, gloss=900.0),
}
"""Materials of the mesh's own parts."""
