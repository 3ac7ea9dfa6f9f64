"""Rigged avatars (.glb, .gltf, .vrm) as faces: morph targets, bones, materials.

The meshes of the file are skinned to its rest pose, converted to metres, y up, facing +z, and joined to one linear
face. Each ARKit shape is a sum of the file's morph targets (see `shape_names`), or the small rotation of an eye or jaw
bone. Geometry far from the head is left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.avatar_bones import JAW_NAME, Bones, BoneTurn, eye_centres, find_axes, turn_bones
from sedtalker.face.avatar_materials import Pictures, classify, metres_per_texel
from sedtalker.face.avatar_pieces import (
    Piece,
    arkit_displacements,
    moves,
    near_head,
    read_displacements,
    read_pieces,
    vertex_light,
    weld,
)
from sedtalker.face.avatar_targets import Target, find_targets
from sedtalker.face.gltf import MALFORMED, Gltf, gltf_primitives
from sedtalker.face.mouth_detection import find_mouth
from sedtalker.face.rig import Face, Float, Index, Material, Surface
from sedtalker.face.shape_names import Shares, arkit_shares, control_weights

_MAX_CLOSE = 2.0  # largest factor by which mouthClose is scaled to close the lips
_FARTHEST = 1e6  # units from the origin: a kilometre in millimetres
_MAX_VALUES = 400_000_000  # numbers in the blendshapes of a face


@dataclass(frozen=True)
class AvatarRig:
    """How ARKit weights and head motion move a file."""

    targets: dict[str, tuple[Target, ...]]  # canonical name -> morph targets that it moves
    shares: dict[str, Shares]  # ARKit name -> shares of canonical names
    turns: tuple[BoneTurn, ...]
    head: int | None  # node that head motion moves
    rotation: NDArray[np.float64]  # (3, 3) from the file's axes to y up, facing +z
    metres: float  # in one unit of the file
    pivot: NDArray[np.float64]  # (3,) of the head's node, in metres after the rotation

    def target_weights(self, weights: Float) -> dict[tuple[int, int], Float]:
        """Weights (T,) by mesh and morph target, for ARKit weights (T, 52); those that nothing moves are left out."""
        result: dict[tuple[int, int], Float] = defaultdict(lambda: np.zeros(len(weights), np.float32))
        for control, values in control_weights(self.shares, weights).items():
            for target in self.targets.get(control, ()):
                key = target.mesh, target.number
                result[key] = result[key] + np.float32(target.share) * values
        return {key: np.clip(values, 0, 1).astype(np.float32) for key, values in result.items()}


@dataclass(frozen=True)
class Avatar:
    """A file, its rig, and the face made of it."""

    gltf: Gltf
    rig: AvatarRig
    face: Face


def is_rigged(path: Path) -> bool:
    """Whether a glTF file has morph targets, is a VRM, or has a skeleton with a jaw."""
    gltf = Gltf(path)
    try:
        if {"VRM", "VRMC_vrm"} & {*gltf.tree.get("extensions", {})}:
            return True
        joints = {joint for skin in gltf.tree.get("skins", []) for joint in skin.get("joints", [])}
        names = [str(node.get("name", "")).lower() for node in gltf.tree.get("nodes", [])]
    except MALFORMED as error:
        raise gltf.damaged(error) from error
    jaws = {index for index, name in enumerate(names) if JAW_NAME.match(name)}
    return bool(joints & jaws) or any(primitive.get("targets") for _, primitive in gltf_primitives(gltf))


def load_avatar(path: Path) -> Avatar:
    """Read a rigged avatar. Files that did not change are read once.

    Raises:
        FaceError: the file cannot be read, or nothing in it opens the mouth.
    """
    path = Path(path)
    try:
        state = path.stat()
    except OSError as error:
        raise FaceError(f"no such avatar: {path}. Give a .glb, .gltf or .vrm file") from error
    return _load(str(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _load(path: str, modified: int, size: int) -> Avatar:
    gltf = Gltf(Path(path))
    try:
        return _build(gltf)
    except MALFORMED as error:
        raise gltf.damaged(error) from error


def _build(gltf: Gltf) -> Avatar:
    world = gltf.matrices()
    targets = find_targets(gltf)
    pieces = read_pieces(gltf, world)
    if not pieces:
        raise FaceError(f"no triangles in this avatar: {gltf.path}. Export its meshes")
    if sum(len(piece.points) for piece in pieces) * len(ARKIT_NAMES) * 3 > _MAX_VALUES:
        raise FaceError(f"an avatar of too many vertices: {gltf.path}. Reduce it to less than 2 million")
    moved = [read_displacements(gltf, piece, targets) for piece in pieces]
    _check_size(pieces)
    targets = {name: bound for name, bound in targets.items() if moves(name, pieces, moved)}
    shares = arkit_shares(targets)
    for piece, displacements in zip(pieces, moved, strict=True):
        piece.shapes = arkit_displacements(piece, displacements, shares)
        piece.moves_mouth = bool(np.abs(piece.shapes[JAW_OPEN]).max(initial=0) > 0)
    bones = Bones(gltf, pieces)
    jaw = bones.below(bones.jaw)
    if "jawOpen" not in shares and not any(piece.share_of(jaw).any() for piece in pieces):
        raise FaceError(
            f"nothing opens the mouth of this avatar: {gltf.path}. It needs ARKit blendshapes, visemes or a jaw bone; "
            "make a rig with: sedtalker face fit"
        )
    rotation, metres = find_axes(pieces, bones, world)
    for piece in pieces:
        piece.points = (piece.points @ rotation.T * metres).astype(np.float32)
        piece.shapes = (piece.shapes @ rotation.T * metres).astype(np.float32)
        if piece.normals is not None:
            piece.normals = (piece.normals @ rotation.T).astype(np.float32)
    origins = world[:, :3, 3] @ rotation.T * metres
    turns = turn_bones(pieces, bones, shares, origins)
    return _join(gltf, pieces, bones, turns, targets, shares, rotation, metres, origins)


def _check_size(pieces: list[Piece]) -> None:
    """Raise ValueError if the pieces at rest are too large to be in any unit, or have no width or height."""
    low = np.min([piece.points.min(axis=0) for piece in pieces], axis=0)
    high = np.max([piece.points.max(axis=0) for piece in pieces], axis=0)
    if not np.isfinite(low + high).all() or max(np.abs(low).max(), np.abs(high).max()) > _FARTHEST:
        raise ValueError(f"a vertex is more than {_FARTHEST:.0e} units away")
    if np.count_nonzero(high > low) < 2:
        raise ValueError("its meshes have no size")


@dataclass
class _Joined:
    """Vertices and surfaces of the pieces that were joined to one mesh; the arrays are those of each piece."""

    surfaces: list[Surface] = field(default_factory=list)
    points: list[Float] = field(default_factory=list)  # (N, 3)
    shapes: list[Float] = field(default_factory=list)  # (52, N, 3)
    head_weights: list[Float] = field(default_factory=list)  # (N,)
    darkness: list[Float] = field(default_factory=list)  # (N,), 1 minus the light of the vertex colours
    parts: dict[str, list[Index]] = field(default_factory=lambda: defaultdict(list))
    count: int = 0  # of vertices

    def add(self, piece: Piece, triangles: Index, bones: Bones, eyes: NDArray[np.float64], pictures: Pictures) -> None:
        """Append a piece with the given triangles; `eyes` (3,) is the middle between the eyes."""
        used, inverse = np.unique(triangles.ravel(), return_inverse=True)
        corners: Index = inverse.reshape(-1, 3).astype(np.int32)
        welded, rows = weld(piece, used)
        kept = used[rows]
        kind = classify(piece.names, piece.moves_mouth)
        uv_sets = {number: values[used] for number, values in piece.uv_sets.items()}
        look = pictures.look(piece.primitive, kind, uv_sets, corners)
        points = piece.points[kept]
        material = _scale_relief(look.material, points, welded[corners], look.uv, look.uv_triangles, pictures)
        name = re.sub(r"\W+", "_", f"{kind}_{piece.names.split(' ')[0]}_{len(self.surfaces)}")
        moved = (welded[corners] + self.count).astype(np.int32)
        self.surfaces.append(Surface(name, moved, look.uv, look.uv_triangles, material, None))
        self.points.append(points)
        self.darkness.append(1 - vertex_light(piece)[kept])
        self.shapes.append(piece.shapes[:, kept])
        share = piece.share_of(bones.nodes_of_head) if bones.nodes_of_head else np.ones(len(piece.points), np.float32)
        self.head_weights.append(share[kept])
        ids = np.arange(self.count, self.count + len(points), dtype=np.int32)
        self.parts[kind].append(ids)
        for side, node in (("left", bones.left_eye), ("right", bones.right_eye)):
            ball = piece.share_of(bones.below(node))[kept] > 0.5
            if kind == "eye" and not ball.any():
                ball = (points[:, 0] > eyes[0]) == (side == "left")
            if ball.any() and kind in ("eye", "plain", "skin"):
                self.parts[f"eye_{side}"].append(ids[ball])
        self.count += len(points)


def _join(
    gltf: Gltf, pieces: list[Piece], bones: Bones, turns: tuple[BoneTurn, ...],
    targets: dict[str, tuple[Target, ...]], shares: dict[str, Shares], rotation: NDArray[np.float64], metres: float,
    origins: NDArray[np.float64],
) -> Avatar:  # fmt: skip
    eyes = eye_centres(pieces, bones, origins)
    middle = eyes.mean(axis=0)
    pictures, joined = Pictures(gltf), _Joined()
    for piece, triangles in near_head(pieces, middle):
        joined.add(piece, triangles, bones, middle, pictures)
    surfaces = _with_vertex_light(joined.surfaces, np.concatenate(joined.darkness).astype(np.float32))
    surfaces.sort(key=lambda surface: ("opaque", "hair", "blend", "add").index(surface.material.mode))
    faces = np.concatenate([surface.triangles for surface in surfaces])
    template, blendshapes = np.concatenate(joined.points), np.concatenate(joined.shapes, axis=1)
    parts = {name: np.concatenate(ids).astype(np.int32) for name, ids in joined.parts.items()}
    for side, centre in zip(("left", "right"), eyes, strict=True):
        if f"eye_{side}" not in parts:  # no eyeballs of their own: the vertices around the eye
            distance = np.linalg.norm(template - centre, axis=1)
            parts[f"eye_{side}"] = np.argsort(distance)[:40].astype(np.int32)
    mouth = find_mouth(template, faces, blendshapes, parts.get("skin", np.arange(len(template), dtype=np.int32)))
    if mouth is not None:
        shares = _fit_mouth_close(template, blendshapes, mouth.pairs, shares)
        parts["lips"] = mouth.lips
    pivot = origins[bones.head] if bones.head is not None else middle + np.array([0.0, -0.135, -0.09])
    rig = AvatarRig(targets, shares, turns, bones.head, rotation, metres, pivot)
    face = Face(
        name=gltf.path.stem,
        template=template.astype(np.float32),
        faces=faces.astype(np.int32),
        surfaces=tuple(surfaces),
        blendshapes=blendshapes,
        blendshape_names=ARKIT_NAMES,
        parts=parts,
        masks={} if mouth is None else {"lips": mouth.lips},
        landmarks={} if mouth is None else mouth.landmarks,
        lip_pairs=None if mouth is None else mouth.pairs,
        textures=pictures.textures,
        head_weights=np.concatenate(joined.head_weights).astype(np.float32),
        neck=pivot.astype(np.float32),
        source=str(gltf.path),
    )
    return Avatar(gltf, rig, face)


def _fit_mouth_close(template: Float, blendshapes: Float, pairs: Index, shares: dict[str, Shares]) -> dict[str, Shares]:
    """Scale mouthClose (in place) so that it undoes jawOpen, or replace it by the reverse; returns the new shares."""
    factor = _closing_factor(template, blendshapes, pairs)
    if factor is not None:
        blendshapes[MOUTH_CLOSE] *= np.float32(factor)
        if "mouthClose" in shares:
            return shares | {"mouthClose": {name: share * factor for name, share in shares["mouthClose"].items()}}
    elif "jawOpen" in shares:  # no mouthClose that would undo this jawOpen
        blendshapes[MOUTH_CLOSE] = -blendshapes[JAW_OPEN]
        return shares | {"mouthClose": {name: -share for name, share in shares["jawOpen"].items()}}
    return shares


def _closing_factor(template: Float, blendshapes: Float, pairs: Index) -> float | None:
    """The factor of mouthClose with which equal weights of jawOpen and mouthClose leave the lips as at rest.

    None if mouthClose does not close the lips, or by far too little.
    """
    middle = pairs[len(pairs) // 4 : len(pairs) - len(pairs) // 4]
    opening, closing = (
        float((blendshapes[column][middle[:, 0], 1] - blendshapes[column][middle[:, 1], 1]).mean())
        for column in (JAW_OPEN, MOUTH_CLOSE)
    )
    if not opening > 0:
        return 1.0
    if not closing < 0 or -opening / closing > _MAX_CLOSE:
        return None
    return max(-opening / closing, 1 / _MAX_CLOSE)


def _with_vertex_light(surfaces: list[Surface], darkness: Float) -> list[Surface]:
    """Surfaces whose vertex colours vary are darkened by them, and get no other occlusion: it is in the colours."""
    result = []
    for surface in surfaces:
        if darkness[surface.triangles].any():
            light = np.ones(len(darkness), np.float32)
            surface = replace(surface, scalp=darkness, scalp_color=(0.0, 0.0, 0.0), occlusion=light)
        result.append(surface)
    return result


def _scale_relief(
    material: Material, points: Float, triangles: Index, uv: Float, uv_triangles: Index, pictures: Pictures
) -> Material:
    """The material with the height of its bump map in metres; it is in texels before."""
    if material.bump is None:
        return material
    height, width = pictures.textures[material.bump].shape[:2]
    texel = metres_per_texel(points, triangles, uv, uv_triangles, (height, width))
    return replace(material, bump_height=material.bump_height * texel)
