"""The head asset on disk: identities that share one topology, written and read in one place.

A folder holds `head.npz` (what all identities share: triangles, texture coordinates, parts, masks, landmarks, and the
displacements of the 52 actions), `NAME.npz` for each identity (rest position, baked light, those actions that differ,
what it wears), `faces.json` (materials) and a WebP a texture. Displacements are sparse float16; below 10 um they are 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Attachment, Face, Material, Surface

VERSION = 1
SHARED = "head.npz"
MATERIALS = "faces.json"

_LEAST_MOTION = 1e-5  # metres
_LEAST_DIFFERENCE = 2e-5  # metres: an identity's own action is stored where it differs by more
_QUALITY = 86  # of WebP
_Arrays = dict[str, Any]  # of arrays


class Textures(Mapping[str, NDArray[np.uint8]]):
    """Pictures of a folder by name, each decoded when it is first asked for: (H, W, 4), or (H, W, 1) for relief."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._decoded: dict[str, NDArray[np.uint8]] = {}

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._decoded:
            path = self._folder / f"{name}.webp"
            try:
                with Image.open(path) as picture:
                    mode = "L" if name.endswith("_bump") else "RGBA"
                    values = np.asarray(picture.convert(mode))
            except OSError as error:
                raise FaceError(
                    f"a texture cannot be read: {path} ({error}). Build or install the head again"
                ) from error
            self._decoded[name] = values.reshape(*values.shape[:2], -1)
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_faces(folder: Path, faces: Iterable[Face]) -> None:
    """Write identities into a folder; the first gives what they share."""
    folder.mkdir(parents=True, exist_ok=True)
    first: Face | None = None
    described: dict[str, Any] = {}
    for face in faces:
        if first is None:
            first = face
            np.savez_compressed(folder / SHARED, **_shared_arrays(face))
        np.savez_compressed(folder / f"{face.name}.npz", **_own_arrays(face, first))
        described[face.name] = _describe(face)
        for name, picture in face.textures.items():
            _write_texture(folder / f"{name}.webp", picture)
    text = json.dumps({"version": VERSION, "faces": described}, indent=1)
    (folder / MATERIALS).write_text(text + "\n")


def face_names(folder: Path) -> tuple[str, ...]:
    """The identities in a folder."""
    return tuple(_read_description(folder)["faces"])


def read_face(folder: Path, name: str) -> Face:
    """One identity of a folder, its textures not yet decoded."""
    described = _read_description(folder)["faces"][name]
    try:
        with np.load(folder / SHARED) as stored:
            shared = dict(stored)
        with np.load(folder / f"{name}.npz") as stored:
            own = dict(stored)
    except (OSError, ValueError) as error:
        raise FaceError(f"the head cannot be read: {folder} ({error}). Build or install it again") from error
    surfaces = tuple(_read_surface(surface, shared, own, described) for surface in described["surfaces"])
    faces = np.concatenate([surface.triangles for surface in surfaces])
    attachments = {key: _read_attachment(key, own, described) for key in described["attachments"]}
    return Face(
        name,
        own["template"],
        faces,
        surfaces,
        attachments,
        _read_actions(shared, own, len(own["template"])),
        ARKIT_NAMES,
        parts=_group(shared, "part_"),
        masks=_group(shared, "mask_"),
        landmarks=dict(zip(shared["landmark_names"].tolist(), shared["landmarks"].tolist(), strict=True)),
        lip_pairs=shared["lip_pairs"].astype(np.int32),
        textures=Textures(folder, described["textures"]),
        uv=_vertex_uv(surfaces, len(own["template"])),
        colors=own["colors"],
    )


def read_template(folder: Path, name: str) -> NDArray[np.float32]:
    """The rest position (V, 3) in metres of one identity of a folder, without the rest of it.

    Raises:
        FaceError: it cannot be read.
    """
    try:
        with np.load(folder / f"{name}.npz") as stored:
            template: NDArray[np.float32] = stored["template"]
    except (OSError, ValueError, KeyError) as error:
        raise FaceError(f"the head cannot be read: {folder} ({error}). Build or install it again") from error
    return template


def _vertex_uv(surfaces: tuple[Surface, ...], count: int) -> NDArray[np.float32]:
    """One texture coordinate a vertex (V, 2); where a texture has a seam, that of one of its sides."""
    uv = np.zeros((count, 2), np.float32)
    for surface in surfaces:
        uv[surface.triangles] = surface.uv[surface.uv_triangles]
    return uv


def _shared_arrays(face: Face) -> _Arrays:
    if face.blendshapes is None or face.lip_pairs is None:
        raise ValueError(f"face {face.name!r} has no rig to write")
    arrays: _Arrays = {
        "version": np.array(VERSION),
        "landmark_names": np.array(list(face.landmarks)),
        "landmarks": np.array(list(face.landmarks.values()), np.uint16),
        "lip_pairs": face.lip_pairs.astype(np.uint16),
    }
    arrays |= {f"part_{name}": ids.astype(np.uint16) for name, ids in face.parts.items()}
    arrays |= {f"mask_{name}": ids.astype(np.uint16) for name, ids in face.masks.items()}
    for surface in face.surfaces:
        arrays |= _surface_arrays(surface)
    return arrays | _sparse(face.blendshapes, np.arange(len(face.blendshapes)))


def _own_arrays(face: Face, first: Face) -> _Arrays:
    if face.blendshapes is None or first.blendshapes is None or face.colors is None:
        raise ValueError(f"face {face.name!r} has no rig or colours to write")
    arrays: _Arrays = {
        "template": face.template.astype(np.float32),
        "colors": face.colors,
        "occlusion": _share_to_byte(face.surfaces[0].occlusion),
    }
    for surface in face.surfaces:
        if surface.scalp is not None:
            arrays["scalp"] = _share_to_byte(surface.scalp)
    for name, attachment in face.attachments.items():
        arrays |= _surface_arrays(attachment.surface)
        arrays[f"{name}_occlusion"] = _share_to_byte(attachment.surface.occlusion)
        arrays[f"{name}_indices"] = attachment.indices.astype(np.uint16)
        arrays[f"{name}_weights"] = attachment.weights.astype(np.float32)
        arrays[f"{name}_offsets"] = attachment.offsets.astype(np.float32)
    apart = np.abs(face.blendshapes - first.blendshapes).max(axis=(1, 2))
    return arrays | _sparse(face.blendshapes, np.flatnonzero(apart > _LEAST_DIFFERENCE))


def _surface_arrays(surface: Surface) -> _Arrays:
    return {
        f"{surface.name}_triangles": surface.triangles.astype(np.uint16),
        f"{surface.name}_uv": surface.uv.astype(np.float32),
        f"{surface.name}_uv_triangles": surface.uv_triangles.astype(np.uint16),
    }


def _sparse(actions: NDArray[np.float32], which: NDArray[np.int64]) -> _Arrays:
    """The chosen actions as runs of rows: which, how many rows each, vertex and displacement of each row."""
    moved = [np.flatnonzero(np.abs(actions[k]).max(axis=1) > _LEAST_MOTION) for k in which]
    rows = [actions[k, vertices] for k, vertices in zip(which, moved, strict=True)]
    return {
        "action_ids": which.astype(np.uint8),
        "action_counts": np.array([len(vertices) for vertices in moved], np.int32),
        "action_vertices": np.concatenate([*moved, np.zeros(0)]).astype(np.uint16),
        "action_displacements": np.concatenate([*rows, np.zeros((0, 3))]).astype(np.float16),
    }


def _read_actions(shared: _Arrays, own: _Arrays, vertices: int) -> NDArray[np.float32]:
    actions = np.zeros((len(ARKIT_NAMES), vertices, 3), np.float32)
    for stored in (shared, own):
        starts = np.cumsum(stored["action_counts"]) - stored["action_counts"]
        for action, start, count in zip(stored["action_ids"], starts, stored["action_counts"], strict=True):
            run = slice(start, start + count)
            actions[action] = 0
            actions[action, stored["action_vertices"][run]] = stored["action_displacements"][run]
    return actions


def _describe(face: Face) -> dict[str, Any]:
    """What the JSON says of a face: materials by surface and attachment, and the names of its textures."""
    colors = [surface.scalp_color for surface in face.surfaces if surface.scalp is not None]
    return {
        "surfaces": {s.name: _describe_surface(s) for s in face.surfaces},
        "attachments": {name: _describe_surface(a.surface) for name, a in face.attachments.items()},
        "scalp_color": [round(float(value), 5) for value in colors[0]] if colors else [0.0, 0.0, 0.0],
        "textures": list(face.textures),
    }


def _describe_surface(surface: Surface) -> dict[str, Any]:
    """A surface's smoothness and what its material has that the default has not."""
    plain = asdict(Material())
    material = {key: value for key, value in asdict(surface.material).items() if value != plain[key]}
    return {"smooth": surface.smooth, "material": material}


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / MATERIALS
    try:
        described: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FaceError(
            f"no head lies here: {path} ({error}). Build it with python -m sedtalker.recipes head_asset"
        ) from error
    if described.get("version") != VERSION:
        raise FaceError(
            f"the head has version {described.get('version')}: {path}. This program reads version {VERSION}"
        )
    return described


def _read_surface(name: str, shared: _Arrays, own: _Arrays, described: dict[str, Any]) -> Surface:
    scalp = _byte_to_share(own["scalp"]) if name == "skin" and "scalp" in own else None
    return replace(
        _bare_surface(name, shared, described["surfaces"][name], _byte_to_share(own["occlusion"])),
        scalp=scalp,
        scalp_color=tuple(described["scalp_color"]) if scalp is not None else (0.0, 0.0, 0.0),
    )


def _read_attachment(name: str, own: _Arrays, described: dict[str, Any]) -> Attachment:
    light = _byte_to_share(own[f"{name}_occlusion"])
    return Attachment(
        _bare_surface(name, own, described["attachments"][name], light),
        own[f"{name}_indices"].astype(np.int32),
        own[f"{name}_weights"],
        own[f"{name}_offsets"],
    )


def _bare_surface(name: str, arrays: _Arrays, about: dict[str, Any], light: NDArray[np.float32]) -> Surface:
    material: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about["material"].items()
    }
    return Surface(
        name,
        arrays[f"{name}_triangles"].astype(np.int32),
        arrays[f"{name}_uv"],
        arrays[f"{name}_uv_triangles"].astype(np.int32),
        Material(**material),
        light,
        smooth=about["smooth"],
    )


def _group(arrays: _Arrays, prefix: str) -> dict[str, NDArray[np.int32]]:
    return {key.removeprefix(prefix): ids.astype(np.int32) for key, ids in arrays.items() if key.startswith(prefix)}


def _share_to_byte(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    return (np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


def _byte_to_share(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    return stored.astype(np.float32) / np.float32(255)


def _write_texture(path: Path, picture: NDArray[np.uint8]) -> None:
    channels = picture.shape[2]
    if channels == 1:
        image = Image.fromarray(picture[..., 0])
    elif picture[..., 3].min() == 255:
        image = Image.fromarray(picture[..., :3])
    else:
        image = Image.fromarray(picture)
    image.save(path, quality=_QUALITY, method=6, exact=True)
