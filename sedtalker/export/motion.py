"""What moves, as named curves: blendshape weights, or the components of a motion that has none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import AnimationError
from sedtalker.face.rig import Face

if TYPE_CHECKING:
    from sedtalker.animation import Animation

Float = NDArray[np.float32]

_SAMPLES = 512  # frames that the components of a motion are found from
_MOST_COMPONENTS = 64
_TOLERANCE = 5e-5  # metres, root mean square, that the components may leave


@dataclass(frozen=True)
class Curves:
    """Weights (T, K) by name."""

    names: tuple[str, ...]
    weights: Float


def require_weights(animation: Animation, form: str) -> Float:
    """The blendshape weights (T, K), for a format that carries nothing else.

    Raises:
        AnimationError: there are none.
    """
    if animation.blendshapes is None:
        raise AnimationError(
            f"no blendshape weights in this animation: {form} carries nothing else. Solve them with --basis, or export "
            "npy or obj"
        )
    return animation.blendshapes


def motion_curves(animation: Animation) -> tuple[Face, Curves]:
    """A face with shapes, and the curves that drive them.

    A rigged face and its weights are given as they are. Vertices without a rig become principal components of their
    motion, named motion_00 and on, largest first: as many as leave 0.05 mm (root mean square), at most 64.
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
    """Shapes (K, V, 3) and weights (T, K) whose products are the motion; a weight of 1 is the largest that occurs."""
    count, rest = len(animation), animation.template.ravel()
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLES)).round().astype(int))
    motion = np.stack([next(animation.frames(int(i), int(i) + 1)).ravel() - rest for i in chosen])
    values, vectors = np.linalg.eigh((motion @ motion.T).astype(np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    left = np.sqrt(np.maximum(values.sum() - np.cumsum(values), 0) / (len(chosen) * len(animation.template)))
    kept = min(_MOST_COMPONENTS, 1 + int(np.argmax(left < _TOLERANCE)) if (left < _TOLERANCE).any() else len(values))
    basis = (vectors[:, :kept] / np.sqrt(np.maximum(values[:kept], 1e-12))).T.astype(
        np.float32
    ) @ motion  # rows of unit length
    weights = np.stack([basis @ (vertices.ravel() - rest) for vertices in animation.frames()])
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-9)
    return (basis * scale[:, None]).reshape(kept, -1, 3), (weights / scale).astype(np.float32)
