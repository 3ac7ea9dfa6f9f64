"""Adapt MakeHuman's facial targets to the definitions of ARKit's 52 blendshapes.

A weight of 1 closes the lid exactly, mouthClose equal to jawOpen closes the lips, the mouth at rest is shut, the right
side mirrors the left, and eyeballs rotate about their centres. All corrections are linear in the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import coo_matrix, diags, identity
from scipy.sparse.linalg import spsolve

from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE, MOUTH_FUNNEL, TONGUE_OUT, arkit_columns
from sedtalker.recipes.head_asset.anatomy import EYES, LOOP_A, LOOP_B, Anatomy, Ids, lip_halves
from sedtalker.recipes.head_asset.sources import Array

# Added to the modelled face, whose expression is stern.
NEUTRAL_EXPRESSION: Mapping[str, float] = {
    "mouthSmileLeft": 0.10, "mouthSmileRight": 0.10, "browInnerUp": 0.15, "browOuterUpLeft": 0.08,
    "browOuterUpRight": 0.08, "eyeSquintLeft": 0.10, "eyeSquintRight": 0.10,
}  # fmt: skip
# Blendshapes corrected to keep shut lips shut: as modelled, the lips intersect or open by up to 5 mm.
SEALED_BLENDSHAPES = (
    "jawForward", "jawLeft", "jawRight", "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "cheekPuff",
)  # fmt: skip
EYE_WIDE_SCALE = 0.8  # the unscaled target opens the eye by 43 %
LIP_OVERLAP = 0.00015  # metres by which shut lips overlap, so that no teeth are visible between them
LID_OVERLAP = 0.0003
TONGUE_RISE = 0.0124  # metres by which tongueOut 1 lifts the tip
TONGUE_LENGTH, TONGUE_BEND = 0.035, 0.025  # metres: the part behind the tip that is lifted, and where it bends
EXPRESSION_SCALES: Mapping[str, float] = {
    "browInnerUp": 1.7, "browOuterUp": 1.3, "browDown": 1.2, "noseSneer": 1.5, "mouthFrown": 1.6, "eyeWide": 1.25,
}  # fmt: skip
SNEER_BROW = 0.75  # share of the lowering of the brows that leaves noseSneer
SNEER_SIDE, SNEER_BELOW, SNEER_REACH = 0.017, -0.004, (0.010, 0.012)  # metres: wing of the nose, from its tip
SNEER_LIFT = 0.005  # metres
SMILE_REACH, SMILE_LIFT = (0.009, 0.011), 0.0028  # metres, around the corner of the mouth
ROUND = 0.8  # exponent of the rounded lips' outline: 0.5 is an ellipse, 1 a parabola
ROUNDED: Mapping[int, float] = {JAW_OPEN: 1.0, MOUTH_FUNNEL: 0.9}  # share of the rounded outline in a blendshape
GAZE_YAW = np.radians(15.0)  # at weight 1 of eyeLookIn and eyeLookOut
GAZE_DOWN = np.radians(11.4)
GAZE_UP = np.radians(9.8)


def symmetrize(blendshapes: Mapping[str, Array], mirror: Ids) -> dict[str, Array]:
    """Mirror the left blendshapes to the right, and make those without a side symmetric."""
    even = {}
    for name, blendshape in blendshapes.items():
        left = blendshapes[name.replace("Right", "Left")]
        flipped = left[mirror] * (-1, 1, 1)
        if name.endswith("Right"):
            even[name] = flipped
        elif name.endswith("Left"):
            even[name] = blendshape
        else:
            even[name] = (blendshape + flipped) / 2
    return even


def adapt_blendshapes(shaped: Array, blendshapes: Mapping[str, Array], anatomy: Anatomy) -> tuple[Array, Array]:
    """Rest position (V, 3) and adapted blendshapes (52, V, 3) of the base mesh, in metres.

    Args:
        shaped: (V, 3) the base mesh in the shape of one identity.
        blendshapes: displacements (V, 3) by ARKit name.
        anatomy: of the base mesh.
    """
    rest = shaped + sum(weight * blendshapes[name] for name, weight in NEUTRAL_EXPRESSION.items())
    rest = rest + _seal_lips(rest, anatomy)
    adapted = dict(blendshapes)
    for name in SEALED_BLENDSHAPES:
        adapted[name] = blendshapes[name] + _seal_lips(rest + blendshapes[name], anatomy)
    # with equal weights of jawOpen and mouthClose the lips stay closed
    both = rest + blendshapes["jawOpen"] + blendshapes["mouthClose"]
    adapted["mouthClose"] = blendshapes["mouthClose"] + _seal_lips(both, anatomy)
    for side in ("Left", "Right"):
        adapted[f"eyeBlink{side}"] = _adapt_blink(rest, blendshapes[f"eyeBlink{side}"], anatomy, side)
        adapted[f"eyeWide{side}"] = EYE_WIDE_SCALE * blendshapes[f"eyeWide{side}"]
        for look in ("Down", "In", "Out", "Up"):
            name = f"eyeLook{look}{side}"
            adapted[name] = _adapt_look(rest, blendshapes[name], side, look)
    return rest, np.stack([adapted[name] for name in ARKIT_NAMES])


SMILING_SQUINT = 0.55  # eyeSquint of a full smile
EYE_CLEARANCE = 0.0012  # metres between eyeball and skin; edges between vertices come nearer


def raise_tongue_tip(template: Array, blendshapes: Array, tongue: Ids) -> Array:
    """Blendshapes (52, V, 3) whose tongueOut lifts the tip over the lower incisors as it comes forward.

    As modelled, the tip moves straight ahead 7 mm below the edge of the lower incisors, through them and unseen.

    Args:
        template: (V, 3) the face at rest, metres.
        blendshapes: (52, V, 3) of the face.
        tongue: vertices of the tongue.
    """
    depth = template[tongue, 2]
    front = np.clip((depth - depth.max() + TONGUE_LENGTH) / TONGUE_BEND, 0, 1)
    raised = blendshapes.copy()
    raised[TONGUE_OUT, tongue, 1] += TONGUE_RISE * front
    return raised


def strengthen_expressions(template: Array, blendshapes: Array, landmarks: Mapping[str, int]) -> Array:
    """Blendshapes (52, V, 3) of brows, lids, nose and corners with the motion of a full contraction.

    As modelled, brows rise 5 mm and corners sink 5 mm, half of what an actor's do, noseSneer lowers the brows but does
    not move the nose, and a smile widens the mouth without lifting its corners. The lips' gap, width and protrusion do
    not change.

    Args:
        template: (V, 3) the face at rest, metres.
        blendshapes: (52, V, 3) of the face.
        landmarks: vertices by name.
    """
    strong = blendshapes.copy()
    for name, scale in EXPRESSION_SCALES.items():
        strong[list(arkit_columns(name))] *= scale
    height = template[:, 1]
    eyes, nose, corner = (height[landmarks[name]] for name in ("eye_left_inner", "nose_tip", "mouth_left"))
    front = np.clip((template[:, 2] - template[landmarks["eye_left_outer"], 2] + 0.02) / 0.02, 0, 1)
    above_lips = np.clip((height - corner - 0.007) / 0.010, 0, 1)
    frown = np.clip((height - eyes) / 0.012, 0, 1)
    for side, sign in (("Left", 1), ("Right", -1)):
        sneer, smile = (ARKIT_NAMES.index(f"{name}{side}") for name in ("noseSneer", "mouthSmile"))
        strong[sneer] *= (above_lips * (1 - SNEER_BROW * frown))[:, None]
        wing = np.array([sign * SNEER_SIDE, nose + SNEER_BELOW])
        weight = np.exp(-0.5 * np.square((template[:, :2] - wing) / SNEER_REACH).sum(1)) * front * above_lips
        strong[sneer] += weight[:, None] * np.array([sign * 0.0008, SNEER_LIFT, 0.0012])
        mouth = template[landmarks[f"mouth_{side.lower()}"], :2]
        weight = np.exp(-0.5 * np.square((template[:, :2] - mouth) / SMILE_REACH).sum(1)) * front
        strong[smile] += weight[:, None] * np.array([0, SMILE_LIFT, -0.0008])
    return strong


def round_lips(template: Array, blendshapes: Array, pairs: Ids, edges: Ids) -> Array:
    """The change (52, V, 3) of blendshapes that makes the outline of the open mouth round.

    As modelled, jawOpen and mouthFunnel move the lips as a wedge: a wide open mouth is pointed below. The mean height
    of the three middle pairs stays, and so does the lips' gap; jawOpen and mouthClose together stay as they are.

    Args:
        template: (V, 3) the face at rest, metres.
        blendshapes: (52, V, 3) of the face.
        pairs: (P, 2) vertices of the upper and the lower rim, from one corner of the mouth to the other.
        edges: (E, 2) of the face.
    """
    change = np.zeros(blendshapes.shape)
    middle = slice(len(pairs) // 2 - 1, len(pairs) // 2 + 2)
    across = np.abs(template[pairs[:, 0], 0])
    outline = np.maximum(1 - np.square(across / across[[0, -1]].mean()), 0) ** ROUND
    outline[[0, -1]] = 0
    for column, share in ROUNDED.items():
        moved = blendshapes[column][pairs, 1]  # (P, 2)
        corner = moved[[0, -1]].mean(0)
        rounded = corner + np.outer(outline, (moved[middle].mean(0) - corner) / outline[middle].mean())
        values = share * (rounded - moved)
        if column == JAW_OPEN:
            values[:, 0] = 0  # the upper lip is round
        change[column, :, 1] = diffuse(edges, len(template), pairs.ravel(), values.reshape(-1, 1), reach=8)[:, 0]
    change[MOUTH_CLOSE] = -change[JAW_OPEN]
    return change


def diffuse(edges: Ids, count: int, pinned: Ids, values: Array, reach: float) -> Array:
    """A smooth field (count, C) with given values at pinned vertices, which decays over `reach` edges.

    Solves the screened Poisson equation (L + 1 / reach^2) field = 0 with the graph Laplacian L.
    """
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
    """The displacement (V, 3) that closes the inner rims of the lips, half of it on each lip."""
    pinned: dict[int, Array] = {}
    for start in (LOOP_A, LOOP_B):
        loop = anatomy.loops[start]
        upper, lower = lip_halves(loop)
        for lip, other, pressing in ((upper, lower, -1), (lower, upper, 1)):
            gap = _interpolate_curve(face, lip, other) - face[lip]
            gap[:, 1] += pressing * LIP_OVERLAP
            gap[:, 2] *= 0.8 if start == LOOP_B else 0.0
            gap[:, 0] = 0
            pinned.update(zip(lip.tolist(), gap / 2, strict=True))
    ids = np.array(list(pinned), np.int32)
    return diffuse(anatomy.edges, len(face), ids, np.array(list(pinned.values())), reach=3)


def _interpolate_curve(face: Array, points: Ids, curve: Ids) -> Array:
    """For each vertex the position (N, 3) on a curve of vertices at the same x."""
    order = np.argsort(face[curve, 0])
    x = face[curve[order], 0]
    positions = np.stack([np.interp(face[points, 0], x, face[curve[order], axis]) for axis in range(3)], axis=1)
    positions[:, 0] = face[points, 0]
    return positions


def _adapt_blink(rest: Array, blink: Array, anatomy: Anatomy, side: str) -> Array:
    """The blink that brings the rim of the upper lid to the lower one at weight 1."""
    upper, lower = anatomy.lid_upper[side], anatomy.lid_lower[side]
    middle = upper[np.argmin(blink[upper, 1])]
    reach = _interpolate_curve(rest, np.array([middle]), lower)[0, 1] - rest[middle, 1]
    scaled = blink * (reach / blink[middle, 1])
    closed = rest + scaled
    residual = _interpolate_curve(closed, upper, lower) - closed[upper]
    residual[:, [0, 2]] = 0
    residual[:, 1] -= LID_OVERLAP
    pinned = np.concatenate([upper, lower])
    values = np.concatenate([residual, np.zeros((len(lower), 3))])
    return scaled + diffuse(anatomy.edges, len(rest), pinned, values, reach=2)


def _adapt_look(rest: Array, lids: Array, side: str, look: str) -> Array:
    """An eyeLook blendshape: the lids move as in the target, the eyeball rotates about its centre."""
    ball = EYES[side]
    centre = sphere_centre(rest[ball])
    outward = 1 if side == "Left" else -1  # looking to the person's left is a rotation about +y
    yaw = {"Out": GAZE_YAW * outward, "In": -GAZE_YAW * outward}.get(look, 0.0)
    pitch = {"Down": GAZE_DOWN, "Up": -GAZE_UP}.get(look, 0.0)
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    rotation = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    displacements = lids.copy()
    displacements[ball] = (rest[ball] - centre) @ (rotation - np.eye(3)).T
    return displacements


def clear_eyes(template: Array, blendshapes: Array, eyes: Mapping[str, Ids], skin: Ids) -> Array:
    """Blendshapes (52, V, 3) whose cheekSquint keeps the skin in front of the eyeball, with a narrowed lid too.

    As modelled, the cheek of some heads passes through the eyeball below the lower lid.

    Args:
        template: (V, 3) the face at rest, metres.
        blendshapes: (52, V, 3) of the face.
        eyes: vertices of the eyeball by side.
        skin: vertices of the skin.
    """
    cleared = blendshapes.copy()
    for side, eye in eyes.items():
        centre = sphere_centre(template[eye])
        radius = np.linalg.norm(template[eye] - centre, axis=1).mean()
        cheek, squint = (ARKIT_NAMES.index(f"{name}{side}") for name in ("cheekSquint", "eyeSquint"))
        rest = np.linalg.norm(template[skin] - centre, axis=1)
        visible = (rest > radius) & (template[skin, 2] > centre[2])
        moved = template[skin] + cleared[cheek, skin] + SMILING_SQUINT * cleared[squint, skin] - centre
        distance = np.linalg.norm(moved, axis=1)
        missing = np.clip(np.minimum(radius + EYE_CLEARANCE, rest) - distance, 0, None) * visible
        cleared[cheek, skin] += moved / distance[:, None] * missing[:, None]
    return cleared


def sphere_centre(points: Array) -> Array:
    """Centre (3,) of the least-squares sphere through points (N, 3)."""
    system = np.c_[2 * points, np.ones(len(points))]
    solution: Array = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return solution[:3]
