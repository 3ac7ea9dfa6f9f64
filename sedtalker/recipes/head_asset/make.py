"""Make every identity of the head from the two packages: shape, motion, clothes, textures, baked light."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.mesh import vertex_normals
from sedtalker.face.rig import Attachment, Face, Surface
from sedtalker.face.vertex_masks import rig_regions
from sedtalker.recipes.head_asset import textures
from sedtalker.recipes.head_asset.anatomy import Anatomy, Ids, study
from sedtalker.recipes.head_asset.assemble import Body, Skeleton, find_landmarks, lay_out, pair_lips, thin_teeth
from sedtalker.recipes.head_asset.dress import SMOOTH, materials, scalp, scalp_color, wear
from sedtalker.recipes.head_asset.motion import settle, symmetric
from sedtalker.recipes.head_asset.occlusion import bake, blurred, look_from, seen_triangles, smooth
from sedtalker.recipes.head_asset.people import PEOPLE, Person, shape_person
from sedtalker.recipes.head_asset.skin import paint_mouth, paint_skin
from sedtalker.recipes.head_asset.sources import Array, Mesh, Sources

logger = logging.getLogger(__name__)

OPEN_JAW = 0.55  # at which the inner mouth's light is baked: shut, it would be black
OPEN_SHARE = 0.7  # how much of the light of the open mouth the skin around it keeps
STRIPS_BLUR = 0.012  # metres over which the light on hair is evened out: its strips would show where they meet
TEETH_LIGHT = 0.6  # the least light on the front teeth, which shine through
TEETH_DARK, TEETH_DEPTH = 0.2, 0.022  # that share of it is left so many metres behind them, or molars shine like fangs

# Mouths that show as much of the teeth as any expression does, and the views to look from, in degrees.
_BARING_MOUTHS: Sequence[dict[str, float]] = (
    {"jawOpen": 0.3, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
    {"jawOpen": 0.9, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
    {"jawOpen": 0.3, "mouthSmileLeft": 1, "mouthSmileRight": 1, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1},
    {"jawOpen": 0.5, "mouthStretchLeft": 1, "mouthStretchRight": 1, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
)
_YAWS, _PITCHES = range(-60, 61, 15), (-30, -15, 0, 15, 30)
_SEEN_SIZE = 1400  # pixels


def make_faces(sources: Sources, people: Sequence[Person] = PEOPLE) -> Iterator[Face]:
    """Each identity as a Face; all share their topology."""
    base = sources.base()
    count = len(base.vertices)
    raw = {name: sources.action(name, count) for name in ARKIT_NAMES}
    anatomy = study(base, {side: raw[f"eyeBlink{side}"] for side in ("Left", "Right")})
    actions = symmetric(raw, anatomy.mirror)
    skeleton = lay_out(base, anatomy, sources)
    first = _embody(people[0], base, actions, anatomy, skeleton, sources)
    skeleton = thin_teeth(skeleton, _seen_teeth(first, skeleton), anatomy)
    shared = {
        "mouth": paint_mouth(people[0], sources),
        "teeth": textures.paint_teeth(sources),
        "tongue": textures.paint_tongue(sources),
    }
    common: Face | None = None
    for person in people:
        logger.info("%s: %d vertices", person.name, skeleton.count)
        body = _embody(person, base, actions, anatomy, skeleton, sources)
        common = common or _common(body, skeleton, anatomy)
        yield _dressed(person, body, base, common, skeleton, sources, shared)


def _embody(
    person: Person, base: Mesh, actions: dict[str, Array], anatomy: Anatomy, skeleton: Skeleton, sources: Sources
) -> Body:
    shaped = shape_person(person, base.vertices, sources)
    rest, settled = settle(shaped, actions, anatomy)
    return Body(shaped, rest, settled, skeleton.place(shaped, rest), skeleton.moved(settled))


def _common(body: Body, skeleton: Skeleton, anatomy: Anatomy) -> Face:
    """What all identities share, named on the first."""
    return Face(
        "common",
        body.template.astype(np.float32),
        skeleton.faces,
        parts=skeleton.parts,
        masks=rig_regions(body.template, body.actions, skeleton.parts),
        landmarks=find_landmarks(body.template, body.actions, skeleton, anatomy),
        lip_pairs=pair_lips(body.template, skeleton, anatomy),
        blendshape_names=ARKIT_NAMES,
    )


def _dressed(
    person: Person,
    body: Body,
    base: Mesh,
    common: Face,
    skeleton: Skeleton,
    sources: Sources,
    shared: dict[str, NDArray[np.uint8]],
) -> Face:
    attachments = wear(person, body, base.vertices, skeleton, sources)
    skin, bump = paint_skin(person, sources)
    hair = textures.paint_hair(person, sources)
    pictures = {
        f"{person.name}_skin": skin,
        f"{person.name}_skin_bump": bump,
        f"{person.name}_eyes": textures.paint_eyes(person, sources),
        f"{person.name}_hair": hair,
        f"{person.name}_brows": textures.paint_brows(person, sources),
        f"{person.name}_lashes": textures.paint_lashes(person, sources),
        **shared,
    }
    light, attachments = _bake(body, attachments, skeleton)
    eyes = body.template[np.concatenate([skeleton.parts["eye_left"], skeleton.parts["eye_right"]])].mean(0)
    skin_triangles = skeleton.surfaces["skin"][0]
    share = scalp(body.template, attachments["hair"], hair, eyes, skin_triangles).astype(np.float32)
    share = smooth(share, skin_triangles)
    looks = materials(person)
    surfaces = tuple(
        Surface(
            name,
            triangles,
            uv.astype(np.float32),
            uv_triangles,
            looks[name],
            light,
            smooth=name in SMOOTH,
            scalp=share if name == "skin" else None,
            scalp_color=scalp_color(hair) if name == "skin" else (0.0, 0.0, 0.0),
        )
        for name, (triangles, uv, uv_triangles) in skeleton.surfaces.items()
    )
    return replace(
        common,
        name=person.name,
        template=body.template.astype(np.float32),
        surfaces=surfaces,
        attachments=attachments,
        blendshapes=body.actions.astype(np.float32),
        textures=pictures,
        colors=_vertex_colors(skeleton.count, surfaces, pictures),
    )


def _vertex_colors(
    count: int, surfaces: Sequence[Surface], pictures: dict[str, NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """The texture's colour (V, 3), sRGB, at each vertex."""
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


def _bake(
    body: Body, attachments: dict[str, Attachment], skeleton: Skeleton
) -> tuple[NDArray[np.float32], dict[str, Attachment]]:
    """Occlusion of the face (V,) and of what it wears."""
    shut, worn = _light(body.template, attachments, skeleton)
    opened, _ = _light(body.template + OPEN_JAW * body.actions[ARKIT_NAMES.index("jawOpen")], attachments, skeleton)
    light = np.maximum(shut, OPEN_SHARE * opened)
    inner = np.concatenate([skeleton.parts[name] for name in ("mouth", "tongue")])
    teeth = np.concatenate([skeleton.parts[name] for name in ("teeth_upper", "teeth_lower")])
    light[inner] = opened[inner]
    depth = np.clip((body.template[teeth, 2].max() - body.template[teeth, 2]) / TEETH_DEPTH, 0, 1)
    light[teeth] = (TEETH_LIGHT + (1 - TEETH_LIGHT) * opened[teeth]) * (1 - (1 - TEETH_DARK) * depth)
    lit = {
        name: replace(attachment, surface=replace(attachment.surface, occlusion=worn[name]))
        for name, attachment in attachments.items()
    }
    return light, lit


def _light(
    vertices: Array, attachments: dict[str, Attachment], skeleton: Skeleton
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Occlusion of one pose, of the face and of each attachment. Brows, lashes and the clear cornea cast none."""
    meshes: dict[str, tuple[Array, Ids]] = {"face": (vertices, skeleton.faces)}
    for name, attachment in attachments.items():
        placed = attachment.place(vertices.astype(np.float32)).astype(np.float64)
        meshes[name] = (placed, attachment.surface.triangles)
    solid = [triangles for name, (triangles, _, _) in skeleton.surfaces.items() if name != "cornea"]
    blockers, triangles = [vertices], [np.concatenate(solid)]
    for name in ("hair", "cloth"):
        triangles.append(meshes[name][1] + sum(map(len, blockers)))
        blockers.append(meshes[name][0])
    all_blockers, all_triangles = np.concatenate(blockers), np.concatenate(triangles).astype(np.int32)
    light = {
        name: smooth(bake(points, vertex_normals(points, faces).astype(np.float64), all_blockers, all_triangles), faces)
        for name, (points, faces) in meshes.items()
    }
    light["hair"] = blurred(light["hair"], meshes["hair"][0], STRIPS_BLUR)
    return light.pop("face"), light


def _seen_teeth(body: Body, skeleton: Skeleton) -> NDArray[np.bool_]:
    """Which quads of the teeth any baring mouth shows from any view."""
    names = list(skeleton.surfaces)
    lengths = [len(skeleton.surfaces[name][0]) for name in names]
    start = sum(lengths[: names.index("teeth")])
    views = [look_from(yaw, pitch) for yaw in _YAWS for pitch in _PITCHES]
    seen = np.zeros(sum(lengths), bool)
    for mouth in _BARING_MOUTHS:
        pose = body.template + sum(weight * body.actions[ARKIT_NAMES.index(name)] for name, weight in mouth.items())
        seen |= seen_triangles(pose, skeleton.faces, views, _SEEN_SIZE)
    teeth = seen[start : start + len(skeleton.surfaces["teeth"][0])]
    return teeth[0::2] | teeth[1::2]
