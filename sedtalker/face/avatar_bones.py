"""Bones of a rigged avatar: head, eyes and jaw, the rotations of ARKit's shapes, and the axes and unit of the file."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar_pieces import Piece, moved_centre
from sedtalker.face.gltf import Gltf
from sedtalker.face.orientation import UNITS
from sedtalker.face.shape_names import Shares

EYE_DISTANCE = 0.063  # metres between the eyes of an adult
_UNIT_RATIO = 2.2  # a file whose eyes are within this ratio of it is in metres, as glTF requires
_UPRIGHT = 0.6  # least share of +y in the direction from mouth to eyes with which +y is up
_SMALL = 2e-4  # metres; a shape that moves an eyeball less does not turn it

EYE_TURNS: dict[str, tuple[float, float]] = {  # name without side -> pitch down and yaw to the person's left in degrees
    "eyeLookUp": (-9.8, 0.0), "eyeLookDown": (11.4, 0.0), "eyeLookIn": (0.0, -15.0), "eyeLookOut": (0.0, 15.0),
}  # fmt: skip
JAW_NAME = re.compile(r"(?=.*jaw)(?!.*(end|top))")
_JAW_TURN = 21.0  # degrees of the jaw bone at jawOpen 1: 34 mm between the lips


class BoneTurn(NamedTuple):
    """Degrees by which a node turns at weight 1 of an ARKit shape: pitch down, yaw to the person's left."""

    node: int
    shape: str
    pitch: float
    yaw: float


class Bones:
    """Nodes of the head, the eyes and the jaw, by VRM's humanoid or by name."""

    def __init__(self, gltf: Gltf, pieces: list[Piece]) -> None:
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
        self.jaw = humanoid.get("jaw", self._find(JAW_NAME.pattern, None))
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

    def _heaviest(self, pattern: str, pieces: list[Piece]) -> int | None:
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


def find_axes(pieces: list[Piece], bones: Bones, world: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Rotation to y up, facing +z, and metres in one unit."""
    eyes = [moved_centre(pieces, (f"eyeBlink{side}",)) for side in ("Left", "Right")]  # at the depth of the mouth
    if eyes[0] is None or eyes[1] is None or np.allclose(eyes[0], eyes[1]):
        eyes = [world[node, :3, 3] if node is not None else None for node in (bones.left_eye, bones.right_eye)]
    mouth = moved_centre(pieces, ("mouthPucker", "mouthFunnel", "jawOpen"))
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
    ratio = eye_distance / EYE_DISTANCE if eye_distance > 0 else head_height / 0.28
    if not 0 < ratio < np.inf or 1 / _UNIT_RATIO <= ratio <= _UNIT_RATIO:
        return 1.0
    unit = min(UNITS.values(), key=lambda metres: abs(np.log(ratio * metres)))
    return unit if 1 / _UNIT_RATIO <= ratio * unit <= _UNIT_RATIO else 1 / ratio


def eye_centres(pieces: list[Piece], bones: Bones, origins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (2, 3) of the left and the right eye."""
    centres = []
    for node, side in ((bones.left_eye, "Left"), (bones.right_eye, "Right")):
        centre = origins[node] if node is not None else moved_centre(pieces, (f"eyeBlink{side}",))
        if centre is not None:
            centres.append(centre)
    if len(centres) < 2 or np.allclose(centres[0], centres[1], atol=1e-3):
        mouth = moved_centre(pieces, ("mouthPucker", "mouthFunnel", "jawOpen"))
        if mouth is None:
            points = np.concatenate([piece.points for piece in pieces])
            mouth = np.array([points[:, 0].mean(), points[:, 1].max() - 0.18, points[:, 2].max()])
        middle = mouth + np.array([0.0, 0.07, 0.0])
        half = np.array([EYE_DISTANCE / 2, 0.0, 0.0])
        return np.stack([middle + half, middle - half])
    return np.stack(centres)


def turn_bones(
    pieces: list[Piece], bones: Bones, shares: dict[str, Shares], origins: NDArray[np.float64]
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
