"""The motion of an animation as named curves: blendshape weights, or principal components of the vertices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.errors import AnimationError
from sedtalker.face.rig import Face, Float
from sedtalker.pca import principal_components

if TYPE_CHECKING:
    from sedtalker.animation import Animation

_SAMPLES = 512  # frames at most from which the components are computed
_MAX_COMPONENTS = 64
_TOLERANCE = 5e-5  # metres, root mean square of the residual over vertices and frames


@dataclass(frozen=True)
class Curves:
    """Weights (T, K) by name."""

    names: tuple[str, ...]
    weights: Float


def require_weights(animation: Animation, format_name: str) -> Float:
    """The blendshape weights (T, K) of an animation, for a format that holds only them.

    Raises:
        AnimationError: the animation has none.
    """
    if animation.blendshapes is None:
        raise AnimationError(
            f"no blendshape weights in this animation, and {format_name} holds only them. "
            "Solve them with --basis, or export npy or obj"
        )
    return animation.blendshapes


def motion_curves(animation: Animation) -> tuple[Face, Curves]:
    """A face with shapes, and the curves that drive them.

    A rigged face and its weights are returned unchanged. Vertices without a rig become principal components of their
    motion, named motion_00 and on, largest first: the fewest that leave a residual below 0.05 mm (root mean square),
    at most 64.
    """
    face = animation.face
    if animation.blendshapes is not None and face.blendshapes is not None:
        return face, Curves(animation.blendshape_names, animation.blendshapes)
    bare = replace(face, template=animation.template)
    if not len(animation):
        return bare, Curves((), np.zeros((0, 0), np.float32))
    shapes, weights = _components(animation)
    names = tuple(f"motion_{index:02d}" for index in range(len(shapes)))
    return replace(bare, blendshapes=shapes, blendshape_names=names), Curves(names, weights)


def _components(animation: Animation) -> tuple[Float, Float]:
    """Shapes (K, V, 3) and weights (T, K) whose products are the motion; the largest weight of a shape is 1 or -1."""
    count, template = len(animation), animation.template.ravel()
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLES)).round().astype(int))
    motion = np.stack([next(animation.frames(int(i), int(i) + 1)).ravel() - template for i in sample])
    basis = principal_components(motion, _MAX_COMPONENTS, _TOLERANCE / np.sqrt(3))
    weights = np.stack([basis @ (vertices.ravel() - template) for vertices in animation.frames()])
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-9)
    return (basis * scale[:, None]).reshape(len(basis), -1, 3), (weights / scale).astype(np.float32)
