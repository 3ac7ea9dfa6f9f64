"""Find the lips of a rigged face by its motion: vertices that meet at rest and that the jaw parts."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import JAW_OPEN
from sedtalker.face.rig import Float, Index

_STEPS = 17  # lip pairs from corner to corner
_STILL, _MOVED = 0.25, 0.6  # shares of the largest travel of the jaw: upper lip, lower lip
_NEAR = 0.012  # metres between the lips at rest
_BLOCK = 2_000_000  # distances that are computed at once
_LIPS = 0.012  # metres around the pairs that count as lips


class Mouth(NamedTuple):
    """Lips of a face."""

    pairs: Index  # (N, 2) upper and lower, from the right corner to the left
    lips: Index  # vertices near them
    landmarks: dict[str, int]


def find_mouth(template: Float, faces: Index, blendshapes: Float, skin: Index) -> Mouth | None:
    """The lips of a face with the shape jawOpen; None if its shapes part nothing.

    Args:
        template: (V, 3) metres, y up, facing +z.
        faces: (F, 3).
        blendshapes: (52, V, 3) in the order of ARKIT_NAMES.
        skin: vertices of the skin.
    """
    jaw = blendshapes[JAW_OPEN]
    travel = -jaw[skin, 1]
    largest = float(travel.max(initial=0))
    if not largest > 1e-3:
        return None
    drop = np.maximum(travel, 0) ** 2
    centre = drop @ template[skin] / drop.sum()
    area = np.abs(template[skin] - centre)
    region = (area[:, 0] < 0.045) & (area[:, 1] < 0.06) & (template[skin, 2] > centre[2] - 0.03)
    upper, lower = skin[region & (travel < _STILL * largest)], skin[region & (travel > _MOVED * largest)]
    if not len(upper) or not len(lower):
        return None
    partner, gap = _find_partners(template[upper], template[lower])
    near = gap < max(_NEAR, 1.5 * float(gap.min()))
    candidates = np.stack([upper[near], lower[partner[near]]], axis=1)
    gap = gap[near]
    x = template[candidates].mean(axis=1)[:, 0]
    edges = np.linspace(x.min(), x.max() + 1e-6, _STEPS + 1)
    chosen = []
    for low, high in pairwise(edges):
        inside = np.flatnonzero((x >= low) & (x < high))
        if len(inside):
            # Of those about as close, the front one: behind it are the insides of the lips.
            close = inside[gap[inside] <= gap[inside].min() + 0.001]
            front = template[candidates[close]].mean(axis=1)[:, 2]
            chosen.append(candidates[close[front.argmax()]])
    if len(chosen) < 3:
        return None
    pairs = np.array(chosen, np.int32)
    middle = template[pairs].mean(axis=1)
    gaps = np.linalg.norm(template[skin][:, None] - middle[None], axis=2).min(axis=1)
    lips = skin[gaps < _LIPS].astype(np.int32)
    line = middle[len(middle) // 2]
    ends = {}
    for name, sign in (("mouth_left", 1), ("mouth_right", -1)):
        neighbour = skin[(np.abs(template[skin, 1] - line[1]) < 0.012) & (template[skin, 2] > line[2] - 0.03)]
        wanted = middle[:, 0].max() if sign > 0 else middle[:, 0].min()
        ends[name] = int(neighbour[np.abs(template[neighbour, 0] - wanted - sign * 0.003).argmin()])
    front = skin[np.abs(template[skin, 0] - line[0]) < 0.01]
    above = front[(template[front, 1] > line[1] + 0.01) & (template[front, 1] < line[1] + 0.07)]
    below = front[(template[front, 1] < line[1] - 0.02) & (template[front, 1] > line[1] - 0.07)]
    ends["nose_tip"] = int(above[template[above, 2].argmax()]) if len(above) else int(pairs[len(pairs) // 2, 0])
    ends["chin"] = int(below[template[below, 2].argmax()]) if len(below) else int(pairs[len(pairs) // 2, 1])
    return Mouth(pairs, lips, ends)


def _find_partners(upper: Float, lower: Float) -> tuple[NDArray[np.int64], Float]:
    """For each point (N, 3) of the upper lip the row of the nearest of the lower lip (M, 3), and the distance.

    Sideways distances count twice, as partners face each other. Blocks bound the memory for dense meshes.
    """
    partner, gap = np.empty(len(upper), np.int64), np.empty(len(upper), np.float32)
    step = max(1, _BLOCK // len(lower))
    for start in range(0, len(upper), step):
        block = upper[start : start + step]
        distance = np.linalg.norm(block[:, None] - lower[None], axis=2)
        distance += np.abs(block[:, 0][:, None] - lower[:, 0][None])
        partner[start : start + step] = distance.argmin(axis=1)
        gap[start : start + step] = distance.min(axis=1)
    return partner, gap
