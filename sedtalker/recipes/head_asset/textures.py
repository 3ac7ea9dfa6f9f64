"""Textures of eyes, teeth, tongue, hair, brows and lashes, from MakeHuman's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, label, map_coordinates, zoom

from sedtalker.face.asset_io import quantize
from sedtalker.recipes.head_asset.identities import Color, Identity
from sedtalker.recipes.head_asset.skin import Picture, linear_to_srgb, srgb_to_linear
from sedtalker.recipes.head_asset.sources import Sources

# The two irises in the eye texture: centres and radius relative to its size, from the upper left corner.
_IRISES = ((0.29, 0.708), (0.705, 0.294))
_IRIS_RADIUS = 0.118

_TEETH_TINT = (2.0, 1.82, 1.55)  # the texture is grey
_GUM_RATIO = 1.5  # red over green from which a texel of the teeth is gum
_GUM_COLOR, _GUM_SHARE = (0.42, 0.17, 0.16), 0.75  # linear RGB of healthy gums, and its share; the source is blood red
_LASH_TINT = (0.6, 0.5, 0.45)
_THIN_BROW = 0.45  # of a brow's greatest height: below it the brow fades, or its tail draws a line across the temple

# Strands of hair drawn into an enlarged texture: standard deviations along and across in its texels, and share.
_HAIR_SCALE = 3
_STRANDS = ((110, 0.6, 0.5), (170, 1.9, 0.4), (240, 5.0, 0.2))
_SWAY = ((190, 30), 3.0)  # by how many texels strands sway sideways: standard deviations along and across, amplitude
# Locks of warmer and cooler hair: standard deviations along and across, share of red and blue.
_LOCK = ((380, 10), 0.04)
_STRAND_SEED = 0
_KNOT_RADIUS = 0.2  # of the height: at this distance from a knot strands are as wide as elsewhere
_MARGIN = 8  # texels beside the used part of a texture

HAIR_FILES = {"afro01": "afro_diffuse"}  # all others have the name of their folder
LASH_FOLDERS = {"eyelashes01": "Eyelashes01"}


def paint_eyes(identity: Identity, sources: Sources) -> NDArray[np.uint8]:
    """The eyeball's texture (H, W, 4), with desaturated and tinted irises and a dark limbal ring."""
    color = _read_linear(sources.texture("eyes", "HighPolyEyes", f"{identity.eyes}_eye"))[..., :3]
    size = color.shape[0]
    y, x = np.mgrid[0:size, 0:size] / size
    for across, down in _IRISES:
        radius = np.hypot(x - across, y - down)[..., None] / _IRIS_RADIUS
        inside = np.clip((1.06 - radius) / 0.10, 0, 1)
        grey = color.mean(2, keepdims=True)
        muted = (grey + (color - grey) * 0.72) * identity.iris_tint * 0.75
        ring = 1 - 0.45 * np.exp(-(((radius - 0.97) / 0.09) ** 2))
        color = (color * (1 - inside) + muted * inside) * ring
    return _encode_opaque(color)


def paint_teeth(sources: Sources) -> NDArray[np.uint8]:
    """The texture of the teeth (H, W, 4)."""
    color = _read_linear(sources.texture("teeth", "Teeth_Base", "teeth"))[..., :3] * _TEETH_TINT
    return _encode_opaque(soften_gums(color))


def soften_gums(color: Picture) -> Picture:
    """Linear RGB (H, W, 3) of teeth whose gums are pink."""
    ratio = color[..., 0] / np.maximum(color[..., 1], 1e-3)
    share = _GUM_SHARE * np.clip((ratio - _GUM_RATIO) / _GUM_RATIO, 0, 1)[..., None]
    light = np.clip(color[..., :1] / 0.35, 0.5, 1.3)
    return (color * (1 - share) + light * np.array(_GUM_COLOR, np.float32) * share).astype(np.float32)


def paint_tongue(sources: Sources) -> NDArray[np.uint8]:
    """The texture of the tongue (H, W, 4)."""
    return _encode_opaque(_read_linear(sources.texture("tongue", "tongue01", "tongue01_diffuse"))[..., :3])


def paint_hair(identity: Identity, sources: Sources) -> NDArray[np.uint8]:
    """Hair of one colour (H, W, 4). Strands are the luminance over its local mean, which removes roots and seams.

    The texture of an identity with `hair_strands` is enlarged, and strands that the small picture lacks are drawn.
    """
    source = _read_linear(
        sources.texture("hair", identity.hair, HAIR_FILES.get(identity.hair, f"{identity.hair}_diffuse"))
    )
    light, alpha = source[..., :3].mean(2), source[..., 3]
    solid = (alpha > 0.3).astype(np.float32)
    local = gaussian_filter(light * solid, 14) / (gaussian_filter(solid, 14) + 1e-3) + 1e-3
    strands = np.clip(light / local, 0.25, 2.2) ** 0.8
    color = np.array(identity.hair_color)
    if identity.hair_strands:
        strands, alpha = (zoom(values, _HAIR_SCALE, order=1) for values in (strands, alpha))
        random = np.random.default_rng(_STRAND_SEED)
        drawn = draw_strands(alpha, identity.hair_knots, random)
        strands = strands**0.6 * np.exp(identity.hair_strands * drawn)
        lock = _LOCK[1] * _noise(strands.shape, _LOCK[0], random)
        color = np.stack([1 + lock, np.ones_like(lock), 1 - lock], 2) * color
    return _encode(strands[..., None] * color, alpha)


def crop_to_used(picture: NDArray[np.uint8], uv: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The columns of a picture (H, W, C) that texture coordinates (U, 2) use, and the coordinates in these."""
    width = picture.shape[1]
    first = max(int(np.floor(uv[:, 0].min() * width)) - _MARGIN, 0)
    last = min(int(np.ceil(uv[:, 0].max() * width)) + _MARGIN, width)
    cropped = (uv * (width, 1) - (first, 0)) / (last - first, 1)
    return np.ascontiguousarray(picture[:, first:last]), cropped.astype(np.float32)


def draw_strands(
    alpha: Picture, knots: Sequence[tuple[float, float]], random: np.random.Generator
) -> NDArray[np.float64]:
    """Strands (H, W) of unit variance: noise of several widths, elongated and swayed sideways.

    Args:
        alpha: (H, W) opacity of the hair.
        knots: for each of the largest connected regions, from left to right, the point relative to the picture at
            which its strands meet; the strands of other regions are vertical.
        random: source of the noise.
    """
    shape = alpha.shape
    strands = np.sum([share * _noise(shape, (along, across), random) for along, across, share in _STRANDS], 0)
    y, x = np.indices(shape).astype(float)
    regions = label(alpha > 0.3)[0]
    largest = np.argsort(-np.bincount(regions.ravel())[1:])[: len(knots)] + 1
    middle = {region: x[regions == region].mean() for region in largest}
    for region, (right, down) in zip(sorted(middle, key=lambda region: middle[region]), knots, strict=True):
        inside = regions == region
        outwards = 1 if middle[region] > right * shape[1] else -1
        dx, dy = outwards * (x[inside] - right * shape[1]), y[inside] - down * shape[0]
        y[inside], x[inside] = np.hypot(dx, dy), _KNOT_RADIUS * shape[0] * np.arctan2(dy, dx)
    swayed = map_coordinates(strands, (y, x + _SWAY[1] * _noise(shape, _SWAY[0], random)), order=1, mode="grid-wrap")
    return swayed / swayed.std()


def _noise(shape: tuple[int, ...], blur: tuple[float, float], random: np.random.Generator) -> NDArray[np.float64]:
    """Noise (H, W) of unit variance, blurred by standard deviations along y and x."""
    noise = gaussian_filter(random.normal(size=shape), blur, mode="wrap")
    return noise / noise.std()


def paint_brows(identity: Identity, sources: Sources) -> NDArray[np.uint8]:
    """The texture of the brows (H, W, 4)."""
    painted = _tint(sources.texture("eyebrows", identity.brows, identity.brows), identity.brow_tint)
    return fade_thin_ends(painted)


def fade_thin_ends(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A brow texture (H, W, 4), with one brow in each half of its height, whose thin tails fade out."""
    faded = picture.copy()
    half = len(picture) // 2
    for rows in (slice(0, half), slice(half, None)):
        alpha = picture[rows, :, 3].astype(np.float32)
        height = gaussian_filter((alpha > 40).sum(0).astype(np.float32), 6)
        share = np.clip(height / max(_THIN_BROW * float(height.max()), 1.0), 0, 1)
        faded[rows, :, 3] = np.rint(alpha * share * share)
    return faded


def paint_lashes(identity: Identity, sources: Sources) -> NDArray[np.uint8]:
    """The texture of the lashes (H, W, 4)."""
    folder = LASH_FOLDERS.get(identity.lashes, identity.lashes)
    return _tint(sources.texture("eyelashes", folder, identity.lashes), _LASH_TINT, identity.lash_strength)


def _tint(picture: Image.Image, tint: Color, strength: float = 1.0) -> NDArray[np.uint8]:
    linear = _read_linear(picture)
    return _encode(linear[..., :3] * tint, linear[..., 3] * strength)


def _read_linear(picture: Image.Image) -> Picture:
    """Linear RGB and alpha (H, W, 4); transparent pixels get the nearest opaque colour."""
    values = np.asarray(picture.convert("RGBA"), np.float32) / 255
    color, alpha = values[..., :3], values[..., 3]
    solid = alpha > 0.05
    if solid.any() and not solid.all():
        nearest = distance_transform_edt(~solid, return_distances=False, return_indices=True)
        color = color[nearest[0], nearest[1]]
    return np.concatenate([srgb_to_linear(color), alpha[..., None]], axis=2)


def _encode(color: Picture, alpha: Picture) -> NDArray[np.uint8]:
    return quantize(np.concatenate([linear_to_srgb(color), alpha[..., None]], axis=2))


def _encode_opaque(color: Picture) -> NDArray[np.uint8]:
    return _encode(color, np.ones(color.shape[:2], np.float32))
