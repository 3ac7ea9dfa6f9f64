"""Pictures of test shapes of a face, and a face with its light baked, for a folder that is written once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.rig import Face, Float
from sedtalker.render.arrays import Bytes
from sedtalker.render.scene import bake_occlusion
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.views import grid

TEST_SHAPES: dict[str, dict[str, float]] = {
    "rest": {},
    "jawOpen": {"jawOpen": 0.7},
    "closed, jaw low": {"jawOpen": 0.3, "mouthClose": 0.3},
    "eyeBlink": {"eyeBlink": 1.0},
    "mouthSmile": {"mouthSmile": 0.8, "cheekSquint": 0.4},
    "mouthPucker": {"mouthPucker": 0.9},
    "mouthFunnel": {"mouthFunnel": 0.8},
    "browInnerUp": {"browInnerUp": 1.0, "browOuterUp": 0.5},
    "browDown": {"browDown": 1.0, "noseSneer": 0.6},
    "eyeLookOutLeft": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "mouthFrown": {"mouthFrown": 0.8, "mouthRollLower": 0.5},
}
"""Rest and ten test shapes, by ARKit names, with or without a side."""

_COLUMNS = 4


def shape_weights(shapes: dict[str, float]) -> Float:
    """Weights (52,) of named shapes; a name without its side moves both."""
    weights = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, weight in shapes.items():
        weights[list(arkit_columns(name))] = weight
    return weights


def draw_test_shapes(face: Face, size: int = 256) -> Bytes:
    """A sheet (H, W, 3) of `TEST_SHAPES` on a rigged face, each picture `size` pixels high and wide."""
    renderer = SoftRenderer(face, size, size)
    pictures = [renderer.frame(face.pose(shape_weights(shapes))) for shapes in TEST_SHAPES.values()]
    return grid(pictures, _COLUMNS, list(TEST_SHAPES))


def with_baked_light(face: Face) -> Face:
    """The face with occlusion in all its surfaces."""
    return replace(face, surfaces=tuple(bake_occlusion(face)))
