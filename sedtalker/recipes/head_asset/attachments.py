"""Brows, lashes, hair and shirt of an identity, and the materials of all surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sedtalker.face.rig import Attachment, Material, Surface
from sedtalker.recipes.head_asset.anatomy import CUT_HEIGHT, Ids, connected_parts
from sedtalker.recipes.head_asset.assemble import CLOTH, Body, Topology, keep_quads, triangulate
from sedtalker.recipes.head_asset.bind import bind_points
from sedtalker.recipes.head_asset.identities import Identity
from sedtalker.recipes.head_asset.skin import BUMP_HEIGHT, srgb_to_linear
from sedtalker.recipes.head_asset.sources import Array, Proxy, Sources
from sedtalker.recipes.head_asset.textures import LASH_FOLDERS

SCALP_NEAR, SCALP_FAR = 0.004, 0.016  # metres to the hair: full colour, none
SCALP_SHARE = 0.85
SCALP_SHADE = 0.8  # the skin between hairs is darker than the hair
SCALP_ABOVE_EYES, SCALP_BEHIND_EYES = 0.012, 0.085  # metres; scalp is only above or behind these

LASH_SHARE, LONGEST_LASH = 0.65, 0.0055  # of the modelled length, and metres; the outer ones reach the brows
LASH_EYE = 0.03  # metres from an eye's middle: the skin's edges within it are the rims of the lids

SMOOTH = frozenset(("skin", "eyes", "cornea", "hair", "cloth"))


def make_materials(identity: Identity) -> dict[str, Material]:
    """Materials of the face's surfaces and of the attachments."""
    own = identity.name
    return {
        "skin": Material(
            kind="skin", texture=f"{own}_skin", bump=f"{own}_skin_bump", bump_height=BUMP_HEIGHT,
            wrap=(0.42, 0.26, 0.18), specular=1.37, gloss=24, sheen=0.12,
        ),
        "mouth": Material(
            kind="mouth", texture="mouth", tint=(0.65, 0.44, 0.43), wrap=(0.2, 0.1, 0.1), specular=0.5, gloss=40,
            ambient=0.9,
        ),
        "eyes": Material(
            kind="eye", texture=f"{own}_eyes", tint=(1.15, 1.14, 1.15), wrap=(0.25, 0.2, 0.2), specular=0.5, gloss=90,
            ambient=0.9,
        ),
        "cornea": Material(kind="cornea", mode="add", tint=(0.0, 0.0, 0.0), specular=6.0, gloss=900),
        "teeth": Material(
            kind="teeth", texture="teeth", tint=(1.42, 1.15, 0.93), wrap=(0.5, 0.45, 0.4), specular=0.6,
            gloss=60, ambient=1.7,
        ),
        "tongue": Material(
            kind="tongue", texture="tongue", tint=(0.92, 0.68, 0.66), wrap=(0.3, 0.15, 0.15), specular=0.8, gloss=40,
            ambient=1.15,
        ),
        "brows": Material(kind="card", mode="blend", texture=f"{own}_brows", wrap=(0.6, 0.6, 0.6), gloss=10),
        "lashes": Material(kind="card", mode="blend", texture=f"{own}_lashes", wrap=(0.6, 0.6, 0.6), gloss=10),
        "hair": Material(
            kind="hair", mode="hair", texture=f"{own}_hair", wrap=(0.35, 0.35, 0.35), specular=identity.hair_specular,
            gloss=40,
        ),
        "cloth": Material(kind="cloth", tint=identity.cloth_color, wrap=(0.1, 0.1, 0.1), gloss=10, sheen=0.15),
    }  # fmt: skip


def bind_attachments(
    identity: Identity, body: Body, base: Array, topology: Topology, sources: Sources
) -> dict[str, Attachment]:
    """The attachments of an identity, bound to the face, with occlusion 1."""
    cloth = sources.proxy("clothes", CLOTH)
    above = cloth.transfer(base)[cloth.quads, 1].min(1) > CUT_HEIGHT
    hair = sources.proxy("hair", identity.hair)
    proxies = {
        "brows": sources.proxy("eyebrows", identity.brows),
        "lashes": sources.proxy("eyelashes", LASH_FOLDERS.get(identity.lashes, identity.lashes)),
        "hair": keep_quads(hair, largest_parts(hair, identity.hair_parts)),
        "cloth": keep_quads(cloth, above),
    }
    materials = make_materials(identity)
    bound = {
        name: _bind_proxy(name, keep_quads(proxy, np.ones(len(proxy.quads), bool)), materials[name], body, topology)
        for name, proxy in proxies.items()
    }
    eyes = [body.template[topology.parts[name]].mean(0) for name in ("eye_left", "eye_right")]
    bound["lashes"] = shorten_lashes(bound["lashes"], body.template, eyes, topology.surfaces["skin"][0])
    return bound


def largest_parts(proxy: Proxy, count: int) -> NDArray[np.bool_]:
    """A mask (F,) of the quads of a proxy's `count` largest connected parts; of all if `count` is 0."""
    part = connected_parts(proxy.quads, len(proxy.refs))
    sizes = np.bincount(part)
    mask: NDArray[np.bool_] = np.isin(part, np.argsort(-sizes, kind="stable")[: count or len(sizes)])
    return mask


def shorten_lashes(lashes: Attachment, template: Array, eyes: Sequence[Array], skin: Ids) -> Attachment:
    """Lashes whose points are moved towards the rims of the lids.

    Args:
        lashes: on this template.
        template: (V, 3) metres.
        eyes: (3,) the middle of each eye.
        skin: (F, 3) triangles of the skin.
    """
    sides = np.sort(skin[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    rim = np.unique(edges[count == 1])
    near = np.min([np.linalg.norm(template[rim] - eye, axis=1) for eye in eyes], axis=0) < LASH_EYE
    points = lashes.place(template.astype(np.float32))
    length, nearest = cKDTree(template[rim[near]]).query(points)
    kept = np.minimum(LASH_SHARE, LONGEST_LASH / np.maximum(length, 1e-6))[:, None]
    moved = (1 - kept) * (template[rim[near]][nearest] - points)
    return replace(lashes, offsets=(lashes.offsets + moved).astype(np.float32))


def scalp_share(template: Array, hair: Attachment, picture: NDArray[np.uint8], eyes: Array, skin: Ids) -> Array:
    """The share (V,) of the hair's colour in the skin's: full under the hair, fading in front of the hairline.

    Args:
        template: (V, 3) metres.
        hair: the hair on this template.
        picture: its texture (H, W, 4).
        eyes: (3,) the middle between the eyes.
        skin: (F, 3) triangles of the skin.
    """
    surface = hair.surface
    u, v = surface.uv[surface.uv_triangles].mean(1).T
    height, width = picture.shape[:2]
    row = np.clip(((1 - v) * height).astype(int), 0, height - 1)
    solid = picture[row, np.clip((u * width).astype(int), 0, width - 1), 3] > 127
    middles = hair.place(template.astype(np.float32))[surface.triangles[solid]].mean(1)
    distance = cKDTree(middles).query(template)[0]
    share = np.clip(1 - (distance - SCALP_NEAR) / (SCALP_FAR - SCALP_NEAR), 0, 1)
    share = share * share * (3 - 2 * share)
    above = template[:, 1] > eyes[1] + SCALP_ABOVE_EYES
    behind = template[:, 2] < eyes[2] - SCALP_BEHIND_EYES
    share = np.where(above | behind, share, 0) * np.isin(np.arange(len(template)), skin)
    return SCALP_SHARE * share


def _bind_proxy(name: str, proxy: Proxy, material: Material, body: Body, topology: Topology) -> Attachment:
    points = proxy.transfer(body.rest) + proxy.offsets * proxy.scale(body.shaped)
    refs = np.where(proxy.weights == 0, proxy.refs[:, :1], proxy.refs)  # the reference of a weight of 0 is arbitrary
    indices = topology.base_to_face[refs]
    weights = proxy.weights.copy()
    missing = (indices < 0).any(axis=1)
    if missing.any():
        skin = topology.surfaces["skin"][0]
        motion = proxy.transfer(body.base_blendshapes)[:, missing]
        indices[missing], weights[missing], _ = bind_points(
            points[missing], motion, body.template, body.blendshapes, skin
        )
    offsets = points - np.einsum("nk,nkc->nc", weights, body.template[indices])
    surface = Surface(
        name,
        triangulate(proxy.quads).astype(np.int32),
        proxy.uv.astype(np.float32),
        triangulate(proxy.uv_quads).astype(np.int32),
        material,
        np.ones(len(points), np.float32),
        smooth=name in SMOOTH,
    )
    return Attachment(surface, indices.astype(np.int32), weights.astype(np.float32), offsets.astype(np.float32))


def scalp_color(picture: NDArray[np.uint8]) -> tuple[float, float, float]:
    """The colour (linear RGB) of the skin between hairs, from the hair's texture (H, W, 4)."""
    solid = picture[..., 3] > 127
    red, green, blue = np.median(srgb_to_linear(picture[solid][:, :3] / 255.0), axis=0) * SCALP_SHADE
    return float(red), float(green), float(blue)
