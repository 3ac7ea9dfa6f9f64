"""Wrinkles of the skin: height maps that appear as far as a face moves.

Each wrinkle belongs to blendshapes (`WRINKLES`) whose weights are found in the vertices, so that every animation of a
rigged face shows them, whatever made it. In a frame the skin's texels are darkened in the grooves and lightened on the
ridges, and at quality "fine" the heights are added to the bump map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.rig import Face
from sedtalker.render.arrays import Float, Index
from sedtalker.render.compiled import compiled


@dataclass(frozen=True)
class Wrinkle:
    """One map and its causes."""

    texture: str  # name in Face.textures: (H, W, 1), 128 is flat, less is a groove
    causes: Mapping[str, float]  # blendshape without its side -> share of the wrinkle at weight 1
    shade: float  # darkening of the deepest groove
    depth: float  # metres of the deepest groove


WRINKLES: dict[str, Wrinkle] = {
    "forehead": Wrinkle("wrinkle_forehead", {"browOuterUp": 1.0}, 0.30, 0.0005),
    "inner_brow": Wrinkle("wrinkle_inner_brow", {"browInnerUp": 1.0, "browOuterUp": -1.0}, 0.34, 0.0005),
    "glabella": Wrinkle("wrinkle_glabella", {"browDown": 1.0, "noseSneer": 0.3}, 0.45, 0.0008),
    "nose": Wrinkle("wrinkle_nose", {"noseSneer": 1.0}, 0.36, 0.0006),
    "crow": Wrinkle("wrinkle_crow", {"cheekSquint": 1.0}, 0.32, 0.0005),
    "fold": Wrinkle("wrinkle_fold", {"mouthSmile": 0.75, "noseSneer": 0.8, "mouthFrown": 0.3}, 0.40, 0.0010),
    "corner": Wrinkle("wrinkle_corner", {"mouthFrown": 1.0}, 0.36, 0.0007),
    "chin": Wrinkle("wrinkle_chin", {"mouthShrugLower": 1.0}, 0.34, 0.0007),
}
"""Wrinkles by name."""

FLAT = 128  # byte of a map without a wrinkle
LEAST = 6  # change of a byte below which a texel has no wrinkle
STEPS = 64  # of an activation: frames with the same steps have the same texels
FINE_SHADE = 0.6  # share of the darkening at quality "fine", whose bump map shades the grooves
MOVED = 0.0005  # metres that a vertex moves by some cause to be measured
MEASURED = 700  # vertices at most, evenly among these
RIDGE = 1e-3  # of the largest eigenvalue, regularizes the weights


class FaceWrinkles:
    """The wrinkles of one face over a skin texture and a bump map of given sizes."""

    def __init__(self, face: Face, fine: bool, texture: tuple[int, int, int], bump: tuple[int, int, int]) -> None:
        """`texture` and `bump`: (offset, width, height) of the skin's texels and heights; width 0 without a map."""
        assert face.blendshapes is not None
        self._template = face.template
        shapes = sorted({i for item in WRINKLES.values() for name in item.causes for i in arkit_columns(name)})
        deltas = face.blendshapes[shapes]
        moved = np.flatnonzero(np.linalg.norm(deltas, axis=2).max(0) > MOVED)
        self._vertices = moved[:: -(-len(moved) // MEASURED)]
        # all shapes take part, so that speech is not mistaken for an expression
        every = face.blendshapes[:, self._vertices].reshape(len(ARKIT_NAMES), -1).astype(np.float64)
        gram = every @ every.T
        gram += RIDGE * np.linalg.eigvalsh(gram)[-1] / len(gram) * np.eye(len(gram))
        solver = np.linalg.solve(gram, every)  # (52, 3 n)
        causes = np.zeros((len(WRINKLES), len(ARKIT_NAMES)))
        for row, item in zip(causes, WRINKLES.values(), strict=True):
            for name, share in item.causes.items():
                columns = arkit_columns(name)
                row[list(columns)] = share / len(columns)
        self._measure = (causes @ solver).astype(np.float32)  # (K, 3 n)
        shades = np.array([item.shade for item in WRINKLES.values()], np.float32) * (FINE_SHADE if fine else 1)
        depths = np.array([item.depth for item in WRINKLES.values()], np.float32)
        self._texels, self._factors = _sparse_maps(face, texture, shades)
        self._heights, self._depths = _sparse_maps(face, bump, depths)

    def activations(self, vertices: Float) -> Float:
        """The share (K,) of each wrinkle in 0..1 that a face's vertices (V, 3) show."""
        moved = (vertices[self._vertices] - self._template[self._vertices]).reshape(-1)
        return (np.clip(self._measure @ moved, 0, 1) * STEPS).round() / np.float32(STEPS)

    def apply(self, shares: Float, texels: Index, base: Index, heights: Float, base_heights: Float) -> None:
        """Write the skin's texels and heights with wrinkles, from those of the skin at rest."""
        _shade_texels(self._texels, self._factors, shares.astype(np.float32), base, texels)
        if len(self._heights):
            heights[self._heights] = base_heights[self._heights] + shares.astype(np.float32) @ self._depths


def has_wrinkles(face: Face) -> bool:
    """Whether a face has a rig and the maps of all wrinkles."""
    return face.blendshapes is not None and all(item.texture in face.textures for item in WRINKLES.values())


def _sparse_maps(face: Face, slot: tuple[int, int, int], scales: Float) -> tuple[Index, Float]:
    """Indices (N,) of the texels of a slot with wrinkles, and their values (K, N), negative in grooves."""
    offset, width, height = slot
    if width == 0:
        return np.zeros(0, np.uint32), np.zeros((len(WRINKLES), 0), np.float32)
    maps = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(face.textures[item.texture][..., 0])).resize(
                (width, height), Image.Resampling.BOX
            )
        ).reshape(-1)
        for item in WRINKLES.values()
    ]
    changes = np.stack(maps).astype(np.int16) - FLAT
    used = np.flatnonzero(np.abs(changes).max(0) > LEAST)
    values = changes[:, used].astype(np.float32) / np.float32(FLAT) * scales[:, None]
    return (used + offset).astype(np.uint32), np.ascontiguousarray(values)


@compiled
def _shade_texels(ids: Index, factors: Float, shares: Float, base: Index, texels: Index) -> None:
    """Scale the light of texels, which are packed square roots of linear light."""
    one, half, least, most = np.float32(1), np.float32(0.5), np.float32(0.2), np.float32(255)
    mask = np.uint32(255)
    for i in range(len(ids)):
        change = np.float32(0)
        for k in range(len(shares)):
            change += shares[k] * factors[k, i]
        root = one + half * max(change, least - one)  # about the square root of 1 + change
        packed = base[ids[i]]
        red = np.uint32(min(most, np.float32(packed & mask) * root))
        green = np.uint32(min(most, np.float32((packed >> np.uint32(8)) & mask) * root))
        blue = np.uint32(min(most, np.float32((packed >> np.uint32(16)) & mask) * root))
        texels[ids[i]] = red | green << np.uint32(8) | blue << np.uint32(16) | (packed & np.uint32(0xFF000000))
