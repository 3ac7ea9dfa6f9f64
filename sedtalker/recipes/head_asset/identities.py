"""The identities with their shape, skin, hair and eyes, and MakeHuman's targets for the shape."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sedtalker.recipes.head_asset.sources import Array, Sources

Color = tuple[float, float, float]  # linear RGB


@dataclass(frozen=True)
class Identity:
    """One identity. Phenotype values are in [0, 1]: gender 0 male, 1 female; age 1/3 child, 2/3 young, 1 old."""

    name: str
    phenotype: Mapping[str, float]
    skin: str  # file under skins/, without .png
    eyes: str  # iris map
    hair: str
    hair_color: Color
    brows: str
    lashes: str
    cloth_color: Color
    hair_specular: float = 0.22
    hair_parts: int = 0  # how many of its largest connected parts are used, without the strips over them; 0 for all
    hair_strands: float = 0.0  # contrast of the strands that are drawn, along the height of the texture ...
    # ... or from these points of its largest regions, from left to right
    hair_knots: tuple[tuple[float, float], ...] = ()
    brow_tint: Color = (1.0, 1.0, 1.0)
    lash_strength: float = 0.8  # factor of the lashes' opacity
    iris_tint: Color = (1.0, 1.0, 1.0)
    skin_tint: Color = (1.0, 1.0, 1.0)
    lip_strength: float = 0.6  # opacity of the painted lips
    lip_tint: Color = (1.0, 1.0, 1.0)
    lids: float = 0.0  # share of a blink by which the lids are lower at rest; wide eyes read as surprise
    corners: float = 0.0  # share of a smile by which the mouth's corners are lower at rest; raised ones read as happy
    wrinkles: float = 0.0  # strength of the wrinkles in the bump map
    shape: Mapping[str, float] = field(default_factory=dict)  # further MakeHuman targets and their weights


IDENTITIES = (
    Identity(
        name="default",
        phenotype={"gender": 0.85, "age": 0.62, "weight": 0.42, "proportions": 0.75, "african": 0.2, "asian": 0.25,
                   "caucasian": 0.55},
        shape={"mouth/mouth-angles-up": 0.35, "eyebrows/eyebrows-angle-up": 0.2, "chin/chin-width-decr": 0.5,
               "nose/nose-scale-horiz-decr": 0.35},
        skin="young_caucasian_female/textures/young_lightskinned_female_diffuse", eyes="brownlight", hair="long01",
        hair_color=(0.085, 0.045, 0.026), hair_parts=1, hair_strands=0.23, brows="eyebrow001", lashes="eyelashes02",
        cloth_color=(0.05, 0.075, 0.10), corners=0.15,
    ),
    Identity(
        name="man", phenotype={"gender": 0.0, "age": 0.67, "muscle": 0.6, "proportions": 0.7, "caucasian": 1.0},
        shape={"mouth/mouth-angles-up": 0.3, "eyebrows/eyebrows-angle-up": 0.2},
        skin="young_caucasian_male/textures/young_lightskinned_male_diffuse2", eyes="blue", iris_tint=(0.9, 0.85, 0.8),
        hair="short01", hair_color=(0.05, 0.03, 0.018), brows="eyebrow009", brow_tint=(0.6, 0.5, 0.42),
        lashes="eyelashes01", lash_strength=0.55, cloth_color=(0.10, 0.10, 0.095), lip_strength=0.45,
    ),
    Identity(
        name="woman_african", phenotype={"gender": 1.0, "age": 0.67, "proportions": 0.7, "african": 1.0},
        shape={"mouth/mouth-angles-up": 0.3, "eyebrows/eyebrows-angle-up": 0.5},
        skin="young_african_female/textures/young_darkskinned_female_diffuse", eyes="brownlight",
        iris_tint=(0.3, 0.22, 0.2), hair="afro01", hair_color=(0.016, 0.013, 0.011), hair_specular=0.05,
        brows="eyebrow008", brow_tint=(0.25, 0.2, 0.2), lashes="eyelashes02", cloth_color=(0.35, 0.12, 0.04),
        lip_strength=0.75, lip_tint=(1.45, 0.85, 0.85), lids=0.12, corners=0.06,
    ),
    Identity(
        name="man_old",
        phenotype={"gender": 0.0, "age": 0.97, "muscle": 0.45, "weight": 0.55, "proportions": 0.6, "caucasian": 1.0},
        shape={"mouth/mouth-angles-up": 0.5, "eyebrows/eyebrows-angle-up": 0.4},
        skin="old_caucasian_male/textures/old_lightskinned_male_diffuse", skin_tint=(0.93, 0.98, 1.0), eyes="grey",
        iris_tint=(0.75, 0.75, 0.72), hair="short04", hair_color=(0.2, 0.2, 0.2), brows="eyebrow012",
        brow_tint=(3.0, 3.0, 3.0), lashes="eyelashes01", lash_strength=0.4, cloth_color=(0.03, 0.05, 0.035),
        lip_strength=0.4, wrinkles=1.0,
    ),
    Identity(
        name="woman_asian", phenotype={"gender": 1.0, "age": 0.67, "weight": 0.42, "proportions": 0.7, "asian": 1.0},
        shape={"mouth/mouth-angles-up": 0.35, "eyebrows/eyebrows-angle-up": 0.4},
        skin="young_asian_female/textures/young_lightskinned_female_diffuse3", eyes="brownlight",
        iris_tint=(0.38, 0.3, 0.27), hair="ponytail01", hair_color=(0.013, 0.011, 0.010), hair_parts=3,
        hair_strands=0.3, hair_knots=((0.45, 0.41), (0.57, 0.41)), brows="eyebrow001",
        brow_tint=(0.3, 0.27, 0.27), lashes="eyelashes02", cloth_color=(0.25, 0.25, 0.23), corners=0.08,
    ),
)  # fmt: skip

# The values at which each axis of MakeHuman's macro targets was modelled.
_ANCHORS: Mapping[str, Mapping[str, float]] = {
    "gender": {"male": 0.0, "female": 1.0},
    "age": {"baby": 0.0, "child": 1 / 3, "young": 2 / 3, "old": 1.0},
    "muscle": {"minmuscle": 0.0, "averagemuscle": 0.5, "maxmuscle": 1.0},
    "weight": {"minweight": 0.0, "averageweight": 0.5, "maxweight": 1.0},
    "height": {"minheight": 0.0, "maxheight": 1.0},
    "proportions": {"idealproportions": 0.0, "uncommonproportions": 1.0},
}
_RACES = ("african", "asian", "caucasian")

# Macro targets: folder and file prefix, and the axes whose words form the rest of the name.
_MACROS = (
    ("universal-", ("gender", "age", "muscle", "weight")),
    ("", ("race", "gender", "age")),
    ("height/", ("gender", "age", "muscle", "weight", "height")),
    ("proportions/", ("gender", "age", "muscle", "weight", "proportions")),
)


def shape_identity(identity: Identity, base: Array, sources: Sources) -> Array:
    """The base mesh (V, 3) in metres in the shape of an identity.

    The weight of a macro target is the product of the weights of its words on each axis.
    """
    shares = _axis_weights(identity.phenotype)
    shaped = base.copy()
    for prefix, axes in _MACROS:
        for words in itertools.product(*(shares[axis] for axis in axes)):
            weight = float(np.prod([shares[axis][word] for axis, word in zip(axes, words, strict=True)]))
            if weight > 1e-6:
                shaped += weight * sources.target(f"macrodetails/{prefix}{'-'.join(words)}", len(base))
    for name, weight in identity.shape.items():
        shaped += weight * sources.target(name, len(base))
    return shaped


def _axis_weights(phenotype: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """For each axis the words around the value and their linear weights, which sum to 1."""
    shares = {}
    for axis, anchors in _ANCHORS.items():
        value = phenotype.get(axis, 0.5)
        corners = np.eye(len(anchors))
        weights = [float(np.interp(value, list(anchors.values()), corner)) for corner in corners]
        shares[axis] = {word: weight for word, weight in zip(anchors, weights, strict=True) if weight > 0}
    races = {race: phenotype.get(race, 0.0) for race in _RACES}
    shares["race"] = {race: value / sum(races.values()) for race, value in races.items() if value > 0}
    return shares
