"""Texture and bump map of the skin: an enlarged window of MakeHuman's texture with repainted lips and added detail.

MakeHuman's textures have 512 pixels for a whole body, about 110 for the face. They provide the colour; finer detail is
noise that resembles skin. Head and neck share one atlas, so that no seam is visible between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from sedtalker.face.asset_io import quantize
from sedtalker.recipes.head_asset.identities import Identity
from sedtalker.recipes.head_asset.sources import Array, Sources

Picture = NDArray[np.float32]  # (H, W, C), linear light

# Windows in MakeHuman's texture space (u from, u to, v from, v to; v up), and sizes in the atlas in pixels.
_HEAD = (0.636, 0.999, 0.144, 0.823)
_NECK = (0.235, 0.530, 0.805, 0.975)
_MOUTH = (0.75, 1.0, 0.0, 0.14)
WIDTH, HEAD_HEIGHT, NECK_HEIGHT, NECK_WIDTH = 1024, 1792, 256, 448
HEIGHT = HEAD_HEIGHT + NECK_HEIGHT
_NECK_DETAIL = 0.55  # ratio of the neck's pixels to the head's, for the size of details

_EYES = ((0.385, 0.556), (0.479, 0.556))  # row and column in the atlas of the eyes that the source paints
_EYE_RADII, _EYE_EDGE, _EYE_BLUR = (46.0, 27.0), 5.0, 14.0  # pixels
_EYE_SHARE = 0.75  # of the painted eye that is removed: its outline is red, and the lids are geometry

GLOSS_SKIN, GLOSS_LIPS = 0.41, 1.0  # the alpha channel
BUMP_HEIGHT = 0.0003  # metres from black to white of the bump map


def srgb_to_linear(values: NDArray[np.floating]) -> Picture:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(values: NDArray[np.floating]) -> Picture:
    """sRGB values in [0, 1] of linear light (IEC 61966-2-1), clipped."""
    clipped = np.clip(values, 0, 1)
    return np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055).astype(np.float32)


def atlas_uv(uv: Array) -> Array:
    """Convert MakeHuman's texture coordinates to the skin's atlas, with the head above the neck."""
    share = NECK_HEIGHT / HEIGHT
    head = _to_window(uv, _HEAD) * (1.0, 1.0 - share) + (0.0, share)
    neck = _to_window(uv, _NECK) * (NECK_WIDTH / WIDTH, share)
    return np.where(uv[:, :1] > _HEAD[0], head, neck)


def mouth_uv(uv: Array) -> Array:
    """Convert MakeHuman's texture coordinates to the inner mouth's texture."""
    return _to_window(uv, _MOUTH)


def paint_skin(identity: Identity, sources: Sources) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The skin's atlas (H, W, 4), sRGB and gloss, and its bump map (H, W, 1)."""
    rng = np.random.default_rng(0)
    source = sources.skin(identity.skin)
    lips = _crop(sources.mask("lips"), _HEAD, WIDTH, HEAD_HEIGHT)
    painted = _crop(source, _HEAD, WIDTH, HEAD_HEIGHT)
    head = erase_painted_eyes(_repaint_lips(srgb_to_linear(painted), lips, identity))
    soft_lips = gaussian_filter(lips, 2.0)
    head, head_bump = _add_detail(head, painted, soft_lips, identity, 1.0, rng)

    painted_neck = _crop(source, _NECK, NECK_WIDTH, NECK_HEIGHT)
    no_lips = np.zeros(painted_neck.shape[:2], np.float32)
    neck, neck_bump = _add_detail(srgb_to_linear(painted_neck), painted_neck, no_lips, identity, _NECK_DETAIL, rng)

    gloss = GLOSS_SKIN + (GLOSS_LIPS - GLOSS_SKIN) * soft_lips
    color = _join_atlas(linear_to_srgb(head * identity.skin_tint), linear_to_srgb(neck * identity.skin_tint))
    alpha = _join_atlas(gloss[..., None], np.full((NECK_HEIGHT, NECK_WIDTH, 1), GLOSS_SKIN, np.float32))
    bump = _join_atlas(head_bump[..., None], neck_bump[..., None])
    return quantize(np.concatenate([color, alpha], axis=2)), quantize(bump / BUMP_HEIGHT + 0.5)


def paint_mouth(identity: Identity, sources: Sources) -> NDArray[np.uint8]:
    """The inner mouth's texture (H, W, 4)."""
    picture = _crop(sources.skin(identity.skin), _MOUTH, 256, 144)
    return quantize(np.concatenate([picture, np.ones_like(picture[..., :1])], axis=2))


def _to_window(uv: Array, window: tuple[float, float, float, float]) -> Array:
    u0, u1, v0, v1 = window
    scaled: Array = (uv - (u0, v0)) / (u1 - u0, v1 - v0)
    return scaled


def _crop(picture: Image.Image, window: tuple[float, float, float, float], width: int, height: int) -> Picture:
    """A window of a texture, enlarged, with values in [0, 1]."""
    u0, u1, v0, v1 = window
    across, down = picture.size
    box = (u0 * across, (1 - v1) * down, u1 * across, (1 - v0) * down)
    enlarged = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(enlarged, np.float32) / np.float32(255)


def _repaint_lips(skin: Picture, lips: Picture, identity: Identity) -> Picture:
    """Replace the blurred lips of the texture by lips of their median colour, with a sharp mask."""
    outside = 1 - np.clip(gaussian_filter(lips, 6) * 4, 0, 1)
    weight = gaussian_filter(outside, 22) + 1e-4
    surroundings = np.stack([gaussian_filter(skin[..., k] * outside, 22) / weight for k in range(3)], axis=2)
    erase = np.clip(gaussian_filter(lips, 9) * 3, 0, 1)[..., None]
    bare = skin * (1 - erase) + surroundings * erase
    local = np.maximum(gaussian_filter(skin.mean(2), 14), 1e-3)[..., None]
    shade = (skin / local).mean(2, keepdims=True) ** 0.5
    color = np.median(skin[lips > 0.9], axis=0) * identity.lip_tint * shade
    mask = gaussian_filter(lips, 2.0)[..., None]
    repainted = bare * (1 - mask) + color * mask
    return (skin * (1 - identity.lip_strength) + repainted * identity.lip_strength).astype(np.float32)


def erase_painted_eyes(skin: Picture) -> Picture:
    """The atlas (H, W, 3) or its head, with the colour of the surrounding skin in place of the painted eyes."""
    y, x = np.mgrid[0 : skin.shape[0], 0 : skin.shape[1]].astype(np.float32)
    inside = np.zeros(skin.shape[:2], np.float32)
    for row, column in _EYES:
        distance = np.hypot((y - row * HEIGHT) / _EYE_RADII[0], (x - column * WIDTH) / _EYE_RADII[1])
        inside = np.maximum(inside, np.clip((1 - distance) * _EYE_RADII[1] / _EYE_EDGE, 0, 1))
    outside = 1 - inside
    weight = gaussian_filter(outside, _EYE_BLUR) + 1e-4
    around = np.stack([gaussian_filter(skin[..., k] * outside, _EYE_BLUR) / weight for k in range(3)], axis=2)
    share = _EYE_SHARE * gaussian_filter(inside, _EYE_EDGE)[..., None]
    return (skin * (1 - share) + around * share).astype(np.float32)


def _add_detail(
    skin: Picture, painted: Picture, lips: Picture, identity: Identity, scale: float, rng: np.random.Generator
) -> tuple[Picture, Picture]:
    """Colour with blotches and pores, and heights (H, W) in metres; `scale` is that of the pixels to the head's."""
    band = _noise(skin.shape[:2], scale, rng)
    blotches = 0.011 * band(6, 30)[..., None] * (0.6, 1.1, 1.1) + 0.007 * band(3, 9)[..., None] * (0.5, 1.0, 1.0)
    pores = 0.011 * np.minimum(band(0.9, 2.2), 0.6)[..., None]
    detailed = np.clip(skin * (1 + blotches) * (1 + pores), 0, 1).astype(np.float32)

    folds = 0.0006 * (1 + 2 * identity.wrinkles) * _band_pass(painted.mean(2), 2.0 * scale, 9.0 * scale)
    grain = 18e-6 * np.minimum(band(1.2, 3.0), 1) + 13e-6 * band(2.5, 6)
    lip_grain = 50e-6 * band((1.6, 9), (5, 12))
    bump = (1 - lips) * (grain + folds) + lips * lip_grain
    return detailed, bump.astype(np.float32)


def _noise(
    shape: tuple[int, ...], scale: float, rng: np.random.Generator
) -> Callable[[float | tuple[float, float], float | tuple[float, float]], Picture]:
    """A function that generates band-pass noise of unit deviation between two scales in pixels of the head."""

    def band(fine: float | tuple[float, float], coarse: float | tuple[float, float]) -> Picture:
        white = rng.standard_normal(shape[:2]).astype(np.float32)
        filtered = _band_pass(white, np.multiply(fine, scale), np.multiply(coarse, scale))
        return filtered / filtered.std()

    return band


def _band_pass(values: Picture, fine: float | Array, coarse: float | Array) -> Picture:
    difference: Picture = gaussian_filter(values, fine) - gaussian_filter(values, coarse)
    return difference


def _join_atlas(head: Picture, neck: Picture) -> Picture:
    """The atlas: the head above the neck, whose last column is repeated to the full width."""
    padding = np.repeat(neck[:, -1:], WIDTH - NECK_WIDTH, axis=1)
    return np.concatenate([head, np.concatenate([neck, padding], axis=1)], axis=0)
