"""Encode textures as JPEG and PNG, with maps of roughness and normals computed from them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.face.rig import Face, Material

_COLOR_QUALITY, _MAP_QUALITY = 90, 85  # of JPEG
_BUMP_SIZE = 1024  # pixels, the longer side of a normal map
_GLOSS_SIZE = 256
_SKIN_WIDTH = 0.34  # metres that the skin's texture covers, to scale the heights of the bump map


def encode_color(face: Face, material: Material) -> tuple[bytes, str] | None:
    """Base colour as PNG if opacity matters, else JPEG, and its media type; None without a texture."""
    if material.texture is None:
        return None
    pixels = face.textures[material.texture]
    if material.mode == "opaque":
        return _encode_jpeg(Image.fromarray(np.ascontiguousarray(pixels[..., :3])), _COLOR_QUALITY), "image/jpeg"
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", compress_level=4)
    return stored.getvalue(), "image/png"


def encode_roughness(face: Face, material: Material) -> bytes | None:
    """JPEG with roughness in green and zero metalness in blue, from the gloss in the skin's alpha channel."""
    if material.kind != "skin" or material.texture is None:
        return None
    gloss = Image.fromarray(np.ascontiguousarray(face.textures[material.texture][..., 3]))
    gloss.thumbnail((_GLOSS_SIZE, _GLOSS_SIZE))
    roughness = np.zeros((gloss.height, gloss.width, 3), np.uint8)
    roughness[..., 1] = np.clip(255 - 0.72 * np.asarray(gloss, np.float32), 0, 255)
    return _encode_jpeg(Image.fromarray(roughness), _MAP_QUALITY)


def encode_normals(face: Face, material: Material) -> bytes | None:
    """JPEG of the bump map's normals in tangent space, x right, y up (convention of glTF and OpenGL)."""
    if material.bump is None:
        return None
    bump = Image.fromarray(face.textures[material.bump][..., 0])
    bump.thumbnail((_BUMP_SIZE, _BUMP_SIZE), Image.Resampling.BOX)
    height = np.asarray(bump, np.float32) * np.float32(material.bump_height / 255)
    pixel = _SKIN_WIDTH / bump.width  # metres
    return _encode_jpeg(Image.fromarray(_normals(height, pixel)), _MAP_QUALITY)


def _normals(height: NDArray[np.float32], pixel: float) -> NDArray[np.uint8]:
    right = np.zeros_like(height)
    down = np.zeros_like(height)
    right[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / (2 * pixel)
    down[1:-1] = (height[2:] - height[:-2]) / (2 * pixel)
    normal = np.stack([-right, down, np.ones_like(height)], axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return np.clip(normal * 127.5 + 128, 0, 255).astype(np.uint8)


def _encode_jpeg(picture: Image.Image, quality: int) -> bytes:
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=quality)
    return stored.getvalue()
