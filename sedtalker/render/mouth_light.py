"""Light on the teeth: what passes between the lips of a frame.

Occlusion is baked with the mouth open. Without a correction the teeth behind slightly parted lips are as bright as
those of a broad smile, and a face that speaks seems to smile; and the molars beside the tongue are as bright as the
front teeth, though cheeks and mouth corners cover them.
"""

from __future__ import annotations

import math

import numpy as np

from sedtalker.face.mouth_light import NEAREST, light_between_corners
from sedtalker.face.rig import Face, Surface
from sedtalker.render.arrays import Float, Index
from sedtalker.render.buffers import FIRST, LAST, Scene
from sedtalker.render.compiled import compiled
from sedtalker.render.shade import AO, KEY_LIGHT, KEY_VISIBILITY, LIGHT_DIRECTIONS

LEAST = 0.36  # factor of the baked occlusion where no sky is seen: light scattered by lips, gums and teeth
MOST = 1.45  # factor where all of it is seen; lips 10 mm apart, as they were baked, give about 1
KEY_RISE = float(LIGHT_DIRECTIONS[KEY_LIGHT, 1] / LIGHT_DIRECTIONS[KEY_LIGHT, 2])  # of the key light's rays, forwards
KEY_SOFTNESS = 0.5  # change of the slope to the upper lip over which the key light fades
KEY_SHARE = 0.5  # of the key light at most: with more, fear and disgust were read as a smile more often
DARK = 0.08  # baked occlusion of the hindmost molars, which are hardly seen: theirs is left


class TeethLight:
    """The occlusion of a face's teeth by its lips.

    A tooth sees the sky through a slit between both lips. For a surface that faces a slit without ends, the
    cosine-weighted share of the visible sky is (sin upper + sin lower) / 2, with the angles from the normal to the rims
    of the lips. `light_between_corners` has the share of the width.
    """

    def __init__(self, face: Face, scene: Scene) -> None:
        assert face.lip_pairs is not None
        rows = [row for row, surface in enumerate(face.surfaces) if _is_teeth(surface)]
        triangles = np.concatenate([np.arange(*scene.surfaces[row, [FIRST, LAST]]) for row in rows])
        self._triangles = triangles[scene.corners[triangles, :, AO].max(1) > DARK].astype(np.uint32)
        vertices, corners = np.unique(scene.triangles[self._triangles], return_inverse=True)
        self._vertices, self._corners = vertices.astype(np.intp), corners.reshape(-1, 3).astype(np.uint32)
        self._baked = scene.corners[self._triangles, :, AO]
        across = face.template[face.lip_pairs[:, 0], 0]
        self._pairs = face.lip_pairs[np.argsort(across)]
        # The rim in front of each tooth is interpolated between pairs of the lips at rest.
        places, teeth = np.sort(across), face.template[self._vertices, 0]
        self._mouth_corners = self._pairs[[0, -1], 0]  # right, left
        self._weights = np.stack([np.interp(teeth, places, unit) for unit in np.eye(len(places))], 1).astype(np.float32)

    def apply(self, vertices: Float, corners: Float) -> None:
        """Write the occlusion of the teeth into a scene's corners for a face's vertices (V, 3) in metres."""
        lips = vertices[self._pairs, 1:].astype(np.float32, copy=False)
        rims = self._weights @ lips.reshape(len(self._pairs), 4)  # y and z of the upper and the lower lip
        teeth = vertices[self._vertices].astype(np.float32, copy=False)
        across = light_between_corners(teeth, vertices[self._mouth_corners]).astype(np.float32, copy=False)
        _light_teeth(teeth, rims, across, self._triangles, self._corners, self._baked, corners)


def has_teeth(face: Face) -> bool:
    """Whether a face has lips with known rims, and teeth behind them."""
    return face.lip_pairs is not None and any(map(_is_teeth, face.surfaces))


def _is_teeth(surface: Surface) -> bool:
    return surface.material.kind == "teeth" and not surface.smooth  # tessellation adds points between the vertices


@compiled
def _light_teeth(
    teeth: Float, rims: Float, across: Float, triangles: Index, ends: Index, baked: Float, corners: Float
) -> None:
    """Write the baked occlusion (F, 3) times the factors of the teeth into the corners of their triangles (F,).

    `ends` (F, 3) are rows of `teeth` (N, 3), `rims` (N, 4) and `across` (N,), the light between the mouth corners.
    `teeth` is used as working memory.
    """
    zero, half, one, near = np.float32(0), np.float32(0.5), np.float32(1), np.float32(NEAREST)
    least, range_ = np.float32(LEAST), np.float32(MOST - LEAST)
    rise, softness, share = np.float32(KEY_RISE), np.float32(KEY_SOFTNESS), np.float32(KEY_SHARE)
    for n in range(len(teeth)):
        above, below = rims[n, 0] - teeth[n, 1], teeth[n, 1] - rims[n, 2]
        upper_depth, lower_depth = max(rims[n, 1] - teeth[n, 2], near), max(rims[n, 3] - teeth[n, 2], near)
        upper = above / math.sqrt(above * above + upper_depth * upper_depth)
        lower = below / math.sqrt(below * below + lower_depth * lower_depth)
        teeth[n, 0] = (least + range_ * min(one, max(zero, (upper + lower) * half))) * across[n]
        # A ray of the key light passes under the upper lip if the lip is high enough over it.
        teeth[n, 1] = share * min(one, max(zero, half + (above / upper_depth - rise) / softness)) * across[n]
    for i in range(len(triangles)):
        for k in range(3):
            corners[triangles[i], k, AO] = baked[i, k] * teeth[ends[i, k], 0]
            corners[triangles[i], k, KEY_VISIBILITY] = teeth[ends[i, k], 1]
