"""Make a rig for a head mesh of any topology: `fit_mesh`.

    align -> landmarks -> register the default head -> correspondences -> transfer the 52 shapes -> eyes, teeth, tongue

The result is a face whose first vertices are those of the mesh, in its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError, require
from sedtalker.face.assets import find_pose, is_flame
from sedtalker.face.fit_assembly import FitReport, assemble_face
from sedtalker.face.fit_landmarks import NAMES, find_landmarks
from sedtalker.face.fit_transfer import transfer_shapes
from sedtalker.face.fit_types import SourceHead, UserMesh, read_source
from sedtalker.face.gltf import SUFFIXES
from sedtalker.face.identity import shape_modes
from sedtalker.face.mesh import read_mesh, vertex_normals
from sedtalker.face.mesh_looks import MeshLooks, read_looks
from sedtalker.face.orientation import UPRIGHT, Pose, longest_side, pose_of_landmarks
from sedtalker.face.registration import Anchors, SurfaceIndex, register, similarity, smoothness
from sedtalker.face.rig import Face, Float, Index

_GIVEN = 30.0  # weight of a landmark that is given
_FOUND = {"mouth_left": 0.7, "mouth_right": 0.7}  # weights of landmarks that are found, 2 for others
_FAR_HEAD = 0.032  # metres between a head of another person and the default one, see `match_surface`
_HEAD_SIZES = (0.17, 0.75)  # metres, the longest side of a head with or without neck and shoulders
_POSE_LANDMARKS = 3  # with which unit and axes are determined
_MAX_VERTICES = 400_000
_MODES, _MODE_STEPS = 12, 16  # modes of the shape, and steps of their fit
_MOUTH_REACH = 0.008  # metres from the registered inside of the mouth to that of the mesh
_LAST_STEPS = -3  # of the registration, repeated with the inside of the mouth
_SHEET = 2  # triangles of the smallest sheet


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
    source = read_source()
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
    fit = transfer_shapes(source, mesh, fitted, size)
    return assemble_face(fit, pose, found, notes)


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
    path: Path, vertices: Float, triangles: Index, source: SourceHead, landmarks: Mapping[str, int | tuple[float, ...]]
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
        if low <= longest_side(vertices) <= high:
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


def _position(value: int | tuple[float, float, float], vertices: Float, pose: Pose, path: Path) -> Float:
    """A landmark in metres, y up, facing +z."""
    if isinstance(value, int):
        if value >= len(vertices):
            raise FaceError(f"a landmark is vertex {value}, but the mesh has {len(vertices)}: {path}. Count from 0")
        return pose.apply(vertices[value])
    return pose.apply(np.array(value, np.float32))


def _align(source: SourceHead, points: Float, triangles: Index) -> Float:
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


def _fit_modes(source: SourceHead, aligned: Float, points: Float, triangles: Index, anchors: Anchors) -> Float:
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
    source: SourceHead, aligned: Float, points: Float, triangles: Index, given: Mapping[str, Float]
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


def _anchors(source: SourceHead, found: Mapping[str, Float], given: Mapping[str, Float]) -> Anchors:
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


def _register(source: SourceHead, aligned: Float, target: SurfaceIndex, anchors: Anchors) -> NDArray[np.float64]:
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
    path: Path, points: Float, triangles: Index, looks: MeshLooks, aligned: Float, source: SourceHead
) -> UserMesh:
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
    return UserMesh(path, points, triangles, looks, whole, unique, main, others)
