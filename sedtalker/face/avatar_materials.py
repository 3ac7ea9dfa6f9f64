"""Materials and textures of glTF files in the terms of the renderer."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.errors import FaceWarning
from sedtalker.face.gltf import Gltf
from sedtalker.face.rig import Float, Index, Material

_SIZE = 2048  # pixels, the longest side of a texture; the renderer reduces it to its size on the screen
_MAX_TILES = 4  # repetitions of a texture along each side
GLOSS = 158  # alpha of a skin's texture: 0.62, as on the packaged heads
_BARE_SKIN = (0.56, 0.43, 0.36)  # linear RGB of skin whose texture cannot be read
_SOLID = 0.98  # least opacity of a surface without holes
_OPAQUE = np.ones(1)
_FAINT = 0.05  # opacity of what is hardly seen
_HOLES = 0.002  # share of the sampled places of a surface that may be less opaque: filtered borders
_RELIEF = 24.0  # texels; longer waves of a normal map are left to the mesh
_STEEPEST = 0.95  # sine of the steepest slope of a normal map

# Words in the names of material, mesh and node -> kind, tested in this order.
_WORDS = (
    ("plain", r"cornea|eye_?wet|tear|occlusion|glass|lens|shadow|highlight|hat|cap"),
    ("card", r"lash|brow"),
    ("tongue", r"tongue"),
    ("teeth", r"teeth|tooth|gum"),
    ("mouth", r"mouth|oral"),
    ("eye", r"eye|iris|pupil|sclera|(high|low).?poly"),  # MakeHuman's eyes are named high-poly
    ("hair", r"hair|beard|mustache|moustache|scalp|bangs|ponytail"),
    ("cloth", r"cloth|outfit|shirt|top|dress|jacket|suit|pants|shoe|foot"),
    ("skin", r"skin|head|face|body|neck"),
)
LOOKS = {
    "skin": Material(kind="skin", wrap=(0.42, 0.26, 0.18), specular=1.0, gloss=24.0, sheen=0.1),
    "eye": Material(kind="eye", wrap=(0.25, 0.2, 0.2), specular=0.5, gloss=90.0, ambient=0.9),
    "teeth": Material(kind="teeth", wrap=(0.5, 0.45, 0.4), specular=0.6, gloss=60.0),
    "mouth": Material(kind="mouth", wrap=(0.2, 0.1, 0.1), specular=0.5, gloss=40.0, ambient=0.8),
    "tongue": Material(kind="tongue", wrap=(0.3, 0.15, 0.15), specular=0.8, gloss=40.0, ambient=0.9),
    "hair": Material(kind="hair", wrap=(0.35, 0.35, 0.35), specular=0.12, gloss=40.0),
    "card": Material(kind="card", wrap=(0.6, 0.6, 0.6), gloss=10.0),
    "cloth": Material(kind="cloth", wrap=(0.1, 0.1, 0.1), gloss=10.0, sheen=0.1),
    "plain": Material(kind="plain", wrap=(0.15, 0.15, 0.15), specular=0.3, gloss=30.0),
}


class Look(NamedTuple):
    """The appearance of a primitive."""

    material: Material
    uv: Float  # (U, 2), v up
    uv_triangles: Index  # (F, 3)


def classify(names: str, moves_mouth: bool) -> str:
    """The kind of a surface by the names of its material, mesh and node; skin if its mesh moves with the mouth."""
    lower = names.lower()
    for kind, words in _WORDS:
        if re.search(words, lower):
            return kind
    return "skin" if moves_mouth else "plain"


class Pictures:
    """The textures of the surfaces, collected by name."""

    def __init__(self, gltf: Gltf) -> None:
        self._gltf = gltf
        self.textures: dict[str, NDArray[np.uint8]] = {}

    def look(self, primitive: dict[str, Any], kind: str, uv_sets: dict[int, Float], triangles: Index) -> Look:
        """Material and texture coordinates of a primitive.

        Args:
            primitive: of the file.
            kind: of `classify`.
            uv_sets: texture coordinates (N, 2) by set, v down, of its vertices.
            triangles: (F, 3) of the primitive.
        """
        entry = self._gltf.item("materials", primitive["material"]) if "material" in primitive else {}
        surface = entry.get("pbrMetallicRoughness", {})
        specular_glossiness = entry.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        factor = np.ones(4)
        given = surface.get("baseColorFactor", specular_glossiness.get("diffuseFactor", (1, 1, 1, 1)))
        factor[:] = np.array(given, np.float64).reshape(4)
        reference = surface.get("baseColorTexture", specular_glossiness.get("diffuseTexture"))
        alpha_mode = entry.get("alphaMode", "OPAQUE")
        mode = {"MASK": "hair", "BLEND": "hair" if kind == "hair" else "blend"}.get(alpha_mode, "opaque")
        pixels = self._pixels(reference)
        uv, tiles = self._coordinates(reference, uv_sets, triangles)
        if mode != "opaque" and factor[3] > _SOLID:  # many programs write one alpha mode for all materials
            opacity = _OPAQUE if pixels is None else _shown_opacity(pixels, uv, tiles)
            clear = opacity < _SOLID
            seen = opacity[opacity > _FAINT]
            if clear.mean() <= _HOLES:
                mode = "opaque"
            elif len(seen) and (seen >= _SOLID).mean() > 0.5:
                mode = "hair"  # solid with soft borders: layers that only blend let the one below through at edges
        if mode != "opaque" and kind == "skin":
            kind = "plain"  # the fourth channel of a skin's texture is its gloss
        if kind == "skin" and reference is not None and self._image(reference) is None and factor[:3].min() == 1:
            factor[:3] = _BARE_SKIN
        material = replace(LOOKS[kind], mode=mode, tint=tuple(np.clip(factor[:3], 0, 1).astype(float).tolist()))
        if pixels is None and mode != "opaque":
            pixels = np.full((1, 1, 4), 255, np.uint8)
        if pixels is not None:
            cutoff = float(entry.get("alphaCutoff", 0.5)) if alpha_mode == "MASK" and mode != "opaque" else 0.0
            pixels = _with_alpha(pixels, kind, mode, float(factor[3]), cutoff)
            name = self._store(tile_picture(pixels, tiles), f"{entry.get('name', 'texture')}")
            material = replace(material, texture=name)
        relief = self._relief(entry.get("normalTexture"), uv, triangles, tiles)
        if relief is not None:
            heights, steepness = relief
            name = self._store(heights, f"{entry.get('name', 'texture')}_bump")
            material = replace(material, bump=name, bump_height=steepness)
        v_up = uv.uv * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
        return Look(material, v_up.astype(np.float32), uv.triangles)

    def _store(self, pixels: NDArray[np.uint8], name: str) -> str:
        for number in range(len(self.textures) + 1):
            own = name if number == 0 else f"{name}_{number}"
            known = self.textures.get(own)
            if known is None or (known.shape == pixels.shape and np.array_equal(known, pixels)):
                self.textures[own] = pixels
                return own
        raise AssertionError("a free number exists")

    def _image(self, reference: dict[str, Any]) -> int | None:
        texture = self._gltf.item("textures", reference["index"])
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source")
        source = texture.get("source") if webp is None else webp
        if source is None and "KHR_texture_basisu" in texture.get("extensions", {}):
            warnings.warn(
                f"textures in KTX2 are not read: {self._gltf.path}. Export them as PNG, JPEG or WebP",
                FaceWarning,
                stacklevel=2,
            )
        return None if source is None else int(source)

    def _pixels(self, reference: dict[str, Any] | None) -> NDArray[np.uint8] | None:
        image = None if reference is None else self._image(reference)
        if image is None:
            return None
        return fit_picture(self._gltf.picture(image))

    def _coordinates(
        self, reference: dict[str, Any] | None, uv_sets: dict[int, Float], triangles: Index
    ) -> tuple[Coordinates, Tiles]:
        """Coordinates within the picture, or within a picture of some repetitions of it."""
        reference = reference or {}
        transform = reference.get("extensions", {}).get("KHR_texture_transform", {})
        number = int(transform.get("texCoord", reference.get("texCoord", 0)))
        count = int(triangles.max()) + 1 if len(triangles) else 0
        uv = uv_sets.get(number, np.zeros((count, 2), np.float32)).astype(np.float64)
        if transform:
            angle = float(transform.get("rotation", 0))
            scale = np.array(transform.get("scale", (1, 1)), np.float64).reshape(2)
            offset = np.array(transform.get("offset", (0, 0)), np.float64).reshape(2)
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            uv = (uv * scale) @ turn.T + offset
        wraps = self._wraps(reference)
        return wrap_coordinates(uv, triangles, wraps)

    def _wraps(self, reference: dict[str, Any]) -> tuple[int, int]:
        if "index" not in reference:
            return 33071, 33071
        texture = self._gltf.item("textures", reference["index"])
        sampler = self._gltf.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        return int(sampler.get("wrapS", 10497)), int(sampler.get("wrapT", 10497))

    def _relief(
        self, reference: dict[str, Any] | None, uv: Coordinates, triangles: Index, tiles: Tiles
    ) -> tuple[NDArray[np.uint8], float] | None:
        """Bump map (H, W, 1) of a normal map, and its height in units of the texture's side; scaled by the caller."""
        pixels = self._pixels(reference)
        if pixels is None or reference is None:
            return None
        heights = heights_of_normals(pixels[..., :3], float(reference.get("scale", 1.0)))
        low, high = np.quantile(heights, (0.001, 0.999))
        if not high - low > 1e-9:
            return None
        scaled = np.clip((heights - low) / (high - low), 0, 1)
        return tile_picture((scaled * 255 + 0.5).astype(np.uint8)[..., None], tiles), float(high - low)


class Coordinates(NamedTuple):
    """Texture coordinates of the corners of triangles."""

    uv: NDArray[np.float64]  # (U, 2), v down, in [0, 1]
    triangles: Index  # (F, 3)


class Tiles(NamedTuple):
    """How often a texture is repeated along u and v, and whether every second copy is mirrored."""

    counts: tuple[int, int] = (1, 1)
    mirrored: tuple[bool, bool] = (False, False)


def heights_of_normals(pixels: NDArray[np.uint8], scale: float = 1.0) -> NDArray[np.float64]:
    """Heights (H, W) in texels whose slopes are those of a normal map (H, W, 3), without long waves.

    The least-squares integral of Frankot and Chellappa (PAMI 1988), by the Fourier transform.
    """
    normals = pixels.astype(np.float64) / 127.5 - 1
    across, up = (np.clip(normals[..., k] * scale, -_STEEPEST, _STEEPEST) for k in (0, 1))
    steep = np.sqrt(np.maximum(1 - np.minimum(across**2 + up**2, _STEEPEST**2), 1e-3))
    right, down = -across / steep, up / steep
    right, down = right - right.mean(), down - down.mean()
    wave_x = 2 * np.pi * np.fft.fftfreq(pixels.shape[1])[None]
    wave_y = 2 * np.pi * np.fft.fftfreq(pixels.shape[0])[:, None]
    square = wave_x**2 + wave_y**2
    square[0, 0] = 1
    spectrum = -1j * (wave_x * np.fft.fft2(right) + wave_y * np.fft.fft2(down)) / square
    spectrum *= 1 - np.exp(-square * _RELIEF**2 / 2)
    heights: NDArray[np.float64] = np.fft.ifft2(spectrum).real
    return heights


def metres_per_texel(points: Float, triangles: Index, uv: Float, uv_triangles: Index, size: tuple[int, int]) -> float:
    """Median size of a texel in metres, for a texture of (H, W) pixels on triangles of points (V, 3)."""
    corners = uv[uv_triangles] * np.array([size[1], size[0]], np.float32)
    b, c = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    texels = np.abs(b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    sides = points[triangles]
    areas = np.linalg.norm(np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]), axis=1)
    used = (texels > 1e-6) & (areas > 0)
    return float(np.sqrt(np.median(areas[used] / texels[used]))) if used.any() else 0.0


def _shown_opacity(pixels: NDArray[np.uint8], uv: Coordinates, tiles: Tiles) -> NDArray[np.float64]:
    """Opacity (N,), 0 to 1, of a texture at the corners of a surface's triangles and inside of them."""
    if int(pixels[..., 3].min()) >= _SOLID * 255 or not len(uv.triangles):
        return _OPAQUE
    shares = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)], np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    places = np.einsum("pk,fkc->fpc", shares, uv.uv[uv.triangles]).reshape(-1, 2) * tiles.counts
    turns = np.floor(places)
    inside = places - turns
    inside = np.where(np.array(tiles.mirrored) & (turns % 2 == 1), 1 - inside, inside)
    size = np.array(pixels.shape[1::-1])
    columns, rows = np.clip((inside * size).astype(int), 0, size - 1).T
    opacity: NDArray[np.float64] = pixels[rows, columns, 3] / 255
    return opacity


def fit_picture(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (H, W, 4), reduced to at most `_SIZE` pixels on a side."""
    if max(pixels.shape[:2]) <= _SIZE:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIZE, _SIZE), Image.Resampling.BOX)
    return np.asarray(picture)


def _with_alpha(pixels: NDArray[np.uint8], kind: str, mode: str, factor: float, cutoff: float) -> NDArray[np.uint8]:
    result = pixels.copy()
    if mode == "opaque":
        result[..., 3] = GLOSS if kind == "skin" else 255
        return result
    alpha = result[..., 3] * np.float32(np.clip(factor, 0, 1))
    if cutoff > 0:  # the renderer's hair is solid above its own threshold
        alpha = np.clip((alpha - cutoff * 255) * 4 + 153, 0, 255)
    result[..., 3] = alpha + 0.5
    return result


def wrap_coordinates(uv: NDArray[np.float64], triangles: Index, wraps: tuple[int, int]) -> tuple[Coordinates, Tiles]:
    """Shift each triangle to the first tile that it touches; the picture is repeated for those that span several."""
    clamp = [wrap == 33071 for wrap in wraps]
    mirror = [wrap == 33648 for wrap in wraps]
    tolerance = 1e-3
    inside = (uv >= -tolerance) & (uv <= 1 + tolerance)
    if all(clamped or bool(inside[:, axis].all()) for axis, clamped in enumerate(clamp)):
        return Coordinates(np.clip(uv, 0, 1), triangles), Tiles()
    corners = uv[triangles]  # (F, 3, 2)
    counts = [1, 1]
    for axis in (0, 1):
        if clamp[axis]:
            corners[..., axis] = np.clip(corners[..., axis], 0, 1)
            continue
        step = 2 if mirror[axis] else 1
        first = np.floor((corners[..., axis].min(axis=1) + tolerance) / step) * step
        corners[..., axis] -= first[:, None]
        corners[..., axis] = np.maximum(corners[..., axis], 0)
        counts[axis] = int(np.clip(np.ceil(corners[..., axis].max(initial=1) - tolerance), step, _MAX_TILES))
        corners[..., axis] = np.minimum(corners[..., axis] / counts[axis], 1)
    unique, ids = np.unique(corners.reshape(-1, 2).round(7), axis=0, return_inverse=True)
    return (
        Coordinates(unique, ids.reshape(-1, 3).astype(np.int32)),
        Tiles((counts[0], counts[1]), (mirror[0], mirror[1])),
    )


def tile_picture(pixels: NDArray[np.uint8], tiles: Tiles) -> NDArray[np.uint8]:
    """The picture, repeated as often as the coordinates of `wrap_coordinates` need it."""
    for axis, count, mirrored in ((1, tiles.counts[0], tiles.mirrored[0]), (0, tiles.counts[1], tiles.mirrored[1])):
        if count > 1:
            copies = [np.flip(pixels, axis) if mirrored and number % 2 else pixels for number in range(count)]
            pixels = np.concatenate(copies, axis=axis)
    return np.ascontiguousarray(pixels)
