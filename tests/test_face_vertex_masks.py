"""Regions of the face from a rig and from FLAME's masks."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.vertex_masks import FLAME_REGIONS, default_masks, flame_regions, mask_hash, rig_regions


def test_regions_follow_from_parts_and_motion() -> None:
    """Two lip vertices, two eyes, and skin: forehead, cheek, chin, neck and back of the head."""
    names = ("lip", "lip", "eye", "eye", "forehead", "cheek", "chin", "neck", "back")
    heights = (0.0, 0.0, 0.06, 0.06, 0.09, 0.02, -0.04, -0.08, 0.05)
    depths = (0.0, 0.0, -0.01, -0.01, -0.01, -0.01, 0.0, -0.01, -0.2)
    template = np.stack([np.zeros(9), heights, depths], axis=1)
    blendshapes = np.zeros((52, 9, 3))
    blendshapes[ARKIT_NAMES.index("browInnerUp"), 4, 1] = 0.005
    blendshapes[ARKIT_NAMES.index("eyeBlinkLeft"), 5, 1] = 0.0015  # enough for the lids, too little for an emotion
    blendshapes[ARKIT_NAMES.index("jawOpen"), 6, 1] = 0.02  # no emotion
    parts = {"lips": [0, 1], "skin": [4, 5, 6, 7, 8], "eye_left": [2], "eye_right": [3]}
    regions = rig_regions(template, blendshapes, {name: np.array(ids, np.int32) for name, ids in parts.items()})
    assert {name: [names[i] for i in ids] for name, ids in regions.items()} == {
        "lips": ["lip", "lip"],
        "eyes": ["cheek"],
        "upper_face": ["forehead"],
        "lower_face": ["lip", "lip", "cheek", "chin"],
        "emotion": ["forehead"],
    }


def test_masks_of_the_asset_are_those_of_its_rig() -> None:
    face = load_face()
    for name, ids in rig_regions(face.template, face.blendshapes, face.parts).items():
        stored = face.masks[name]
        assert len(np.intersect1d(ids, stored)) >= 0.99 * max(len(ids), len(stored)), name


def test_default_masks_need_the_default_topology() -> None:
    face = load_face()
    masks = default_masks(len(face.template))
    assert masks is not None and default_masks(5023) is None
    upper, lower = masks.regions["lip_pair"]
    assert [upper, lower] in face.lip_pairs.tolist() and abs(face.template[upper, 0]) < 0.002
    described = masks.describe("lips")
    assert described == {
        "name": "head 'default': lips", "vertices": len(face.masks["lips"]), "sha256": mask_hash(face.masks["lips"])
    }  # fmt: skip


def test_mask_hash_depends_on_the_vertices_and_not_on_their_order() -> None:
    assert mask_hash(np.array([3, 1, 2])) == mask_hash(np.array([1, 2, 3], np.int32)) != mask_hash(np.array([1, 2, 4]))


def test_flame_regions_are_unions_of_its_masks() -> None:
    parts = {part for union in FLAME_REGIONS.values() for part in union}
    masks = {part: np.array([number, number + 10]) for number, part in enumerate(sorted(parts))}
    regions = flame_regions(masks)
    np.testing.assert_array_equal(regions["upper_face"], np.unique([*masks["forehead"], *masks["eye_region"]]))
    del masks["lips"]
    with pytest.raises(FaceError, match="no mask 'lips'"):
        flame_regions(masks)
