"""Morph targets of a rigged avatar by the names of their shapes, and the expressions of a VRM."""

from __future__ import annotations

from typing import NamedTuple

from sedtalker.errors import FaceError
from sedtalker.face.gltf import MALFORMED, Gltf
from sedtalker.face.shape_names import canonical_name


class Target(NamedTuple):
    """A morph target of a mesh, and its share in a shape."""

    mesh: int
    number: int  # of the morph target
    share: float


def find_targets(gltf: Gltf) -> dict[str, tuple[Target, ...]]:
    """The morph targets of each shape with a known name; VRM expressions come before names of morph targets."""
    found: dict[str, list[Target]] = {}
    for title, bound in _expressions(gltf):
        name = canonical_name(title)
        if name is not None and bound:
            found.setdefault(name, []).extend(bound)
    named: dict[str, list[Target]] = {}
    for mesh, names in enumerate(_target_names(gltf)):
        for index, title in enumerate(names):
            name = canonical_name(title)
            if name is not None and name not in found:
                named.setdefault(name, []).append(Target(mesh, index, 1.0))
    return {name: tuple(dict.fromkeys(bound)) for name, bound in {**named, **found}.items()}


def _target_names(gltf: Gltf) -> list[list[str]]:
    """Names of the morph targets of each mesh."""
    result = []
    for mesh in gltf.tree.get("meshes", []):
        primitive = mesh["primitives"][0]
        targets = primitive.get("targets", [])
        names = mesh.get("extras", {}).get("targetNames") or primitive.get("extras", {}).get("targetNames")
        if not names:  # some exporters name the accessors
            entries = [gltf.item("accessors", next(iter(target.values()))) for target in targets if target]
            names = [entry.get("name", "") for entry in entries]
        result.append([str(name) for name in names][: len(targets)])
    return result


def _expressions(gltf: Gltf) -> list[tuple[str, list[Target]]]:
    """VRM expressions (1.0 and 0.x) with the morph targets that they move."""
    extensions = gltf.tree.get("extensions", {})
    result = []
    for group in ("preset", "custom"):
        for name, entry in extensions.get("VRMC_vrm", {}).get("expressions", {}).get(group, {}).items():
            bound = [
                Target(gltf.item("nodes", bind["node"])["mesh"], bind["index"], float(bind.get("weight", 1.0)))
                for bind in entry.get("morphTargetBinds", [])
            ]
            result.append((name, bound))
    for entry in extensions.get("VRM", {}).get("blendShapeMaster", {}).get("blendShapeGroups", []):
        bound = [Target(b["mesh"], b["index"], float(b["weight"]) / 100) for b in entry.get("binds", [])]
        preset = entry.get("presetName", "unknown")
        result.append((entry.get("name", "") if preset in ("", "unknown") else preset, bound))
    counts = [len(mesh["primitives"][0].get("targets", [])) for mesh in gltf.tree.get("meshes", [])]
    for name, bound in result:
        for target in bound:
            if not (0 <= target.mesh < len(counts) and 0 <= target.number < counts[target.mesh]):
                raise ValueError(f"the expression {name!r:.20} moves a morph target that does not exist")
    return result


def expression_names(gltf: Gltf) -> dict[str, str]:
    """Canonical names of a VRM's expressions, with their own names; presets of VRM 0.x have the names of 1.0."""
    presets = {"a": "aa", "i": "ih", "u": "ou", "e": "ee", "o": "oh", "blink_l": "blinkLeft", "blink_r": "blinkRight",
               "joy": "happy", "sorrow": "sad", "fun": "relaxed"}  # fmt: skip
    try:
        expressions = _expressions(gltf)
    except MALFORMED as error:
        raise gltf.damaged(error) from error
    found = {}
    for title, bound in expressions:
        name = canonical_name(title)
        if name is not None and bound:
            found[name] = presets.get(title.lower(), title)
    if not found:
        raise FaceError(f"no VRM expressions for speech in this file: {gltf.path}. Use --to glb --into")
    return found
