"""Textures as JPEG and PNG files that every tool reads, and the maps of roughness and normals made from them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.face.rig import Face, Material

_COLOR_QUALITY, _MAP_QUALITY = 90, 85  # of JPEG
_RELIEF_SIZE = 1024  # pixels, the longer side of a normal map
_GLOSS_SIZE = 256
_SKIN_WIDTH = 0.34  # metres across the skin's texture: what a height of the bump map is set against


def encode_color(face: Face, material: Material) -> tuple[bytes, str] | None:
    """Encoded base colour and its media type; PNG where opacity counts. None: the surface has no texture."""
    if material.texture is None:
        return None
    pixels = face.textures[material.texture]
    if material.mode == "opaque":
        return _encoded(Image.fromarray(np.ascontiguousarray(pixels[..., :3])), _COLOR_QUALITY), "image/jpeg"
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", compress_level=4)
    return stored.getvalue(), "image/png"


def encode_roughness(face: Face, material: Material) -> bytes | None:
    """JPEG of roughness in green and metalness (none) in blue, from the gloss in the skin's alpha channel."""
    if material.kind != "skin" or material.texture is None:
        return None
    gloss = Image.fromarray(np.ascontiguousarray(face.textures[material.texture][..., 3]))
    gloss.thumbnail((_GLOSS_SIZE, _GLOSS_SIZE))
    rough = np.zeros((gloss.height, gloss.width, 3), np.uint8)
    rough[..., 1] = np.clip(255 - 0.72 * np.asarray(gloss, np.float32), 0, 255)
    return _encoded(Image.fromarray(rough), _MAP_QUALITY)


def encode_normals(face: Face, material: Material) -> bytes | None:
    """JPEG of the relief's normals in tangent space, x right, y up (glTF's and OpenGL's convention)."""
    if material.bump is None:
        return None
    relief = Image.fromarray(face.textures[material.bump][..., 0])
    relief.thumbnail((_RELIEF_SIZE, _RELIEF_SIZE), Image.Resampling.BOX)
    height = np.asarray(relief, np.float32) * np.float32(material.bump_height / 255)
    pixel = _SKIN_WIDTH / relief.width  # metres
    return _encoded(Image.fromarray(_normals(height, pixel)), _MAP_QUALITY)


def _normals(height: NDArray[np.float32], pixel: float) -> NDArray[np.uint8]:
    right = np.zeros_like(height)
    down = np.zeros_like(height)
    right[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / (2 * pixel)
    down[1:-1] = (height[2:] - height[:-2]) / (2 * pixel)
    normal = np.stack([-right, down, np.ones_like(height)], axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return np.clip(normal * 127.5 + 128, 0, 255).astype(np.uint8)


def _encoded(picture: Image.Image, quality: int) -> bytes:
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=quality)
    return stored.getvalue()
