"""Pictures of eyes, teeth, tongue, hair, brows and lashes, made from MakeHuman's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from sedtalker.recipes.head_asset.people import Color, Person
from sedtalker.recipes.head_asset.skin import Picture, linear_to_srgb, srgb_to_linear, to_bytes
from sedtalker.recipes.head_asset.sources import Sources

# The two irises in the eye map: centres and radius as shares of the picture, from its upper left corner.
_IRISES = ((0.29, 0.708), (0.705, 0.294))
_IRIS_RADIUS = 0.118

_TEETH_TINT = (2.0, 1.82, 1.55)  # the map is grey
_LASH_TINT = (0.6, 0.5, 0.45)

_STRAND = (60, 0.5)  # pixels of a strand, along and across
_STRAND_SEED = 0

HAIR_FILES = {"afro01": "afro_diffuse"}  # the others are named after their folder
LASH_FOLDERS = {"eyelashes01": "Eyelashes01"}


def paint_eyes(person: Person, sources: Sources) -> NDArray[np.uint8]:
    """The eyeball's map (H, W, 4): irises calmed and tinted, with the dark ring where they meet the white."""
    color = _linear(sources.texture("eyes", "HighPolyEyes", f"{person.eyes}_eye"))[..., :3]
    size = color.shape[0]
    y, x = np.mgrid[0:size, 0:size] / size
    for across, down in _IRISES:
        radius = np.hypot(x - across, y - down)[..., None] / _IRIS_RADIUS
        inside = np.clip((1.06 - radius) / 0.10, 0, 1)
        grey = color.mean(2, keepdims=True)
        calm = (grey + (color - grey) * 0.72) * person.iris_tint * 0.75
        ring = 1 - 0.45 * np.exp(-(((radius - 0.97) / 0.09) ** 2))
        color = (color * (1 - inside) + calm * inside) * ring
    return _opaque(color)


def paint_teeth(sources: Sources) -> NDArray[np.uint8]:
    return _opaque(_linear(sources.texture("teeth", "Teeth_Base", "teeth"))[..., :3] * _TEETH_TINT)


def paint_tongue(sources: Sources) -> NDArray[np.uint8]:
    return _opaque(_linear(sources.texture("tongue", "tongue01", "tongue01_diffuse"))[..., :3])


def paint_hair(person: Person, sources: Sources) -> NDArray[np.uint8]:
    """Hair of one colour (H, W, 4): strands are the map's light over its local mean, so roots and seams vanish."""
    source = _linear(sources.texture("hair", person.hair, HAIR_FILES.get(person.hair, f"{person.hair}_diffuse")))
    light, alpha = source[..., :3].mean(2), source[..., 3]
    solid = (alpha > 0.3).astype(np.float32)
    local = gaussian_filter(light * solid, 14) / (gaussian_filter(solid, 14) + 1e-3) + 1e-3
    strands = np.clip(light / local, 0.25, 2.2) ** 0.8 * np.exp(person.hair_strands * _streaks(light.shape))
    return _with_alpha(strands[..., None] * np.array(person.hair_color), alpha)


def _streaks(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Noise (H, W) of unit variance that is long in height and thin in width: the reduced map lost its strands."""
    noise = gaussian_filter(np.random.default_rng(_STRAND_SEED).normal(size=shape), _STRAND, mode="wrap")
    return noise / noise.std()


def paint_brows(person: Person, sources: Sources) -> NDArray[np.uint8]:
    return _tinted(sources.texture("eyebrows", person.brows, person.brows), person.brow_tint)


def paint_lashes(person: Person, sources: Sources) -> NDArray[np.uint8]:
    folder = LASH_FOLDERS.get(person.lashes, person.lashes)
    return _tinted(sources.texture("eyelashes", folder, person.lashes), _LASH_TINT, person.lash_strength)


def _tinted(picture: Image.Image, tint: Color, strength: float = 1.0) -> NDArray[np.uint8]:
    linear = _linear(picture)
    return _with_alpha(linear[..., :3] * tint, linear[..., 3] * strength)


def _linear(picture: Image.Image) -> Picture:
    """Linear RGB and alpha (H, W, 4), the colour carried on into what is transparent so that filtering finds no rim."""
    values = np.asarray(picture.convert("RGBA"), np.float32) / 255
    color, alpha = values[..., :3], values[..., 3]
    solid = alpha > 0.05
    if solid.any() and not solid.all():
        nearest = distance_transform_edt(~solid, return_distances=False, return_indices=True)
        color = color[nearest[0], nearest[1]]
    return np.concatenate([srgb_to_linear(color), alpha[..., None]], axis=2)


def _with_alpha(color: Picture, alpha: Picture) -> NDArray[np.uint8]:
    return to_bytes(np.concatenate([linear_to_srgb(color), alpha[..., None]], axis=2))


def _opaque(color: Picture) -> NDArray[np.uint8]:
    return _with_alpha(color, np.ones(color.shape[:2], np.float32))
