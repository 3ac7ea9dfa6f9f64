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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.avatar_materials import Pictures, classify, metres_per_texel
from sedtalker.face.gltf import MALFORMED, Gltf, gltf_primitives
from sedtalker.face.mouth_detection import find_mouth
from sedtalker.face.orientation import UNITS
from sedtalker.face.rig import Face, Float, Index, Material, Surface
from sedtalker.face.shape_names import Shares, arkit_shares, canonical_name, control_weights

_EYE_DISTANCE = 0.063  # metres between the eyes of an adult
_UNIT_RATIO = 2.2  # a file whose eyes are within this ratio of it is in metres, as glTF requires
_BELOW, _BESIDE = 0.45, 0.40  # metres from the eyes; farther triangles are never in a portrait
_STILL = 1e-4  # of the size of a mesh; a morph target that moves it less is empty
_UPRIGHT = 0.6  # least share of +y in the direction from mouth to eyes with which +y is up
_SMALL = 2e-4  # metres; a shape that moves an eyeball less does not turn it
_MAX_CLOSE = 2.0  # largest factor by which mouthClose is scaled to close the lips
_FARTHEST = 1e6  # units from the origin: a kilometre in millimetres
_MAX_VALUES = 400_000_000  # numbers in the blendshapes of a face

EYE_TURNS: dict[str, tuple[float, float]] = {  # name without side -> pitch down and yaw to the person's left in degrees
    "eyeLookUp": (-9.8, 0.0), "eyeLookDown": (11.4, 0.0), "eyeLookIn": (0.0, -15.0), "eyeLookOut": (0.0, 15.0),
}  # fmt: skip
_JAW = re.compile(r"(?=.*jaw)(?!.*(end|top))")
_JAW_TURN = 21.0  # degrees of the jaw bone at jawOpen 1: 34 mm between the lips


class Target(NamedTuple):
    """A morph target of a mesh, and its share in a shape."""

    mesh: int
    number: int  # of the morph target
    share: float


class BoneTurn(NamedTuple):
    """Degrees by which a node turns at weight 1 of an ARKit shape: pitch down, yaw to the person's left."""

    node: int
    shape: str
    pitch: float
    yaw: float


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


@dataclass
class _Piece:
    """A primitive at rest in the file's axes."""

    names: str
    mesh: int
    node: int
    primitive: dict[str, Any]
    points: Float  # (N, 3)
    normals: Float | None  # (N, 3)
    matrices: Float  # (3, 3) or (N, 3, 3), of displacements
    triangles: Index
    uv_sets: dict[int, Float]
    joints: Index | None  # (N, J) nodes
    weights: Float | None  # (N, J)
    light: Float | None = None  # (N,) mean of the vertex colours, where they vary
    moves_mouth: bool = False
    shapes: Float = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))  # (52, N, 3)

    def share_of(self, nodes: set[int]) -> Float:
        """Skinning weights (N,) of a set of nodes."""
        if self.joints is None or self.weights is None:
            return np.full(len(self.points), float(self.node in nodes), np.float32)
        inside = np.isin(self.joints, list(nodes))
        return (self.weights * inside).sum(axis=1).astype(np.float32)


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
    jaws = {index for index, name in enumerate(names) if _JAW.match(name)}
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
    targets = _find_targets(gltf)
    pieces = _read_pieces(gltf, world)
    if not pieces:
        raise FaceError(f"no triangles in this avatar: {gltf.path}. Export its meshes")
    if sum(len(piece.points) for piece in pieces) * len(ARKIT_NAMES) * 3 > _MAX_VALUES:
        raise FaceError(f"an avatar of too many vertices: {gltf.path}. Reduce it to less than 2 million")
    moved = [_displacements(gltf, piece, targets) for piece in pieces]
    _check_size(pieces)
    targets = {name: bound for name, bound in targets.items() if _moves(name, pieces, moved)}
    shares = arkit_shares(targets)
    for piece, displacements in zip(pieces, moved, strict=True):
        piece.shapes = _arkit_displacements(piece, displacements, shares)
        piece.moves_mouth = bool(np.abs(piece.shapes[JAW_OPEN]).max(initial=0) > 0)
    bones = _Bones(gltf, pieces)
    jaw = bones.below(bones.jaw)
    if "jawOpen" not in shares and not any(piece.share_of(jaw).any() for piece in pieces):
        raise FaceError(
            f"nothing opens the mouth of this avatar: {gltf.path}. It needs ARKit blendshapes, visemes or a jaw bone; "
            "make a rig with: sedtalker face fit"
        )
    rotation, metres = _find_axes(pieces, bones, world)
    for piece in pieces:
        piece.points = (piece.points @ rotation.T * metres).astype(np.float32)
        piece.shapes = (piece.shapes @ rotation.T * metres).astype(np.float32)
        if piece.normals is not None:
            piece.normals = (piece.normals @ rotation.T).astype(np.float32)
    origins = world[:, :3, 3] @ rotation.T * metres
    turns = _turn_bones(pieces, bones, shares, origins)
    return _join(gltf, pieces, bones, turns, targets, shares, rotation, metres, origins)


def _check_size(pieces: list[_Piece]) -> None:
    """Raise ValueError if the pieces at rest are too large to be in any unit, or have no width or height."""
    low = np.min([piece.points.min(axis=0) for piece in pieces], axis=0)
    high = np.max([piece.points.max(axis=0) for piece in pieces], axis=0)
    if not np.isfinite(low + high).all() or max(np.abs(low).max(), np.abs(high).max()) > _FARTHEST:
        raise ValueError(f"a vertex is more than {_FARTHEST:.0e} units away")
    if np.count_nonzero(high > low) < 2:
        raise ValueError("its meshes have no size")


def _find_targets(gltf: Gltf) -> dict[str, tuple[Target, ...]]:
    """The morph targets of each shape with a known name; VRM expressions come before names of morph targets."""
    found: dict[str, list[Target]] = {}
    for title, bound in _expressions(gltf):
        name = canonical_name(title)
        if name is not None and bound:
            found.setdefault(name, []).extend(bound)
    named: dict[str, list[Target]] = {}
    for mesh, names in enumerate(_target_names(gltf)):
        for index, title in enumerate(names):
            name = canonical_name(title)
            if name is not None and name not in found:
                named.setdefault(name, []).append(Target(mesh, index, 1.0))
    return {name: tuple(dict.fromkeys(bound)) for name, bound in {**named, **found}.items()}


def _target_names(gltf: Gltf) -> list[list[str]]:
    """Names of the morph targets of each mesh."""
    result = []
    for mesh in gltf.tree.get("meshes", []):
        primitive = mesh["primitives"][0]
        targets = primitive.get("targets", [])
        names = mesh.get("extras", {}).get("targetNames") or primitive.get("extras", {}).get("targetNames")
        if not names:  # some exporters name the accessors
            entries = [gltf.item("accessors", next(iter(target.values()))) for target in targets if target]
            names = [entry.get("name", "") for entry in entries]
        result.append([str(name) for name in names][: len(targets)])
    return result


def _expressions(gltf: Gltf) -> list[tuple[str, list[Target]]]:
    """VRM expressions (1.0 and 0.x) with the morph targets that they move."""
    extensions = gltf.tree.get("extensions", {})
    result = []
    for group in ("preset", "custom"):
        for name, entry in extensions.get("VRMC_vrm", {}).get("expressions", {}).get(group, {}).items():
            bound = [
                Target(gltf.item("nodes", bind["node"])["mesh"], bind["index"], float(bind.get("weight", 1.0)))
                for bind in entry.get("morphTargetBinds", [])
            ]
            result.append((name, bound))
    for entry in extensions.get("VRM", {}).get("blendShapeMaster", {}).get("blendShapeGroups", []):
        bound = [Target(b["mesh"], b["index"], float(b["weight"]) / 100) for b in entry.get("binds", [])]
        preset = entry.get("presetName", "unknown")
        result.append((entry.get("name", "") if preset in ("", "unknown") else preset, bound))
    counts = [len(mesh["primitives"][0].get("targets", [])) for mesh in gltf.tree.get("meshes", [])]
    for name, bound in result:
        for target in bound:
            if not (0 <= target.mesh < len(counts) and 0 <= target.number < counts[target.mesh]):
                raise ValueError(f"the expression {name!r:.20} moves a morph target that does not exist")
    return result


def expression_names(gltf: Gltf) -> dict[str, str]:
    """Canonical names of a VRM's expressions, with their own names; presets of VRM 0.x have the names of 1.0."""
    presets = {"a": "aa", "i": "ih", "u": "ou", "e": "ee", "o": "oh", "blink_l": "blinkLeft", "blink_r": "blinkRight",
               "joy": "happy", "sorrow": "sad", "fun": "relaxed"}  # fmt: skip
    try:
        expressions = _expressions(gltf)
    except MALFORMED as error:
        raise gltf.damaged(error) from error
    found = {}
    for title, bound in expressions:
        name = canonical_name(title)
        if name is not None and bound:
            found[name] = presets.get(title.lower(), title)
    if not found:
        raise FaceError(f"no VRM expressions for speech in this file: {gltf.path}. Use --to glb --into")
    return found


def _read_pieces(gltf: Gltf, world: NDArray[np.float64]) -> list[_Piece]:
    pieces = (_read_piece(gltf, node, primitive, world) for node, primitive in gltf_primitives(gltf))
    return [piece for piece in pieces if piece is not None]


def _read_piece(gltf: Gltf, node: int, primitive: dict[str, Any], world: NDArray[np.float64]) -> _Piece | None:
    """A primitive; None if it has no triangles."""
    entry = gltf.item("nodes", node)
    mesh = gltf.item("meshes", entry["mesh"])
    attributes = primitive["attributes"]
    positions = gltf.array(attributes["POSITION"]).astype(np.float32)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError("positions are not VEC3")

    def read(name: str) -> Float | None:
        """The values of another attribute of the vertices, if the primitive has it."""
        if name not in attributes:
            return None
        values = gltf.array(attributes[name]).astype(np.float32)
        if len(values) != len(positions):
            raise ValueError(f"{name} and POSITION of a mesh differ in number")
        return values

    triangles = gltf.triangles(primitive, len(positions))
    if not len(triangles):
        return None
    joints = weights = None
    matrices, offsets = world[node, :3, :3].astype(np.float32), world[node, :3, 3].astype(np.float32)
    if "skin" in entry and "JOINTS_0" in attributes:
        joints, weights, matrices, offsets = _skin(gltf, entry["skin"], attributes, world)
        if len(joints) != len(positions):
            raise ValueError("joints and positions differ in number")
    # Morph targets move positions before the skin does; weights of the file at rest belong to its rest.
    rest = entry.get("weights") or mesh.get("weights") or []
    for weight, target in zip(rest, primitive.get("targets", []), strict=False):
        if weight and "POSITION" in target:
            positions = positions + np.float32(weight) * gltf.array(target["POSITION"]).astype(np.float32)
    if np.linalg.det(np.asarray(matrices, np.float64).reshape(-1, 3, 3)[0]) < 0:
        triangles = triangles[:, [0, 2, 1]]
    normals, colors = read("NORMAL"), read("COLOR_0")
    light = None if colors is None else colors[:, :3].mean(axis=1)
    uv_sets = {number: read(f"TEXCOORD_{number}") for number in range(4)}
    material = gltf.item("materials", primitive["material"]) if "material" in primitive else {}
    return _Piece(
        names=" ".join(str(item.get("name", "")) for item in (material, mesh, entry)),
        mesh=entry["mesh"],
        node=node,
        primitive=primitive,
        points=_transform(matrices, positions) + offsets,
        normals=None if normals is None else _transform(matrices, normals),
        matrices=matrices,
        triangles=triangles,
        uv_sets={number: values for number, values in uv_sets.items() if values is not None},
        joints=joints,
        weights=weights,
        light=None if light is None or np.ptp(light) < 0.02 else light,
    )


def _transform(matrices: Float, vectors: Float) -> Float:
    """Vectors (N, 3) by one matrix (3, 3) or a matrix each (N, 3, 3)."""
    if matrices.ndim == 2:
        return (vectors @ matrices.T).astype(np.float32)
    return np.einsum("nab,nb->na", matrices, vectors).astype(np.float32)


def _skin(
    gltf: Gltf, index: Any, attributes: dict[str, Any], world: NDArray[np.float64]
) -> tuple[Index, Float, Float, Float]:
    """Joints as nodes (N, J), their weights (N, J), and the matrices (N, 3, 3) and offsets (N, 3) of the rest pose."""
    skin = gltf.item("skins", index)
    nodes = np.array(skin["joints"], np.int32)
    if not len(nodes) or nodes.min() < 0 or nodes.max() >= len(world):
        raise ValueError("a joint is not a node")
    inverse = np.tile(np.eye(4), (len(nodes), 1, 1))
    if "inverseBindMatrices" in skin:
        inverse[:] = gltf.array(skin["inverseBindMatrices"])[: len(nodes)].reshape(-1, 4, 4).transpose(0, 2, 1)
    sets = [number for number in range(4) if f"JOINTS_{number}" in attributes]
    stored = [gltf.array(attributes[f"JOINTS_{n}"]) for n in sets]
    if any(values.dtype.kind != "u" for values in stored):
        raise ValueError("the joints of a mesh are not whole numbers from 0")
    joints = np.concatenate(stored, axis=1).astype(np.int64)
    weights = np.concatenate([gltf.array(attributes[f"WEIGHTS_{n}"]) for n in sets], axis=1).astype(np.float32)
    if joints.shape != weights.shape or (joints.size and int((joints * (weights > 0)).max()) >= len(nodes)):
        raise ValueError("a vertex refers to a joint that does not exist")
    joints = np.where(weights > 0, joints, 0)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    bind = (world[nodes] @ inverse).astype(np.float32)
    blended = np.einsum("nj,njab->nab", weights, bind[joints], optimize=True)
    return nodes[joints], weights, blended[:, :3, :3], blended[:, :3, 3]


def _displacements(gltf: Gltf, piece: _Piece, targets: dict[str, tuple[Target, ...]]) -> dict[str, Float]:
    """Displacements (N, 3) of a primitive by canonical name, before its skin."""
    stored = piece.primitive.get("targets", [])
    moved: dict[str, Float] = {}
    for name, bound in targets.items():
        for target in bound:
            if target.mesh == piece.mesh and target.number < len(stored) and "POSITION" in stored[target.number]:
                values = gltf.array(stored[target.number]["POSITION"]).astype(np.float32)
                if values.shape != piece.points.shape:
                    raise ValueError(f"the morph target {name} differs from its mesh in number")
                moved[name] = moved.get(name, 0) + np.float32(target.share) * values
    return moved


def _moves(name: str, pieces: list[_Piece], moved: list[dict[str, Float]]) -> bool:
    """Whether a shape moves something. Some exporters write empty morph targets for the shapes that they lack."""
    for piece, displacements in zip(pieces, moved, strict=True):
        if name in displacements:
            travel = np.abs(_transform(piece.matrices, displacements[name])).max(initial=0)
            if travel > _STILL * np.ptp(piece.points, axis=0).max():
                return True
    return False


def _arkit_displacements(piece: _Piece, moved: dict[str, Float], shares: dict[str, Shares]) -> Float:
    """Displacements (52, N, 3) of a primitive at weight 1, in the file's axes and units."""
    result = np.zeros((len(ARKIT_NAMES), len(piece.points), 3), np.float32)
    for column, name in enumerate(ARKIT_NAMES):
        for control, share in shares.get(name, {}).items():
            if control in moved:
                result[column] += np.float32(share) * moved[control]
    for moving in np.flatnonzero(result.any(axis=(1, 2))):
        result[moving] = _transform(piece.matrices, result[moving])
    return result


class _Bones:
    """Nodes of the head, the eyes and the jaw, by VRM's humanoid or by name."""

    def __init__(self, gltf: Gltf, pieces: list[_Piece]) -> None:
        self._gltf = gltf
        self._nodes = gltf.tree.get("nodes", [])
        skins = gltf.tree.get("skins", [])
        self._joints = {joint for skin in skins for joint in skin["joints"]}
        humanoid = _humanoid(gltf)
        # A node with a skinned mesh stays where its bones are, so that turning it has no effect.
        movable = self._joints | {piece.node for piece in pieces if piece.joints is None}
        for node in list(movable):
            parent = gltf.parents[node]
            while parent >= 0:
                movable.add(parent)
                parent = gltf.parents[parent]
        self._movable = movable
        self.left_eye = humanoid.get("leftEye", self._find(r"(?=.*eye)(?!.*(lid|brow|lash|end|top|corner))", "left"))
        self.right_eye = humanoid.get("rightEye", self._find(r"(?=.*eye)(?!.*(lid|brow|lash|end|top|corner))", "right"))
        self.jaw = humanoid.get("jaw", self._find(_JAW.pattern, None))
        self.head = humanoid.get("head")
        if self.head is None:
            self.head = self._heaviest(r"(^|.*[^a-z])(head|cc_base_head)$|.*[a-z0-9_ :.]head$|^head", pieces)
        if self.head is None:
            self.head = humanoid.get("neck", self._heaviest(r".*neck", pieces))
        self.nodes_of_head = gltf.descendants(self.head) if self.head is not None else set()

    def below(self, node: int | None) -> set[int]:
        """A node and those below it; empty for None."""
        return set() if node is None else self._gltf.descendants(node)

    def _named(self, pattern: str) -> list[int]:
        return [index for index in self._movable if re.match(pattern, str(self._nodes[index].get("name", "")).lower())]

    def _find(self, pattern: str, side: str | None) -> int | None:
        found = []
        for index in self._named(pattern):
            name = str(self._nodes[index].get("name", ""))
            sides = {
                side
                for side, letter in (("left", "l"), ("right", "r"))
                if side in name.lower() or re.search(rf"(^|[_\-. ]){letter}([_\-. ]|$)", name.lower())
                or re.search(rf"[a-z]{letter.upper()}$|^{letter.upper()}[A-Z]", name)
            }  # fmt: skip
            if side is None or sides == {side}:
                found.append(index)
        joints = [index for index in found if index in self._joints]
        return min(joints or found, default=None)

    def _heaviest(self, pattern: str, pieces: list[_Piece]) -> int | None:
        """Of the nodes with such a name, the one that moves most of the meshes with blendshapes."""
        best, most = None, 0.0
        for index in sorted(self._named(pattern)):
            nodes = self._gltf.descendants(index)
            moved = sum(float(piece.share_of(nodes).sum()) for piece in pieces if piece.primitive.get("targets"))
            if moved > most:
                best, most = index, moved
        return best


def _humanoid(gltf: Gltf) -> dict[str, int]:
    """Nodes by VRM's bone names."""
    extensions = gltf.tree.get("extensions", {})
    bones = extensions.get("VRMC_vrm", {}).get("humanoid", {}).get("humanBones", {})
    result = {name: bone["node"] for name, bone in bones.items()}
    for bone in extensions.get("VRM", {}).get("humanoid", {}).get("humanBones", []):
        result[bone["bone"]] = bone["node"]
    for node in result.values():
        gltf.item("nodes", node)
    return result


def _centre(pieces: list[_Piece], names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Mean position of the vertices that the given shapes move, weighted by distance; None if they move none."""
    columns = [ARKIT_NAMES.index(name) for name in names]
    total, weight = np.zeros(3), 0.0
    for piece in pieces:
        travel = np.linalg.norm(piece.shapes[columns], axis=2).sum(axis=0).astype(np.float64) ** 2
        total += travel @ piece.points
        weight += travel.sum()
    return total / weight if weight > 0 else None


def _find_axes(pieces: list[_Piece], bones: _Bones, world: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Rotation to y up, facing +z, and metres in one unit."""
    eyes = [_centre(pieces, (f"eyeBlink{side}",)) for side in ("Left", "Right")]  # at the depth of the mouth
    if eyes[0] is None or eyes[1] is None or np.allclose(eyes[0], eyes[1]):
        eyes = [world[node, :3, 3] if node is not None else None for node in (bones.left_eye, bones.right_eye)]
    mouth = _centre(pieces, ("mouthPucker", "mouthFunnel", "jawOpen"))
    heads = [piece.points[piece.share_of(bones.nodes_of_head) > 0.5] for piece in pieces] if bones.nodes_of_head else []
    head = np.concatenate([*heads, np.zeros((0, 3))])
    if not len(head):
        with_targets = [piece for piece in pieces if piece.primitive.get("targets")]
        head = np.concatenate([piece.points for piece in with_targets or pieces])
    low, high = head.min(axis=0), head.max(axis=0)
    centre = (low + high) / 2
    eye_line = eyes[0] - eyes[1] if eyes[0] is not None and eyes[1] is not None else None
    distance = 0.0 if eye_line is None else float(np.linalg.norm(eye_line))
    if mouth is None:  # only a jaw bone: the file states no front, so that of the format holds
        return np.eye(3), _unit(distance, float(high[1] - low[1]))
    up = np.array([0.0, 1.0, 0.0])
    if distance > 0 and eyes[0] is not None and eyes[1] is not None:
        rise = (eyes[0] + eyes[1]) / 2 - mouth
        up = _nearest_axis(rise) if rise[1] < _UPRIGHT * np.linalg.norm(rise) else up
    front = mouth - centre
    front = _nearest_axis(front - up * (front @ up))
    left = np.cross(up, front)
    return np.stack([left, up, front]), _unit(distance, float(np.abs((high - low) @ up)))


def _nearest_axis(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    axis = np.zeros(3)
    index = int(np.abs(direction).argmax())
    axis[index] = 1.0 if direction[index] >= 0 else -1.0
    return axis


def _unit(eye_distance: float, head_height: float) -> float:
    """Metres in one unit of the file, by the distance of the eyes, else by the height of the head."""
    ratio = eye_distance / _EYE_DISTANCE if eye_distance > 0 else head_height / 0.28
    if not 0 < ratio < np.inf or 1 / _UNIT_RATIO <= ratio <= _UNIT_RATIO:
        return 1.0
    unit = min(UNITS.values(), key=lambda metres: abs(np.log(ratio * metres)))
    return unit if 1 / _UNIT_RATIO <= ratio * unit <= _UNIT_RATIO else 1 / ratio


def _turn_bones(
    pieces: list[_Piece], bones: _Bones, shares: dict[str, Shares], origins: NDArray[np.float64]
) -> tuple[BoneTurn, ...]:
    """Turns of the eye and jaw bones for shapes that do not move their vertices; the pieces get the displacements."""
    turns = []
    for node, side in ((bones.left_eye, "Left"), (bones.right_eye, "Right")):
        if node is None:
            continue
        nodes = bones.below(node)
        balls = [piece.share_of(nodes) for piece in pieces]
        names = [f"{base}{side}" for base in EYE_TURNS]
        columns = [ARKIT_NAMES.index(name) for name in names]
        moved = max(
            float(np.abs(piece.shapes[columns] * (ball > 0.5)[:, None]).max(initial=0))
            for piece, ball in zip(pieces, balls, strict=True)
        )
        if moved > _SMALL or not any(ball.any() for ball in balls):
            continue
        sign = 1.0 if side == "Left" else -1.0
        for name, (pitch, yaw) in zip(names, EYE_TURNS.values(), strict=True):
            turns.append(BoneTurn(node, name, pitch, sign * yaw))
    if "jawOpen" not in shares and bones.jaw is not None:
        turns.append(BoneTurn(bones.jaw, "jawOpen", _JAW_TURN, 0.0))
        turns.append(BoneTurn(bones.jaw, "mouthClose", -_JAW_TURN, 0.0))
    for turn in turns:
        change = turn_matrix(turn.pitch, turn.yaw) - np.eye(3)
        if turn.shape == "mouthClose":
            change = np.eye(3) - turn_matrix(-turn.pitch, -turn.yaw)  # the exact inverse of jawOpen
        column = ARKIT_NAMES.index(turn.shape)
        nodes = bones.below(turn.node)
        for piece in pieces:
            share = piece.share_of(nodes)
            if share.any():
                arms = (piece.points - origins[turn.node]) * share[:, None]
                piece.shapes[column] += (arms @ change.T).astype(np.float32)
    return tuple(turns)


def turn_matrix(pitch: float, yaw: float) -> NDArray[np.float64]:
    """Rotation (3, 3) by degrees: pitch down about x, then yaw to the person's left about y."""
    (cp, cy), (sp, sy) = np.cos(np.radians([pitch, yaw])), np.sin(np.radians([pitch, yaw]))
    down = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ down


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

    def add(
        self, piece: _Piece, triangles: Index, bones: _Bones, eyes: NDArray[np.float64], pictures: Pictures
    ) -> None:
        """Append a piece with the given triangles; `eyes` (3,) is the middle between the eyes."""
        used, inverse = np.unique(triangles.ravel(), return_inverse=True)
        corners: Index = inverse.reshape(-1, 3).astype(np.int32)
        welded, rows = _weld(piece, used)
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
        self.darkness.append(1 - _light(piece)[kept])
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


def _light(piece: _Piece) -> Float:
    """Light (N,) of the vertex colours, 1 without."""
    return np.ones(len(piece.points), np.float32) if piece.light is None else np.clip(piece.light, 0, 1)


def _join(
    gltf: Gltf, pieces: list[_Piece], bones: _Bones, turns: tuple[BoneTurn, ...],
    targets: dict[str, tuple[Target, ...]], shares: dict[str, Shares], rotation: NDArray[np.float64], metres: float,
    origins: NDArray[np.float64],
) -> Avatar:  # fmt: skip
    eyes = _eye_centres(pieces, bones, origins)
    middle = eyes.mean(axis=0)
    pictures, joined = Pictures(gltf), _Joined()
    for piece, triangles in _near_head(pieces, middle):
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


def _with_vertex_light(surfaces: list[Surface], darkness: Float) -> list[Surface]:
    """Surfaces whose vertex colours vary are darkened by them, and get no other occlusion: it is in the colours."""
    result = []
    for surface in surfaces:
        if darkness[surface.triangles].any():
            light = np.ones(len(darkness), np.float32)
            surface = replace(surface, scalp=darkness, scalp_color=(0.0, 0.0, 0.0), occlusion=light)
        result.append(surface)
    return result


def _near_head(pieces: list[_Piece], eyes: NDArray[np.float64]) -> list[tuple[_Piece, Index]]:
    """The pieces with their triangles that a portrait may show."""
    result = []
    for piece in pieces:
        x, y, _ = np.moveaxis(piece.points[piece.triangles], -1, 0)
        near = (y.max(axis=1) > eyes[1] - _BELOW) & (np.abs(x - eyes[0]).min(axis=1) < _BESIDE)
        if near.any():
            result.append((piece, piece.triangles[near]))
    return result


def _weld(piece: _Piece, used: NDArray[np.integer]) -> tuple[Index, Index]:
    """Join vertices that texture seams split, so that normals are smooth across them.

    Vertices are joined if position and displacements are equal and their normals do not oppose each other.

    Returns:
        The joined vertex of each used vertex (N,), and the used vertex of each joined one (M,).
    """
    moving = np.flatnonzero(piece.shapes.any(axis=(1, 2)))
    rows = np.concatenate([piece.points[used], *piece.shapes[moving][:, used]], axis=1)
    rows = np.ascontiguousarray(np.round(rows / 1e-6).astype(np.int64 if rows.size < 5_000_000 else np.int32))
    keys = rows.view([("", np.void, rows.itemsize * rows.shape[1])]).ravel()
    _, rows_of, group = np.unique(keys, return_index=True, return_inverse=True)
    if piece.normals is not None:
        normals = piece.normals[used]
        opposed = (normals * normals[rows_of[group]]).sum(axis=1) < 0
        _, rows_of, group = np.unique(group * 2 + opposed, return_index=True, return_inverse=True)
    return group.astype(np.int32), rows_of.astype(np.int32)


def _scale_relief(
    material: Material, points: Float, triangles: Index, uv: Float, uv_triangles: Index, pictures: Pictures
) -> Material:
    """The material with the height of its bump map in metres; it is in texels before."""
    if material.bump is None:
        return material
    height, width = pictures.textures[material.bump].shape[:2]
    texel = metres_per_texel(points, triangles, uv, uv_triangles, (height, width))
    return replace(material, bump_height=material.bump_height * texel)


def _eye_centres(pieces: list[_Piece], bones: _Bones, origins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (2, 3) of the left and the right eye."""
    centres = []
    for node, side in ((bones.left_eye, "Left"), (bones.right_eye, "Right")):
        centre = origins[node] if node is not None else _centre(pieces, (f"eyeBlink{side}",))
        if centre is not None:
            centres.append(centre)
    if len(centres) < 2 or np.allclose(centres[0], centres[1], atol=1e-3):
        mouth = _centre(pieces, ("mouthPucker", "mouthFunnel", "jawOpen"))
        if mouth is None:
            points = np.concatenate([piece.points for piece in pieces])
            mouth = np.array([points[:, 0].mean(), points[:, 1].max() - 0.18, points[:, 2].max()])
        middle = mouth + np.array([0.0, 0.07, 0.0])
        half = np.array([_EYE_DISTANCE / 2, 0.0, 0.0])
        return np.stack([middle + half, middle - half])
    return np.stack(centres)


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
