"""The face of a fit: the mesh with its shapes, its own eyes, teeth and tongue or those of the default head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import require
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar_bones import EYE_TURNS, turn_matrix
from sedtalker.face.avatar_materials import GLOSS, LOOKS
from sedtalker.face.fit_transfer import lid_rim
from sedtalker.face.fit_types import ShapeFit, SourceHead, UserMesh
from sedtalker.face.orientation import Pose
from sedtalker.face.registration import similarity
from sedtalker.face.rig import MESH, Face, Float, Index, Material, Surface
from sedtalker.face.vertex_masks import rig_regions

_NAME = "own"  # in the folder; a folder's head.npz is not a head's name
_GOOD, _BAD = 0.0015, 0.004  # metres, mean distance over face and lips: good, refused
_EYE_REACH = 0.018  # metres from the place of an eye to the middle of an eyeball
_BAG_VERTICES = 30  # vertices inside the mouth with which a mesh has one
_SPHERE = 0.12  # of its radius, between a sphere and an eyeball
_FLAT = 0.6  # of the depth of the deepest eyeball of a side
_TEARS = 0.2  # of the radius of an eyeball, between it and a layer on it
_EYEBALL = (0.009, 0.028)  # metres, radius
_MIXED = 0.35  # least share of the other jaw's vertices in a piece with both
_ROUND = 0.35  # least depth of an eyeball, which may be a shell, by its width; lashes are flatter
_IRIS = np.array([0.293, 0.299], np.float32)  # middle of an iris in the texture of the default head's eyes, v up
_EYE_IN_TEXTURE = 0.27  # radius of an eyeball in it
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


@dataclass
class _Added:
    """Geometry of the default head that is added to the mesh."""

    surfaces: list[Surface]
    points: list[NDArray[np.float64]]
    shapes: list[Float]
    parts: dict[str, Index]
    rows: dict[int, int]  # vertex of the default head -> vertex of the face


def assemble_face(fit: ShapeFit, pose: Pose, found: Mapping[str, Float], notes: list[str]) -> tuple[Face, FitReport]:
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
    fit: ShapeFit, moves: Mapping[str, _Similarity], jaw_move: _Similarity
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


def _find_eyeballs(fit: ShapeFit, moves: Mapping[str, _Similarity]) -> dict[int, str]:
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


def _make_face(fit: ShapeFit, shapes: Float, kept: Mapping[str, NDArray[np.int64]], added: _Added) -> Face:
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
            parts[f"eye_{side}"] = np.unique(of_file(fit.nearest[lid_rim(source, side.title())]))
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


def _ring(source: SourceHead, fitted: NDArray[np.float64], side: str) -> tuple[Float, NDArray[np.float64]]:
    """The lids around an eye, on the default head and on the mesh."""
    rows = lid_rim(source, side.title())
    return source.points[rows], fitted[rows]


def _lower_face(source: SourceHead, fitted: NDArray[np.float64]) -> tuple[Float, NDArray[np.float64]]:
    rows = np.flatnonzero(
        np.isin(source.used, np.concatenate([source.face.masks["lower_face"], source.face.parts["lips"]]))
    )
    return source.points[rows], fitted[rows]


def _eyes_sealed(
    source: SourceHead, fitted: NDArray[np.float64], surface: Float, moves: Mapping[str, _Similarity]
) -> bool:
    """Whether the skin of the mesh covers the openings of the eyes."""
    spatial = require("scipy.spatial", "fit")
    tree = spatial.cKDTree(surface)
    fronts = []
    for side in moves:
        rim = fitted[lid_rim(source, side.title())]
        middle = rim.mean(axis=0)
        fronts.append(tree.query(middle + np.array([0, 0, 0.002]))[0])
    return max(fronts) < 0.0035


def _add_surface(
    added: _Added, fit: ShapeFit, surface: Surface, moves: Mapping[str, _Similarity], jaw_move: _Similarity
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
    mesh: UserMesh, kept: Mapping[str, NDArray[np.int64]], skin: NDArray[np.int64]
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
    mesh: UserMesh, rows: Index, number: int, plain: Material, is_skin: bool
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


def _paint_eyes(surface: Surface, mesh: UserMesh, kept: Mapping[str, NDArray[np.int64]], irises: Material) -> Surface:
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
