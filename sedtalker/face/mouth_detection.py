"""Find the lips of a rigged face by its motion: vertices that meet at rest and that the jaw parts."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sedtalker.face.arkit import JAW_OPEN
from sedtalker.face.rig import Float, Index

_STEPS = 17  # lip pairs from corner to corner
_STILL, _MOVED = 0.25, 0.6  # shares of the largest travel of the jaw: upper lip, lower lip
_NEAR = 0.012  # metres between the lips at rest
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
    distance = np.linalg.norm(template[upper][:, None] - template[lower][None], axis=2)
    distance += np.abs(template[upper, 0][:, None] - template[lower, 0][None])  # partners face each other
    partner = distance.argmin(axis=1)
    gap = distance[np.arange(len(upper)), partner]
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
