"""Assemble the head: select its vertices and triangles from MakeHuman's meshes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.recipes.head_asset.anatomy import LOOP_B, UPPER_TEETH, Anatomy, Ids, lip_halves
from sedtalker.recipes.head_asset.blendshapes import sphere_centre
from sedtalker.recipes.head_asset.skin import atlas_uv, mouth_uv
from sedtalker.recipes.head_asset.sources import Array, Mesh, Proxy, Sources

CLOTH = "male_casualsuit04"
SLEEVE_WIDTH = 0.155  # metres from the middle: farther out is the arm, always inside a sleeve
EYE_FRONT = -0.15  # cosine to the viewing direction; quads below it, on the back of an eyeball, are never visible
TEETH_NARROWING = np.array([0.93, 1.0, 1.0])  # else the teeth intersect the corners of the mouth
TEETH_RETREAT = -0.001  # metres along z
# Heights above the incisal edge in metres, as modelled and as built. Edges are kept; crowns, modelled half as high as
# real ones, are stretched; gums, which would intersect the cheeks, are compressed.
TEETH_HEIGHTS = {
    "upper": ((0.0, 0.002, 0.006, 0.030), (0.0, 0.002, 0.0105, 0.0175)),
    "lower": ((0.0, 0.002, 0.006, 0.030), (0.0, 0.002, 0.0080, 0.0160)),
}
TEETH_SHOW = 0.0015  # metres from the line of the shut lips down to the upper incisal edge, which a smile then shows
# The same for the inner mouth above the lips: its pocket behind the upper lip would intersect the skin near the nose.
MOUTH_HEIGHTS = ((0.0, 0.006, 0.025), (0.0, 0.006, 0.013))
OVERBITE = 0.0005  # metres from the upper incisal edge up to the lower one, which is behind it


@dataclass(frozen=True)
class ProxyRange:
    """A proxy that provides a contiguous range of the face's vertices."""

    proxy: Proxy
    start: int  # first vertex of the range in the face

    @property
    def ids(self) -> Ids:
        """The vertices (N,) of the range in the face."""
        return np.arange(self.start, self.start + len(self.proxy.refs), dtype=np.int32)


@dataclass(frozen=True)
class Topology:
    """The topology that all identities share."""

    ranges: Mapping[str, ProxyRange]
    surfaces: Mapping[str, tuple[Ids, Array, Ids]]  # name -> triangles, uv, uv triangles
    parts: Mapping[str, Ids]
    base_to_face: Ids  # (base vertices,) the face's vertex, or -1

    @property
    def count(self) -> int:
        """Number of the face's vertices."""
        return sum(len(proxy_range.proxy.refs) for proxy_range in self.ranges.values())

    @property
    def faces(self) -> Ids:
        """Triangles (F, 3) of all surfaces."""
        return np.concatenate([triangles for triangles, _, _ in self.surfaces.values()])

    def fit(self, shaped: Array, rest: Array) -> Array:
        """The face's vertices (V, 3) for a base mesh (base vertices, 3), as modelled (for the scales) and at rest."""
        positions = {
            name: proxy_range.proxy.transfer(rest) + proxy_range.proxy.offsets * proxy_range.proxy.scale(shaped)
            for name, proxy_range in self.ranges.items()
        }
        upper = np.isin(self.ranges["teeth"].proxy.refs[:, 0], UPPER_TEETH)
        positions["teeth"], rise = _position_teeth(positions["teeth"], upper, float(rest[LOOP_B][1]))
        positions["tongue"] = positions["tongue"] + (0.0, rise, 0.0)
        mouth = self.parts["mouth"]  # of the body, whose range comes first
        above = positions["body"][mouth, 1] - rest[LOOP_B, 1]
        positions["body"][mouth, 1] -= np.where(above > 0, above - np.interp(above, *MOUTH_HEIGHTS), 0)
        return np.concatenate(list(positions.values()))

    def transfer(self, displacement: Array) -> Array:
        """Displacements (..., V, 3) of the face for displacements (..., base vertices, 3) of the base mesh."""
        parts = []
        for name, proxy_range in self.ranges.items():
            part = proxy_range.proxy.transfer(displacement)
            parts.append(part * TEETH_NARROWING if name == "teeth" else part)
        return np.concatenate(parts, axis=-2)


@dataclass(frozen=True)
class Body:
    """One identity in metres: the base mesh as modelled, at rest and its blendshapes, and the face built from it."""

    shaped: Array  # (base vertices, 3)
    rest: Array
    base_blendshapes: Array  # (52, base vertices, 3)
    template: Array  # (V, 3)
    blendshapes: Array  # (52, V, 3)


def build_topology(base: Mesh, anatomy: Anatomy, sources: Sources) -> Topology:
    """Select the quads of the sources that become the face."""
    hidden = sources.proxy("clothes", CLOTH).hidden
    torso = anatomy.torso
    torso = torso[~hidden[base.quads[torso]].all(1)]
    torso = torso[np.abs(base.vertices[base.quads[torso], 0]).max(1) < SLEEVE_WIDTH]
    skin = np.concatenate([anatomy.head, torso])
    body = _base_as_proxy(base, np.concatenate([skin, anatomy.mouth]))

    eyes = sources.proxy("eyes", "HighPolyEyes")
    front = _select_visible(eyes, base.vertices)
    wet = _is_cornea(eyes)
    proxies = {
        "body": body,
        "eyes": keep_quads(eyes, front & ~wet),
        "cornea": keep_quads(eyes, front & wet),
        "teeth": sources.proxy("teeth", "Teeth_Base"),
        "tongue": sources.proxy("tongue", "tongue01"),
    }
    return _topology(proxies, len(skin), anatomy, len(base.vertices))


def remove_hidden_teeth(topology: Topology, visible: NDArray[np.bool_], anatomy: Anatomy) -> Topology:
    """The topology without the quads of the teeth that are never visible.

    Args:
        topology: with all teeth.
        visible: (F,) a flag per quad of the teeth.
        anatomy: of the base mesh.
    """
    proxies = {name: proxy_range.proxy for name, proxy_range in topology.ranges.items()}
    proxies["teeth"] = keep_quads(proxies["teeth"], visible)
    skin_quads = len(topology.surfaces["skin"][0]) // 2
    return _topology(proxies, skin_quads, anatomy, len(topology.base_to_face))


def triangulate(quads: NDArray[np.int32]) -> Ids:
    """Triangles (2F, 3) of quads (F, 4)."""
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def keep_quads(proxy: Proxy, mask: NDArray[np.bool_]) -> Proxy:
    """The proxy with some of its quads, and without unused vertices and texture coordinates."""
    used, quads = np.unique(proxy.quads[mask], return_inverse=True)
    used_uv, uv_quads = np.unique(proxy.uv_quads[mask], return_inverse=True)
    return replace(
        proxy,
        quads=quads.reshape(-1, 4).astype(np.int32),
        uv_quads=uv_quads.reshape(-1, 4).astype(np.int32),
        uv=proxy.uv[used_uv],
        refs=proxy.refs[used],
        weights=proxy.weights[used],
        offsets=proxy.offsets[used],
    )


def find_landmarks(template: Array, blendshapes: Array, topology: Topology, anatomy: Anatomy) -> dict[str, int]:
    """Landmark vertices by name; "left" is the person's own left."""
    at = topology.base_to_face
    upper, lower = lip_halves(anatomy.loops[LOOP_B])
    skin = np.concatenate([topology.parts["skin"], topology.parts["lips"]])
    middle = skin[np.abs(template[skin, 0]) < 0.0005]
    front = middle[template[middle, 2] > template[:, 2].max() - 0.06]
    nose = int(front[np.argmax(template[front, 2])])
    below = front[template[front, 1] < template[at[lower[len(lower) // 2]], 1] - 0.012]
    marks = {
        "mouth_right": int(at[upper[0]]),
        "mouth_left": int(at[upper[-1]]),
        "lip_upper": int(at[upper[len(upper) // 2]]),
        "lip_lower": int(at[lower[len(lower) // 2]]),
        "nose_tip": nose,
        "chin": int(below[np.argmax(template[below] @ np.array([0.0, -0.6, 0.8]))]),
        "teeth_upper": _incisal_edge(template, topology.parts["teeth_upper"], -1),
        "teeth_lower": _incisal_edge(template, topology.parts["teeth_lower"], 1),
    }
    for side, sign in (("left", 1), ("right", -1)):
        name = side.capitalize()
        rim_up, rim_low = at[anatomy.lid_upper[name]], at[anatomy.lid_lower[name]]
        rim = np.concatenate([rim_up, rim_low])
        outward = template[rim, 0] * sign
        half = skin[template[skin, 0] * sign > 0]
        marks[f"eye_{side}_inner"] = int(rim[np.argmin(outward)])
        marks[f"eye_{side}_outer"] = int(rim[np.argmax(outward)])
        blink = blendshapes[ARKIT_NAMES.index(f"eyeBlink{name}")]
        middle = rim_up[np.argmin(blink[rim_up, 1])]
        marks[f"lid_{side}_upper"] = int(middle)
        marks[f"lid_{side}_lower"] = int(rim_low[np.argmin(np.abs(template[rim_low, 0] - template[middle, 0]))])
        for place, blendshape in (("inner", "browInnerUp"), ("outer", f"browOuterUp{name}")):
            lift = blendshapes[ARKIT_NAMES.index(blendshape)]
            marks[f"brow_{side}_{place}"] = int(half[np.argmax(lift[half, 1])])
    return marks


def pair_lips(template: Array, topology: Topology, anatomy: Anatomy) -> Ids:
    """Opposite vertices (N, 2) of the inner rims of upper and lower lip, from the right corner to the left."""
    upper, lower = lip_halves(anatomy.loops[LOOP_B])
    at = topology.base_to_face
    upper, lower = (half[len(half) // 2 : -1] for half in (upper, lower))  # the left half, without the corner
    facing = upper[np.argmin(np.abs(template[at[lower], None, 0] - template[at[upper], 0]), axis=1)]
    first = np.sort(np.unique(facing, return_index=True)[1])
    left = np.stack([facing, lower], axis=1)[first]
    right = anatomy.mirror[left[:0:-1]]
    pairs: Ids = at[np.concatenate([right, left])]
    return pairs


def _topology(proxies: Mapping[str, Proxy], skin_quads: int, anatomy: Anatomy, base_count: int) -> Topology:
    ranges, start = {}, 0
    for name, proxy in proxies.items():
        ranges[name] = ProxyRange(proxy, start)
        start += len(proxy.refs)
    body = proxies["body"]
    surfaces = {
        "skin": _surface(ranges["body"], slice(0, skin_quads), atlas_uv(body.uv)),
        "mouth": _surface(ranges["body"], slice(skin_quads, None), mouth_uv(body.uv)),
    }
    for name in ("eyes", "cornea", "teeth", "tongue"):
        surfaces[name] = _surface(ranges[name], slice(None), proxies[name].uv)
    base_to_face = np.full(base_count, -1, np.int32)
    base_to_face[body.refs[:, 0]] = ranges["body"].ids
    return Topology(ranges, surfaces, _parts(ranges, surfaces, anatomy, base_to_face), base_to_face)


def _parts(
    ranges: Mapping[str, ProxyRange],
    surfaces: Mapping[str, tuple[Ids, Array, Ids]],
    anatomy: Anatomy,
    base_to_face: Ids,
) -> dict[str, Ids]:
    """Vertices of each part; every vertex belongs to exactly one."""
    lips = np.unique(base_to_face[np.concatenate(list(anatomy.loops.values()))])
    skin = np.setdiff1d(np.unique(surfaces["skin"][0]), lips)
    mouth = np.setdiff1d(np.unique(surfaces["mouth"][0]), np.concatenate([lips, skin]))
    upper = np.isin(ranges["teeth"].proxy.refs[:, 0], UPPER_TEETH)
    left = {name: ranges[name].proxy.refs[:, 0] < 14670 for name in ("eyes", "cornea")}
    eyes = np.concatenate([ranges["eyes"].ids, ranges["cornea"].ids])
    is_left = np.concatenate([left["eyes"], left["cornea"]])
    return {
        "skin": skin,
        "lips": lips,
        "mouth": mouth,
        "eye_left": eyes[is_left],
        "eye_right": eyes[~is_left],
        "teeth_upper": ranges["teeth"].ids[upper],
        "teeth_lower": ranges["teeth"].ids[~upper],
        "tongue": ranges["tongue"].ids,
    }


def _surface(proxy_range: ProxyRange, quads: slice, uv: Array) -> tuple[Ids, Array, Ids]:
    triangles = triangulate(proxy_range.proxy.quads[quads]) + proxy_range.start
    used, uv_triangles = np.unique(triangulate(proxy_range.proxy.uv_quads[quads]), return_inverse=True)
    return triangles.astype(np.int32), uv[used], uv_triangles.reshape(-1, 3).astype(np.int32)


def _base_as_proxy(base: Mesh, quads: Ids) -> Proxy:
    """Quads of the base mesh as a proxy whose vertices are base vertices."""
    count = len(base.vertices)
    whole = Proxy(
        "body",
        base.uv,
        base.quads[quads],
        base.uv_quads[quads],
        np.repeat(np.arange(count, dtype=np.int32)[:, None], 3, axis=1),
        np.tile((1.0, 0.0, 0.0), (count, 1)),
        np.zeros((count, 3)),
        np.zeros(count, bool),
    )
    return keep_quads(whole, np.ones(len(quads), bool))


def _is_cornea(eyes: Proxy) -> NDArray[np.bool_]:
    """Whether each quad belongs to the cornea, mapped to the transparent disc in a corner of the eye's texture."""
    middle = eyes.uv[eyes.uv_quads].mean(1)
    return (middle[:, 0] > 0.86) & (middle[:, 1] < 0.14)


def _select_visible(eyes: Proxy, base: Array) -> NDArray[np.bool_]:
    """Whether each quad of the eyeballs can be visible."""
    vertices = eyes.fit(base)
    middle = vertices[eyes.quads].mean(1)
    visible = np.zeros(len(middle), bool)
    for side in (1, -1):
        ball = middle[:, 0] * side > 0
        direction = middle[ball] - sphere_centre(vertices[vertices[:, 0] * side > 0])
        visible[ball] = direction[:, 2] / np.linalg.norm(direction, axis=1) > EYE_FRONT
    return visible


def _position_teeth(teeth: Array, upper: NDArray[np.bool_], lip_line: float) -> tuple[Array, float]:
    """Teeth (N, 3) moved behind lips that meet at a height, and the upward shift of the upper row, metres."""
    teeth = teeth * TEETH_NARROWING + (0.0, 0.0, TEETH_RETREAT)
    rise = 0.0
    heights = {"upper": lip_line - TEETH_SHOW, "lower": lip_line - TEETH_SHOW + OVERBITE}
    for row, members, down in (("upper", upper, -1), ("lower", ~upper, 1)):
        edge = float(teeth[_incisal_edge(teeth, np.flatnonzero(members).astype(np.int32), down)][1])
        above = (edge - teeth[members, 1]) * down
        stretched = np.where(above < 0, above, np.interp(above, *TEETH_HEIGHTS[row]))
        teeth[members, 1] = heights[row] - stretched * down
        if row == "upper":
            rise = heights[row] - edge
    return teeth, rise


def _incisal_edge(template: Array, teeth: Ids, down: int) -> int:
    """The middle vertex of a row's incisal edge; `down` is -1 for the upper row, 1 for the lower."""
    front = teeth[np.abs(template[teeth, 0]) < 0.004]
    front = front[template[front, 2] > template[front, 2].max() - 0.004]
    return int(front[np.argmax(template[front, 1] * down - np.abs(template[front, 0]) * 0.1)])
