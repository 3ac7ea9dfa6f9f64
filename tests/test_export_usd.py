"""USD files, posed and validated by usd-core."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_animation import made_animation

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.export import export_animation
from sedtalker.export.parts import split_face
from sedtalker.face.neck import head_joint_weights, move_head

pytest.importorskip("pxr", reason="usd-core is not installed")
from pxr import Usd, UsdGeom, UsdShade, UsdSkel


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Animation:
    return made_animation(tmp_path_factory.mktemp("sound"), seconds=0.5)


def test_usd_poses_the_parts_as_the_animation_does(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "usd", tmp_path / "a.usdc")
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert stage.GetTimeCodesPerSecond() == animation.fps and UsdGeom.GetStageUpAxis(stage) == "Y"
    root = UsdSkel.Root(stage.GetDefaultPrim())
    UsdSkel.BakeSkinning(root)  # usd-core writes the deformed points of every time code
    face = animation.face
    share = head_joint_weights(face, face.all_points(face.template))
    for frame in (0, 9):
        points = face.all_points(next(animation.frames(frame, frame + 1)))
        points = move_head(points, animation.head[frame], share)
        for part in split_face(face):
            mesh = UsdGeom.Mesh(stage.GetPrimAtPath(f"/Head/{part.name}"))
            np.testing.assert_allclose(mesh.GetPointsAttr().Get(frame), points[part.points], atol=1e-4)


def test_usdz_contains_its_textures(animation: Animation, tmp_path: Path) -> None:
    export_animation(animation, "usd", tmp_path / "a.usdz")
    names = zipfile.ZipFile(tmp_path / "a.usdz").namelist()
    assert {"skin.jpg", "eyes.jpg", "hair.png"} <= set(names)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdz"))
    material, _ = UsdShade.MaterialBindingAPI(stage.GetPrimAtPath("/Head/skin")).ComputeBoundMaterial()
    texture = UsdShade.Shader(stage.GetPrimAtPath(f"{material.GetPath()}/texture"))
    assert texture.GetInput("file").Get().resolvedPath.endswith("[skin.jpg]")


def test_vertices_without_a_rig_are_a_point_cache(tmp_path: Path) -> None:
    dense = np.random.default_rng(0).standard_normal((7, 4, 3)).astype(np.float32)
    bare = Animation(
        dense[0], np.array([[0, 1, 2], [0, 2, 3]], np.int32), 25.0, EmotionTrack.neutral(0.28), dense=dense
    )
    export_animation(bare, "usd", tmp_path / "b.usda")
    stage = Usd.Stage.Open(str(tmp_path / "b.usda"))  # prims need their stage
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/Head/mesh"))
    assert mesh.GetPointsAttr().GetNumTimeSamples() == 7
    np.testing.assert_allclose(mesh.GetPointsAttr().Get(5), dense[5], atol=1e-6)


def test_equal_usd_names_get_numbers(tmp_path: Path) -> None:
    animation = made_animation(tmp_path, seconds=0.2)
    names = ("smile-left", "smile+left", *animation.blendshape_names[2:])
    face = replace(animation.face, blendshape_names=names)
    export_animation(replace(animation, blendshape_names=names, rig=face), "usd", tmp_path / "n.usda")
    stage = Usd.Stage.Open(str(tmp_path / "n.usda"))
    binding = UsdSkel.BindingAPI(stage.GetPrimAtPath("/Head/skin"))
    names_written, targets = list(binding.GetBlendShapesAttr().Get()), binding.GetBlendShapeTargetsRel().GetTargets()
    assert {"smile-left", "smile+left"} <= set(names_written)
    assert len(set(targets)) == len(names_written)


@pytest.mark.parametrize("ending", ["usdz", "usda"])
def test_usd_validators_find_no_errors(animation: Animation, tmp_path: Path, ending: str) -> None:
    validation = pytest.importorskip("pxr.UsdValidation", reason="this usd-core has no validators")
    export_animation(animation, "usd", tmp_path / f"a.{ending}")
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    stage = Usd.Stage.Open(str(tmp_path / f"a.{ending}"))
    errors = validation.ValidationContext(validators).Validate(stage)
    assert len(validators) > 10 and [error.GetMessage() for error in errors] == []
