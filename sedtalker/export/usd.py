"""USD through usd-core: UsdSkel blendshapes and a head joint, or a point cache for a mesh without a rig.

A `.usdz` contains its textures; `.usd`, `.usdc` and `.usda` have none. Frame i is at time code i.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import SEDTalkerError, require
from sedtalker.export.meshes import pose_frames
from sedtalker.export.parts import Part, split_face
from sedtalker.export.textures import encode_color
from sedtalker.face.neck import neck_pivot
from sedtalker.face.rig import Face, Material
from sedtalker.files import atomic_write
from sedtalker.rotations import to_quaternions

if TYPE_CHECKING:
    from sedtalker.animation import Animation

_ROOT = "/Head"


def write(animation: Animation, path: Path) -> None:
    """Write the scene in the kind of USD that the ending of `path` selects.

    Raises:
        MissingExtraError: usd-core is not installed.
        SEDTalkerError: `path` has another ending.
    """
    if path.suffix.lower() not in (".usdz", ".usd", ".usdc", ".usda"):
        raise SEDTalkerError(f"not an ending of USD: {path}. Choose .usdz, .usd, .usdc or .usda")
    require("pxr.Usd", "usd")
    from pxr import UsdUtils

    with atomic_write(path) as temp_path:
        if path.suffix.lower() != ".usdz":
            stage = _stage(animation, temp_path, None)
            stage.GetRootLayer().Save()
            return
        with tempfile.TemporaryDirectory() as folder:
            layer = Path(folder, f"{path.stem}.usdc")
            stage = _stage(animation, layer, Path(folder))  # the variable keeps its layer open
            stage.GetRootLayer().Save()
            UsdUtils.CreateNewUsdzPackage(str(layer), str(temp_path))


def _stage(animation: Animation, path: Path, pictures: Path | None) -> Any:
    """A stage at `path`, with textures in the folder `pictures`; without textures if it is None."""
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(animation.fps)
    stage.SetFramesPerSecond(animation.fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(max(len(animation) - 1, 0))
    if animation.blendshapes is None or animation.face.blendshapes is None:
        _add_point_cache(stage, animation)
    else:
        _add_rig(stage, animation, pictures)
    stage.SetDefaultPrim(stage.GetPrimAtPath(_ROOT))
    return stage


def _add_point_cache(stage: Any, animation: Animation) -> None:
    from pxr import UsdGeom, Vt

    UsdGeom.Xform.Define(stage, _ROOT)
    mesh = _define_mesh(stage, f"{_ROOT}/mesh", animation.template, animation.faces)
    points = mesh.GetPointsAttr()
    for index, vertices in enumerate(pose_frames(animation)):
        points.Set(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(vertices)), index)


def _add_rig(stage: Any, animation: Animation, pictures: Path | None) -> None:
    from pxr import UsdSkel

    face = animation.face
    UsdSkel.Root.Define(stage, _ROOT)
    _add_skeleton(stage, animation, neck_pivot(face))
    for part in split_face(face):
        mesh = _add_part(stage, part, animation.blendshape_names)
        _bind_material(stage, mesh, _add_material(stage, face, part.name, part.material, pictures))


def _add_skeleton(stage: Any, animation: Animation, pivot: NDArray[np.float32]) -> None:
    """Add joints of body and head, and the animation of the head and the blendshapes."""
    from pxr import Gf, UsdSkel, Vt

    joints = ["body", "body/head"]
    rest = Gf.Matrix4d().SetTranslate(Gf.Vec3d(*pivot.astype(float)))
    skeleton = UsdSkel.Skeleton.Define(stage, f"{_ROOT}/skeleton")
    skeleton.CreateJointsAttr(joints)
    skeleton.CreateBindTransformsAttr([Gf.Matrix4d(1.0), rest])
    skeleton.CreateRestTransformsAttr([Gf.Matrix4d(1.0), rest])
    motion = UsdSkel.Animation.Define(stage, f"{_ROOT}/motion")
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([motion.GetPath()])
    motion.CreateJointsAttr(joints)
    motion.CreateScalesAttr([Gf.Vec3h(1, 1, 1)] * 2)
    motion.CreateBlendShapesAttr(list(animation.blendshape_names))
    weights = motion.CreateBlendShapeWeightsAttr()
    for index, row in enumerate(animation.blendshapes if animation.blendshapes is not None else ()):
        weights.Set(Vt.FloatArray.FromNumpy(np.ascontiguousarray(row)), index)
    rotations, translations = motion.CreateRotationsAttr(), motion.CreateTranslationsAttr()
    identity = Gf.Quatf(1, 0, 0, 0)
    rotations.Set([identity, identity])
    translations.Set([Gf.Vec3f(0, 0, 0), Gf.Vec3f(*pivot.astype(float))])
    if animation.head is not None:
        matrices = animation.head[:, :3, :3]
        positions = matrices @ pivot + animation.head[:, :3, 3]
        for index, (quaternion, position) in enumerate(zip(to_quaternions(matrices), positions, strict=True)):
            x, y, z, w = quaternion.astype(float)
            rotations.Set([identity, Gf.Quatf(w, x, y, z)], index)
            translations.Set([Gf.Vec3f(0, 0, 0), Gf.Vec3f(*position.astype(float))], index)


def _add_part(stage: Any, part: Part, names: tuple[str, ...]) -> Any:
    from pxr import Sdf, Tf, UsdGeom, UsdSkel, Vt

    mesh = _define_mesh(stage, f"{_ROOT}/{Tf.MakeValidIdentifier(part.name)}", part.positions, part.triangles)
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(part.normals))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    variables = UsdGeom.PrimvarsAPI(mesh)
    coordinates = variables.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    coordinates.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(part.uv)))
    color = variables.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
    color.Set(Vt.Vec3fArray.FromNumpy((part.colors * np.clip(part.material.tint, 0, 1)).astype(np.float32)))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([Sdf.Path(f"{_ROOT}/skeleton")])
    joint_weights = np.stack([1 - part.head_weights, part.head_weights], axis=1).astype(np.float32).ravel()
    binding.CreateJointIndicesPrimvar(False, 2).Set(Vt.IntArray([0, 1] * len(part.points)))
    binding.CreateJointWeightsPrimvar(False, 2).Set(Vt.FloatArray.FromNumpy(joint_weights))
    used = [name for name in names if name in part.shapes]
    targets = []
    for name, identifier in zip(used, _identifiers(used), strict=True):
        shape = part.shapes[name]
        target = UsdSkel.BlendShape.Define(stage, mesh.GetPath().AppendChild(identifier))
        target.CreateOffsetsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(shape.displacements)))
        target.CreateNormalOffsetsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(shape.normal_changes)))
        target.CreatePointIndicesAttr(Vt.IntArray.FromNumpy(shape.vertices))
        targets.append(target.GetPath())
    if used:
        binding.CreateBlendShapesAttr(used)
        binding.CreateBlendShapeTargetsRel().SetTargets(targets)
    return mesh


def _identifiers(names: list[str]) -> list[str]:
    """Valid USD names, with a number where two names would become equal."""
    from pxr import Tf

    identifiers: list[str] = []
    for name in names:
        plain = unique = Tf.MakeValidIdentifier(name)
        count = 2
        while unique in identifiers:
            unique, count = f"{plain}_{count}", count + 1
        identifiers.append(unique)
    return identifiers


def _define_mesh(stage: Any, path: str, points: NDArray[np.float32], triangles: NDArray[np.int32]) -> Any:
    from pxr import UsdGeom, Vt

    mesh = UsdGeom.Mesh.Define(stage, path)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(points, np.float32)))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray([3] * len(triangles)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(triangles.ravel(), np.int32)))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateExtentAttr([points.min(0).astype(float).tolist(), points.max(0).astype(float).tolist()])
    return mesh


def _add_material(stage: Any, face: Face, name: str, material: Material, pictures: Path | None) -> Any:
    from pxr import Gf, Sdf, UsdShade

    path = f"{_ROOT}/materials/{name}"
    shading = UsdShade.Material.Define(stage, path)
    surface = UsdShade.Shader.Define(stage, f"{path}/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.6 if material.kind in ("skin", "hair") else 0.4)
    tint = Gf.Vec3f(*(float(value) for value in np.clip(material.tint, 0, 1)))
    color = surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
    color.Set(tint)
    opacity = surface.CreateInput("opacity", Sdf.ValueTypeNames.Float)
    opacity.Set(0.08 if material.mode == "add" else 1.0)
    encoded = encode_color(face, material)
    if pictures is not None and encoded is not None:
        file = f"{name}.{'png' if encoded[1] == 'image/png' else 'jpg'}"
        (pictures / file).write_bytes(encoded[0])
        texture = _add_texture(stage, path, file, tint)
        color.ConnectToSource(texture.ConnectableAPI(), "rgb")
        if material.mode != "opaque":
            opacity.ConnectToSource(texture.ConnectableAPI(), "a")
    shading.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    return shading


def _add_texture(stage: Any, path: str, file: str, tint: Any) -> Any:
    from pxr import Gf, Sdf, UsdShade

    uv_reader = UsdShade.Shader.Define(stage, f"{path}/coordinates")
    uv_reader.CreateIdAttr("UsdPrimvarReader_float2")
    uv_reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = UsdShade.Shader.Define(stage, f"{path}/texture")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{file}")
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    texture.CreateInput("scale", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(*tint, 1.0))
    coordinates = uv_reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(coordinates)
    texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    texture.CreateOutput("a", Sdf.ValueTypeNames.Float)
    return texture


def _bind_material(stage: Any, mesh: Any, material: Any) -> None:
    from pxr import UsdShade

    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
