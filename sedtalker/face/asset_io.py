"""Read and write the head asset: identities that share one topology.

The folder contains `head.npz` (shared by all identities: triangles, texture coordinates, parts, masks, landmarks, and
the displacements of the 52 blendshapes), `NAME.npz` for each identity (template, baked occlusion, the blendshapes that
differ, attachments), `faces.json` (materials) and one WebP per texture. Displacements are sparse float16; those below
10 um are omitted.
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

from sedtalker.errors import FaceError, reason_of
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Attachment, Face, Material, Surface

VERSION = 1
SHARED = "head.npz"
MATERIALS = "faces.json"

_MIN_DISPLACEMENT = 1e-5  # metres
_MIN_DIFFERENCE = 2e-5  # metres; an identity stores those of its blendshapes that differ by more
_QUALITY = 86  # of WebP
_Arrays = dict[str, Any]  # the arrays of an .npz file by name


class Textures(Mapping[str, NDArray[np.uint8]]):
    """Textures of a folder by name, decoded at first access: (H, W, 4), or (H, W, 1) for bump and wrinkle maps."""

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
                with Image.open(path) as image:
                    mode = "L" if name.endswith("_bump") or name.startswith("wrinkle_") else "RGBA"
                    values = np.asarray(image.convert(mode))
            except OSError as error:
                raise FaceError(
                    f"a texture cannot be read: {path} ({reason_of(error)}). Build or install the head again"
                ) from error
            self._decoded[name] = values.reshape(*values.shape[:2], -1)
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_faces(folder: Path, faces: Iterable[Face]) -> None:
    """Write identities into a folder. The first one provides the shared arrays.

    Raises:
        ValueError: a face has no rig or no colours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first: Face | None = None
    descriptions: dict[str, Any] = {}
    for face in faces:
        if first is None:
            first = face
            np.savez_compressed(folder / SHARED, **_shared_arrays(face))
        np.savez_compressed(folder / f"{face.name}.npz", **_own_arrays(face, first))
        descriptions[face.name] = _describe(face)
        for name, picture in face.textures.items():
            _write_texture(folder / f"{name}.webp", picture)
    text = json.dumps({"version": VERSION, "faces": descriptions}, indent=1)
    (folder / MATERIALS).write_text(text + "\n")


def face_names(folder: Path) -> tuple[str, ...]:
    """Names of the identities in a folder. Raises FaceError if the folder has no head, or one of another version."""
    return tuple(_read_description(folder)["faces"])


def read_face(folder: Path, name: str) -> Face:
    """One identity of a folder. Its textures are decoded at first access.

    Raises:
        FaceError: the files cannot be read.
    """
    description = _read_description(folder)["faces"][name]
    try:
        with np.load(folder / SHARED) as stored:
            shared = dict(stored)
        with np.load(folder / f"{name}.npz") as stored:
            own = dict(stored)
    except (OSError, ValueError) as error:
        raise FaceError(f"the head cannot be read: {folder} ({reason_of(error)}). Build or install it again") from error
    surfaces = tuple(_read_surface(surface, shared, own, description) for surface in description["surfaces"])
    faces = np.concatenate([surface.triangles for surface in surfaces])
    attachments = {key: _read_attachment(key, own, description) for key in description["attachments"]}
    template = own["template"]
    uv = np.zeros((len(template), 2), np.float32)  # one per vertex; at a seam that of one side
    for surface in surfaces:
        uv[surface.triangles] = surface.uv[surface.uv_triangles]
    blendshapes = _read_blendshapes(shared, own, len(template))
    return Face(
        name, template, faces, surfaces, attachments, blendshapes, ARKIT_NAMES,
        parts=_group(shared, "part_"),
        masks=_group(shared, "mask_"),
        landmarks=dict(zip(shared["landmark_names"].tolist(), shared["landmarks"].tolist(), strict=True)),
        lip_pairs=shared["lip_pairs"].astype(np.int32),
        textures=Textures(folder, description["textures"]),
        uv=uv,
        colors=own["colors"],
    )  # fmt: skip


def read_template(folder: Path, name: str) -> NDArray[np.float32]:
    """The template (V, 3) in metres of one identity of a folder. Raises FaceError if its file cannot be read."""
    try:
        with np.load(folder / f"{name}.npz") as stored:
            template: NDArray[np.float32] = stored["template"]
    except (OSError, ValueError, KeyError) as error:
        raise FaceError(f"the head cannot be read: {folder} ({reason_of(error)}). Build or install it again") from error
    return template


def quantize(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in [0, 1] as rounded bytes, clipped."""
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _shared_arrays(face: Face) -> _Arrays:
    if face.blendshapes is None or face.lip_pairs is None:
        raise ValueError(f"face {face.name!r} has no rig to write")
    arrays: _Arrays = {
        "version": np.array(VERSION),
        "landmark_names": np.array(list(face.landmarks)),
        "landmarks": _indices(np.array(list(face.landmarks.values()), np.int64)),
        "lip_pairs": _indices(face.lip_pairs),
    }
    arrays |= {f"part_{name}": _indices(ids) for name, ids in face.parts.items()}
    arrays |= {f"mask_{name}": _indices(ids) for name, ids in face.masks.items()}
    for surface in face.surfaces:
        arrays |= _surface_arrays(surface)
    return arrays | _sparse(face.blendshapes, np.arange(len(face.blendshapes)))


def _own_arrays(face: Face, first: Face) -> _Arrays:
    if face.blendshapes is None or first.blendshapes is None or face.colors is None:
        raise ValueError(f"face {face.name!r} has no rig or colours to write")
    arrays: _Arrays = {
        "template": face.template.astype(np.float32),
        "colors": face.colors,
        "occlusion": quantize(_occlusion(face.surfaces[0])),
    }
    for surface in face.surfaces:
        if surface.scalp is not None:
            arrays["scalp"] = quantize(surface.scalp)
    for name, attachment in face.attachments.items():
        arrays |= _surface_arrays(attachment.surface)
        arrays[f"{name}_occlusion"] = quantize(_occlusion(attachment.surface))
        arrays[f"{name}_indices"] = _indices(attachment.indices)
        arrays[f"{name}_weights"] = attachment.weights.astype(np.float32)
        arrays[f"{name}_offsets"] = attachment.offsets.astype(np.float32)
    difference = np.abs(face.blendshapes - first.blendshapes).max(axis=(1, 2))
    return arrays | _sparse(face.blendshapes, np.flatnonzero(difference > _MIN_DIFFERENCE))


def _indices(values: NDArray[np.integer]) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Indices in the smallest type that the packaged heads, and larger meshes, need."""
    return values.astype(np.uint16 if not values.size or int(values.max()) < 1 << 16 else np.uint32)


def _occlusion(surface: Surface) -> NDArray[np.float32]:
    if surface.occlusion is None:
        raise ValueError(f"surface {surface.name!r} has no baked occlusion to write")
    return surface.occlusion


def _surface_arrays(surface: Surface) -> _Arrays:
    return {
        f"{surface.name}_triangles": _indices(surface.triangles),
        f"{surface.name}_uv": surface.uv.astype(np.float32),
        f"{surface.name}_uv_triangles": _indices(surface.uv_triangles),
    }


def _sparse(blendshapes: NDArray[np.float32], ids: NDArray[np.int64]) -> _Arrays:
    """Some blendshapes as sparse rows: ids, number of rows of each, vertex and displacement of each row."""
    moving = [np.flatnonzero(np.abs(blendshapes[k]).max(axis=1) > _MIN_DISPLACEMENT) for k in ids]
    rows = [blendshapes[k, vertices] for k, vertices in zip(ids, moving, strict=True)]
    return {
        "action_ids": ids.astype(np.uint8),
        "action_counts": np.array([len(vertices) for vertices in moving], np.int32),
        "action_vertices": _indices(np.concatenate([*moving, np.zeros(0, np.int64)])),
        "action_displacements": np.concatenate([*rows, np.zeros((0, 3))]).astype(np.float16),
    }


def _read_blendshapes(shared: _Arrays, own: _Arrays, vertices: int) -> NDArray[np.float32]:
    blendshapes = np.zeros((len(ARKIT_NAMES), vertices, 3), np.float32)
    for stored in (shared, own):
        ends = np.cumsum(stored["action_counts"])
        for column, end, count in zip(stored["action_ids"], ends, stored["action_counts"], strict=True):
            rows = slice(end - count, end)
            blendshapes[column] = 0
            blendshapes[column, stored["action_vertices"][rows]] = stored["action_displacements"][rows]
    return blendshapes


def _describe(face: Face) -> dict[str, Any]:
    """The entry of a face in the JSON: materials by surface and attachment, and the names of its textures."""
    colors = [surface.scalp_color for surface in face.surfaces if surface.scalp is not None]
    return {
        "surfaces": {s.name: _describe_surface(s) for s in face.surfaces},
        "attachments": {name: _describe_surface(a.surface) for name, a in face.attachments.items()},
        "scalp_color": [round(float(value), 5) for value in colors[0]] if colors else [0.0, 0.0, 0.0],
        "textures": list(face.textures),
    }


def _describe_surface(surface: Surface) -> dict[str, Any]:
    """A surface's smoothness and the values of its material that differ from the default."""
    default = asdict(Material())
    material = {key: value for key, value in asdict(surface.material).items() if value != default[key]}
    return {"smooth": surface.smooth, "material": material}


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / MATERIALS
    try:
        description: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FaceError(
            f"no head: {path} ({reason_of(error)}). Build it with python -m sedtalker.recipes head_asset"
        ) from error
    if description.get("version") != VERSION:
        raise FaceError(
            f"the head has version {description.get('version')}: {path}. This program reads version {VERSION}"
        )
    return description


def _read_surface(name: str, shared: _Arrays, own: _Arrays, description: dict[str, Any]) -> Surface:
    scalp = _dequantize(own["scalp"]) if name == "skin" and "scalp" in own else None
    return replace(
        _plain_surface(name, shared, description["surfaces"][name], _dequantize(own["occlusion"])),
        scalp=scalp,
        scalp_color=tuple(description["scalp_color"]) if scalp is not None else (0.0, 0.0, 0.0),
    )


def _read_attachment(name: str, own: _Arrays, description: dict[str, Any]) -> Attachment:
    occlusion = _dequantize(own[f"{name}_occlusion"])
    return Attachment(
        _plain_surface(name, own, description["attachments"][name], occlusion),
        own[f"{name}_indices"].astype(np.int32),
        own[f"{name}_weights"],
        own[f"{name}_offsets"],
    )


def _plain_surface(name: str, arrays: _Arrays, description: dict[str, Any], occlusion: NDArray[np.float32]) -> Surface:
    material: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description["material"].items()
    }
    return Surface(
        name,
        arrays[f"{name}_triangles"].astype(np.int32),
        arrays[f"{name}_uv"],
        arrays[f"{name}_uv_triangles"].astype(np.int32),
        Material(**material),
        occlusion,
        smooth=description["smooth"],
    )


def _group(arrays: _Arrays, prefix: str) -> dict[str, NDArray[np.int32]]:
    return {key.removeprefix(prefix): ids.astype(np.int32) for key, ids in arrays.items() if key.startswith(prefix)}


def _dequantize(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
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
