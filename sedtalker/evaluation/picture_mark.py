"""Measures of the mark in pictures: false alarms, visibility, time, and survival of compression, scaling and cuts.

The clips that are marked are renderings of random expressions of the packaged heads. The unmarked pictures, all
different, are of four kinds, and of a fifth if a folder of photographs is given:

    renderings    random expressions, cameras and backgrounds, with random size, brightness and noise
    crops         parts of such renderings, mirrored, scaled, brighter or darker, with noise
    compressed    such parts as frames of H.264 videos of random quality
    noise         white and smooth noise, gradients and stripes
    photographs   parts of the photographs, changed like the crops
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.demux import ffmpeg_name
from sedtalker.errors import DataError
from sedtalker.face.assets import identities, load_face
from sedtalker.face.rig import Face
from sedtalker.provenance.mark import HASH_BYTES, Mark, read_mark, read_marks
from sedtalker.provenance.record import describe
from sedtalker.provenance.verify import ALTERED, PICTURES, verify_file
from sedtalker.render.camera import portrait_camera
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.video import write_video

Bytes = NDArray[np.uint8]

CHANCE = 2.0**-32  # of a random payload: 16 bits name the tool, 16 are a checksum
CRF, HEIGHT = 28, 360  # of the attacks: x264's quality factor, and pixels
CLIP_FRAMES, FPS = 60, 30.0
SIZE = 160  # pixels of a rendering that is not marked
CAMERAS = 3  # of each head; each draws an equal share of the renderings
KINDS = ("renderings", "crops", "compressed", "noise", "photographs")
SHARES = (0.03, 0.4, 0.15, 0.1, 0.32)  # of the pictures, by kind; without photographs the crops get their share
VIDEO_FRAMES = 40  # compressed pictures of one video
BATCH = 64  # pictures that are decoded together


@dataclass(frozen=True)
class Attack:
    """Changes of a marked video before its mark is read."""

    name: str
    crf: int = 18
    height: int | None = None  # pixels; None: as it is
    half: bool = False  # only the second half is kept


ATTACKS = (
    Attack(f"CRF {CRF}", crf=CRF),
    Attack(f"{HEIGHT} p", height=HEIGHT),
    Attack("second half", half=True),
    Attack("all three", CRF, HEIGHT, True),
)


@dataclass(frozen=True)
class Survival:
    """How often the mark of the clips was read after an attack."""

    attack: str
    clips: int
    read: int  # clips
    frames: float  # share of the clips' frames whose mark was read alone


@dataclass(frozen=True)
class MarkReport:
    """Figures of the mark."""

    frames: int  # unmarked pictures
    by_kind: dict[str, int]  # of them
    false_alarms: int
    upper_bound: float  # of the rate of false alarms, one-sided 95 % (Clopper-Pearson)
    chance: float  # rate of false alarms by the bits of the payload
    psnr: float  # dB, of the least similar of the marked pictures
    milliseconds: float  # of a frame of a video at the default size, median
    survival: tuple[Survival, ...]

    def plain(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def measure_mark(frames: int = 40_000, seed: int = 0, photographs: Path | None = None) -> MarkReport:
    """Measure the mark on `frames` unmarked pictures, and on one marked clip of every packaged head.

    Raises:
        DataError: the folder has no photograph.
    """
    rng = np.random.default_rng(seed)
    pictures = random_pictures(frames, rng, () if photographs is None else read_photographs(photographs))
    by_kind: Counter[str] = Counter()
    alarms = 0
    while batch := list(islice(pictures, BATCH)):
        by_kind.update(kind for kind, _ in batch)
        alarms += sum(found is not None for found in read_marks([picture for _, picture in batch]))
    mark = Mark(describe({"seed": seed}).digest)
    psnr, survived = [], []
    for name in identities():
        clip = _draw_clip(load_face(name), rng)
        psnr.append(_psnr(clip[0], mark.add(clip[0])))
        survived.append(attack_marks(clip))
    survival = tuple(
        Survival(one.name, len(survived), sum(read for read, _ in rows), float(np.mean([share for _, share in rows])))
        for one, rows in zip(ATTACKS, zip(*survived, strict=True), strict=True)
    )
    bound = _upper_bound(alarms, frames)
    return MarkReport(frames, dict(by_kind), alarms, bound, CHANCE, min(psnr), _time_of_frame(mark), survival)


def read_photographs(folder: Path) -> list[Bytes]:
    """The photographs (H, W, 3) of a folder, at most 1,000 pixels wide and high. Raises DataError if there are none."""
    from PIL import Image, UnidentifiedImageError

    found = []
    for path in sorted(folder.rglob("*") if folder.is_dir() else ()):
        if path.suffix.lower() not in PICTURES:
            continue
        try:
            with Image.open(path) as image:
                image.thumbnail((1000, 1000))
                found.append(np.asarray(image.convert("RGB")))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):  # another program's picture format
            continue
    found = [picture for picture in found if min(picture.shape[:2]) >= SIZE]
    if not found:
        raise DataError(f"no photograph of {SIZE} pixels or more: {folder}. Name a folder of pictures")
    return found


def random_pictures(
    count: int, rng: np.random.Generator, photographs: Sequence[Bytes] = ()
) -> Iterator[tuple[str, Bytes]]:
    """Kinds and different unmarked pictures, (H, W, 3) or, from videos, luma (H, W)."""
    shares = np.array(SHARES if photographs else (*SHARES[:-1], 0.0))
    shares[1] += 1 - shares.sum()
    counts = dict(zip(KINDS, np.diff(np.round(np.cumsum([0, *shares]) * count).astype(int)).tolist(), strict=True))
    drawn = []
    for picture in _renderings(max(1, counts["renderings"]), rng):
        drawn.append(picture)
        if len(drawn) <= counts["renderings"]:
            yield "renderings", _change(picture, rng, 1.0)
    for _ in range(counts["crops"]):
        yield "crops", _change(drawn[int(rng.integers(len(drawn)))], rng)
    sources = [*drawn, *photographs]
    for first in range(0, counts["compressed"], VIDEO_FRAMES):
        length = min(VIDEO_FRAMES, counts["compressed"] - first)
        for picture in _compress(sources, length, rng):
            yield "compressed", picture
    for _ in range(counts["noise"]):
        yield "noise", _noise(rng)
    for _ in range(counts["photographs"]):
        yield "photographs", _change(photographs[int(rng.integers(len(photographs)))], rng)


def _renderings(count: int, rng: np.random.Generator) -> Iterator[Bytes]:
    faces = [load_face(name) for name in identities()]
    cameras = min(count, CAMERAS * len(faces))
    for number in range(cameras):
        renderer = _random_renderer(faces[number % len(faces)], rng)
        for _ in range(number, count, cameras):
            yield renderer.frame(_random_pose(renderer.face, rng))


def _change(picture: Bytes, rng: np.random.Generator, smallest: float = 0.4) -> Bytes:
    """A random part of a picture, mirrored or not, with random size, brightness and noise."""
    from PIL import Image

    height, width = picture.shape[:2]
    share = rng.uniform(smallest, 1.0) * min(1.0, 3 * SIZE / max(height, width))
    rows, columns = max(16, round(share * height)), max(16, round(share * width))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    part = picture[top : top + rows, left : left + columns, :: 1 if rng.random() < 0.5 else -1]
    target = (int(SIZE * rng.uniform(0.6, 1.8)), int(SIZE * rng.uniform(0.6, 1.8)))
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize(target, Image.Resampling.BICUBIC))
    noise = rng.normal(0, rng.uniform(0, 4), resized.shape[:2]).astype(np.float32)[..., None]
    return np.clip(resized * np.float32(rng.uniform(0.6, 1.2)) + noise + 0.5, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator) -> Bytes:
    """White or smooth noise, a gradient or stripes, with a random mean and contrast."""
    from PIL import Image

    height, width = (int(SIZE * value) for value in rng.uniform(0.6, 1.8, 2))
    kind = rng.integers(3)
    if kind == 0:
        plane = rng.normal(0, 1, (height, width))
    elif kind == 1:
        cells = rng.integers(3, 60, 2)
        small = Image.fromarray(rng.normal(0, 1, cells).astype(np.float32))
        plane = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    else:
        x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
        plane = np.sin(rng.uniform(0, 60) * x + rng.uniform(0, 60) * y + rng.uniform(0, 6)) + rng.normal() * x
    colors = rng.uniform(20, 235, 3) + rng.uniform(1, 80) * plane[..., None]
    return np.clip(colors + rng.normal(0, rng.uniform(0, 3), plane.shape)[..., None], 0, 255).astype(np.uint8)


def _compress(sources: Sequence[Bytes], count: int, rng: np.random.Generator) -> list[Bytes]:
    """Luma (H, W) of a video whose frames are random parts of pictures."""
    from PIL import Image

    size = (2 * int(SIZE * rng.uniform(0.35, 0.9)), 2 * int(SIZE * rng.uniform(0.35, 0.9)))
    parts = (Image.fromarray(_change(sources[int(rng.integers(len(sources)))], rng)) for _ in range(count))
    frames = [np.asarray(part.resize(size, Image.Resampling.BICUBIC)) for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pictures.mp4")
        _encode(path, frames, int(rng.integers(18, 37)))
        return _decode_luma(path)


def _random_renderer(face: Face, rng: np.random.Generator) -> SoftRenderer:
    camera = replace(
        portrait_camera(face),
        yaw=float(rng.uniform(-60, 60)),
        pitch=float(rng.uniform(-15, 15)),
        field_of_view=float(rng.uniform(12, 24)),
    )
    background = tuple(rng.uniform(0, 1, 3).tolist()) if rng.random() < 0.7 else None
    return SoftRenderer(face, SIZE, SIZE, camera=camera, background=background)


def _random_pose(face: Face, rng: np.random.Generator) -> NDArray[np.float32]:
    weights = rng.beta(0.4, 2.0, len(face.blendshape_names)).astype(np.float32)
    vertices: NDArray[np.float32] = face.pose(weights[None])[0]
    return vertices


def _draw_clip(face: Face, rng: np.random.Generator) -> list[Bytes]:
    """Frames (H, W, 3) of a face that moves between random expressions, at the default size."""
    renderer = SoftRenderer(face)
    poses = [_random_pose(face, rng) for _ in range(4)]
    frames = []
    for place in np.linspace(0, len(poses) - 1.001, CLIP_FRAMES):
        first, share = int(place), place % 1
        frames.append(renderer.frame(((1 - share) * poses[first] + share * poses[first + 1]).astype(np.float32)))
    return frames


def attack_marks(frames: list[Bytes]) -> list[tuple[bool, float]]:
    """Mark a clip and attack it by each of ATTACKS; returns whether its mark is read, and the share of its frames."""
    provenance = describe({})
    results = []
    with tempfile.TemporaryDirectory() as folder:
        whole, attacked = Path(folder, "whole.mp4"), Path(folder, "attacked.mp4")
        write_video(whole, frames, FPS, provenance=provenance)
        for one in ATTACKS:
            decoded = attack(whole, attacked, one)
            found = verify_file(attacked)
            read = found.status == ALTERED and found.mark == provenance.digest[:HASH_BYTES].hex()
            results.append((read, sum(read_mark(frame) is not None for frame in decoded) / len(decoded)))
    return results


def attack(source: Path, target: Path, how: Attack = ATTACKS[-1]) -> list[Bytes]:
    """Write a video that was compressed, scaled and cut; returns every fifth of its frames (H, W)."""
    import av

    with av.open(ffmpeg_name(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    _encode(target, frames[len(frames) // 2 if how.half else 0 :], how.crf, how.height)
    return _decode_luma(target)[::5]


def _encode(path: Path, frames: Sequence[Bytes], crf: int, height: int | None = None) -> None:
    """Write frames (H, W, 3) as H.264, scaled to a height in pixels if it is given."""
    import av

    rows, columns = frames[0].shape[:2]
    height = height or rows
    width = round(columns * height / rows / 2) * 2
    with av.open(ffmpeg_name(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": str(crf), "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            scaled = frame.reformat(width, height, "yuv420p", interpolation="BICUBIC")
            scaled.pts, scaled.time_base = number, 1 / Fraction(FPS)
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))


def _decode_luma(path: Path) -> list[Bytes]:
    import av

    with av.open(ffmpeg_name(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def _psnr(first: Bytes, second: Bytes) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / error))


def _time_of_frame(mark: Mark, size: int = 512, repeats: int = 200) -> float:
    plane, times = np.full((size, size), 100, np.uint8), []
    for _ in range(repeats):
        start = time.perf_counter()
        mark.add_to_luma(plane)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def _upper_bound(count: int, total: int) -> float:
    """One-sided 95 % bound of a rate, by bisection of the binomial distribution."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        below = sum(math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(count + 1))
        low, high = (rate, high) if below > 0.05 else (low, rate)
    return high


def format_mark(report: MarkReport) -> str:
    """The report as text."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.by_kind.items())
    lines = [
        f"false alarms: {report.false_alarms} of {report.frames} unmarked frames ({kinds})",
        f"  95 % bound of the rate {report.upper_bound:.1e}; by the payload's bits {report.chance:.1e}",
        f"difference: PSNR {report.psnr:.1f} dB or more; time: {report.milliseconds:.3f} ms a frame",
    ]
    lines += [
        f"{one.attack}: mark read in {one.read} of {one.clips} clips, and in {one.frames:.0%} of their frames alone"
        for one in report.survival
    ]
    return "\n".join(lines)
