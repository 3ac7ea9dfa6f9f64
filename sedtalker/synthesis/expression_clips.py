"""Labelled clips of dynamic expressions, for training and testing recognisers: `sedtalker data expressions -o DIR`.

Rare expressions are as frequent as wanted: fear, disgust, surprise, blends of two emotions, and brief ones of a quarter
to half a second. Identities are mixtures of the packaged heads; views, light, background and occlusions (a box of a
hand's size, half of the face) are random. Every frame has action units, ARKit weights, landmarks in pixels, emotion,
intensity and a mask of the visible face; every clip has a description in words. Hair is that of the heads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError, require
from sedtalker.face.action_units import ACTION_UNITS, action_unit_matrix, emotion_action_units
from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.assets import identities, load_face
from sedtalker.face.association import UNIT_NAMES
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS
from sedtalker.provenance.record import describe
from sedtalker.render.camera import Camera, portrait_camera
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.video import write_video

Float = NDArray[np.float64]
Bytes = NDArray[np.uint8]

EMOTIONS = tuple(label for label in LABELS if label != "neutral")
OCCLUSIONS = ("none", "box", "half")
FORMATS = ("json", "parquet")
BLENDS, BRIEF, SPEAKING, OCCLUDED = 0.2, 0.2, 0.4, 0.3  # shares of the clips
BRIEF_SECONDS = (0.25, 0.5)
VARIATION = 0.25  # of the logarithm of each unit's size, from clip to clip
_STRENGTHS = ((0.45, "slight"), (0.75, "clear"), (1.01, "strong"))


@dataclass(frozen=True)
class ClipOptions:
    """Size of a set of clips."""

    clips: int = 100
    seconds: float = 2.0
    fps: float = 30.0
    size: int = 256  # pixels, width and height
    emotions: tuple[str, ...] = EMOTIONS  # drawn with equal chances; a name may stand several times
    format: str = "json"
    seed: int = 0


@dataclass(frozen=True)
class Expression:
    """The motion of one clip."""

    emotion: str
    blend: str  # second emotion, "" without one
    intensity: Float  # (T,) 0..1
    units: Float  # (T, U), columns of ACTION_UNITS
    weights: Float  # (T, 52)
    brief: bool
    speaking: bool


def draw_expression(rng: np.random.Generator, options: ClipOptions) -> Expression:
    """Draw emotion, timing and size of an expression; a speaking face also opens and closes its mouth."""
    emotion = str(rng.choice(list(options.emotions)))
    others = sorted({*options.emotions} - {emotion})
    blend = str(rng.choice(others)) if others and rng.random() < BLENDS else ""
    brief, speaking = bool(rng.random() < BRIEF), bool(rng.random() < SPEAKING)
    frames = round(options.seconds * options.fps)
    intensity = rng.uniform(0.3, 1.0) * _course(rng, frames, options.fps, brief)
    shape = emotion_action_units((emotion,))[0].astype(np.float64)
    if blend:
        share = rng.uniform(0.3, 0.6)
        shape = (1 - share) * shape + share * emotion_action_units((blend,))[0]
    shape = shape * np.exp(rng.normal(0, VARIATION, len(shape)))
    units = np.clip(intensity[:, None] * shape, 0, 1)
    return Expression(emotion, blend, intensity, units, _weights(rng, units, options.fps, speaking), brief, speaking)


def _course(rng: np.random.Generator, frames: int, fps: float, brief: bool) -> Float:
    """Rise, hold and fall of an expression, (T,) 0..1."""
    seconds = frames / fps
    if brief:
        length = rng.uniform(*BRIEF_SECONDS)
        rise = fall = length / 3
    else:
        rise, fall = rng.uniform(0.2, 0.7, 2)
        length = rng.uniform(min(rise + fall, 0.8 * seconds), seconds)
    start = rng.uniform(0, max(seconds - length, 1e-6))
    time = (np.arange(frames) + 0.5) / fps - start
    ramp = np.clip(np.minimum(time / rise, (length - time) / fall), 0, 1)
    course: Float = ramp * ramp * (3 - 2 * ramp)
    return course


def _weights(rng: np.random.Generator, units: Float, fps: float, speaking: bool) -> Float:
    """ARKit weights (T, 52): units with a random difference of the sides, blinks, and syllables of a speaking face."""
    weights = units @ action_unit_matrix()
    sides = 1 + rng.normal(0, 0.06, weights.shape[1])
    weights = weights * sides
    time = np.arange(len(units)) / fps
    for blink in np.arange(rng.uniform(0.2, 3.0), time[-1], 3.0):
        weights[:, list(arkit_columns("eyeBlink"))] += np.exp(-(((time - blink) / 0.06) ** 2))[:, None]
    if speaking:
        syllables = np.clip(np.sin(2 * np.pi * (4.2 * time + rng.random())), 0, 1)
        weights[:, ARKIT_NAMES.index("jawOpen")] += 0.3 * syllables * rng.uniform(0.5, 1)
        weights[:, ARKIT_NAMES.index("mouthFunnel")] += 0.2 * np.clip(np.sin(2 * np.pi * 1.3 * time), 0, 1)
    clipped: Float = np.clip(weights, 0, 1)
    return clipped


def draw_identity(rng: np.random.Generator, faces: Sequence[Face]) -> tuple[Face, dict[str, float]]:
    """A mixture of the heads' shapes with the skin and hair of one of them, and the shares."""
    first = int(rng.integers(len(faces)))
    shares = rng.dirichlet(np.full(len(faces), 0.4))
    shares = 0.5 * shares
    shares[first] += 0.5
    template = sum(share * face.template for share, face in zip(shares, faces, strict=True))
    named = {face.name: round(float(share), 3) for share, face in zip(shares, faces, strict=True)}
    return replace(faces[first], template=np.asarray(template, np.float32)), named


@dataclass(frozen=True)
class _Scene:
    """Light, view, background and occlusion of a clip."""

    camera: Camera
    background: tuple[float, float, float]
    light: tuple[float, float, float, float]  # gain, its change across and down the picture, and warmth
    occlusion: str
    box: tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture
    color: tuple[int, int, int]


def _draw_scene(rng: np.random.Generator, face: Face) -> _Scene:
    camera = replace(
        portrait_camera(face),
        yaw=float(rng.normal(0, 20)),
        pitch=float(rng.normal(0, 6)),
        field_of_view=float(rng.uniform(11, 18)),
    )
    occlusion = str(rng.choice(OCCLUSIONS[1:])) if rng.random() < OCCLUDED else "none"
    if occlusion == "half":
        box = (0.0, 0.0, 0.5, 1.0) if rng.random() < 0.5 else (0.5, 0.0, 1.0, 1.0)
    else:
        width, height = rng.uniform(0.18, 0.32, 2)
        left, top = rng.uniform(0.2, 0.8 - width), rng.uniform(0.25, 0.85 - height)
        box = (left, top, left + width, top + height)
    light = (rng.uniform(0.65, 1.25), rng.normal(0, 0.25), rng.normal(0, 0.15), rng.normal(0, 0.06))
    red, green, blue = rng.uniform(0.05, 0.8, 3)
    tone = rng.integers(30, 220)
    color = (int(tone), int(0.8 * tone), int(0.7 * tone))
    return _Scene(camera, (red, green, blue), light, occlusion, box, color)


def _light(picture: Bytes, scene: _Scene) -> Bytes:
    """The picture under another light: brighter or darker, from one side, warmer or colder."""
    height, width = picture.shape[:2]
    gain, across, down, warmth = scene.light
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    shade = gain * (1 + across * x + down * y).clip(0.3, 1.7)
    colors = np.array([1 + warmth, 1, 1 - warmth], np.float32)
    return np.clip(picture * (shade[..., None] * colors) + 0.5, 0, 255).astype(np.uint8)


def _occlude(picture: Bytes, scene: _Scene) -> tuple[Bytes, NDArray[np.bool_]]:
    """The picture behind the occlusion, and where it is (H, W)."""
    covered = np.zeros(picture.shape[:2], bool)
    if scene.occlusion != "none":
        height, width = picture.shape[:2]
        left, top, right, bottom = scene.box
        rows = slice(round(top * height), round(bottom * height))
        covered[rows, round(left * width) : round(right * width)] = True
        picture[covered] = scene.color
    return picture, covered


def _face_mask(points: Float, size: int) -> NDArray[np.bool_]:
    """The convex hull (H, W) of projected points (N, 2)."""
    from PIL import Image, ImageDraw

    order = points[np.lexsort((points[:, 1], points[:, 0]))]
    hull: list[Float] = []
    for part in (order, order[::-1]):  # Andrew's monotone chain
        start = len(hull)
        for point in part:
            while len(hull) - start >= 2 and _turn(hull[-2], hull[-1], point) <= 0:
                hull.pop()
            hull.append(point)
        hull.pop()
    image = Image.new("1", (size, size))
    ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in hull], fill=1)
    return np.array(image, bool)


def _turn(a: Float, b: Float, c: Float) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def write_clips(folder: Path, options: ClipOptions) -> list[dict[str, Any]]:
    """Write clips, tables, masks and a data card; returns the rows of the table of clips.

    Raises:
        DataError: the folder contains files.
        MissingExtraError: Parquet without pyarrow.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"the folder is not empty: {folder}. Remove it or choose another with -o")
    if options.format == "parquet":
        require("pyarrow.parquet", "parquet")
    faces = [load_face(name) for name in identities()]
    rows, frames = [], []
    for number in range(options.clips):
        rng = np.random.default_rng([options.seed, number])
        row, table = _write_clip(folder, f"{number:06d}", rng, faces, options)
        rows.append(row)
        frames += table
    _write_table(folder / f"clips.{options.format}", rows)
    _write_table(folder / f"frames.{options.format}", frames)
    with atomic_write(folder / "README.md") as temp_path:
        temp_path.write_text(format_card(options, rows), encoding="utf-8")
    return rows


def _write_clip(
    folder: Path, name: str, rng: np.random.Generator, faces: Sequence[Face], options: ClipOptions
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    expression = draw_expression(rng, options)
    face, shares = draw_identity(rng, faces)
    scene, size = _draw_scene(rng, face), options.size
    renderer = SoftRenderer(face, size, size, camera=scene.camera, background=scene.background)
    points = np.array(list(face.landmarks.values()))
    front = np.unique(np.concatenate([face.masks[key] for key in face.masks])) if face.masks else points
    masks, table = np.zeros((len(expression.units), size, size), bool), []
    vertices = face.pose(expression.weights)

    def draw() -> Iterator[Bytes]:
        for index, shape in enumerate(vertices):
            picture, covered = _occlude(_light(renderer.frame(shape), scene), scene)
            landmarks = scene.camera.project(shape[points], size, size)[:, :2]
            hull = _face_mask(scene.camera.project(shape[front], size, size)[:, :2].astype(np.float64), size)
            masks[index] = hull & ~covered
            table.append(_frame_row(name, index, expression, landmarks, options.fps))
            yield picture

    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "clips" / f"{name}.mp4", draw(), options.fps, provenance=describe({"face": faces[0].name}))
    with atomic_write(folder / "masks" / f"{name}.npz") as temp_path, temp_path.open("wb") as file:
        np.savez_compressed(file, masks=np.packbits(masks, axis=-1), size=size)
    row = {
        "id": name,
        "video": f"clips/{name}.mp4",
        "masks": f"masks/{name}.npz",
        "emotion": expression.emotion,
        "blend": expression.blend,
        "intensity": round(float(expression.intensity.max()), 3),
        "brief": expression.brief,
        "speaking": expression.speaking,
        "frames": len(expression.units),
        "fps": options.fps,
        "skin": face.name,
        "shape": json.dumps(shares),
        "yaw": round(scene.camera.yaw, 2),
        "pitch": round(scene.camera.pitch, 2),
        "light": json.dumps([round(float(value), 3) for value in scene.light]),
        "occlusion": scene.occlusion,
        "text": describe_expression(expression),
    }
    return row, table


def _frame_row(
    name: str, index: int, expression: Expression, landmarks: NDArray[np.floating], fps: float
) -> dict[str, Any]:
    level = float(expression.intensity[index])
    units = {f"AU{unit:02d}": round(float(v), 4) for unit, v in zip(ACTION_UNITS, expression.units[index], strict=True)}
    return {
        "id": name,
        "frame": index,
        "time": round((index + 0.5) / fps, 4),
        "emotion": expression.emotion if level > 0.05 else "neutral",
        "intensity": round(level, 4),
        **units,
        "weights": expression.weights[index].round(4).tolist(),
        "landmarks": landmarks.astype(float).round(2).ravel().tolist(),
    }


def describe_expression(expression: Expression) -> str:
    """The expression in words: "strong, brief fear: inner brow raised, lips stretched; speaking"."""
    apex = expression.units[int(expression.intensity.argmax())]
    named = [(value, UNIT_NAMES[unit]) for unit, value in zip(ACTION_UNITS, apex, strict=True) if unit in UNIT_NAMES]
    seen = ", ".join(name for value, name in sorted(named, reverse=True)[:4] if value > 0.15)
    strength = next(word for limit, word in _STRENGTHS if expression.intensity.max() < limit)
    kind = f"{expression.emotion} with {expression.blend}" if expression.blend else expression.emotion
    brief = "brief " if expression.brief else ""
    return f"{strength} {brief}{kind}: {seen or 'hardly any movement'}{'; speaking' if expression.speaking else ''}"


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_write(path) as temp_path:
        if path.suffix == ".json":
            temp_path.write_text(json.dumps(rows) + "\n", encoding="utf-8")
        else:
            arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
            parquet.write_table(arrow.Table.from_pylist(rows), temp_path)


def format_card(options: ClipOptions, rows: Sequence[dict[str, Any]]) -> str:
    """The data card."""
    from collections import Counter

    counts = Counter(row["emotion"] for row in rows)
    table = "\n".join(f"| {name} | {counts[name]} |" for name in sorted(counts))
    share = {key: sum(bool(row[key]) for row in rows) for key in ("blend", "brief", "speaking")}
    covered = sum(row["occlusion"] != "none" for row in rows)
    ending = options.format
    return f"""# Generated expressions

{len(rows)} clips of {options.seconds:g} s at {options.fps:g} frames a second, {options.size} x {options.size} pixels,
made by `sedtalker data expressions` with the seed {options.seed}. The faces are synthetic and belong to nobody.

| emotion | clips |
|---|---|
{table}

{share["blend"]} blends of two emotions, {share["brief"]} brief ones, {share["speaking"]} speaking faces,
{covered} occluded.

- `clips.{ending}`: a row for each clip: emotion, second emotion, intensity, identity, view, light, occlusion, text.
- `frames.{ending}`: a row for each frame: action units (0 to 1), 52 ARKit weights, landmarks (x, y in pixels),
  emotion, intensity.
- `clips/*.mp4`: pictures, with a C2PA manifest and a mark.
- `masks/*.npz`: the visible face of each frame, `numpy.unpackbits(masks, axis=-1)`.

Limits: expressions follow one table of action units with random sizes, not recordings; light is a change of the
rendered picture; occlusions are plain boxes. Settings: `{json.dumps(asdict(options))}`.
"""
