"""Parts of MakeHuman's base mesh: skin, mouth, lips, lids, and the mirror vertex of each vertex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sedtalker.recipes.head_asset.sources import Array, Mesh

Ids = NDArray[np.int32]

CUT_HEIGHT = 0.415  # metres in the template: lower vertices do not belong to the head
CUT_WIDTH = 0.295  # metres to each side

EYES = {"Left": np.arange(14598, 14670, dtype=np.int32), "Right": np.arange(14670, 14742, dtype=np.int32)}
UPPER_TEETH = np.arange(15060, 15128, dtype=np.int32)

# The lips are edge loops of 38 vertices around the mouth, each identified by its vertex in the middle of the upper lip.
# The innermost two touch when the mouth is shut; B is the visible rim.
LOOP_A, LOOP_B, LOOP_C, LOOP_D, LOOP_E = 520, 474, 468, 509, 467
LOOPS = (LOOP_A, LOOP_B, LOOP_C, LOOP_D, LOOP_E)
LOOP_LENGTH = 38


@dataclass(frozen=True)
class Anatomy:
    """Vertex and quad numbers of the base mesh."""

    head: Ids  # quads of the head's texture island
    torso: Ids  # quads of neck, shoulders and chest above the cut
    mouth: Ids  # quads of the inner mouth
    loops: dict[int, Ids]  # lip loops (38,), from the middle of the upper lip over the left corner and back
    lid_upper: dict[str, Ids]  # rim of the upper lid, by side
    lid_lower: dict[str, Ids]
    mirror: Ids  # (V,) the vertex at the mirrored position
    edges: Ids  # (E, 2) of the face's quads and the eye sockets


def find_anatomy(base: Mesh, blinks: dict[str, Array]) -> Anatomy:
    """Find the parts of the base mesh.

    Args:
        base: MakeHuman's mesh.
        blinks: displacements (V, 3) of the eyeBlink blendshapes by side.
    """
    body = np.flatnonzero(base.groups == "body")
    corners = base.vertices[base.quads[body]]
    near = (corners[..., 1].min(1) > CUT_HEIGHT) & (np.abs(corners[..., 0]).max(1) < CUT_WIDTH)
    islands = connected_parts(base.uv_quads[body], len(base.uv))
    u, v = base.uv[base.uv_quads[body], 0], base.uv[base.uv_quads[body], 1]
    mouth = near & (u.min(1) > 0.75) & (v.max(1) < 0.14)
    socket = near & (u.max(1) < 0.155) & (v.min(1) > 0.54) & (v.max(1) < 0.64)
    top = np.argmax(np.where(near, corners[..., 1].max(1), -np.inf))
    head = near & (islands == islands[top])
    torso = near & ~(head | mouth | socket)
    rim = np.intersect1d(base.quads[body[socket]], base.quads[body[head]])
    quads = base.quads[body[head | torso | mouth]]
    return Anatomy(
        head=body[head].astype(np.int32),
        torso=body[torso].astype(np.int32),
        mouth=body[mouth].astype(np.int32),
        loops={start: edge_loop(base, quads, start) for start in LOOPS},
        lid_upper={side: rim[_on_upper_lid(blink, rim)] for side, blink in blinks.items()},
        lid_lower={side: _lower_rim(base.vertices, rim, blink, side) for side, blink in blinks.items()},
        mirror=mirror(base.vertices),
        edges=polygon_edges(base.quads[body[near]]),
    )


def edge_loop(base: Mesh, quads: NDArray[np.int32], start: int) -> Ids:
    """The edge loop through a vertex, first to the person's left, straight on at every vertex of four edges."""
    around: dict[int, set[int]] = {}
    for number, quad in enumerate(quads):
        for vertex in quad:
            around.setdefault(int(vertex), set()).add(number)
    neighbours: dict[int, set[int]] = {}
    for a, b in polygon_edges(quads):
        neighbours.setdefault(int(a), set()).add(int(b))
        neighbours.setdefault(int(b), set()).add(int(a))
    loop = [start, max(neighbours[start], key=lambda vertex: base.vertices[vertex, 0])]
    while len(loop) < LOOP_LENGTH:
        last, here = loop[-2:]
        sides = {int(v) for number in around[last] & around[here] for v in quads[number]}
        loop.append(next(iter(neighbours[here] - sides)))
    return np.array(loop, np.int32)


def lip_halves(loop: Ids) -> tuple[Ids, Ids]:
    """The upper and the lower lip of a loop, each from the right corner to the left; the corners belong to both."""
    corner = len(loop) // 4 + 2  # the corner is the eleventh vertex from the middle
    upper = np.concatenate([loop[-corner:], loop[: corner + 1]])
    lower = loop[corner : len(loop) - corner + 1][::-1]
    return upper, lower


def polygon_edges(polygons: NDArray[np.int32]) -> Ids:
    """The distinct edges (E, 2) of polygons (F, K), all quads or all triangles."""
    count = polygons.shape[1]
    pairs = np.concatenate([polygons[:, [k, (k + 1) % count]] for k in range(count)])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def mirror(vertices: Array) -> Ids:
    """For each vertex (V, 3) the index (V,) of the vertex nearest to its mirror image."""
    return cKDTree(vertices).query(vertices * (-1, 1, 1))[1].astype(np.int32)


def connected_parts(quads: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The connected part (F,) of each quad (F, 4) of `count` vertices; of texture quads, the texture's islands."""
    a = np.repeat(quads[:, 0], quads.shape[1] - 1)
    b = quads[:, 1:].ravel()
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels[quads[:, 0]]


def _on_upper_lid(blink: Array, rim: Ids) -> NDArray[np.bool_]:
    return blink[rim, 1] < -0.0008


def _lower_rim(vertices: Array, rim: Ids, blink: Array, side: str) -> Ids:
    same_side = vertices[rim, 0] > 0 if side == "Left" else vertices[rim, 0] < 0
    return rim[same_side & ~_on_upper_lid(blink, rim)]
