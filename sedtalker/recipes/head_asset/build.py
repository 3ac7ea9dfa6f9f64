"""Build all identities of the head: shape, blendshapes, attachments, textures and baked occlusion."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, arkit_columns
from sedtalker.face.mesh import vertex_normals
from sedtalker.face.rig import Attachment, Face, Surface
from sedtalker.face.vertex_masks import rig_regions
from sedtalker.recipes.head_asset import textures
from sedtalker.recipes.head_asset.anatomy import Anatomy, Ids, find_anatomy, polygon_edges
from sedtalker.recipes.head_asset.assemble import (
    Body,
    Topology,
    build_topology,
    find_landmarks,
    pair_lips,
    remove_hidden_teeth,
)
from sedtalker.recipes.head_asset.attachments import SMOOTH, bind_attachments, make_materials, scalp_color, scalp_share
from sedtalker.recipes.head_asset.blendshapes import (
    adapt_blendshapes,
    clear_eyes,
    raise_tongue_tip,
    round_lips,
    strengthen_expressions,
    symmetrize,
)
from sedtalker.recipes.head_asset.identities import IDENTITIES, Identity, shape_identity
from sedtalker.recipes.head_asset.occlusion import (
    ambient_occlusion,
    average_nearby,
    smooth_values,
    view_direction,
    visible_triangles,
)
from sedtalker.recipes.head_asset.skin import paint_mouth, paint_skin
from sedtalker.recipes.head_asset.sources import Array, Mesh, Sources
from sedtalker.recipes.head_asset.wrinkles import paint_wrinkles

logger = logging.getLogger(__name__)

OPEN_JAW = 0.55  # weight for baking the inner mouth, which would be black with the mouth shut
OPEN_SHARE = 0.7  # factor of the occlusion with the mouth open, for all other vertices
STRIPS_BLUR = 0.012  # metres, radius over which the hair's occlusion is averaged, to hide the seams of its strips
TEETH_LIGHT = 0.6  # least occlusion value of the front teeth, which are translucent
TEETH_DARK, TEETH_DEPTH = 0.2, 0.022  # factor of the molars, and their depth behind the front teeth in metres
LINING_LIGHT, LINING_DEPTH = 0.38, 0.05  # least occlusion value of lips and cheeks inside, foremost; 0 this far behind
CHEEK_LIGHT, CHEEK_DEPTH = 0.5, 0.13  # the same of the cheeks, which are seen beside the teeth of a smile
CHEEK_FROM, CHEEK_TO = 0.010, 0.022  # metres from the middle of the face between which the lining becomes a cheek
TONGUE_LIGHT, TONGUE_DEPTH = 0.6, 0.034  # least occlusion value of the tongue's tip; 0 this far behind it in metres

# Poses that show as much of the teeth as any expression, and the views in degrees.
_OPEN_MOUTHS: Sequence[dict[str, float]] = (
    {"jawOpen": 0.3, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
    {"jawOpen": 0.9, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
    {"jawOpen": 0.3, "mouthSmileLeft": 1, "mouthSmileRight": 1, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1},
    {"jawOpen": 0.5, "mouthStretchLeft": 1, "mouthStretchRight": 1, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
)
_YAWS, _PITCHES = range(-60, 61, 15), (-30, -15, 0, 15, 30)
_VIEW_SIZE = 1400  # pixels


def make_faces(sources: Sources, identities: Sequence[Identity] = IDENTITIES) -> Iterator[Face]:
    """Build each identity as a Face; all share one topology."""
    base = sources.base()
    count = len(base.vertices)
    raw = {name: sources.blendshape(name, count) for name in ARKIT_NAMES}
    anatomy = find_anatomy(base, {side: raw[f"eyeBlink{side}"] for side in ("Left", "Right")})
    blendshapes = symmetrize(raw, anatomy.mirror)
    topology = build_topology(base, anatomy, sources)
    first = shape_body(identities[0], base, blendshapes, anatomy, topology, sources)
    topology = remove_hidden_teeth(topology, _find_visible_teeth(first, topology), anatomy)
    shared = {
        "mouth": paint_mouth(identities[0], sources),
        "teeth": textures.paint_teeth(sources),
        "tongue": textures.paint_tongue(sources),
    }
    common: Face | None = None
    wrinkles: dict[str, NDArray[np.uint8]] = {}
    for identity in identities:
        logger.info("%s: %d vertices", identity.name, topology.count)
        body = shape_body(identity, base, blendshapes, anatomy, topology, sources)
        common = common or _shared_face(body, topology, anatomy)
        face = _build_identity(identity, body, base, common, topology, sources, shared)
        wrinkles = wrinkles or paint_wrinkles(face)
        yield replace(face, textures={**face.textures, **wrinkles})


def shape_body(
    identity: Identity,
    base: Mesh,
    blendshapes: dict[str, Array],
    anatomy: Anatomy,
    topology: Topology,
    sources: Sources,
) -> Body:
    shaped = shape_identity(identity, base.vertices, sources)
    rest, adapted = adapt_blendshapes(shaped, blendshapes, anatomy)
    template = topology.fit(shaped, rest)
    moved = raise_tongue_tip(template, topology.transfer(adapted), topology.parts["tongue"])
    blinks, smiles = list(arkit_columns("eyeBlink")), list(arkit_columns("mouthSmile"))
    template = template + identity.lids * moved[blinks].sum(0) - identity.corners * moved[smiles].sum(0)
    moved[blinks] *= 1 - identity.lids
    moved[smiles] *= 1 + identity.corners
    return Body(shaped, rest, adapted, template, moved)


def _shared_face(body: Body, topology: Topology, anatomy: Anatomy) -> Face:
    """Topology, parts, masks and landmarks for all identities, from the first one."""
    return Face(
        "common",
        body.template.astype(np.float32),
        topology.faces,
        parts=topology.parts,
        masks=rig_regions(body.template, body.blendshapes, topology.parts),
        landmarks=find_landmarks(body.template, body.blendshapes, topology, anatomy),
        lip_pairs=pair_lips(body.template, topology, anatomy),
        blendshapes=body.blendshapes.astype(np.float32),
        blendshape_names=ARKIT_NAMES,
    )


def _build_identity(
    identity: Identity,
    body: Body,
    base: Mesh,
    common: Face,
    topology: Topology,
    sources: Sources,
    shared: dict[str, NDArray[np.uint8]],
) -> Face:
    attachments = bind_attachments(identity, body, base.vertices, topology, sources)
    skin, bump = paint_skin(identity, sources)
    hair, hair_uv = textures.crop_to_used(textures.paint_hair(identity, sources), attachments["hair"].surface.uv)
    attachments["hair"] = replace(attachments["hair"], surface=replace(attachments["hair"].surface, uv=hair_uv))
    pictures = {
        f"{identity.name}_skin": skin,
        f"{identity.name}_skin_bump": bump,
        f"{identity.name}_eyes": textures.paint_eyes(identity, sources),
        f"{identity.name}_hair": hair,
        f"{identity.name}_brows": textures.paint_brows(identity, sources),
        f"{identity.name}_lashes": textures.paint_lashes(identity, sources),
        **shared,
    }
    light, attachments = _bake_occlusion(body, attachments, topology)
    eyes = body.template[np.concatenate([topology.parts["eye_left"], topology.parts["eye_right"]])].mean(0)
    skin_triangles = topology.surfaces["skin"][0]
    share = scalp_share(body.template, attachments["hair"], hair, eyes, skin_triangles).astype(np.float32)
    share = smooth_values(share, skin_triangles)
    strong = strengthen_expressions(body.template, body.blendshapes, common.landmarks)
    assert common.blendshapes is not None and common.lip_pairs is not None
    sides = polygon_edges(skin_triangles)
    strong = strong + round_lips(
        common.template.astype(np.float64), common.blendshapes.astype(np.float64), common.lip_pairs, sides
    )
    eyeballs = {side: topology.parts[f"eye_{side.lower()}"] for side in ("Left", "Right")}
    materials = make_materials(identity)
    surfaces = tuple(
        Surface(
            name,
            triangles,
            uv.astype(np.float32),
            uv_triangles,
            materials[name],
            light,
            smooth=name in SMOOTH,
            scalp=share if name == "skin" else None,
            scalp_color=scalp_color(hair) if name == "skin" else (0.0, 0.0, 0.0),
        )
        for name, (triangles, uv, uv_triangles) in topology.surfaces.items()
    )
    return replace(
        common,
        name=identity.name,
        template=body.template.astype(np.float32),
        surfaces=surfaces,
        attachments=attachments,
        blendshapes=clear_eyes(body.template, strong, eyeballs, np.unique(skin_triangles)).astype(np.float32),
        textures=pictures,
        colors=_vertex_colors(topology.count, surfaces, pictures),
    )


def _vertex_colors(
    count: int, surfaces: Sequence[Surface], pictures: dict[str, NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Colours (V, 3), sRGB, of the textures at each vertex."""
    colors = np.full((count, 3), 255, np.uint8)
    for surface in surfaces:
        if surface.material.texture is None:
            continue
        picture = pictures[surface.material.texture]
        height, width = picture.shape[:2]
        u, v = surface.uv[surface.uv_triangles.ravel()].T
        column = np.clip((u * width).astype(int), 0, width - 1)
        row = np.clip(((1 - v) * height).astype(int), 0, height - 1)
        colors[surface.triangles.ravel()] = picture[row, column, :3]
    return colors


def _bake_occlusion(
    body: Body, attachments: dict[str, Attachment], topology: Topology
) -> tuple[NDArray[np.float32], dict[str, Attachment]]:
    """Occlusion (V,) of the face, and the attachments with theirs."""
    shut, attached = _compute_occlusion(body.template, attachments, topology)
    open_, _ = _compute_occlusion(body.template + OPEN_JAW * body.blendshapes[JAW_OPEN], attachments, topology)
    light = np.maximum(shut, OPEN_SHARE * open_)
    inner = np.concatenate([topology.parts[name] for name in ("mouth", "tongue")])
    teeth = np.concatenate([topology.parts[name] for name in ("teeth_upper", "teeth_lower")])
    light[inner] = open_[inner]
    mouth = topology.parts["mouth"]
    light[mouth] = light_lining(body.template[mouth], light[mouth])
    tongue = topology.parts["tongue"]
    light[tongue] = light_from_front(body.template[tongue, 2], light[tongue], TONGUE_LIGHT, TONGUE_DEPTH)
    depth = np.clip((body.template[teeth, 2].max() - body.template[teeth, 2]) / TEETH_DEPTH, 0, 1)
    light[teeth] = (TEETH_LIGHT + (1 - TEETH_LIGHT) * open_[teeth]) * (1 - (1 - TEETH_DARK) * depth)
    baked = {
        name: replace(attachment, surface=replace(attachment.surface, occlusion=attached[name]))
        for name, attachment in attachments.items()
    }
    return light, baked


def light_from_front(depth: Array, light: Array, least: float, reach: float) -> Array:
    """Occlusion (N,) of vertices in the mouth from their depth (N,) in metres, forwards, and their baked values (N,).

    Baked at rest, the tongue's tip would stay black when it comes forward between the teeth. Without the light that
    lips, teeth and cheeks scatter, the far cheek would be a black hole in any view that is not from the front.

    Args:
        least: value of the foremost vertex, at least.
        reach: metres behind it at which the least value is 0.
    """
    behind = np.clip((depth.max() - depth) / reach, 0, 1)
    return np.maximum(light, least * (1 - behind))


def light_lining(lining: Array, light: Array) -> Array:
    """Occlusion (N,) of the mouth's lining (N, 3), metres, from its baked values (N,).

    The cheeks get more light than the throat: as baked, a smile has black corners.
    """
    light = light_from_front(lining[:, 2], light, LINING_LIGHT, LINING_DEPTH)
    cheek = np.clip((np.abs(lining[:, 0]) - CHEEK_FROM) / (CHEEK_TO - CHEEK_FROM), 0, 1)
    return np.maximum(light, cheek * light_from_front(lining[:, 2], np.zeros(len(lining)), CHEEK_LIGHT, CHEEK_DEPTH))


def _compute_occlusion(
    vertices: Array, attachments: dict[str, Attachment], topology: Topology
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Occlusion of the face and of each attachment in one pose. Brows, lashes and the cornea do not occlude."""
    meshes: dict[str, tuple[Array, Ids]] = {"face": (vertices, topology.faces)}
    for name, attachment in attachments.items():
        positions = attachment.place(vertices.astype(np.float32)).astype(np.float64)
        meshes[name] = (positions, attachment.surface.triangles)
    solid = [triangles for name, (triangles, _, _) in topology.surfaces.items() if name != "cornea"]
    blockers, triangles = [vertices], [np.concatenate(solid)]
    for name in ("hair", "cloth"):
        triangles.append(meshes[name][1] + sum(map(len, blockers)))
        blockers.append(meshes[name][0])
    all_blockers, all_triangles = np.concatenate(blockers), np.concatenate(triangles).astype(np.int32)
    light = {
        name: smooth_values(
            ambient_occlusion(points, vertex_normals(points, faces).astype(np.float64), all_blockers, all_triangles),
            faces,
        )
        for name, (points, faces) in meshes.items()
    }
    light["hair"] = average_nearby(light["hair"], meshes["hair"][0], STRIPS_BLUR)
    return light.pop("face"), light


def _find_visible_teeth(body: Body, topology: Topology) -> NDArray[np.bool_]:
    """Whether each quad of the teeth is visible in any of the poses and views."""
    names = list(topology.surfaces)
    lengths = [len(topology.surfaces[name][0]) for name in names]
    start = sum(lengths[: names.index("teeth")])
    views = [view_direction(yaw, pitch) for yaw in _YAWS for pitch in _PITCHES]
    visible = np.zeros(sum(lengths), bool)
    for mouth in _OPEN_MOUTHS:
        pose = body.template + sum(weight * body.blendshapes[ARKIT_NAMES.index(name)] for name, weight in mouth.items())
        visible |= visible_triangles(pose, topology.faces, views, _VIEW_SIZE)
    teeth = visible[start : start + len(topology.surfaces["teeth"][0])]
    return teeth[0::2] | teeth[1::2]
