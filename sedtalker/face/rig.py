"""The face: template, topology, blendshapes, surfaces and attachments.

A face is plain arrays. Its motion is linear, vertices = template + weights @ blendshapes, so that a renderer, a glTF
viewer and a solver compute the same face from the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sedtalker.face.pose_cpu import PackedShapes

Float = NDArray[np.float32]
Index = NDArray[np.int32]

MESH = "mesh"
"""The part of a fitted head (`sedtalker face fit`) with the vertices of the user's mesh, which come first."""


@dataclass(frozen=True)
class Material:
    """Shading of a surface. Colours are linear RGB."""

    kind: str = "plain"  # skin, eye, cornea, mouth, teeth, tongue, hair, card (brows, lashes), cloth, plain
    mode: str = "opaque"  # opaque; hair (solid core, blended fringe); blend (sorted, no depth write); add (additive)
    texture: str | None = None  # name in Face.textures; sRGB + alpha (opacity; for skin: gloss)
    bump: str | None = None  # name in Face.textures; height map, used at quality "fine"
    bump_height: float = 0.0  # metres from black to white of the bump map
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factor of the texture
    wrap: tuple[float, float, float] = (0.0, 0.0, 0.0)  # wrapped diffuse, (d + w) / (1 + w)
    specular: float = 0.0
    gloss: float = 20.0  # Blinn exponent
    ambient: float = 1.0
    sheen: float = 0.0


@dataclass(frozen=True)
class Surface:
    """Textured triangles of the face or of an attachment."""

    name: str
    triangles: Index  # (F, 3) vertex indices
    uv: Float  # (U, 2), v up
    uv_triangles: Index  # (F, 3) indices into uv
    material: Material
    occlusion: Float | None  # (V,) baked ambient occlusion at the vertices, 0 dark to 1 open; None: computed when drawn
    smooth: bool = False  # one level of Phong tessellation at quality "fine", of hair always
    scalp: Float | None = None  # (V,) share of the hair's colour in the skin's
    scalp_color: tuple[float, float, float] = (0.0, 0.0, 0.0)  # linear RGB


@dataclass(frozen=True)
class Attachment:
    """A mesh bound to the face: brows, lashes, hair, clothes.

    Vertex n is at sum_k weights[n, k] * vertices[indices[n, k]] + offsets[n] (MakeHuman's mhclo fitting formula).
    """

    surface: Surface
    indices: Index  # (N, 3) into the face's vertices
    weights: Float  # (N, 3)
    offsets: Float  # (N, 3) metres

    def place(self, vertices: Float) -> Float:
        """Positions (N, 3) in metres for vertices (V, 3) of the face."""
        return np.einsum("nk,nkc->nc", self.weights, vertices[self.indices]) + self.offsets


@dataclass(frozen=True)
class Face:
    """A head: geometry in metres, y up, facing +z; the person's left is +x."""

    name: str
    template: Float  # (V, 3)
    faces: Index  # (F, 3), the triangles of all its surfaces
    surfaces: tuple[Surface, ...] = ()  # over `template`; empty for a mesh without textures
    attachments: Mapping[str, Attachment] = field(default_factory=dict)
    blendshapes: Float | None = None  # (52, V, 3) displacements at weight 1, in the order of blendshape_names
    blendshape_names: tuple[str, ...] = ()
    parts: Mapping[str, Index] = field(default_factory=dict)  # name -> vertex indices
    masks: Mapping[str, Index] = field(default_factory=dict)  # region name -> vertex indices
    landmarks: Mapping[str, int] = field(default_factory=dict)
    lip_pairs: Index | None = None  # (N, 2) inner rim, upper and lower, corner to corner
    textures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)  # name -> (H, W, 1 or 4)
    uv: Float | None = None  # (V, 2), one texture coordinate per vertex
    colors: NDArray[np.uint8] | None = None  # (V, 3) sRGB
    head_weights: Float | None = None  # (V,) skinning weights of the head's motion; None: by height, see `neck`
    neck: Float | None = None  # (3,) metres, the point about which the head rotates; None: from the eyes
    source: str | None = None  # what `load_face` needs to load it again, if it is not the name

    def all_points(self, vertices: Float | None = None) -> Float:
        """Vertices (V, 3), by default the template, followed by the attachments: (V + A, 3) metres."""
        base = self.template if vertices is None else vertices
        return np.concatenate([base, *(attachment.place(base) for attachment in self.attachments.values())]).astype(
            np.float32
        )

    def pose(self, weights: NDArray[np.floating]) -> Float:
        """Vertices (T, V, 3) in metres for blendshape weights (T, 52), or (V, 3) for (52,).

        Raises:
            ValueError: the face has no blendshapes.
        """
        if self.blendshapes is None:
            raise ValueError(f"face {self.name!r} has no blendshapes")
        count, vertices, _ = self.blendshapes.shape
        posed = np.asarray(weights, np.float32) @ self.blendshapes.reshape(count, vertices * 3)
        posed = posed.reshape(*np.shape(weights)[:-1], vertices, 3)
        posed += self.template
        return posed

    def pose_few(self, weights: NDArray[np.floating]) -> Float:
        """As `pose` for weights (T, 52) of a few frames, up to `pose_cpu.FEW`, in less time."""
        return self._packed_shapes.pose(weights, self.template)

    @cached_property
    def _packed_shapes(self) -> PackedShapes:
        from sedtalker.face.pose_cpu import PackedShapes

        if self.blendshapes is None:
            raise ValueError(f"face {self.name!r} has no blendshapes")
        return PackedShapes(self.blendshapes)
