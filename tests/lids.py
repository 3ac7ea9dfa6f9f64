"""Gaps of lids and lips of a rigged face, and weights that could make them pass through each other."""

from __future__ import annotations

import numpy as np

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Face


def moving_weights() -> np.ndarray:
    """ARKit weights (41, 52) of speech with blinks, squints and smiles."""
    time = np.linspace(0, 1, 41)
    blink = np.clip(1.6 * np.sin(4 * np.pi * time), 0, 1)
    jaw = 0.5 * np.abs(np.sin(7 * np.pi * time))
    curves = {
        "eyeBlinkLeft": blink, "eyeBlinkRight": blink, "eyeSquintLeft": 0.3 * (1 - 0.7 * blink),
        "eyeSquintRight": 0.3 * (1 - 0.7 * blink), "cheekSquintLeft": 0.3 + 0 * time, "jawOpen": jaw,
        "mouthClose": jaw * time, "mouthSmileLeft": 0.4 + 0 * time,
    }  # fmt: skip
    weights = np.zeros((len(time), len(ARKIT_NAMES)), np.float32)
    for name, curve in curves.items():
        weights[:, ARKIT_NAMES.index(name)] = curve
    return weights


def lid_gaps(face: Face, points: np.ndarray, side: str) -> np.ndarray:
    """Heights (T, 9) in metres of the upper lid's edge over the lower one's in the middle of an eye.

    The edges are the border of the skin around the eye; they are interpolated along x, as their vertices do not face
    each other.
    """
    shape = face.blendshapes[ARKIT_NAMES.index(f"eyeBlink{side.title()}")]
    skin = np.concatenate([s.triangles for s in face.surfaces if s.material.kind == "skin"])
    sides, counts = np.unique(np.sort(skin[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True)
    border = np.unique(sides[counts == 1])
    travel = -shape[:, 1]
    middle = face.template[travel > 0.7 * travel.max()].mean(axis=0)
    rim = border[np.linalg.norm(face.template[border] - middle, axis=1) < 0.025]
    assert len(rim) > 8, "the skin has no border around the eye"
    upper, lower = rim[travel[rim] > 0.35 * travel[rim].max()], rim[travel[rim] <= 0.35 * travel[rim].max()]
    x = [face.template[part, 0] for part in (upper, lower)]
    low, high = max(part.min() for part in x), min(part.max() for part in x)
    places = np.linspace(low + 0.25 * (high - low), high - 0.25 * (high - low), 9)
    heights = []
    for part in (upper, lower):
        order = part[np.argsort(face.template[part, 0])]
        heights.append([np.interp(places, frame[order, 0], frame[order, 1]) for frame in points])
    return np.array(heights[0]) - np.array(heights[1])


def lip_gaps(face: Face, points: np.ndarray) -> np.ndarray:
    """Heights (T, N) in metres of the upper lip over the lower one, without the corners."""
    pairs = face.lip_pairs[4:-4]
    return points[:, pairs[:, 0], 1] - points[:, pairs[:, 1], 1]


def exposed_eye(face: Face, points: np.ndarray, side: str) -> int:
    """Number of vertices of an eye that no skin covers, seen from the front, for positions (V, 3)."""
    eye = points[face.parts[f"eye_{side}"]]
    eye = eye[eye[:, 2] > eye[:, 2].max() - 0.012]
    skin = np.concatenate([s.triangles for s in face.surfaces if s.material.kind in ("skin", "card")])
    corners = points[skin]
    near = (np.abs(corners.mean(axis=1) - eye.mean(axis=0)) < 0.03).all(axis=1)
    a, b, c = np.moveaxis(corners[near], 1, 0)

    def area(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    at = eye[:, None]
    whole = area(a, b, c)
    whole = np.where(np.abs(whole) < 1e-12, np.nan, whole)
    shares = np.stack([area(b, c, at), area(c, a, at), area(a, b, at)]) / whole
    depth = (shares * np.stack([a[:, 2], b[:, 2], c[:, 2]])[:, None]).sum(axis=0)
    covered = (shares >= -1e-6).all(axis=0) & (depth > at[..., 2])
    return int((~covered.any(axis=1)).sum())
