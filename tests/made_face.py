"""Small faces for tests of rendering."""

from __future__ import annotations

import numpy as np

from sedtalker.face.rig import Attachment, Face, Material, Surface


def sphere(rings: int = 24, sectors: int = 48, radius: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), triangles (F, 3) that face outwards, and texture coordinates (V, 2) of a sphere."""
    down, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, sectors + 1), indexing="ij")
    points = radius * np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)], -1)
    uv = np.stack([around / (2 * np.pi), 1 - down / np.pi], -1)
    index = np.arange(rings * (sectors + 1)).reshape(rings, sectors + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return points.reshape(-1, 3).astype(np.float32), triangles.astype(np.int32), uv.reshape(-1, 2).astype(np.float32)


def bare_face() -> Face:
    """A sphere without surfaces."""
    vertices, triangles, _ = sphere()
    return Face("ball", vertices, triangles)


def textured_face() -> Face:
    """A textured sphere with a bump map, a lock of hair in front of it and a highlight."""
    vertices, triangles, uv = sphere()
    rows, columns = np.mgrid[0:64, 0:64]
    checks = np.where((rows // 8 + columns // 8) % 2 == 0, 200, 120).astype(np.uint8)
    skin = np.stack([checks, checks * 0.8, checks * 0.7, np.full((64, 64), 128)], -1).astype(np.uint8)
    strands = np.zeros((32, 32, 4), np.uint8)
    strands[..., :3] = (90, 60, 40)
    strands[..., 3] = np.clip(np.arange(32) * 16, 0, 255)[None]
    relief = ((np.sin(rows * 0.7) * 0.5 + 0.5) * 255).astype(np.uint8)[..., None]
    open_ = np.ones(len(vertices), np.float32)
    square = np.array([(0, 1, 2), (0, 2, 3)], np.int32)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    offsets = np.array([(-0.1, 0.0, 0.12), (0.05, 0.0, 0.12), (0.05, 0.1, 0.12), (-0.1, 0.1, 0.12)], np.float32)
    hair = Surface(
        "hair", square, corners, square, Material("hair", "hair", "strands", gloss=40, specular=0.2), open_[:4]
    )
    skin_material = Material(
        "skin", texture="skin", bump="relief", bump_height=0.0005, wrap=(0.4, 0.3, 0.2), specular=1.0, gloss=24
    )
    return Face(
        name="dressed",
        template=vertices,
        faces=triangles,
        surfaces=(
            Surface("skin", triangles, uv, triangles, skin_material, open_, smooth=True),
            Surface("cornea", triangles, uv, triangles, Material("cornea", "add", specular=3.0, gloss=400), open_),
        ),
        attachments={"hair": Attachment(hair, np.zeros((4, 3), np.int32), np.zeros((4, 3), np.float32), offsets)},
        textures={"skin": skin, "strands": strands, "relief": relief},
    )
