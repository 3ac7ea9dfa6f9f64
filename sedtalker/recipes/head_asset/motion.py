"""Make the 52 actions mean what ARKit means by them, on one person's head.

A weight of 1 closes the lid exactly, mouthClose equal to jawOpen seals the lips, the mouth at rest is shut, the right
mirrors the left, and eyeballs turn about their centres. All of it is linear in the weights, so it is settled here once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import coo_matrix, diags, identity
from scipy.sparse.linalg import spsolve

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.recipes.head_asset.anatomy import EYES, LOOP_A, LOOP_B, Anatomy, Ids, lip_halves
from sedtalker.recipes.head_asset.sources import Array

# What is added to the modelled face, which looks stern.
FRIENDLY_REST: Mapping[str, float] = {
    "mouthSmileLeft": 0.10,
    "mouthSmileRight": 0.10,
    "browInnerUp": 0.15,
    "browOuterUpLeft": 0.08,
    "browOuterUpRight": 0.08,
    "eyeSquintLeft": 0.10,
    "eyeSquintRight": 0.10,
}
# Actions in which shut lips stay shut: as modelled they push them through each other or part them by up to 5 mm.
KEEP_LIPS_SHUT = (
    "jawForward", "jawLeft", "jawRight", "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "cheekPuff",
)  # fmt: skip
EYE_WIDE_SCALE = 0.8  # the target at 1 opens the eye by 43 %
LIP_OVERLAP = 0.00015  # metres by which shut lips press into each other, so that no line of teeth shows
LID_OVERLAP = 0.0003
GAZE_YAW = np.radians(15.0)  # at weight 1 of looking in or out
GAZE_DOWN = np.radians(11.4)
GAZE_UP = np.radians(9.8)


def symmetric(actions: Mapping[str, Array], mirror: Ids) -> dict[str, Array]:
    """The actions with the right side mirrored from the left, and those of both sides made even."""
    even = {}
    for name, action in actions.items():
        left = actions[name.replace("Right", "Left")]
        flipped = left[mirror] * (-1, 1, 1)
        if name.endswith("Right"):
            even[name] = flipped
        elif name.endswith("Left"):
            even[name] = action
        else:
            even[name] = (action + flipped) / 2
    return even


def settle(shaped: Array, actions: Mapping[str, Array], anatomy: Anatomy) -> tuple[Array, Array]:
    """Rest position (V, 3) and actions (52, V, 3) of one person, in metres on the base mesh."""
    rest = shaped + sum(weight * actions[name] for name, weight in FRIENDLY_REST.items())
    rest = rest + _seal_lips(rest, anatomy)
    settled = dict(actions)
    for name in KEEP_LIPS_SHUT:
        settled[name] = actions[name] + _seal_lips(rest + actions[name], anatomy)
    settled["mouthClose"] = _sealing_close(rest, actions, anatomy)
    for side in ("Left", "Right"):
        settled[f"eyeBlink{side}"] = _closing_blink(rest, actions[f"eyeBlink{side}"], anatomy, side)
        settled[f"eyeWide{side}"] = EYE_WIDE_SCALE * actions[f"eyeWide{side}"]
        for look in ("Down", "In", "Out", "Up"):
            name = f"eyeLook{look}{side}"
            settled[name] = _turning_eye(rest, actions[name], side, look)
    return rest, np.stack([settled[name] for name in ARKIT_NAMES])


def spread(edges: Ids, count: int, pinned: Ids, values: Array, reach: float) -> Array:
    """A smooth field (count, C) that takes the values at the pinned vertices and fades over `reach` edges."""
    a, b = edges.T
    links = coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(count, count)).tocsr()
    laplacian = diags(np.asarray(links.sum(1)).ravel()) - links
    system = (laplacian + identity(count) / reach**2).tocsr()
    free = np.setdiff1d(np.arange(count), pinned)
    field = np.zeros((count, values.shape[1]))
    field[pinned] = values
    solved = spsolve(system[free][:, free].tocsc(), -system[free][:, pinned] @ values)
    field[free] = solved.reshape(len(free), -1)
    return field


def _seal_lips(face: Array, anatomy: Anatomy) -> Array:
    """The displacement (V, 3) that brings the inner rims of the lips together, each lip going half the way."""
    pinned: dict[int, Array] = {}
    for start in (LOOP_A, LOOP_B):
        loop = anatomy.loops[start]
        upper, lower = lip_halves(loop)
        for lip, other, pressing in ((upper, lower, -1), (lower, upper, 1)):
            gap = _facing(face, lip, other) - face[lip]
            gap[:, 1] += pressing * LIP_OVERLAP
            gap[:, 2] *= 0.8 if start == LOOP_B else 0.0
            gap[:, 0] = 0
            pinned.update(zip(lip.tolist(), gap / 2, strict=True))
    ids = np.array(list(pinned), np.int32)
    return spread(anatomy.edges, len(face), ids, np.array(list(pinned.values())), reach=3)


def _facing(face: Array, points: Ids, curve: Ids) -> Array:
    """For each point the place (N, 3) on a curve of vertices at the same x."""
    order = np.argsort(face[curve, 0])
    x = face[curve[order], 0]
    place = np.stack([np.interp(face[points, 0], x, face[curve[order], axis]) for axis in range(3)], axis=1)
    place[:, 0] = face[points, 0]
    return place


def _sealing_close(rest: Array, actions: Mapping[str, Array], anatomy: Anatomy) -> Array:
    """mouthClose such that jawOpen 1 with mouthClose 1, and so every equal pair of weights, leaves the lips sealed."""
    opened = rest + actions["jawOpen"] + actions["mouthClose"]
    return actions["mouthClose"] + _seal_lips(opened, anatomy)


def _closing_blink(rest: Array, blink: Array, anatomy: Anatomy, side: str) -> Array:
    """The blink that at weight 1 lays the upper lid's rim on the lower one."""
    upper, lower = anatomy.lid_upper[side], anatomy.lid_lower[side]
    middle = upper[np.argmin(blink[upper, 1])]
    reach = _facing(rest, np.array([middle]), lower)[0, 1] - rest[middle, 1]
    scaled = blink * (reach / blink[middle, 1])
    closed = rest + scaled
    lack = _facing(closed, upper, lower) - closed[upper]
    lack[:, [0, 2]] = 0
    lack[:, 1] -= LID_OVERLAP
    pinned = np.concatenate([upper, lower])
    values = np.concatenate([lack, np.zeros((len(lower), 3))])
    return scaled + spread(anatomy.edges, len(rest), pinned, values, reach=2)


def _turning_eye(rest: Array, lids: Array, side: str, look: str) -> Array:
    """A look: the target moves the lids, and the eyeball turns about the centre of its sphere."""
    ball = EYES[side]
    centre = sphere_centre(rest[ball])
    outward = 1 if side == "Left" else -1  # a turn to the person's left is one about +y
    yaw = {"Out": GAZE_YAW * outward, "In": -GAZE_YAW * outward}.get(look, 0.0)
    pitch = {"Down": GAZE_DOWN, "Up": -GAZE_UP}.get(look, 0.0)
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    moved = lids.copy()
    moved[ball] = (rest[ball] - centre) @ (turn - np.eye(3)).T
    return moved


def sphere_centre(points: Array) -> Array:
    """Centre (3,) of the sphere that fits points (N, 3) best."""
    system = np.c_[2 * points, np.ones(len(points))]
    solution: Array = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return solution[:3]
